"""Rows of uploaded projects: versions, files, documentation, results.

Functions on a connection, inside the caller's transaction. A project is there as long as it has a version.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version of a project in one index."""

    index: str
    """``user/name``."""
    project: str
    """Normalised."""
    version_key: str
    """The same for all spellings of a version."""
    version: str
    """As it was first uploaded."""
    fields: dict[str, Any]
    """Metadata as uploaded."""
    registered_at: float
    """Seconds since the epoch."""
    registered_by: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded file in one index."""

    id: int
    index: str
    project: str
    version_key: str
    filename: str
    sha256: str
    size: int
    """Bytes."""
    md5: str
    blake2b: str
    filetype: str
    pyversion: str
    requires_python: str | None
    metadata_sha256: str | None
    """Of the core metadata (PEP 658), None when there is none."""
    uploaded_at: float
    """Seconds since the epoch."""
    uploaded_by: str
    attestations: str | None
    """JSON list (PEP 740), as uploaded."""
    log: list[dict[str, Any]]
    """What happened to it, as devpi says it."""

    @property
    def path(self) -> str:
        """Where it is below the root of this server, not encoded."""
        return f"{self.index}/+f/{self.sha256[:3]}/{self.sha256[3:16]}/{self.filename}"


@dataclass(frozen=True, slots=True)
class StoredDocs:
    """Documentation of a version: a zip."""

    index: str
    project: str
    version_key: str
    sha256: str
    size: int
    uploaded_at: float
    uploaded_by: str


@dataclass(frozen=True, slots=True)
class StoredResult:
    """What a test run said of a file."""

    id: int
    file_id: int
    posted_at: float
    posted_by: str
    content: str
    """JSON as posted; empty where it was not asked for."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A version in a word, for a search."""

    index: str
    project: str
    """Normalised."""
    version: str
    name: str
    """As its makers spell it."""
    summary: str


@dataclass(frozen=True, slots=True)
class Registered:
    """A version without its metadata, for a list."""

    index: str
    project: str
    """Normalised."""
    version_key: str
    version: str
    name: str
    """As its makers spell it."""
    summary: str
    registered_at: float
    """Seconds since the epoch."""
    registered_by: str


_VERSION: Final = "SELECT index_name, project, version_key, version, fields, registered_at, registered_by FROM versions"
_FILE_COLUMNS: Final = (
    "index_name, project, version_key, filename, sha256, size, md5, blake2b, filetype, pyversion, requires_python, "
    "metadata_sha256, uploaded_at, uploaded_by, attestations, log"
)
_FILE: Final = f"SELECT id, {_FILE_COLUMNS} FROM files"
_FILE_WITHOUT_LOG: Final = f"SELECT id, {_FILE_COLUMNS.removesuffix('log')}NULL FROM files"
_DOCS: Final = "SELECT index_name, project, version_key, sha256, size, uploaded_at, uploaded_by FROM docs"


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _version(row: tuple[Any, ...]) -> StoredVersion:
    index, project, key, version, fields, registered_at, registered_by = row
    return StoredVersion(index, project, key, version, json.loads(fields), registered_at, registered_by)


def _file(row: tuple[Any, ...]) -> StoredFile:
    *values, log = row  # in the order of the fields
    values.append([] if log is None else json.loads(log))
    return StoredFile(*values)


# Looking up -----------------------------------------------------------------------------------------


def state(connection: sqlite3.Connection) -> int:
    """Return a number that is another one after each change, whatever it was of; for this connection alone."""
    [number] = connection.execute("PRAGMA data_version").fetchone()
    return int(number)


def project_names(connection: sqlite3.Connection, indexes: Sequence[str]) -> dict[str, list[str]]:
    """Return the projects of each of ``indexes``, sorted."""
    found: dict[str, list[str]] = {index: [] for index in indexes}
    for index, project in connection.execute(
        "SELECT DISTINCT index_name, project FROM versions "
        f"WHERE index_name IN ({_marks(indexes)}) ORDER BY index_name, project",
        tuple(indexes),
    ):
        found[index].append(project)
    return found


def owners(connection: sqlite3.Connection, indexes: Sequence[str], project: str) -> set[str]:
    """Return which of ``indexes`` have the project."""
    rows = connection.execute(
        f"SELECT DISTINCT index_name FROM versions WHERE project = ? AND index_name IN ({_marks(indexes)})",
        (project, *indexes),
    )
    return {index for (index,) in rows}


