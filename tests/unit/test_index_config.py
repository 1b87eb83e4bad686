"""Settings of indexes as clients give them: text and JSON, both forms of changes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teepi.errors import BadRequest
from teepi.index_config import IndexConfig, changed, check_index_name, check_user_name, created

_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text("aB0,/:-*\ud800", max_size=6)
MIRROR = {"type": "mirror", "mirror_url": "https://index.example/simple/"}


def stage(**values: Any) -> IndexConfig:
    """Return a new stage."""
    return created("ann/dev", values)


def refused(config: IndexConfig, change: Any) -> str:
    """Return the sentence with which a change is refused."""
    with pytest.raises(BadRequest) as caught:
        changed(config, change)
    return caught.value.message


def test_stage_without_settings_shows_exactly_devpis_defaults() -> None:
    """Seven keys, in the types that clients expect."""
    assert stage().shown() == {
        "type": "stage", "volatile": True, "bases": [], "acl_upload": ["ann"],
        "acl_toxresult_upload": [":ANONYMOUS:"], "mirror_whitelist": [], "mirror_whitelist_inheritance": "intersection",
    }  # fmt: skip


def test_mirror_shows_what_it_was_given_and_is_volatile_unless_told_otherwise() -> None:
    """So it can be deleted again, as devpi has it; numbers and switches have their types."""
    assert created("ann/m", MIRROR).shown() == {**MIRROR, "volatile": True}
    told = created("ann/m", {**MIRROR, "mirror_cache_expiry": "1800", "volatile": "False"})
    assert told.shown() == {**MIRROR, "volatile": False, "mirror_cache_expiry": 1800}


@pytest.mark.parametrize(
    ("given_value", "is_volatile"),
    [("true", True), ("YES", True), (True, True), ("False", False), ("no", False), (False, False)],
)
def test_switch_is_read_in_any_case(given_value: object, is_volatile: bool) -> None:  # noqa: FBT001 - a parameter
    """As text and as JSON."""
    assert stage(volatile=given_value).is_volatile is is_volatile


def test_lists_come_as_text_with_commas_or_as_json() -> None:
    """Bases lose their slashes, groups are in capitals, names of projects normalised; each is there once, in order."""
    for bases in ("/root/pypi,b/c", ["root/pypi", "b/c", "/root/pypi/"], " root/pypi , b/c,"):
        assert stage(bases=bases).bases == ("root/pypi", "b/c")
    assert stage(bases="").bases == ()
    assert stage(acl_upload=":anonymous:,bob,bob").acl_upload == (":ANONYMOUS:", "bob")
    assert stage(mirror_whitelist="he_llo,*").shown()["mirror_whitelist"] == ["he-llo", "*"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"foo": "1"}, "indexconfig got unexpected keyword arguments: foo=1"),
        ({"mirror_url": "x"}, "indexconfig got unexpected keyword arguments: mirror_url=x"),
        ({"type": "other"}, "'other' is no type of an index"),
        ({"type": []}, "no type of an index"),
        ({"volatile": "maybe"}, "write True or False"),
        ({"volatile": None}, "write True or False"),
        ({"volatile": 1}, "write True or False"),
        ({"bases": "pypi"}, "invalid base index spec: 'pypi'"),
        ({"bases": {"a": 1}}, "write a list of names"),
        ({"acl_upload": None}, "write a list of names"),
        ({"acl_upload": [1]}, "write a list of names"),
        ({"mirror_whitelist": "-x-"}, "write names of projects, or *"),
        ({"mirror_whitelist_inheritance": "sum"}, "write intersection or union"),
        ({"mirror_whitelist_inheritance": []}, "write intersection or union"),
        ({"title": 5}, "write a text"),
        ({"title": "x" * 10_001}, "write a text"),
        ({"custom_data": ["x" * 10_001]}, "10000 characters"),
        ({"type": "mirror"}, "A mirror needs a mirror_url"),
        ({**MIRROR, "mirror_url": "ftp://x/"}, "write an absolute URL"),
        ({**MIRROR, "mirror_cache_expiry": "soon"}, "write a number of seconds"),
        ({**MIRROR, "mirror_cache_expiry": True}, "write a number of seconds"),
        ({**MIRROR, "mirror_cache_expiry": -1}, "write a number of seconds"),
        ({**MIRROR, "mirror_web_url_fmt": "javascript:alert(1)"}, "begins with http"),
        ({**MIRROR, "bases": "a/b"}, "unexpected keyword arguments: bases=a/b"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_a_sentence(settings: dict[str, Any], words: str) -> None:
    """Whatever type JSON brings."""
    with pytest.raises(BadRequest) as caught:
        created("ann/dev", settings)
    assert words in caught.value.message


def test_refused_mirror_url_does_not_repeat_its_password() -> None:
    """The sentence goes into logs."""
    with pytest.raises(BadRequest) as caught:
        created("ann/m", {**MIRROR, "mirror_url": "https://ann:secret@index.example/?x"})
    assert "secret" not in caught.value.message


@given(
    st.dictionaries(
        st.sampled_from([*stage().shown(), "title", "description", "custom_data", "mirror_url", "acl_read", "x"]),
        _VALUES | st.lists(_VALUES, max_size=3) | st.dictionaries(st.just("a"), _VALUES),
        max_size=3,
    )
)
def test_any_json_is_settings_or_refused(settings: dict[str, Any]) -> None:
    """What was taken is the same when it is sent back, and nothing else is ever raised."""
    try:
        config = created("ann/dev", settings)
    except BadRequest:
        return
    assert changed(config, config.shown()).shown() == config.shown()


def test_steps_set_add_take_out_and_forget() -> None:
    """In their order, on top of each other."""
    config = changed(stage(), ["title=a=b", "acl_upload+=bob,:authenticated:", "acl_upload+=bob", "volatile=no"])
    assert config.shown()["title"] == "a=b"
    assert config.acl_upload == ("ann", "bob", ":AUTHENTICATED:")
    config = changed(config, ["title-=", "acl_upload-=:authenticated:,ann", "bases=/root/pypi", "type=stage"])
    assert "title" not in config.shown()
    assert (config.acl_upload, config.bases, config.is_volatile) == (("bob",), ("root/pypi",), False)
    config = changed(config, ["bases-=/root/pypi", "acl_upload-=", "volatile-="])
    assert config.shown() == stage().shown()
    assert changed(config, ["acl_upload="]).acl_upload == ()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("foo", "'foo' is no change of an index"),
        ("=x", "'=x' is no change of an index"),
        (5, "'5' is no change of an index"),
        ("foo=1", "indexconfig got unexpected keyword arguments: foo=1"),
        ("foo+=1", "indexconfig got unexpected keyword arguments: foo=1"),
        ("volatile=", "write True or False"),
        ("volatile+=True", "volatile is no list"),
        ("title-=x", "title is no list"),
        ("acl_upload-=bob", "The 'acl_upload' setting doesn't have value 'bob'"),
        ("type=mirror", "'type' cannot be changed"),
        ("type-=", "'type' cannot be changed"),
    ],
)
def test_step_that_cannot_be_is_refused_with_a_sentence(step: object, words: str) -> None:
    """And nothing of the whole list is done, which is the caller's business."""
    assert words in refused(stage(), ["title=x", step])


