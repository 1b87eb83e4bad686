"""No descriptors left (fault 10): 503 with Retry-After for who comes too many, and all is well when they have gone."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import Answer, ConnectionEnd, RawClient, fetch

if TYPE_CHECKING:
    from tests.conftest import MakeProcess
    from tests.process.conftest import Publish
    from tests.support.teepi import TeepiProcess

pytestmark = pytest.mark.fault

FEW = ["prlimit", "--nofile=64"]


def cpu_seconds(teepi: TeepiProcess) -> float:
    """Return the time that teepi's own process has computed."""
    fields = Path(f"/proc/{teepi.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_descriptors_taken_by_idle_clients_leave_enough_for_those_who_ask(
    make_process: MakeProcess, publish: Publish
) -> None:
    """Who came in is served, also with what has to be fetched; who comes too many gets 503; then all is as before."""
    first, second, third = (publish(100_000, "d" * length) for length in (1, 2, 3))
    teepi = await make_process(prefix=FEW)
    async with await RawClient.connect(teepi.address) as inside:
        assert (await inside.get(first.link)).body == first.content
        idle = [await RawClient.connect(teepi.address) for _ in range(25)]
        refused = await fetch(teepi.address, first.link)
        assert (refused.status, refused.headers["retry-after"], refused.complete) == (503, "1", True)
        assert refused.body == b"teepi has no file descriptor left; try again in a moment.\n"
        assert (await inside.get(first.link)).body == first.content
        assert (await inside.get(second.link)).body == second.content
        for client in idle:
            client.close()
    assert (await inside_again(teepi, third.link)).body == third.content
    assert await teepi.terminate() == 0
    assert "Traceback" not in teepi.stderr


async def inside_again(teepi: TeepiProcess, target: str) -> Answer:
    """Ask as a client does that takes Retry-After at its word, but sooner."""
    async with asyncio.timeout(10):
        while (answer := await fetch(teepi.address, target)).status == 503:
            pass
    return answer


async def test_descriptors_gone_in_a_burst_of_downloads_cut_no_answer_short(
    make_process: MakeProcess, publish: Publish
) -> None:
    """Forty at once with room for some: each answer is whole or 503 or none at all, and no 200 ends early."""
    files = [publish(200_000, "d" * length) for length in range(1, 5)]
    teepi = await make_process(prefix=FEW)
    clients = [await RawClient.connect(teepi.address) for _ in range(40)]

    async def ask(number: int) -> Answer | None:
        async with clients[number] as client:
            try:
                return await client.get(files[number % 4].link)
            except ConnectionEnd:
                return None

    answers = await asyncio.gather(*map(ask, range(40)))
    seen = {(answer.status, answer.complete) if answer is not None else None for answer in answers}
    assert seen <= {(200, True), (503, True), None}
    assert (200, True) in seen
    assert (503, True) in seen
    for answer in answers:
        assert answer is None or answer.status == 200 or answer.headers["retry-after"] == "1"
    for file in files:
        assert (await inside_again(teepi, file.link)).body == file.content


async def test_descriptors_gone_do_not_spin_the_accept_loop(make_process: MakeProcess) -> None:
    """More connections wait than there are descriptors: teepi waits with them, and drops the silent ones it refused."""
    teepi = await make_process(prefix=FEW)
    clients = [await RawClient.connect(teepi.address) for _ in range(100)]
    before, began = cpu_seconds(teepi), time.monotonic()
    async with await RawClient.connect(teepi.address) as silent:
        assert await silent.read_to_end() == (b"", "fin")  # after a second, or at once where none was left for it
    async with await RawClient.connect(teepi.address) as silent:
        await silent.read_to_end()
    assert cpu_seconds(teepi) - before < 0.2 + (time.monotonic() - began) / 4
    for client in clients:
        client.close()
    assert (await inside_again(teepi, "/healthz")).status == 200