def versions(
    connection: sqlite3.Connection, index: str, project: str, version_key: str | None = None
) -> list[StoredVersion]:
    """Return the versions of a project, or that one."""
    if version_key is None:
        rows = connection.execute(f"{_VERSION} WHERE index_name = ? AND project = ?", (index, project))
    else:
        rows = connection.execute(
            f"{_VERSION} WHERE index_name = ? AND project = ? AND version_key = ?", (index, project, version_key)
        )
    return [_version(row) for row in rows]


def spellings(connection: sqlite3.Connection, index: str, project: str) -> dict[str, str]:
    """Return by key how the versions of a project are spelt; nothing of their metadata is read."""
    return dict(
        connection.execute(
            "SELECT version_key, version FROM versions WHERE index_name = ? AND project = ?", (index, project)
        )
    )


def summaries(connection: sqlite3.Connection, index: str | None, project: str | None) -> list[Summary]:
    """Return all versions in a word, or those of one project."""
    rows = connection.execute(
        "SELECT index_name, project, version, coalesce(json_extract(fields, '$.name'), project), "
        "coalesce(json_extract(fields, '$.summary'), '') FROM versions "
        "WHERE ?1 IS NULL OR (index_name = ?1 AND project = ?2)",
        (index, project),
    )
    return [Summary(*row) for row in rows]


def registered(connection: sqlite3.Connection, index: str, names: Sequence[str]) -> list[Registered]:
    """Return all versions of some projects of an index; metadata that are no text count as none."""
    rows = connection.execute(
        "SELECT index_name, project, version_key, version, coalesce(json_extract(fields, '$.name'), project), "
        "coalesce(json_extract(fields, '$.summary'), ''), registered_at, registered_by FROM versions "
        f"WHERE index_name = ? AND project IN ({_marks(names)})",
        (index, *names),
    )
    return [Registered(*row) for row in rows]


def files(
    connection: sqlite3.Connection, index: str, project: str, version_key: str | None = None, *, with_log: bool = True
) -> list[StoredFile]:
    """Return the files of a project, or of one version, in the order of their names; ``with_log`` what befell them."""
    file = _FILE if with_log else _FILE_WITHOUT_LOG
    return [
        _file(row)
        for row in connection.execute(
            f"{file} WHERE index_name = ? AND project = ? AND (?3 IS NULL OR version_key = ?3) ORDER BY filename",
            (index, project, version_key),
        )
    ]


def file_named(connection: sqlite3.Connection, index: str, filename: str) -> StoredFile | None:
    """Return the file of that name."""
    row = connection.execute(f"{_FILE} WHERE index_name = ? AND filename = ?", (index, filename)).fetchone()
    return None if row is None else _file(row)


def was_deleted(connection: sqlite3.Connection, index: str, filename: str, prefix: str) -> bool:
    """Whether a file of that name, whose sha256 begins so, was here and was deleted."""
    return (
        connection.execute(
            "SELECT 1 FROM gone WHERE index_name = ? AND filename = ? AND substr(sha256, 1, 16) = ?",
            (index, filename, prefix),
        ).fetchone()
        is not None
    )


def core_metadata(connection: sqlite3.Connection, file_id: int) -> bytes | None:
    """Return the core metadata of a file."""
    row = connection.execute("SELECT core_metadata FROM files WHERE id = ?", (file_id,)).fetchone()
    return None if row is None else row[0]


def docs(connection: sqlite3.Connection, index: str, project: str) -> list[StoredDocs]:
    """Return the documentation of all versions of a project."""
    rows = connection.execute(f"{_DOCS} WHERE index_name = ? AND project = ?", (index, project))
    return [StoredDocs(*row) for row in rows]


def results(connection: sqlite3.Connection, file_ids: Sequence[int]) -> list[StoredResult]:
    """Return what test runs said of files, oldest first; each content may have megabytes."""
    rows = connection.execute(
        "SELECT id, file_id, posted_at, posted_by, content FROM results "
        f"WHERE file_id IN ({_marks(file_ids)}) ORDER BY id",
        tuple(file_ids),
    )
    return [StoredResult(*row) for row in rows]


def results_of(
    connection: sqlite3.Connection, index: str, project: str, version_key: str | None = None
) -> list[StoredResult]:
    """Return the test runs of a project, or of one version, oldest first; without what they said."""
    rows = connection.execute(
        "SELECT id, file_id, posted_at, posted_by, '' FROM results WHERE file_id IN "
        "(SELECT id FROM files WHERE index_name = ? AND project = ? AND (?3 IS NULL OR version_key = ?3)) ORDER BY id",
        (index, project, version_key),
    )
    return [StoredResult(*row) for row in rows]


