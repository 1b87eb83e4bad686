"""The catalogue's part about committed files: bytes, when each was last used, and what it is called.

A row may be lost in a power cut, or not be there yet after a kill; ``eviction`` finds the file then. Where a name is
unknown it is empty.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

from teepi.catalog import tables
from teepi.space import Candidate

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from teepi.catalog.tables import Row
    from teepi.model import FileRecord

_T = TypeVar("_T")
Names = tuple[str, str, str]
"""Index, project and file name."""


class FileTable(ABC):
    """Mixed into :class:`~teepi.catalog.Catalog`, which says in which thread and on which database things happen."""

    totals: tuple[int, int]
    """Number of files in the store and their bytes."""
    _overlay: sqlite3.Connection | None
    _disk: sqlite3.Connection | None
    _touched: dict[str, float]
    _writer: ThreadPoolExecutor

    @abstractmethod
    async def _on(self, thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        """Run ``work`` in ``thread``."""

    @abstractmethod
    async def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Change what can be changed, in the writer thread."""

    @abstractmethod
    async def _rows_of(self, query: str, *values: str | int) -> tuple[list[Row], list[Row]]:
        """Return the rows of the disk, and of what lies over it."""

    @abstractmethod
    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Change the disk, or what lies over it when the disk cannot be written."""

    @abstractmethod
    def _rows(self, connection: sqlite3.Connection | None, query: str, values: tuple[str | int, ...]) -> list[Row]:
        """Return the rows of one database, none where there is none."""

    # -- changing ------------------------------------------------------------------------------------

    def touch(self, sha256: str) -> None:
        """Note that the file was used just now; written by the next ``flush``."""
        self._touched[sha256] = time.time()

    def was_touched(self, sha256: str) -> bool:
        """Whether the file was used since the last ``flush``."""
        return sha256 in self._touched

    async def add_files(self, files: Sequence[tuple[str, int]], *, of: FileRecord | None = None) -> int:
        """Add files of the store, as sha256 in hex and bytes; return the bytes of those that were not there.

        ``of`` is what they are called.
        """
        wanted = list(files)
        names = ("", "", "") if of is None else (of.index, of.project, of.filename)

        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            now = time.time()
            added = [0, 0]
            for sha256, size in wanted:
                known = self._file_size(sha256)
                if known is None:
                    connection.execute(tables.PUT_FILE, (sha256, size, now, now, *names))
                    added[0] += 1
                    added[1] += size
                elif of is not None:
                    connection.execute(tables.NAME_FILE, (*names, sha256))
            return added[0], added[1]

        return await self._count(work)

    async def name_files(self, names: Iterable[tuple[str, Names]]) -> None:
        """Say what files are called that have no name yet, by sha256."""
        rows = [(*called, sha256) for sha256, called in names]
        await self._write(lambda connection: connection.executemany(tables.NAME_FILE, rows))

    async def remove_file(self, sha256: str) -> int | None:
        """Forget a file of the store and return its bytes, None when it had no row.

        What pages say of it stays known.
        """
        size: int | None = None

        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            nonlocal size
            size = self._file_size(sha256)
            if size is None:
                return 0, 0
            if connection is self._overlay:
                connection.execute(tables.PUT_FILE, (sha256, None, 0.0, 0.0, "", "", ""))
            else:
                connection.execute(tables.REMOVE_FILE, (sha256,))
            return -1, -size

        self._touched.pop(sha256, None)
        await self._count(work)
        return size

    async def note(self, name: str, value: str) -> None:
        """Keep a word of our own; a rebuilt catalogue has none."""
        await self._write(lambda connection: connection.execute(tables.PUT_META, (name, value)))

    # -- looking up ----------------------------------------------------------------------------------

    async def noted(self, name: str) -> str | None:
        """Return what :meth:`note` kept, or None."""
        older, newer = await self._rows_of(tables.META, name)
        return next((str(row[0]) for row in (*newer, *older)), None)

    async def files(
        self,
        *,
        after: tuple[float, str] = (-1.0, ""),
        most: int = tables.LARGEST_INTEGER,
        by_digest: bool = False,
    ) -> list[Candidate]:
        """Return files from the least recently used on (times of use as of the last ``flush``).

        ``after`` is time of use and sha256 of the last one seen, of which ``by_digest`` orders by the second alone.
        """
        query = tables.FILES_BY_DIGEST if by_digest else tables.FILES_BY_USE
        older, newer = await self._rows_of(query, *map(str, (*after, most)))
        if self._overlay is not None:  # of what both have, the overlay's holds; what was removed has no size there
            overlaid = await self._on(self._writer, lambda: self._rows(self._overlay, tables.FILE_NAMES, ()))
            names = {row[0] for row in overlaid}
            older = [row for row in older if row[0] not in names]
        rows = sorted((*older, *(row for row in newer if row[1] is not None)), key=lambda row: (row[2], row[0]))
        if by_digest:
            rows.sort()
        return [Candidate(*row) for row in rows[:most]]

    # -- in the writer thread --------------------------------------------------------------------------

    async def _count(self, work: Callable[[sqlite3.Connection], tuple[int, int]]) -> int:
        def counted() -> int:
            number, size = self._attempt(work)
            self.totals = (self.totals[0] + number, self.totals[1] + size)
            return size

        return await self._on(self._writer, counted)

    def _file_size(self, sha256: str) -> int | None:
        for connection in (self._overlay, self._disk):
            for row in self._rows(connection, tables.FILE_SIZE, (sha256,)):
                return None if row[0] is None else int(row[0])
        return None
