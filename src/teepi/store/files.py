"""Files in the cache directory: open what is committed, begin or resume a partial, commit it.

``v1/files/sha256/ab/<sha256>`` holds whole, verified, read-only files: a name there is a promise.
``v1/partial/<key>`` holds what is landing. All methods block; callers run them in :attr:`Store.landing` or
:attr:`Store.committing`, except :meth:`Store.open_cached`, which is a look-up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from teepi.descriptor import Descriptor
from teepi.disk import (
    free_bytes,
    make_directories,
    open_regular,
    read_regular,
    replace_file,
    sync,
    sync_directory,
)
from teepi.errors import StoreError
from teepi.readable import Landed
from teepi.space import Space
from teepi.store.partial import Partial, PartialNotes, boot_id, left_behind, remove_idle, remove_stray_notes
from teepi.store.pins import Pins
from teepi.store.shelves import Shelves

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from teepi.model import FileKey

log = logging.getLogger(__name__)

LAYOUT: Final = "v1"
LOG_BYTES: Final = 4_300_000
"""SQLite's log is moved into the database at 1000 pages of 4 KiB with a head each, and keeps its length then."""
_LOCK_WAIT_SECONDS: Final = 15.0  # a restart: the old process may still drain
_LOCK_POLL_SECONDS: Final = 0.1

_DAY_SECONDS: Final = 86400.0
_PROBE_BYTES: Final = 4096  # a block: an empty file fits on a full disk


class CachedFile(Landed):
    """A file of the cache, open, with what its URL-keyed sidecar says of it."""

    __slots__ = ("etag", "sha256")

    def __init__(self, file: Descriptor, status: os.stat_result, sha256: str, etag: str | None) -> None:
        """Take over the hold on ``file``; ``etag`` is upstream's when the key is not the digest."""
        super().__init__(file, status.st_size, status.st_mtime)
        self.sha256 = sha256
        self.etag = etag


@dataclass(frozen=True, slots=True)
class DiskState:
    """What :meth:`Store.probe` found."""

    free_bytes: int
    problem: str | None
    """One sentence when nothing can be written, else None."""


