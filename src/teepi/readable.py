"""What a sender needs of a file, be it arriving or cached, and a reader's place in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from teepi.descriptor import Descriptor
    from teepi.errors import TeepiError
    from teepi.ring import Ring


class Cursor:
    """A reader's place in a file: bytes ``[position, stop)`` are still wanted (``stop`` None: to the end)."""

    __slots__ = ("position", "stop", "wake")

    def __init__(self, position: int = 0, stop: int | None = None) -> None:
        """Begin at ``position``."""
        self.position = position
        self.stop = stop
        self.wake: Callable[[], None] | None = None
        """Called once when there is something to do after :meth:`Readable.park`."""


class Readable(Protocol):
    """What a sender needs of a file, be it arriving or cached."""

    @property
    def limit(self) -> int:
        """Offset that no reader may pass yet."""

    @property
    def total(self) -> int | None:
        """Bytes of the whole file, None while unknown."""

    @property
    def failure(self) -> TeepiError | None:
        """Why nothing more will come, else None."""

    @property
    def file(self) -> Descriptor | None:
        """Descriptor that holds the bytes before :attr:`file_stop`."""

    @property
    def file_stop(self) -> int:
        """Offset up to which :attr:`file` is readable."""

    @property
    def ring(self) -> Ring | None:
        """Memory that holds the bytes from :attr:`file_stop` on, when no file can."""

    def attach(self, cursor: Cursor) -> None:
        """Count ``cursor`` as a reader. Call before the first await after the look-up."""

    def detach(self, cursor: Cursor) -> None:
        """Stop counting ``cursor``; its descriptor may close now."""

    def park(self, cursor: Cursor) -> None:
        """Wake ``cursor`` once, when the limit has moved past it or the file has ended."""

    def unpark(self, cursor: Cursor) -> None:
        """Do not wake ``cursor``."""

    def advance(self, cursor: Cursor, count: int) -> None:
        """Move ``cursor`` by ``count`` bytes that were handed to the client."""

    async def wait_beyond(self, offset: int) -> None:
        """Return when the limit lies beyond ``offset`` or nothing more will come."""


class Landed:
    """A cached file, readable to its end: :class:`Readable` without waiting."""

    __slots__ = ("file", "file_stop", "last_modified_seconds", "limit", "total")

    ring = None
    failure = None

    def __init__(self, file: Descriptor, size: int, last_modified_seconds: float) -> None:
        """Take over the creator's hold on ``file``: it is dropped by the one :meth:`detach`."""
        self.file = file
        self.limit = self.total = self.file_stop = size
        self.last_modified_seconds = last_modified_seconds

    def attach(self, cursor: Cursor) -> None:
        """See :class:`Readable`; a cached file is opened for one reader."""

    def detach(self, cursor: Cursor) -> None:  # noqa: ARG002 - the protocol's signature
        """Drop the descriptor."""
        self.file.drop()

    def park(self, cursor: Cursor) -> None:
        """See :class:`Readable`; nobody ever waits for a cached file."""

    unpark = park

    def advance(self, cursor: Cursor, count: int) -> None:
        """Move ``cursor``."""
        cursor.position += count

    async def wait_beyond(self, offset: int) -> None:
        """Return at once."""
