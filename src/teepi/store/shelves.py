"""The committed files as a whole: who reads them, what lies there, and how one goes.

``store.files`` opens and commits them. All methods block, except :meth:`Shelves.is_in_use`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from teepi.space import Space

log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[0-9a-f]{64}")
_HASH_STEP_BYTES: Final = 1 << 20


class Shelves:
    """``files/sha256/ab/<sha256>``, and ``damaged/`` for what did not keep its name's promise."""

    def __init__(self, files: Path, damaged: Path, space: Space) -> None:
        """Look after the files below ``files``, counted in ``space``."""
        self.gone: Callable[[str], None] | None = None
        """Called with the sha256, in any thread, when a file was set aside."""
        self._files = files
        self._damaged = damaged
        self._space = space
        self._readers: dict[str, int] = {}
        self._lock = threading.Lock()

    def path(self, sha256: str) -> Path:
        """Return where the file lies, or would."""
        return self._files / sha256[:2] / sha256

    # -- who reads -----------------------------------------------------------------------------------

    def opened(self, sha256: str) -> Callable[[], None]:
        """Count a reader; return what ends it."""
        with self._lock:
            self._readers[sha256] = self._readers.get(sha256, 0) + 1
        return lambda: self._closed(sha256)

    def _closed(self, sha256: str) -> None:
        with self._lock:
            self._readers[sha256] -= 1
            if not self._readers[sha256]:
                del self._readers[sha256]

    def is_in_use(self, sha256: str) -> bool:
        """Whether somebody reads the file."""
        return sha256 in self._readers

    # -- what lies there -----------------------------------------------------------------------------

    def files(self, *, newer_than: float | None = None, before: float | None = None) -> Iterator[tuple[str, int]]:
        """Yield (sha256, bytes) of every committed file; of those on shelves that changed after ``newer_than`` alone.

        A shelf changes when a file comes or goes: what was committed just before a kill is found without looking
        at all files. What was committed after ``before`` is left out.
        """
        for shelf in self._shelves():
            with contextlib.suppress(OSError):
                if newer_than is not None and shelf.stat().st_mtime < newer_than:
                    continue
                with os.scandir(shelf.path) as entries:
                    for entry in entries:
                        with contextlib.suppress(OSError):
                            if not (_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)):
                                continue
                            status = entry.stat(follow_symlinks=False)
                            if before is None or status.st_ctime < before:  # which a rename sets
                                yield entry.name, status.st_size

    def names(self) -> Iterator[str]:
        """Yield the sha256 of everything that stands under one, of whatever kind it is."""
        for shelf in self._shelves():
            with contextlib.suppress(OSError), os.scandir(shelf.path) as entries:
                yield from (entry.name for entry in entries if _NAME.fullmatch(entry.name))

    def strays(self) -> Iterator[tuple[Path, int]]:
        """Yield (path, bytes) of what is no file of the cache: set aside, or under a name that is no sha256."""
        with contextlib.suppress(OSError):
            for path in self._damaged.iterdir():
                yield path, _size(path)
        for shelf in self._shelves():
            with contextlib.suppress(OSError), os.scandir(shelf.path) as entries:
                for entry in entries:
                    if not _NAME.fullmatch(entry.name):
                        yield self._files / shelf.name / entry.name, _size(self._files / shelf.name / entry.name)

    def _shelves(self) -> Iterator[os.DirEntry[str]]:
        with contextlib.suppress(OSError), os.scandir(self._files) as shelves:
            yield from (shelf for shelf in shelves if shelf.is_dir(follow_symlinks=False))

    # -- how one goes --------------------------------------------------------------------------------

    def remove(self, sha256: str, *, even_in_use: bool = False) -> int | None:
        """Delete a file and return its bytes, 0 when there was none; None when somebody reads it.

        Who opens it in this moment either reads on by descriptor or finds none, and it is fetched anew.
        """
        if self.is_in_use(sha256) and not even_in_use:
            return None
        path = self.path(sha256)
        try:
            size = path.lstat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        except OSError as error:
            log.warning("The cached file %s cannot be deleted: %s.", sha256, error.strerror)
            return None
        self._space.found(-size)
        return size

    def remove_stray(self, path: str) -> int | None:
        """Delete something that :meth:`strays` has found; return its bytes, None when it cannot be deleted."""
        size = _size(Path(path))
        try:
            if Path(path).is_dir() and not Path(path).is_symlink():
                shutil.rmtree(path)
            else:
                Path(path).unlink()
        except OSError as error:
            log.warning("%s cannot be deleted: %s.", path, error.strerror)
            return None
        if Path(path).parent == self._damaged:
            self._space.grown(-size)
        return size

    def set_aside(self, sha256: str, reason: str, *, inode: int | None = None) -> None:
        """Move what stands under the name ``sha256`` out of the way, so that the file is fetched anew.

        ``inode`` is that of what was looked at: another one has come since and is left alone.
        """
        path = self.path(sha256)
        try:
            status = path.lstat()
            if inode not in (None, status.st_ino):
                return
            path.rename(self._damaged / f"{sha256}.{time.time_ns()}")
        except OSError:
            return
        log.warning("The cached file %s is damaged (%s); it is set aside and fetched anew.", sha256, reason)
        if stat.S_ISREG(status.st_mode):
            self._space.found(-status.st_size)
            self._space.grown(status.st_size)
        if self.gone is not None:
            self.gone(sha256)

    # -- whether one keeps its promise ---------------------------------------------------------------

    def check(self, sha256: str, pause: Callable[[int], None]) -> tuple[str | None, int]:
        """Hash a file again. Return what is wrong with it, if anything, and how many bytes were read.

        What is wrong is set aside. ``pause`` is called with each number of bytes read: it may wait, or raise. The
        pages that only this brought into memory are given back, so that a check does not push out what is in use.
        """
        path = self.path(sha256)
        read = 0
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:  # evicted meanwhile
            return None, 0
        except OSError as error:
            reason = error.strerror or "unreadable"
            self.set_aside(sha256, reason)
            return reason, 0
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                problem = "wrong kind"
            else:
                digest = hashlib.sha256()
                try:
                    while data := os.pread(fd, _HASH_STEP_BYTES, read):
                        digest.update(data)
                        if hasattr(os, "posix_fadvise"):
                            os.posix_fadvise(fd, read, len(data), os.POSIX_FADV_DONTNEED)
                        read += len(data)
                        pause(len(data))
                except OSError as error:
                    problem = error.strerror or "unreadable"
                else:
                    problem = "" if digest.hexdigest() == sha256 else "wrong bytes"
            if not problem:
                return None, read
            self.set_aside(sha256, problem, inode=status.st_ino)
            return problem, read
        finally:
            os.close(fd)


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a directory."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size
        return sum(_size(inner) for inner in path.iterdir())
    return 0
