"""Cached files that are no longer in memory: a thread waits for the disk, and the event loop never."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.scene import descriptors, stage, until
from tests.support.clients import RawClient, fetch
from tests.support.wheels import noise

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.support.upstream import Upstream

MIB = 1024 * 1024
SIZE = 5 * MIB + 12345


class Disk:
    """A disk of which every page is cold until a thread has read it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: OSError | None = None) -> None:
        """Answer probes with ``error``, None: truly."""
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()
        self.probes: list[int] = []
        self.read: list[range] = []
        self.advised: list[int] = []
        preadv, pread, advise = os.preadv, os.pread, os.posix_fadvise

        def probe(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            assert threading.current_thread() is threading.main_thread()
            assert flags == os.RWF_NOWAIT
            self.probes.append(offset)
            if error is not None:
                raise error
            return preadv(fd, buffers, offset)

        def slow(fd: int, count: int, offset: int) -> bytes:
            if not threading.current_thread().name.startswith("reading-ahead"):
                return pread(fd, count, offset)
            self.asked.set()
            self.answers.wait(20)
            self.read.append(range(offset, offset + count))
            return pread(fd, count, offset)

        def will_need(fd: int, offset: int, count: int, advice: int) -> None:
            assert advice == os.POSIX_FADV_WILLNEED
            self.advised.append(offset)
            advise(fd, offset, count, advice)

        monkeypatch.setattr(os, "preadv", probe)
        monkeypatch.setattr(os, "pread", slow)
        monkeypatch.setattr(os, "posix_fadvise", will_need)

    @property
    def read_bytes(self) -> int:
        """How much threads have read, each byte once."""
        ends = [(one.start, one.stop) for one in sorted(self.read, key=lambda one: one.start)]
        assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(ends))
        return sum(map(len, self.read))


async def test_cold_file_is_read_by_a_thread_before_it_is_sent(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it once, a mebibyte at a time, and the bytes are right; a range reads no more than itself."""
    scene = await stage(upstream, make_teepi, noise(SIZE))
    await scene.cached()
    disk = Disk(monkeypatch, BlockingIOError())
    assert (await scene.get()).body == scene.content
    assert disk.read_bytes == SIZE
    assert disk.advised == disk.probes == list(range(0, SIZE, MIB))
    disk.read.clear()
    assert (await scene.get({"Range": "bytes=100-199"})).body == scene.content[100:200]
    assert disk.read == [range(100, 200)]


async def test_cold_file_on_a_disk_that_hangs_holds_up_nobody_else(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop is free; a client that leaves meanwhile is noticed, and the descriptor is let go afterwards."""
    scene = await stage(upstream, make_teepi, noise(SIZE))
    await scene.cached()
    await until(lambda: scene.teepi.server.connections == 0)
    before = descriptors(upstream)
    disk = Disk(monkeypatch, BlockingIOError())
    disk.answers.clear()
    patient, leaving = await scene.connect(), await scene.connect()
    await until(disk.asked.is_set)
    assert (await fetch(scene.teepi.address, "/healthz")).status == 200
    for client in (patient, leaving):
        assert (await client.read_head()).status == 200
    leaving.close()
    await until(lambda: scene.teepi.server.connections == 1)
    disk.answers.set()
    assert await patient.read(SIZE) == scene.content
    patient.close()
    await until(lambda: descriptors(upstream) == before)


async def test_file_in_memory_is_probed_once_a_mebibyte_and_read_by_no_thread(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At both ends of each, since the end of a wheel is read more often than its middle."""
    scene = await stage(upstream, make_teepi, noise(SIZE))
    await scene.cached()
    disk = Disk(monkeypatch)
    assert (await scene.get()).body == scene.content
    starts = list(range(0, SIZE, MIB))
    assert disk.probes == [at for start in starts for at in (start, min(start + MIB, SIZE) - 1)]
    assert not disk.read
    assert not disk.advised


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
async def test_file_system_that_cannot_tell_is_asked_once(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """And the file is sent as ever."""
    scene = await stage(upstream, make_teepi, noise(SIZE))
    await scene.cached()
    disk = Disk(monkeypatch, OSError(number, os.strerror(number)))
    assert (await scene.get()).body == scene.content
    assert disk.probes == [0]
    assert not disk.read


async def test_arriving_file_is_not_probed(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written a moment ago is in memory."""
    disk = Disk(monkeypatch, BlockingIOError())
    scene = await stage(upstream, make_teepi, noise(SIZE))
    answers = await asyncio.gather(*(scene.get() for _ in range(3)))
    assert all(answer.body == scene.content for answer in answers)
    assert not disk.read


async def test_cold_file_that_cannot_be_read_ends_short(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector shows in the thread first, and is told by sendfile as ever: no whole answer, no defect of ours."""
    scene = await stage(upstream, make_teepi, noise(SIZE))
    await scene.cached()
    Disk(monkeypatch, BlockingIOError())

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    monkeypatch.setattr(os, "sendfile", broken)
    async with await RawClient.connect(scene.teepi.address) as client:
        answer = await client.get(scene.target)
    assert (answer.status, answer.body, answer.end) == (200, b"", "fin")
