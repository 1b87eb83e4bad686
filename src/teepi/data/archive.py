"""Rows and files of the data directory together: a row is never there without its file.

A file gets its name before its row is committed, and loses it after; what a crash leaves in between is a file without
a row, which the next start removes. All of that happens in the one thread that writes, so that nobody removes what
another is just about to use.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from teepi.data import projects
from teepi.data.blobs import Blobs
from teepi.data.database import NAME, CannotWrite, Database, is_begun
from teepi.data.directory_lock import DirectoryLock
from teepi.disk import make_directories
from teepi.errors import StoreError, TeepiError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from teepi.data.blobs import Incoming

_T = TypeVar("_T")

LOCK_WAIT_SECONDS: Final = 15.0  # a restart: the old process may still drain
_LATELY_SECONDS: Final = 600.0
RESTORING: Final = "restoring-"
"""Before the name of what a restore has not put in its place yet."""


class Archive:
    """A data directory."""

    def __init__(self, root: Path) -> None:
        """Touch nothing yet; :meth:`open` must follow."""
        self.root = root
        self.blobs = Blobs(root)
        self.problem: str | None = None
        """One sentence when nothing can be written, else None."""
        self.missing: str | None = None
        """Why there is none and none can be made, else None: there are no private indexes then."""
        self._failure: tuple[float, str] | None = None
        self._database: Database | None = None
        self._lock = DirectoryLock(root)
        self._alone = threading.Lock()

    @property
    def database(self) -> Database:
        """The rows, once open."""
        if self._database is None:
            raise RuntimeError("the data directory is not open")
        return self._database

    def failed(self, error: OSError) -> Unavailable:
        """Return what a client is told when an upload cannot be written, and note it."""
        answer = disk_failed(error)
        self._note(answer)
        return answer

    def _note(self, answer: Unavailable) -> None:
        self._failure = time.monotonic(), f"An upload failed: {answer.message}"

    def trouble(self) -> str | None:
        """Return :attr:`problem`, or a sentence when an upload failed lately and none has been kept since."""
        if self.problem is None and self._failure is not None:
            failed_at, sentence = self._failure
            return sentence if time.monotonic() - failed_at < _LATELY_SECONDS else None
        return self.problem

    def open(self, wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        """Lock and open the data directory, made if it is not there (blocking), and remove what a crash left.

        One that cannot be written is opened to read, and where none is and none can be made, it is as if empty:
        :attr:`problem` says so. Raises :class:`StoreError` with a sentence for what may hold private indexes and
        cannot be used, :class:`~teepi.errors.InUse` for the lock; nothing was changed then.
        """
        with self._alone:
            try:
                self._database = self._open(wait_seconds)
            except BaseException:
                self._lock.close()
                raise

    def _open(self, wait_seconds: float) -> Database:
        path = self.root / NAME
        try:
            make_directories(self.root, mode=0o700)
            if not self._lock.take(wait_seconds):
                return self._open_to_read(os.strerror(errno.EROFS))
            for left in self.root.glob(RESTORING + "*"):
                if not path.exists():
                    raise StoreError(
                        f"A restore of the data directory {self.root} did not come to its end: run 'teepi data "
                        "restore' again, with --force."
                    )
                shutil.rmtree(left)  # it had not begun to move anything, or had ended
            self.blobs.make()
            has_files = next(self.blobs.all(), None) is not None
        except OSError as error:
            return self._open_to_read(os.strerror(error.errno or 0))
        try:
            database = Database.open(path, may_begin=not has_files)
        except CannotWrite as error:
            cause = error.__cause__
            return self._open_to_read(
                os.strerror(cause.errno or 0) if isinstance(cause, OSError) else str(cause), refused=error
            )
        try:
            self.blobs.sweep(set(database.read_now(projects.contents)))
        except (OSError, Unavailable, sqlite3.Error) as error:
            database.close_now()
            raise StoreError(f"The data directory {self.root} cannot be read ({error}); look at the disk.") from error
        return database

    def _open_to_read(self, reason: str, *, refused: StoreError | None = None) -> Database:
        """Return what can be had where nothing can be written, for ``reason``."""
        path = self.root / NAME
        try:
            is_there = is_begun(path)
        except (OSError, sqlite3.Error) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise refused or StoreError(
                f"The data directory {self.root} cannot be used ({why}): it may hold private indexes, so teepi does "
                "not go on without; let teepi read it, or give it another with --data-dir."
            ) from error
        if is_there:
            self.problem = (
                f"The data directory {self.root} cannot be written ({reason}): private indexes can be read, and "
                "nothing can be uploaded or changed until teepi is restarted and can."
            )
            return Database.open_to_read(path, self.problem)
        self.missing = reason
        self.problem = (
            f"The data directory {self.root} cannot be made or written ({reason}): teepi has no private indexes, and "
            "takes no upload; let teepi write there, or give it another with --data-dir, and restart it."
        )
        return Database.empty(path, self.problem)

    async def keep(self, incoming: Incoming, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work``, which writes the rows of a finished file, and keep that file: both or neither.

        Raises what ``work`` raises, and :class:`Unavailable` when the disk fails. When it is the database that cannot
        sync, its rows may be there after a crash all the same: so the file stays until the next start, which knows.
        """

        def both(connection: sqlite3.Connection) -> _T:
            result = work(connection)
            self.blobs.keep(incoming)
            return result

        def in_writer() -> _T:
            try:
                result = self.database.write_now(both)
            except OSError as error:  # of the file
                self._remove([incoming.digests[0]])
                raise self.failed(error) from error
            except Unavailable as error:  # of the commit: the file has its name already
                self._remove([incoming.digests[0]])
                self._note(error)
                raise
            self._failure = None
            return result

        return await self.database.in_writer(in_writer)

    def _remove(self, candidates: list[str]) -> None:
        """Remove those files that no row has, as far as the disk lets; the next start removes the rest."""
        with contextlib.suppress(TeepiError):
            for sha256 in self.database.write_now(lambda connection: projects.unused(connection, candidates)):
                with contextlib.suppress(OSError):
                    self.blobs.remove(sha256)

    async def discard(self, work: Callable[[sqlite3.Connection], tuple[_T, Iterable[str]]]) -> _T:
        """Run ``work``, which deletes rows and returns the sha256 of their files; remove those that no row has now."""

        def deleted(connection: sqlite3.Connection) -> tuple[_T, list[str]]:
            result, candidates = work(connection)
            return result, projects.unused(connection, candidates)

        def in_writer() -> _T:
            result, unused = self.database.write_now(deleted)
            for sha256 in unused:
                with contextlib.suppress(OSError):  # the next start removes it
                    self.blobs.remove(sha256)
            return result

        return await self.database.in_writer(in_writer)

    async def close(self) -> None:
        """Wait for what runs, close, and give the lock up, or the waiting for it."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """:meth:`close`, blocking."""
        self._lock.stop_waiting()
        with self._alone:
            if self._database is not None:
                self._database.close_now()
            self._lock.close()


def disk_failed(error: OSError) -> Unavailable:
    """Return what a client is told when an upload cannot be written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return Unavailable(
            "The disk of teepi's data directory is full: nothing was stored; make room and upload again."
        )
    return Unavailable(
        f"teepi's data directory cannot be written ({os.strerror(error.errno or 0)}): nothing was stored."
    )
