"""Where redirects and links may lead (fault 16): http(s) and public addresses, hop by hop, in every spelling."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from teepi.outbound import PrivateAddress, _Resolver
from tests.http.links import file_target, get_page, is_sentence
from tests.http.named import give_names, named
from tests.support.clients import fetch
from tests.support.faults import Redirect
from tests.support.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import MakeTeepi

NAME = "demo-1.0.tar.gz"
CONTENT = b"demo" * 100
PATH = f"/packages/demo/{NAME}"


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let names of loopback addresses resolve."""
    give_names(monkeypatch)


@pytest.fixture
async def inner() -> AsyncIterator[Upstream]:
    """Give a server that only this machine should reach; it has the file and the page."""
    server = Upstream()
    await server.start()
    server.project("demo", {NAME: CONTENT})
    yield server
    await server.stop()


SPELLINGS = [
    "127.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "0.0.0.0",  # noqa: S104 - it means this machine, too
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "localhost",
    "other.example",
    "mapped.example",
    "nat64.example",
]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_redirect_to_a_private_address_is_refused(
    upstream: Upstream, inner: Upstream, make_teepi: MakeTeepi, host: str
) -> None:
    """Fault 16. A file and a page that redirect there are 503 with a sentence, and nothing arrives there."""
    upstream.project("demo", {NAME: CONTENT})
    upstream.project("page")
    teepi = await make_teepi()
    target = await file_target(teepi, NAME)
    origin = named(host, inner)
    upstream.script(PATH, itertools.repeat(Redirect(origin + PATH)))
    upstream.script("/simple/page/", itertools.repeat(Redirect(origin + "/simple/demo/")))
    for answer in (await fetch(teepi.address, target), await get_page(teepi, "page")):
        assert answer.status == 503
        assert is_sentence(answer)
        assert b"private" in answer.body
        assert CONTENT not in answer.body
    assert inner.requests == []


@pytest.mark.parametrize("host", SPELLINGS)
async def test_page_link_to_a_private_address_is_refused(
    upstream: Upstream, inner: Upstream, make_teepi: MakeTeepi, host: str
) -> None:
    """Fault 16. A link of a page is no better than a redirect; GET, HEAD and a range of it are all refused."""
    upstream.project("demo", {NAME: CONTENT}, size=False, extra={NAME: {"url": named(host, inner) + PATH}})
    teepi = await make_teepi()
    target = await file_target(teepi, NAME)
    for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=0-3"})):
        assert (await fetch(teepi.address, target, headers, method)).status == 503
    assert inner.requests == []


@pytest.mark.parametrize("to", ["file:///etc/hostname", "ftp://127.0.0.1/x", "javascript:1", "data:,x"])
async def test_redirect_to_another_scheme_is_refused(upstream: Upstream, make_teepi: MakeTeepi, to: str) -> None:
    """Fault 16. Only http and https, with a host."""
    upstream.project("demo", {NAME: CONTENT})
    teepi = await make_teepi()
    target = await file_target(teepi, NAME)
    upstream.script(PATH, itertools.repeat(Redirect(to)))
    answer = await fetch(teepi.address, target)
    assert answer.status == 503
    assert is_sentence(answer)
    assert b"no http or https URL" in answer.body


async def test_redirects_end_after_ten(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Fault 16. Ten are followed, a loop is left after them."""
    upstream.project("demo", {NAME: CONTENT})
    teepi = await make_teepi()
    target = await file_target(teepi, NAME)
    upstream.script(PATH, itertools.repeat(Redirect(PATH)))
    answer = await fetch(teepi.address, target)
    assert (answer.status, upstream.count("GET", PATH)) == (503, 11)
    assert b"redirects more than 10 times" in answer.body
    upstream.script(PATH, [Redirect(PATH)] * 10)
    assert (await fetch(teepi.address, target)).body == CONTENT


async def test_allow_private_lets_links_lead_to_private_addresses(
    upstream: Upstream, inner: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 16. Where an operator says so, an inner index may have its files elsewhere inside."""
    upstream.project("demo", {NAME: CONTENT}, files_at=inner)
    teepi = await make_teepi(index={"allow_private": True})
    assert (await fetch(teepi.address, await file_target(teepi, NAME))).body == CONTENT


async def test_upstream_under_a_private_name_is_asked_itself_and_nothing_beside_it(
    upstream: Upstream, inner: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 16. What the operator configured may be inside; another port of the same host is another origin."""
    origin = named("index.example", upstream)
    upstream.project("demo", {NAME: CONTENT}, links="rooted")
    teepi = await make_teepi(index={"upstream": f"{origin}/simple/"})
    upstream.script(PATH, [Redirect(named("index.example", inner) + PATH)])
    target = await file_target(teepi, NAME)
    assert (await fetch(teepi.address, target)).status == 503
    assert inner.requests == []
    assert (await fetch(teepi.address, target)).body == CONTENT


async def test_resolver_gives_out_public_addresses_only() -> None:
    """Fault 16. What is connected to is what was looked at: of a mixed answer the public part."""
    resolver = _Resolver({("index.example", 80)}, allow_private=False)
    assert [found["host"] for found in await resolver.resolve("mixed.example", 80)] == ["8.8.8.8"]
    assert [found["host"] for found in await resolver.resolve("index.example", 80)] == ["127.0.0.1"]
    for host, port in (("index.example", 81), ("other.example", 80)):
        with pytest.raises(PrivateAddress):
            await resolver.resolve(host, port)


class _Names:
    """Stands for the resolver behind ours."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self.addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[Any]:
        """Give the one address of ``host``."""
        return [{"hostname": host, "host": self.addresses[host], "port": port, "family": family}]


@pytest.mark.parametrize(
    ("upstream", "other", "given"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("203.0.113.8", "203.0.113.8", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("8.8.8.8", "10.0.0.1", False),
        ("10.0.0.1", "169.254.169.254", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", False),
    ],
)
async def test_resolver_gives_out_the_upstreams_own_address_for_other_names(
    monkeypatch: pytest.MonkeyPatch, *, upstream: str, other: str, given: bool
) -> None:
    """Fault 16. A gateway that stands for the internet has one address for all; nothing else is let in."""
    resolver = _Resolver({("index.example", 443)}, allow_private=False)
    monkeypatch.setattr(resolver, "_inner", _Names({"index.example": upstream, "files.example": other}))
    if given:
        assert [found["host"] for found in await resolver.resolve("files.example", 443)] == [other]
    else:
        with pytest.raises(PrivateAddress):
            await resolver.resolve("files.example", 443)
