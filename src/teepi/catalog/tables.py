"""The catalogue's tables: schema, statements, rows to records and back, and opening a database file.

Functions that block; which thread calls them and what a failure means is decided in ``catalog``.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from teepi.addresses import path_of
from teepi.filenames import project_of_filename
from teepi.model import Digest, FileRecord
from teepi.transactions import transaction

if TYPE_CHECKING:
    from pathlib import Path

Row = tuple[Any, ...]

SCHEMA: Final = 5
"""``PRAGMA user_version``. Any other value, older or newer, is set aside: rebuilding is the migration."""

# In an overlay a file without a size is one that was removed; on disk its row is deleted.
_TABLES: Final = (
    """CREATE TABLE known (
        index_name TEXT NOT NULL, address TEXT NOT NULL, project TEXT NOT NULL, filename TEXT NOT NULL,
        url TEXT NOT NULL, digest TEXT, size INTEGER, metadata TEXT, immutable INTEGER NOT NULL,
        path TEXT NOT NULL, PRIMARY KEY (index_name, address))""",
    "CREATE INDEX known_by_project ON known (index_name, project)",
    "CREATE INDEX known_by_path ON known (index_name, path)",
    "CREATE INDEX known_by_digest ON known (index_name, substr(digest, 1, 23), filename)",
    """CREATE TABLE files (
        sha256 TEXT PRIMARY KEY, size INTEGER, added_at REAL NOT NULL, used_at REAL NOT NULL,
        index_name TEXT NOT NULL, project TEXT NOT NULL, filename TEXT NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX files_by_use ON files (used_at, sha256)",
    # Kept by triggers: to count a million rows takes a fifth of a second, in which a start answers nobody.
    "CREATE TABLE totals (files INTEGER NOT NULL, bytes INTEGER NOT NULL)",
    "INSERT INTO totals VALUES (0, 0)",
    """CREATE TRIGGER file_added AFTER INSERT ON files BEGIN
        UPDATE totals SET files = files + 1, bytes = bytes + coalesce(new.size, 0); END""",
    """CREATE TRIGGER file_removed AFTER DELETE ON files BEGIN
        UPDATE totals SET files = files - 1, bytes = bytes - coalesce(old.size, 0); END""",
    "CREATE TABLE generations (file_key TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID",
    # What was read out of wheels: '' when there is none, NULL when it is not known any more.
    """CREATE TABLE core_metadata (
        project TEXT NOT NULL, file_key TEXT NOT NULL, sha256 TEXT, PRIMARY KEY (project, file_key)) WITHOUT ROWID""",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {SCHEMA}",
)

KNOWN: Final = "SELECT index_name, address, project, filename, url, digest, size, metadata, immutable FROM known"
BY_ADDRESS: Final = f"{KNOWN} WHERE index_name = ? AND address = ?"
BY_PROJECT: Final = f"{KNOWN} WHERE index_name = ? AND project = ?"
BY_PATH: Final = f"{KNOWN} WHERE index_name = ? AND path = ?"
BY_DIGEST: Final = f"{KNOWN} WHERE index_name = ? AND substr(digest, 1, 23) = ? AND filename = ?"
ROWS: Final = "SELECT max(rowid) FROM known"  # to count them all would read a whole index
FILE_SIZE: Final = "SELECT size FROM files WHERE sha256 = ?"
FILE_NAMES: Final = "SELECT sha256 FROM files"
_FILES: Final = "SELECT sha256, size, used_at, index_name, project, filename FROM files"
# Values are bound as text, hence the casts.
FILES_BY_USE: Final = (
    f"{_FILES} WHERE (used_at, sha256) > (CAST(?1 AS REAL), ?2) ORDER BY used_at, sha256 LIMIT CAST(?3 AS INTEGER)"
)
FILES_BY_DIGEST: Final = f"{_FILES} WHERE sha256 > ?2 AND ?1 != '' ORDER BY sha256 LIMIT CAST(?3 AS INTEGER)"
META: Final = "SELECT value FROM meta WHERE name = ?"

CORE_METADATA: Final = "SELECT file_key, sha256 FROM core_metadata WHERE project = ?1 AND (?2 = '' OR file_key = ?2)"

PUT_KNOWN: Final = "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
PUT_FILE: Final = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)"
NAME_FILE: Final = "UPDATE files SET index_name = ?, project = ?, filename = ? WHERE sha256 = ? AND filename = ''"
PUT_GENERATION: Final = "INSERT OR REPLACE INTO generations VALUES (?, ?)"
PUT_CORE_METADATA: Final = "INSERT OR REPLACE INTO core_metadata VALUES (?, ?, ?)"
PUT_META: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
REMOVE_FILE: Final = "DELETE FROM files WHERE sha256 = ?"
USE_FILE: Final = "UPDATE files SET used_at = ? WHERE sha256 = ?"
CLAMP_TIMES: Final = "UPDATE files SET used_at = ?1, added_at = min(added_at, ?1) WHERE used_at > ?1"
FORGET: Final = "DELETE FROM known WHERE index_name = ?"
DROP_OLDEST: Final = "DELETE FROM known WHERE rowid <= (SELECT max(rowid) FROM known) - ?"

LARGEST_INTEGER: Final = 2**63 - 1
"""SQLite's."""


class OtherSchema(sqlite3.DatabaseError):
    """The database belongs to an older or newer teepi, or to something else."""


def is_storable(record: FileRecord) -> bool:
    """Say whether SQLite can hold the record; one that it cannot (a lone surrogate) nobody can ask for either."""
    try:
        f"{record.index}{record.address}{record.project}{record.filename}{record.url}".encode()
    except UnicodeEncodeError:
        return False
    return record.size is None or abs(record.size) <= LARGEST_INTEGER


