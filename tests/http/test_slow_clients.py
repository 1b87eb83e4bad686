"""Clients that are slow or do nothing (fault 11): they cost little, they go in time, and nobody else notices."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.http.scene import CALM
from tests.support.clients import RawClient, fetch

if TYPE_CHECKING:
    from tests.conftest import MakeProcess, MakeTeepi
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

MIB = 1024 * 1024


async def connected(teepi: Teepi, number: int) -> None:
    """Wait until just so many clients are connected."""
    async with asyncio.timeout(15):
        while teepi.server.connections != number:  # noqa: ASYNC110 - aiohttp tells nobody
            await asyncio.sleep(0)


async def test_head_that_trickles_in_is_given_up_in_time(make_teepi: MakeTeepi) -> None:
    """A byte now and then does not keep a connection: what counts is a whole request."""
    teepi = await make_teepi(replace(CALM, keepalive_seconds=0.5))
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(b"GET /healthz HTTP/1.1\r\nHost: teepi.example\r\nX-Slow: ")
        loop = asyncio.get_running_loop()
        began = loop.time()
        ended = asyncio.create_task(client.read_to_end())
        while not ended.done():
            await client.send_bytes(b"a")
            await asyncio.wait({ended}, timeout=0.05)
        assert (await ended)[0] == b""
        assert 0.4 < loop.time() - began < 5


async def test_page_that_is_never_read_is_given_up_in_time(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The client asks again and again and reads nothing: the connection goes, and what was kept for it."""
    upstream.project("demo", {f"demo-{number}.0.tar.gz": b"x" for number in range(4000)})
    teepi = await make_teepi(replace(CALM, client_idle_seconds=0.5))
    assert len((await fetch(teepi.address, "/simple/demo/")).body) > MIB // 2
    async with await RawClient.connect(teepi.address, receive_buffer_bytes=4096) as client:
        for _ in range(3):
            await client.send("GET", "/simple/demo/")
        await connected(teepi, 1)
        await connected(teepi, 0)


async def test_page_that_is_read_slowly_arrives(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Slow is not idle: some bytes now and then are enough."""
    upstream.project("demo", {f"demo-{number}.0.tar.gz": b"x" for number in range(4000)})
    teepi = await make_teepi(replace(CALM, client_idle_seconds=1))
    async with await RawClient.connect(teepi.address, receive_buffer_bytes=65536) as client:
        await client.send("GET", "/simple/demo/")
        length = (await client.read_head()).length or 0
        loop = asyncio.get_running_loop()
        began, count = loop.time(), 0
        while count < length:
            count += len(await client.read(min(length // 8, length - count)))
            await asyncio.wait({asyncio.ensure_future(asyncio.sleep(0.15))})
        assert loop.time() - began > 1


async def test_thousand_idle_connections_cost_little_and_delay_nobody(make_process: MakeProcess) -> None:
    """A thousand that say nothing: 64 KiB each at most, and requests are answered as ever."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096) if hard > 0 else 4096, hard))
    teepi = await make_process()
    assert (await fetch(teepi.address, "/healthz")).status == 200
    before = teepi.rss_bytes()
    clients = [await RawClient.connect(teepi.address) for _ in range(1000)]
    async with await RawClient.connect(teepi.address) as client:
        async with asyncio.timeout(5):
            for _ in range(100):
                assert (await client.get("/healthz")).status == 200
        assert teepi.rss_bytes() - before < 1000 * 64 * 1024
    for idle in clients:
        idle.close()
    assert await teepi.terminate() == 0
