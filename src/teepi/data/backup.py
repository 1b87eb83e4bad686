"""A data directory as one tar file: the database of one moment, and the files that it names.

Readable by its owner alone, for it has password hashes, the secret of logins and the operator's token. It is written
under another name, synced and renamed, so that there is all of it or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sqlite3
import tarfile
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from teepi.data.blobs import FILES, Blobs
from teepi.data.database import NAME, connect_to_read
from teepi.data.inspection import read_contents
from teepi.data.schema import schema_of
from teepi.disk import open_regular, sync_directory
from teepi.errors import StoreError
from teepi.operator_channel import TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from teepi.data.inspection import Content, Progress

_ATTEMPTS: Final = 5
SECRET_MODE: Final = 0o600
FILE_MODE: Final = 0o444


class _Gone(Exception):
    """A file was deleted since the database was copied."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What was written."""

    files: int
    size: int
    """Bytes of the tar file."""
    schema: int


def back_up(root: Path, target: Path, *, may_replace: bool = False, progress: Progress | None = None) -> Backup:
    """Write a backup of the data directory ``root`` to ``target`` (blocking); a server may run meanwhile.

    When it deletes a file that the copy of the database names, all is begun anew. Raises :class:`StoreError`, leaving
    nothing.
    """
    if not (root / NAME).is_file():
        raise StoreError(f"There is no database in {root}; name another data directory with --data-dir.")
    if target.exists() or target.is_symlink():
        if target.is_symlink() or not target.is_file():
            raise StoreError(f"{target} is no plain file; choose another name.")
        if not may_replace:
            raise StoreError(f"{target} is there already; choose another name, or replace it with --force.")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    copy = part.with_name(f"{part.name}.sqlite3")
    try:
        for _ in range(_ATTEMPTS):
            try:
                written = _attempt(root, copy, part, progress)
            except _Gone:
                continue
            _put_in_place(part, target, may_replace=may_replace)
            return written
    except sqlite3.Error as error:
        raise StoreError(f"The database {root / NAME} cannot be copied ({error}); see 'teepi data check'.") from error
    except OSError as error:
        raise StoreError(
            f"The backup {target} cannot be written ({error.strerror or error}); nothing is left of it."
        ) from error
    finally:
        for path in (part, copy):
            path.unlink(missing_ok=True)
    raise StoreError(f"Files were deleted from {root} each time that a backup was begun; try again when less goes on.")


def _attempt(root: Path, copy: Path, part: Path, progress: Progress | None) -> Backup:
    for path in (copy, part):
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SECRET_MODE))
    contents, schema = copy_database(root / NAME, copy)
    blobs = Blobs(root)
    with part.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            with copy.open("rb") as source:
                _add(tar, NAME, source, SECRET_MODE)
            with contextlib.suppress(FileNotFoundError), open(root / TOKEN, "rb", opener=open_regular) as source:
                _add(tar, TOKEN, source, SECRET_MODE)
            for done, (sha256, content) in enumerate(sorted(contents.items()), 1):
                _add_content(root, tar, blobs.path(sha256), sha256, content)
                if progress is not None:
                    progress(done, len(contents))
        file.flush()
        os.fsync(file.fileno())
        return Backup(len(contents), file.tell(), schema)


def copy_database(path: Path, copy: Path) -> tuple[Mapping[str, Content], int]:
    """Copy the database as it is at one moment, whoever writes meanwhile."""
    with contextlib.closing(connect_to_read(path)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
        schema = schema_of(source, str(path))
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        return read_contents(target), schema


def _add_content(root: Path, tar: tarfile.TarFile, path: Path, sha256: str, content: Content) -> None:
    try:
        with open(path, "rb", opener=open_regular) as source:
            digest = _add(tar, f"{FILES}/{sha256[:2]}/{sha256}", source, FILE_MODE)
    except FileNotFoundError as error:
        with contextlib.closing(connect_to_read(root / NAME)) as connection:
            if sha256 not in read_contents(connection):
                raise _Gone from error
        digest = ""
    if digest != sha256:
        raise StoreError(
            f"{path} ({content.name}) is missing or damaged, so there is no backup: see 'teepi data check', and upload "
            "that file again or delete it."
        )


class _Hashed:
    """Hashes what is read of a file."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        """Return up to ``count`` bytes."""
        data = self._source.read(count)
        self.digest.update(data)
        return data


def _add(tar: tarfile.TarFile, name: str, source: IO[bytes], mode: int) -> str:
    """Add a file; return its sha256. Raises OSError, and what a file is told that has become shorter."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = os.fstat(source.fileno()).st_size, mode, int(time.time())
    hashed = _Hashed(source)
    tar.addfile(member, hashed)
    return hashed.digest.hexdigest()


def _put_in_place(part: Path, target: Path, *, may_replace: bool) -> None:
    if may_replace:
        part.replace(target)
    else:
        try:
            target.hardlink_to(part)  # which replaces nothing
        except FileExistsError:
            raise StoreError(f"{target} came meanwhile and is left alone; choose another name.") from None
        except OSError:  # a file system without links
            part.rename(target)
    sync_directory(target.parent)
