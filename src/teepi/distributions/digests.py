"""The digests that an upload's form claims, against those of the bytes that came."""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Final

from teepi.distributions.claims import text
from teepi.distributions.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from teepi.distributions.claims import Claims

_BLAKE2_512_HEX: Final = 128


def check_digests(claims: Claims, sha256: str, md5: str, blake2b_256: str) -> None:
    """Compare the form's digests with those of the file, which are given in hex.

    A form has hex, or urlsafe base64 without padding (the upload API's documentation asks that of ``md5_digest``).
    Raises :class:`BadUpload` naming the digest that differs. A field that is missing or empty claims nothing.
    """
    computed: Mapping[str, str] = {"sha256_digest": sha256, "md5_digest": md5, "blake2_256_digest": blake2b_256}
    for field, digest in computed.items():
        claimed = text(claims, field)
        if not claimed or (field == "blake2_256_digest" and len(claimed) == _BLAKE2_512_HEX):
            continue  # distutils sent the 512 bits of plain BLAKE2b under this name: nothing to compare with
        raw = bytes.fromhex(digest)
        spellings = (raw.hex(), base64.urlsafe_b64encode(raw).decode().rstrip("="))
        given = claimed.lower() if len(claimed) == len(spellings[0]) else claimed.rstrip("=")
        if not any(hmac.compare_digest(given.encode(), spelling.encode()) for spelling in spellings):
            raise refusal(f"{field} does not match the uploaded file, which arrived damaged or is another file.")
