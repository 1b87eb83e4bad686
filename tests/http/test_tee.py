"""Many clients on one arriving file: one fetch, everyone streams, nobody holds up or harms anyone."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from teepi.web import sendfile
from tests.http.scene import CALM, WITHHELD, Held, descriptors, stage, until
from tests.support.clients import ConnectionEnd, RawClient, fetch
from tests.support.faults import EarlyEnd, HangBeforeHead, Reset
from tests.support.wheels import noise

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.http.scene import Scene
    from tests.support.upstream import Upstream

CONTENT = noise(1_000_000)
TOTAL = len(CONTENT)
CLIENTS = 24


async def crowd(scene: Scene, stack: AsyncExitStack, count: int = CLIENTS) -> list[RawClient]:
    """Let ``count`` clients ask at once."""
    return [await stack.enter_async_context(await scene.connect()) for _ in range(count)]


# --- one fetch, everyone streams


async def test_many_clients_on_cold_file_make_one_get(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """24 clients at once: 1 GET, 0 HEAD, 24 identical bodies. Contract 27."""
    scene = await stage(upstream, make_teepi, CONTENT)
    answers = await asyncio.gather(*(scene.get() for _ in range(CLIENTS)))
    assert all(answer.status == 200 and answer.body == CONTENT for answer in answers)
    assert (scene.gets, scene.heads) == (1, 0)
    await scene.settled()
    assert scene.stored == {scene.sha256}
    said = [answer.headers["cache-status"] for answer in answers]
    # Who comes when the file is committed already is a hit.
    assert sum("collapsed" in each or "hit" in each for each in said) == CLIENTS - 1


async def test_followers_stream_during_the_fetch(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """While upstream stands still in mid-file every client has every byte before that place. Contract 28."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, 500_000)
    async with AsyncExitStack() as stack:
        clients = await crowd(scene, stack)
        for client in clients:
            assert (await client.read_head()).length == TOTAL
            assert await client.read(500_000) == CONTENT[:500_000]
        late = await stack.enter_async_context(await scene.connect())
        await late.read_head()
        assert await late.read(500_000) == CONTENT[:500_000]
        gate.open()
        for client in [*clients, late]:
            assert await client.read(TOTAL - 500_000) == CONTENT[500_000:]
    assert (scene.gets, scene.heads) == (1, 0)


