"""Whether a data directory keeps its promises: the database, its rows' files, and who can read them.

Nothing is changed, and no lock is needed: a server may run meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from teepi.data import directory_lock
from teepi.data.archive import RESTORING
from teepi.data.blobs import FILES, INCOMING, LAYOUT, SHA256, Blobs
from teepi.data.database import NAME, connect_to_read
from teepi.data.schema import MIGRATIONS, schema_of
from teepi.disk import open_regular
from teepi.errors import StoreError
from teepi.operator_channel import TOKEN
from teepi.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Progress = Callable[[int, int], None]
    """Told how many files of how many are done."""

BEFORE_RESTORE: Final = "before-restore-"
"""Before the name of what a restore moved out of its way."""
_THREADS: Final = 4  # hashing releases the GIL; a disk gains nothing from more
_SECRET: Final = (NAME, f"{NAME}-wal", f"{NAME}-shm", TOKEN)
_KNOWN: Final = frozenset({*_SECRET, f"{NAME}-journal", directory_lock.NAME, LAYOUT, "lost+found"})
_CONTENTS: Final = (
    "SELECT sha256, size, index_name || '/' || filename FROM files UNION ALL "
    "SELECT sha256, size, 'documentation of ' || index_name || '/' || project FROM docs"
)


@dataclass(frozen=True, slots=True)
class Content:
    """What rows say of one file."""

    size: int
    """Bytes."""
    name: str
    """Of one of the rows, for a message."""


@dataclass(slots=True)
class Report:
    """What was found."""

    problems: list[str] = field(default_factory=list)
    """One line for each damage."""
    notes: list[str] = field(default_factory=list)
    """What is worth a word and no damage."""
    schema: int = 0
    files: int = 0
    """That rows are there for, each content once."""
    size: int = 0
    """Bytes of these."""


def inspect_directory(root: Path, *, is_quick: bool = False, progress: Progress | None = None) -> Report:
    """Look at all of a data directory (blocking); ``is_quick`` hashes no file.

    Raises :class:`StoreError` where there is none, or one of a newer teepi.
    """
    report = Report()
    path = root / NAME
    try:
        there = {entry.name for entry in os.scandir(root)}
    except OSError as error:
        raise StoreError(
            f"There is no data directory {root} that can be read ({error.strerror}); name another with --data-dir."
        ) from error
    if NAME not in there:
        raise StoreError(f"There is no database in {root}; name another data directory with --data-dir.")
    _look_at_modes(root, there, report)
    _look_for_unknown(root, there, report)
    try:
        with contextlib.closing(connect_to_read(path)) as connection:
            _look_at_database(connection, path, report)
            contents = read_contents(connection)
    except sqlite3.Error as error:
        report.problems.append(f"{NAME} cannot be read ({error}); bring a backup back with 'teepi data restore'")
        return report
    report.files, report.size = len(contents), sum(each.size for each in contents.values())
    _look_at_files(root, contents, report, is_quick=is_quick, progress=progress)
    return report


def read_contents(connection: sqlite3.Connection) -> dict[str, Content]:
    """Return by sha256 what must be on disk. Raises sqlite3.Error."""
    return {sha256: Content(size, name) for sha256, size, name in connection.execute(_CONTENTS)}


def fault_of(path: Path, sha256: str, size: int, *, is_quick: bool = False) -> str | None:
    """Return what is wrong with a file, None when it is what its row says (blocking)."""
    try:
        with open(path, "rb", buffering=0, opener=open_regular) as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                return f"has {found} bytes instead of {size}"
            if not is_quick and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return "has wrong bytes"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _look_at_database(connection: sqlite3.Connection, path: Path, report: Report) -> None:
    report.schema = schema_of(connection, str(path))
    if report.schema == 0:
        raise sqlite3.DatabaseError("it has no tables")
    connection.execute("BEGIN")
    try:
        report.problems += [
            f"{NAME}: {line}" for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"
        ]
        for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
            report.problems.append(f"{NAME}: row {row} of {table} belongs to no row of {parent}")
    finally:
        connection.execute("ROLLBACK")
    if report.schema < len(MIGRATIONS):
        report.notes.append(f"{NAME} has schema {report.schema}; the next start brings it to {len(MIGRATIONS)}")


def _look_at_files(
    root: Path, contents: Mapping[str, Content], report: Report, *, is_quick: bool, progress: Progress | None
) -> None:
    blobs = Blobs(root)

    def fault(sha256: str, content: Content) -> tuple[str, str | None]:
        return sha256, fault_of(blobs.path(sha256), sha256, content.size, is_quick=is_quick)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="checking") as threads:
        suspects = []
        for done, (sha256, found) in enumerate(threads.map(lambda each: fault(*each), contents.items()), 1):
            if found is not None:
                suspects.append(sha256)
            if progress is not None:
                progress(done, len(contents))
    try:
        on_disk, arriving = set(blobs.all()), len(list(blobs.arriving()))
    except FileNotFoundError:
        on_disk, arriving = set(), 0
    with contextlib.closing(
        connect_to_read(root / NAME)
    ) as connection:  # what a server has deleted meanwhile is no damage
        now = read_contents(connection)
    for sha256 in suspects:
        if sha256 in now and (reason := fault(sha256, now[sha256])[1]) is not None:
            report.problems.append(f"{FILES}/{sha256[:2]}/{sha256} {reason} ({now[sha256].name})")
    if strays := len(on_disk - now.keys()) + arriving:
        report.notes.append(
            f"{counted(strays, 'file')} without a row; the next start removes them, unless an upload arrives just now"
        )


def _look_at_modes(root: Path, there: set[str], report: Report) -> None:
    mode = stat.S_IMODE(root.stat().st_mode)
    if mode & 0o022:
        report.problems.append(f"{root} can be written by others (mode {mode:04o}): chmod 700 {root}")
    elif mode & 0o055:
        report.notes.append(f"{root} can be read by others (mode {mode:04o}): chmod 700 {root}")
    for name in _SECRET:
        with contextlib.suppress(FileNotFoundError):  # SQLite's own come and go
            mode = stat.S_IMODE((root / name).stat().st_mode) if name in there else 0
            if mode & 0o077:
                report.problems.append(f"{name} has secrets that others can read (mode {mode:04o}): chmod 600 it")


def _look_for_unknown(root: Path, there: set[str], report: Report) -> None:
    for name in sorted(there - _KNOWN):
        if name.startswith(RESTORING):
            report.notes.append(f"{name} is of a restore that did not come to its end; the next start removes it")
        elif name.startswith(BEFORE_RESTORE):
            report.notes.append(f"{name} is what was here before a restore; delete it when nobody misses it")
        else:
            report.notes.append(f"{name} is not teepi's")
    layout = root / LAYOUT
    unknown = [path for path in _inside(layout) if path not in {root / FILES, root / INCOMING}]
    for shelf in _inside(root / FILES):
        if not shelf.is_dir() or shelf.is_symlink():
            unknown.append(shelf)
            continue
        unknown += [
            path for path in _inside(shelf) if not (SHA256.fullmatch(path.name) and path.name[:2] == shelf.name)
        ]
    report.notes += [f"{path.relative_to(root)} is not teepi's" for path in unknown]


def _inside(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []
