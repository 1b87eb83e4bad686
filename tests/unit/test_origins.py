"""Origins, user info and public addresses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from teepi import index_settings, origins
from teepi.clients.change import Change
from teepi.clients.user_file import UserFile
from teepi.http_semantics import shown_target
from teepi.origins import Origin, basic, hide_user_info, is_public, origin_of, split_user_info


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]
)
def test_is_public_of_a_public_address_is_true(address: str) -> None:
    """Also where it is carried in another one."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.0.1", "169.254.1.1", "172.16.0.1", "192.0.2.1"),  # noqa: S104 - not bound to
        *("192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%lo", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::10.0.0.1", "::ffff:0:10.0.0.1"),
        *("64:ff9b::10.0.0.1", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1", "2001:0:a00:1::"),
    ],
)
def test_is_public_of_any_other_address_is_false(address: str) -> None:
    """Fault 16. Private, shared, link-local, multicast, reserved, unspecified, and IPv6 that carries such IPv4."""
    assert not is_public(address)


def test_origin_of_knows_default_ports_case_and_brackets() -> None:
    """Two spellings of one origin are equal, another scheme or port is another origin."""
    assert (
        origin_of("https://u:p@Index.Example/a")
        == origin_of("https://index.example:443/")
        == Origin("https", "index.example", 443)
    )
    assert origin_of("http://[::1]:8/") == Origin("http", "::1", 8)
    assert origin_of("http://index.example/") != origin_of("https://index.example/")


@pytest.mark.parametrize("url", ["file:///etc", "//x/", "http://", "https:///a", "index.example"])
def test_origin_of_what_is_no_http_url_is_refused(url: str) -> None:
    """Fault 16. Nothing else has an origin."""
    with pytest.raises(ValueError, match="not an http"):
        origin_of(url)


def test_split_user_info_decodes_it_and_leaves_the_rest() -> None:
    """What is sent is what the operator meant; what stays can be shown."""
    assert split_user_info("https://u%40x:p%2F@h.example:8/a?b") == ("https://h.example:8/a?b", ("u@x", "p/"))
    assert split_user_info("https://h.example/a@b") == ("https://h.example/a@b", None)
    assert basic("user", "pässword") == "Basic dXNlcjpww6Rzc3dvcmQ="


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://index.example/simple/", "https://index.example/simple/"),
        ("https://u:p@index.example:8/a?b", "https://…@index.example:8/a?b"),
        ("ftp://user:pa@ss@host/", "ftp://…@host/"),
        ("http://bob:it's-s3cret@host/ simple/", "http://…@host/ simple/"),
        ("http://bob:a/b?c#d@host/", "http://…@host/"),
        ("http://bob:8/b@host/", "http://…@host/"),
        ("//bob:a@host/", "…@host/"),
        ("http:/bob:a@host/", "…@host/"),
        ("bob:a//b@host/", "…@host/"),
        ("demo", "demo"),
    ],
)
def test_hide_user_info_hides_all_up_to_the_last_at_sign(url: str, said: str) -> None:
    """Rather too much than a part of a password, where the URL is not well-formed."""
    assert hide_user_info(url) == said


@given(st.text(alphabet=st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1))
@example("it's s3cret")
@example("1/x")
@example("a://b")
@example("a//b")
@example("pa@ss")
@example("a?b")
def test_password_of_any_characters_is_never_shown(password: str) -> None:
    """In no message, log line or difference, whole or in part, well-formed or not."""
    hidden = [f"«{part}»" for part in (password, password[::-1])]
    password = "@".join(hidden)
    for scheme in ("http://", "ftp://", "//", "http:/", ""):
        url = f"{scheme}bob:{password}@host/simple/"
        change = Change(UserFile(Path("pip.conf"), f"index-url = {url}\n", None), "")
        texts = [
            *(index_settings.shown(value) for value in (url, [url], [[url]], {"url": url})),
            hide_user_info(url),
            origins.shown(url),
            shown_target(url),
        ]
        if scheme in {"http://", "ftp://", "//"}:
            texts += [change.diff(), shown_target(f"/x/{url}")]
        for text in texts:
            assert "«" not in text
            assert "»" not in text
