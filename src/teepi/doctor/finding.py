"""What a probe is asked, and what it answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from teepi.clients.known import Surroundings
    from teepi.config import Settings


class State(StrEnum):
    """How it stands."""

    WELL = "well"
    NOTE = "note"
    """Neither good nor bad."""
    DOUBT = "doubt"
    """It works, but not as it should."""
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    state: State
    what: str
    said: str
    """A sentence without its full stop."""
    remedy: str = ""
    """What to do, a sentence; empty where all is well."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What there is to look at."""

    settings: Settings | None
    """None when they cannot be used."""
    server: str
    """URL of teepi, ``/`` at its end."""
    around: Surroundings
    """Of clients."""
    certificate: Path | None = None
    """By which the server is known when it is the one of the settings; None: by the system's authorities."""


async def in_thread(work: Callable[[], list[Finding]]) -> list[Finding]:
    """Run blocking ``work`` in a thread of its own, which nobody waits for at the end: a dead mount never answers."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[Finding]] = loop.create_future()

    def finish(result: list[Finding] | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result or [])

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - told where it is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, daemon=True, name="doctor").start()
    return await done
