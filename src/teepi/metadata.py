"""Core metadata of files (PEP 658): upstream's own, or read out of the wheel where upstream has none.

A resolver asks for thousands, so each costs little: a range of the wheel, one hop to a thread that looks into it and
keeps what is found, and a share of a transaction. What a wheel looks like inside is known to ``wheel_metadata``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec.structs import replace

from teepi.errors import (
    BadWheel,
    Interrupted,
    Mismatch,
    NoCoreMetadata,
    RangeNotSatisfiable,
    Unavailable,
    UpstreamError,
)
from teepi.files import Outcome
from teepi.http_semantics import RangeRequest
from teepi.model import Digest
from teepi.origins import Origin, origin_of
from teepi.single_flight import SingleFlight
from teepi.store import StoredMetadata
from teepi.tasks import in_thread
from teepi.watchdog import WatchedStream
from teepi.wheel_metadata import METADATA_BYTES, TAIL_BYTES, extract, plan, wheel_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from teepi.catalog import Catalog
    from teepi.files import Files, Opened
    from teepi.hot_entries import InFile
    from teepi.limits import Limits
    from teepi.model import FileKey, FileRecord
    from teepi.pages import Pages
    from teepi.store import MetadataStore
    from teepi.tasks import TaskScope
    from teepi.wheel_metadata import Plan

    Keep = Callable[[bytes], tuple[StoredMetadata, bool]]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

METADATA: Final = ".metadata"  # PEP 658
_RANGELESS: Final = 3  # answers in a row without the range that was asked for


def metadata_of(record: FileRecord) -> FileRecord:
    """Return the record of the core metadata that upstream has beside a file: a file like any other."""
    url, mark, query = record.url.partition("?")
    return replace(
        record,
        filename=record.filename + METADATA,
        url=url + METADATA + mark + query,
        address=record.address + METADATA,
        digest=record.metadata if isinstance(record.metadata, Digest) else None,
        size=None,
        metadata=False,
    )


class _Ranges:
    """What is known of the ranges of one origin, and how many wheels are read by them at a time."""

    def __init__(self, limits: Limits) -> None:
        self.slots = asyncio.Semaphore(limits.metadata_ranges)
        self._rangeless_seconds = limits.rangeless_seconds
        self._refused = 0
        self._refused_at = 0.0

    def answered(self, *, with_range: bool) -> None:
        """Note an answer."""
        self._refused = 0 if with_range else self._refused + 1
        self._refused_at = time.monotonic()

    @property
    def are_vain(self) -> bool:
        """Whether asking for one is not worth it now."""
        return self._refused >= _RANGELESS and time.monotonic() - self._refused_at < self._rangeless_seconds


class CoreMetadata:
    """Core metadata that upstream does not have."""

    def __init__(
        self,
        files: Files,
        pages: Pages,
        catalog: Catalog,
        store: MetadataStore,
        scope: TaskScope,
        limits: Limits,
    ) -> None:
        """Read out of what ``files`` has or can reach into ``store``; tell ``pages`` and ``catalog`` what came out."""
        self._files = files
        self._pages = pages
        self._catalog = catalog
        self._store = store
        self._scope = scope
        self._limits = limits
        self._reading: SingleFlight[StoredMetadata] = SingleFlight(scope)
        self._ranges: dict[tuple[str, Origin], _Ranges] = {}
        self._learnt: dict[tuple[str, str], str | None] = {}
        self._telling: asyncio.Task[None] | None = None
        self._catalog_was_lost = catalog.needs_rebuild
        self._told_again: set[FileKey] = set()
        self.read_out: Callable[[FileRecord, bytes], None] | None = None
        """Called with each wheel and what was read out of it."""

    def record(self, wheel: FileRecord) -> FileRecord | None:
        """Return the record of the core metadata in ``wheel``, for :meth:`get`, or None when that is no wheel."""
        if wheel_name(wheel.filename) is None:
            return None
        return replace(metadata_of(wheel), digest=None, wheel=wheel)

    async def get(self, wheel: FileRecord) -> tuple[StoredMetadata, Outcome]:
        """Return the core metadata in ``wheel`` and how it was come by.

        Raises :class:`NoCoreMetadata`, :class:`Offline`, :class:`NotFound` when upstream has no such wheel,
        :class:`Mismatch` when it is not what pages have said, or :class:`Unavailable`.
        """
        key = wheel.key
        stored = self._store.load(key)
        if stored is not None:
            if self._catalog_was_lost and key not in self._told_again:
                self._told_again.add(key)
                self._learn(wheel, stored.sha256)
            return stored, Outcome.HIT
        outcome = Outcome.COLLAPSED if self._reading.is_flying(key) else Outcome.MISS
        try:
            return await self._reading.join(
                key, lambda: self._read_out(wheel), self._limits.cold_answer_seconds
            ), outcome
        except TimeoutError:
            msg = f"The core metadata of {wheel.filename} is not here yet; teepi goes on reading it. Try again."
            raise Unavailable(msg) from None

    async def at_hand(self, wheel: FileRecord) -> bytes | None:
        """Return the core metadata in ``wheel`` when it was read out before, or can be without asking upstream."""
        stored = await self._in_thread(lambda: self._store.load(wheel.key))
        if stored is not None:
            return stored.content
        opened = self._files.look(wheel)
        if opened is None:
            return None
        is_cached = opened.outcome is Outcome.HIT
        opened.close()
        return (await self.get(wheel))[0].content if is_cached else None

    def place(self, wheel: FileRecord, stored: StoredMetadata) -> tuple[InFile, Callable[[], None]]:
        """Return where what was read out of ``wheel`` lies, and what notes its use."""
        return self._store.place(wheel.key, stored), partial(self._store.note_use, wheel.key)

    # -- what came out -------------------------------------------------------------------------------

    async def _known(self, wheel: FileRecord) -> str | None:
        """Return the sha256 of what was read out before, empty for nothing, None when that is not known."""
        key = wheel.key.value
        if (wheel.project, key) in self._learnt:
            return self._learnt[wheel.project, key]
        return (await self._catalog.core_metadata(wheel.project, key)).get(key)

    def _learn(self, wheel: FileRecord, sha256: str | None) -> None:
        self._learnt[wheel.project, wheel.key.value] = sha256
        if self._telling is None:
            self._telling = self._scope.start(self._tell(), name="catalogue core metadata")

    async def _tell(self) -> None:
        """Tell the catalogue, then the pages, what was learnt: much of it at a time, and all of it at the end."""
        try:
            while self._learnt:
                try:
                    await asyncio.sleep(self._limits.learning_seconds)
                finally:
                    await self._tell_now()
        finally:
            self._telling = None

    async def _tell_now(self) -> None:
        learnt = dict(self._learnt)
        await self._catalog.learn_core_metadata((*key, sha256) for key, sha256 in learnt.items())
        for key, sha256 in learnt.items():
            if self._learnt[key] == sha256:
                del self._learnt[key]
        for project in {project for project, _ in learnt}:  # not before: a page looks into the catalogue
            # A hash can wait; one that is wrong, or metadata that is not there, must not stay advertised.
            wrong = any(key[0] == project and not sha256 for key, sha256 in learnt.items())
            self._pages.forget_core_metadata(project, at_once=wrong)

    async def read(self, record: FileRecord) -> bytes:
        """Return core metadata itself; ``record`` is its own, upstream's or of what is read out.

        Raises as fetching any file does, and :class:`UpstreamError` for what cannot be held in memory.
        """
        if record.wheel is not None:
            stored, _ = await self.get(record.wheel)
            return stored.content
        opened = self._files.open(record)
        try:
            await self._files.arrive(opened)
            file, size = opened.body.file, opened.body.total
            if file is None or size is None or size > METADATA_BYTES:
                msg = f"{record.filename} cannot be looked into."
                raise UpstreamError(msg)
            return await in_thread(lambda: os.pread(file.fd, size, 0))
        finally:
            opened.close()

    # -- reading out ---------------------------------------------------------------------------------

    async def _read_out(self, wheel: FileRecord) -> StoredMetadata:
        known = await self._known(wheel)
        if known == "":
            msg = f"{wheel.filename} has no core metadata to serve; fetch the wheel itself."
            raise NoCoreMetadata(msg)
        try:
            stored, is_kept = await self._extract(wheel, partial(self._keep, wheel, known))
        except NoCoreMetadata:
            self._learn(wheel, "")
            raise
        except Mismatch:
            self._learn(wheel, None)
            raise
        if is_kept and known is None:
            self._learn(wheel, stored.sha256)
        if self.read_out is not None:
            self.read_out(wheel, stored.content)
        return stored

    def _keep(self, wheel: FileRecord, known: str | None, content: bytes) -> tuple[StoredMetadata, bool]:
        """Store what was read out and return it, and whether that succeeded (blocking)."""
        stored = StoredMetadata.of(content)
        if known not in {None, stored.sha256}:
            msg = f"The core metadata of {wheel.filename} has changed; ask for the page again, then for the file."
            raise Mismatch(msg)
        try:
            self._store.save(wheel.key, stored)
        except OSError as error:
            log.warning("The core metadata of %s was served but not kept: %s.", wheel.filename, error)
            return stored, False
        log.debug("The core metadata of %s was read out.", wheel.filename)
        return stored, True

    async def _extract(self, wheel: FileRecord, keep: Keep) -> tuple[StoredMetadata, bool]:
        """Read core metadata out of the cached wheel, else of the remote one, else of the one fetched whole."""
        opened = self._files.look(wheel)
        if opened is not None and opened.outcome is not Outcome.HIT:  # arriving: ranges are sooner
            opened.close()
            opened = None
        if opened is None:
            found = await self._out_of_ranges(wheel, keep)
            if found is not None:
                return found
            log.info("%s is fetched whole for its core metadata.", wheel.filename)
            opened = self._files.open(wheel)
        try:
            return await self._out_of_file(wheel, opened, keep)
        finally:
            opened.close()

    async def _out_of_file(self, wheel: FileRecord, opened: Opened, keep: Keep) -> tuple[StoredMetadata, bool]:
        await self._files.arrive(opened)
        body = opened.body
        file, size = body.file, body.total
        if file is None or size is None:
            msg = f"{wheel.filename} cannot be looked into; try again."
            raise UpstreamError(msg)
        fd = file.fd

        def read(start: int, stop: int) -> bytes:
            return os.pread(fd, stop - start, start)

        try:
            return await self._in_thread(lambda: keep(extract(wheel.filename, size, read)))
        except BadWheel as error:  # all of it is here and right: so it is
            raise NoCoreMetadata(error.message) from error
        except OSError as error:
            msg = f"The cached {wheel.filename} cannot be read: {error.strerror}."
            raise UpstreamError(msg) from error

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._store.executor, work)

    async def _out_of_ranges(self, wheel: FileRecord, keep: Keep) -> tuple[StoredMetadata, bool] | None:
        """Read core metadata out of the remote wheel; None when upstream's ranges do not lead to it."""
        # What a stranger's page says of another's wheels must not decide how those are read for others.
        origin = (wheel.index if wheel.bound_to else "", origin_of(wheel.url))
        ranges = self._ranges.setdefault(origin, _Ranges(self._limits))
        if ranges.are_vain:
            return None
        try:
            async with ranges.slots:
                try:
                    return await self._through_ranges(wheel, ranges, keep)
                except NoCoreMetadata:
                    # No digest guards a range, and this would stay: only what is read twice is believed.
                    return await self._through_ranges(wheel, ranges, keep)
        except (Interrupted, Mismatch):
            raise
        except (UpstreamError, RangeNotSatisfiable) as error:
            log.info("The core metadata of %s is not read by ranges: %s", wheel.filename, error.message)
            return None

    async def _through_ranges(self, wheel: FileRecord, ranges: _Ranges, keep: Keep) -> tuple[StoredMetadata, bool]:
        size, tail = await self._tail(wheel, ranges)
        steps = plan(wheel.filename, size, tail)
        wanted = await self._in_thread(lambda: _step(steps, None, keep))
        while isinstance(wanted, range):
            asked = RangeRequest(wanted.start, wanted.stop - 1)
            _, data = await self._range(wheel, ranges, asked, size)
            wanted = await self._in_thread(partial(_step, steps, data, keep))
        return wanted

    async def _tail(self, wheel: FileRecord, ranges: _Ranges) -> tuple[int, bytes]:
        """Return the size of the remote wheel and its last bytes."""
        if wheel.size:
            wanted = RangeRequest(max(0, wheel.size - TAIL_BYTES), wheel.size - 1)
        else:
            wanted = RangeRequest(None, TAIL_BYTES)
        return await self._range(wheel, ranges, wanted, wheel.size or None)

    async def _range(
        self, wheel: FileRecord, ranges: _Ranges, wanted: RangeRequest, size: int | None
    ) -> tuple[int, bytes]:
        """Return the size of the remote wheel and the bytes of exactly one range of it."""
        async with self._files.pass_range(wheel, wanted) as passed:
            ranges.answered(with_range=passed is not None)
            if passed is None or passed.total is None or passed.total != (size or passed.total):
                msg = f"Upstream does not answer a range of {wheel.filename} with that range."
                raise BadWheel(msg)
            watched = WatchedStream(passed.stream, wheel.filename, self._limits)
            data = bytearray()
            while part := await watched.read():
                data += part
                if len(data) > passed.stop - passed.start:
                    break
            if len(data) != passed.stop - passed.start:
                msg = f"Upstream sent {len(data)} bytes of {wheel.filename} for a range of another length."
                raise BadWheel(msg)
            return passed.total, bytes(data)


def _step(steps: Plan, data: bytes | None, keep: Keep) -> range | tuple[StoredMetadata, bool]:
    """Go on to the next range that is wanted, or keep what is found at the end."""
    try:
        start, stop = next(steps) if data is None else steps.send(data)
    except StopIteration as done:
        return keep(done.value)
    return range(start, stop)
