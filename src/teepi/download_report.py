"""What is told of a download that has ended: a line in the log, and an entry of the page for people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from teepi.errors import Mismatch
from teepi.metrics import Ended
from teepi.sizes import said

if TYPE_CHECKING:
    from teepi.download import Download
    from teepi.errors import TeepiError


def ended(download: Download, seconds: float, error: TeepiError | None, *, is_committed: bool) -> Ended:
    """Return what the page for people shows of a download that took ``seconds``."""
    if isinstance(error, Mismatch):
        outcome = "wrong digest, not kept"
    elif error is not None:
        outcome = "broke off"
    else:
        outcome = "" if is_committed else "passed through, not kept"
    return Ended(download.public_name, download.arrived, download.clients, seconds, time.time(), outcome)


def line(download: Download, seconds: float) -> str:
    """Return the line about a download that has been committed."""
    parts = [
        f"{download.name} {said(download.arrived)}",
        "1 fetch",
        "1 client" if download.clients == 1 else f"{download.clients} clients",
        f"{_brief(seconds)} s",
    ]
    if download.resumes:
        parts.append("resumed once" if download.resumes == 1 else f"resumed {download.resumes} times")
    return ", ".join(parts) + "."


def _brief(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"  # noqa: PLR2004 - two digits are enough
