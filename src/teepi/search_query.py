"""What is searched for, and how SQLite is asked: words, the order of what is found, and who owns a name.

The tables are those of ``search_store``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

_SPLIT: Final = re.compile(r"[\W_]+")
_MOST_WORDS: Final = 8
_LONGEST_WORD: Final = 64
_TRIGRAM: Final = 3
_CANDIDATES: Final = 5000  # that are looked at for one answer; the best names are among them by another way
_INDEXES_COUNTED: Final = 6
_IN_NAME, _IN_SUMMARY = 2, 3  # tiers: 0 is the name itself, 1 its begin
_LISTED: Final = "SELECT list_id, name FROM listed"
_OF: Final = "index_name IN (SELECT value FROM json_each(:indexes))"


@dataclass(frozen=True, slots=True)
class Project:
    """What is said of a project."""

    index: str
    name: str
    """Normalised (PEP 503)."""
    shown: str
    """As its makers spell it."""
    summary: str = ""
    version: str = ""
    """The newest; empty where none is known."""
    is_uploaded: bool = False
    is_cached: bool = False
    """Whether files of it are in the cache."""
    is_known: bool = False
    """More than a list tells of it."""


def words_of(query: str) -> list[str]:
    """Return the words of ``query``, each once, without any character that FTS5 has a meaning for."""
    found = (word[:_LONGEST_WORD] for word in _SPLIT.split(query.casefold()) if word)
    return list(dict.fromkeys(found))[:_MOST_WORDS]


@dataclass(frozen=True, slots=True)
class _Question:
    words: Sequence[str]
    values: dict[str, Any]

    @property
    def match(self) -> str:
        """FTS5's expression for the words that are long enough; a word has no character with a meaning there."""
        return " AND ".join(f'"{word}"' for word in self.words if len(word) >= _TRIGRAM)

    def has_all(self, text: str, *, short_only: bool = False) -> str:
        """Return the condition that the words are in ``text``."""
        terms = [
            f"instr({text}, :w{at}) > 0" for at, word in enumerate(self.words) if not short_only or len(word) < _TRIGRAM
        ]
        return " AND ".join(terms) or "true"


def find(
    connection: sqlite3.Connection, words: Sequence[str], indexes: Sequence[str], most: int, *, each: bool
) -> list[Project]:
    """Return what :meth:`SearchStore.find` does. Raises :class:`sqlite3.Error`."""
    joined = "-".join(words)
    values = {f"w{at}": word for at, word in enumerate(words)}
    values |= {"joined": joined, "begin": joined, "end": joined + "~", "indexes": json.dumps(list(indexes))}
    # Enough when all indexes but the first have the best ones, too.
    kept = min(_CANDIDATES, most * min(1 + len(indexes), _INDEXES_COUNTED))
    question = _Question(words, {**values, "most": _CANDIDATES, "kept": kept})
    values = question.values | {"match": question.match}
    places = {index: place for place, index in reversed(list(enumerate(indexes)))}
    found: dict[tuple[str, str], tuple[tuple[Any, ...], Project]] = {}
    for index, name, shown, summary, version, is_uploaded, is_cached, tier, score in connection.execute(
        _known_query(question), values
    ):
        project = Project(index, name, shown, summary, version, bool(is_uploaded), bool(is_cached), is_known=True)
        found[name, index] = (tier, 0, len(name) if tier <= _IN_NAME else score, name), project
    lists: dict[int, str] = dict(connection.execute(f"SELECT id, index_name FROM lists WHERE {_OF}", values))  # noqa: S608 - of ours
    values["lists"] = json.dumps(list(lists))
    for query in _listed_queries(question) if lists else ():
        for number, name in connection.execute(query, values):
            index = lists[number]
            tier = 0 if name == joined else 1 if name.startswith(joined) else _IN_NAME
            found.setdefault((name, index), ((tier, 1, len(name), name), Project(index, name, name)))
    ranked = sorted(found.values(), key=lambda hit: (*hit[0], places[hit[1].index]))
    if not each:
        # A summary may have the words where the index before has the project without them.
        by_summary = [project.name for rank, project in ranked if rank[0] == _IN_SUMMARY]
        owners = _owners(connection, by_summary, places)
        for _, project in ranked:
            place = places[project.index]
            owners[project.name] = min(place, owners.get(project.name, place))
        ranked = [hit for hit in ranked if owners[hit[1].name] == places[hit[1].index]]
    return [project for _, project in ranked[:most]]


def _known_query(question: _Question) -> str:
    text = "lower(name || ' ' || shown || ' ' || summary)"
    matched = "(SELECT NULL AS at, 0 AS score)"
    join = "true"
    if question.match:
        matched = """(SELECT rowid AS at, bm25(known_words, 10.0, 1.0) AS score FROM known_words
            WHERE known_words MATCH :match LIMIT :most)"""
        join = "id = at"
    return f"""SELECT index_name, name, shown, summary, version, is_uploaded, is_cached,
        CASE WHEN name = :joined THEN 0 WHEN name >= :begin AND name < :end THEN 1
        WHEN {question.has_all("name")} THEN {_IN_NAME} ELSE {_IN_SUMMARY} END AS tier, score
        FROM {matched} JOIN known ON {join}
        WHERE {_OF} AND {question.has_all(text, short_only=True)}
        ORDER BY tier, CASE WHEN tier <= {_IN_NAME} THEN length(name) ELSE score END, name LIMIT :kept"""  # noqa: S608 - words are bound, each by its place


def _listed_queries(question: _Question) -> Iterator[str]:
    """Yield one query for names that begin so, which are the best, and one for those that have the words anywhere."""
    best = "ORDER BY length(name), name LIMIT :kept"
    of = "list_id IN (SELECT value FROM json_each(:lists))"
    yield f"{_LISTED} WHERE name >= :begin AND name < :end AND {of} {best}"
    if question.match:
        yield f"""{_LISTED} WHERE id IN (SELECT rowid FROM listed_words WHERE listed_words MATCH :match LIMIT :most)
            AND {question.has_all("name", short_only=True)} AND {of} {best}"""  # noqa: S608 - words are bound, each by its place


def _owners(connection: sqlite3.Connection, names: Sequence[str], places: dict[str, int]) -> dict[str, int]:
    """Return the first place where each of ``names`` is."""
    wanted = "IN (SELECT value FROM json_each(?1))"
    query = f"""SELECT name, index_name FROM known WHERE name {wanted} UNION ALL
        SELECT listed.name, index_name FROM listed JOIN lists ON lists.id = list_id WHERE listed.name {wanted}"""  # noqa: S608 - of ours
    owners: dict[str, int] = {}
    for name, index in connection.execute(query, (json.dumps(names),)):
        if index in places:
            owners[name] = min(places[index], owners.get(name, places[index]))
    return owners
