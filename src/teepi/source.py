"""Where the bytes of a file come from: the one interface between a transfer and upstream.

The package index is one source; a second mirror, a peer or an object store can be others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


@dataclass(frozen=True, slots=True)
class SourceHead:
    """What a source says before the bytes."""

    start: int
    """Offset of the first byte that will come: the one asked for, or 0 when the source ignores ranges."""
    total: int | None
    """Bytes of the whole file; None when the source does not say."""
    etag: str | None = None
    """Strong entity-tag with its quotes (RFC 9110, 8.8.3), else None."""
    last_modified: str | None = None
    """HTTP date as received."""
    immutable: bool = False
    """Cache-Control said ``immutable`` (RFC 8246)."""


class SourceStream(Protocol):
    """The open answer of a source."""

    head: SourceHead

    async def read(self) -> bytes:
        """Return the next bytes as they come, ``b""`` at the end.

        Raises :class:`teepi.errors.Interrupted` when the connection breaks or the body ends early.
        """


class PrecededStream:
    """A stream with bytes put back in front."""

    def __init__(self, first: bytes, stream: SourceStream) -> None:
        """Give ``first``, then what ``stream`` brings."""
        self.head = stream.head
        self._first = first
        self._stream = stream

    async def read(self) -> bytes:
        """See :class:`SourceStream`."""
        first, self._first = self._first, b""
        return first or await self._stream.read()


class Source(Protocol):
    """One place that has the file."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    def open(
        self, offset: int, *, if_range: str | None = None, resuming: bool = False
    ) -> AbstractAsyncContextManager[SourceStream]:
        """Ask for the bytes from ``offset`` on (with If-Range when given); ``resuming`` shortens the time-outs.

        Raises :class:`teepi.errors.NotFound`, :class:`teepi.errors.Interrupted` (worth another try) or
        :class:`teepi.errors.UpstreamError` (not).
        """
