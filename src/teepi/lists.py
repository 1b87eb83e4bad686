"""Read-through for project lists: fresh, stale or revalidate, one request upstream per list, compressed on disk.

Installers never need one. A list is large, hence read, rendered, compressed and inflated in pieces, each in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from teepi.errors import BadPage, Offline, TeepiError, Unavailable
from teepi.http_semantics import PageFormat
from teepi.pages import Freshness
from teepi.project_list import HTML_HEAD, HTML_TAIL, JSON_HEAD, JSON_TAIL, html_of, json_of, names_of
from teepi.single_flight import SingleFlight
from teepi.upstream import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from teepi.limits import Limits
    from teepi.store import ListStore, ListWriter, StoredList
    from teepi.tasks import TaskScope
    from teepi.upstream import Upstream, UpstreamPage

log = logging.getLogger(__name__)

_JSON: Final = "json"
_HTML: Final = "html"
_PIECE_BYTES: Final = 64 << 10  # one step of writing: a thousand names, whose 1 to 2 ms hold the interpreter's lock
_SEND_BYTES: Final = 256 << 10  # one step of sending, which holds it for next to nothing
_READ_BYTES: Final = 64 << 10

T = TypeVar("T")


class ListBody:
    """One answer's way through a list. Close it."""

    def __init__(self, found: StoredList, form: PageFormat, *, gzip: bool) -> None:
        """Hold the file of ``form``."""
        name = _JSON if form is PageFormat.JSON else _HTML
        facts = found.head.forms[name]
        self.size = facts.gzip_bytes if gzip else facts.plain_bytes
        """Bytes of the body."""
        self.etag = f'"{facts.plain_sha256[:32]}-{form.name.lower()}{"-gzip" if gzip else ""}"'
        self._file = found.files[name].take()
        self._offset = 0
        self._inflater = None if gzip else zlib.decompressobj(31)

    async def read(self) -> bytes:
        """Return the next bytes, ``b""`` at the end. Raises OSError and :class:`zlib.error` for a disk that fails."""
        return await _in_thread(self._read)

    def _read(self) -> bytes:
        inflater = self._inflater
        if inflater is None:
            return self._next(_SEND_BYTES)
        while not inflater.eof:
            packed = inflater.unconsumed_tail or self._next(_READ_BYTES)
            if data := inflater.decompress(packed, _SEND_BYTES):
                return data
            if not packed:
                break
        return b""

    def _next(self, count: int) -> bytes:
        data = os.pread(self._file.fd, count, self._offset)
        self._offset += len(data)
        return data

    def close(self) -> None:
        """Let go of the file."""
        self._file.drop()


