"""Where tables and keys stand in a TOML file.

Lines are looked at, not parsed; ``known`` compares what ``tomllib`` reads before and after, so that a look-alike in a
multi-line string leads to a refusal and never to a wrong file.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any, Final

from teepi.clients.marks import Edit, lines_of

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_\"'.\s-]+?)\s*\]\]?\s*(?:#.*)?$")


@dataclass(frozen=True, slots=True)
class Table:
    """``start`` is the line of its header; ``stop`` is behind its last line that is no comment."""

    name: str
    is_item: bool
    """Of an array of tables: ``[[name]]``."""
    start: int
    stop: int


def read(text: str) -> dict[str, Any]:
    """Return the content. Raises ValueError with the reason and the line."""
    return tomllib.loads(text)  # TOMLDecodeError is a ValueError


def tables(text: str) -> list[Table]:
    """Return all tables in order."""
    lines = lines_of(text)
    headers = [(number, found) for number, line in enumerate(lines) if (found := _HEADER.match(line.rstrip()))]
    ends = [*(number for number, _ in headers[1:]), len(lines)]
    return [
        Table(re.sub(r"[\s\"']", "", found[2]), found[1] == "[[", start, _end(lines, start, until))
        for (start, found), until in zip(headers, ends, strict=False)
    ]


def _end(lines: list[str], start: int, until: int) -> int:
    while until > start + 1 and (not lines[until - 1].strip() or lines[until - 1].lstrip().startswith("#")):
        until -= 1
    return until


def append(text: str, *lines: str) -> Edit:
    """Return the edit that puts ``lines`` at the end."""
    end = len(lines_of(text))
    return Edit(end, end, lines)


def set_key(text: str, table: str, key: str, written: str) -> Edit:
    """Return the edit that puts the line ``key = written`` into ``table``, which may be missing or dotted."""
    lines = lines_of(text)
    found = next((each for each in tables(text) if each.name == table and not each.is_item), None)
    if found is not None:
        pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
        for number in range(found.start + 1, found.stop):
            if pattern.match(lines[number]):
                return Edit(number, number + 1, (f"{key} = {written}",))
        return Edit(found.start + 1, found.start + 1, (f"{key} = {written}",))
    first = next((each.start for each in tables(text)), len(lines))
    dotted = re.compile(rf"\s*[\"']?{re.escape(table)}[\"']?\s*\.\s*(?P<key>[\"']?{re.escape(key)}[\"']?\s*=)?")
    others = [(number, at) for number in range(first) if (at := dotted.match(lines[number]))]
    for number, at in others:
        if at["key"]:
            return Edit(number, number + 1, (f"{table}.{key} = {written}",))
    if others:  # a table that has dotted keys cannot be opened again
        return Edit(others[0][0], others[0][0], (f"{table}.{key} = {written}",))
    return append(text, f"[{table}]", f"{key} = {written}")