class Store:
    """The cache directory."""

    def __init__(self, root: Path) -> None:
        """Make the layout below ``root`` as far as the disk allows.

        A directory that cannot be written is no error: :attr:`problem` says so and every :meth:`begin` raises.
        """
        self.root = root
        self.problem: str | None = None
        """One sentence when nothing can be written, else None."""
        self._layout = root / LAYOUT
        self._files = self._layout / "files" / "sha256"
        self._aliases = self._layout / "files" / "url"
        self._partials = self._layout / "partial"
        self._damaged = self._layout / "damaged"
        self._history = root / "history.json"
        self.space = Space()
        """What the cache holds and may hold; ``eviction`` sets its limits."""
        self.make_room: Callable[[OSError], Awaitable[bool]] | None = None
        """Evicts after a full disk or :class:`~teepi.space.NoRoom`; says whether another try is worth it."""
        self.shelves = Shelves(self._files, self._damaged, self.space)
        self.pins = Pins(self._layout / "pins.json")
        self._boot_id = boot_id()
        # Of its own: a disk that hangs takes this thread and no other.
        self.probing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="probing")
        self._lock_fd = -1
        self._closed = threading.Event()
        # Hashing and writing release the GIL; more threads than that only add switches.
        self.landing = ThreadPoolExecutor(max_workers=4, thread_name_prefix="landing")
        # Apart from landing, since one fdatasync may take seconds on a slow disk.
        self.committing = ThreadPoolExecutor(max_workers=4, thread_name_prefix="committing")
        try:
            self._make_layout()
            if not os.access(self._partials, os.W_OK):
                self.problem = f"The cache directory {root} cannot be written; teepi serves what it holds."
        except OSError as error:
            self.problem = f"The cache directory {root} cannot be written ({error.strerror}); nothing new is cached."

    def _make_layout(self) -> None:
        for directory in (self._files, self._aliases, self._partials, self._damaged):
            make_directories(directory)

    @property
    def catalog_path(self) -> Path:
        """Where the catalogue lives."""
        return self.root / "catalog.sqlite3"

    @property
    def search_path(self) -> Path:
        """Where the database lives that is searched."""
        return self.root / "search.sqlite3"

    @property
    def lists_path(self) -> Path:
        """Where upstream's project lists lie."""
        return self._layout / "lists"

    @property
    def legacy_path(self) -> Path:
        """Where upstream's legacy JSON documents lie."""
        return self._layout / "legacy"

    @property
    def metadata_path(self) -> Path:
        """Where the core metadata lies that was read out of wheels."""
        return self._layout / "metadata"

    @property
    def pages_path(self) -> Path:
        """Where upstream's pages are kept."""
        return self._layout / "pages"

    @property
    def layout_path(self) -> Path:
        """Where everything lies that has a version."""
        return self._layout

    def free_bytes(self) -> int:
        """Return what may still be written on the disk. Raises OSError."""
        return free_bytes(self.root)

    def other_bytes(self) -> int:
        """Return the bytes of everything that is neither a committed file nor a partial.

        The catalogue's log is counted at what it grows to between two measurements.
        """
        skipped = {self._files, self._partials}
        total = LOG_BYTES
        with contextlib.suppress(OSError):
            total -= min(LOG_BYTES, self.catalog_path.with_name(self.catalog_path.name + "-wal").stat().st_size)
        for directory, names, files in os.walk(self.root):
            here = self.root / directory
            names[:] = [name for name in names if here / name not in skipped]
            for name in files:
                with contextlib.suppress(OSError):
                    total += (here / name).lstat().st_size
        return total

    # -- one process ---------------------------------------------------------------------------------

    def lock(self, wait_seconds: float = _LOCK_WAIT_SECONDS) -> None:
        """Make this the only process on the directory, waiting for another one to leave.

        Raises :class:`StoreError` when it does not. A directory that cannot be written needs no lock.
        """
        path = self.root / "lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return
        deadline = time.monotonic() + wait_seconds
        said = False
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                    os.close(fd)  # a file system without locks
                    log.warning("The cache directory %s cannot be locked: %s.", self.root, error.strerror)
                    return
                if time.monotonic() >= deadline or self._closed.is_set():
                    os.close(fd)
                    msg = (
                        f"Another teepi uses the cache directory {self.root}: stop it, or give this one "
                        "a directory of its own with --cache-dir."
                    )
                    raise StoreError(msg) from None
                if not said:
                    log.warning("Another teepi uses %s; waiting up to %.0f s for it to leave.", path, wait_seconds)
                    said = True
                self._closed.wait(_LOCK_POLL_SECONDS)
            else:
                self._lock_fd = fd
                return

    def close(self) -> None:
        """End the threads and give up the lock, or the waiting for it."""
        self._closed.set()
        self.landing.shutdown()
        self.committing.shutdown()
        self.probing.shutdown(wait=False)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def was_emptied(self) -> bool:
        """Whether somebody deleted what is in the directory, the lock included, or put another in its place."""
        if self._lock_fd < 0:
            return False
        try:
            return (self.root / "lock").stat().st_ino != os.fstat(self._lock_fd).st_ino
        except FileNotFoundError:
            return True
        except OSError:
            return False

    # -- the disk ------------------------------------------------------------------------------------

    def read_history(self) -> bytes | None:
        """Return what :meth:`write_history` wrote. Raises OSError."""
        try:
            return self._history.read_bytes()
        except FileNotFoundError:
            return None

    def write_history(self, data: bytes) -> None:
        """Keep the history of hits and bytes. Raises OSError."""
        replace_file(self._history, data)

    def probe(self, low_space_bytes: int) -> DiskState:
        """Try whether the directory takes a file; less than ``low_space_bytes`` free is a problem as well."""
        path = self._partials / ".probe"
        free = 0
        try:
            status = os.statvfs(self.root)
            free = status.f_bavail * status.f_frsize
            try:
                path.write_bytes(bytes(_PROBE_BYTES))
            finally:
                path.unlink(missing_ok=True)
        except OSError as error:
            return DiskState(free, f"The cache directory {self.root} cannot be written ({error.strerror}).")
        for directory in (self._files, self._partials):
            if not (directory.is_dir() and os.access(directory, os.W_OK)):
                return DiskState(free, f"{directory} is no directory that teepi can write: nothing new is cached.")
        if free < low_space_bytes:
            return DiskState(free, f"The disk of the cache directory {self.root} has only {free >> 20} MiB free.")
        return DiskState(free, None)

    # -- cached files --------------------------------------------------------------------------------

    def _alias_path(self, key: FileKey) -> Path:
        name = key.value.removeprefix("url:")
        return self._aliases / name[:2] / f"{name}.json"

    def open_cached(self, key: FileKey, size: int | None = None) -> CachedFile | None:
        """Open the committed file of ``key``, or return None. ``size`` in bytes is checked when given.

        A file of the wrong size or kind is set aside, so that it is fetched anew. Opening is the look-up
        (some microseconds) and may run on the event loop.
        """
        sha256, etag = key.sha256, None
        if sha256 is None:
            try:
                alias = json.loads(read_regular(self._alias_path(key)))
                sha256, etag, size = alias["sha256"], alias.get("etag"), alias["size"]
            except (OSError, ValueError, KeyError, TypeError):
                return None
        path = self.shelves.path(str(sha256))
        try:
            fd = open_regular(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise
            self.set_aside(str(sha256), error.strerror or "unreadable")
            return None
        status = os.fstat(fd)
        if size is not None and status.st_size != size:
            os.close(fd)
            self.set_aside(str(sha256), "wrong size")
            return None
        closed = self.shelves.opened(str(sha256))
        return CachedFile(Descriptor(fd, closed), status, str(sha256), etag)

    def set_aside(self, sha256: str, reason: str) -> None:
        """Move what stands under the name ``sha256`` out of the way, so that the file is fetched anew."""
        self.shelves.set_aside(sha256, reason)

    def cached_files(self) -> Iterator[tuple[str, int]]:
        """Yield (sha256, bytes) of every committed file, for rebuilding the catalogue."""
        return self.shelves.files()

    def sha256_of(self, key: FileKey) -> str | None:
        """Return the digest of the cached file of ``key``, None when there is none."""
        if key.sha256 is not None:
            return key.sha256
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            return str(json.loads(self._alias_path(key).read_bytes())["sha256"])
        return None

    # -- partial, then commit ------------------------------------------------------------------------

    def resume(self, key: FileKey, digest: str | None) -> tuple[Partial, PartialNotes] | None:
        """Open the partial that an earlier fetch of ``key`` left, with its notes; None when none is usable.

        ``digest`` is ``algorithm=hex`` as the index gives it now; a partial of another one is dropped.
        """
        return Partial.reopen(self._partials / key.slug, digest, self._boot_id, self.space)

    def begin(self, key: FileKey, notes: PartialNotes) -> Partial:
        """Begin a partial for ``key`` on a new inode. Raises OSError when the disk does not take it."""
        path = self._partials / key.slug
        try:
            return Partial.create(path, notes, self._boot_id, self.space)
        except FileNotFoundError:  # somebody has emptied the directory
            self._make_layout()
            return Partial.create(path, notes, self._boot_id, self.space)

    def commit(self, key: FileKey, partial: Partial, sha256: str, *, last_modified: str | None) -> None:
        """Make the whole, verified ``partial`` a file of the cache, in the order that survives a power cut.

        fdatasync, rename, fsync of the directory. Raises OSError: then nothing is committed, and the
        descriptor must not be synced again (a second fsync would claim success).
        """
        fd = partial.descriptor.fd
        path = self.shelves.path(sha256)
        make_directories(path.parent)
        sync(fd)
        if path.is_dir() and not path.is_symlink():
            self.set_aside(sha256, "a directory")
        replaced = 0
        with contextlib.suppress(OSError):
            replaced = path.lstat().st_size
        partial.path.rename(path)
        partial.committed(replaced)
        # Not before: after a crash a partial that is read-only, or as old as upstream's file, is not resumed.
        with contextlib.suppress(OSError):
            os.fchmod(fd, 0o444)
            if (seconds := _seconds(last_modified)) is not None:
                os.utime(fd, (seconds, seconds))
        sync_directory(path.parent)
        partial.forget_notes()
        if key.sha256 is None:
            head = partial.notes
            alias = {"key": key.value, "sha256": sha256, "size": partial.length, "etag": head.etag, "url": head.url}
            target = self._alias_path(key)
            make_directories(target.parent)
            replace_file(target, json.dumps(alias).encode())

    def count_partials(self) -> None:
        """Count what earlier downloads have left; call it once, with the lock."""
        for path, size, _ in left_behind(self._partials):
            self.space.settle(path.name, size)

    def idle_partials(self) -> list[tuple[str, int, float]]:
        """Return name, bytes and time of the last write of each partial; some may be written right now."""
        return [(path.name, size, used_at) for path, size, used_at in left_behind(self._partials)]

    def remove_partial(self, name: str) -> int:
        """Delete a partial with its notes, unless it is being written; return the bytes that are free now."""
        return remove_idle(self._partials / name, self.space)

    def remove_old_partials(self, max_age_days: float) -> int:
        """Delete partials, and notes without one, that no one touched for ``max_age_days``; return how many."""
        oldest = time.time() - max_age_days * _DAY_SECONDS
        idle = [name for name, _, used_at in self.idle_partials() if used_at < oldest]
        return sum(self.remove_partial(name) >= 0 for name in idle) + remove_stray_notes(self._partials, oldest)


def _seconds(http_date: str | None) -> float | None:
    if http_date is None:
        return None
    try:
        return parsedate_to_datetime(http_date).timestamp()
    except (ValueError, OverflowError):
        return None
