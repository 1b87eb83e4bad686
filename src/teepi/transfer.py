"""Runs the fetch of one file: pumps a source into a partial, hashes, resumes, watches the rate, ends it.

It reports to a :class:`~teepi.download.Download` and leaves serving to others. Where no file can be written the
download goes on over a memory ring: nobody's request fails because caching does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import random
import time
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, TypeVar

from teepi.errors import Interrupted, Mismatch, NotFound, StoreError, TeepiError, UpstreamError
from teepi.hashing import FileHasher
from teepi.source import PrecededStream, SourceHead
from teepi.store import PartialNotes
from teepi.watchdog import WatchedStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from teepi.download import Download
    from teepi.limits import Limits
    from teepi.metrics import Metrics
    from teepi.model import Digest, FileRecord
    from teepi.source import Source, SourceStream
    from teepi.store import Partial, Store

log = logging.getLogger(__name__)

T = TypeVar("T")
_RANGE_REFUSED: Final = 416
_ROOM_TRIES: Final = 10  # of many downloads at once one may take the room that was made for another


class Transfer:
    """One fetch. :meth:`run` ends the download whatever happens."""

    def __init__(
        self,
        download: Download,
        record: FileRecord,
        sources: Sequence[Source],
        store: Store,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        """Fetch ``record`` from ``sources``, tried in turn; the first is upstream's own URL."""
        self.download = download
        self.record = record
        self.sha256: str | None = None
        """Of the whole file, once it is committed."""
        self.began = time.monotonic()
        self._sources = sources
        self._store = store
        self._limits = limits
        self._metrics = metrics
        self._partial: Partial | None = None
        self._committing: asyncio.Future[Any] | None = None
        self._hasher = FileHasher(self._digest)

    @property
    def _name(self) -> str:
        return self._sources[0].name

    @property
    def _digest(self) -> Digest | None:
        return self.record.digest

    @property
    def _digest_text(self) -> str | None:
        return None if self._digest is None else f"{self._digest.algorithm}={self._digest.hex}"

    async def run(self, ended: Callable[[Transfer, TeepiError | None], None]) -> None:
        """Fetch, verify, commit. ``ended`` is called in the same step in which the download ends.

        Errors end the download and are raised no further, except cancellation.
        """
        task = asyncio.current_task()
        self.download.abandoned = None if task is None else task.cancel
        error: TeepiError | None = None
        interrupted = True
        try:
            await self._fetch()
            await self._commit()
        except asyncio.CancelledError:
            await self._keep()
            self._end(ended, Interrupted("The transfer was stopped; try again."), interrupted=True)
            raise
        except StoreError as caught:
            self._metrics.uncached += 1
            error = caught
        except Mismatch as caught:
            self._metrics.mismatches += 1
            error, interrupted = caught, False
            log.warning("%s", caught)
            await self._discard()
        except (UpstreamError, NotFound) as caught:
            self._metrics.interrupted += 1
            error = caught
            log.warning("%s was not fetched: %s", self.record.filename, caught)
        except Exception as caught:  # a defect of ours must not leave readers hanging
            log.exception("The transfer of %s failed.", self.record.filename)
            error, interrupted = Interrupted(f"The transfer failed inside teepi: {caught!r}."), False
            await self._discard()
        self._end(ended, error, interrupted=interrupted)

    def _end(
        self, ended: Callable[[Transfer, TeepiError | None], None], error: TeepiError | None, *, interrupted: bool
    ) -> None:
        ended(self, error)
        if error is None:
            self.download.completed()
        else:
            self.download.failed(error, interrupted=interrupted)
        self.download.abandoned = None
        if self._partial is not None:
            self._partial.release()

    # -- fetch ---------------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        prefix = await self._reopen()
        if prefix is not None:
            partial, notes = prefix
            if partial.length == notes.total and self._right(partial.length):
                self._begin_streaming(_head_of(notes), partial)
                self._finish()
                return
        if await self._first_stream():
            return
        await self._resume_until_whole()

    async def _first_stream(self) -> bool:
        """Ask the sources in turn until one answers, and pump that; return whether it brought the whole file."""
        failure: NotFound | UpstreamError | None = None
        for source in self._sources:
            try:
                return await self._first_stream_of(source)
            except Mismatch:
                raise
            except (NotFound, UpstreamError) as error:
                if self.download.head is not None:
                    raise
                if failure is None or isinstance(failure, NotFound):  # not found means that every source says so
                    failure = error
                log.info("%s", error)
        assert failure is not None  # noqa: S101 - there is a source
        raise failure

    async def _first_stream_of(self, source: Source) -> bool:
        prefix = self._partial
        offset = 0 if prefix is None else prefix.length
        if_range = None if prefix is None or self._digest is not None else prefix.notes.etag
        try:
            async with source.open(offset, if_range=if_range) as stream:
                head = stream.head
                if prefix is not None and head.start == 0:
                    await self._drop_prefix()  # the range was ignored; nobody has seen a byte yet
                    prefix = None
                if prefix is None or (
                    head.total in (None, prefix.notes.total)
                    and (self._digest is not None or _same_version(head, prefix.notes.etag))
                ):
                    await self._begin(head)
                    return await self._pump_to_end(stream)
        except Mismatch:
            raise
        except UpstreamError as error:
            if self.download.head is not None and isinstance(error, Interrupted):
                log.info("%s", error)
                return False
            if not offset or error.upstream_status != _RANGE_REFUSED:
                raise
        # Upstream has another file than the one that the prefix belongs to.
        await self._drop_prefix()
        return await self._first_stream_of(source)

    async def _reopen(self) -> tuple[Partial, PartialNotes] | None:
        """Take up what an earlier fetch left, its bytes hashed again."""
        try:
            found: tuple[Partial, PartialNotes] | None = await self._with_room(
                self._store.resume, self.record.key, self._digest_text
            )
        except OSError:  # the rest cannot be reserved; without the prefix it may be
            return None
        if found is None:
            return None
        self._partial, notes = found
        if self._digest is None and notes.etag is None:
            await self._drop_prefix()
            return None
        try:
            await self._in(self._store.landing, self._partial.hash_into, self._hasher)
        except OSError as error:
            log.warning("The partial of %s cannot be read: %s.", self.record.filename, error)
            await self._drop_prefix()
            return None
        return found

    async def _drop_prefix(self) -> None:
        partial, self._partial = self._partial, None
        if partial is not None:
            await self._in(self._store.landing, partial.discard)
            partial.release()
        self._hasher = FileHasher(self._digest)

    async def _begin(self, head: SourceHead) -> None:
        """Upstream has answered for the first time: decide where the bytes go."""
        if self._partial is not None:
            self._metrics.resumes += 1
            self.download.resumes += 1
            log.info("%s goes on at %d bytes.", self.record.filename, head.start)
            self._begin_streaming(_head_of(self._partial.notes), self._partial)
            return
        if self._digest is None and self.record.size is not None and head.total not in (None, self.record.size):
            msg = (
                f"Upstream's {self.record.filename} has {head.total} bytes, but its index page says "
                f"{self.record.size}; it is not passed on."
            )
            raise Mismatch(msg)
        head = replace(
            head,
            # Where upstream sends no length the page's tells a whole body from one that ended early.
            total=self.record.size if head.total is None else head.total,
            # One for all answers, also where upstream has none: the time of this fetch.
            last_modified=head.last_modified or formatdate(usegmt=True),
        )
        notes = PartialNotes(
            url=self.record.url,
            digest=self._digest_text,
            total=head.total,
            etag=head.etag,
            last_modified=head.last_modified,
            immutable=head.immutable,
        )
        try:
            self._partial = await self._with_room(self._store.begin, self.record.key, notes)
        except OSError as error:
            log.warning("%s is passed through uncached: %s.", self.record.filename, error)
        self._begin_streaming(head, self._partial)

    def _begin_streaming(self, head: SourceHead, partial: Partial | None) -> None:
        self.download.started(
            head,
            file=None if partial is None else partial.descriptor,
            arrived=0 if partial is None else partial.length,
            ring_bytes=self._limits.ring_bytes,
        )

    # -- pump ----------------------------------------------------------------------------------------

    async def _pump_to_end(self, stream: SourceStream) -> bool:
        """Land what the stream brings. Returns whether the file is whole; raises when the stream breaks."""
        total = self.download.total
        watched = WatchedStream(stream, self._name, self._limits)
        while data := await watched.read():
            if total is not None and self.download.arrived + len(data) > total:
                msg = f"Upstream sent more of {self.record.filename} than it announced."
                raise Mismatch(msg)
            if not await self._land(data):
                watched.restart()
        if total is not None and self.download.arrived < total:
            msg = f"{self._name} ended after {self.download.arrived} of {total} bytes."
            raise Interrupted(msg)
        self._finish()
        return True

    async def _land(self, data: bytes) -> bool:
        """Write and hash in one hop to a thread, then show it. Returns False when it waited for readers."""
        partial = self._partial
        if partial is not None and self.download.ring is None:
            try:
                await self._with_room(self._write_and_hash, partial, data)
            except OSError as error:
                log.warning("%s goes on uncached: %s.", self.record.filename, error)
                self.download.leave_file(self._limits.ring_bytes)
                await self._in(self._store.landing, partial.discard)
            else:
                self.download.extended(len(data))
                return True
        self._hasher.update(data)
        await self.download.append(data)
        return False

    def _write_and_hash(self, partial: Partial, data: bytes) -> None:
        partial.append(data)
        self._hasher.update(data)

    # -- resume --------------------------------------------------------------------------------------

    async def _resume_until_whole(self) -> None:
        """Take the file up where it broke, with the tries that ``limits`` gives."""
        limits, download = self._limits, self.download
        etag = None if download.head is None else download.head.etag
        if self._digest is None and etag is None:
            msg = f"{self.record.filename} broke off, and neither a digest nor an ETag would tell a right rest."
            raise Interrupted(msg)
        tries, credited = 0, download.arrived
        while True:
            if download.arrived - credited >= limits.resume_credit_bytes:
                tries, credited = 0, download.arrived
            if tries >= len(limits.resume_waits_seconds):
                msg = f"{self.record.filename} broke off and could not be resumed in {tries} tries."
                raise Interrupted(msg)
            wait = limits.resume_waits_seconds[tries] * (1 + limits.resume_jitter * random.random())  # noqa: S311
            source = self._sources[tries % len(self._sources)]
            tries += 1
            await asyncio.sleep(wait)
            try:
                if await self._resume(source, etag):
                    return
            except Mismatch:
                raise
            except (NotFound, UpstreamError) as error:
                if len(self._sources) == 1 and not isinstance(error, Interrupted):
                    raise
                log.info("%s", error)

    async def _resume(self, source: Source, etag: str | None) -> bool:
        download = self.download
        offset = download.arrived
        if_range = None if self._digest is not None else etag
        self._metrics.resumes += 1
        async with source.open(offset, if_range=if_range, resuming=True) as stream:
            head = stream.head
            if self._digest is None and not _same_version(head, etag):
                msg = f"Upstream's {self.record.filename} changed in mid-file."
                raise Mismatch(msg)
            # Only a whole answer may leave its size open.
            if download.total is not None and head.total != download.total and (head.start or head.total is not None):
                msg = f"Upstream's {self.record.filename} has another size than before."
                raise Interrupted(msg)
            download.resumes += 1
            if head.start == offset:
                log.info("%s goes on at %d bytes.", self.record.filename, offset)
                return await self._pump_to_end(stream)
            return await self._pump_to_end(await self._skip(stream, offset))

    async def _skip(self, stream: SourceStream, offset: int) -> SourceStream:
        """Upstream ignored the range: read ``offset`` bytes and require them to be those that are here."""
        seen = hashlib.sha256()
        left = offset
        watched = WatchedStream(stream, self._name, self._limits)
        while data := await watched.read():
            await self._in(self._store.landing, seen.update, data[:left])
            if len(data) >= left:
                if seen.hexdigest() != self._hasher.sha256:
                    msg = f"Upstream's {self.record.filename} changed in mid-file."
                    raise Mismatch(msg)
                return PrecededStream(data[left:], stream)
            left -= len(data)
        msg = f"{self._name} ended before the place where it broke off."
        raise Interrupted(msg)

    # -- end -----------------------------------------------------------------------------------------

    def _right(self, size: int) -> bool:
        """Whether what was hashed is what the index promised."""
        if self._digest is None:
            return self.record.size is None or self.record.size == size
        return self._hasher.keeps_promise

    def _finish(self) -> None:
        """All bytes are here: release the withheld end, or raise Mismatch."""
        if not self._right(self.download.arrived):
            promised = self._digest_text or f"{self.record.size} bytes"
            msg = f"The bytes of {self.record.filename} are not those that its index page promises ({promised})."
            raise Mismatch(msg)
        self.download.verified()

    async def _commit(self) -> None:
        partial, head = self._partial, self.download.head
        if partial is None or self.download.ring is not None or head is None:
            msg = f"{self.record.filename} was passed through uncached."
            raise StoreError(msg)
        sha256 = self._hasher.sha256
        self._committing = self._in(
            self._store.committing,
            lambda: self._store.commit(self.record.key, partial, sha256, last_modified=head.last_modified),
        )
        try:
            await asyncio.shield(self._committing)
        except OSError as error:
            log.error("%s was served but not committed: %s.", self.record.filename, error)  # noqa: TRY400
            await self._discard()
            msg = f"{self.record.filename} could not be committed: {error}."
            raise StoreError(msg) from error
        self.sha256 = sha256
        self._metrics.committed += 1
        if self._digest is None:
            self._metrics.unverified += 1

    async def _discard(self) -> None:
        if self._partial is not None:
            await self._in(self._store.landing, self._partial.discard)

    async def _keep(self) -> None:
        """Let a commit end, else sync the partial for the next process."""
        if self._committing is not None:
            await asyncio.wait({self._committing})
        elif self._partial is not None and self.download.ring is None:
            with contextlib.suppress(OSError):
                await asyncio.shield(self._in(self._store.committing, self._partial.keep))

    async def _with_room(self, work: Callable[..., T], *arguments: object) -> T:
        """Work in a landing thread; where the disk or the cache is full, again when room has been made."""
        for _ in range(_ROOM_TRIES):
            try:
                result: T = await self._in(self._store.landing, work, *arguments)
            except OSError as error:
                full = error.errno in {errno.ENOSPC, errno.EDQUOT}
                if not full or self._store.make_room is None or not await self._store.make_room(error):
                    raise
            else:
                return result
        raise OSError(errno.ENOSPC, "others were quicker to take the room that was made")

    @staticmethod
    def _in(executor: Executor, work: Callable[..., Any], *arguments: object) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(executor, work, *arguments)


def _same_version(head: SourceHead, etag: str | None) -> bool:
    """Whether an answer to If-Range is of the bytes that ``etag`` named (RFC 9110, 15.3.7.3)."""
    return head.etag == etag or (head.etag is None and head.start > 0)


def _head_of(notes: PartialNotes) -> SourceHead:
    return SourceHead(0, notes.total, notes.etag, notes.last_modified, notes.immutable)