def merged(old: FileRecord, new: FileRecord) -> FileRecord:
    """Return what is known of an address after a page has linked to it again."""
    if new.project != old.project and (not _leads_home(new) or _leads_home(old)):
        return old  # another project's page may not take a file over
    return replace(new, immutable=True) if old.immutable and new.digest == old.digest else new


def is_taken(old: FileRecord | None, new: FileRecord) -> bool:
    """Say whether the address of ``new`` is that of another project's file ``old``, which keeps it."""
    return old is not None and (old.url, old.digest) != (new.url, new.digest) and merged(old, new) is old


def _leads_home(record: FileRecord) -> bool:
    """Say whether the file's name leads to the project whose page has it."""
    return project_of_filename(record.filename) == record.project


def row_of(record: FileRecord) -> Row:
    """Return the values for :data:`PUT_KNOWN`."""
    return (
        record.index,
        record.address,
        record.project,
        record.filename,
        record.url,
        None if record.digest is None else _text(record.digest),
        record.size,
        _text(record.metadata) if isinstance(record.metadata, Digest) else ("" if record.metadata else None),
        record.immutable,
        path_of(record.url),
    )


def record_of(row: Row) -> FileRecord:
    """Return the record of a row of :data:`KNOWN`."""
    index, address, project, filename, url, digest, size, metadata, immutable = row
    return FileRecord(
        index=index,
        project=project,
        filename=filename,
        url=url,
        address=address,
        digest=_digest(digest) if digest else None,
        size=size,
        metadata=_digest(metadata) if metadata else metadata is not None,
        immutable=bool(immutable),
    )


def _text(digest: Digest) -> str:
    return f"{digest.algorithm}:{digest.hex}"


def _digest(text: str) -> Digest:
    algorithm, _, value = text.partition(":")
    return Digest(algorithm, value)


def open_memory() -> sqlite3.Connection:
    """Return an empty database in memory with the same tables."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _create(connection)
    return connection


def open_disk(path: Path, query: str) -> sqlite3.Connection:
    """Open the database with an SQLite URI query: ``mode=rwc`` begins a new one where there is none.

    Raises :class:`sqlite3.Error`, of class :class:`OtherSchema` when it is not one of ours.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{query}", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA recursive_triggers = ON")  # else a row that is replaced would be counted twice
        if query == "mode=rwc":
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall():
                _create(connection)
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    [[version]] = connection.execute("PRAGMA user_version").fetchall()
    if version != SCHEMA:
        raise OtherSchema(f"it has schema {version}, this teepi reads {SCHEMA}")
    connection.execute(f"{KNOWN} LIMIT 1").fetchall()


def _create(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        for statement in _TABLES:
            connection.execute(statement)


def rows_of(connection: sqlite3.Connection | None, query: str, values: tuple[str | int, ...]) -> list[Row]:
    """Return all rows of a query; none where there is no database."""
    try:
        return [] if connection is None else connection.execute(query, values).fetchall()
    except UnicodeEncodeError:  # a lone surrogate in a request; no record has one
        return []


def kept_in_memory(connection: sqlite3.Connection) -> tuple[tuple[int, int], dict[str, int], bool]:
    """Return number and bytes of the files, the generations, and whether the database was rebuilt to its end."""
    [totals] = connection.execute("SELECT files, bytes FROM totals").fetchall()
    generations = dict(connection.execute("SELECT file_key, generation FROM generations").fetchall())
    return totals, generations, bool(connection.execute("SELECT 1 FROM meta WHERE name = 'rebuilt'").fetchall())


def copy_overlay(overlay: sqlite3.Connection, disk: sqlite3.Connection) -> None:
    """Carry everything from an overlay over to the database that it lay over."""
    for table, put in (
        ("known", PUT_KNOWN),
        ("generations", PUT_GENERATION),
        ("core_metadata", PUT_CORE_METADATA),
        ("meta", PUT_META),
    ):
        disk.executemany(put, overlay.execute(f"SELECT * FROM {table}"))  # noqa: S608 - names of ours
    for row in overlay.execute("SELECT * FROM files"):
        if row[1] is None:
            disk.execute(REMOVE_FILE, row[:1])
        else:
            disk.execute(PUT_FILE, row)


def close_all(*connections: sqlite3.Connection | None) -> None:
    """Close what is open; an error on the way out changes nothing."""
    for connection in connections:
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def is_damage(error: Exception) -> bool:
    """Say whether the error means that the file is no catalogue of ours, rather than that it cannot be used now."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF  # the primary code of an extended one
    return isinstance(error, OtherSchema) or code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_malformed(error: Exception) -> bool:
    """Say the same of an error at opening, where a missing table or column counts too."""
    return is_damage(error) or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def problem(path: Path, error: Exception) -> str:
    """Return the sentence that says what is wrong with the database, and what to do."""
    if is_damage(error):
        return (
            f"The catalogue {path} is damaged ({error}): it is kept in memory for now; "
            "restart teepi to have it rebuilt."
        )
    return (
        f"The catalogue {path} cannot be written ({error}): it is kept in memory for now; "
        f"free some space, or make {path.parent} writable."
    )


def set_aside(path: Path) -> None:
    """Rename the database to ``<name>.damaged``, of which one is kept. Raises :class:`OSError`.

    Its log may stay: SQLite deletes a log that it finds beside a new database.
    """
    path.replace(path.with_name(path.name + ".damaged"))
