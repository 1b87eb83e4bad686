"""Sizes and numbers as people write and read them: ``50GB``, ``20GiB``, ``1500000``, ``1 file``."""

from __future__ import annotations

import re
from typing import Final

_FACTORS: Final = {
    "": 1,
    "b": 1,
    **{prefix + "b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{prefix + "ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}
_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([A-Za-z]{0,3})")
_STEP: Final = 1000


def parse_size(value: str | int) -> int:
    """Return bytes. Raises ValueError saying what is expected."""
    found = _SIZE.fullmatch(str(value).strip())
    factor = None if found is None else _FACTORS.get(found[2].lower())
    if found is None or factor is None:
        raise ValueError("write a size such as 50GB, 20GiB or a number of bytes")
    return int(float(found[1]) * factor) if "." in found[1] else int(found[1]) * factor


def counted(number: int, noun: str) -> str:
    """Return ``1 file`` or ``2 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def said(size: float) -> str:
    """Return bytes for people, in units of 1000 as disks are sold, with up to three figures: ``12.3 MB``."""
    if abs(size) < _STEP:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB", "TB"):
        size /= _STEP
        if abs(size) < _STEP - 0.5 or unit == "TB":  # else it would be rounded to four
            break
    return f"{size:.1f} {unit}" if abs(size) < 99.95 else f"{size:.0f} {unit}"  # noqa: PLR2004 - three figures
