"""Freshness and codings of pages over HTTP: refreshes, the circuit breaker, Retry-After, encoded variants."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import sys
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from teepi.limits import Limits
from teepi.server import Server
from tests.http.links import file_target, get_page
from tests.support.clients import fetch
from tests.support.faults import HangBeforeHead, Status
from tests.support.projects import JSON
from tests.support.teepi import settings_for

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.http.clock import Clock
    from tests.support.upstream import Upstream

TTL = 600
PATIENT = replace(Limits(), page_patience_seconds=5.0)


def _projects(upstream: Upstream, count: int) -> list[str]:
    names = [f"demo{number}" for number in range(count)]
    for name in names:
        upstream.project(name, {f"{name}-1.0.tar.gz": b"x"})
    return names


def _asked(upstream: Upstream) -> int:
    return sum(request.path.startswith("/simple/demo") for request in upstream.requests)


async def test_page_refresh_asks_upstream_once_in_a_few_seconds(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock
) -> None:
    """Contract 20. ``no-cache`` (uv --refresh) revalidates, coalesced and spaced; ``max-age=0`` does not."""
    _projects(upstream, 1)
    teepi = await make_teepi(PATIENT, page_ttl_seconds=TTL)
    await get_page(teepi, "demo0")
    clock.advance(5)
    await get_page(teepi, "demo0", **{"Cache-Control": "max-age=0"})
    assert _asked(upstream) == 1
    fresh = {"Cache-Control": "max-age=0, No-Cache"}
    await asyncio.gather(*(get_page(teepi, "demo0", **fresh) for _ in range(20)))
    assert _asked(upstream) == 2
    clock.advance(2)
    await get_page(teepi, "demo0", **fresh)
    assert _asked(upstream) == 2
    clock.advance(2)
    await get_page(teepi, "demo0", **fresh)
    assert _asked(upstream) == 3


async def test_upstream_that_fails_is_left_alone_and_stale_pages_served(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock
) -> None:
    """Contract 33. After three failures in a row nobody asks until a probe has been answered."""
    names = _projects(upstream, 8)
    teepi = await make_teepi(PATIENT, page_ttl_seconds=TTL)
    for name in names:
        assert (await get_page(teepi, name)).status == 200
        upstream.script(f"/simple/{name}/", itertools.repeat(Status(503)))
    clock.advance(TTL + 1)
    for name in names:
        answer = await get_page(teepi, name)
        assert (answer.status, answer.headers["cache-status"]) == (200, "teepi; hit; detail=stale")
    assert _asked(upstream) == 8 + 3
    unknown = await get_page(teepi, "demo9")
    assert (unknown.status, unknown.headers["retry-after"]) == (503, "1")
    assert _asked(upstream) == 8 + 3
    for name in names:
        upstream.script(f"/simple/{name}/", [])
    clock.advance(1.1)
    for name in names:
        assert "stale" not in (await get_page(teepi, name)).headers["cache-status"].partition("detail")[2]
    assert _asked(upstream) == 8 + 3 + 8


def test_patience_is_a_setting(tmp_path: Path) -> None:
    """Issue 3. What waits for a revalidation waits as long as the settings say."""
    settings = settings_for(tmp_path, "http://index.example/simple/", patience_seconds=0.7)
    assert Server(settings).limits == replace(Limits(), page_patience_seconds=0.7)


async def test_upstream_that_hangs_costs_patience_three_times_and_then_nothing(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock
) -> None:
    """Contract 33. Fault 13. After three vain waits a stale page is served at once; the asking goes on behind."""
    names = _projects(upstream, 6)
    teepi = await make_teepi(replace(Limits(), page_patience_seconds=0.4), page_ttl_seconds=TTL)
    for name in names:
        await get_page(teepi, name)
        upstream.script(f"/simple/{name}/", itertools.repeat(HangBeforeHead()))
    clock.advance(TTL + 1)
    loop = asyncio.get_running_loop()
    waits = []
    for name in names:
        began = loop.time()
        assert (await get_page(teepi, name)).status == 200
        waits.append(loop.time() - began)
    assert min(waits[:3]) >= 0.4
    assert max(waits[3:]) < 0.4


@pytest.mark.parametrize("spelling", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_upstream_that_asks_for_time_gets_it(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock, spelling: str, status: int
) -> None:
    """Contract 35. Fault 15. Retry-After is obeyed at once in both spellings, and never passed on."""
    names = _projects(upstream, 2)
    teepi = await make_teepi(PATIENT, page_ttl_seconds=TTL)
    wait = "30" if spelling == "seconds" else formatdate(clock.time() + 30, usegmt=True)
    upstream.script(f"/simple/{names[0]}/", [Status(status, {"Retry-After": wait})])
    first = await get_page(teepi, names[0])
    assert (first.status, first.headers["retry-after"]) == (503, "1")
    clock.advance(20)
    assert (await get_page(teepi, names[1])).status == 503
    assert _asked(upstream) == 1
    clock.advance(11)
    assert (await get_page(teepi, names[1])).status == 200


@pytest.mark.parametrize("path", ["/simple/", "/pypi/demo0/json"])
async def test_list_and_legacy_json_stored_by_a_clock_that_ran_ahead_grow_old(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock, path: str
) -> None:
    """Fault 9. As pages do: a stored time from the future counts as now, and a jump changes no age in a process."""
    _projects(upstream, 1)
    upstream.file("/pypi/demo0/json", b'{"info":{},"releases":{},"urls":[]}', content_type="application/json")
    teepi = await make_teepi(PATIENT, page_ttl_seconds=TTL)
    for ahead in (400 * 86400, -3 * 3600, 400 * 86400):
        clock.wall_ahead = ahead
        assert (await fetch(teepi.address, path)).status == 200
        assert upstream.count("GET", path) == 1
    await teepi.stop()
    clock.wall_ahead = 0
    again = await make_teepi(PATIENT, page_ttl_seconds=TTL)
    for count in (1, 2, 2):
        assert (await fetch(again.address, path)).status == 200
        assert upstream.count("GET", path) == count
        clock.advance(TTL + 1 if count == 1 else 1)


async def test_page_that_cannot_be_read_says_nothing_of_its_upstream(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Fault 14. One broken project does not keep the others from being asked for."""
    names = _projects(upstream, 1)
    teepi = await make_teepi(PATIENT)
    for number in range(5):
        upstream.file(f"/simple/broken{number}/", b"{", content_type="application/vnd.pypi.simple.v1+json")
        assert (await get_page(teepi, f"broken{number}")).status == 503
    assert (await get_page(teepi, names[0])).status == 200


