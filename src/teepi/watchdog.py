"""Watches a stream: silence and a trickle are both a broken connection."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from teepi.errors import Interrupted

if TYPE_CHECKING:
    from teepi.limits import Limits
    from teepi.source import SourceStream


class WatchedStream:
    """A :class:`~teepi.source.SourceStream` that must bring bytes in time.

    A read time-out alone does not see one byte every 0.4 s: a minimum over a window does.
    """

    def __init__(self, stream: SourceStream, name: str, limits: Limits) -> None:
        """Watch ``stream``; ``name`` says in errors what it is."""
        self.head = stream.head
        self._stream = stream
        self._name = name
        self._limits = limits
        self.restart()

    def restart(self) -> None:
        """Begin a new window: the reader was busy elsewhere, which is not upstream's fault."""
        self._began = time.monotonic()
        self._bytes = 0

    async def read(self) -> bytes:
        """Return the next bytes, ``b""`` at the end. Raises :class:`Interrupted` when they do not come in time."""
        limits = self._limits
        try:
            async with asyncio.timeout(limits.silence_seconds):
                data = await self._stream.read()
        except TimeoutError as error:
            msg = f"{self._name} fell silent."
            raise Interrupted(msg) from error
        self._bytes += len(data)
        if data and time.monotonic() - self._began >= limits.rate_window_seconds:
            if self._bytes < limits.rate_window_bytes:
                least = f"{limits.rate_window_bytes} bytes in {limits.rate_window_seconds:g} s"
                msg = f"{self._name} sends less than {least}."
                raise Interrupted(msg)
            self.restart()
        return data
