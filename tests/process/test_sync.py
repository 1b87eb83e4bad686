"""What the disk is told, and in which order (fault 2), and what follows when it says no (fault 3)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.process import syscalls
from tests.process.tools import WITHHELD, assert_names_hold, begin, status, stopped_fetching
from tests.support.clients import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.process.conftest import Publish, Strace
    from tests.support.upstream import Upstream

MIB = 1024 * 1024

pytestmark = pytest.mark.fault


async def test_sync_order_survives_a_power_cut(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path, strace: Strace
) -> None:
    """No rename into the cache without an earlier sync of that file and a later one of its directory.

    Of a file with sha256, one without, their pages, a resumed one, and every directory made on the way.
    """
    small, large, odd = publish(1000, "small"), publish(2 * MIB, "large"), publish(3000, "odd", sha256=False)
    gate = upstream.gate(large.path, MIB)
    teepi = await make_process()
    client, _ = await begin(teepi, large.link, MIB - WITHHELD)
    client.close()
    assert await teepi.terminate() == 0
    gate.open()
    teepi = await make_process(prefix=strace(trace=syscalls.TRACED))
    for file in (small, large, odd):
        answer = await fetch(teepi.address, file.link)
        assert (answer.status, answer.body == file.content) == (200, True)
    assert await teepi.terminate() == 0
    assert upstream.ranges(large.path)[1] is not None
    calls = syscalls.read(strace.output.read_text())
    layout = tmp_path / "cache" / "v1"
    into = {call.paths[-1] for call in calls if call.ok and call.name.startswith("rename")}
    assert {str(file.cached) for file in (small, large, odd)} <= into
    for part, count in (("files/url", 1), ("pages", 2)):
        assert sum(path.startswith(f"{layout / part}/") for path in into) == count
    assert [fault for part in ("files", "pages") for fault in syscalls.faults(calls, str(layout / part))] == []


async def test_sync_of_the_first_start_covers_the_layout(
    make_process: MakeProcess, publish: Publish, tmp_path: Path, strace: Strace
) -> None:
    """Directories that hold everything else are durable themselves, as are those made for the first page."""
    publish(1000)
    teepi = await make_process(prefix=strace(trace=syscalls.TRACED))
    assert (await fetch(teepi.address, "/simple/demo/")).status == 200
    assert await teepi.terminate() == 0
    calls = syscalls.read(strace.output.read_text())
    made = [call.paths[-1] for call in calls if call.ok and call.name.startswith("mkdir")]
    layout = tmp_path / "cache" / "v1"
    assert {str(layout / "files" / "sha256"), str(layout / "pages" / "root+pypi")} <= set(made)
    assert syscalls.faults(calls, str(tmp_path / "cache")) == []


@pytest.mark.parametrize(
    "refused", ["fdatasync:error=EIO", "rename,renameat,renameat2:error=EIO", "fdatasync:error=ENOSPC"]
)
async def test_sync_refused_serves_all_clients_and_commits_nothing(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path, strace: Strace, refused: str
) -> None:
    """Right bytes for all of one fetch, counted, logged, the partial gone; never a second sync of the descriptor."""
    file = publish(500_000)
    calls = "openat,fsync,fdatasync,rename,renameat,renameat2,close"
    prefix = strace("-e", f"inject={refused}:when=1", trace=calls, only=file.partial)
    teepi = await make_process(prefix=prefix)
    answers = await asyncio.gather(*(fetch(teepi.address, file.link) for _ in range(5)))
    assert [(answer.status, answer.body == file.content) for answer in answers] == [(200, True)] * 5
    assert upstream.ranges(file.path) == [None]
    await stopped_fetching(teepi)
    assert teepi.stderr.count("was served but not committed") == 1
    counters = (await status(teepi))["counters"]
    assert (counters["uncached"], counters["committed"]) == (1, 0)
    assert not file.cached.exists()
    assert not file.partial.exists()
    assert await teepi.terminate() == 0
    syncs = [call for call in syscalls.read(strace.output.read_text()) if call.name in {"fsync", "fdatasync"}]
    assert len(syncs) == 1
    assert "Traceback" not in teepi.stderr
    assert_names_hold(tmp_path / "cache")


async def test_sync_refused_is_fetched_anew_on_a_new_inode(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path, strace: Strace
) -> None:
    """Nothing of the failed one is used again: its pages may count as clean without being on disk."""
    file = publish(500_000)
    teepi = await make_process(prefix=strace("-e", "inject=fdatasync:error=EIO", trace="fdatasync", only=file.partial))
    for fetches in (1, 2):
        answer = await fetch(teepi.address, file.link)
        assert (answer.status, answer.body == file.content) == (200, True)
        assert upstream.ranges(file.path) == [None] * fetches
        await stopped_fetching(teepi)
    assert (await status(teepi))["counters"]["uncached"] == 2
    await teepi.kill9()
    teepi = await make_process()
    answer = await fetch(teepi.address, file.link)
    assert (answer.status, answer.body == file.content) == (200, True)
    assert await teepi.terminate() == 0
    assert upstream.ranges(file.path) == [None] * 3
    assert file.cached.read_bytes() == file.content
    assert_names_hold(tmp_path / "cache")


async def test_sync_refused_at_a_stop_gives_the_partial_up(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, strace: Strace
) -> None:
    """What could not be synced may be lost without a word (its pages count as clean), so no process resumes it."""
    file = publish(2 * MIB)
    gate = upstream.gate(file.path, MIB)
    teepi = await make_process(prefix=strace("-e", "inject=fdatasync:error=EIO", trace="fdatasync", only=file.partial))
    client, _ = await begin(teepi, file.link, MIB - WITHHELD)
    client.close()
    assert await teepi.terminate() == 0
    assert not file.partial.exists()
    gate.open()
    answer = await fetch((await make_process()).address, file.link)
    assert (answer.status, answer.body == file.content) == (200, True)
    assert upstream.ranges(file.path) == [None, None]
