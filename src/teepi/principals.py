"""Who a request says it is from: user and secret out of its headers. Whether that is true is for others to say."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple


class Given(NamedTuple):
    """What a client sent; nothing of it is verified."""

    user: str
    secret: str
    """Password, login token or API token."""

    def __repr__(self) -> str:
        """Return it without the secret: it may end up in a log."""
        return f"Given(user={self.user!r}, secret=…)"


def given(authorization: str | None, devpi_auth: str | None) -> Given | None:
    """Return what ``Authorization`` and ``X-Devpi-Auth`` say, None when that is nothing that can be read.

    devpi's header goes first: the other may be for a proxy before us. It alone is asked when it is there, even when it
    cannot be read, so that nobody acts under another name than was meant.
    """
    if devpi_auth is not None:
        return _pair(devpi_auth)
    scheme, _, value = (authorization or "").strip().partition(" ")
    return _pair(value) if scheme.lower() == "basic" else None  # RFC 9110, 11.1: schemes have no case


def _pair(value: str) -> Given | None:
    """Return the user-id and password of RFC 7617, 2; its charset is UTF-8 (2.1)."""
    try:
        text = base64.b64decode(value.strip().encode("ascii"), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeError):
        return None
    user, colon, secret = text.partition(":")
    if not (user and colon) or any(each < " " or each == "\x7f" for each in text):  # RFC 7617, 2: no controls
        return None
    return Given(user, secret)
