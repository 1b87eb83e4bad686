"""SIGKILL in mid-download (fault 1): nothing wrong under a final name, ever, and the next process takes it up."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.process.tools import WITHHELD, assert_names_hold, begin
from tests.support.clients import RawClient, fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.process.conftest import Publish, Strace
    from tests.support.upstream import Upstream

MIB = 1024 * 1024


@pytest.mark.fault
async def test_kill_at_five_points_of_one_download_loses_nothing_that_landed(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path
) -> None:
    """Each process dies where the upstream holds; the next asks for the rest by Range, the last one is right."""
    file = publish(5 * MIB + 12_345)
    points = [100_000, MIB, MIB + 70_001, 3 * MIB, 5 * MIB]
    for round_, point in enumerate(points):
        gate = upstream.gate(file.path, point)
        teepi = await make_process()
        client, first = await begin(teepi, file.link, point - WITHHELD)
        assert first == file.content[: point - WITHHELD]
        await teepi.kill9()
        client.close()
        assert file.partial.stat().st_size >= point - WITHHELD
        assert not file.cached.exists()
        gate.open()
        assert len(upstream.ranges(file.path)) == round_ + 1
    teepi = await make_process()
    answer = await fetch(teepi.address, file.link)
    assert (answer.status, answer.body == file.content) == (200, True)
    none, *ranges = upstream.ranges(file.path)
    assert none is None
    for point, asked in zip(points, ranges, strict=True):
        assert asked is not None
        assert point - WITHHELD <= int(asked.removeprefix("bytes=").removesuffix("-")) <= point
    assert await teepi.terminate() == 0
    assert file.cached.read_bytes() == file.content
    assert_names_hold(tmp_path / "cache")


@pytest.mark.fault
async def test_kill_before_the_first_byte_fetches_anew(
    make_process: MakeProcess, publish: Publish, upstream: Upstream
) -> None:
    """With nothing landed there is nothing to take up, and no Range of zero bytes is asked."""
    file = publish(300_000)
    gate = upstream.gate(file.path, "head")
    teepi = await make_process()
    async with await RawClient.connect(teepi.address) as client:
        await client.send("GET", file.link)
        await gate.reached.wait()
        await teepi.kill9()
    gate.open()
    answer = await fetch((await make_process()).address, file.link)
    assert (answer.status, answer.body == file.content) == (200, True)
    assert upstream.ranges(file.path) == [None, None]


@pytest.mark.fault
async def test_kill_with_a_partial_that_was_damaged_meanwhile_is_never_passed_on(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path
) -> None:
    """A flipped byte in what landed: no client completes a wrong body, nothing is committed, the next one is right."""
    file = publish(2 * MIB)
    gate = upstream.gate(file.path, MIB)
    teepi = await make_process()
    client, _ = await begin(teepi, file.link, MIB - WITHHELD)
    await teepi.kill9()
    client.close()
    gate.open()
    with file.partial.open("r+b") as partial:
        partial.seek(1000)
        partial.write(bytes([file.content[1000] ^ 1]))
    teepi = await make_process()
    answer = await fetch(teepi.address, file.link)
    assert answer.body == file.content or not answer.complete
    assert_names_hold(tmp_path / "cache")
    answer = await fetch(teepi.address, file.link)
    assert (answer.status, answer.body == file.content, answer.complete) == (200, True, True)


@pytest.mark.fault
@pytest.mark.parametrize("call", ["fdatasync", "rename"])
async def test_kill_at_the_call_that_commits_leaves_no_wrong_file(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path, strace: Strace, call: str
) -> None:
    """Dead exactly at the sync, or at the rename: all bytes are there, so the next process asks upstream nothing."""
    file = publish(500_000)
    kill = ["-e", f"inject={call}:signal=KILL:when=1"]
    teepi = await make_process(prefix=strace(*kill, trace=call, only=file.partial))
    async with await RawClient.connect(teepi.address) as client:
        await client.send("GET", file.link)
        assert await teepi.wait() == -signal.SIGKILL
        await client.read_to_end()  # whatever it had
    assert call in strace.output.read_text()
    assert_names_hold(tmp_path / "cache")
    teepi = await make_process()
    answer = await fetch(teepi.address, file.link)
    assert (answer.status, answer.body == file.content) == (200, True)
    assert upstream.ranges(file.path) == [None]
    assert await teepi.terminate() == 0
    assert file.cached.read_bytes() == file.content
