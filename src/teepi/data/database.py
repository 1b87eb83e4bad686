"""The database of the data directory: one thread that writes, one that reads, each with its connection.

A write is one transaction, synced when it returns; whatever goes wrong in it is rolled back and raised.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from teepi.data.schema import migrate
from teepi.errors import StoreError, Unavailable
from teepi.tasks import in_executor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")

NAME: Final = "teepi.sqlite3"
_BUSY_MILLISECONDS: Final = 10_000  # a backup, or a command beside the server


class Database:
    """The database at ``path``."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self.path = path
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="data-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="data-reader")

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open or begin the database (blocking), bringing an older one up to date.

        Raises :class:`StoreError` when it cannot be used: nothing is set aside or begun anew here, unlike a cache.
        """
        database = cls(path)
        try:
            if not path.exists():
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))  # it has password hashes
            database._writing = connect(path)
            [mode] = database._writing.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise sqlite3.OperationalError(f"its journal mode is {mode}")  # noqa: TRY301 - as sqlite3 would
            migrate(database._writing, str(path))
            database._reading = connect(path)
            database._reading.execute("PRAGMA query_only = 1")
        except (sqlite3.Error, OSError) as error:
            database._end()
            raise StoreError(
                f"The database {path} cannot be used ({error}): nothing was touched; look at the disk, or bring a "
                "backup back with 'teepi data restore'."
            ) from error
        except BaseException:
            database._end()
            raise
        return database

    async def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Return what ``work`` reads, of one moment. Raises :class:`Unavailable` when the disk fails."""
        return await in_executor(self._reader, self.read_now, work)

    async def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Return what ``work`` returns once what it wrote is on disk. Raises what it raises: then nothing is written.

        :class:`Unavailable` when the disk fails.
        """
        return await in_executor(self._writer, self.write_now, work)

    async def in_writer(self, work: Callable[[], _T]) -> _T:
        """Run ``work``, which blocks and may call :meth:`write_now`, with no other write beside it."""
        return await in_executor(self._writer, work)

    def read_now(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """:meth:`read`, blocking; in one thread at a time."""
        if self._reading is None:
            raise Unavailable("teepi is stopping; try again in a moment.")
        return self._within(self._reading, "BEGIN", work)

    def write_now(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """:meth:`write`, blocking; in one thread at a time."""
        if self._writing is None:
            raise Unavailable("teepi is stopping; try again in a moment.")
        return self._within(self._writing, "BEGIN IMMEDIATE", work)

    def _within(self, connection: sqlite3.Connection, begin: str, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            connection.execute(begin)
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.DatabaseError as error:
            if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
                raise
            raise Unavailable(f"The database of teepi's data directory failed ({error}); try again later.") from error
        return result

    async def close(self) -> None:
        """Wait for what runs and close."""
        await in_executor(self._writer, self._end)

    def close_now(self) -> None:
        """:meth:`close`, blocking."""
        self._end()

    def _end(self) -> None:
        self._reader.shutdown()
        for connection in (self._reading, self._writing):
            if connection is not None:
                connection.close()
        self._reading = self._writing = None
        self._writer.shutdown(wait=False)


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection whose transactions are begun by hand and synced. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for pragma in ("foreign_keys = 1", f"busy_timeout = {_BUSY_MILLISECONDS}", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
