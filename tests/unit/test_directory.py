"""Who may do what, and how indexes hang together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teepi.api_tokens import ApiToken
from teepi.directory import ANYBODY, Asker, Directory, User
from teepi.errors import BadRequest, Forbidden, NotFound, TeepiError, Unauthorized
from teepi.index_config import IndexConfig, created

ANN, BOB, ROOT = Asker("ann"), Asker("bob"), Asker("root")
TOKEN = ApiToken("aaaaaaaa", "ann", "", "ann/dev", may_upload=True, may_read=True, created_at=0.0, expires_at=10.0,
                 digest="")  # fmt: skip


def directory(*, configured: dict[str, tuple[str, ...]] | None = None, **indexes: dict[str, Any]) -> Directory:
    """Return one with indexes ``user__index`` and their owners."""
    made = {name.replace("__", "/"): created(name.replace("__", "/"), given_) for name, given_ in indexes.items()}
    users = {name: User(name, "", "") for name in ("root", "ann", "bob")}
    return Directory(users, made, {}, configured or {"root/pypi": ()})


def config(of: Directory, name: str) -> IndexConfig:
    """Return an index that is there."""
    found = of.index(name)
    assert found is not None
    return found


def test_order_is_depth_first_and_each_once() -> None:
    """What is below the first base comes before the second; one that is no more is left out."""
    found = directory(
        ann__a={"bases": "ann/b,ann/c,gone/x"},
        ann__b={"bases": "ann/d,root/pypi"},
        ann__c={"bases": "ann/d"},
        ann__d={},
    )
    assert found.order("ann/a") == ["ann/a", "ann/b", "ann/d", "root/pypi", "ann/c"]
    assert found.order("gone/x") == []


def test_bases_that_lead_back_are_refused() -> None:
    """At once or over others."""
    found = directory(ann__a={}, ann__b={"bases": "ann/a"}, ann__c={"bases": "ann/b"})
    with pytest.raises(BadRequest, match="base index 'ann/c' leads back to ann/a; bases cannot go in a circle"):
        found.check_bases(created("ann/a", {"bases": "ann/c"}))
    with pytest.raises(BadRequest, match="leads back to ann/a"):
        found.check_bases(created("ann/a", {"bases": "ann/a"}))
    with pytest.raises(BadRequest, match="base index 'no/pe' does not exist"):
        found.check_bases(created("ann/a", {"bases": "no/pe"}))
    found.check_bases(created("ann/a", {"bases": "root/pypi"}))


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 5), max_size=3)), max_size=12))
def test_no_row_of_changes_makes_a_circle(steps: list[tuple[int, list[int]]]) -> None:
    """What was checked can be walked, from wherever one begins."""
    found = directory(**{f"ann__{number}": {} for number in range(6)})
    for number, bases in steps:
        wanted = created(f"ann/{number}", {"bases": [f"ann/{base}" for base in bases]})
        try:
            found.check_bases(wanted)
        except BadRequest:
            continue
        found = found.changed(made={**found.made, wanted.name: wanted})
    below = {name: set(found.order(name)) - {name} for name in found.made}
    assert all(name not in below[other] for name in below for other in below[name])


def test_settings_come_before_an_index_of_the_same_name() -> None:
    """It is readable by all, and nobody's."""
    found = directory(configured={"ann/dev": ()}, ann__dev={"acl_read": "ann"})
    assert found.index("ann/dev") is None
    assert found.require("ann/dev") is None
    assert found.is_public("ann/dev")
    with pytest.raises(NotFound, match="The stage no/pe could not be found"):
        found.require("no/pe")


def test_index_is_read_by_those_on_its_list_its_owner_and_root() -> None:
    """Groups count; without a list everybody reads."""
    found = directory(ann__own={"acl_read": "ann"}, ann__team={"acl_read": ":AUTHENTICATED:"}, ann__open={},
                      ann__bob={"acl_read": "bob"})  # fmt: skip
    reads = {who.said: [name for name in found.made if found.may_read(who, name, 0.0)]
             for who in (ANYBODY, ANN, BOB, ROOT)}  # fmt: skip
    everything = ["ann/own", "ann/team", "ann/open", "ann/bob"]
    assert reads == {
        "anonymous": ["ann/open"], "ann": everything, "bob": ["ann/team", "ann/open", "ann/bob"], "root": everything,
    }  # fmt: skip
    assert found.readable(ANYBODY, 0.0) == ["ann/open", "root/pypi"]


def test_index_is_not_read_by_whoever_may_not_read_all_below_it() -> None:
    """Leaving the base out would show another's project in the place of its own; of the settings' indexes, too."""
    found = directory(
        configured={"team/all": ("root/pypi",)},
        ann__own={"acl_read": "ann"}, bob__a={"bases": "ann/own"}, bob__b={"bases": "bob/a"},
        root__pypi={"type": "mirror", "mirror_url": "http://x.example/", "acl_read": "root"},
        bob__c={"bases": "team/all"},
    )  # fmt: skip
    for name in ("bob/a", "bob/b", "team/all", "bob/c"):
        assert not found.may_read(BOB, name, 0.0)
        assert not found.is_public(name)
    assert found.may_read(ANN, "bob/b", 0.0)
    assert found.may_read(ROOT, "team/all", 0.0)