async def test_headers_come_as_soon_as_upstreams_are_in(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Not one byte of the body has come and all clients have their head. Contract 28."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, 0)
    async with AsyncExitStack() as stack:
        clients = await crowd(scene, stack)
        for client in clients:
            assert (await client.read_head()).status == 200
        assert (await scene.download()).arrived == 0
        gate.open()
        for client in clients:
            assert await client.read(TOTAL) == CONTENT


async def test_aliases_of_one_file_share_one_fetch(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """All URLs that lead to one digest lead to one download. Contract 27."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, 500_000)
    targets = [scene.target, scene.path, scene.target.replace("%3A", ":")]
    asking = [asyncio.create_task(fetch(scene.teepi.address, target)) for target in targets]
    await until(lambda: sum(download.readers for download in scene.downloads) == len(targets))
    gate.open()
    assert [answer.body == CONTENT for answer in await asyncio.gather(*asking)] == [True] * len(targets)
    assert scene.gets == 1


async def test_status_page_counts_readers_and_bytes_of_what_is_in_flight(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Who looks sees the one download with all its readers."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, 500_000)
    async with AsyncExitStack() as stack:
        await crowd(scene, stack)
        await scene.landed(500_000)
        await until(lambda: scene.downloads[0].readers == CLIENTS)
        status = (await fetch(scene.teepi.address, "/+status")).body
        assert b'"bytes": 500000, "total_bytes": 1000000, "readers": 24' in status
        gate.open()


async def test_cold_request_is_answered_in_time_while_the_fetch_goes_on(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """No head from upstream: 503 with Retry-After, never 504; the same fetch serves the next request. Contract 33."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=replace(CALM, cold_answer_seconds=0.1))
    gate = upstream.gate(scene.path)
    answer = await scene.get()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["cache-control"] == "no-store"
    assert len(scene.downloads) == 1
    gate.open()
    await scene.settled()
    assert (await scene.get()).body == CONTENT
    assert scene.gets == 1


# --- clients that leave (fault 12, contract 29)


@pytest.mark.parametrize("leave", ["fin", "rst"])
async def test_first_client_leaving_disturbs_nobody(upstream: Upstream, make_teepi: MakeTeepi, leave: str) -> None:
    """The one that caused the fetch goes; the others and the cache get everything. Contract 29."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, 500_000)
    async with AsyncExitStack() as stack:
        first = await scene.connect()
        await first.read_head()
        await first.read(300_000)
        others = await crowd(scene, stack, 5)
        await until(lambda: scene.downloads[0].readers == 6)
        first.abort() if leave == "rst" else first.close()
        await until(lambda: scene.downloads[0].readers == 5)
        gate.open()
        for client in others:
            assert (await client.read_answer()).body == CONTENT
    await scene.settled()
    assert (scene.gets, scene.stored) == (1, {scene.sha256})


@pytest.mark.parametrize("at", ["head", 500_000])
async def test_all_clients_leaving_still_fills_the_cache(
    upstream: Upstream, make_teepi: MakeTeepi, at: int | str
) -> None:
    """Before the head or in mid-file: the fetch belongs to nobody, completes, and is not repeated. Contract 29."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, "head" if at == "head" else 500_000)
    async with AsyncExitStack() as stack:
        await crowd(scene, stack, 5)
        await gate.reached.wait()
        await until(lambda: scene.downloads[0].readers == 5)
    gate.open()
    await scene.settled()
    assert scene.stored == {scene.sha256}
    answer = await scene.get()
    assert (answer.body, scene.gets) == (CONTENT, 1)
    assert "hit" in answer.headers["cache-status"]


async def test_two_hundred_clients_resetting_anywhere_leave_one_fetch_and_nothing_behind(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """RST at random bytes by 200 clients: one GET, the cache filled, no descriptor left. Contract 29."""
    scene = await stage(upstream, make_teepi, CONTENT)
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    places = random.Random(seed)
    gate = upstream.gate(scene.path, 900_000)
    before = descriptors(upstream)

    async def visit(count: int) -> None:
        client = await scene.connect()
        if count:
            await client.read_head()
            await client.read(count)
        client.abort()

    await asyncio.gather(*(visit(places.randrange(900_000)) for _ in range(200)))
    await until(lambda: scene.downloads[0].readers == 0)
    gate.open()
    await scene.settled()
    await until(lambda: descriptors(upstream) <= before)
    assert (scene.gets, scene.stored) == (1, {scene.sha256})
    assert (await scene.get()).body == CONTENT


async def test_client_leaving_while_parked_at_the_tip_is_noticed_at_once(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """It waits for upstream, not for its socket, and goes: its reader and descriptors go with it."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, 500_000)
    async with await scene.connect() as stays:
        await stays.read_head()
        await stays.read(500_000)
        leaves = await scene.connect()
        await leaves.read_head()
        await leaves.read(500_000)
        with_both = descriptors(upstream)
        leaves.close()
        its_own = 3  # both ends of the connection, and the duplicate that is written to
        await until(lambda: scene.downloads[0].readers == 1 and descriptors(upstream) <= with_both - its_own)
        gate.open()
        assert await stays.read(500_000) == CONTENT[500_000:]


# --- slow and stopped clients (fault 11)


async def test_client_that_does_not_read_delays_neither_fetch_nor_others(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """It has an offset and a descriptor, nothing more; when it reads at last, all is there."""
    content = noise(12_000_000)
    scene = await stage(upstream, make_teepi, content)
    slow = await scene.connect(receive_buffer_bytes=4096)
    async with slow:
        await slow.read_head()
        for _ in range(3):
            assert (await scene.get()).body == content
        await scene.settled()
        assert scene.stored == {scene.sha256}  # committed and renamed under the slow reader
        assert await slow.read(len(content)) == content
    assert scene.gets == 1


async def test_slow_reader_survives_commit_and_removal_of_the_file(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Readers share the descriptor: rename and unlink are harmless."""
    content = noise(12_000_000)
    scene = await stage(upstream, make_teepi, content)
    async with await scene.connect(receive_buffer_bytes=4096) as slow:
        await slow.read_head()
        assert (await scene.get()).body == content
        await scene.settled()
        for path in (scene.teepi.settings.cache_dir / "v1/files/sha256").glob("*/*"):
            path.unlink()
        assert await slow.read(len(content)) == content
    assert (await scene.get()).body == content
    assert scene.gets == 2


@pytest.mark.parametrize("cached", [True, False])
async def test_client_that_never_reads_is_dropped_and_leaves_nothing_behind(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch, *, cached: bool
) -> None:
    """After the idle limit its connection is reset and descriptors are back to before."""
    monkeypatch.setattr(sendfile, "_SWEEP_SECONDS", 0.05)
    content = noise(12_000_000)
    scene = await stage(upstream, make_teepi, content, limits=replace(CALM, client_idle_seconds=0.3))
    if cached:
        await scene.cached()
    metrics = scene.teepi.server.metrics
    before = descriptors(upstream)
    async with await scene.connect(receive_buffer_bytes=4096) as stuck:
        assert (await scene.get()).body == content
        await scene.settled()
        await until(lambda: metrics.short_bodies == 1)
        assert (await stuck.read_to_end())[1] == "rst"
    await until(lambda: descriptors(upstream) <= before)


async def test_client_parked_for_long_is_not_taken_for_a_stopped_one(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream keeps it waiting beyond the idle limit; that time is not the client's."""
    monkeypatch.setattr(sendfile, "_SWEEP_SECONDS", 0.01)
    content = noise(20_000_000)
    scene = await stage(upstream, make_teepi, content, limits=replace(CALM, client_idle_seconds=0.3))
    gate = upstream.gate(scene.path, 1_000_000)
    async with await scene.connect(receive_buffer_bytes=4096) as client:
        await client.read_head()
        download = await scene.landed(1_000_000)
        cursor = next(iter(download._cursors))  # noqa: SLF001 - the one thing that tells parked from stopped
        await until(lambda: cursor.position == 1_000_000)
        loop = asyncio.get_running_loop()
        parked = loop.time()
        await until(lambda: loop.time() - parked > 0.4)
        gate.open()
        assert await client.read(len(content)) == content


# --- the end of a failed body (contract 31)


async def test_failed_body_ends_in_fin_with_all_that_arrived(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """No digest and no ETag: nothing can be resumed; every client gets what came, then FIN. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False, etag=None)
    upstream.script(scene.path, [EarlyEnd(700_000)])
    for answer in await asyncio.gather(*(scene.get() for _ in range(5))):
        assert (answer.status, answer.head.length, answer.end) == (200, TOTAL, "fin")
        assert answer.body == CONTENT[:700_000]
    await scene.settled()
    assert scene.stored == set()


async def test_failed_body_ends_in_fin_for_client_with_unread_pipelined_input(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Requests lie unread behind the first, and the client is slow: still all bytes, then FIN. Contract 31."""
    content = noise(8_000_000)
    scene = await stage(upstream, make_teepi, content, sha256=False, etag=None)
    held = Held(1_000_000)
    upstream.script(scene.path, [(held, EarlyEnd(6_000_000))])
    async with await scene.connect(receive_buffer_bytes=8192) as client:
        await client.read_head()
        for _ in range(10):  # aiohttp takes in some, then stops reading; the rest stays in the socket
            for _ in range(100):
                await client.send("GET", scene.target)
            assert (await fetch(scene.teepi.address, "/healthz")).status == 200
        held.open()
        body, end = await client.read_to_end()
    assert (len(body), end) == (6_000_000, "fin")
    assert body == content[:6_000_000]


async def test_failed_body_leaves_no_descriptor_behind(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A client that keeps its end open after our FIN is let go of."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False, etag=None)
    upstream.script(scene.path, [Reset(500_000)])
    before = descriptors(upstream)
    async with await scene.connect() as client:
        with pytest.raises(ConnectionEnd):
            await client.read(TOTAL)
        await until(lambda: descriptors(upstream) <= before + 1)  # the client's own
    await until(lambda: descriptors(upstream) <= before)


# --- the withheld end


async def test_last_bytes_wait_for_the_digest(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """All bytes but the last have landed and no reader may pass the withheld end. Contract 32."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, TOTAL - 1)
    async with await scene.connect() as client:
        await client.read_head()
        download = await scene.landed(TOTAL - 1)
        assert await client.read(TOTAL - WITHHELD) == CONTENT[:-WITHHELD]
        assert download.limit == TOTAL - WITHHELD
        asked = await scene.get({"Range": f"bytes={TOTAL - WITHHELD - 10}-{TOTAL - WITHHELD - 1}"})
        assert asked.body == CONTENT[-WITHHELD - 10 : -WITHHELD]
        gate.open()
        assert await client.read(WITHHELD) == CONTENT[-WITHHELD:]


async def test_small_file_is_begun_only_when_it_is_right(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """All of it is withheld: no head before the digest. Contract 32."""
    content = CONTENT[:WITHHELD]
    scene = await stage(upstream, make_teepi, content)
    gate = upstream.gate(scene.path, WITHHELD - 1)
    async with await scene.connect() as client:
        await scene.landed(WITHHELD - 1)
        reading = asyncio.create_task(client.read_head())
        assert (await fetch(scene.teepi.address, "/healthz")).status == 200
        assert not reading.done()
        gate.open()
        assert (await reading).status == 200
        assert await client.read(WITHHELD) == content


async def test_small_file_that_breaks_for_good_is_never_begun(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Nothing was said yet, so the answer is 503 with Retry-After, not a short body. Contracts 31 and 33."""
    scene = await stage(upstream, make_teepi, CONTENT[:1000], sha256=False, etag=None)
    upstream.script(scene.path, [EarlyEnd(500)])
    answer = await scene.get()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert (await scene.get()).body == CONTENT[:1000]


async def test_upstream_that_never_answers_is_503_and_asked_anew(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Hang before the head: an honest error within the limit, and nothing is remembered. Contract 33."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=replace(CALM, first_byte_seconds=0.15))
    upstream.script(scene.path, [HangBeforeHead()])
    answer = await scene.get()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert (await scene.get()).body == CONTENT