def test_change_of_the_type_is_refused_in_every_form() -> None:
    """Also as part of the whole; the same type is no change."""
    assert "'type' cannot be changed" in refused(stage(), {"type": "mirror"})
    assert "'type' cannot be changed" in refused(stage(), {"type": ["stage"]})
    assert changed(stage(), {"type": "stage"}).kind == "stage"
    for nonsense in ("x", 5, None):
        assert "an object of settings, or a list" in refused(stage(), nonsense)


def test_mirror_keeps_its_password_when_a_client_sends_back_what_it_was_shown() -> None:
    """The URL is shown without; another URL is another one, and none at all is refused."""
    config = created("ann/m", {**MIRROR, "mirror_url": "https://ann:secret@index.example/simple"})
    assert "secret" not in str(config.shown())
    assert changed(config, config.shown()).values["mirror_url"] == "https://ann:secret@index.example/simple"
    assert changed(config, ["mirror_url=https://b.example"]).values["mirror_url"] == "https://b.example"
    assert "A mirror needs its mirror_url" in refused(config, ["mirror_url-="])


@pytest.mark.parametrize("name", ["ann", "a@b.example", ".x", "A-b_c.d", "x" * 100])
def test_names_of_devpis_are_names(name: str) -> None:
    """Letters, digits and -.@_ in any order."""
    assert (check_user_name(name), check_index_name(name)) == (name, name)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "a:b", "a+b", "+x", "a~b", "a\n", "ü", "x" * 101])
def test_names_that_break_urls_or_lists_are_none(name: str) -> None:
    """The sentence says what may stand in one."""
    for check in (check_user_name, check_index_name):
        with pytest.raises(BadRequest, match=r"is not the name of an? (user|index)"):
            check(name)


def test_reserved_names_are_refused() -> None:
    """They are paths of teepi's own, in whatever case, and the user of API tokens."""
    for name in ("simple", "Simple", "metrics", "__token__"):
        with pytest.raises(BadRequest, match="is reserved"):
            check_user_name(name)
    with pytest.raises(BadRequest, match="is reserved"):
        check_index_name("json")
