"""A file that is landing: an exclusive partial with notes that let a later process resume it.

Only ``store.files`` makes these. The notes ("sidecar") are renamed into place before the first
byte; the boot id tells a crash of the process (the page cache survives) from a power cut (holes are possible).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from teepi.descriptor import Descriptor
from teepi.disk import free_bytes, open_regular, read_regular, replace_file, sync, write_all
from teepi.space import STEP_BYTES, NoRoom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from teepi.space import Space

_NOTES_VERSION: Final = 1
_HASH_STEP_BYTES: Final = 1 << 20


def boot_id() -> str | None:
    """Return what names this boot of the machine, None where the system has no such thing."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # macOS
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, check=True, timeout=2, text=True
        )
        return done.stdout.strip() or None
    return None


@dataclass(frozen=True, slots=True)
class PartialNotes:
    """What must be known to resume: stored as JSON beside the partial."""

    url: str
    digest: str | None
    """``algorithm=hex``, the digest that decides."""
    total: int | None
    etag: str | None
    last_modified: str | None
    immutable: bool = False
    boot_id: str | None = None
    synced_bytes: int = 0
    """Bytes that a clean stop has synced: good even after a power cut."""


class Updatable(Protocol):
    """A hash of any kind."""

    def update(self, data: bytes, /) -> None:
        """Add the next bytes."""


class Partial:
    """An open partial; its methods block and raise OSError. :meth:`release` it when done."""

    def __init__(self, path: Path, fd: int, length: int, notes: PartialNotes, space: Space) -> None:
        """Own ``fd``, of which the first ``length`` bytes are good and counted in ``space``."""
        self._space = space
        self._left: int | None = None
        self.path = path
        self.descriptor = Descriptor(fd)
        self.length = length
        self.notes = notes

    @classmethod
    def create(cls, path: Path, notes: PartialNotes, boot: str | None, space: Space) -> Partial:
        """Begin anew on a new inode: slow readers may still read the one of a failed fetch."""
        _remove(path)
        space.settle(path.name, 0)
        space.reserve(path.name, notes.total or 0, free_bytes(path.parent))
        notes = replace(notes, boot_id=boot, synced_bytes=0)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError:
            space.settle(path.name, 0)
            raise
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            replace_file(_notes_path(path), _encode(notes), durable=False)
        except OSError:
            os.close(fd)
            _remove(path)
            space.settle(path.name, 0)
            raise
        return cls(path, fd, 0, notes, space)

    @classmethod
    def reopen(
        cls, path: Path, digest: str | None, boot: str | None, space: Space
    ) -> tuple[Partial, PartialNotes] | None:
        """Open what an earlier fetch left. None, and nothing left behind, when it cannot be trusted.

        Raises :class:`~teepi.space.NoRoom` when the rest of it cannot be reserved; then it stays as it is.
        """
        try:
            fd = open_regular(path, os.O_RDWR)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(fd)
            notes = _decode(read_regular(_notes_path(path)))
            length = status.st_size if boot is not None and notes.boot_id == boot else notes.synced_bytes
            if (
                notes.digest != digest
                or not 0 < length <= status.st_size
                or (notes.total is not None and length > notes.total)
            ):
                raise ValueError  # noqa: TRY301 - one undo path
            if length < status.st_size:
                os.ftruncate(fd, length)
            if notes.boot_id != boot or notes.synced_bytes:
                # New bytes follow that this boot's page cache holds; what was synced stays so.
                notes = replace(notes, boot_id=boot)
                replace_file(_notes_path(path), _encode(notes), durable=False)
        except BlockingIOError:
            os.close(fd)  # another process leads this partial
            return None
        except (OSError, ValueError, KeyError, TypeError):
            os.close(fd)
            with contextlib.suppress(OSError):
                _remove(path)
                space.settle(path.name, 0)
            return None
        space.settle(path.name, length)
        try:
            space.reserve(path.name, notes.total or 0, free_bytes(path.parent))
        except OSError:
            os.close(fd)
            raise
        return cls(path, fd, length, notes, space), notes

    def append(self, data: bytes) -> None:
        """Write ``data`` at the end. After an error the length is what it was before.

        Raises OSError, of class :class:`~teepi.space.NoRoom` when the cache may not grow so far.
        """
        stop = self.length + len(data)
        if stop > self._space.held(self.path.name):  # of unknown size
            self._reserve(stop)
        write_all(self.descriptor.fd, data, self.length)
        self.length = stop
        self._space.wrote(self.path.name, stop)

    def _reserve(self, stop: int) -> None:
        free = free_bytes(self.path.parent)
        try:
            self._space.reserve(self.path.name, stop + STEP_BYTES, free)
        except NoRoom:
            self._space.reserve(self.path.name, stop, free)

    def hash_into(self, hasher: Updatable) -> None:
        """Feed the good bytes to ``hasher``."""
        offset = 0
        while offset < self.length:
            data = os.pread(self.descriptor.fd, min(_HASH_STEP_BYTES, self.length - offset), offset)
            if not data:
                msg = f"{self.path.name} is shorter than it was"
                raise OSError(msg)
            hasher.update(data)
            offset += len(data)

    def keep(self) -> None:
        """Sync for a clean stop, so that even after a power cut a later process resumes.

        Raises OSError. When the sync failed nothing is kept: pages that were lost may read as good until evicted.
        """
        try:
            sync(self.descriptor.fd)
        except OSError:
            self.discard()
            raise
        self.notes = replace(self.notes, synced_bytes=self.length)
        replace_file(_notes_path(self.path), _encode(self.notes))

    def release(self) -> None:
        """Let go: of the lock at once, since readers may hold the descriptor (and with it the lock) for long."""
        if self._left is None:
            self._space.settle(self.path.name, self.length)
        with contextlib.suppress(OSError):
            fcntl.flock(self.descriptor.fd, fcntl.LOCK_UN)
        self.descriptor.drop()

    def discard(self) -> None:
        """Remove the names; whoever holds the descriptor reads on."""
        if self._left is None:
            self._left = 0
            with contextlib.suppress(OSError):
                _remove(self.path)
            self._space.settle(self.path.name, 0)

    def committed(self, replaced: int) -> None:
        """Note that it is a file of the cache now, in the place of one of ``replaced`` bytes."""
        self._left = 0
        self._space.committed(self.path.name, self.length - replaced)

    def forget_notes(self) -> None:
        """Remove the notes after commit."""
        with contextlib.suppress(OSError):
            _notes_path(self.path).unlink()


