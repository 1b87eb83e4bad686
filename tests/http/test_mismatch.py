"""Wrong bytes from upstream: nobody completes, nothing is kept, and no client joins a wrong part to a right one."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from teepi import files
from tests.http.scene import CALM, WITHHELD, Held, stage
from tests.support.clients import RawClient
from tests.support.faults import Replace, WrongBytes
from tests.support.wheels import noise

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.support.upstream import Upstream

CONTENT = noise(1_000_000)
TOTAL = len(CONTENT)
SHOWN = TOTAL - WITHHELD
SMALL = CONTENT[:WITHHELD]


@pytest.mark.parametrize("wrong", [0, 500_000, TOTAL - 1])
async def test_wrong_bytes_once_complete_for_nobody_and_are_kept_nowhere(
    upstream: Upstream, make_teepi: MakeTeepi, wrong: int
) -> None:
    """Everyone attached ends before the withheld end with FIN; the next request is right. Contract 32."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [WrongBytes(wrong)])
    answers = await asyncio.gather(*(scene.get() for _ in range(10)))
    for answer in answers:
        assert (answer.status, answer.end, len(answer.body)) == (200, "fin", SHOWN)
        assert answer.headers["etag"] == f'"{scene.sha256}"'
    await scene.settled()
    assert scene.stored == set()
    assert list((scene.teepi.settings.cache_dir / "v1/partial").iterdir()) == []
    anew = await scene.get()
    assert (anew.status, anew.body) == (200, CONTENT)
    assert anew.headers["etag"] != f'"{scene.sha256}"'
    assert scene.ranges == [None, None]
    await scene.settled()
    assert scene.stored == {scene.sha256}
    assert (await scene.get()).headers["etag"] == anew.headers["etag"]


async def test_if_range_with_the_etag_of_a_wrong_copy_gets_the_whole_file(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """A client that resumes after a mismatch starts over instead of joining a wrong prefix to a right tail.

    Contracts 26 and 32.
    """
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [WrongBytes(10)])
    short = await scene.get()
    assert not short.complete
    resume = {"Range": f"bytes={len(short.body)}-", "If-Range": short.headers["etag"]}
    anew = await scene.get(resume)
    await scene.settled()
    cached = await scene.get(resume)
    assert [(answer.status, answer.body) for answer in (anew, cached)] == [(200, CONTENT)] * 2
    tail = await scene.get(resume | {"If-Range": cached.headers["etag"]})
    assert (tail.status, tail.body) == (206, CONTENT[SHOWN:])


async def test_etag_of_a_wrong_copy_stays_retired_after_a_restart(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The generation is kept on disk: someone may still hold the wrong prefix. Contract 32."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [WrongBytes(10)])
    old = (await scene.get()).headers["etag"]
    await scene.cached()
    await scene.teepi.stop()
    scene.teepi = await make_teepi(CALM)
    answer = await scene.get({"Range": "bytes=900000-", "If-Range": old})
    assert (answer.status, answer.body) == (200, CONTENT)


async def test_range_into_the_withheld_end_never_completes_unverified(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """A resume of the end waits for the digest as everyone does. Contracts 25 and 32."""
    scene = await stage(upstream, make_teepi, CONTENT)
    held = Held(TOTAL - 1)
    upstream.script(scene.path, [(WrongBytes(10), held)])
    async with await scene.connect(), await RawClient.connect(scene.teepi.address) as tail:
        await scene.landed(TOTAL - 1)
        await tail.send("GET", scene.target, {"Range": f"bytes={SHOWN - 5}-"})
        assert (await tail.read_head()).status == 206
        held.open()
        body, end = await tail.read_to_end()
    assert (len(body), end) == (5, "fin")


async def test_small_wrong_file_is_never_begun(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """All of it is withheld: 503 with Retry-After instead of a head. Contract 32."""
    scene = await stage(upstream, make_teepi, SMALL)
    upstream.script(scene.path, [WrongBytes(10)])
    answers = await asyncio.gather(*(scene.get() for _ in range(5)))
    for answer in answers:
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["cache-control"] == "no-store"
    assert (await scene.get()).body == SMALL
    assert scene.gets == 2


@pytest.mark.parametrize("content", [CONTENT, SMALL], ids=["large", "small"])
async def test_always_wrong_file_is_fetched_ever_more_rarely(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Nobody ever completes; once at once, then after 1, 2, 4, … 60 s; between them 503 in a second. Contract 32."""
    now = time.monotonic()
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: now))
    scene = await stage(upstream, make_teepi, content)
    upstream.script(scene.path, itertools.repeat(WrongBytes(10)))
    for fetched, wait in enumerate((0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0), 1):
        if wait:
            now += wait - 0.01
            early = await scene.get()
            assert (early.status, early.headers["retry-after"]) == (503, "1")
            assert scene.gets == fetched - 1
            now += 0.02
        answer = await scene.get()
        assert not (answer.status == 200 and answer.complete)
        assert scene.gets == fetched
        await scene.settled()
    assert scene.stored == set()


async def test_right_copy_ends_the_spacing(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it was right the file is cached and served like any other. Contract 32."""
    now = time.monotonic()
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: now))
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [WrongBytes(10)] * 3)
    for wait in (0.0, 0.0, 1.1):
        now += wait
        assert not (await scene.get()).complete
        await scene.settled()
    assert (await scene.get()).status == 503
    now += 2.1
    assert (await scene.get()).body == CONTENT
    await scene.settled()
    assert scene.stored == {scene.sha256}
    assert (await scene.get()).body == CONTENT
    assert scene.gets == 4


async def test_spacing_of_a_wrong_file_holds_for_ranges_that_join(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A resume does not get round it. Contract 32."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=replace(CALM, mismatch_first_wait_seconds=60.0))
    upstream.script(scene.path, itertools.repeat(WrongBytes(10)))
    for _ in range(2):
        await scene.get()
        await scene.settled()
    answer = await scene.get({"Range": "bytes=500-"})
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert scene.gets == 2


async def test_wrong_copy_harms_no_reader_of_another_file(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The page and other files of the project are served as ever."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, itertools.repeat(WrongBytes(10)))
    async with await RawClient.connect(scene.teepi.address) as client:
        assert not (await scene.get()).complete
        assert (await client.get("/simple/demo/")).status == 200


async def test_file_without_digest_of_another_size_than_the_page_says_is_refused(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """The size is all that can be checked, and it is: 503, nothing kept."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False)
    upstream.script(scene.path, [Replace(CONTENT[:-1])])
    answer = await scene.get()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert (await scene.get()).body == CONTENT


async def test_slow_reader_of_a_wrong_copy_is_not_fed_from_the_right_one(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """A new fetch has a new inode: whoever still reads the failed one gets its bytes alone, short. Contract 32."""
    content, other = noise(12_000_000), noise(12_000_000, 1)
    scene = await stage(upstream, make_teepi, content)
    upstream.script(scene.path, [Replace(other)])
    async with await scene.connect(receive_buffer_bytes=4096) as slow:
        await slow.read_head()
        assert not (await scene.get()).complete
        assert (await scene.get()).body == content
        await scene.settled()
        body, end = await slow.read_to_end()
    assert end == "fin"
    assert body == other[:-WITHHELD]
