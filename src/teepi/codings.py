"""Content codings of index pages (RFC 9110, 8.4): which one a client gets, and the encoded bytes. No IO.

Files and core metadata are never encoded: their bytes are what digests are made of.
"""

from __future__ import annotations

import sys
from enum import Enum
from typing import Final

from isal import igzip

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LEAST_BYTES: Final = 1000  # below about one packet a coding saves nothing
_GZIP_LEVEL: Final = 2  # isal's 2 is zlib's 6 in size at a tenth of its time
_ZSTD_LEVEL: Final = 3


class Coding(Enum):
    """The codings that pages come in; the value is what Content-Encoding says."""

    IDENTITY = "identity"
    GZIP = "gzip"
    ZSTD = "zstd"


# By what a client is best served with when it takes several alike.
_ORDER: Final = (Coding.ZSTD, Coding.GZIP, Coding.IDENTITY)
_NAMES: Final = {"zstd": Coding.ZSTD, "gzip": Coding.GZIP, "x-gzip": Coding.GZIP, "identity": Coding.IDENTITY}


def choose_coding(accept_encoding: str | None) -> Coding:
    """Choose the coding by the value of Accept-Encoding (RFC 9110, 12.5.3).

    Identity is the answer to a header that is absent, that names nothing we have, or that excludes everything.
    """
    weights = _weights(accept_encoding)
    acceptable = [coding for coding in _ORDER if weights.get(coding, 0.0) > 0]
    return max(acceptable, key=lambda coding: weights[coding], default=Coding.IDENTITY)


def takes(accept_encoding: str | None, coding: Coding) -> bool:
    """Whether a client with this Accept-Encoding takes ``coding`` at all."""
    return _weights(accept_encoding).get(coding, 0.0) > 0


def _weights(accept_encoding: str | None) -> dict[Coding, float]:
    weights: dict[Coding, float] = {}
    rest: float | None = None
    for part in (accept_encoding or "").split(","):
        name, _, parameters = part.strip(" \t").partition(";")
        weight = _weight(parameters)
        coding = _NAMES.get(name.strip(" \t").lower())
        if weight is None:
            continue
        if coding is not None:
            weights[coding] = weight
        elif name.strip(" \t") == "*":
            rest = weight
    if rest is not None:
        for coding in _ORDER:
            weights.setdefault(coding, rest)
    return weights


def _weight(parameters: str) -> float | None:
    if not parameters.strip(" \t"):
        return 1.0
    name, _, value = parameters.strip(" \t").partition("=")
    try:
        weight = float(value)
    except ValueError:
        return None
    return weight if name.strip(" \t").lower() == "q" and 0 <= weight <= 1 else None


def encode(body: bytes, coding: Coding) -> bytes:
    """Return ``body`` in ``coding``, the same bytes each time."""
    if coding is Coding.GZIP:
        return igzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0)
    if coding is Coding.ZSTD:
        return zstd.compress(body, level=_ZSTD_LEVEL)
    return body


def worth_encoding(body: bytes) -> bool:
    """Whether ``body`` is long enough for a coding to save anything."""
    return len(body) >= _LEAST_BYTES
