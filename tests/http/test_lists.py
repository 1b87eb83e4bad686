"""The project list over HTTP: every form from either, kept, revalidated, stale, offline, and never half of it."""

from __future__ import annotations

import asyncio
import errno
import gzip
import itertools
import json
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest

from teepi.index_settings import IndexSettings
from teepi.limits import Limits
from tests.http.links import HTML_V1, HtmlPage, is_sentence
from tests.support.clients import RawClient, fetch
from tests.support.faults import EarlyEnd, HangBeforeHead, Status
from tests.support.projects import HTML, JSON
from tests.support.teepi import FAST

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.http.clock import Clock
    from tests.support.clients import Answer
    from tests.support.faults import Fault
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

LIST = "/simple/"
ROUTES = ("/simple/", "/root/pypi/+simple/", "/index/", "/pypi/simple/")
NAMES = ["Foo.Bar", "demo", "other"]
AS_JSON = json.dumps(
    {"meta": {"api-version": "1.4", "_last-serial": 7}, "projects": [{"name": name, "x": 1} for name in NAMES]}
).encode()
AS_HTML = b"<html><body>" + b"".join(b'<a href="/simple/%b/">%b</a>' % (n.encode(), n.encode()) for n in NAMES)


@pytest.fixture
async def teepi(upstream: Upstream, clock: Clock, make_teepi: MakeTeepi) -> Teepi:  # noqa: ARG001 - for its effect
    """Start teepi before a list in JSON."""
    publish(upstream, AS_JSON)
    return await make_teepi(Limits())


def publish(upstream: Upstream, content: bytes, content_type: str = JSON) -> None:
    """Let upstream have ``content`` as its list."""
    upstream.file(LIST, content, content_type=content_type)


async def get(teepi: Teepi, accept: str = JSON, target: str = LIST, **headers: str) -> Answer:
    """Fetch the list."""
    return await fetch(teepi.address, target, {"Accept": accept} | headers)


def names(answer: Answer) -> list[str]:
    """Return the names in a list of either form."""
    assert answer.status == 200
    assert answer.complete
    body = gzip.decompress(answer.body) if "content-encoding" in answer.headers else answer.body
    if answer.headers["content-type"] == JSON:
        return [project["name"] for project in json.loads(body)["projects"]]
    return list(HtmlPage(body).anchors)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("accept", [JSON, HTML_V1, HTML])
@pytest.mark.parametrize("form", [JSON, HTML])
async def test_list_comes_in_the_form_asked_for_whatever_upstream_has(
    upstream: Upstream, make_teepi: MakeTeepi, form: str, accept: str, encoding: str
) -> None:
    """Contract 8, 9, 11 and 17. By Accept and Accept-Encoding, each with an ETag of its own."""
    publish(upstream, AS_JSON if form == JSON else AS_HTML, form)
    teepi = await make_teepi(Limits())
    answer = await get(teepi, accept, **{"Accept-Encoding": encoding})
    assert names(answer) == NAMES
    assert answer.headers["content-type"] == accept
    assert answer.headers.get("content-encoding", "identity") == encoding
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert answer.headers["cache-control"] == "no-cache"
    assert "last-modified" not in answer.headers
    others = {
        (await get(teepi, a, **{"Accept-Encoding": e})).headers["etag"]
        for a in (JSON, HTML_V1, HTML)
        for e in ("identity", "gzip")
    }
    assert len(others) == 6
    assert upstream.count("GET", LIST) == 1
    again = await get(teepi, accept, **{"Accept-Encoding": encoding, "If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    head = await fetch(teepi.address, LIST, {"Accept": accept, "Accept-Encoding": encoding}, "HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(answer.body)))


async def test_list_in_json_is_upstreams_own_to_the_byte(teepi: Teepi) -> None:
    """Contract 10 and 13. Unknown keys survive and the version is the one that upstream claims."""
    assert (await get(teepi)).body == AS_JSON