@pytest.mark.parametrize(
    ("taken", "coding", "decode"),
    [("gzip, deflate", "gzip", gzip.decompress), ("gzip, deflate, br, zstd", "zstd", zstd.decompress)],
    ids=["pip", "uv"],
)
@pytest.mark.parametrize("accept", [JSON, "text/html"])
async def test_page_comes_in_the_coding_that_the_client_takes(
    upstream: Upstream, make_teepi: MakeTeepi, accept: str, taken: str, coding: str, decode: Callable[[bytes], bytes]
) -> None:
    """Contract 9, 11. Same page, another ETag in each coding, 304 to each its own, length and Vary right."""
    upstream.project("demo", {f"demo-1.{number}.tar.gz": b"x" for number in range(100)})
    teepi = await make_teepi()
    plain = await fetch(teepi.address, "/simple/demo/", {"Accept": accept})
    packed = await fetch(teepi.address, "/simple/demo/", {"Accept": accept, "Accept-Encoding": taken})
    assert packed.headers["content-encoding"] == coding
    assert decode(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 3
    assert packed.headers["content-length"] == str(len(packed.body))
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept, Accept-Encoding"
    assert "content-encoding" not in plain.headers
    assert packed.headers["etag"] != plain.headers["etag"]
    headers = {"Accept": accept, "Accept-Encoding": coding, "If-None-Match": packed.headers["etag"]}
    again = await fetch(teepi.address, "/simple/demo/", headers)
    assert (again.status, again.body) == (304, b"")
    other = await fetch(teepi.address, "/simple/demo/", headers | {"Accept-Encoding": "identity"})
    assert other.status == 200
    deflated = await fetch(teepi.address, "/simple/demo/", {"Accept": accept, "Accept-Encoding": "deflate, br"})
    assert (deflated.body, deflated.headers.get("content-encoding")) == (plain.body, None)


async def test_file_and_metadata_are_never_encoded(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Contract 11. A digest is of the bytes as they are."""
    content = b"x" * 100_000
    name = "demo-1.0.tar.gz"
    upstream.project("demo", {name: content}, metadata={name: content})
    teepi = await make_teepi()
    target = await file_target(teepi, name)
    for suffix in ("", ".metadata"):
        for _ in range(2):
            answer = await fetch(teepi.address, target + suffix, {"Accept-Encoding": "gzip, zstd, identity;q=0"})
            assert "content-encoding" not in answer.headers
            assert answer.body == content
    asked = [request for request in upstream.requests if request.path.startswith("/packages/")]
    assert {request.headers["accept-encoding"] for request in asked} == {"identity"}
