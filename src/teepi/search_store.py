"""The database that is searched: ``search.sqlite3`` in the cache directory, made anew whenever it is lost or damaged.

Two tables with an index over all runs of three letters (SQLite FTS5, trigram): *known* projects, uploaded or cached,
with their summaries, and *listed* ones, of which only upstream's list tells. Words are found anywhere in a name; one
of less than three letters at the begin of a name, or beside a longer one.

A real list of 927,000 names is put in within 6 to 10 s, in transactions of up to 110 ms, and takes 102 MB; one that has
not changed costs 1 to 2 s. A search in it, with 18,000 known projects beside, takes 2 to 35 ms, and 60 ms for a single
letter (two cores of a shared machine).

All methods block, belong to one thread and never raise for a bad database: ``problem`` says so, the log too, and
what is there is searched.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from teepi.search_query import Project, find
from teepi.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

_T = TypeVar("_T")
log = logging.getLogger(__name__)

STEP: Final = 5000
"""Names in one transaction: some 50 ms, for which a search may have to wait, and twice that at worst."""
_SCHEMA: Final = 1
_FAILED: Final = "\n"  # no name

_TABLES: Final = (
    """CREATE TABLE known (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, index_name TEXT NOT NULL, shown TEXT NOT NULL,
        summary TEXT NOT NULL DEFAULT '', version TEXT NOT NULL DEFAULT '', is_uploaded INTEGER NOT NULL DEFAULT 0,
        is_cached INTEGER NOT NULL DEFAULT 0, UNIQUE (name, index_name))""",
    """CREATE VIRTUAL TABLE known_words USING fts5(
        name, summary, content='known', content_rowid='id', tokenize='trigram')""",
    """CREATE TRIGGER known_added AFTER INSERT ON known BEGIN
        INSERT INTO known_words (rowid, name, summary) VALUES (new.id, new.name, new.summary); END""",
    """CREATE TRIGGER known_removed AFTER DELETE ON known BEGIN
        INSERT INTO known_words (known_words, rowid, name, summary)
        VALUES ('delete', old.id, old.name, old.summary); END""",
    """CREATE TRIGGER known_changed AFTER UPDATE OF summary ON known WHEN old.summary != new.summary BEGIN
        INSERT INTO known_words (known_words, rowid, name, summary)
        VALUES ('delete', old.id, old.name, old.summary);
        INSERT INTO known_words (rowid, name, summary) VALUES (new.id, new.name, new.summary); END""",
    "CREATE TABLE lists (id INTEGER PRIMARY KEY, index_name TEXT NOT NULL UNIQUE, mark TEXT)",
    """CREATE TABLE listed (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, list_id INTEGER NOT NULL, UNIQUE (name, list_id))""",
    """CREATE VIRTUAL TABLE listed_words USING fts5(
        name, content='listed', content_rowid='id', tokenize='trigram', columnsize=0)""",
    """CREATE TRIGGER listed_added AFTER INSERT ON listed BEGIN
        INSERT INTO listed_words (rowid, name) VALUES (new.id, new.name); END""",
    """CREATE TRIGGER listed_removed AFTER DELETE ON listed BEGIN
        INSERT INTO listed_words (listed_words, rowid, name) VALUES ('delete', old.id, old.name); END""",
    # A list on its way in, so that only what has changed since the last one is written.
    "CREATE TABLE incoming (name TEXT PRIMARY KEY) WITHOUT ROWID",
    f"PRAGMA user_version = {_SCHEMA}",
)

_UPLOADED: Final = """INSERT INTO known (name, index_name, shown, summary, version, is_uploaded)
    VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT (name, index_name) DO UPDATE SET
    shown = excluded.shown, summary = excluded.summary, version = excluded.version, is_uploaded = 1"""
_DESCRIBED: Final = """INSERT INTO known (name, index_name, shown, summary, version) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (name, index_name) DO UPDATE SET
    shown = excluded.shown, summary = excluded.summary, version = excluded.version WHERE NOT is_uploaded"""
# ?1 is a JSON list of [index, name, is_cached].
_PAIRS: Final = """SELECT json_extract(value, '$[0]') AS i, json_extract(value, '$[1]') AS n,
    json_extract(value, '$[2]') AS c FROM json_each(?1)"""
_NOW_CACHED: Final = f"""INSERT INTO known (name, index_name, shown, is_cached) SELECT n, i, n, c FROM ({_PAIRS})
    WHERE true ON CONFLICT (name, index_name) DO UPDATE SET is_cached = excluded.is_cached
    WHERE is_cached != excluded.is_cached"""  # noqa: S608 - of ours
_NOT_AMONG: Final = f"(index_name, name) NOT IN (SELECT i, n FROM ({_PAIRS}))"  # noqa: S608 - of ours
_ANEW: Final = """INSERT INTO listed (name, list_id) SELECT name, ?1 FROM incoming WHERE name > ?2 AND name <= ?3
    AND NOT EXISTS (SELECT 1 FROM listed WHERE listed.name = incoming.name AND list_id = ?1)"""
_GONE: Final = """DELETE FROM listed WHERE id > ?2 AND id <= ?2 + ?3 AND list_id = ?1
    AND NOT EXISTS (SELECT 1 FROM incoming WHERE incoming.name = listed.name)"""


class SearchStore:
    """The database."""

    def __init__(self, path: Path) -> None:
        """Open or begin the database at ``path``; in memory where that is not possible."""
        self.problem: str | None = None
        """One sentence while what is new cannot be kept."""
        self.is_empty = True
        """Nothing is in it that was there before: tell it everything, and that (:meth:`told`)."""
        self.is_lasting = True
        """It is on a disk that takes what is written."""
        self._path = path
        self._connection = self._open()

    # -- opening -------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            try:
                return self._use("mode=rwc")
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise
                log.warning("%s is made anew (%s).", self._path, error)
                self._delete()
                return self._use("mode=rwc")
        except (sqlite3.Error, OSError) as error:
            self._complain(error)
        self.is_lasting = False
        for query in ("mode=ro", "immutable=1"):  # as the catalogue is opened where nothing can be written
            with contextlib.suppress(sqlite3.Error):
                return self._use(query)
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.is_empty = True
        with contextlib.suppress(sqlite3.Error):  # without FTS5 nothing is found, and that is all
            _create(connection)
        return connection

    def _use(self, query: str) -> sqlite3.Connection:
        address = f"{self._path.absolute().as_uri()}?{query}"
        connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        try:
            is_new = False
            if query == "mode=rwc":
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                is_new = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
                if is_new:
                    _create(connection)
            [[version]] = connection.execute("PRAGMA user_version").fetchall()
            if version != _SCHEMA:
                msg = f"it has schema {version}, this teepi reads {_SCHEMA}"
                raise _OtherSchema(msg)  # noqa: TRY301 - as damaged as one without tables
            for table in ("known_words", "listed_words"):
                connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall()  # noqa: S608 - a name of ours
        except BaseException:
            connection.close()
            raise
        self.is_empty = is_new
        return connection

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the database."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def told(self) -> None:
        """Note that it has been told everything."""
        self.is_empty = False

    # -- errors --------------------------------------------------------------------------------------

    def _do(self, work: Callable[[sqlite3.Connection], _T], instead: _T) -> _T:
        """Return what ``work`` does, ``instead`` when the database does not let it."""
        try:
            return work(self._connection)
        except UnicodeEncodeError:  # a lone surrogate, which no project has
            return instead
        except sqlite3.Error as error:
            if self.is_lasting and _is_damage(error):
                log.warning("%s is made anew (%s).", self._path, error)
                self.close()
                with contextlib.suppress(OSError):
                    self._delete()
                self._connection = self._open()
            else:
                self._complain(error)
            return instead

    def _change(self, work: Callable[[sqlite3.Connection], _T], instead: _T) -> _T:
        """Do all of ``work`` or nothing of it."""

        def whole(connection: sqlite3.Connection) -> _T:
            with transaction(connection):
                done = work(connection)
            self.problem = None
            return done

        return self._do(whole, instead)

    def _complain(self, error: Exception) -> None:
        problem = f"The search database {self._path} cannot be written ({error}); what is in it is searched."
        if problem != self.problem:
            log.warning("%s", problem)
        self.problem = problem

    # -- projects that are known ---------------------------------------------------------------------

    def put_uploads(self, projects: Iterable[Project], *, are_all: bool = False) -> None:
        """Note what was uploaded; ``are_all`` says that nothing else was."""
        rows = [(each.name, each.index, each.shown, each.summary, each.version) for each in projects]
        told = json.dumps([(index, name, 0) for name, index, *_ in rows])

        def work(connection: sqlite3.Connection) -> None:
            if are_all:
                connection.execute(f"DELETE FROM known WHERE is_uploaded AND {_NOT_AMONG}", (told,))  # noqa: S608 - of ours
            connection.executemany(_UPLOADED, rows)

        self._change(work, None)

    def forget_upload(self, index: str, name: str) -> None:
        """Note that a project was deleted from its index."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM known WHERE index_name = ? AND name = ?", (index, name))

        self._change(work, None)

    def describe(self, projects: Iterable[Project]) -> None:
        """Note what core metadata says of projects of mirrors."""
        rows = [(each.name, each.index, each.shown, each.summary, each.version) for each in projects]
        self._change(lambda connection: connection.executemany(_DESCRIBED, rows), None)

    def settle_cached(self, projects: dict[tuple[str, str], bool]) -> list[tuple[str, str]]:
        """Let these be all that is cached, as index and name, and whether there are files of it or a page alone.

        Returns those with files of which there is no description.
        """
        told = json.dumps([(*key, int(has_files)) for key, has_files in projects.items()])

        def work(connection: sqlite3.Connection) -> list[tuple[str, str]]:
            connection.execute(f"DELETE FROM known WHERE NOT is_uploaded AND {_NOT_AMONG}", (told,))  # noqa: S608 - of ours
            connection.execute(_NOW_CACHED, (told,))
            query = "SELECT index_name, name FROM known WHERE is_cached AND NOT is_uploaded AND version = ''"
            return [(index, name) for index, name in connection.execute(query)]

        return self._change(work, [])

    # -- upstream's lists ----------------------------------------------------------------------------

    def list_mark(self, index: str) -> str | None:
        """Return what :meth:`end_list` was told of the list that was put in last, or None."""
        query = "SELECT mark FROM lists WHERE index_name = ?"
        rows: list[tuple[str | None]] = []
        rows = self._do(lambda connection: connection.execute(query, (index,)).fetchall(), rows)
        return next((mark for (mark,) in rows), None)

    def begin_list(self, index: str) -> int | None:
        """Begin to put a list in; return its number, or None when that is not possible."""

        def work(connection: sqlite3.Connection) -> int | None:
            connection.execute("DELETE FROM incoming")
            connection.execute("INSERT OR IGNORE INTO lists (index_name) VALUES (?)", (index,))
            [[number]] = connection.execute("SELECT id FROM lists WHERE index_name = ?", (index,)).fetchall()
            return int(number)

        return self._change(work, None)

    def add_names(self, names: Sequence[str]) -> bool:
        """Take some names of the list, normalised; say whether that succeeded."""
        told = json.dumps(names)
        query = "INSERT OR IGNORE INTO incoming SELECT value FROM json_each(?)"
        return self._change(lambda connection: bool(connection.execute(query, (told,))), instead=False)

    def steps_of_list(self, number: int, index: str, mark: str) -> Iterator[bool]:
        """Yield between transactions while names come and go; at the end ``mark`` stands for the list."""
        failed: str | None = _FAILED
        after: str | None = ""
        while after is not None:
            after = self._change(_insertion(number, after), failed)
            if after == failed:
                return
            yield True
        last = self._do(_last_listed, 0)
        for first in range(0, last, 4 * STEP):
            if not self._change(partial(_delete, number, first, 4 * STEP), instead=False):
                return
            yield True

        def end(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM incoming")
            connection.execute("UPDATE lists SET mark = ? WHERE index_name = ?", (mark, index))

        self._change(end, None)

    # -- looking -------------------------------------------------------------------------------------

    def described(self, index: str, names: Sequence[str]) -> list[Project]:
        """Return what is known of projects of ``index``, normalised."""
        query = """SELECT name, shown, summary, version, is_uploaded, is_cached FROM known
            WHERE index_name = ? AND name IN (SELECT value FROM json_each(?))"""
        values = index, json.dumps(list(names))
        rows: list[tuple[str, str, str, str, int, int]] = []
        rows = self._do(lambda connection: connection.execute(query, values).fetchall(), rows)
        return [
            Project(index, name, shown, summary, version, bool(is_uploaded), bool(is_cached), is_known=True)
            for name, shown, summary, version, is_uploaded, is_cached in rows
        ]

    def find(self, words: Sequence[str], indexes: Sequence[str], most: int, *, each: bool = False) -> list[Project]:
        """Return projects of ``indexes`` that have all ``words`` (of ``search_query.words_of``), the best first.

        Of one that several indexes have, the first has it, unless ``each`` is wanted of.
        """
        if not words or not indexes:
            return []
        return self._do(lambda connection: find(connection, words, indexes, most, each=each), [])


class _OtherSchema(sqlite3.DatabaseError):
    """It belongs to an older or newer teepi."""


def _is_damage(error: Exception) -> bool:
    """Say whether a new database helps."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    is_malformed = code == sqlite3.SQLITE_ERROR and "no such table" in str(error)
    return isinstance(error, _OtherSchema) or is_malformed or code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _create(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        for statement in _TABLES:
            connection.execute(statement)


def _insertion(number: int, after: str | None) -> Callable[[sqlite3.Connection], str | None]:
    """Return what takes over the next names, and gives the last of them, None at the end."""

    def insert(connection: sqlite3.Connection) -> str | None:
        query = "SELECT max(name) FROM (SELECT name FROM incoming WHERE name > ? ORDER BY name LIMIT ?)"
        [[last]] = connection.execute(query, (after, STEP)).fetchall()
        if last is not None:
            connection.execute(_ANEW, (number, after, last))
        return None if last is None else str(last)

    return insert


def _delete(number: int, first: int, count: int, connection: sqlite3.Connection) -> bool:
    """Delete names that the list has no more, of those that follow ``first``."""
    connection.execute(_GONE, (number, first, count))
    return True


def _last_listed(connection: sqlite3.Connection) -> int:
    [[last]] = connection.execute("SELECT max(id) FROM listed").fetchall()
    return last or 0
