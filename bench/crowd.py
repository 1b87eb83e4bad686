"""The benches' clients: many at once on one URL, comparing each received byte with the known content.

A process of its own: ``python -m bench.crowd CONTENT PORT TARGET CLIENTS [LEAVE_AT]`` prints one JSON line per client.
With LEAVE_AT (a share of the file) the first client leaves there, with a reset.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import uvloop

from bench.machine import cores, spawn

_SCRATCH = bytearray(256 * 1024)  # one for all: each read is compared before the next


@dataclass
class Result:
    """What one client got; times are CLOCK_MONOTONIC."""

    status: int = 0
    begin: float = 0.0
    first_byte: float | None = None
    """Of the body."""
    end: float = 0.0
    received: int = 0
    right: bool = True
    """No byte differed, and all came."""
    left: bool = False
    """It went on purpose."""


class Client(asyncio.BufferedProtocol):
    """One download."""

    def __init__(self, content: bytes, target: str, leave_at: int | None) -> None:
        """Ask for ``target`` and compare with ``content``; leave after ``leave_at`` bytes."""
        self.result = Result()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._content = content
        self._target = target
        self._leave_at = leave_at
        self._head = b""
        self._in_body = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.result.begin = time.monotonic()
        self._transport.write(f"GET {self._target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n".encode())

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - named by the interface
        """Return where to read to."""
        return _SCRATCH

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        data = memoryview(_SCRATCH)[:nbytes]
        if not self._in_body:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._in_body = True
            self.result.status = int(self._head.split(b" ", 2)[1])
            if self.result.status != 200:  # nothing more is to come that could be compared
                assert self._transport is not None
                self._transport.close()
                self._finish()
                return
            data = memoryview(self._head)[end + 4 :]
        if data:
            self._compare(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - named by the interface
        """End, complete or not."""
        self._finish()

    def _compare(self, data: memoryview) -> None:
        result = self.result
        if result.first_byte is None:
            result.first_byte = time.monotonic()
        # startswith compares in place: no copy, no hash.
        if not self._content.startswith(data, result.received):
            result.right = False
        result.received += len(data)
        assert self._transport is not None
        if self._leave_at is not None and result.received >= self._leave_at:
            result.left = True
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif result.received >= len(self._content):
            self._transport.close()
            self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.result.end = time.monotonic()
            self.result.right = self.result.right and self.result.received == len(self._content)
            self.done.set_result(None)


async def crowd(content: bytes, port: int, target: str, clients: int, leave_at: float | None) -> list[Result]:
    """Start all clients, the first one first, and wait for all."""
    loop = asyncio.get_running_loop()

    async def start(leave: int | None) -> Client:
        transport, client = await loop.create_connection(lambda: Client(content, target, leave), "127.0.0.1", port)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    first = await start(None if leave_at is None else int(leave_at * len(content)))
    everyone = [first, *await asyncio.gather(*(start(None) for _ in range(clients - 1)))]
    await asyncio.gather(*(client.done for client in everyone))
    return [client.result for client in everyone]


def ask(content: Path, port: int, target: str, clients: int, leave_at: float | None = None) -> list[Result]:
    """Run a crowd in a process of its own, on the clients' core. Raises CalledProcessError."""
    command = [sys.executable, "-m", "bench.crowd", str(content), str(port), target, str(clients)]
    with spawn(command + ([str(leave_at)] if leave_at else []), cores()[1]) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return [Result(**json.loads(line)) for line in output.splitlines()]


def main() -> None:
    """Run as the module's docstring says."""
    path, port, target, clients, *leave = sys.argv[1:]
    content = Path(path).read_bytes()
    leave_at = float(leave[0]) if leave else None
    for result in uvloop.run(crowd(content, int(port), target, int(clients), leave_at)):
        print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
