"""No descriptors left (fault 10): 503 with Retry-After for who comes too many, and all is well when they have gone."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import Answer, ConnectionEnd, Head, RawClient, fetch

if TYPE_CHECKING:
    from tests.conftest import MakeProcess
    from tests.process.conftest import Publish
    from tests.support.teepi import TeepiProcess
    from tests.support.upstream import Upstream

pytestmark = pytest.mark.fault

FEW = ["prlimit", "--nofile=72"]


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
    make_process: MakeProcess, publish: Publish, upstream: Upstream
) -> None:
    """Forty at once with room for some: who gets a 200 gets all of it, others 503 or no connection."""
    file = publish(400_000)
    gate = upstream.gate(file.path, 200_000)
    teepi = await make_process(prefix=FEW)
    clients = [await RawClient.connect(teepi.address) for _ in range(40)]

    async def ask(client: RawClient) -> Head | None:
        try:
            await client.send("GET", file.link)
            return await client.read_head()
        except (ConnectionEnd, ConnectionError):
            return None

    heads = await asyncio.gather(*map(ask, clients))  # now all that are served hold what they need
    gate.open()
    seen = {head.status for head in heads if head is not None}
    assert seen == {200, 503}
    for client, head in zip(clients, heads, strict=True):
        async with client:
            if head is not None and head.status == 200:
                assert await client.read(400_000) == file.content
            assert head is None or head.status == 200 or head.headers["retry-after"] == "1"
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
