"""The tables of the data directory, and how those of an older teepi become them, all in one transaction.

A released step is never changed; a new one goes behind it.
"""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING, Final

from teepi.errors import StoreError
from teepi.transactions import transaction

if TYPE_CHECKING:
    import sqlite3

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        # password: an argon2 hash; NULL for who cannot log in. extra: JSON of what a user says of himself.
        """CREATE TABLE users (
            name TEXT PRIMARY KEY, password TEXT, created TEXT NOT NULL, extra TEXT NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE indexes (
            name TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
            config TEXT NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE tokens (
            id TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
            description TEXT NOT NULL, index_name TEXT, may_upload INTEGER NOT NULL, may_read INTEGER NOT NULL,
            created_at REAL NOT NULL, expires_at REAL, digest TEXT NOT NULL) WITHOUT ROWID""",
        # fields: JSON of the metadata as the uploader gave it. version_key: what all spellings of a version share.
        """CREATE TABLE versions (
            index_name TEXT NOT NULL REFERENCES indexes (name) ON DELETE CASCADE,
            project TEXT NOT NULL, version_key TEXT NOT NULL, version TEXT NOT NULL, fields TEXT NOT NULL,
            registered_at REAL NOT NULL, registered_by TEXT NOT NULL,
            PRIMARY KEY (index_name, project, version_key)) WITHOUT ROWID""",
        """CREATE TABLE files (
            id INTEGER PRIMARY KEY, index_name TEXT NOT NULL, project TEXT NOT NULL, version_key TEXT NOT NULL,
            filename TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL, md5 TEXT NOT NULL,
            blake2b TEXT NOT NULL, filetype TEXT NOT NULL, pyversion TEXT NOT NULL, requires_python TEXT,
            metadata_sha256 TEXT,
            core_metadata BLOB, uploaded_at REAL NOT NULL, uploaded_by TEXT NOT NULL, attestations TEXT,
            log TEXT NOT NULL,
            UNIQUE (index_name, filename),
            FOREIGN KEY (index_name, project, version_key) REFERENCES versions ON DELETE CASCADE)""",
        "CREATE INDEX files_by_content ON files (sha256)",
        "CREATE INDEX files_by_version ON files (index_name, project, version_key)",
        """CREATE TABLE docs (
            index_name TEXT NOT NULL, project TEXT NOT NULL, version_key TEXT NOT NULL, sha256 TEXT NOT NULL,
            size INTEGER NOT NULL, uploaded_at REAL NOT NULL, uploaded_by TEXT NOT NULL,
            PRIMARY KEY (index_name, project, version_key),
            FOREIGN KEY (index_name, project, version_key) REFERENCES versions ON DELETE CASCADE)""",
        "CREATE INDEX docs_by_content ON docs (sha256)",
        """CREATE TABLE results (
            id INTEGER PRIMARY KEY, file_id INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
            posted_at REAL NOT NULL, posted_by TEXT NOT NULL, content TEXT NOT NULL)""",
        "CREATE INDEX results_by_file ON results (file_id)",
        # What an uploader deleted: its URL answers 410 from then on.
        """CREATE TABLE gone (
            index_name TEXT NOT NULL REFERENCES indexes (name) ON DELETE CASCADE, filename TEXT NOT NULL,
            sha256 TEXT NOT NULL, PRIMARY KEY (index_name, filename, sha256)) WITHOUT ROWID""",
    ),
)
"""Step by step; ``PRAGMA user_version`` says how many have been taken."""


def schema_of(connection: sqlite3.Connection, name: str) -> int:
    """Return how many steps a database has taken. ``name`` is the database in a message.

    Raises :class:`StoreError` for one of a newer teepi, and sqlite3.Error.
    """
    [found] = connection.execute("PRAGMA user_version").fetchone()
    if found > len(MIGRATIONS):
        raise StoreError(
            f"{name} is of a newer teepi (schema {found}; this one knows {len(MIGRATIONS)}): nothing was touched; "
            "start the newer teepi, or restore a backup of before with 'teepi data restore'."
        )
    return int(found)


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Take the missing steps, all of them or none. Raises as :func:`schema_of` does."""
    found = schema_of(connection, name)
    if found == len(MIGRATIONS):
        return
    with transaction(connection):
        for step in MIGRATIONS[found:]:
            for statement in step:
                connection.execute(statement)
        if found == 0:
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [("uuid", uuid.uuid4().hex), ("secret", secrets.token_hex(32))],
            )
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
