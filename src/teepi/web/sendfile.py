"""Sends what lies in a file by ``sendfile``, past Python: bodies take turns, and a slow one holds up no other.

uvloop has no sendfile of its own, hence ``os.sendfile`` on a dup of the socket (``add_writer`` on the transport's own
descriptor raises). sendfile waits for a disk: what of a cached file is not in memory is read by a thread first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, cast

from teepi.page_cache import is_in_memory
from teepi.readable import Landed

if TYPE_CHECKING:
    from teepi.descriptor import Descriptor
    from teepi.limits import Limits
    from teepi.readable import Cursor, Readable

log = logging.getLogger(__name__)

_SWEEP_SECONDS: Final = 1.0
_TCP_ESTABLISHED: Final = 1
_LINGER_NONE: Final = struct.pack("ii", 1, 0)

_PROBED_BYTES: Final = 1 << 20  # so much is taken to be like its ends: a probe takes a microsecond, a step fifty
_ADVISED_BYTES: Final = 4 << 20  # so much the disk may be ahead of a client
_READ_BYTES: Final = 1 << 16  # more would be mapped anew each time
_READERS: Final = 8  # threads: a disk that hangs stops cold files and nothing else


def reset(transport: asyncio.Transport) -> None:
    """Close with RST: of itself uvloop's ``abort`` only drops what it has buffered."""
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
    transport.abort()


class Turns:
    """Steps bodies in small batches, so that the event loop stays free, and sweeps those that hang."""

    def __init__(self, limits: Limits) -> None:
        """Begin with none. Create it on the running event loop."""
        self.limits = limits
        self.active: set[FileSender] = set()
        self._loop = asyncio.get_running_loop()
        self._ready: deque[FileSender] = deque()
        self._scheduled = False
        self._timer = self._loop.call_later(_SWEEP_SECONDS, self._sweep)
        self.reading = ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="reading-ahead")

    def close(self) -> None:
        """Stop sweeping."""
        self._timer.cancel()
        self.reading.shutdown(wait=False, cancel_futures=True)

    def step_soon(self, sender: FileSender) -> None:
        """Step ``sender`` in one of the next turns of the loop, a bounded number in each."""
        self._ready.append(sender)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._step_batch)

    def _step_batch(self) -> None:
        try:
            for _ in range(min(self.limits.send_batch, len(self._ready))):
                self._ready.popleft().step()
        finally:
            self._scheduled = bool(self._ready)
            if self._scheduled:
                self._loop.call_soon(self._step_batch)

    def _sweep(self) -> None:
        self._timer = self._loop.call_later(_SWEEP_SECONDS, self._sweep)
        now = time.monotonic()
        for sender in list(self.active):
            sender.check(now)


