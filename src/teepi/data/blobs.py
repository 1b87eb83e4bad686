"""Uploaded files on disk, each once whatever number of indexes have it: named by content, whole, synced, read-only.

``v1/files/ab/<sha256>`` holds them, ``v1/incoming/`` what is arriving. All methods block but :meth:`Blobs.open`, which
is a look-up. A file without a row is removed at the next start, a row without its file is never made. What has another
name than such a file is somebody else's and left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import threading
from typing import TYPE_CHECKING, BinaryIO, Final

from teepi.descriptor import Descriptor
from teepi.disk import make_directories, open_regular, sync, sync_directory
from teepi.store import CachedFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

LAYOUT: Final = "v1"
FILES: Final = f"{LAYOUT}/files"
INCOMING: Final = f"{LAYOUT}/incoming"
SHA256: Final = re.compile("[0-9a-f]{64}")


class Incoming:
    """A file that is arriving: hashed while it is written, synced by :meth:`finish`, gone with :meth:`abort`.

    Whoever waits for a write may leave before the thread that writes has ended: then the abort waits for that thread,
    for a descriptor that is closed under it may be another file's already.
    """

    def __init__(self, path: Path) -> None:
        """Make the file. Raises OSError."""
        self.path = path
        self.size = 0
        self.file: BinaryIO = open(path, "x+b", buffering=0)  # noqa: SIM115, PTH123 - closed by abort
        self.in_use = threading.Lock()
        """Held by a thread as long as it uses the file: :meth:`abort` waits for it, so that nobody ever writes to a
        descriptor that was closed, and may be another file's by then."""
        self._hashes = (hashlib.sha256(), hashlib.md5(usedforsecurity=False), hashlib.blake2b(digest_size=32))

    def write(self, data: bytes) -> None:
        """Append ``data``. Raises OSError."""
        with self.in_use:
            view = memoryview(data)
            while view:
                view = view[self.file.write(view) :]
            for each in self._hashes:
                each.update(data)
            self.size += len(data)

    @property
    def digests(self) -> tuple[str, str, str]:
        """sha256, md5 and blake2b (256 bits) of what was written, in hex."""
        sha256, md5, blake2b = (each.hexdigest() for each in self._hashes)
        return sha256, md5, blake2b

    def finish(self) -> None:
        """Make the bytes durable; :attr:`in_use` is the caller's to hold.

        Raises OSError; then it is given up, and never synced again.
        """
        os.fchmod(self.file.fileno(), 0o444)
        sync(self.file.fileno())

    def abort(self) -> None:
        """Close it, and remove it unless it was kept. Waits for whoever uses it."""
        with self.in_use:
            self.file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


class Blobs:
    """The files below one data directory."""

    def __init__(self, root: Path) -> None:
        """Touch nothing yet."""
        self._files = root / FILES
        self._incoming = root / INCOMING

    def make(self) -> None:
        """Make the directories. Raises OSError."""
        for directory in (self._files, self._incoming):
            make_directories(directory)

    def path(self, sha256: str) -> Path:
        """Return where the file with this digest lies."""
        return self._files / sha256[:2] / sha256

    def begin(self) -> Incoming:
        """Return a new file for what arrives. Raises OSError."""
        return Incoming(self._incoming / secrets.token_hex(16))

    def keep(self, incoming: Incoming) -> None:
        """Give a finished file its name, durably; one that is there already is left. Raises OSError."""
        path = self.path(incoming.digests[0])
        make_directories(path.parent)
        if not self._is_whole(path, incoming.size):
            incoming.path.rename(path)
        sync_directory(path.parent)

    @staticmethod
    def _is_whole(path: Path, size: int) -> bool:
        try:
            return path.lstat().st_size == size and path.is_file() and not path.is_symlink()
        except FileNotFoundError:
            return False

    def remove(self, sha256: str) -> None:
        """Remove a file that no row has any more. Raises OSError."""
        self.path(sha256).unlink(missing_ok=True)

    def open(self, sha256: str, size: int) -> CachedFile | None:
        """Open a file for one reader; None when it is not there, or is not what it should be."""
        try:
            fd = open_regular(self.path(sha256))
        except (FileNotFoundError, NotADirectoryError):
            return None
        status = os.fstat(fd)
        if status.st_size != size:
            os.close(fd)
            return None
        return CachedFile(Descriptor(fd), status, sha256, None)

    def all(self) -> Iterator[str]:
        """Yield the sha256 of every file. Raises OSError."""
        with os.scandir(self._files) as shelves:
            names = sorted(shelf.name for shelf in shelves if shelf.is_dir(follow_symlinks=False))
        for name in names:
            with os.scandir(self._files / name) as entries:
                yield from sorted(
                    entry.name
                    for entry in entries
                    if SHA256.fullmatch(entry.name)
                    and entry.name[:2] == name
                    and not entry.is_dir(follow_symlinks=False)
                )

    def arriving(self) -> Iterator[Path]:
        """Yield what is arriving, or was when a process died. Raises OSError."""
        with os.scandir(self._incoming) as entries:
            yield from (self._incoming / entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))

    def sweep(self, known: AbstractSet[str]) -> int:
        """Remove what an upload left that did not come to its end; return how many. With the lock only."""
        strays = list(self.arriving())
        strays += [self.path(sha256) for sha256 in self.all() if sha256 not in known]
        for path in strays:
            path.unlink(missing_ok=True)
        return len(strays)
