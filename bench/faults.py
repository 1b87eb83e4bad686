"""Faults that take longer than a test may: idle and dripping clients, a lack of descriptors, a disk that syncs slowly.

Each runs against the real process for ``--seconds``, while a well-behaved client asks for a page and a cached file all
the time. Printed are that client's slowest answer and teepi's memory and CPU. Exit code 1 when it waits for more than a
second (a lack of descriptors apart, where 503 within a second is the answer), when memory grows by more than 100 MB,
or when it is not well afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench import servers
from bench.machine import MB, ended, family, resident
from tests.support.clients import ConnectionEnd, RawClient, fetch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    Fault = Callable[[int, float], Awaitable[None]]

_CROWD = 1000
_SLOWEST_SECONDS = 1.0
_MOST_MEMORY = 100 * MB
_SIZE = 2 * MB


@dataclass
class Seen:
    """What the well-behaved client saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    slowest_seconds: float = 0.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--seconds", type=float, default=120.0, help="of each fault")


def run(arguments: argparse.Namespace) -> int:
    """Run all faults; exit code 1 when one was not survived."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 10_000)), hard))
    faults: list[tuple[str, tuple[str, ...], Fault]] = [
        (f"{_CROWD} clients that idle, drip or do not read", (), _crowd),
        ("200 connections at 64 descriptors", ("prlimit", "--nofile=64"), _connections),
        ("every sync takes 0.5 s", ("strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync",
                                    "-e", "inject=fdatasync:delay_enter=500000"), _nothing),
    ]  # fmt: skip
    bad = 0
    for name, prefix, fault in faults:
        if prefix and shutil.which(prefix[0]) is None:
            print(f"{name}: left out, {prefix[0]} is missing")
            continue
        bad += _survived(name, prefix, fault, arguments.seconds)
    return 1 if bad else 0


def _survived(
    name: str, prefix: tuple[str, ...], fault: Callable[[int, float], Awaitable[None]], seconds: float
) -> int:
    """Run one fault; return 1 when it was not survived."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        content = Path(directory) / "content"
        content.write_bytes(os.urandom(_SIZE))
        with servers.upstream(content, 50 * MB) as upstream_port:
            process, port = servers.start_teepi(Path(directory), upstream_port, prefix=prefix)
            with ended(process):
                target = servers.teepi_target(port)
                servers.get(port, target)
                teepi = family(process.pid)[-1]
                idle, cpu = resident(teepi), _cpu_seconds(teepi)
                seen = asyncio.run(_meanwhile(port, target, fault, seconds))
                grown, used = resident(teepi) - idle, _cpu_seconds(teepi) - cpu
                well = servers.get(port, target)[1] == content.read_bytes()
                os.kill(teepi, signal.SIGTERM)  # whatever runs it ends with it, but not it with that
    refusing = "descriptors" in name
    problems = [
        *(["the slowest answer took too long"] if seen.slowest_seconds > _SLOWEST_SECONDS else []),
        *(["other answers than 200"] if set(seen.statuses) - ({200, 503} if refusing else {200}) else []),
        *(["memory"] if grown > _MOST_MEMORY else []),
        *([] if well else ["it is not well afterwards"]),
    ]
    print(
        f"{name}: answers {dict(seen.statuses)}, slowest {seen.slowest_seconds * 1000:.0f} ms, memory "
        f"{grown / MB:+.1f} MB, CPU {used:.1f} s in {seconds:.0f} s: {', '.join(problems) or 'survived'}",
        flush=True,
    )
    return 1 if problems else 0


async def _meanwhile(port: int, target: str, fault: Fault, seconds: float) -> Seen:
    """Let the fault work while a good client asks."""
    seen = Seen()
    working = asyncio.ensure_future(fault(port, seconds))
    await asyncio.sleep(min(2.0, seconds / 4))
    while not working.done():
        for each in ("/root/pypi/+simple/big/", target):
            began = time.monotonic()
            try:
                seen.statuses[(await fetch(("127.0.0.1", port), each)).status] += 1
            except (ConnectionEnd, OSError):
                seen.statuses[0] += 1
            seen.slowest_seconds = max(seen.slowest_seconds, time.monotonic() - began)
        await asyncio.sleep(0.05)
    await working
    await asyncio.sleep(1.0)
    return seen


async def _crowd(port: int, seconds: float) -> None:
    """Keep connections that send nothing, or a byte of a head now and then, or read nothing of what they asked for."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(await RawClient.connect(("127.0.0.1", port), receive_buffer_bytes=4096))
            for _ in range(_CROWD)
        ]
        for client in clients[:50]:
            await client.send("GET", "/root/pypi/+simple/big/")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for client in clients[50:250]:
                with contextlib.suppress(OSError):  # dropped by then, as it should be
                    await client.send_bytes(b"G")
            await asyncio.sleep(2.0)


async def _connections(port: int, seconds: float) -> None:
    """Keep more connections than there are descriptors."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(200):
            with contextlib.suppress(OSError):
                await stack.enter_async_context(await RawClient.connect(("127.0.0.1", port)))
        await asyncio.sleep(seconds)


async def _nothing(port: int, seconds: float) -> None:  # noqa: ARG001 - as the others
    await asyncio.sleep(seconds)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
