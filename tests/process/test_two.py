"""Two processes on one cache directory (fault 8): the second waits for the first to leave."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import fetch
from tests.support.teepi import TeepiProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.process.conftest import Publish
    from tests.support.upstream import Upstream

pytestmark = pytest.mark.fault


async def test_second_process_waits_for_the_first_and_takes_over(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path
) -> None:
    """It says that it waits, does not listen, disturbs nobody, and starts as soon as the first has ended."""
    file = publish(500_000)
    first = await make_process()
    second = TeepiProcess(tmp_path, upstream.index_url)
    starting = asyncio.create_task(second.start())
    try:
        await second.said(f"Another teepi uses {tmp_path / 'cache' / 'lock'}; waiting up to 15 s for it to leave.")
        answers = await asyncio.gather(*(fetch(first.address, file.link) for _ in range(50)))
        assert [(answer.status, answer.body == file.content) for answer in answers] == [(200, True)] * 50
        assert second.stdout == ""
        assert await first.terminate() == 0
        began = time.monotonic()
        await starting
        assert time.monotonic() - began < 5
        answer = await fetch(second.address, file.link)
        assert (answer.status, answer.body == file.content) == (200, True)
        assert upstream.ranges(file.path) == [None]
        assert await second.terminate() == 0
    finally:
        starting.cancel()
        await second.end()


async def test_second_process_that_waits_leaves_at_sigterm(
    make_process: MakeProcess, upstream: Upstream, tmp_path: Path
) -> None:
    """Nobody has to wait for the end of the wait."""
    await make_process()
    second = TeepiProcess(tmp_path, upstream.index_url)
    starting = asyncio.create_task(second.start())
    try:
        await second.said("Another teepi uses")
        began = time.monotonic()
        assert await second.terminate() == 0
        assert time.monotonic() - began < 5
    finally:
        await asyncio.gather(starting, return_exceptions=True)
        await second.end()


async def test_second_process_after_a_kill_starts_at_once(make_process: MakeProcess, publish: Publish) -> None:
    """The lock dies with its process; no stale file holds anyone up."""
    publish(1000)
    first = await make_process()
    await first.kill9()
    second = await make_process()
    assert (await fetch(second.address, "/simple/demo/")).status == 200
    assert second.stderr == ""
