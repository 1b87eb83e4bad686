"""Rows and files of the data directory together: a row is never there without its file.

A file gets its name before its row is committed, and loses it after; what a crash leaves in between is a file without
a row, which the next start removes. All of that happens in the one thread that writes, so that nobody removes what
another is just about to use.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, TypeVar

from teepi.data import projects
from teepi.data.blobs import Blobs
from teepi.data.database import NAME, Database
from teepi.data.directory_lock import DirectoryLock
from teepi.errors import StoreError, Unavailable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from teepi.data.blobs import Incoming

_T = TypeVar("_T")

LOCK_WAIT_SECONDS: Final = 15.0  # a restart: the old process may still drain


class Archive:
    """A data directory, open and locked."""

    def __init__(self, root: Path, lock: DirectoryLock, database: Database, blobs: Blobs) -> None:
        """Use :meth:`open`."""
        self.root = root
        self.database = database
        self.blobs = blobs
        self._lock = lock

    @classmethod
    def open(cls, root: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Archive:
        """Lock and open the data directory, made if it is not there (blocking), and remove what a crash left.

        Raises :class:`StoreError` with a sentence, :class:`~teepi.errors.InUse` for the lock; nothing was changed then.
        """
        lock = DirectoryLock(root)
        try:
            try:
                root.mkdir(parents=True, exist_ok=True, mode=0o700)
                lock.take(wait_seconds)
                blobs = Blobs(root)
            except OSError as error:
                raise StoreError(
                    f"The data directory {root} cannot be used ({error.strerror}): give teepi one that it can write "
                    "with --data-dir."
                ) from error
            database = Database.open(root / NAME)
            try:
                blobs.sweep(set(database.read_now(projects.contents)))
            except (OSError, Unavailable) as error:
                database.close_now()
                raise StoreError(f"The data directory {root} cannot be read ({error}); look at the disk.") from error
        except BaseException:
            lock.close()
            raise
        return cls(root, lock, database, blobs)

    async def keep(self, incoming: Incoming, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work``, which writes the rows of a finished file, and keep that file: both or neither.

        Raises what ``work`` raises, and :class:`Unavailable` when the disk fails.
        """

        def both(connection: sqlite3.Connection) -> _T:
            result = work(connection)
            self.blobs.keep(incoming)
            return result

        def in_writer() -> _T:
            try:
                return self.database.write_now(both)
            except OSError as error:
                self._remove_unused([incoming.digests[0]])
                raise disk_failed(error) from error
            except Unavailable:  # the commit: the file has its name already
                self._remove_unused([incoming.digests[0]])
                raise

        return await self.database.in_writer(in_writer)

    def _remove_unused(self, candidates: Iterable[str]) -> None:
        """Remove the files of those sha256 that no row has, as far as the disk lets; the next start does the rest."""
        try:
            for sha256 in self.database.write_now(lambda c: projects.unused(c, candidates)):
                self.blobs.remove(sha256)
        except (OSError, Unavailable):
            return

    async def discard(self, work: Callable[[sqlite3.Connection], tuple[_T, Iterable[str]]]) -> _T:
        """Run ``work``, which deletes rows and returns the sha256 of their files; remove those that no row has now."""

        def deleted(connection: sqlite3.Connection) -> tuple[_T, list[str]]:
            result, candidates = work(connection)
            return result, projects.unused(connection, candidates)

        def in_writer() -> _T:
            result, unused = self.database.write_now(deleted)
            for sha256 in unused:
                try:
                    self.blobs.remove(sha256)
                except OSError:  # the next start removes it
                    continue
            return result

        return await self.database.in_writer(in_writer)

    async def close(self) -> None:
        """Wait for what runs, close, and give the lock up."""
        await self.database.close()
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
