"""Writing small files so that a reader, a crash or a power cut finds the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import StrPath


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: Path, *, mode: int = 0o755) -> None:
    """Make the directory ``path`` and what is missing above it, each durable as a name. Raises OSError."""
    try:
        path.mkdir(mode=mode)
    except FileNotFoundError:
        make_directories(path.parent)
        path.mkdir(mode=mode, exist_ok=True)
    except FileExistsError:
        if path.is_dir():
            return
        raise
    sync_directory(path.parent)


def sync(fd: int) -> None:
    """Make the bytes of ``fd`` durable. Raises OSError."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:  # macOS
        os.fsync(fd)


def open_regular(path: StrPath, flags: int = os.O_RDONLY) -> int:
    """Open a file that is there, for ``open(…, opener=open_regular)`` too.

    Raises OSError, also for what is no regular file: a FIFO or a link that somebody put there must neither hang the
    open nor lead elsewhere.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def read_regular(path: Path) -> bytes:
    """Return what is in a file. Raises OSError as :func:`open_regular` does."""
    with open(path, "rb", opener=open_regular) as file:
        return file.read()


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``. Raises OSError (ENOSPC, EIO, EFBIG …)."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def memory_file(name: str) -> int:
    """Return the descriptor of a new file in memory, named so for people. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:  # macOS
        return os.dup(file.fileno())


def free_bytes(path: Path) -> int:
    """Return what an ordinary user may still write on the disk of ``path``. Raises OSError."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` under ``path`` by way of a temporary name. Raises OSError, leaving the old file.

    ``durable`` False leaves out the syncs: for notes that are worthless after a power cut anyway.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            write_all(fd, data, 0)
            if durable:
                sync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_directory(path.parent)