class ProjectLists:
    """The project lists of all mirror indexes."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        store: ListStore,
        scope: TaskScope,
        limits: Limits,
        *,
        ttl_seconds: float,
        offline: bool = False,
    ) -> None:
        """``upstreams`` are those of ``pages``."""
        self._upstreams = upstreams
        self._store = store
        self._limits = limits
        self._ttl_seconds = ttl_seconds
        self._offline = offline
        self._lists: dict[str, StoredList] = {}
        self._confirmed: dict[str, float] = {}  # monotonic seconds of upstream's last answer
        self._failed: dict[str, float] = {}
        self._loading = SingleFlight[None](scope)
        self._asking = SingleFlight[None](scope)

    async def open(self, index: str, form: PageFormat, *, gzip: bool) -> tuple[ListBody, Freshness]:
        """Return the list of ``index`` in ``form``, to be closed, and how it was come by.

        Raises :class:`NotFound`, :class:`Offline`, or :class:`UpstreamError` / :class:`Unavailable` when there is
        none to fall back to.
        """
        if index not in self._lists:
            await self._loading.join(index, lambda: self._load(index), self._limits.cold_answer_seconds)
        freshness = await self._freshen(index)
        return ListBody(self._lists[index], form, gzip=gzip), freshness

    async def _freshen(self, index: str) -> Freshness:
        """Ask upstream when it is time; return with a list there, or raise."""
        is_there = index in self._lists
        if self._offline:
            if not is_there:
                msg = "teepi runs offline and has no project list; installers do not need one."
                raise Offline(msg)
            return Freshness.HIT
        now = time.monotonic()
        if is_there and self._confirmed[index] > now - self._ttl_seconds:
            return Freshness.HIT
        if is_there and self._failed.get(index, -self._limits.absent_seconds) > now - self._limits.absent_seconds:
            return Freshness.STALE
        limits = self._limits
        patience = limits.page_patience_seconds if is_there else limits.cold_answer_seconds
        joined = self._asking.is_flying(index)
        try:
            await self._asking.join(index, lambda: self._revalidate(index), patience)
        except (TeepiError, TimeoutError) as error:
            if index in self._lists:
                return Freshness.STALE
            if isinstance(error, TimeoutError):
                msg = "Upstream's project list has not come in full yet; teepi goes on fetching it. Try again."
                raise Unavailable(msg) from None
            raise
        return Freshness.COLLAPSED if joined else Freshness.REVALIDATED if is_there else Freshness.MISS

    def close(self) -> None:
        """Let go of all lists."""
        for found in self._lists.values():
            found.close()
        self._lists.clear()

    async def _load(self, index: str) -> None:
        found = await _in_thread(lambda: self._store.load(index))
        if found is None:
            return
        if index in self._lists or found.head.url != self._upstreams[index].root:
            found.close()
            return
        self._lists[index] = found
        self._confirmed[index] = time.monotonic() - max(0.0, time.time() - found.head.fetched_at)

    async def _revalidate(self, index: str) -> None:
        try:
            try:
                await self._fetch(index, in_memory=False)
            except OSError as error:
                log.warning("The project list of %s cannot be stored: %s. It is kept in memory.", index, error)
                await self._fetch(index, in_memory=True)
        except TeepiError as error:
            self._failed[index] = time.monotonic()
            log.warning("The project list of %s was not fetched: %s", index, error)
            raise
        self._confirmed[index] = time.monotonic()
        self._failed.pop(index, None)

    async def _fetch(self, index: str, *, in_memory: bool) -> None:
        old = self._lists.get(index)
        upstream = self._upstreams[index]
        url = upstream.root
        etag = None if old is None else old.head.etag
        modified = None if old is None else old.head.last_modified
        async with upstream.project_list(url, etag=etag, last_modified=modified) as (answer, chunks):
            if answer.body is None and old is not None:
                old.head = replace(old.head, etag=answer.etag or etag, fetched_at=time.time())
                head = old.head
                try:
                    await _in_thread(lambda: self._store.renew(head))
                except OSError as error:
                    log.warning("The head of the project list of %s cannot be written: %s.", index, error)
                return
            writer = await _in_thread(lambda: self._begin(index, in_memory=in_memory))
            try:
                await self._write(writer, answer, chunks)
                found = await _in_thread(lambda: writer.commit(url, answer.etag, answer.last_modified, time.time()))
            finally:
                await _in_thread(writer.abort)
        self._lists[index] = found
        if old is not None:
            old.close()

    def _begin(self, index: str, *, in_memory: bool) -> ListWriter:
        forms = (_JSON, _HTML)
        if not in_memory:
            try:
                return self._store.begin(index, forms)
            except OSError as error:
                log.warning("The project list of %s cannot be stored: %s. It is kept in memory.", index, error)
        return self._store.begin(index, forms, in_memory=True)

    async def _write(self, writer: ListWriter, answer: UpstreamPage, chunks: AsyncIterator[bytes]) -> None:
        pieces = _pieces(chunks, self._limits.page_bytes, shown(answer.url))
        first = await anext(pieces, b"")
        names, is_json = names_of(answer.content_type, first, shown(answer.url))
        is_first = True

        def put(found: list[str]) -> None:
            nonlocal is_first
            writer.add(_HTML, html_of(found))
            if not is_json and (elements := json_of(found, first=is_first)):
                writer.add(_JSON, elements)
                is_first = False

        def begin() -> None:
            writer.add(_HTML, HTML_HEAD)
            if not is_json:
                writer.add(_JSON, JSON_HEAD)

        def step(piece: bytes) -> None:
            if is_json:
                writer.add(_JSON, piece)  # as it is: no link in it, and unknown keys survive
            put(names.feed(piece))

        def end() -> None:
            put(names.finish())
            writer.add(_HTML, HTML_TAIL)
            if not is_json:
                writer.add(_JSON, JSON_TAIL)

        await _in_thread(begin)
        await _in_thread(lambda: step(first))
        async for piece in pieces:
            await _in_thread(lambda piece=piece: step(piece))  # type: ignore[misc] # the loop's own piece
        await _in_thread(end)


async def _pieces(chunks: AsyncIterator[bytes], most: int, said: str) -> AsyncIterator[bytes]:
    """Join chunks to pieces that are worth a thread. Raises :class:`BadPage` beyond ``most`` bytes."""
    parts: list[bytes] = []
    size = total = 0
    async for chunk in chunks:
        for start in range(0, len(chunk), _PIECE_BYTES):
            part = chunk[start : start + _PIECE_BYTES]
            parts.append(part)
            size += len(part)
            total += len(part)
            if total > most:
                msg = f"The project list {said} is larger than {most} bytes and is refused."
                raise BadPage(msg)
            if size >= _PIECE_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
    if parts:
        yield b"".join(parts)


async def _in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread and do not leave before it has ended, for it uses what the caller then closes."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
