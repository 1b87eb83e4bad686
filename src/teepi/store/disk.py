"""Writing small files so that a reader, a crash or a power cut finds the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: Path) -> None:
    """Make the directory ``path`` and what is missing above it, each durable as a name. Raises OSError."""
    try:
        path.mkdir(mode=0o755)
    except FileNotFoundError:
        make_directories(path.parent)
        path.mkdir(mode=0o755, exist_ok=True)
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


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``. Raises OSError (ENOSPC, EIO, EFBIG …)."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


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
