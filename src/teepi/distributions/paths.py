"""Paths of members: what an installer may write below one directory, and nothing else."""

from __future__ import annotations

import re
from typing import Final

from teepi.distributions.refusal import quoted_path, refusal

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_LONGEST_PATH: Final = 4096


def check_path(path: str) -> str:
    """Return a member's path without a directory's slash. Raises :class:`BadUpload` where it could lead outside."""
    plain = path.removesuffix("/")
    if (
        not plain
        or len(plain) > _LONGEST_PATH
        or "\\" in plain
        or _CONTROL.search(plain)
        or _DRIVE.match(plain)
        or any(part in {"", ".", ".."} for part in plain.split("/"))
    ):
        raise refusal(f"A member of the archive is called {quoted_path(path)}, which no installer should unpack.")
    return plain
