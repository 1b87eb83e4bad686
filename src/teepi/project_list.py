"""The project list of an index, read piece by piece: a real one has 650,000 names and 40 MB.

No IO: bytes in, names and bytes out, and never more than a piece and one project in memory. It is read in JSON or
HTML (PEP 503, 691); pages of projects are read in ``simple_api``.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote

import msgspec
from packaging.utils import canonicalize_name

from teepi.errors import BadPage
from teepi.simple_html import is_for_people

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HTML_HEAD: Final = (
    b'<!DOCTYPE html>\n<html><head><meta name="pypi:repository-version" content="1.0">'
    b"<title>Simple index</title></head>\n<body>\n"
)
HTML_TAIL: Final = b"</body></html>\n"
JSON_HEAD: Final = b'{"meta":{"api-version":"1.0"},"projects":['
JSON_TAIL: Final = b"]}\n"

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # PEP 508
_LONGEST_BYTES: Final = 1 << 20  # of one project, or of what stands before or behind all of them
_PROJECTS: Final = re.compile(rb'"projects"\s*:\s*\[')
_COMMA: Final = re.compile(rb"\s*,\s*")
_CUTS: Final = 8  # tries to find where a project ends: a brace may stand in a string or a nested object
# Bounded, so that a page of opening tags alone costs no more than its length.
_ANCHOR: Final = re.compile(rb"<a\b([^>]{0,2000})>(.{0,500}?)</a\s*>", re.IGNORECASE | re.DOTALL)
_ANCHOR_BYTES: Final = 4096  # no shorter than what _ANCHOR matches
_HREF: Final = re.compile(rb"""href\s*=\s*["']?([^"'\s>?#]+)""", re.IGNORECASE)
_TAG: Final = re.compile(rb"<[^>]*>")


class Names(Protocol):
    """Takes a list in pieces and gives the names in it, as upstream spells them."""

    def feed(self, data: bytes) -> list[str]:
        """Take the next bytes; return the names that are complete now. Raises :class:`BadPage`."""

    def finish(self) -> list[str]:
        """Return the last names; raise :class:`BadPage` when what came was no whole list."""


def names_of(content_type: str, first: bytes, said: str) -> tuple[Names, bool]:
    """Return what reads a list with these ``first`` bytes, and whether it is JSON; ``said`` names it in errors."""
    media_type = content_type.partition(";")[0].strip().lower()
    is_json = media_type.endswith(("+json", "/json")) or first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    return (JsonNames(said) if is_json else HtmlNames(said)), is_json


def html_of(names: Iterable[str]) -> bytes:
    """Render names as anchors (PEP 503); what is no name of a project is left out."""
    return "".join(
        [f'<a href="{canonicalize_name(name)}/">{name}</a><br/>\n' for name in names if _NAME.fullmatch(name)]
    ).encode()


def json_of(names: Iterable[str], *, first: bool) -> bytes:
    """Render names as elements of ``projects`` (PEP 691); ``first`` when none has been before."""
    elements = ",".join([f'{{"name":"{name}"}}' for name in names if _NAME.fullmatch(name)])
    return (elements if first or not elements else "," + elements).encode()


def lines_of(names: Iterable[str], number: int) -> list[bytes]:
    """Return a line for each name: such that sorted, all spellings of one stand together, the first of them first.

    ``number`` is that of the first name. What is no name of a project is left out.
    """
    return [
        f"{canonicalize_name(name)} {at:012d} {name}\n".encode()
        for at, name in enumerate(names, number)
        if _NAME.fullmatch(name)
    ]


def first_spellings(lines: Iterable[bytes]) -> Iterator[str]:
    """Return each name once, as it was spelt first, from sorted lines of :func:`lines_of`."""
    last = b""
    for line in lines:
        project, _, name = line.split()
        if project != last:
            yield name.decode()
        last = project


class _Project(msgspec.Struct):
    name: Any = None


_projects = msgspec.json.Decoder(list[_Project])


class JsonNames:
    """Reads PEP 691's form. Each piece is cut behind its last whole project and decoded by itself."""

    def __init__(self, said: str) -> None:
        """``said`` is the URL as it may be shown."""
        self._said = said
        self._rest = b""
        self._lead = b""
        """What stands before the first project; empty until it has come."""

    def feed(self, data: bytes) -> list[str]:
        """See :class:`Names`."""
        self._rest = rest = self._rest + data if self._rest else data
        names: list[str] = []
        if self._lead or self._enter():
            names = self._take()
        if len(self._rest) > _LONGEST_BYTES and len(self._rest) >= len(rest):
            raise BadPage(
                f"The project list at {self._said} is not one: no project ends within {_LONGEST_BYTES} bytes."
            )
        return names

    def finish(self) -> list[str]:
        """See :class:`Names`."""
        try:
            document = msgspec.json.decode(self._lead + self._rest)
            projects = document["projects"]
            version = document.get("meta", {}).get("api-version", "1.0")
            names = _told(msgspec.convert(projects, list[_Project]))
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
            RecursionError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            raise BadPage(f"The project list at {self._said} is not a whole list: {error}.") from error
        if not isinstance(version, str) or version.partition(".")[0] != "1":
            raise BadPage(f"The project list at {self._said} has version {version!r}; teepi reads version 1 only.")
        return names

    def _enter(self) -> bool:
        self._rest = self._rest.removeprefix(b"\xef\xbb\xbf")
        for match in _PROJECTS.finditer(self._rest):
            lead = self._rest[: match.end()]
            try:
                document = msgspec.json.decode(lead + b"]}")
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue  # the words stand in something else
            if isinstance(document, dict) and document.get("projects") == []:
                self._lead, self._rest = lead, self._rest[match.end() :]
                return True
        return False

    def _take(self) -> list[str]:
        rest = self._rest
        end = len(rest)
        for _ in range(_CUTS):
            end = rest.rfind(b"}", 0, end)
            if end < 0:
                break
            comma = _COMMA.match(rest, end + 1)
            if comma is None:
                continue  # the end of the list, or of the piece
            try:
                projects = _projects.decode(b"[" + rest[: end + 1] + b"]")
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
            self._rest = rest[comma.end() :]
            return _told(projects)
        return []


class HtmlNames:
    """Reads PEP 503's form: the text of each anchor, or where that is no name the last segment of its href."""

    def __init__(self, said: str) -> None:
        """``said`` is the URL as it may be shown."""
        self._said = said
        self._rest = b""
        self._begin = b""
        self._found = False

    def feed(self, data: bytes) -> list[str]:
        """See :class:`Names`."""
        if len(self._begin) < _LONGEST_BYTES:
            self._begin += data[: _LONGEST_BYTES - len(self._begin)]
        rest = self._rest + data
        names: list[str] = []
        end = 0
        for match in _ANCHOR.finditer(rest):
            end = match.end()
            name = _name_of(match[1], match[2])
            if name is not None:
                names.append(name)
        self._rest = rest[max(end, len(rest) - _ANCHOR_BYTES) :]
        self._found = self._found or bool(names)
        return names

    def finish(self) -> list[str]:
        """See :class:`Names`."""
        if not self._found and (b"<" not in self._begin or is_for_people(self._begin)):
            raise BadPage(f"The answer of {self._said} is not a project list but something of another kind, or empty.")
        return []


def _told(projects: list[_Project]) -> list[str]:
    return [project.name for project in projects if isinstance(project.name, str)]


def _name_of(attributes: bytes, content: bytes) -> str | None:
    text = html.unescape(_TAG.sub(b"", content).decode("utf-8", "replace")).strip()
    if _NAME.fullmatch(text):
        return text
    href = _HREF.search(attributes)
    if href is None:
        return None
    name = unquote(html.unescape(href[1].decode("utf-8", "replace"))).rstrip("/").rpartition("/")[2]
    return name if _NAME.fullmatch(name) else None
