"""Runs the fetch of one file: pumps a source into its landing, resumes, watches the rate, ends it.

It reports to a :class:`~teepi.download.Download` and leaves serving to others.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from teepi.errors import Interrupted, Mismatch, NotFound, StoreError, TeepiError, UpstreamError
from teepi.landing import Landing
from teepi.source import PrecededStream
from teepi.watchdog import WatchedStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from teepi.download import Download
    from teepi.limits import Limits
    from teepi.metrics import Metrics
    from teepi.model import Digest, FileRecord
    from teepi.source import Source, SourceHead, SourceStream
    from teepi.store import Store

log = logging.getLogger(__name__)

_RANGE_REFUSED: Final = 416


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
        self._limits = limits
        self._metrics = metrics
        self._landing = Landing(download, record, store, limits)

    @property
    def _name(self) -> str:
        return self._sources[0].name

    @property
    def _digest(self) -> Digest | None:
        return self.record.digest

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
            self.sha256 = await self._landing.commit()
            self._metrics.committed += 1
            if self._digest is None:
                self._metrics.unverified += 1
        except asyncio.CancelledError:
            await self._landing.keep()
            self._end(ended, Interrupted("The transfer was stopped; try again."), interrupted=True)
            raise
        except StoreError as caught:
            self._metrics.uncached += 1
            error = caught
        except Mismatch as caught:
            self._metrics.mismatches += 1
            error, interrupted = caught, False
            log.warning("%s", caught)
            await self._landing.discard()
        except (UpstreamError, NotFound) as caught:
            self._metrics.interrupted += 1
            error = caught
            log.warning("%s was not fetched: %s", self.record.filename, caught)
        except Exception as caught:  # a defect of ours must not leave readers hanging
            log.exception("The transfer of %s failed.", self.record.filename)
            error, interrupted = Interrupted(f"The transfer failed inside teepi: {caught!r}."), False
            await self._landing.discard()
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
        self._landing.release()

    # -- fetch ---------------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        await self._landing.reopen()
        prefix, length = self._landing.prefix, self._landing.length
        if prefix is not None and length == prefix.total and self._landing.is_right(length):
            self._landing.resume()
            self._landing.finish()
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
        prefix, offset = self._landing.prefix, self._landing.length
        if_range = None if prefix is None or self._digest is not None else prefix.etag
        try:
            async with source.open(offset, if_range=if_range) as stream:
                head = stream.head
                if prefix is not None and head.start == 0:
                    await self._landing.drop()  # the range was ignored; nobody has seen a byte yet
                    prefix = None
                if prefix is None or (
                    head.total in (None, prefix.total)
                    and (self._digest is not None or _same_version(head, prefix.etag))
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
        await self._landing.drop()
        return await self._first_stream_of(source)

    async def _begin(self, head: SourceHead) -> None:
        """Upstream has answered for the first time: see that this is the file, and begin to land it."""
        if self._landing.prefix is not None:
            self._metrics.resumes += 1
            self.download.resumes += 1
            log.info("%s goes on at %d bytes.", self.record.filename, head.start)
            self._landing.resume()
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
        await self._landing.begin(head)

    # -- pump ----------------------------------------------------------------------------------------

    async def _pump_to_end(self, stream: SourceStream) -> bool:
        """Land what the stream brings. Returns whether the file is whole; raises when the stream breaks."""
        total = self.download.total
        watched = WatchedStream(stream, self._name, self._limits)
        while data := await watched.read():
            if total is not None and self.download.arrived + len(data) > total:
                msg = f"Upstream sent more of {self.record.filename} than it announced."
                raise Mismatch(msg)
            if not await self._landing.land(data):
                watched.restart()
        if total is not None and self.download.arrived < total:
            msg = f"{self._name} ended after {self.download.arrived} of {total} bytes."
            raise Interrupted(msg)
        self._landing.finish()
        return True

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
            await self._landing.hash_into(seen, data[:left])
            if len(data) >= left:
                if seen.hexdigest() != self._landing.sha256:
                    msg = f"Upstream's {self.record.filename} changed in mid-file."
                    raise Mismatch(msg)
                return PrecededStream(data[left:], stream)
            left -= len(data)
        msg = f"{self._name} ended before the place where it broke off."
        raise Interrupted(msg)


def _same_version(head: SourceHead, etag: str | None) -> bool:
    """Whether an answer to If-Range is of the bytes that ``etag`` named (RFC 9110, 15.3.7.3)."""
    return head.etag == etag or (head.etag is None and head.start > 0)
