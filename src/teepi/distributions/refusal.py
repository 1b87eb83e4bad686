"""Refusals as one sentence that an HTTP reason phrase can carry: ASCII, one line, short (RFC 9112, 4)."""

from __future__ import annotations

from typing import Final

from teepi.errors import BadUpload

_LONGEST: Final = 200
"""Characters of a sentence: status lines are cut or refused by clients at lengths nobody agrees on."""
_LONGEST_QUOTE: Final = 60
_LONGEST_PATH: Final = 90


def refusal(sentence: str) -> BadUpload:
    """Return the error to raise; what is no printable ASCII becomes an escape."""
    plain = "".join(
        character if character.isascii() and character.isprintable() else ascii(character)[1:-1]
        for character in sentence[:_LONGEST]
    )
    if len(plain) > _LONGEST or len(sentence) > _LONGEST:
        plain = plain[: _LONGEST - 3] + "..."
    return BadUpload(plain)


def quoted(text: str) -> str:
    """Return a user's text in quotes, cut to some 60 characters."""
    return _quoted(text, _LONGEST_QUOTE)


def quoted_path(text: str) -> str:
    """Return a file name or a member's path in quotes, cut to some 90 characters."""
    return _quoted(text, _LONGEST_PATH)


def _quoted(text: str, longest: int) -> str:
    whole = ascii(text[:longest])
    if len(whole) <= longest and len(text) <= longest:
        return whole
    return whole[: longest - 4] + "..." + whole[0]
