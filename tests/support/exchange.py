"""One request and its answer on the scripted upstream, and the line that carries them.

The RFC 9110 part of the upstream: what an honest server would answer. Misbehaving is in ``faults``,
the server in ``upstream``.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import struct
import termios
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal, NoReturn, Protocol

At = int | Literal["head"]
"""A byte of the *file* (a ranged answer that begins behind it counts as there), or before the head."""

PIECE_BYTES = 64 * 1024

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class LineOver(Exception):
    """The connection was ended on purpose."""


@dataclass(eq=False)
class Request:
    """One request as it arrived, and what became of it."""

    method: str
    target: str
    """As it stands in the request line."""
    headers: dict[str, str]
    """Lower-case names; the last one of a name wins."""
    status: int = 0
    """Status of the answer; 0 until a head was sent."""
    bytes_sent: int = 0
    """Body bytes handed to the kernel."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the answer ended or the client left."""

    @staticmethod
    def parse(head: bytes) -> Request:
        """Return the request whose head (with its empty line) is ``head``."""
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        return Request(method, target, {name.strip().lower(): value.strip() for name, _, value in pairs})

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("range")


@dataclass(frozen=True)
class Resource:
    """What lies under a path."""

    content: bytes
    content_type: str = "application/octet-stream"
    etag: str | None = None
    last_modified: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False
    length: bool = True
    """False (and not chunked): no Content-Length, the end of the connection ends the body."""
    accept_ranges: bool = True
    """False: a Range header is ignored."""


@dataclass
class Answer:
    """An answer before it is sent; faults alter it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    start: int = 0
    """Which byte of the file ``body`` begins with."""
    length: int | None = None
    """What Content-Length says; None for no such header."""
    chunked: bool = False
    close: bool = False
    """End the connection after the body."""
    pace: tuple[int, float] | None = None
    """Bytes per step and seconds between steps; None sends freely."""

    def head(self) -> bytes:
        """Return the head as it goes on the line."""
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Odd"
        headers = dict(self.headers)
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif self.length is not None:
            headers["Content-Length"] = str(self.length)
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")


def respond(resource: Resource | None, request: Request) -> Answer:
    """Return what an honest server answers (RFC 9110: 13.1 conditions, 14 ranges)."""
    if resource is None:
        body = b"nothing here\n"
        return Answer(404, {"Content-Type": "text/plain"}, body, length=len(body))
    headers = {"Content-Type": resource.content_type}
    if resource.etag is not None:
        headers["ETag"] = resource.etag
    if resource.last_modified is not None:
        headers["Last-Modified"] = resource.last_modified
    if resource.accept_ranges:
        headers["Accept-Ranges"] = "bytes"
    headers |= resource.headers
    if resource.etag is not None and resource.etag in request.headers.get("if-none-match", ""):
        return Answer(304, headers)
    content, total = resource.content, len(resource.content)
    asked = _RANGE.fullmatch(request.range or "") if resource.accept_ranges else None
    condition = request.headers.get("if-range")
    if asked is None or asked.group() == "bytes=-" or condition not in {None, resource.etag, resource.last_modified}:
        answer = Answer(200, headers, content)
    else:
        first, last = asked.groups()
        start = int(first) if first else max(0, total - int(last))
        stop = min(int(last) + 1, total) if first and last else total
        if start >= stop:
            return Answer(416, headers | {"Content-Range": f"bytes */{total}"}, length=0)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
        answer = Answer(206, headers, content[start:stop], start)
    if resource.chunked:
        answer.chunked = True
    elif resource.length:
        answer.length = len(answer.body)
    else:
        answer.headers["Connection"] = "close"
        answer.close = True
    return answer


class Stop(Protocol):
    """Something that happens at one place of an answer: a gate or a fault."""

    @property
    def at(self) -> At | None:
        """Where; None: nowhere."""

    async def strike(self, line: Line) -> None:
        """Hold the line, send something of one's own, or end it."""


class Line:
    """The upstream's end of one connection, while it answers one request."""

    def __init__(self, writer: asyncio.StreamWriter, request: Request) -> None:
        """Answer ``request`` on ``writer``."""
        self._writer = writer
        self.request = request
        # Then "drained" means "handed to the kernel", so a gate that is reached has let everything out.
        if writer.get_extra_info("sslcontext") is None:  # uvloop's TLS never says that a buffer of none is empty
            writer.transport.set_write_buffer_limits(high=0)

    async def answer(self, answer: Answer, stops: list[Stop]) -> None:
        """Send ``answer``, striking each of ``stops`` at its place; raise LineOver when the line is ended."""
        for stop in stops:
            if stop.at == "head":
                await stop.strike(self)
        self.request.status = answer.status
        await self.send(answer.head())
        end = answer.start + len(answer.body)
        position = answer.start
        if self.request.method != "HEAD" and answer.status not in {204, 304}:
            places = [(stop.at, stop) for stop in stops if isinstance(stop.at, int)]
            for at, stop in sorted(places, key=lambda place: place[0]):
                if at > end:
                    break
                await self._body(answer, position, max(position, at))
                position = max(position, at)
                await stop.strike(self)
            await self._body(answer, position, end)
            if answer.chunked:
                await self.send(b"0\r\n\r\n")
        if answer.close:
            self.finish()

    async def send(self, data: bytes) -> None:
        """Hand raw bytes to the kernel."""
        if self._writer.is_closing():  # uvloop raises RuntimeError for a write to a connection just lost
            raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()

    async def hold(self) -> NoReturn:
        """Send nothing more until the client leaves (which cancels this)."""
        await asyncio.Event().wait()
        raise AssertionError

    def finish(self) -> NoReturn:
        """End the connection with FIN."""
        self._writer.close()
        raise LineOver

    async def reset(self) -> NoReturn:
        """End the connection with RST, once the other side's kernel has all that was sent."""
        sock = self._writer.get_extra_info("socket")
        while struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # the kernel has no event for "all acknowledged"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        raise LineOver

    async def _body(self, answer: Answer, begin: int, end: int) -> None:
        """Send the file's bytes from ``begin`` up to ``end`` (not included)."""
        step, seconds = answer.pace or (PIECE_BYTES, 0.0)
        for position in range(begin, end, step):
            piece = answer.body[position - answer.start : min(position + step, end) - answer.start]
            await self.send(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
            self.request.bytes_sent += len(piece)
            if seconds:
                await asyncio.sleep(seconds)
