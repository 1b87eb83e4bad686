"""Uploaded files on disk, each once whatever number of indexes have it: named by content, whole, synced, read-only.

``v1/files/ab/<sha256>`` holds them, ``v1/incoming/`` what is arriving. All methods block but :meth:`Blobs.open`, which
is a look-up. A file without a row is removed at the next start, a row without its file is never made.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
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


class Incoming:
    """A file that is arriving: hashed while it is written, synced by :meth:`finish`, gone with :meth:`abort`."""

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
        """Make the bytes durable; :attr:`in_use` is the caller's to hold. Raises OSError."""
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
        """Make the directories. Raises OSError."""
        self._files = root / LAYOUT / "files"
        self._incoming = root / LAYOUT / "incoming"
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

    def all(self) -> Iterator[tuple[str, int]]:
        """Yield sha256 and bytes of every file. Raises OSError."""
        for shelf in sorted(self._files.iterdir()):
            for path in sorted(shelf.iterdir()):
                yield path.name, path.lstat().st_size

    def sweep(self, known: AbstractSet[str]) -> int:
        """Remove what an upload left that did not come to its end; return how many. With the lock only."""
        strays = list(self._incoming.iterdir())
        strays += [self.path(sha256) for sha256, _ in self.all() if sha256 not in known]
        for path in strays:
            path.unlink(missing_ok=True)
        return len(strays)
