"""Writes: under which names they are taken, and from which web pages. Where absolute links lead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from teepi.errors import RefusedWrite
from teepi.web import answers, guard

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from teepi.config import Settings

NAMES = ("teepi.example", "*.build.example")


def settings(names: tuple[str, ...] = NAMES, outside_url: str | None = None) -> Settings:
    """Return what the guard reads of them."""
    return cast("Settings", SimpleNamespace(allowed_hosts=names, outside_url=outside_url))


def request(*headers: tuple[str, str], method: str = "POST") -> BaseRequest:
    """Return what the guard reads of a request."""
    return cast(
        "BaseRequest",
        SimpleNamespace(
            headers=CIMultiDictProxy(CIMultiDict(headers)),
            method=method,
            scheme="http",
            get_extra_info=lambda _: ("127.0.0.1", 3141),
        ),
    )


def refused(*headers: tuple[str, str], method: str = "POST", of: Settings | None = None) -> str:
    """Return why a request is refused, nothing when it is not."""
    try:
        guard.check(request(*headers, method=method), of or settings())
    except RefusedWrite as error:
        return error.message
    return ""


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:3141", "10.0.0.7", "[::1]:3141", "[2001:db8::1]", "localhost", "localhost:3141", "LocalHost."),
        *("app.localhost:3141", "app.localhost.", "box", "box:3141", "build_1", "teepi.example", "Teepi.Example.:8443"),
        *("a.build.example", "a.b.build.example:80"),
    ],
)
def test_write_under_a_name_of_teepis_is_taken(host: str) -> None:
    """Addresses, localhost, names without a dot, and those of the setting; ports do not matter."""
    assert refused(("Host", host)) == ""


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:3141", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost.x"),
        *("build.example", "xbuild.example", "a.teepi.example", "teepi.example.evil.example", "box.", ".", "127.1"),
    ],
)
def test_write_under_another_name_is_refused_and_told_the_setting(host: str) -> None:
    """Whoever owns it can point it here: a browser then sends what their page says."""
    assert "allowed_hosts" in refused(("Host", host))
    assert host.partition(":")[0] in refused(("Host", host))


@pytest.mark.parametrize(
    "hosts", [(), ("",), ("a b",), ("<script>",), ("[::1",), ("user@box",), ("box", "evil.example")]
)
def test_write_without_one_readable_host_is_refused(hosts: tuple[str, ...]) -> None:
    """And nothing of it is said again."""
    assert refused(*(("Host", host) for host in hosts)) == (
        "A write names the host that it is for; this one has no Host that can be read."
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_is_never_refused(method: str) -> None:
    """Under whatever name, from wherever."""
    evil = (("Host", "evil.example"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site"))
    assert refused(*evil, method=method) == ""


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "MKCOL", "post"])
def test_every_other_method_is_a_write(method: str) -> None:
    """Also one that nobody has heard of."""
    assert refused(("Host", "evil.example"), method=method)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:3141", "http://127.0.0.1:3141"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("127.0.0.1:443", "https://127.0.0.1"),
        ("box", "https://Box"),
        ("[::1]:3141", "http://[::1]:3141"),
        ("box:3141", "https://box:3141"),
        ("box:3141", "https://teepi.example"),
        ("teepi.example:8443", "https://teepi.example"),
        ("box", "http://a.build.example:9000"),
    ],
)
def test_write_from_a_page_of_teepis_own_is_taken(host: str, origin: str) -> None:
    """The same host and port, TLS or not (it may end before teepi), or a name of the setting."""
    assert refused(("Host", host), ("Origin", origin), ("Sec-Fetch-Site", "same-origin")) == ""


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "", "http://evil.example", "http://127.0.0.1:8000", "http://127.0.0.1", "https://127.0.0.1:443"),
        *("http://localhost:3141", "http://127.0.0.1:3141.evil.example", "http://127.0.0.1:3141/", "127.0.0.1:3141"),
        *("moz-extension://127.0.0.1:3141", "http://127.0.0.1:3141 http://evil.example", "http://build.example"),
    ],
)
def test_write_from_another_page_is_refused(origin: str) -> None:
    """Another port of this machine is another page, too."""
    assert "allowed_hosts" in refused(("Host", "127.0.0.1:3141"), ("Origin", origin))


def test_write_with_two_origins_is_refused() -> None:
    """One of them would do."""
    assert refused(("Host", "box"), ("Origin", "http://box"), ("Origin", "http://box"))


def test_write_that_the_browser_calls_cross_site_is_refused() -> None:
    """A form of another site's, also where Origin was taken off; a client of no browser says nothing of it."""
    assert "another site" in refused(("Host", "box"), ("Sec-Fetch-Site", "cross-site"))
    for site in ("same-origin", "same-site", "none"):
        assert refused(("Host", "box"), ("Sec-Fetch-Site", site)) == ""


def test_host_of_outside_url_is_a_name_of_teepis() -> None:
    """With any port, as Host and as Origin."""
    of = settings((), "https://Packages.example:8443/teepi")
    assert refused(("Host", "packages.example"), of=of) == ""
    assert refused(("Host", "127.0.0.1:3141"), ("Origin", "https://packages.example:8443"), of=of) == ""
    assert refused(("Host", "a.packages.example"), of=of)
    by_address = settings((), "https://[2001:db8::1]")
    assert refused(("Host", "box"), ("Origin", "https://[2001:db8::1]"), of=by_address) == ""


@pytest.mark.parametrize(
    ("setting", "header", "expected"),
    [
        ("https://a.example/x", "https://b.example", "https://a.example/x"),
        (None, "https://b.example/sub/", "https://b.example/sub"),
        (None, None, "http://box:3141"),
        (None, "b.example", "http://box:3141"),
        (None, "javascript:alert(1)", "http://box:3141"),
        (None, "https://b.example/$(reboot)", "http://box:3141"),
        (None, "https://u@b.example/", "http://box:3141"),
    ],
)
def test_absolute_links_begin_with_the_setting_else_the_proxys_header_else_host(
    setting: str | None, header: str | None, expected: str
) -> None:
    """A header that is no sound URL says nothing."""
    headers = [("Host", "box:3141")] + ([("X-Outside-URL", header)] if header is not None else [])
    assert answers.outside(request(*headers), settings((), setting)) == expected
