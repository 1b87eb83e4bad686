"""A disk that is full or read-only (faults 4 and 5): a proxy without a cache is still a proxy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.tools import WITHHELD, assert_names_hold, begin, read_only, status, stopped_fetching
from tests.support.clients import fetch

if TYPE_CHECKING:
    from tests.conftest import MakeProcess
    from tests.process.conftest import Mounted, Publish, Published, Strace
    from tests.support.teepi import TeepiProcess
    from tests.support.upstream import Upstream

MIB = 1024 * 1024
CLIENTS = 8

pytestmark = pytest.mark.fault


async def assert_all_complete(teepi: TeepiProcess, upstream: Upstream, file: Published) -> None:
    """Require right bytes of one fetch for all clients that are in mid-download when the disk refuses."""
    gate = upstream.gate(file.path, MIB)
    early = await asyncio.gather(*(begin(teepi, file.link, MIB - WITHHELD) for _ in range(CLIENTS)))
    gate.open()

    async def rest(index: int) -> bytes:
        client, first = early[index]
        async with client:
            return first + await client.read(len(file.content) - len(first))

    bodies = await asyncio.gather(*(rest(index) for index in range(CLIENTS)))
    assert [body == file.content for body in bodies] == [True] * CLIENTS
    assert upstream.ranges(file.path) == [None]
    await stopped_fetching(teepi)
    counters = (await status(teepi))["counters"]
    assert (counters["uncached"], counters["committed"], counters["short_bodies"]) == (1, 0, 0)
    assert teepi.stderr.count(" uncached: ") == 1
    assert "Traceback" not in teepi.stderr


async def test_disk_full_passes_through_and_frees_the_partial(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path, mounted: Mounted
) -> None:
    """A file larger than a tmpfs of 4 MiB reaches all clients; the space is free again and a smaller one is cached."""
    large, small = publish(6 * MIB, "large"), publish(1 * MIB, "small")
    cache = tmp_path / "cache"
    cache.mkdir()
    teepi = await make_process(prefix=mounted(["mount", "-t", "tmpfs", "-o", "size=4m", "full", cache]))
    await assert_all_complete(teepi, upstream, large)
    inside = Path(f"/proc/{teepi.pid}/root{cache}")
    assert [path.name for path in (inside / "v1" / "partial").iterdir()] == []
    for _ in range(2):
        answer = await fetch(teepi.address, small.link)
        assert (answer.status, answer.body == small.content) == (200, True)
        await stopped_fetching(teepi)
    assert upstream.ranges(small.path) == [None]
    assert (await status(teepi))["counters"]["committed"] == 1
    assert_names_hold(inside)
    assert await teepi.terminate() == 0


async def test_disk_full_from_the_start_still_mirrors(
    make_process: MakeProcess, publish: Publish, tmp_path: Path, mounted: Mounted
) -> None:
    """Not even the catalogue finds room: pages and files are served, the problem is shown."""
    file = publish(200_000)
    cache = tmp_path / "cache"
    cache.mkdir()
    fill = ["sh", "-c", f"mkdir -p {cache}/v1/partial && cat /dev/zero >{cache}/ballast 2>{cache}.log || true"]
    teepi = await make_process(prefix=mounted(["mount", "-t", "tmpfs", "-o", "size=256k", "full", cache], fill))
    for _ in range(2):
        answer = await fetch(teepi.address, file.link)
        assert (answer.status, answer.body == file.content) == (200, True)
    found = await status(teepi)
    assert found["problems"] != []
    assert found["counters"]["uncached"] == 2
    assert await teepi.terminate() == 0
    assert "Traceback" not in teepi.stderr


async def test_disk_limit_on_file_size_passes_through(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path
) -> None:
    """``ulimit -f`` is EFBIG here and no deadly SIGXFSZ."""
    file = publish(4 * MIB)
    teepi = await make_process(prefix=["prlimit", f"--fsize={2 * MIB}"])
    await assert_all_complete(teepi, upstream, file)
    assert list((tmp_path / "cache" / "v1" / "partial").iterdir()) == []
    assert await teepi.terminate() == 0


async def test_disk_full_in_mid_file_passes_through(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path, strace: Strace
) -> None:
    """ENOSPC for the partial alone, from the sixth write of a thread on."""
    file = publish(4 * MIB)
    refused = ["-e", "inject=pwrite64:error=ENOSPC:when=6+"]
    teepi = await make_process(prefix=strace(*refused, trace="pwrite64", only=file.partial))
    await assert_all_complete(teepi, upstream, file)
    assert list((tmp_path / "cache" / "v1" / "partial").iterdir()) == []
    assert await teepi.terminate() == 0


async def test_disk_read_only_serves_what_it_has_and_passes_misses_through(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path, mounted: Mounted
) -> None:
    """The cache of an earlier run, mounted read-only: hits ask nothing, misses are passed, one sentence says it."""
    known, new = publish(300_000, "known"), publish(400_000, "new")
    teepi = await make_process()
    assert (await fetch(teepi.address, known.link)).body == known.content
    assert await teepi.terminate() == 0
    requests = len(upstream.requests)
    cache = tmp_path / "cache"
    before = sorted(cache.rglob("*"))
    teepi = await make_process(prefix=mounted(*read_only(cache)))
    assert (await fetch(teepi.address, "/simple/known/")).status == 200
    assert (await fetch(teepi.address, known.link)).body == known.content
    assert len(upstream.requests) == requests
    for _ in range(2):
        answer = await fetch(teepi.address, new.link)
        assert (answer.status, answer.body == new.content) == (200, True)
    counters = (await status(teepi))["counters"]
    assert (counters["hits"], counters["uncached"], counters["committed"]) == (1, 2, 0)
    assert await teepi.terminate() == 0
    assert teepi.stderr.count(f"The cache directory {cache} cannot be written") == 1
    assert "Traceback" not in teepi.stderr
    assert sorted(cache.rglob("*")) == before


async def test_disk_read_only_and_offline_serves_what_it_has(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path, mounted: Mounted
) -> None:
    """A cache shipped on a read-only medium needs no upstream."""
    file = publish(300_000)
    teepi = await make_process()
    assert (await fetch(teepi.address, file.link)).body == file.content
    assert await teepi.terminate() == 0
    await upstream.stop()
    teepi = await make_process(arguments=["--offline"], prefix=mounted(*read_only(tmp_path / "cache")))
    assert (await fetch(teepi.address, "/simple/demo/")).status == 200
    assert (await fetch(teepi.address, file.link)).body == file.content
    assert (await fetch(teepi.address, "/simple/other/")).status == 503
    assert await teepi.terminate() == 0
