"""How much an uploaded archive may unpack to."""

from __future__ import annotations

from typing import Final

from teepi.distributions.refusal import refusal

MEMBERS: Final = 100_000
"""Members of one archive; the largest known wheels have some 20,000."""
_ANY_RATIO_BYTES: Final = 64 << 20
"""Up to so much, the ratio does not matter: a small package of tables shrinks to almost nothing."""
_RATIO: Final = 100
"""Times the size of the upload; code shrinks to a fourth, data to a twentieth, zeros to a thousandth."""
_MOST_BYTES: Final = 16 << 30


def unpacked_limit(size: int) -> int:
    """Return how many bytes an archive of ``size`` bytes may unpack to."""
    return min(_MOST_BYTES, max(_ANY_RATIO_BYTES, _RATIO * size))


def check_unpacked(unpacked: int, limit: int) -> None:
    """Raise :class:`BadUpload` when more than ``limit`` bytes come out of an archive."""
    if unpacked > limit:
        raise refusal(f"The archive unpacks to more than {limit} bytes, which is suspiciously much for its size.")