async def test_list_links_are_relative_and_lead_to_the_pages(teepi: Teepi) -> None:
    """Contract 6. By every route, to the normalised name under the same prefix."""
    for route in ROUTES:
        anchors = HtmlPage((await get(teepi, HTML, route)).body).anchors
        assert urljoin(route, str(anchors["Foo.Bar"]["href"])) == f"{route}foo-bar/"


async def test_list_that_no_form_of_is_accepted_is_406(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 10. And nothing is asked."""
    answer = await get(teepi, "image/png")
    assert answer.status == 406
    assert is_sentence(answer)
    assert upstream.count("GET", LIST) == 0


async def test_list_asked_by_many_is_fetched_once(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 21. Single-flight, and Cache-Status says so."""
    gate = upstream.gate(LIST, 10)
    asking = [asyncio.create_task(get(teepi)) for _ in range(8)]
    await gate.reached.wait()
    gate.open()
    answers = [await task for task in asking]
    assert all(names(answer) == NAMES for answer in answers)
    assert upstream.count("GET", LIST) == 1
    said = sorted(answer.headers["cache-status"] for answer in answers)
    assert said[0] == "teepi; fwd=uri-miss; collapsed"
    assert said[-1] == "teepi; fwd=uri-miss; stored"
    assert (await get(teepi)).headers["cache-status"] == "teepi; hit"


async def test_list_past_its_time_is_revalidated_conditionally(teepi: Teepi, upstream: Upstream, clock: Clock) -> None:
    """Contract 17. A 304 costs no body; a new list replaces the old one and leaves no file behind."""
    await get(teepi)
    clock.ahead += 601
    assert (await get(teepi)).headers["cache-status"] == "teepi; fwd=stale"
    first, second = upstream.seen(LIST)
    assert "if-none-match" not in first.headers
    assert (second.headers["if-none-match"][:1], second.status) == ('"', 304)
    assert (await get(teepi)).headers["cache-status"] == "teepi; hit"
    publish(upstream, AS_HTML.replace(b"other", b"newer"), HTML)
    clock.ahead += 601
    assert names(await get(teepi)) == ["Foo.Bar", "demo", "newer"]
    assert len(list((teepi.settings.cache_dir / "v1/lists").rglob("*.gz"))) == 2


async def test_list_that_is_being_read_is_not_disturbed_by_a_new_one(
    teepi: Teepi, upstream: Upstream, clock: Clock
) -> None:
    """Design 3. Who reads holds the files open."""
    many = b'{"projects":[' + b",".join(b'{"name":"project-%d"}' % n for n in range(400_000)) + b"]}"
    publish(upstream, many)
    async with await RawClient.connect(teepi.address, receive_buffer_bytes=4096) as slow:
        await slow.send("GET", LIST, {"Accept": JSON})
        head = await slow.read_head()
        publish(upstream, AS_JSON)
        clock.ahead += 601
        assert names(await get(teepi)) == NAMES
        assert head.length == len(many)
        assert await slow.read(len(many)) == many


_FAILURES: list[Fault] = [
    Status(404), Status(403), Status(429), Status(500), EarlyEnd(20), Status(200, body=b"<form><input></form>"),
]  # fmt: skip


@pytest.mark.parametrize("fault", _FAILURES)
async def test_list_past_its_time_is_served_stale_when_upstream_fails(
    teepi: Teepi, upstream: Upstream, clock: Clock, fault: Fault
) -> None:
    """Contract 33. And upstream is left alone for a while."""
    await get(teepi)
    publish(upstream, AS_JSON + b" ")  # another ETag, so that there is a body to break off
    clock.ahead += 601
    upstream.script(LIST, itertools.repeat(fault))
    for _ in range(3):
        answer = await get(teepi)
        assert names(answer) == NAMES
        assert answer.headers["cache-status"] == "teepi; hit; detail=stale"
    assert upstream.count("GET", LIST) == 2


async def test_list_past_its_time_does_not_wait_for_an_upstream_that_hangs(
    upstream: Upstream, clock: Clock, make_teepi: MakeTeepi
) -> None:
    """Contract 33. The patience of pages, once."""
    publish(upstream, AS_JSON)
    teepi = await make_teepi(FAST)
    await get(teepi)
    clock.ahead += 601
    upstream.script(LIST, itertools.repeat(HangBeforeHead()))
    for _ in range(3):
        assert names(await get(teepi)) == NAMES
    assert upstream.count("GET", LIST) == 2


@pytest.mark.parametrize("fault", [*_FAILURES[1:], HangBeforeHead()])
async def test_list_that_cannot_be_had_whole_is_503_and_nothing_is_kept(
    upstream: Upstream, make_teepi: MakeTeepi, fault: Fault
) -> None:
    """Contract 33 and 35. No answer begins before the list is whole, so that none is ever cut."""
    publish(upstream, AS_JSON)
    teepi = await make_teepi(FAST)
    upstream.script(LIST, [fault])
    answer = await get(teepi)
    assert answer.status == 503
    assert is_sentence(answer)
    assert not list((teepi.settings.cache_dir / "v1/lists").rglob("*.gz"))


async def test_list_survives_a_restart_and_is_there_offline(teepi: Teepi, upstream: Upstream) -> None:
    """Issue 3. From disk, without the upstream; without a list a sentence, and no Retry-After."""
    fresh = await teepi.restarted(offline=True)
    answer = await get(fresh)
    assert answer.status == 503
    assert "retry-after" not in answer.headers
    online = await fresh.restarted(offline=False)
    await get(online)
    again = await online.restarted(offline=True)
    try:
        await upstream.stop()
        for accept in (JSON, HTML):
            answer = await get(again, accept)
            assert names(answer) == NAMES
            assert answer.headers["cache-status"] == "teepi; hit"
    finally:
        await again.stop()


@pytest.mark.parametrize("which", ["*.html.gz", "head"])
async def test_list_that_is_damaged_on_disk_is_fetched_anew(teepi: Teepi, upstream: Upstream, which: str) -> None:
    """Fault 7. What is not as it was written counts as none."""
    await get(teepi)
    [path] = (teepi.settings.cache_dir / "v1/lists").rglob(which)
    damaged = bytearray(path.read_bytes())
    damaged[-20] ^= 1
    path.write_bytes(damaged)
    again = await teepi.restarted()
    try:
        assert names(await get(again, HTML)) == NAMES
        assert upstream.count("GET", LIST) == 2
    finally:
        await again.stop()


async def test_list_is_served_while_the_disk_does_not_take_it(upstream: Upstream, tmp_path: Path, teepi: Teepi) -> None:
    """Fault 1. Nobody's request fails because caching does: it is kept in memory, fetched once."""
    lists = tmp_path / "cache" / "v1" / "lists"
    lists.write_text("in the way")  # as good as a read-only disk
    for _ in range(2):
        assert names(await get(teepi)) == NAMES
    assert upstream.count("GET", LIST) == 1


async def test_list_that_fills_the_disk_is_fetched_again_into_memory(
    upstream: Upstream, teepi: Teepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 1. A disk that fails in the middle costs a second fetch, nothing else, and keeps no file."""

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("teepi.store.lists.sync", full)
    for _ in range(2):
        assert names(await get(teepi, HTML)) == NAMES
    assert upstream.count("GET", LIST) == 2
    assert not list((teepi.settings.cache_dir / "v1/lists").rglob("*.gz"))


async def test_list_of_an_upstream_configured_before_is_not_served_for_another(
    teepi: Teepi, upstream: Upstream
) -> None:
    """Issue 3. The index is called the same, its upstream is another one now."""
    await get(teepi)
    upstream.file("/other/", AS_JSON.replace(b"demo", b"else"), content_type=JSON)
    again = await teepi.restarted(indexes={"root/pypi": IndexSettings(upstream=f"{upstream.url}/other/")})
    try:
        assert names(await get(again)) == ["Foo.Bar", "else", "other"]
    finally:
        await again.stop()