def left_behind(directory: Path) -> Iterator[tuple[Path, int, float]]:
    """Yield path, bytes and time of the last write of each partial in ``directory``."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith(".json"):
                continue
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                yield directory / entry.name, status.st_size, status.st_mtime


def remove_idle(path: Path, space: Space) -> int:
    """Delete a partial that nobody writes and return its bytes; -1 when it is locked or cannot be deleted."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.fstat(fd).st_size
        _remove(path)
        space.settle(path.name, 0)
    except OSError:
        return -1
    else:
        return size
    finally:
        os.close(fd)


def remove_stray_notes(directory: Path, oldest: float) -> int:
    """Delete notes without a partial, and notes half written, from before ``oldest``; return how many."""
    removed = 0
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            is_notes = path.suffix == ".json" and not path.with_suffix("").exists()
            with contextlib.suppress(OSError):
                if (is_notes or path.name.startswith(".")) and path.lstat().st_mtime < oldest:
                    path.unlink()
                    removed += 1
    return removed


def _notes_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _notes_path(path).unlink(missing_ok=True)


def _encode(notes: PartialNotes) -> bytes:
    return json.dumps({"version": _NOTES_VERSION, **asdict(notes)}).encode()


def _decode(data: bytes) -> PartialNotes:
    values = json.loads(data)
    if values.pop("version") != _NOTES_VERSION:
        raise ValueError
    notes = PartialNotes(**values)
    for value, kind in (
        (notes.url, str),
        (notes.digest, str | None),
        (notes.total, int | None),
        (notes.etag, str | None),
        (notes.last_modified, str | None),
        (notes.synced_bytes, int),
    ):
        if not isinstance(value, kind):
            raise TypeError
    return notes
