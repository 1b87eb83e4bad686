"""Rows of users, indexes and tokens: functions on a connection, inside the transaction of the caller."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping


def read_meta(connection: sqlite3.Connection, name: str) -> str:
    """Return the uuid or the secret of this data directory."""
    [value] = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return str(value)


def all_users(connection: sqlite3.Connection) -> Iterator[tuple[str, str | None, str, dict[str, Any]]]:
    """Yield name, password hash (None: cannot log in), time of creation and what else is said of each user."""
    for name, password, created, extra in connection.execute("SELECT name, password, created, extra FROM users"):
        yield name, password, created, json.loads(extra)


def put_user(
    connection: sqlite3.Connection, name: str, password: str | None, created: str, extra: Mapping[str, Any]
) -> None:
    """Write a user, new or changed."""
    connection.execute(
        "INSERT INTO users VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
        "SET password = excluded.password, created = excluded.created, extra = excluded.extra",
        (name, password, created, json.dumps(dict(extra))),
    )


def delete_user(connection: sqlite3.Connection, name: str) -> None:
    """Delete a user with his indexes, their projects and his tokens; the files' bytes are the caller's."""
    connection.execute("DELETE FROM users WHERE name = ?", (name,))


def all_indexes(connection: sqlite3.Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name (``user/index``) and settings of each index."""
    for name, config in connection.execute("SELECT name, config FROM indexes ORDER BY name"):
        yield name, json.loads(config)


def put_index(connection: sqlite3.Connection, name: str, config: Mapping[str, Any]) -> None:
    """Write an index, new or changed, of a user that exists."""
    connection.execute(
        "INSERT INTO indexes VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET config = excluded.config",
        (name, name.partition("/")[0], json.dumps(dict(config))),
    )


def delete_index(connection: sqlite3.Connection, name: str) -> None:
    """Delete an index with its projects; the files' bytes are the caller's."""
    connection.execute("DELETE FROM indexes WHERE name = ?", (name,))


def all_tokens(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return all tokens, as :func:`put_token` was given them."""
    names = ("id", "user", "description", "index", "may_upload", "may_read", "created_at", "expires_at", "digest")
    found = []
    for row in connection.execute("SELECT * FROM tokens ORDER BY created_at"):
        token: dict[str, Any] = dict(zip(names, row, strict=True))
        found.append({**token, "may_upload": bool(token["may_upload"]), "may_read": bool(token["may_read"])})
    return found


def put_token(connection: sqlite3.Connection, token: Mapping[str, Any]) -> None:
    """Write a new token."""
    connection.execute(
        "INSERT INTO tokens VALUES (:id, :user, :description, :index, :may_upload, :may_read, :created_at, "
        ":expires_at, :digest)",
        token,
    )


def delete_token(connection: sqlite3.Connection, identity: str) -> bool:
    """Delete a token; say whether there was one."""
    return connection.execute("DELETE FROM tokens WHERE id = ?", (identity,)).rowcount > 0


def delete_tokens(connection: sqlite3.Connection, user: str) -> int:
    """Delete all tokens of a user; return how many."""
    return connection.execute("DELETE FROM tokens WHERE user = ?", (user,)).rowcount
