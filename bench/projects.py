"""The page bench's upstream: any number of projects, each with as many files as its name says.

A process of its own (``python -m bench.projects``), so that it costs the server under test no time. It prints its port.
``/simple/p-N-F/`` is project number N with F files, in JSON and of the size that large indexes send.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from functools import lru_cache
from typing import Any

import uvloop

_PAGE = re.compile(r"/simple/(p-[0-9]+-([0-9]+))/")
_WHEEL_TAGS = "cp3{}-cp3{}-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"


def name_of(number: int, files: int) -> str:
    """Return the name of a project."""
    return f"p-{number}-{files}"


@lru_cache(maxsize=64)
def page(project: str, count: int) -> bytes:
    """Return the page of ``project``; of five files four are wheels, one of three has core metadata."""
    stem = project.replace("-", "_")
    files: list[dict[str, Any]] = []
    for number in range(count):
        version = f"{number // 25}.{number // 5 % 5}"
        tags = _WHEEL_TAGS.format(number % 5 + 8, number % 5 + 8)
        filename = f"{stem}-{version}-{tags}" if number % 5 else f"{stem}-{version}.tar.gz"
        digest, place = (hashlib.sha256(f"{salt}{filename}".encode()).hexdigest() for salt in "ab")
        metadata = {"sha256": hashlib.sha256(digest.encode()).hexdigest()} if number % 3 else False
        files.append(
            {
                "core-metadata": metadata,
                "data-dist-info-metadata": metadata,
                "filename": filename,
                "hashes": {"sha256": digest},
                "provenance": None,
                "requires-python": ">=3.8",
                "size": 100_000 + number,
                "upload-time": "2024-01-02T03:04:05.678901Z",
                "url": f"https://files.example/packages/{place[:2]}/{place[2:4]}/{place[4:]}/{filename}",
                "yanked": False,
            }
        )
    versions = sorted({f"{number // 25}.{number // 5 % 5}" for number in range(count)})
    meta = {"_last-serial": 1, "api-version": "1.4"}
    return json.dumps({"files": files, "meta": meta, "name": project, "versions": versions}).encode()


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection."""
    try:
        while True:
            target = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split(" ", 2)[1]
            found = _PAGE.fullmatch(target)
            status, body = ("200 OK", page(found[1], int(found[2]))) if found else ("404 Not Found", b"{}")
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: application/vnd.pypi.simple.v1+json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve() -> None:
    """Listen on a free port of loopback, print it, and serve until the process is ended."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
