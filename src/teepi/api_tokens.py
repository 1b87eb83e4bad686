"""API tokens: passwords for machines, each for one user, one index or all, to upload or to read. Does no IO.

Their secrets are 256 random bits, which nobody guesses as one does a password: a plain digest is stored.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

_PREFIX: Final = "teepi_"
"""Lets scanners for secrets, and people, see what was pasted."""
_TEXT: Final = re.compile(_PREFIX + r"(?P<id>[a-z2-7]{8})_[A-Za-z0-9_-]{43}")

Action = Literal["upload", "read"]


class NewToken(NamedTuple):
    """What is made for a new token."""

    text: str
    """Shown once, never stored."""
    id: str
    digest: str
    """SHA-256 of the text, hexadecimal."""


def new() -> NewToken:
    """Return the text of a new token, its id (40 random bits: the caller tries again if it is taken) and its digest."""
    token_id = base64.b32encode(secrets.token_bytes(5)).decode().lower()
    text = f"{_PREFIX}{token_id}_{secrets.token_urlsafe(32)}"
    return NewToken(text, token_id, _digest(text))


def id_of(text: str) -> str | None:
    """Return the id in what was sent as a password, None when that is no API token."""
    found = _TEXT.fullmatch(text)
    return found["id"] if found is not None else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class ApiToken:
    """What is stored of a token."""

    id: str
    """Eight of ``a-z2-7``; public."""
    user: str
    """Whose rights it has at most."""
    description: str
    index: str | None
    """The only index (``user/name``) that it opens; None for all."""
    may_upload: bool
    may_read: bool
    created_at: float
    """Seconds since 1970."""
    expires_at: float | None
    """Seconds since 1970; None for never."""
    digest: str
    """SHA-256 of the text, hexadecimal."""

    def is_text(self, text: str) -> bool:
        """Whether ``text`` is this token; takes the same time however much of it is right."""
        return hmac.compare_digest(_digest(text), self.digest)

    def holds(self, now: float) -> bool:
        """Whether it has not expired at ``now`` (seconds since 1970)."""
        return self.expires_at is None or now < self.expires_at

    def allows(self, action: Action, index: str, now: float) -> bool:
        """Whether it may be used for ``action`` on ``index`` (``user/name``) at ``now`` (seconds since 1970).

        The rights of the user are asked besides.
        """
        if not self.holds(now):
            return False
        if self.index is not None and index != self.index:
            return False
        return self.may_upload if action == "upload" else self.may_read