def test_token_reads_what_it_is_for_as_long_as_it_holds() -> None:
    """Elsewhere it is worth as much as nobody; never more than its user."""
    found = directory(ann__dev={"acl_read": "ann"}, ann__other={"acl_read": "ann"}, ann__open={})
    asker = replace(ANN, token=TOKEN)
    assert found.readable(asker, 0.0) == ["ann/dev", "ann/open", "root/pypi"]
    assert found.readable(asker, 10.0) == ["ann/open", "root/pypi"]
    uploader = replace(ANN, token=replace(TOKEN, may_read=False))
    assert found.readable(uploader, 0.0) == ["ann/open", "root/pypi"]
    assert not found.may_read(Asker("bob", replace(TOKEN, user="bob")), "ann/dev", 0.0)


def refusal(found: Directory, asker: Asker, name: str = "ann/dev", now: float = 0.0) -> type[TeepiError] | None:
    """Return how an upload would be refused."""
    try:
        found.require_upload(asker, config(found, name), now)
    except TeepiError as error:
        return type(error) if "no permission to submit" in error.message else None
    return None


def test_upload_is_for_those_on_the_list_and_root() -> None:
    """Nobody is asked who he is; others are told that they may not, the owner too when he is not on it."""
    found = directory(ann__dev={}, ann__open={"acl_upload": ":ANONYMOUS:"}, ann__none={"acl_upload": ""})
    assert [refusal(found, who) for who in (ANN, ROOT, BOB, ANYBODY)] == [None, None, Forbidden, Unauthorized]
    assert [refusal(found, who, "ann/open") for who in (BOB, ANYBODY)] == [None, None]
    assert [refusal(found, who, "ann/none") for who in (ANN, ROOT)] == [Forbidden, None]


@pytest.mark.parametrize(
    ("changes", "index", "now", "refused"),
    [
        ({}, "ann/dev", 0.0, None),
        ({}, "ann/other", 0.0, Forbidden),
        ({"index": None}, "ann/other", 0.0, None),
        ({"may_upload": False}, "ann/dev", 0.0, Forbidden),
        ({}, "ann/dev", 10.0, Forbidden),
        ({"expires_at": None}, "ann/dev", 1e12, None),
    ],
)
def test_token_uploads_where_it_is_for_and_while_it_holds(
    changes: dict[str, Any], index: str, now: float, refused: type[TeepiError] | None
) -> None:
    """Scope, right and time each count."""
    found = directory(ann__dev={}, ann__other={})
    assert refusal(found, replace(ANN, token=replace(TOKEN, **changes)), index, now) is refused


def test_toxresult_is_posted_by_those_on_its_list() -> None:
    """Anybody by default; a token that does not upload counts as nobody."""
    found = directory(ann__open={}, ann__dev={"acl_toxresult_upload": "ann"})
    found.require_toxresult(ANYBODY, config(found, "ann/open"), 0.0)
    found.require_toxresult(replace(ANN, token=TOKEN), config(found, "ann/dev"), 0.0)
    reader = replace(ANN, token=replace(TOKEN, may_upload=False))
    found.require_toxresult(reader, config(found, "ann/open"), 0.0)
    for asker in (BOB, reader, ANYBODY):
        with pytest.raises(Forbidden, match="no permission to upload tox results"):
            found.require_toxresult(asker, config(found, "ann/dev"), 0.0)


def test_changes_are_the_owners_and_roots_but_no_tokens() -> None:
    """``restrict_modify`` names others in their place, and root stays."""
    found = directory()
    for asker in (ANN, ROOT):
        found.require_owner(asker, "ann", "x", ())
    for asker, words in ((BOB, "^no permission to x$"), (ANYBODY, "x; nobody is logged in$"),
                         (replace(ANN, token=TOKEN), "an API token changes no users")):  # fmt: skip
        with pytest.raises(Forbidden, match=words):
            found.require_owner(asker, "ann", "x", ())
    found.require_owner(BOB, "ann", "x", (":AUTHENTICATED:",))
    found.require_owner(ROOT, "ann", "x", ("bob",))
    with pytest.raises(Forbidden):
        found.require_owner(ANN, "ann", "x", ("bob",))
    with pytest.raises(Forbidden):
        found.require_owner(ANYBODY, "ann", "x", (":ANONYMOUS:",))


def test_anyone_makes_a_user_until_restrict_modify_names_who() -> None:
    """Then those, and root; no token."""
    found = directory()
    found.require_new_user(ANYBODY, ())
    for asker in (BOB, ROOT):
        found.require_new_user(asker, ("bob",))
    for asker in (ANYBODY, ANN, Asker("bob", replace(TOKEN, user="bob"))):
        with pytest.raises(Forbidden, match="restrict_modify says who may"):
            found.require_new_user(asker, ("bob",))
