"""The suite's upstream: serves a :mod:`bench.world` from memory, counts, and is as far away as it is told.

A process of its own (``python -m bench.origin DIRECTORY``); it prints its port. ``/+delay/SECONDS`` sets how long each
answer waits, ``/+report`` tells what was asked since the last ``/+reset``. It is the row ``direct`` too, where it is no
fair server: it shares a core with the clients.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import mmap
import sys
from collections import Counter
from pathlib import Path
from typing import cast

import uvloop

from bench import world
from bench.heads import JSON


class Origin:
    """The answers, made when first asked for."""

    def __init__(self, directory: Path) -> None:
        """Serve the world in ``directory``."""
        self._world = world.World.read(directory)
        self._base = ""
        self._made: dict[tuple[str, bool], list[bytes | mmap.mmap]] = {}
        self.delay_seconds = 0.0
        self.asked: Counter[str] = Counter()

    def listens(self, port: int) -> None:
        """Take the port that file links need: they are absolute, as those of large indexes are."""
        self._base = f"http://127.0.0.1:{port}/files/"

    def answer(self, method: str, target: str, accept: str) -> list[bytes | mmap.mmap]:
        """Return the head and the body."""
        if target.startswith("/+"):
            return self._control(target)
        self.asked[f"{method} {target}"] += 1
        key = (target, JSON in accept)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(*key)
        return made[:1] if method == "HEAD" else made

    def _control(self, target: str) -> list[bytes | mmap.mmap]:
        body = b"{}"
        if target == "/+reset":
            self.asked.clear()
        elif target == "/+report":
            body = json.dumps(self.asked).encode()
        elif target.startswith("/+delay/"):
            self.delay_seconds = float(target.rpartition("/")[2])
        return [_head("200 OK", "application/json", len(body)), body]

    def _make(self, target: str, as_json: bool) -> list[bytes | mmap.mmap]:  # noqa: FBT001 - half of the key
        first, *rest = target.strip("/").split("/")
        kind = JSON if as_json else "text/html"
        if (first, rest) == ("simple", []):
            body = self._list(as_json=as_json)
        elif first == "simple" and (files := self._world.projects.get(rest[0])) is not None:
            body = (world.page_json if as_json else world.page_html)(rest[0], files, self._base)
        elif first == "files" and ".." not in rest and (path := self._world.path(rest[0], rest[-1])).is_file():
            if path.stat().st_size == 0:
                return [_head("200 OK", "application/octet-stream", 0)]
            with path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            return [_head("200 OK", "application/octet-stream", len(content), path.name), content]
        else:
            return [_head("404 Not Found", "text/plain", 0)]
        return [_head("200 OK", kind, len(body), hashlib.sha256(body).hexdigest()[:32]), body]

    def _list(self, *, as_json: bool) -> bytes:
        names = self._world.projects
        if as_json:
            return json.dumps({"meta": {"api-version": "1.4"}, "projects": [{"name": name} for name in names]}).encode()
        return "".join(f'<a href="/simple/{name}/">{name}</a>\n' for name in names).encode()


def _head(status: str, kind: str, length: int, etag: str = "none") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
        f'ETag: "{etag}"\r\nCache-Control: max-age=86400\r\n\r\n'
    ).encode()


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, origin: Origin) -> None:
        """Answer from ``origin``."""
        self._origin = origin
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each head that is whole; none has a body."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end].decode("latin-1"), self._buffer[end + 4 :]
            lines = head.split("\r\n")
            method, target, _ = lines[0].split(" ")
            accept = next((line for line in lines if line[:7].lower() == "accept:"), "")
            answer = self._origin.answer(method, target, accept)
            if self._origin.delay_seconds and not target.startswith("/+"):
                asyncio.get_running_loop().call_later(self._origin.delay_seconds, self._write, answer)
            else:
                self._write(answer)

    def _write(self, answer: list[bytes | mmap.mmap]) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        for part in answer:
            self._transport.write(memoryview(part))


async def serve(directory: Path) -> None:
    """Listen on a free port of loopback, print it, and serve until the process is ended."""
    origin = Origin(directory)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(origin), "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    origin.listens(port)
    print(port, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
