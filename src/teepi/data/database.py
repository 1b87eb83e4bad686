"""The database of the data directory: one thread that writes, one that reads, each with its connection.

A write is one transaction, synced when it returns; whatever goes wrong in it is rolled back and raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

from teepi.data.schema import MIGRATIONS, migrate, schema_of
from teepi.disk import sync_directory
from teepi.errors import DataUnavailable, StoreError, Unavailable
from teepi.tasks import in_executor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")

NAME: Final = "teepi.sqlite3"
_BUSY_MILLISECONDS: Final = 10_000  # a backup, or a command beside the server


_OF_THE_DISK: Final = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR")


class CannotWrite(StoreError):
    """The database may be sound, and its disk does not take anything."""


class Database:
    """The database at ``path``."""

    def __init__(self, path: Path, refusal: str | None = None) -> None:
        """Open nothing yet. ``refusal`` is what a write is answered with where nothing can be written."""
        self.path = path
        self._refusal = refusal
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="data-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="data-reader")

    @classmethod
    def open(cls, path: Path, *, may_begin: bool = True) -> Database:
        """Open or begin the database (blocking), bringing an older one up to date.

        Raises :class:`StoreError` when it cannot be used, :class:`CannotWrite` when that is for the disk's sake:
        nothing is set aside or begun anew here, unlike a cache. Without ``may_begin`` there must be one.
        """
        database = cls(path)
        try:
            if not (may_begin or is_begun(path)):
                raise StoreError(  # noqa: TRY301 - as every other
                    f"There are uploaded files beside {path}, but no database that knows them: nothing was touched; "
                    "bring a backup back with 'teepi data restore'."
                )
            if not path.exists():
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))  # it has password hashes
                sync_directory(path.parent)
            database._writing = connect(path)
            schema_of(database._writing, str(path))  # before anything is written into a newer one
            [mode] = database._writing.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise sqlite3.OperationalError(f"its journal mode is {mode}")  # noqa: TRY301 - as sqlite3 would
            migrate(database._writing, str(path))
            database._reading = connect(path)
            database._reading.execute("PRAGMA query_only = 1")
        except (sqlite3.Error, OSError) as error:
            database._end()
            kind = CannotWrite if _is_of_the_disk(error) else StoreError
            raise kind(_cannot_be_used(path, error)) from error
        except BaseException:
            database._end()
            raise
        return database

    @classmethod
    def open_to_read(cls, path: Path, refusal: str) -> Database:
        """Open a database that cannot be written (blocking). Raises :class:`StoreError`."""
        database = cls(path, refusal)
        try:
            database._reading = connect_to_read(path)
            if schema_of(database._reading, str(path)) < len(MIGRATIONS):
                raise StoreError(  # noqa: TRY301
                    f"The database {path} is of an older teepi and cannot be upgraded where it cannot be written: "
                    "let teepi write there."
                )
        except (sqlite3.Error, OSError) as error:
            database._end()
            raise StoreError(_cannot_be_used(path, error)) from error
        except BaseException:
            database._end()
            raise
        return database

    @classmethod
    def empty(cls, path: Path, refusal: str) -> Database:
        """Return one in memory that has nothing and takes nothing, where there is none on disk and none can be."""
        database = cls(path, refusal)
        database._reading = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        migrate(database._reading, ":memory:")
        database._reading.execute("PRAGMA query_only = 1")
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
        if self._refusal is not None:
            raise DataUnavailable(self._refusal)
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
        await asyncio.to_thread(self._end)

    def close_now(self) -> None:
        """:meth:`close`, blocking."""
        self._end()

    def _end(self) -> None:
        self._reader.shutdown()
        self._writer.shutdown()
        for connection in (self._reading, self._writing):
            if connection is not None:
                connection.close()
        self._reading = self._writing = None


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection whose transactions are begun by hand and synced. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for pragma in ("foreign_keys = 1", f"busy_timeout = {_BUSY_MILLISECONDS}", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Return a connection that changes nothing, also where nothing can be written. Raises sqlite3.Error."""
    try:
        return _reading(path, "mode=ro")
    except sqlite3.OperationalError:
        # Its log's index cannot be made on a disk that is read-only; without a log none is needed.
        if _size(path.with_name(path.name + "-wal")):
            raise
        return _reading(path, "mode=ro&immutable=1")


def _reading(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?{how}", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        connection.execute("PRAGMA query_only = 1")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opened no sooner
    except BaseException:
        connection.close()
        raise
    return connection


def is_begun(path: Path) -> bool:
    """Whether there is a database that teepi has put its tables into. Raises sqlite3.Error and OSError."""
    if not _size(path):
        return False
    with contextlib.closing(connect_to_read(path)) as connection:
        return bool(connection.execute("PRAGMA user_version").fetchone()[0])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_of_the_disk(error: sqlite3.Error | OSError) -> bool:
    name = getattr(error, "sqlite_errorname", None)
    return isinstance(error, OSError) or (name is not None and name.startswith(_OF_THE_DISK))


def _cannot_be_used(path: Path, error: sqlite3.Error | OSError) -> str:
    reason = error.strerror if isinstance(error, OSError) else error
    return (
        f"The database {path} cannot be used ({reason}): nothing was touched; look at the disk, or bring a backup "
        "back with 'teepi data restore'."
    )
