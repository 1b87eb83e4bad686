"""Core metadata of files (PEP 658): upstream's own, or read out of the wheel where upstream has none.

What is read out becomes a file of the cache like any other: the service is the :class:`~teepi.source.Source` of those
files, and ``files`` gives them single-flight, ranges and a place on disk. What a wheel looks like inside is known to
``wheel_metadata``.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from teepi.download import Download
from teepi.errors import (
    BadWheel,
    Interrupted,
    Mismatch,
    NoCoreMetadata,
    NotFound,
    RangeNotSatisfiable,
    TeepiError,
    UpstreamError,
)
from teepi.files import Outcome
from teepi.http_semantics import RangeRequest
from teepi.model import Digest
from teepi.source import SourceHead
from teepi.tasks import in_thread
from teepi.watchdog import WatchedStream
from teepi.wheel_metadata import METADATA_BYTES, TAIL_BYTES, extract, plan, wheel_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from teepi.catalog import Catalog
    from teepi.files import Files, Opened
    from teepi.limits import Limits
    from teepi.model import FileRecord
    from teepi.pages import Pages
    from teepi.tasks import TaskScope
    from teepi.wheel_metadata import Plan

log = logging.getLogger(__name__)

METADATA: Final = ".metadata"  # PEP 658


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


class CoreMetadata:
    """Core metadata that upstream does not have."""

    def __init__(self, files: Files, pages: Pages, catalog: Catalog, scope: TaskScope, limits: Limits) -> None:
        """Read out of what ``files`` has or can reach; tell ``pages`` and ``catalog`` what came out."""
        self._files = files
        self._pages = pages
        self._catalog = catalog
        self._scope = scope
        self._limits = limits

    async def record(self, wheel: FileRecord) -> FileRecord | None:
        """Return the record of the core metadata in ``wheel``, or None when that is no wheel.

        Raises :class:`NoCoreMetadata` when it was looked into before and has none.
        """
        if wheel_name(wheel.filename) is None:
            return None
        key = wheel.key.value
        sha256 = (await self._catalog.core_metadata(wheel.project, key)).get(key)
        if sha256 == "":
            msg = f"{wheel.filename} has no core metadata to serve; fetch the wheel itself."
            raise NoCoreMetadata(msg)
        digest = None if sha256 is None else Digest("sha256", sha256)
        return replace(metadata_of(wheel), digest=digest, wheel=wheel)

    # -- what came out -------------------------------------------------------------------------------

    def found(self, record: FileRecord, sha256: str) -> None:
        """Note the digest of core metadata that is in the cache now."""
        if record.digest is None:
            self._learn(record, sha256)

    def failed(self, record: FileRecord, error: TeepiError) -> None:
        """Note that there is none, or that other bytes came out than once before (the wheel has no digest then)."""
        if isinstance(error, NoCoreMetadata):
            self._learn(record, "")
        elif isinstance(error, Mismatch):
            self._learn(record, None)

    def _learn(self, record: FileRecord, sha256: str | None) -> None:
        self._scope.start(self._told(record, sha256), name=f"catalogue {record.filename}")

    async def _told(self, record: FileRecord, sha256: str | None) -> None:
        if record.wheel is not None:
            await self._catalog.learn_core_metadata(record.project, record.wheel.key.value, sha256)
            self._pages.forget_core_metadata(record.project)  # not before: a page looks into the catalogue

    async def read(self, record: FileRecord) -> bytes:
        """Return core metadata itself; ``record`` is its own, upstream's or of what is read out.

        Raises as fetching any file does, and :class:`UpstreamError` for what cannot be held in memory.
        """
        opened = self._files.open(record)
        try:
            await self._arrive(opened)
            file, size = opened.body.file, opened.body.total
            if file is None or size is None or size > METADATA_BYTES:
                msg = f"{record.filename} cannot be looked into."
                raise UpstreamError(msg)
            return await in_thread(lambda: os.pread(file.fd, size, 0))
        finally:
            opened.close()

    # -- reading out ---------------------------------------------------------------------------------

    def source(self, record: FileRecord) -> MetadataSource:
        """Return where the bytes of core metadata come from."""
        return MetadataSource(self, record.wheel or record)

    async def extract(self, wheel: FileRecord) -> bytes:
        """Read core metadata out of the cached wheel, else of the remote one, else of the one fetched whole.

        Raises :class:`NoCoreMetadata`, :class:`NotFound` when upstream has no such wheel, or
        :class:`UpstreamError`.
        """
        opened = self._files.look(wheel)
        if opened is not None and opened.outcome is not Outcome.HIT:  # arriving: ranges are sooner
            opened.close()
            opened = None
        if opened is None:
            content = await self._out_of_ranges(wheel)
            if content is not None:
                return content
            log.info("%s is fetched whole for its core metadata.", wheel.filename)
            opened = self._files.open(wheel)
        try:
            return await self._out_of_file(wheel, opened)
        finally:
            opened.close()

    async def _out_of_file(self, wheel: FileRecord, opened: Opened) -> bytes:
        await self._arrive(opened)
        body = opened.body
        file, size = body.file, body.total
        if file is None or size is None:
            msg = f"{wheel.filename} cannot be looked into; try again."
            raise UpstreamError(msg)
        fd = file.fd

        def read(start: int, stop: int) -> bytes:
            return os.pread(fd, stop - start, start)

        try:
            return await asyncio.to_thread(extract, wheel.filename, size, read)
        except BadWheel as error:  # all of it is here and right: so it is
            raise NoCoreMetadata(error.message) from error
        except OSError as error:
            msg = f"The cached {wheel.filename} cannot be read: {error.strerror}."
            raise UpstreamError(msg) from error

    @staticmethod
    async def _arrive(opened: Opened) -> None:
        """Wait until all of a file is here and right, holding up nobody who reads it from memory."""
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

    async def _out_of_ranges(self, wheel: FileRecord) -> bytes | None:
        """Read core metadata out of the remote wheel; None when upstream's ranges do not lead to it."""
        try:
            size, tail = await self._tail(wheel)
            steps = plan(wheel.filename, size, tail)
            wanted = await asyncio.to_thread(_step, steps, None)
            while isinstance(wanted, tuple):
                _, data = await self._range(wheel, RangeRequest(wanted[0], wanted[1] - 1), size)
                wanted = await asyncio.to_thread(_step, steps, data)
        except Interrupted:
            raise
        except (UpstreamError, RangeNotSatisfiable) as error:
            log.info("The core metadata of %s is not read by ranges: %s", wheel.filename, error.message)
            return None
        return wanted

    async def _tail(self, wheel: FileRecord) -> tuple[int, bytes]:
        """Return the size of the remote wheel and its last bytes."""
        if wheel.size:
            wanted = RangeRequest(max(0, wheel.size - TAIL_BYTES), wheel.size - 1)
        else:
            wanted = RangeRequest(None, TAIL_BYTES)
        return await self._range(wheel, wanted, wheel.size or None)

    async def _range(self, wheel: FileRecord, wanted: RangeRequest, size: int | None) -> tuple[int, bytes]:
        """Return the size of the remote wheel and the bytes of exactly one range of it."""
        async with self._files.pass_range(wheel, wanted) as passed:
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


