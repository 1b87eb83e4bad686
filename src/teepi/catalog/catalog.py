"""The actions on the catalogue.

It can be rebuilt from the files and pages on disk, so nothing here fails a request: while the database
cannot be written, an overlay in memory with the same tables takes what is new and is asked first.

Each connection belongs to one thread, the writer's or the reader's; the dicts belong to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec.structs import replace

from teepi.catalog import tables
from teepi.catalog.files import FileTable
from teepi.catalog.tables import Row, record_of
from teepi.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from teepi.model import FileKey, FileRecord

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

RECENT_RECORDS: Final = 20_000
"""Records in front of ``find``, about 20 MB when full: more files than one round of image builds asks for."""

OVERLAY_RECORDS: Final = 200_000
"""Records kept in memory while the database cannot be written, some 160 MB when full; the oldest go first."""


class Catalog(FileTable):
    """What is known of files. Methods never raise for a bad database; ``problem`` says that there is one."""

    needs_rebuild: bool
    """The database is new, was lost, damaged or of another schema, and has not been marked as rebuilt."""
    generations: dict[str, int]
    """``FileKey.value`` to generation; above 0 once a mismatch was seen. Change it by ``set_generation``."""
    problem: str | None
    """One sentence while the database cannot be written, else None."""

    def __init__(self, path: Path) -> None:
        """Use :meth:`open`; this alone reads nothing."""
        self.needs_rebuild = True
        self.generations = {}
        self.problem = None
        self.totals = (0, 0)
        self._path = path
        self._disk: sqlite3.Connection | None = None  # the writer thread's
        self._overlay: sqlite3.Connection | None = None  # the writer thread's; there while ``problem`` is
        self._reading: sqlite3.Connection | None = None  # the reader thread's
        self._damaged = False
        self._closed = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="catalog-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="catalog-reader")
        self._recent: OrderedDict[tuple[str, str], FileRecord] = OrderedDict()
        self._changes = 0
        self._touched: dict[str, float] = {}

    @classmethod
    def open(cls, path: Path) -> Catalog:
        """Open or begin the catalogue at ``path``; blocks shortly, so call it before serving.

        A file that is damaged or of another schema is renamed to ``<name>.damaged`` and a new one begun.
        """
        catalog = cls(path)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            catalog._begin()
        except (sqlite3.Error, OSError) as error:
            catalog._degrade(error)
            # A WAL database on a read-only mount opens only as immutable, unless its -shm is there.
            for query in ("mode=ro", "immutable=1"):
                with contextlib.suppress(sqlite3.Error):
                    catalog._use(query)
                    break
        return catalog

    # Looking up -------------------------------------------------------------------------------------

    async def find(self, index: str, address: str) -> FileRecord | None:
        """Return the file at ``address`` below the base of ``index``, or None when no page linked to it."""
        key = (index, address)
        if (record := self._recent.get(key)) is not None:
            self._recent.move_to_end(key)
            return record
        changes = self._changes
        found = await self._select(tables.BY_ADDRESS, index, address)
        if not found:
            return None
        if changes == self._changes:  # else what was read may be older than what has been written since
            self._recent[key] = found[0]
            if len(self._recent) > RECENT_RECORDS:
                self._recent.popitem(last=False)
        return found[0]

    async def find_by_path(self, index: str, path: str) -> list[FileRecord]:
        """Return the files whose upstream URL has the decoded ``path``, over all schemes and authorities."""
        return await self._select(tables.BY_PATH, index, path)

    async def find_by_digest(self, index: str, prefix: str, filename: str) -> FileRecord | None:
        """Return a file by the first 16 hex of its sha256 and its name, or None."""
        found = await self._select(tables.BY_DIGEST, index, f"sha256:{prefix}", filename)
        return found[0] if found else None

    async def core_metadata(self, project: str, key: str = "") -> dict[str, str]:
        """Return the sha256 of core metadata by wheel (of that with ``key`` alone), empty where a wheel has none."""
        older, newer = await self._rows_of(tables.CORE_METADATA, project, key)
        return {wheel: sha256 for wheel, sha256 in dict((*older, *newer)).items() if sha256 is not None}

    async def rows(self) -> int:
        """Return how many links are known, at most: rows that were replaced leave gaps."""
        return sum(row[0] or 0 for rows in await self._rows_of(tables.ROWS) for row in rows)

    # Changing ---------------------------------------------------------------------------------------

    async def remember(self, records: Sequence[FileRecord]) -> None:
        """Add or renew files, in one transaction, as :func:`tables.merged` says."""
        wanted = list(records)
        await self._change(lambda connection: self._merge(connection, filter(tables.is_storable, wanted)))

    async def settle(
        self, index: str, project: str, linked: Callable[[str], FileRecord | None], records: Sequence[FileRecord]
    ) -> set[str]:
        """Renew what is known of ``project`` after its page, which has ``linked`` at an address, and add ``records``.

        Returns the addresses of those of ``records`` that were not added: another project has another file there.
        """
        of, taken = (index, project), set[str]()

        def work(connection: sqlite3.Connection) -> list[FileRecord]:
            rows = [row for each in (self._disk, self._overlay) for row in self._rows(each, tables.BY_PROJECT, of)]
            renewed = [new for row in rows if (new := linked(record_of(row).address)) is not None]
            added = list(filter(tables.is_storable, records))
            known = {record.address: self._known(index, record.address) for record in added}
            taken.update(new.address for new in added if tables.is_taken(known[new.address], new))
            return self._merge(connection, [*renewed, *(new for new in added if new.address not in taken)])

        await self._change(work)
        return taken

    async def forget(self, index: str) -> None:
        """Forget all addresses of an index."""
        await self._write(lambda connection: connection.execute(tables.FORGET, (index,)))
        self._changes += 1
        self._recent.clear()

    async def mark_immutable(self, index: str, address: str) -> None:
        """Note that upstream called this file ``immutable`` (RFC 8246)."""

        def work(connection: sqlite3.Connection) -> list[FileRecord]:
            known = self._known(index, address)
            return [] if known is None else self._merge(connection, [replace(known, immutable=True)])

        await self._change(work)

    async def set_generation(self, key: FileKey, generation: int) -> None:
        """Set the generation that goes into the file's ETag; it holds at once, the table follows."""
        self.generations[key.value] = generation
        await self._write(lambda connection: connection.execute(tables.PUT_GENERATION, (key.value, generation)))

    async def learn_core_metadata(self, learnt: Iterable[tuple[str, str, str | None]]) -> None:
        """Remember what was read out of wheels, in one transaction: project, the wheel's key, sha256.

        The sha256 is empty where a wheel has none; None forgets what was known.
        """
        rows = list(learnt)
        await self._write(lambda connection: connection.executemany(tables.PUT_CORE_METADATA, rows))

    async def flush(self) -> None:
        """Write the times of use, in one transaction; first try the database again if it had a problem."""
        touched, self._touched = self._touched, {}

        def work() -> bool:
            self._recover()
            if self._overlay is None:
                self._attempt(
                    lambda connection: connection.executemany(
                        tables.USE_FILE,
                        [(at, sha256) for sha256, at in touched.items()],
                    )
                )
            return self._overlay is None

        if not await self._on(self._writer, work):
            self._touched = {**touched, **self._touched}

    async def mark_rebuilt(self) -> None:
        """Mark the rebuild as finished; without this the next start asks for it again."""
        await self._write(lambda connection: connection.execute(tables.PUT_META, ("rebuilt", str(int(time.time())))))
        self.needs_rebuild = False

    async def close(self) -> None:
        """Flush, close the database and end both threads. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        await self.flush()
        # The writer's connection goes last: SQLite then moves the log into the database.
        await self._on(self._reader, lambda: tables.close_all(self._reading))
        await self._on(self._writer, lambda: tables.close_all(self._disk, self._overlay))
        self._reader.shutdown(wait=False)
        self._writer.shutdown(wait=False)

    # On the event loop ------------------------------------------------------------------------------

    async def _on(self, thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        # shielded: what was asked for is written, also when the caller goes away before its turn
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(thread, work))

    async def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._on(self._writer, lambda: self._attempt(work))

    async def _change(self, work: Callable[[sqlite3.Connection], list[FileRecord]]) -> None:
        """Write records and bring ``_recent`` up to date, also when the caller is cancelled meanwhile."""
        future = asyncio.get_running_loop().run_in_executor(self._writer, lambda: self._attempt(work))
        future.add_done_callback(self._renew)
        await asyncio.shield(future)

    def _renew(self, future: asyncio.Future[list[FileRecord]]) -> None:
        self._changes += 1
        if future.cancelled() or future.exception() is not None:
            self._recent.clear()
            return
        for record in future.result():
            key = (record.index, record.address)
            if key in self._recent:
                self._recent[key] = record

    async def _select(self, query: str, *values: str) -> list[FileRecord]:
        """Return the records in the order of their addresses; the overlay's go before those on disk."""
        older, newer = await self._rows_of(query, *values)
        found = {row[1]: record_of(row) for row in (*older, *newer)}
        return [found[address] for address in sorted(found)]

    async def _rows_of(self, query: str, *values: str | int) -> tuple[list[Row], list[Row]]:
        """Return what the database and what the overlay has, in this order."""
        newer: list[Row] = []
        if self._overlay is not None:
            newer = await self._on(self._writer, lambda: self._rows(self._overlay, query, values))
        return await self._on(self._reader, lambda: self._read(query, values)), newer

    # In the reader thread ---------------------------------------------------------------------------

    def _read(self, query: str, values: tuple[str | int, ...]) -> list[Row]:
        try:
            return tables.rows_of(self._reading, query, values)
        except sqlite3.Error as error:
            self._writer.submit(self._degrade, error)
            return []

    # In the writer thread ---------------------------------------------------------------------------

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do ``work`` in one transaction, in the overlay when the database cannot be written."""
        if self._disk is not None and self._overlay is None:
            try:
                with transaction(self._disk):
                    return work(self._disk)
            except sqlite3.Error as error:
                self._degrade(error)
        assert self._overlay is not None  # noqa: S101 - _degrade has made it
        with transaction(self._overlay):
            result = work(self._overlay)
            self._overlay.execute(tables.DROP_OLDEST, (OVERLAY_RECORDS,))
            return result

    def _merge(self, connection: sqlite3.Connection, records: Iterable[FileRecord]) -> list[FileRecord]:
        """Return what is now known at the addresses of ``records``."""
        merged = []
        for each in records:
            record = replace(each, bound_to="") if each.bound_to else each  # who hands it out says that
            old = self._known(record.index, record.address)
            new = record if old is None else tables.merged(old, record)
            if new != old:
                connection.execute(tables.PUT_KNOWN, tables.row_of(new))
            merged.append(new)
        return merged

    def _known(self, index: str, address: str) -> FileRecord | None:
        for connection in (self._overlay, self._disk):
            for row in self._rows(connection, tables.BY_ADDRESS, (index, address)):
                return record_of(row)
        return None

    def _rows(self, connection: sqlite3.Connection | None, query: str, values: tuple[str | int, ...]) -> list[Row]:
        try:
            return tables.rows_of(connection, query, values)
        except sqlite3.Error:
            if self._overlay is None:
                raise  # _attempt goes over to the overlay and asks again
            return []

    def _degrade(self, error: Exception) -> None:
        """Go over to the overlay; a damaged database is renamed, so that the next start begins a new one."""
        if self._overlay is not None:
            return
        self._damaged = tables.is_damage(error)
        if self._damaged:
            with contextlib.suppress(OSError):
                tables.set_aside(self._path)
        self.problem = tables.problem(self._path, error)
        self._overlay = tables.open_memory()
        _log.warning("%s", self.problem)

    def _recover(self) -> None:
        """Move the overlay to the database if it can be written again; else leave things as they are."""
        if self._overlay is None or self._damaged:
            return
        disk = None
        try:
            disk = tables.open_disk(self._path, "mode=rwc")
            with transaction(disk):
                tables.copy_overlay(self._overlay, disk)
            reading = tables.open_disk(self._path, "mode=ro")
        except sqlite3.Error:
            tables.close_all(disk)
            return
        # First what the reader looks into, then the end of the overlay: no look-up may fall between.
        former, self._reading = self._reading, reading
        self._reader.submit(tables.close_all, former)
        tables.close_all(self._disk, self._overlay)
        self._disk, self._overlay, self.problem = disk, None, None
        _log.warning("The catalogue %s can be written again.", self._path)

    # At start ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Open for writing, with a new database in the place of a bad one; raise what prevents it."""
        try:
            self._use("mode=rwc")
        except sqlite3.Error as error:
            if not tables.is_malformed(error):
                raise
            tables.set_aside(self._path)
            _log.warning("The catalogue %s was set aside (%s) and will be rebuilt.", self._path, error)
            self._use("mode=rwc")

    def _use(self, query: str) -> None:
        """Open both connections and load what is kept in memory; leave nothing open when it fails."""
        disk = reading = None
        is_writable = query == "mode=rwc"
        try:
            disk = tables.open_disk(self._path, query)
            reading = tables.open_disk(self._path, "mode=ro" if is_writable else query)
            if is_writable:  # a clock that ran ahead must not keep a file from eviction for ever
                disk.execute(tables.CLAMP_TIMES, (time.time(),))
            totals, generations, is_rebuilt = tables.kept_in_memory(disk)
        except BaseException:
            tables.close_all(reading, disk)
            raise
        self._disk, self._reading = disk, reading
        self.totals, self.generations, self.needs_rebuild = totals, generations, not is_rebuilt
