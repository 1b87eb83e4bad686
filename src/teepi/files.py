"""Read-through for files: a hit, or join the fetch in flight, or start one; a bounded range may be passed upstream.

After an await no look-up is trusted: store, registry and start are asked in one synchronous step
(:meth:`Files.open`, :meth:`Files.look`), which hands out a body with its reader attached.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

from teepi.download import Download, State
from teepi.download_report import ended, line
from teepi.errors import Mismatch, Offline, RangeNotSatisfiable, TeepiError, Unavailable, UpstreamError
from teepi.hot_entries import InFile
from teepi.readable import Cursor
from teepi.transfer import Transfer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from teepi.catalog import Catalog
    from teepi.download import Registry
    from teepi.hot_entries import HotEntries
    from teepi.http_semantics import RangeRequest
    from teepi.limits import Limits
    from teepi.live import Live
    from teepi.metrics import Metrics
    from teepi.model import FileKey, FileRecord
    from teepi.source import SourceHead, SourceStream
    from teepi.store import CachedFile, Store
    from teepi.tasks import TaskScope
    from teepi.upstream import Upstream

log = logging.getLogger(__name__)


_NOT_SAID: Final = "a file that not everybody may read"


class Outcome(Enum):
    """How a request was answered, in the words of Cache-Status (RFC 9211)."""

    HIT = "hit"
    MISS = "fwd=uri-miss; stored"
    COLLAPSED = "fwd=uri-miss; collapsed"
    PASSED = "fwd=uri-miss"


@dataclass(slots=True)
class Opened:
    """A file to send, with the reader's cursor attached to it: :meth:`close` must follow."""

    body: Download | CachedFile
    cursor: Cursor
    outcome: Outcome

    def answers(self) -> None:
        """Note that a client is answered from it."""
        if isinstance(self.body, Download):
            self.body.clients += 1

    def close(self) -> None:
        """Let go of the body."""
        self.body.detach(self.cursor)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the head of an answer says of a file."""

    total: int | None
    etag: str | None
    last_modified: str | None
    immutable: bool
    verified: bool = True
    """Whether the whole file is known to be right; a part of one that is not may not be stored by anyone."""


@dataclass(frozen=True, slots=True)
class PassedRange:
    """A range that upstream answers by itself: bytes ``[start, stop)`` of ``total``."""

    start: int
    stop: int
    total: int | None
    stream: SourceStream


@dataclass(slots=True)
class _Wrong:
    """Memory of wrong copies of one file."""

    count: int = 0
    not_before: float = 0.0


class Files:
    """All files of all indexes."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        registry: Registry,
        upstreams: Mapping[str, Upstream],
        scope: TaskScope,
        limits: Limits,
        metrics: Metrics,
        live: Live,
        hot: HotEntries,
    ) -> None:
        """Serve from ``store`` and fetch from the upstream of each index in ``scope``, unless offline.

        Out of ``hot`` is taken what changes here.
        """
        self._hot = hot
        self._store = store
        self._catalog = catalog
        self._registry = registry
        self._upstreams = upstreams
        self._scope = scope
        self._limits = limits
        self._metrics = metrics
        self._live = live
        self._wrong: dict[FileKey, _Wrong] = {}
        self._odd_sizes: set[FileKey] = set()

    # -- look, decide --------------------------------------------------------------------------------

    def _cached(self, record: FileRecord) -> CachedFile | None:
        # The page's size finds a truncated file, unless a right digest has shown that the page is wrong.
        size = None if record.key in self._odd_sizes else record.size
        cached = self._store.open_cached(record.key, size)
        if cached is not None:
            self._catalog.touch(cached.sha256)
        return cached

    def look(self, record: FileRecord) -> Opened | None:
        """Open the file if it is cached or in flight; start nothing."""
        cached = self._cached(record)
        if cached is not None:
            return self._attach(cached, Outcome.HIT)
        download = self._registry.get(record.key)
        if download is not None and download.serves(0):
            return self._attach(download, Outcome.COLLAPSED)
        return None

    def open(self, record: FileRecord, *, position: int = 0) -> Opened:
        """Open the file: cached, joined or started.

        Raises :class:`Offline`, or :class:`Unavailable` while the file's fetches are spaced.
        """
        cached = self._cached(record)
        if cached is not None:
            return self._attach(cached, Outcome.HIT)
        download, joined = self._registry.join_or_start(record.key, lambda: self._start(record), position=position)
        return self._attach(download, Outcome.COLLAPSED if joined else Outcome.MISS)

    @staticmethod
    def _attach(body: Download | CachedFile, outcome: Outcome) -> Opened:
        cursor = Cursor()
        body.attach(cursor)
        return Opened(body, cursor, outcome)

    def _start(self, record: FileRecord) -> Download:
        if self._live.offline:
            msg = f"teepi runs offline and {record.filename} is not in its cache."
            raise Offline(msg)
        wrong = self._wrong.get(record.key)
        if wrong is not None and (left := wrong.not_before - time.monotonic()) > 0:
            msg = (
                f"Upstream has sent wrong bytes for {record.filename} {wrong.count} times; "
                f"it is asked again in {left:.0f} s."
            )
            raise Unavailable(msg)
        download = Download(
            record.key,
            withheld_bytes=self._limits.withheld_bytes,
            generation=self._generation(record),
            name=record.filename,
            public_name=None if self._live.is_public(record.index) else _NOT_SAID,
        )
        sources = self._upstreams[record.index].sources(record.url, has_digest=record.digest is not None)
        transfer = Transfer(download, record, sources, self._store, self._limits, self._metrics)
        task = self._scope.start(transfer.run(self._ended), name=f"transfer {record.filename}")
        task.add_done_callback(lambda _: self._reap(transfer))
        return download

    def _generation(self, record: FileRecord) -> int:
        return self._catalog.generations.get(record.key.value, 0)

    def _reap(self, transfer: Transfer) -> None:
        if not transfer.download.ended:  # cancelled before its first step
            self._registry.forget(transfer.download)
            transfer.download.failed(Unavailable("teepi is stopping; try again in a moment."))

    def _ended(self, transfer: Transfer, error: TeepiError | None) -> None:
        """Commit before forget: called when the file is in the store, or the download failed."""
        self._registry.forget(transfer.download)
        key, download, record = transfer.record.key, transfer.download, transfer.record
        self._hot.drop(record.project)
        seconds = time.monotonic() - transfer.began
        is_metadata = record.filename.endswith(".metadata")  # PEP 658: small, many, and of interest to nobody
        if download.head is not None and not is_metadata:  # what never began has its line in the log alone
            is_committed = transfer.sha256 is not None
            self._metrics.recent.appendleft(ended(download, seconds, error, is_committed=is_committed))
        if error is None and transfer.sha256 is not None:
            self._wrong.pop(key, None)
            if record.size not in (None, download.arrived):
                self._odd_sizes.add(key)
            self._scope.start(
                self._catalog.add_files([(transfer.sha256, download.arrived)], of=record),
                name=f"catalogue {record.filename}",
            )
            if download.head is not None and download.head.immutable and not record.immutable:
                self._scope.start(self._mark_immutable(record), name=f"catalogue {record.filename}")
            log.log(logging.DEBUG if is_metadata else logging.INFO, "%s", line(download, seconds))
        elif isinstance(error, Mismatch):
            self._note_wrong(record)

    async def _mark_immutable(self, record: FileRecord) -> None:
        await self._catalog.mark_immutable(record.index, record.address)
        self._hot.drop(record.project)

    def _note_wrong(self, record: FileRecord) -> None:
        """Remember a wrong copy: another ETag from now on, spaced fetches from the second one in a row on."""
        wrong = self._wrong.setdefault(record.key, _Wrong())
        wrong.count += 1
        if wrong.count > 1:
            limits = self._limits
            wait = limits.mismatch_first_wait_seconds * 2.0 ** min(wrong.count - 2, 16)
            wrong.not_before = time.monotonic() + min(wait, limits.mismatch_max_wait_seconds)
        self._scope.start(
            self._catalog.set_generation(record.key, self._generation(record) + 1), name=f"catalogue {record.filename}"
        )

    # -- what an answer says -------------------------------------------------------------------------

    def etag(self, record: FileRecord, upstream: str | None = None) -> str | None:
        """Return the strong ETag of a file: its sha256, else upstream's; with the generation after a mismatch."""
        sha256 = record.sha256
        value = f'"{sha256}"' if sha256 is not None else upstream
        generation = self._generation(record)
        return value if value is None or not generation else f'{value[:-1]}-{generation}"'

    def known_etag(self, record: FileRecord) -> str | None:
        """Return the ETag of a file as far as it is known without asking upstream."""
        opened = None if record.sha256 is not None else self.look(record)
        if opened is None:
            return self.etag(record)
        try:
            return self.facts(record, opened).etag
        finally:
            opened.close()

    def facts(self, record: FileRecord, opened: Opened) -> FileFacts:
        """Return what is known of an opened file now (of a download: once it has started)."""
        body = opened.body
        if isinstance(body, Download):
            head = body.head
            return FileFacts(
                total=body.total,
                etag=self.etag(record, None if head is None else head.etag),
                last_modified=None if head is None else head.last_modified,
                immutable=record.immutable or (head is not None and head.immutable),
                verified=body.released,
            )
        return FileFacts(
            total=body.total,
            etag=self.etag(record, body.etag or f'"{body.sha256}"'),
            last_modified=formatdate(body.last_modified_seconds, usegmt=True),
            immutable=record.immutable,
        )

    def place(self, opened: Opened) -> tuple[InFile, Callable[[], None]] | None:
        """Return where the file lies, and what notes its use, when it is cached; for as long as nothing drops it."""
        body = opened.body
        if isinstance(body, Download) or body.total is None:
            return None
        path = str(self._store.shelves.path(body.sha256))
        return InFile(path, 0, body.total), partial(self._catalog.touch, body.sha256)

    async def describe(self, record: FileRecord) -> FileFacts:
        """Say what a file that is neither cached nor in flight is like, without fetching it (HEAD).

        Raises :class:`Offline` and what upstream's answer to HEAD raises.
        """
        if record.size is not None and record.sha256 is not None:
            return FileFacts(record.size, self.etag(record), None, record.immutable)
        if self._live.offline:
            msg = f"teepi runs offline and {record.filename} is not in its cache."
            raise Offline(msg)
        head: SourceHead = await self._upstreams[record.index].head(record.url, has_digest=record.digest is not None)
        return FileFacts(head.total, self.etag(record, head.etag), head.last_modified, head.immutable)

    # -- waiting -------------------------------------------------------------------------------------

    async def ready(self, opened: Opened) -> None:
        """Wait until the head of an answer can be written.

        A file that is withheld whole is waited for to its end, so that a wrong one is never begun. Raises the
        download's failure, or :class:`Unavailable` after ``cold_answer_seconds`` (the fetch goes on behind).
        """
        body = opened.body
        if not isinstance(body, Download):
            return
        try:
            async with asyncio.timeout(self._limits.cold_answer_seconds):
                await body.wait_started()
                if body.total is not None and body.total <= self._limits.withheld_bytes:
                    await body.wait_released()
        except TimeoutError:
            if body.state is State.CONNECTING:
                msg = f"Upstream has not begun to send {body.name} yet; teepi goes on fetching it. Try again."
                raise Unavailable(msg) from None
        if body.failure is not None and not body.released:  # nothing has been said to this client yet
            raise body.failure.with_traceback(None)

    @staticmethod
    async def arrive(opened: Opened) -> None:
        """Wait until all of a file is here and right, holding up nobody who reads it from memory.

        Raises the download's failure, or :class:`UpstreamError` when no file holds it.
        """
        body, cursor = opened.body, opened.cursor
        if not isinstance(body, Download):
            return
        while not body.released and not body.ended:
            await body.wait_beyond(cursor.position)
            body.advance(cursor, max(0, body.limit - cursor.position))
        if body.ring is not None and body.released:
            msg = f"There is no room on the disk for {body.name}, so it cannot be looked into."
            raise UpstreamError(msg)
        if body.failure is not None:
            raise body.failure.with_traceback(None)

    async def bring(self, record: FileRecord) -> str:
        """Bring a file into the cache without a reader; return ``cached`` or ``fetched``. Raises why it could not."""
        opened = self.open(record)
        body = opened.body
        opened.close()
        if not isinstance(body, Download):
            return "cached"
        await body.wait_ended()
        if body.state is not State.COMPLETE:
            raise body.failure or Unavailable(f"{record.filename} was fetched but not kept; see teepi's log.")
        return "fetched"

    # -- ranges --------------------------------------------------------------------------------------

    def joins(self, wanted: RangeRequest, opened: Opened | None, size: int | None) -> bool:
        """Whether a range is served from the file itself (cached, arriving, started now) rather than passed.

        ``opened`` is what :meth:`look` found; ``size`` in bytes is what is known of an uncached file's.
        """
        limits = self._limits
        body = None if opened is None else opened.body
        if wanted.is_open or not isinstance(body, Download | None):
            return True
        total = body.total if body is not None and body.total is not None else size
        if total is None:
            first, last = wanted.first, wanted.last
            length = (last or 0) if first is None else (last or 0) - first + 1
            return length > limits.passed_range_bytes
        try:
            start, stop = wanted.resolve(total)
        except RangeNotSatisfiable:
            return body is not None  # upstream says so as well, and nothing need be fetched for it
        if (start == 0 and stop == total) or stop - start > limits.passed_range_bytes:
            return True
        if body is None or body.state is State.CONNECTING:
            return False
        return stop <= body.limit or start <= body.arrived + limits.near_tip_bytes

    @asynccontextmanager
    async def pass_range(self, record: FileRecord, wanted: RangeRequest) -> AsyncIterator[PassedRange | None]:
        """Ask upstream for a bounded or suffix range by itself.

        Yields None when upstream does not answer exactly that range: look again, then join. Raises
        :class:`RangeNotSatisfiable`, :class:`Offline`, or upstream's error.
        """
        if self._live.offline:
            msg = f"teepi runs offline and {record.filename} is not in its cache."
            raise Offline(msg)
        self._metrics.passed_ranges += 1
        upstream, has_digest = self._upstreams[record.index], record.digest is not None
        async with upstream.range(record.url, wanted.header, has_digest=has_digest) as answer:
            if answer is None:
                yield None
                return
            start, stop, total, stream = answer
            exact = total is not None and (start, stop) == wanted.resolve(total)
            if exact and record.size in (None, total):
                yield PassedRange(start, stop, total, stream)
            else:
                yield None
