"""Where the bytes of one fetch land: in a partial on disk, hashed as they come, else in a ring in memory.

It takes up what an earlier fetch left, says whether what has come is right, and commits it. Where bytes come from, and
what is done when they break off, is decided in ``transfer``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

from teepi.errors import Mismatch, StoreError
from teepi.hashing import FileHasher
from teepi.source import SourceHead
from teepi.store import PartialNotes

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable
    from concurrent.futures import Executor

    from teepi.download import Download
    from teepi.limits import Limits
    from teepi.model import FileRecord
    from teepi.store import Partial, Store

log = logging.getLogger(__name__)
T = TypeVar("T")

_ROOM_TRIES: Final = 10  # of many downloads at once one may take the room that was made for another


class Landing:
    """The bytes of one download. :meth:`release` it when done."""

    def __init__(self, download: Download, record: FileRecord, store: Store, limits: Limits) -> None:
        """Land the bytes of ``record``, showing them to the readers of ``download``."""
        self._download = download
        self._record = record
        self._store = store
        self._limits = limits
        self._partial: Partial | None = None
        self._hasher = FileHasher(record.digest)
        self._committing: asyncio.Future[Any] | None = None

    @property
    def _promise(self) -> str | None:
        digest = self._record.digest
        return None if digest is None else f"{digest.algorithm}={digest.hex}"

    @property
    def sha256(self) -> str:
        """Of what has landed, in hex."""
        return self._hasher.sha256

    # -- what is there -------------------------------------------------------------------------------

    @property
    def prefix(self) -> PartialNotes | None:
        """What was noted of the bytes that an earlier fetch left; None when there are none."""
        return None if self._partial is None else self._partial.notes

    @property
    def length(self) -> int:
        """Bytes on disk."""
        return 0 if self._partial is None else self._partial.length

    async def reopen(self) -> None:
        """Take up what an earlier fetch left, its bytes hashed again."""
        try:
            found = await self._with_room(self._store.resume, self._record.key, self._promise)
        except OSError:  # the rest cannot be reserved; without the prefix it may be
            return
        if found is None:
            return
        self._partial, notes = found
        if self._record.digest is None and notes.etag is None:
            await self.drop()
            return
        try:
            await _in(self._store.landing, self._partial.hash_into, self._hasher)
        except OSError as error:
            log.warning("The partial of %s cannot be read: %s.", self._record.filename, error)
            await self.drop()

    async def drop(self) -> None:
        """Begin anew: nobody has seen a byte of what was taken up."""
        partial, self._partial = self._partial, None
        if partial is not None:
            await _in(self._store.landing, partial.discard)
            partial.release()
        self._hasher = FileHasher(self._record.digest)

    # -- landing -------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Show what was taken up."""
        notes = self.prefix
        assert notes is not None  # noqa: S101 - the caller has looked
        self._start(SourceHead(0, notes.total, notes.etag, notes.last_modified, notes.immutable))

    async def begin(self, head: SourceHead) -> None:
        """Decide where the bytes go, and tell the readers what upstream said of them."""
        notes = PartialNotes(
            url=self._record.url,
            digest=self._promise,
            total=head.total,
            etag=head.etag,
            last_modified=head.last_modified,
            immutable=head.immutable,
        )
        try:
            self._partial = await self._with_room(self._store.begin, self._record.key, notes)
        except OSError as error:
            log.warning("%s is passed through uncached: %s.", self._record.filename, error)
        self._start(head)

    def _start(self, head: SourceHead) -> None:
        partial = self._partial
        self._download.started(
            head,
            file=None if partial is None else partial.descriptor,
            arrived=self.length,
            ring_bytes=self._limits.ring_bytes,
        )

    async def land(self, data: bytes) -> bool:
        """Write and hash in one hop to a thread, then show it. Returns False when it waited for readers."""
        partial = self._partial
        if partial is not None and self._download.ring is None:
            try:
                await self._with_room(self._write_and_hash, partial, data)
            except OSError as error:
                log.warning("%s goes on uncached: %s.", self._record.filename, error)
                self._download.leave_file(self._limits.ring_bytes)
                await _in(self._store.landing, partial.discard)
            else:
                self._download.extended(len(data))
                return True
        self._hasher.update(data)
        await self._download.append(data)
        return False

    def _write_and_hash(self, partial: Partial, data: bytes) -> None:
        partial.append(data)
        self._hasher.update(data)

    async def hash_into(self, hasher: hashlib._Hash, data: bytes) -> None:
        """Feed ``data`` to another hash, off the event loop."""
        await _in(self._store.landing, hasher.update, data)

    # -- end -----------------------------------------------------------------------------------------

    def is_right(self, size: int) -> bool:
        """Whether what was hashed, of ``size`` bytes, is what the index promised."""
        if self._record.digest is None:
            return self._record.size is None or self._record.size == size
        return self._hasher.keeps_promise

    def finish(self) -> None:
        """Release the withheld end, since all bytes are here; raise :class:`Mismatch` when they are wrong."""
        if not self.is_right(self._download.arrived):
            promised = self._promise or f"{self._record.size} bytes"
            msg = f"The bytes of {self._record.filename} are not those that its index page promises ({promised})."
            raise Mismatch(msg)
        self._download.verified()

    async def commit(self) -> str:
        """Make the file one of the cache; return its sha256. Raises :class:`StoreError` when it is not cached."""
        partial, head, filename = self._partial, self._download.head, self._record.filename
        if partial is None or self._download.ring is not None or head is None:
            msg = f"{filename} was passed through uncached."
            raise StoreError(msg)
        sha256 = self.sha256
        self._committing = _in(
            self._store.committing,
            lambda: self._store.commit(self._record.key, partial, sha256, last_modified=head.last_modified),
        )
        try:
            await asyncio.shield(self._committing)
        except OSError as error:
            log.error("%s was served but not committed: %s.", filename, error)  # noqa: TRY400 - one sentence
            await self.discard()
            msg = f"{filename} could not be committed: {error}."
            raise StoreError(msg) from error
        return sha256

    async def discard(self) -> None:
        """Leave nothing on disk; whoever reads the partial reads on."""
        if self._partial is not None:
            await _in(self._store.landing, self._partial.discard)

    async def keep(self) -> None:
        """Let a commit end, else sync the partial for the next process."""
        if self._committing is not None:
            await asyncio.wait({self._committing})
        elif self._partial is not None and self._download.ring is None:
            with contextlib.suppress(OSError):
                await asyncio.shield(_in(self._store.committing, self._partial.keep))

    async def _with_room(self, work: Callable[..., T], *arguments: object) -> T:
        """Work in a landing thread; where the disk or the cache is full, again when room has been made."""
        for _ in range(_ROOM_TRIES):
            try:
                result: T = await _in(self._store.landing, work, *arguments)
            except OSError as error:
                full = error.errno in {errno.ENOSPC, errno.EDQUOT}
                if not full or self._store.make_room is None or not await self._store.make_room(error):
                    raise
            else:
                return result
        raise OSError(errno.ENOSPC, "others were quicker to take the room that was made")

    def release(self) -> None:
        """Let go of the partial."""
        if self._partial is not None:
            self._partial.release()


def _in(executor: Executor, work: Callable[..., Any], *arguments: object) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().run_in_executor(executor, work, *arguments)
