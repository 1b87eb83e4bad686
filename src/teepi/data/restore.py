"""A backup as a data directory again: all of it is looked at before any of it takes its place.

It is unpacked in the data directory itself, which may be a mount, beside what it becomes. The database goes first and
comes last: a directory of a restore without one is refused by the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import sqlite3
import tarfile
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from teepi.data import directory_lock
from teepi.data.archive import RESTORING
from teepi.data.blobs import FILES, INCOMING, LAYOUT
from teepi.data.database import NAME, connect_to_read
from teepi.data.directory_lock import DirectoryLock
from teepi.data.inspection import BEFORE_RESTORE, inspect_directory
from teepi.data.schema import schema_of
from teepi.disk import make_directories, sync, sync_directory
from teepi.errors import BadInput, StoreError
from teepi.operator_channel import TOKEN

if TYPE_CHECKING:
    from pathlib import Path

    from teepi.data.inspection import Progress, Report

_MEMBER: Final = re.compile(
    rf"{re.escape(NAME)}|{TOKEN}|{FILES}/(?P<shelf>[0-9a-f]{{2}})/(?P<sha256>(?P=shelf)[0-9a-f]{{62}})"
)
_MOST_TOKEN_BYTES: Final = 4096
_STEP_BYTES: Final = 1 << 20
_OLD: Final = (NAME, f"{NAME}-wal", f"{NAME}-shm", f"{NAME}-journal", LAYOUT, TOKEN)
"""What moves out of the way: the database first, its log with it."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What has taken its place."""

    report: Report
    moved_to: Path | None
    """Where that is now which was there before."""


def restore(root: Path, source: Path, *, by_force: bool = False, progress: Progress | None = None) -> Restored:
    """Let the data directory ``root`` be what the backup ``source`` has (blocking).

    With ``by_force`` what is there is moved aside, else it must be empty. Raises :class:`StoreError`, when a server
    uses it too, and :class:`BadInput` for what is no backup; nothing has changed then.
    """
    lock = DirectoryLock(root)
    try:
        make_directories(root, mode=0o700)
        if not lock.take(0):
            raise StoreError(f"The data directory {root} cannot be written; nothing was changed.")
        there = [name for name in _OLD if (root / name).exists()]
        if there and not by_force:
            raise StoreError(
                f"The data directory {root} is not empty: restore into another with --data-dir, or move what is there "
                "aside with --force."
            )
        staging = root / f"{RESTORING}{secrets.token_hex(4)}"
        staging.mkdir(mode=0o700)
        try:
            _unpack(source, staging, progress)
            report = _checked(staging, source)
            _as_owner(root, staging)
            moved_to = _move_aside(root, there)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        for name in (LAYOUT, TOKEN, NAME):
            if (staging / name).exists():
                (staging / name).rename(root / name)
                sync_directory(root)
        for left in root.glob(RESTORING + "*"):  # of one that was killed, too
            shutil.rmtree(left)
        sync_directory(root)
    except OSError as error:
        raise StoreError(f"The data directory {root} cannot be written ({error.strerror or error}).") from error
    finally:
        lock.close()
    return Restored(report, moved_to)


def _unpack(source: Path, staging: Path, progress: Progress | None) -> None:
    """Write every member below ``staging``, synced, once its name and digest are right."""
    for directory in (FILES, INCOMING):
        make_directories(staging / directory)
    seen: set[str] = set()
    try:
        whole = source.stat().st_size
        with source.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                _unpack_member(tar, member, staging, seen)
                if progress is not None:
                    progress(file.tell(), whole)
    except tarfile.TarError as error:
        raise BadInput(f"{source} is no backup, or not all of one ({error}).") from error
    except OSError as error:
        if error.filename == str(source):
            raise BadInput(f"{source} cannot be read: {error.strerror}.") from error
        raise
    for shelf in (staging / FILES).iterdir():
        sync_directory(shelf)
    sync_directory(staging / FILES)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, staging: Path, seen: set[str]) -> None:
    match = _MEMBER.fullmatch(member.name)
    if match is None or not member.isreg() or member.issparse() or member.name in seen:
        raise BadInput(f"This is no backup of a data directory: it has {member.name[:200]!r}.")
    if member.name == TOKEN and member.size > _MOST_TOKEN_BYTES:
        raise BadInput("The operator's token in the backup is too long for one.")
    seen.add(member.name)
    content = tar.extractfile(member)
    if content is None:  # which only links give
        raise BadInput(f"{member.name} cannot be read in the backup.")
    path = staging / member.name
    path.parent.mkdir(mode=0o755, exist_ok=True)
    digest = _write(content, path, 0o600 if match["sha256"] is None else 0o444)
    if match["sha256"] is not None and digest != match["sha256"]:
        raise BadInput(f"{member.name} is damaged in the backup.")


def _write(content: IO[bytes], path: Path, mode: int) -> str:
    """Write ``content`` durably; return its sha256."""
    digest = hashlib.sha256()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
        while data := content.read(_STEP_BYTES):
            digest.update(data)
            file.write(data)
        file.flush()
        sync(fd)
    return digest.hexdigest()


def _checked(staging: Path, source: Path) -> Report:
    """Return what is in the backup. Raises :class:`StoreError` when it is of a newer teepi, and :class:`BadInput`."""
    path = staging / NAME
    if not path.is_file():
        raise BadInput(f"{source} is no backup of a data directory: it has no database.")
    try:
        with contextlib.closing(connect_to_read(path)) as connection:
            schema_of(connection, f"The backup {source}")
    except sqlite3.Error as error:
        raise BadInput(f"The database in the backup {source} is damaged ({error}); nothing was changed.") from error
    report = inspect_directory(staging, is_quick=True)  # digests were seen on the way
    if report.problems:
        more = f", and {len(report.problems) - 1} more" if len(report.problems) > 1 else ""
        raise BadInput(f"The backup {source} is damaged: {report.problems[0]}{more}; nothing was changed.")
    return report


def _as_owner(root: Path, staging: Path) -> None:
    """Give what root has unpacked to whom the directory belongs, as whom the server may run."""
    owner = root.stat()
    if os.geteuid() or not owner.st_uid:
        return
    for directory, _, names in os.walk(staging):
        for path in (directory, *(os.path.join(directory, name) for name in names)):  # noqa: PTH118
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    os.chown(root / directory_lock.NAME, owner.st_uid, owner.st_gid)


def _move_aside(root: Path, there: list[str]) -> Path | None:
    if not there:
        return None
    stem = time.strftime(f"{BEFORE_RESTORE}%Y%m%d-%H%M%S")
    number = 1
    while (aside := root / (stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    aside.mkdir(mode=0o700)
    for name in there:
        (root / name).rename(aside / name)
    sync_directory(aside)
    sync_directory(root)
    return aside
