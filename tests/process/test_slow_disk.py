"""A slow disk (fault 6): what waits for it is the commit, and nobody's answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.process.tools import status
from tests.support.clients import fetch

if TYPE_CHECKING:
    from tests.conftest import MakeProcess
    from tests.process.conftest import Publish, Strace
    from tests.support.upstream import Upstream

pytestmark = pytest.mark.fault

SYNC_SECONDS = 0.4


async def test_disk_that_syncs_slowly_delays_no_answer(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, strace: Strace
) -> None:
    """While five files wait for their syncs: hits, health and a page not seen before come as fast as ever."""
    known = publish(100_000, "known")
    files = [publish(100_000, "d" * length) for length in range(10, 15)]
    slow = ["-e", f"inject=fdatasync:delay_enter={int(SYNC_SECONDS * 1_000_000)}"]
    teepi = await make_process(prefix=strace(*slow, trace="fdatasync"))
    assert (await fetch(teepi.address, known.link)).body == known.content
    while (await status(teepi))["in_flight"]:
        pass
    for file in files:  # the pages that lead to them are no part of this
        assert (await fetch(teepi.address, f"/simple/{file.path.split('/')[2]}/")).status == 200

    async def timed(target: str) -> float:
        began = time.monotonic()
        assert (await fetch(teepi.address, target)).status == 200
        return time.monotonic() - began

    began = time.monotonic()
    bodies = await asyncio.gather(*(fetch(teepi.address, file.link) for file in files))
    assert [body.body == file.content for body, file in zip(bodies, files, strict=True)] == [True] * len(files)
    assert time.monotonic() - began < SYNC_SECONDS, "a client waited for the disk"
    new = iter(range(10))
    waits = []
    while (await status(teepi))["in_flight"]:
        waits += [await timed("/healthz"), await timed(known.link)]
        if (number := next(new, None)) is not None:
            upstream.project(f"new{number}", {f"new{number}-1.0.tar.gz": b"x"})
            waits.append(await timed(f"/simple/new{number}/"))
    assert time.monotonic() - began > SYNC_SECONDS, "the disk was not slow"
    assert max(waits) < SYNC_SECONDS / 2
