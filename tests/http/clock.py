"""A clock in the test's hands: nothing waits for a page to grow old."""

from __future__ import annotations

import time

import pytest


class Clock:
    """Stands for the ``time`` module in what judges the age of pages."""

    def __init__(self) -> None:
        """Begin at the real times."""
        self.ahead = 0.0
        self.wall_ahead = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.ahead += seconds

    def monotonic(self) -> float:
        """Return the monotonic clock."""
        return time.monotonic() + self.ahead

    def time(self) -> float:
        """Return the wall clock."""
        return time.time() + self.ahead + self.wall_ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the clock of all that judges ages into the test's hands."""
    clock = Clock()
    for module in ("pages", "revalidation", "lists", "legacy", "indexes", "web.simple", "web.hot"):
        monkeypatch.setattr(f"teepi.{module}.time", clock)
    return clock
