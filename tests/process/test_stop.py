"""SIGTERM: exit status 0, running answers get some time, partials are kept and taken up again (fault 19)."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.process.tools import WITHHELD, assert_names_hold, begin, stopped_fetching
from tests.support.clients import ConnectionEnd, RawClient, fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.process.conftest import Publish, Published
    from tests.support.teepi import TeepiProcess
    from tests.support.upstream import Upstream

MIB = 1024 * 1024


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stop_when_idle_exits_0_at_once(make_process: MakeProcess, number: signal.Signals) -> None:
    """A connection that is kept alive without a request holds nothing up; nothing is said."""
    teepi = await make_process()
    async with await RawClient.connect(teepi.address) as client:
        assert (await client.get("/healthz")).status == 200
        began = time.monotonic()
        teepi.signal(number)
        assert await teepi.wait() == 0
        assert time.monotonic() - began < 3  # the drain alone would be five seconds
        assert await client.read_to_end() == (b"", "fin")
    assert teepi.stderr == ""


async def assert_resumes(teepi: TeepiProcess, upstream: Upstream, file: Published, landed: int) -> None:
    """Require that at least ``landed`` bytes are used: the answer is right, and only the rest was asked for."""
    answer = await fetch(teepi.address, file.link)
    assert (answer.status, answer.body == file.content, answer.complete) == (200, True, True)
    asked = upstream.ranges(file.path)[-1]
    assert asked is not None
    assert landed <= int(asked.removeprefix("bytes=").removesuffix("-")) < len(file.content)
    assert upstream.count("GET", file.path) == 2
    await stopped_fetching(teepi)
    assert file.cached.read_bytes() == file.content
    assert not file.partial.exists()


async def test_stop_with_a_fetch_nobody_waits_for_keeps_the_partial(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path
) -> None:
    """The client has left, the fetch goes on behind; SIGTERM syncs it and the next process asks for the rest."""
    file = publish(2 * MIB)
    gate = upstream.gate(file.path, MIB)
    teepi = await make_process()
    client, _ = await begin(teepi, file.link, MIB - WITHHELD)
    client.close()
    assert await teepi.terminate() == 0
    assert file.partial.stat().st_size >= MIB - WITHHELD
    assert not file.cached.exists()
    gate.open()
    await assert_resumes(await make_process(), upstream, file, MIB - WITHHELD)
    assert_names_hold(tmp_path / "cache")


async def test_stop_lets_a_running_answer_end(make_process: MakeProcess, publish: Publish, upstream: Upstream) -> None:
    """While it drains, new connections are refused and the client in mid-download gets all; then exit 0, committed."""
    file = publish(2 * MIB)
    gate = upstream.gate(file.path, MIB)
    teepi = await make_process()
    async with await RawClient.connect(teepi.address) as idle:
        assert (await idle.get("/healthz")).status == 200
        client, first = await begin(teepi, file.link, MIB - WITHHELD)
        async with client:
            teepi.signal(signal.SIGTERM)
            assert await idle.read_to_end() == (b"", "fin")  # it drains now
            with pytest.raises(ConnectionRefusedError):
                await RawClient.connect(teepi.address)
            gate.open()
            assert first + await client.read(len(file.content) - len(first)) == file.content
            assert await teepi.wait() == 0
    assert file.cached.read_bytes() == file.content


async def test_stop_drains_for_a_bounded_time(make_process: MakeProcess, publish: Publish, upstream: Upstream) -> None:
    """An upstream that says nothing more holds the exit up as long as was set, not longer; the client is cut short."""
    file = publish(2 * MIB)
    upstream.gate(file.path, MIB)
    teepi = await make_process(arguments=["--drain", "2"])
    client, first = await begin(teepi, file.link, MIB - WITHHELD)
    async with client:
        began = time.monotonic()
        assert await teepi.terminate() == 0
        assert 1.5 < time.monotonic() - began < 6  # the default is 5, since podman kills after ten
        with pytest.raises(ConnectionEnd):
            await client.read(len(file.content) - len(first))
    assert file.partial.stat().st_size >= MIB - WITHHELD


async def test_stop_asked_twice_ends_at_once_and_keeps_the_partial(
    make_process: MakeProcess, publish: Publish, upstream: Upstream
) -> None:
    """The second SIGTERM ends the drain; the status is 0 and nothing that has landed is lost."""
    file = publish(2 * MIB)
    gate = upstream.gate(file.path, MIB)
    teepi = await make_process()
    async with await RawClient.connect(teepi.address) as idle:
        assert (await idle.get("/healthz")).status == 200
        client, _ = await begin(teepi, file.link, MIB - WITHHELD)
        async with client:
            began = time.monotonic()
            teepi.signal(signal.SIGTERM)
            assert await idle.read_to_end() == (b"", "fin")  # the first one has been taken
            teepi.signal(signal.SIGTERM)
            assert await teepi.wait() == 0
            assert time.monotonic() - began < 3
    assert "Traceback" not in teepi.stderr
    gate.open()
    await assert_resumes(await make_process(), upstream, file, MIB - WITHHELD)


async def test_stop_with_fifty_downloads_ends_in_time_and_all_resume(
    make_process: MakeProcess, publish: Publish, upstream: Upstream
) -> None:
    """Fifty clients in mid-download are cut short after the drain; exit 0, and the next process asks for the rests."""
    files = [publish(4 * WITHHELD, "d" * length) for length in range(1, 51)]  # the name's length is the seed
    gates = [upstream.gate(file.path, 2 * WITHHELD) for file in files]
    teepi = await make_process(arguments=["--drain", "1"])
    clients = await asyncio.gather(*(begin(teepi, file.link, WITHHELD) for file in files))
    began = time.monotonic()
    assert await teepi.terminate() == 0
    assert 0.9 < time.monotonic() - began < 5  # the drain, then closing and fifty syncs
    for client, _ in clients:
        client.close()
    assert "Traceback" not in teepi.stderr
    for gate in gates:
        gate.open()
    again = await make_process()
    answers = await asyncio.gather(*(fetch(again.address, file.link) for file in files))
    assert [answer.body == file.content for answer, file in zip(answers, files, strict=True)] == [True] * 50
    assert [len(upstream.ranges(file.path)) for file in files] == [2] * 50
    asked = [int((upstream.ranges(file.path)[1] or "bytes=0-")[6:-1]) for file in files]
    assert min(asked) >= WITHHELD