def _step(steps: Plan, data: bytes | None) -> tuple[int, int] | bytes:
    """Go on to the next range that is wanted, or to the end (no StopIteration passes through a future)."""
    try:
        return next(steps) if data is None else steps.send(data)
    except StopIteration as done:
        metadata: bytes = done.value
        return metadata


@dataclass(frozen=True, slots=True)
class MetadataSource:
    """The core metadata of one wheel as a :class:`~teepi.source.Source`."""

    service: CoreMetadata
    wheel: FileRecord

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"the core metadata of {self.wheel.filename}"

    @asynccontextmanager
    async def open(
        self,
        offset: int,
        *,
        if_range: str | None = None,
        resuming: bool = False,  # noqa: ARG002 - the protocol's signature
    ) -> AsyncIterator[_Bytes]:
        """See :meth:`teepi.source.Source.open`."""
        try:
            content = await self.service.extract(self.wheel)
        except (NotFound, Interrupted):
            raise
        except TeepiError as error:  # of the wheel: its mismatch is not one of the metadata
            raise UpstreamError(error.message) from error
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        start = offset if offset <= len(content) and if_range in {None, etag} else 0
        yield _Bytes(SourceHead(start, len(content), etag), content[start:])


class _Bytes:
    """Bytes in memory as a :class:`~teepi.source.SourceStream`."""

    __slots__ = ("_content", "head")

    def __init__(self, head: SourceHead, content: bytes) -> None:
        self.head = head
        self._content = content

    async def read(self) -> bytes:
        """See :meth:`teepi.source.SourceStream.read`."""
        content, self._content = self._content, b""
        return content
