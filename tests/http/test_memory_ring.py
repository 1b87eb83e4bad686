"""A cache that cannot be written: downloads run over a bounded memory ring and nobody's request fails for it."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from teepi.store import Store
from teepi.store.partial import Partial
from teepi.web import sendfile
from tests.http.scene import CALM, descriptors, stage, until
from tests.support.clients import RawClient
from tests.support.faults import Reset, WrongBytes
from tests.support.wheels import noise

if TYPE_CHECKING:
    from teepi.readable import Cursor
    from tests.conftest import MakeTeepi
    from tests.support.upstream import Upstream

CONTENT = noise(1_000_000)
TOTAL = len(CONTENT)
BIG = noise(24_000_000)  # more than all socket buffers on the way take
RING = replace(CALM, ring_bytes=512 * 1024)


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every partial fail to begin, as on a read-only disk."""

    def begin(*_: object) -> Partial:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Store, "begin", begin)


def full_after(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Let every partial take ``room`` bytes, then the disk is full."""
    append = Partial.append

    def limited(self: Partial, data: bytes) -> None:
        if self.length + len(data) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, data)

    monkeypatch.setattr(Partial, "append", limited)


@pytest.mark.usefixtures("no_files")
async def test_unwritable_store_serves_all_clients_from_memory(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Ten clients at once, one fetch, all right, nothing kept. Contract 27."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=RING)
    gate = upstream.gate(scene.path, 0)
    asking = [asyncio.create_task(scene.get()) for _ in range(10)]
    await until(lambda: len(scene.downloads) == 1 and scene.downloads[0].readers == 10)
    gate.open()
    for answer in await asyncio.gather(*asking):
        assert (answer.status, answer.complete, answer.body == CONTENT) == (200, True, True)
    await scene.settled()
    assert (scene.gets, scene.stored) == (1, set())
    assert (await scene.get()).body == CONTENT
    assert scene.gets == 2


@pytest.mark.parametrize("room", [0, 300_000, TOTAL - 1])
async def test_disk_full_in_mid_file_is_noticed_by_nobody(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """What was written is read from the file, the rest from memory; the partial is removed."""
    full_after(monkeypatch, room)
    scene = await stage(upstream, make_teepi, CONTENT, limits=RING)
    gate = upstream.gate(scene.path, 0)
    asking = [asyncio.create_task(scene.get()) for _ in range(10)]
    await until(lambda: len(scene.downloads) == 1 and scene.downloads[0].readers == 10)
    gate.open()
    for answer in await asyncio.gather(*asking):
        assert (answer.status, answer.complete, answer.body == CONTENT) == (200, True, True)
    await scene.settled()
    assert (scene.gets, scene.stored) == (1, set())
    assert list((scene.teepi.settings.cache_dir / "v1/partial").iterdir()) == []


@pytest.mark.parametrize("size", [True, False])
@pytest.mark.usefixtures("no_files")
async def test_chunked_upstream_without_a_file_is_served_whole(
    upstream: Upstream, make_teepi: MakeTeepi, *, size: bool
) -> None:
    """Unknown size and no disk at once: every body still ends as whole."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=RING, size=size, chunked=True)
    for _ in range(3):
        answer = await scene.get()
        assert (answer.status, answer.complete, answer.body == CONTENT) == (200, True, True)
        await scene.settled()


@pytest.mark.usefixtures("no_files")
async def test_empty_file_without_a_file_is_served(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Nothing to keep is nothing to fail at."""
    scene = await stage(upstream, make_teepi, b"", limits=RING)
    answer = await scene.get()
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.usefixtures("no_files")
async def test_break_without_a_file_is_resumed(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The resume needs no disk. Contract 30."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=RING)
    upstream.script(scene.path, [Reset(400_000), Reset(700_000)])
    assert (await scene.get()).body == CONTENT
    assert scene.ranges == [None, "bytes=400000-", "bytes=700000-"]


@pytest.mark.usefixtures("no_files")
async def test_wrong_bytes_without_a_file_complete_for_nobody(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The end is withheld in memory as well. Contract 32."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=RING)
    upstream.script(scene.path, [WrongBytes(10)])
    answer = await scene.get()
    assert (answer.status, answer.end) == (200, "fin")
    assert (await scene.get()).body == CONTENT


@pytest.mark.usefixtures("no_files")
async def test_slow_reader_holds_upstream_back_within_the_ring(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Memory is bounded: the fetch is never further ahead of its slowest reader than the ring is large."""
    scene = await stage(upstream, make_teepi, BIG, limits=RING)
    async with await scene.connect(receive_buffer_bytes=4096) as slow:
        await slow.read_head()
        download = await scene.download()
        await until(lambda: download.ring is not None and download.ring.room == 0)
        cursor = next(iter(download._cursors))  # noqa: SLF001 - the place of the slowest reader
        assert download.arrived - cursor.position == RING.ring_bytes
        assert download.arrived < len(BIG)
        assert await slow.read(len(BIG)) == BIG
    assert scene.gets == 1


@pytest.mark.usefixtures("no_files")
async def test_late_client_gets_a_fetch_of_its_own(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The ring has forgotten the beginning: the late one starts over, the first goes on."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=RING)
    gate = upstream.gate(scene.path, 700_000)
    async with await scene.connect() as first:
        await first.read_head()
        assert await first.read(700_000) == CONTENT[:700_000]
        async with await scene.connect() as late:
            await upstream.arrived(scene.path, 2)
            gate.open()
            assert (await late.read_answer()).body == CONTENT
        assert await first.read(300_000) == CONTENT[700_000:]
    assert scene.ranges == [None, None]


@pytest.mark.usefixtures("no_files")
async def test_late_range_that_the_ring_still_has_joins(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """An open range from the ring's place on needs no fetch of its own. Contract 25."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=RING)
    gate = upstream.gate(scene.path, 700_000)
    async with await scene.connect() as first, await RawClient.connect(scene.teepi.address) as late:
        await first.read_head()
        await first.read(700_000)
        await late.send("GET", scene.target, {"Range": "bytes=700000-"})
        assert (await late.read_head()).status == 206
        gate.open()
        assert await late.read(300_000) == CONTENT[700_000:]
        assert await first.read(300_000) == CONTENT[700_000:]
    assert scene.ranges == [None]


@pytest.mark.usefixtures("no_files")
async def test_late_range_whose_if_range_fails_gets_the_whole_file(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """It asked for what the ring has, and must be given what the ring has forgotten. Contract 26."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=RING)
    gate = upstream.gate(scene.path, 700_000)
    async with await scene.connect() as first, await RawClient.connect(scene.teepi.address) as late:
        await first.read_head()
        await first.read(700_000)
        await late.send("GET", scene.target, {"Range": "bytes=700000-", "If-Range": '"another"'})
        await upstream.arrived(scene.path, 2)
        gate.open()
        answer = await late.read_answer()
        assert (answer.status, answer.body) == (200, CONTENT)
        assert await first.read(300_000) == CONTENT[700_000:]


@pytest.mark.usefixtures("no_files")
async def test_range_that_begins_far_ahead_of_the_ring_is_reached(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Its only reader waits behind more than the ring holds: what nobody wants is let go. Contract 25."""
    scene = await stage(upstream, make_teepi, BIG, limits=RING)
    answer = await scene.get({"Range": "bytes=20000000-"})
    assert (answer.status, answer.body == BIG[20_000_000:]) == (206, True)


@pytest.mark.usefixtures("no_files")
async def test_idle_reader_is_dropped_and_the_others_go_on(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It held up the ring for as long as it may."""
    monkeypatch.setattr(sendfile, "_SWEEP_SECONDS", 0.02)
    scene = await stage(upstream, make_teepi, BIG, limits=replace(RING, ring_idle_seconds=0.2))
    gate = upstream.gate(scene.path, 0)
    async with await scene.connect(receive_buffer_bytes=4096) as idle:
        await idle.read_head()
        reading = asyncio.create_task(scene.get())
        await until(lambda: scene.downloads[0].readers == 2)
        gate.open()
        answer = await reading
        assert (answer.complete, answer.body == BIG) == (True, True)
        assert (await idle.read_to_end())[1] == "rst"
    assert scene.gets == 1


@pytest.mark.parametrize("full", [False, True])
async def test_all_readers_gone_cancels_the_fetch(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch, *, full: bool
) -> None:
    """Without a file there is nothing to complete into; the next client is served anew, nothing stays open."""
    full_after(monkeypatch, 0 if full else 300_000)
    scene = await stage(upstream, make_teepi, CONTENT, limits=RING)
    gate = upstream.gate(scene.path, 600_000)
    before = descriptors(upstream)
    async with await scene.connect() as one, await scene.connect() as other:
        for client in (one, other):
            await client.read_head()
            await client.read(600_000)
    await scene.settled()
    await until(lambda: upstream.seen(scene.path)[0].over.is_set() and descriptors(upstream) <= before)
    assert upstream.seen(scene.path)[0].bytes_sent == 600_000
    gate.open()
    assert (await scene.get()).body == CONTENT


@pytest.mark.usefixtures("no_files")
async def test_fetch_whose_last_reader_has_gone_is_joined_by_nobody(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """It is being cancelled, though still known: whoever comes in that very moment gets a fetch of its own."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=RING)
    gate = upstream.gate(scene.path, 0)
    async with await scene.connect() as leaving:
        await leaving.read_head()
        download = await scene.download()
        assert download.serves(0)
        served = []
        detach = download.detach

        def watched(cursor: Cursor) -> None:
            detach(cursor)
            served.append((download.ended, download.serves(0)))

        download.detach = watched  # type: ignore[method-assign] # the one moment that no request can be timed to
    await scene.settled()
    assert served == [(False, False)]
    gate.open()
    assert (await scene.get()).body == CONTENT
