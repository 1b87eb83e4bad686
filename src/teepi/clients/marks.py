"""Lines between teepi's marks in a text that belongs to somebody else; INI, TOML and shells all have ``#`` comments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

OPENING: Final = "# >>> teepi configure >>>"
CLOSING: Final = "# <<< teepi configure <<<"
_FORMER: Final = "# was: "
_NEW_FILE: Final = " new file"
_NO_NEWLINE: Final = " no newline before"
_BLOCK: Final = re.compile(
    rf"^{OPENING}(?P<note>[^\r\n]*)(?P<end>\r?\n)"
    rf"(?P<inner>(?:(?!{OPENING}).*\n)*?){CLOSING}[ \t]*\r?(?:\n|\Z)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines ``start`` up to ``stop`` (numbered from 0) give way to ``lines``, which have no line ends."""

    start: int
    stop: int
    lines: tuple[str, ...]


def lines_of(text: str) -> list[str]:
    """Split at LF only, line ends kept; :class:`Edit` counts these."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def insert(text: str, edits: Sequence[Edit], *, is_new_file: bool = False) -> str:
    """Return ``text``, which has no marks, with ``edits`` between marks. Line ends are as in its first line."""
    lines = lines_of(text)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        former, note = lines[edit.start : edit.stop], _NEW_FILE if is_new_file else ""
        last = lines[edit.stop - 1] if edit.stop else "\n"  # of what comes before the mark once this is undone
        if edit.stop == len(lines) and not last.endswith("\n"):
            note += _NO_NEWLINE
            lines[edit.stop - 1] += end
            former = lines[edit.start : edit.stop]
        lines[edit.start : edit.stop] = [
            OPENING + note + end,
            *(_FORMER + line for line in former),
            *(line + end for line in edit.lines),
            CLOSING + end,
        ]
    return "".join(lines)


def remove(text: str) -> str:
    """Return ``text`` without marks and what is between them, with the lines that stood there before.

    Raises ValueError where a mark has lost its other one.
    """
    parts, at, block = [], 0, None
    for block in _BLOCK.finditer(text):
        inner = lines_of(block["inner"])
        parts += [text[at : block.start()], *(line[len(_FORMER) :] for line in inner if line.startswith(_FORMER))]
        at = block.end()
    parts.append(text[at:])
    before = "".join(parts)
    if any(line.startswith((OPENING, CLOSING)) for line in lines_of(before)):
        raise ValueError("a mark of 'teepi configure' has lost its other one")
    if block is not None and block.end() == len(text) and _NO_NEWLINE in block["note"]:
        before = before.removesuffix(block["end"])
    return before


def has_marks(text: str) -> bool:
    """Whether there are lines of teepi's."""
    return _BLOCK.search(text) is not None


def is_new_file(text: str) -> bool:
    """Whether the file was made for teepi's lines."""
    return any(_NEW_FILE in block["note"] for block in _BLOCK.finditer(text))
