"""API tokens: what they look like and what they allow. What headers say about who asks."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import pytest

from teepi import api_tokens
from teepi.api_tokens import Action, ApiToken
from teepi.principals import Given, given

NOW = 1_800_000_000.0
TEXT, ID, DIGEST = api_tokens.new()
TOKEN = ApiToken(
    id=ID,
    user="ann",
    description="CI",
    index="ann/dev",
    may_upload=True,
    may_read=False,
    created_at=NOW,
    expires_at=NOW + 60,
    digest=DIGEST,
)


def test_token_is_recognised_by_its_text_and_stored_as_a_digest() -> None:
    """Prefix, id and 256 random bits; a new one each time; only the whole text is it."""
    assert re.fullmatch(r"teepi_[a-z2-7]{8}_[A-Za-z0-9_-]{43}", TEXT)
    assert api_tokens.id_of(TEXT) == ID
    assert re.fullmatch(r"[0-9a-f]{64}", DIGEST)
    assert TOKEN.is_text(TEXT)
    other = api_tokens.new()
    assert other.id != ID
    for text in (other.text, TEXT[:-1], TEXT + "\n", DIGEST, "", "\ud800"):
        assert not TOKEN.is_text(text)


def test_id_of_what_is_no_token_is_none() -> None:
    """Then it is a password."""
    for text in ("", "teepi_", TEXT[:-1], TEXT + "x", TEXT + "\n", " " + TEXT, TEXT.upper(), "pässwort"):
        assert api_tokens.id_of(text) is None


@pytest.mark.parametrize(
    ("token", "action", "index", "now", "expected"),
    [
        (TOKEN, "upload", "ann/dev", NOW, True),
        (TOKEN, "read", "ann/dev", NOW, False),
        (TOKEN, "upload", "ann/prod", NOW, False),
        (TOKEN, "upload", "ann/dev", NOW + 59, True),
        (TOKEN, "upload", "ann/dev", NOW + 60, False),
        (replace(TOKEN, expires_at=None), "upload", "ann/dev", NOW * 2, True),
        (replace(TOKEN, index=None), "upload", "ann/prod", NOW, True),
        (replace(TOKEN, may_upload=False, may_read=True), "read", "ann/dev", NOW, True),
        (replace(TOKEN, may_upload=False, may_read=True), "upload", "ann/dev", NOW, False),
    ],
)
def test_token_allows_its_actions_on_its_index_until_it_expires(
    token: ApiToken, action: Action, index: str, now: float, *, expected: bool
) -> None:
    """Nothing else."""
    assert token.allows(action, index, now) is expected


def encoded(text: str) -> str:
    """Return Base64."""
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "devpi_auth", "expected"),
    [
        (None, None, None),
        (f"Basic {encoded('ann:secret')}", None, ("ann", "secret")),
        (f"bAsIc   {encoded('ann:secret')} ", None, ("ann", "secret")),
        (None, encoded("ann:secret"), ("ann", "secret")),
        (f"Basic {encoded('proxy:x')}", encoded("ann:secret"), ("ann", "secret")),
        (f"Basic {encoded('proxy:x')}", "nonsense", None),
        (f"Basic {encoded('ann:a:b')}", None, ("ann", "a:b")),
        (f"Basic {encoded('ann:')}", None, ("ann", "")),
        (f"Basic {encoded('jürgen:grün')}", None, ("jürgen", "grün")),
        (f"Basic {encoded(':secret')}", None, None),
        (f"Basic {encoded('ann')}", None, None),
        (f"Basic {encoded('ann:a' + chr(10) + 'b')}", None, None),
        (f"Basic {base64.b64encode(b'ann:' + bytes([255])).decode()}", None, None),
        ("Basic !!!!", None, None),
        (f"Basic !{encoded('ann:secret')}", None, None),
        (f"Basic {encoded('proxy:x')}", "", None),
        ("Basic YW5uOng", None, None),
        ("Basic ü", None, None),
        ("Basic", None, None),
        ("", "", None),
        (f"Bearer {encoded('ann:secret')}", None, None),
    ],
)
def test_given_reads_what_the_headers_say(
    authorization: str | None, devpi_auth: str | None, expected: tuple[str, str] | None
) -> None:
    """RFC 7617 in UTF-8; devpi's header goes first; what cannot be read says nothing."""
    assert given(authorization, devpi_auth) == expected


def test_given_does_not_show_its_secret() -> None:
    """Wherever it is logged by mistake."""
    assert "secret1" not in f"{Given('ann', 'secret1')} {Given('ann', 'secret1')!r}"
