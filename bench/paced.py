"""The benches' upstream: one project with one large file, all answers together limited to one rate.

A process of its own (``python -m bench.paced CONTENT BYTES_PER_SECOND``), so that it costs the server under test
no time. It prints its port. ``/+report`` tells what it was asked since the last ``/+reset``; times are those of
CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import mmap
import re
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

PIECE_BYTES = 64 * 1024
PROJECT = "big"
FILENAME = "big-1.0-py3-none-any.whl"
FILE_PATH = f"/packages/{PROJECT}/{FILENAME}"
PAGE_PATH = f"/simple/{PROJECT}/"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Pace:
    """A line of a given rate that all answers share, first come, first served."""

    def __init__(self, bytes_per_second: float) -> None:
        """Make an idle line."""
        self._rate = bytes_per_second
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        """Wait for the turn of ``count`` bytes."""
        now = time.monotonic()
        begin = max(self._free_at, now)
        self._free_at = begin + count / self._rate
        if begin - now > 0.001:
            await asyncio.sleep(begin - now)


class Index:
    """One page, one file, and what was asked."""

    def __init__(self, content: mmap.mmap, bytes_per_second: float) -> None:
        """Serve ``content`` at a rate."""
        self._content = content
        self._digest = hashlib.sha256(content).hexdigest()
        self._pace = Pace(bytes_per_second)
        self._log: list[dict[str, Any]] = []
        self._first_byte: float | None = None

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                pairs = (line.partition(":") for line in lines[1:] if line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                if target == FILE_PATH:
                    await self._file(writer, method, headers)
                else:
                    await self._small(writer, target)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _small(self, writer: asyncio.StreamWriter, target: str) -> None:
        status, kind, body = "200 OK", "application/json", b"{}"
        if target == PAGE_PATH:
            kind, body = "application/vnd.pypi.simple.v1+json", json.dumps(self._page()).encode()
        elif target == "/simple/":  # devpi wants it before any page
            kind = "application/vnd.pypi.simple.v1+json"
            body = json.dumps({"meta": {"api-version": "1.1"}, "projects": [{"name": PROJECT}]}).encode()
        elif target == "/+report":
            body = json.dumps({"requests": self._log, "first_byte": self._first_byte}).encode()
        elif target == "/+reset":
            self._log, self._first_byte = [], None
        else:
            status = "404 Not Found"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        await writer.drain()

    def _page(self) -> dict[str, Any]:
        file = {"filename": FILENAME, "url": f"../..{FILE_PATH}", "size": len(self._content)}
        file["hashes"] = {"sha256": self._digest}
        return {"meta": {"api-version": "1.1"}, "name": PROJECT, "versions": ["1.0"], "files": [file]}

    async def _file(self, writer: asyncio.StreamWriter, method: str, headers: dict[str, str]) -> None:
        entry: dict[str, Any] = {"method": method, "range": headers.get("range"), "bytes": 0}
        self._log.append(entry)
        total = len(self._content)
        start, stop, status, more = 0, total, "200 OK", ""
        if found := _RANGE.fullmatch(headers.get("range", "")):
            start, stop = int(found[1]), int(found[2] or total - 1) + 1
            status, more = "206 Partial Content", f"Content-Range: bytes {start}-{stop - 1}/{total}\r\n"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {stop - start}\r\n"
            f'ETag: "{self._digest[:16]}"\r\nAccept-Ranges: bytes\r\n{more}\r\n'.encode()
        )
        if method == "HEAD":
            return
        for position in range(start, stop, PIECE_BYTES):
            piece = self._content[position : min(position + PIECE_BYTES, stop)]
            await self._pace.take(len(piece))
            if self._first_byte is None:
                self._first_byte = time.monotonic()
            if writer.is_closing():  # uvloop raises RuntimeError for a write to a connection just lost
                raise ConnectionResetError
            writer.write(piece)
            await writer.drain()
            entry["bytes"] += len(piece)


async def serve(content_path: Path, bytes_per_second: float) -> None:
    """Listen on a free port of loopback, print it, and serve until the process is ended."""
    with content_path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        index = Index(content, bytes_per_second)
        server = await asyncio.start_server(index.talk, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