def latest_results(
    connection: sqlite3.Connection, file_ids: Sequence[int], most: int, most_bytes: int
) -> list[StoredResult]:
    """Return what the last ``most`` test runs said of files, newest first; nothing of what is longer than that."""
    rows = connection.execute(
        "SELECT id, file_id, posted_at, posted_by, CASE WHEN length(content) <= ? THEN content ELSE '' END "
        f"FROM results WHERE file_id IN ({_marks(file_ids)}) ORDER BY id DESC LIMIT ?",
        (most_bytes, *file_ids, most),
    )
    return [StoredResult(*row) for row in rows]


def result(connection: sqlite3.Connection, file_id: int, number: int) -> str | None:
    """Return what one test run said of a file."""
    row = connection.execute("SELECT content FROM results WHERE id = ? AND file_id = ?", (number, file_id)).fetchone()
    return None if row is None else str(row[0])


def contents(connection: sqlite3.Connection) -> dict[str, int]:
    """Return sha256 and bytes of all that must be on disk."""
    return dict(connection.execute("SELECT sha256, size FROM files UNION SELECT sha256, size FROM docs"))


# Writing --------------------------------------------------------------------------------------------


def put_version(connection: sqlite3.Connection, version: StoredVersion) -> None:
    """Write a version; of one that is there the metadata are replaced."""
    connection.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET fields = excluded.fields",
        (
            *(version.index, version.project, version.version_key, version.version, json.dumps(version.fields)),
            *(version.registered_at, version.registered_by),
        ),
    )


def put_file(connection: sqlite3.Connection, file: StoredFile, metadata: bytes | None) -> int:
    """Write a file that is not there, of a version that is; return its id."""
    values = (
        *(file.index, file.project, file.version_key, file.filename, file.sha256, file.size, file.md5, file.blake2b),
        *(file.filetype, file.pyversion, file.requires_python, file.metadata_sha256, file.uploaded_at),
        *(file.uploaded_by, file.attestations, json.dumps(file.log), metadata),
    )
    cursor = connection.execute(f"INSERT INTO files ({_FILE_COLUMNS}, core_metadata) VALUES ({_marks(values)})", values)
    connection.execute(
        "DELETE FROM gone WHERE index_name = ? AND filename = ? AND sha256 = ?",
        (file.index, file.filename, file.sha256),
    )
    return int(cursor.lastrowid or 0)


def put_docs(connection: sqlite3.Connection, found: StoredDocs) -> None:
    """Write documentation of a version that is there, in the place of any other."""
    connection.execute(
        "INSERT OR REPLACE INTO docs VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            *(found.index, found.project, found.version_key, found.sha256, found.size),
            *(found.uploaded_at, found.uploaded_by),
        ),
    )


def add_result(connection: sqlite3.Connection, file_id: int, posted_at: float, posted_by: str, content: str) -> int:
    """Write what a test run said; return its number."""
    cursor = connection.execute(
        "INSERT INTO results (file_id, posted_at, posted_by, content) VALUES (?, ?, ?, ?)",
        (file_id, posted_at, posted_by, content),
    )
    return int(cursor.lastrowid or 0)


def delete_files(connection: sqlite3.Connection, found: Iterable[StoredFile]) -> None:
    """Delete files, and remember that they were here."""
    for file in found:
        connection.execute("DELETE FROM files WHERE id = ?", (file.id,))
        connection.execute("INSERT OR IGNORE INTO gone VALUES (?, ?, ?)", (file.index, file.filename, file.sha256))


def delete_version(connection: sqlite3.Connection, index: str, project: str, version_key: str) -> None:
    """Delete a version with its files and documentation."""
    delete_files(connection, files(connection, index, project, version_key))
    connection.execute(
        "DELETE FROM versions WHERE index_name = ? AND project = ? AND version_key = ?", (index, project, version_key)
    )


def unused(connection: sqlite3.Connection, candidates: Iterable[str]) -> list[str]:
    """Return those of ``candidates`` (sha256) that no row has."""
    return [
        sha256
        for sha256 in set(candidates)
        if connection.execute(
            "SELECT 1 FROM files WHERE sha256 = ?1 UNION SELECT 1 FROM docs WHERE sha256 = ?1", (sha256,)
        ).fetchone()
        is None
    ]


def contents_of(connection: sqlite3.Connection, index_pattern: str) -> list[str]:
    """Return the sha256 of all that indexes have whose names match ``index_pattern`` (GLOB)."""
    rows = connection.execute(
        "SELECT sha256 FROM files WHERE index_name GLOB ?1 UNION SELECT sha256 FROM docs WHERE index_name GLOB ?1",
        (index_pattern,),
    )
    return [sha256 for (sha256,) in rows]
