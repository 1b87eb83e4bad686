"""Sends a file to a client, arriving or cached: cursors that never pass the limit, by sendfile where it can be.

Given a counted descriptor, never a path. A TLS connection or a body of unknown length is written through the transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import struct
import termios
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from aiohttp import HttpVersion11

from teepi.errors import TeepiError
from teepi.files import Outcome
from teepi.http_semantics import shown_target
from teepi.watchdog import WatchedStream
from teepi.web.answers import SENT
from teepi.web.sendfile import FileSender, Turns, reset

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from aiohttp.web import StreamResponse
    from aiohttp.web_request import BaseRequest

    from teepi.files import Opened
    from teepi.limits import Limits
    from teepi.metrics import Metrics
    from teepi.readable import Cursor, Readable
    from teepi.source import SourceStream

log = logging.getLogger(__name__)

_ACKNOWLEDGED_POLL_SECONDS: Final = 0.2
_BUFFER_HIGH_BYTES: Final = 1 << 18
_BUFFER_LOW_BYTES: Final = 1 << 16
_WRITTEN_BYTES: Final = 1 << 17
"""A step over TLS: 256 KiB cost half as much CPU again, and a third more memory for each client that does not read."""
_TIOCOUTQ: Final = getattr(termios, "TIOCOUTQ", None)


class _Client(Protocol):
    """What is needed of ``connection.Connection``."""

    client_left: Callable[[], None] | None
    lost: asyncio.Future[None]

    def close(self) -> None: ...


class Senders:
    """All bodies on their way out."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        """Begin with none. Create it on the running event loop."""
        self.limits = limits
        self.metrics = metrics
        self._turns = Turns(limits)

    def close(self) -> None:
        """Stop sweeping."""
        self._turns.close()

    async def send(self, request: BaseRequest, response: StreamResponse, opened: Opened) -> StreamResponse:
        """Write ``response`` with the bytes of ``opened``'s cursor as its body; a failed body ends short.

        ``response`` has its Content-Length set, or none where the size cannot be known.
        """
        transport = request.transport
        if transport is None:
            return response
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        if transport.get_extra_info("sslcontext") is not None or opened.cursor.stop is None:
            return await self._send(request, response, opened, transport, None)
        # Before the head: with no descriptor left the answer is 503, and not a 200 that ends short.
        fd = os.dup(transport.get_extra_info("socket").fileno())
        try:
            return await self._send(request, response, opened, transport, fd)
        finally:
            os.close(fd)

    async def _send(
        self,
        request: BaseRequest,
        response: StreamResponse,
        opened: Opened,
        transport: asyncio.Transport,
        fd: int | None,
    ) -> StreamResponse:
        """Write head and body; by sendfile to ``fd``, a duplicate of the socket, if there is one."""
        if fd is not None:
            transport.set_write_buffer_limits(high=0)  # "drained" means "empty" now: the body cannot overtake the head
        else:  # 0 would mean "always full" over TLS, where uvloop never wakes who waits
            transport.set_write_buffer_limits(high=_BUFFER_HIGH_BYTES, low=_BUFFER_LOW_BYTES)
        writer = await response.prepare(request)
        client = cast("_Client", request.protocol)
        if writer is None:
            return response
        try:
            async with asyncio.timeout(self.limits.client_idle_seconds):
                await cast("Any", writer).drain()
        except TimeoutError:
            transport.abort()
            return response
        cursor = opened.cursor
        before = cursor.position
        if request.transport is None:
            return response
        if fd is None:
            error = await self._write(client, response, opened)
        else:
            error = await self._sendfile(client, transport, opened, fd)
        request[SENT] = cursor.position - before
        self.metrics.sent_bytes += cursor.position - before
        if opened.outcome is Outcome.HIT:
            self.metrics.cached_bytes += cursor.position - before
        if error is not None:
            self.metrics.short_bodies += 1
            await self._end_short(request, response, client)
        elif request.transport is not None:
            transport.set_write_buffer_limits(high=_BUFFER_HIGH_BYTES, low=_BUFFER_LOW_BYTES)
        return response

    async def relay(
        self, request: BaseRequest, response: StreamResponse, stream: SourceStream, length: int
    ) -> StreamResponse:
        """Write ``response`` with ``length`` bytes that come from upstream for this client alone."""
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        left = length
        target = shown_target(request.raw_path)
        watched = WatchedStream(stream, target, self.limits)
        try:
            while left and (data := await watched.read()):
                async with asyncio.timeout(self.limits.client_idle_seconds):
                    await response.write(data[:left])
                left -= min(left, len(data))
        except (TeepiError, TimeoutError, ConnectionError) as error:
            log.info("A range of %s ended short: %s", target, error)
        request[SENT] = length - left
        self.metrics.sent_bytes += length - left
        self.metrics.passed_bytes += length - left
        if left:
            self.metrics.short_bodies += 1
            await self._end_short(request, response, cast("_Client", request.protocol))
        return response

    # -- by sendfile ---------------------------------------------------------------------------------

    async def _sendfile(
        self, client: _Client, transport: asyncio.Transport, opened: Opened, fd: int
    ) -> Exception | None:
        sender = FileSender(self._turns, transport, opened.body, opened.cursor, fd)
        client.client_left = sender.client_left
        try:
            return await sender.run()
        finally:
            client.client_left = None

    # -- through the transport -----------------------------------------------------------------------

    async def _write(self, client: _Client, response: StreamResponse, opened: Opened) -> Exception | None:
        body, cursor = opened.body, opened.cursor
        idle_seconds = self.limits.client_idle_seconds if body.ring is None else self.limits.ring_idle_seconds
        while cursor.stop is None or cursor.position < cursor.stop:
            if cursor.position >= body.limit:
                if cursor.stop is None and body.total == cursor.position:  # known only once verified
                    return None
                if body.failure is not None:
                    return body.failure
                waiting = asyncio.ensure_future(body.wait_beyond(cursor.position))
                try:
                    await asyncio.wait({waiting, client.lost}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiting.cancel()
                if client.lost.done():
                    return ConnectionResetError("the client left")
                continue
            data = await self._read(body, cursor)
            if not data:
                return OSError("the file is shorter than it was")
            try:
                async with asyncio.timeout(idle_seconds):
                    await response.write(data)
            except (TimeoutError, ConnectionError) as error:
                return error
            body.advance(cursor, len(data))
        return None

    async def _read(self, body: Readable, cursor: Cursor) -> bytes:
        most = min(body.limit, cursor.stop if cursor.stop is not None else body.limit) - cursor.position
        most = min(most, self.limits.send_step_bytes, _WRITTEN_BYTES)
        if body.ring is not None and cursor.position >= body.file_stop:
            return bytes(body.ring.view(cursor.position, most))
        if body.file is None:
            return b""
        most = min(most, body.file_stop - cursor.position)
        return await asyncio.get_running_loop().run_in_executor(None, os.pread, body.file.fd, most, cursor.position)

    # -- the end of a failed body --------------------------------------------------------------------

    async def _end_short(self, request: BaseRequest, response: StreamResponse, client: _Client) -> None:
        """Let all that was sent arrive, then FIN: closing a socket with unread input would reset it."""
        response.force_close()
        transport = request.transport
        if transport is None:
            return
        if response.content_length is None and request.version < HttpVersion11:
            reset(transport)  # without length or chunks FIN would mean "whole"
            return
        client.close()  # further input is read and dropped
        with contextlib.suppress(RuntimeError, OSError):
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()  # TLS: the rest, then close_notify, which tells the client as FIN does
        sock = transport.get_extra_info("socket")
        queued, since = -1, time.monotonic()
        while not client.lost.done():
            left = _unacknowledged(sock)
            now = time.monotonic()
            if left != queued:
                queued, since = left, now
            elif now - since > (self.limits.client_idle_seconds if queued else self.limits.fin_wait_seconds):
                break
            await asyncio.wait({client.lost}, timeout=_ACKNOWLEDGED_POLL_SECONDS)
        if request.transport is not None:
            transport.abort()


def _unacknowledged(sock: socket.socket) -> int:
    if _TIOCOUTQ is None:
        return 0
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), _TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
