"""The heart: one file on its way in. States, waiters, single-flight.

This module does no IO: it counts bytes and wakes whoever waits. The transfer reports ``started``,
``extended``, ``verified``, ``completed`` or ``failed``; readers hold a :class:`~teepi.readable.Cursor` that never
passes :attr:`Download.limit` and are woken when the limit moves.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Final

from teepi.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from teepi.descriptor import Descriptor
    from teepi.errors import TeepiError
    from teepi.model import FileKey
    from teepi.readable import Cursor
    from teepi.source import SourceHead


class State(Enum):
    """Where a download stands."""

    CONNECTING = "connecting"
    STREAMING = "streaming"
    VERIFIED = "verified"
    """Size and digest are right; everybody may read to the end. Sync and rename follow."""
    COMPLETE = "complete"
    """Committed to the store."""
    FAILED = "failed"


# All legal moves; any other raises.
MOVES: Final[dict[State, frozenset[State]]] = {
    State.CONNECTING: frozenset({State.STREAMING, State.FAILED}),
    State.STREAMING: frozenset({State.VERIFIED, State.FAILED}),
    State.VERIFIED: frozenset({State.COMPLETE, State.FAILED}),
    State.COMPLETE: frozenset(),
    State.FAILED: frozenset(),
}


class Download:
    """One fetch of one file, shared by all who want it."""

    def __init__(
        self, key: FileKey, *, withheld_bytes: int, generation: int = 0, name: str = "", public_name: str | None = None
    ) -> None:
        """Begin in CONNECTING. ``name`` is the file name, for people; those who may not know it see ``public_name``."""
        self.key = key
        self.generation = generation
        self.name = name
        self.public_name = name if public_name is None else public_name
        self.state = State.CONNECTING
        self.head: SourceHead | None = None
        self.total: int | None = None
        self.arrived = 0
        """Bytes that have landed (their write has returned)."""
        self.file: Descriptor | None = None
        self.ring: Ring | None = None
        self.failure: TeepiError | None = None
        self.abandoned: Callable[[], object] | None = None
        """Called when the download runs on a ring and its last reader has gone."""
        self.clients = 0
        """Requests that were answered from it."""
        self.resumes = 0
        """How often it was taken up again where it had stopped."""
        self._ring_offset = 0
        self._withheld_bytes = withheld_bytes
        self._before_newest = 0
        self._released = False
        self._abandoned = False
        self._cursors: set[Cursor] = set()
        self._parked: set[Cursor] = set()
        self._waiting: set[asyncio.Future[None]] = set()

    # -- what the transfer reports -------------------------------------------------------------------

    def _move(self, to: State) -> None:
        if to not in MOVES[self.state]:
            msg = f"download of {self.key.value}: {self.state.name} -> {to.name} is not a legal move"
            raise RuntimeError(msg)
        self.state = to

    def started(self, head: SourceHead, *, file: Descriptor | None, arrived: int = 0, ring_bytes: int = 0) -> None:
        """Upstream has answered; ``arrived`` bytes are there already. Without a file a ring is made."""
        self._move(State.STREAMING)
        self.head = head
        self.total = head.total
        self.arrived = self._before_newest = arrived
        if file is not None:
            self.file = file.take()
        else:
            self.ring = Ring(ring_bytes, arrived)
            self._ring_offset = arrived
        self._wake()
        self._check_abandoned()

    def extended(self, count: int) -> None:
        """``count`` more bytes have landed in the file."""
        if self.state is not State.STREAMING:
            msg = f"bytes for a download that is {self.state.name}"
            raise RuntimeError(msg)
        self._before_newest = self.arrived
        self.arrived += count
        self._wake()

    def leave_file(self, ring_bytes: int) -> None:
        """From here on the file takes nothing more: a ring does. What was written stays readable."""
        self.ring = Ring(ring_bytes, self.arrived)
        self._ring_offset = self.arrived
        self._release_ring()
        self._check_abandoned()

    async def append(self, data: bytes) -> None:
        """Put ``data`` into the ring, waiting for the slowest reader when it is full."""
        view = memoryview(data)
        ring = self.ring
        if ring is None:
            msg = "this download has a file"
            raise RuntimeError(msg)
        while view:
            self._release_ring()  # a reader may have been put ahead without having read
            while not ring.room:
                await self._change()
            # Of unknown size the newest part is shown to nobody: it must leave room to go on.
            count = min(ring.room, len(view), ring.size // 2)
            self._before_newest = self.arrived
            ring.append(view[:count])
            view = view[count:]
            self.arrived += count
            self._wake()

    def verified(self) -> None:
        """Size and digest are right: the withheld end is released."""
        self._move(State.VERIFIED)
        self.total = self.arrived
        self._released = True
        self._wake()

    def completed(self) -> None:
        """Note that the file is committed."""
        self._move(State.COMPLETE)
        self._wake()
        self._close_file()

    def failed(self, error: TeepiError, *, interrupted: bool = False) -> None:
        """Nothing more will come.

        ``interrupted``: what has arrived is right as far as it goes, so readers get all of it except a last
        byte; otherwise (a mismatch) what is withheld stays withheld. After VERIFIED readers lose nothing.
        """
        self._move(State.FAILED)
        if interrupted and not self._released and self.total is not None:
            self._withheld_bytes = min(self._withheld_bytes, 1)
        if not self._released:
            self.failure = error
        self._wake()
        self._close_file()

    # -- what readers see ----------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """Offset that no reader may pass yet: the last ``withheld_bytes`` wait for the digest.

        Of a file of unknown size all but the newest read is shown.
        """
        if self._released:
            return self.arrived
        if self.total is None:
            return self._before_newest
        return max(0, min(self.arrived, self.total - self._withheld_bytes))

    @property
    def file_stop(self) -> int:
        """Offset up to which the file is readable."""
        return self.arrived if self.ring is None else self._ring_offset

    @property
    def ended(self) -> bool:
        """Whether COMPLETE or FAILED."""
        return not MOVES[self.state]

    @property
    def released(self) -> bool:
        """Whether size and digest are right and everybody may read to the end."""
        return self._released

    @property
    def readers(self) -> int:
        """Attached cursors."""
        return len(self._cursors)

    def serves(self, position: int) -> bool:
        """Whether a new reader can begin at ``position`` (a ring forgets its beginning, and ends without readers)."""
        if self._abandoned:
            return False
        if self.ring is None or position >= self.ring.start:
            return True
        return position < self._ring_offset and self.ring.start == self._ring_offset

    def attach(self, cursor: Cursor) -> None:
        """See :class:`~teepi.readable.Readable`."""
        self._cursors.add(cursor)

    def detach(self, cursor: Cursor) -> None:
        """See :class:`~teepi.readable.Readable`."""
        self._cursors.discard(cursor)
        self._parked.discard(cursor)
        self._release_ring()
        self._close_file()
        self._check_abandoned()

    def park(self, cursor: Cursor) -> None:
        """See :class:`~teepi.readable.Readable`."""
        self._parked.add(cursor)

    def unpark(self, cursor: Cursor) -> None:
        """See :class:`~teepi.readable.Readable`."""
        self._parked.discard(cursor)

    def advance(self, cursor: Cursor, count: int) -> None:
        """See :class:`~teepi.readable.Readable`."""
        cursor.position += count
        self._release_ring()

    async def wait_started(self) -> None:
        """Return when upstream has answered or the download has failed."""
        while self.state is State.CONNECTING:
            await self._change()

    async def wait_released(self) -> None:
        """Return when the whole file may be read or the download has failed."""
        while not self._released and not self.ended:
            await self._change()

    async def wait_ended(self) -> None:
        """Return when the file is committed or the download has failed."""
        while not self.ended:
            await self._change()

    async def wait_beyond(self, offset: int) -> None:
        """See :class:`~teepi.readable.Readable`."""
        while self.limit <= offset and not self._released and not self.ended:
            await self._change()

    # -- inside --------------------------------------------------------------------------------------

    def _release_ring(self) -> None:
        ring = self.ring
        if ring is None or not self._cursors:
            return
        before = ring.start
        ring.release(min(max(cursor.position, self._ring_offset) for cursor in self._cursors))
        if ring.start != before:
            self._resolve_waiting()

    def _check_abandoned(self) -> None:
        if not self._cursors and self.ring is not None and not self.ended and self.abandoned is not None:
            self._abandoned = True
            self.abandoned()

    def _close_file(self) -> None:
        if self.ended and not self._cursors and self.file is not None:
            self.file.drop()
            self.file = None

    async def _change(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _resolve_waiting(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _wake(self) -> None:
        if self._waiting:
            self._resolve_waiting()
        limit, final = self.limit, self._released or self.ended
        for cursor in [cursor for cursor in self._parked if final or cursor.position < limit]:
            self._parked.discard(cursor)
            if cursor.wake is not None:
                cursor.wake()


class Registry:
    """All downloads in flight, one per :class:`FileKey`: the single-flight.

    Look-up and insert have no await between them, and that is the whole lock.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._downloads: dict[FileKey, Download] = {}

    def __iter__(self) -> Iterator[Download]:
        """Iterate over the downloads in flight."""
        return iter(list(self._downloads.values()))

    def get(self, key: FileKey) -> Download | None:
        """Return the download of ``key`` in flight."""
        return self._downloads.get(key)

    def join_or_start(self, key: FileKey, start: Callable[[], Download], *, position: int = 0) -> tuple[Download, bool]:
        """Return the download of ``key`` that serves ``position`` and whether it was joined, else start one.

        A download on a ring that has forgotten ``position`` goes on for its own readers, no longer found here.
        """
        download = self._downloads.get(key)
        if download is not None and download.serves(position):
            return download, True
        download = start()
        self._downloads[key] = download
        return download, False

    def forget(self, download: Download) -> None:
        """Stop finding ``download`` (only after commit, or when it failed)."""
        if self._downloads.get(download.key) is download:
            del self._downloads[download.key]