class FileSender:
    """One body on its way: waits for the file to grow or for the socket to take more, whichever is due."""

    __slots__ = (
        "_body",
        "_cursor",
        "_done",
        "_fd",
        "_is_probed",
        "_is_reading",
        "_loop",
        "_queued",
        "_since",
        "_stop",
        "_transport",
        "_turns",
        "_warm_until",
        "_writing",
    )

    def __init__(self, turns: Turns, transport: asyncio.Transport, body: Readable, cursor: Cursor, fd: int) -> None:
        """Send ``body`` from ``cursor`` to its stop, into ``fd``: the caller's own duplicate of the socket."""
        self._loop = asyncio.get_running_loop()
        self._turns = turns
        self._transport = transport
        self._body = body
        self._cursor = cursor
        self._stop = cast("int", cursor.stop)
        self._fd = fd
        self._writing = False
        self._queued = False
        self._is_probed = isinstance(body, Landed)  # what arrives has just been written
        self._is_reading = False
        self._warm_until = 0
        """From the cursor up to here the file is in memory, as far as is known."""
        self._since = time.monotonic()
        self._done: asyncio.Future[Exception | None] = self._loop.create_future()
        """The error that ended the body as a result, so that nothing is "never retrieved"."""

    async def run(self) -> Exception | None:
        """Send the body; return what ended it short, or None."""
        self._cursor.wake = self.wake
        self._turns.active.add(self)
        try:
            self.step()
            return await self._done
        finally:
            self._turns.active.discard(self)
            self._close()

    def _close(self) -> None:
        """Give everything back; the writer goes before the descriptor that it names is closed."""
        self._cursor.wake = None
        self._body.unpark(self._cursor)
        self._wait_for_socket(wait=False)

    def wake(self) -> None:
        """There is more to send, or nothing more will come."""
        if not self._queued:
            self._queued = True
            self._turns.step_soon(self)

    def client_left(self) -> None:
        """End: the connection is lost."""
        self._finish(ConnectionResetError("the client left"))

    def check(self, now: float) -> None:
        """Drop a client that takes nothing, and notice one that left while reading was paused."""
        limits = self._turns.limits
        if self._writing:
            idle = limits.client_idle_seconds if self._body.ring is None else limits.ring_idle_seconds
            if now - self._since > idle:
                reset(self._transport)
                self._finish(TimeoutError("the client takes nothing"))
        elif hasattr(socket, "TCP_INFO"):
            with contextlib.suppress(OSError):
                info = self._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
                if info[0] != _TCP_ESTABLISHED:
                    self._transport.abort()
                    self.client_left()

    def _finish(self, error: Exception | None) -> None:
        self._wait_for_socket(wait=False)
        if not self._done.done():
            self._done.set_result(error)

    def _wait_for_socket(self, *, wait: bool) -> None:
        if wait and not self._writing:
            self._since = time.monotonic()  # until now it may have been upstream that kept us waiting
            self._loop.add_writer(self._fd, self.step)
        elif self._writing and not wait:
            self._loop.remove_writer(self._fd)
        self._writing = wait

    def step(self) -> None:
        """Hand one step of bytes to the kernel, then wait for whatever is due."""
        self._queued = False
        if self._done.done() or self._is_reading or self._at_rest():
            return
        if self._is_probed and self._cursor.position >= self._warm_until and not self._is_warm():
            self._read_ahead()
            return
        try:
            sent = self._send(min(self._body.limit, self._stop))
        except BlockingIOError:
            self._wait_for_socket(wait=True)
            return
        except OSError as error:
            self._finish(error)
            return
        except Exception as error:  # a defect of ours must end one body, not the stepping of all
            log.exception("A body failed inside teepi.")
            self._finish(error)
            return
        if not sent:
            self._finish(OSError("the file is shorter than it was"))
            return
        self._since = time.monotonic()
        self._body.advance(self._cursor, sent)
        if not self._at_rest():
            self._wait_for_socket(wait=True)  # one step a turn: fair between clients by construction

    def _at_rest(self) -> bool:
        """Whether there is nothing to send now: the end, a failure, or everything that may be shown is sent."""
        body, cursor = self._body, self._cursor
        if cursor.position >= self._stop:
            self._finish(None)
        elif cursor.position < body.limit:
            return False
        elif body.failure is not None:
            self._finish(body.failure)
        else:
            self._wait_for_socket(wait=False)
            body.park(cursor)
        return True

    def _is_warm(self) -> bool:
        """Whether the next bytes of a cached file are in memory, judged by the first and the last of them."""
        fd = cast("Descriptor", self._body.file).fd
        first, stop = self._cursor.position, min(self._cursor.position + _PROBED_BYTES, self._stop)
        for offset in (first, stop - 1):
            found = is_in_memory(fd, offset)
            if found is None:  # it is sent as it is, and what is wrong with it shows then
                self._is_probed = False
                break
            if not found:
                return False
        self._warm_until = stop
        return True

    def _read_ahead(self) -> None:
        """Let a thread wait for the disk; then go on, whatever came of it."""
        self._wait_for_socket(wait=False)
        self._is_reading = True
        file = cast("Descriptor", self._body.file).take()
        position = self._cursor.position
        stop = min(position + _PROBED_BYTES, self._stop)

        def go_on(_: object) -> None:
            file.drop()
            self._is_reading = False
            self._warm_until = stop  # not probed again: with little memory it may be gone already
            self.wake()

        self._loop.run_in_executor(self._turns.reading, _read, file.fd, position, stop).add_done_callback(go_on)

    def _send(self, limit: int) -> int:
        body, position = self._body, self._cursor.position
        most = min(limit - position, self._turns.limits.send_step_bytes)
        if body.ring is not None and position >= body.file_stop:
            return os.write(self._fd, body.ring.view(position, most))
        if body.file is None:
            return 0
        return os.sendfile(self._fd, body.file.fd, position, min(most, body.file_stop - position))


def _read(fd: int, position: int, stop: int) -> None:
    """Bring these bytes into memory, and have the disk begin with those behind them. Blocks."""
    with contextlib.suppress(OSError):  # sendfile will meet it again, and tell
        os.posix_fadvise(fd, position, _ADVISED_BYTES, os.POSIX_FADV_WILLNEED)
        while position < stop and (data := os.pread(fd, min(_READ_BYTES, stop - position), position)):
            position += len(data)
