"""Samples by how much the event loop is late: what every request waits for when something blocks it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from teepi.metrics import Histogram

_EVERY_SECONDS: Final = 0.5  # two wake-ups a second are nothing; uvloop's timers are a millisecond coarse
_KEPT: Final = 120  # samples: a minute


class LoopLag:
    """The event loop's lag."""

    def __init__(self, histogram: Histogram) -> None:
        """Count into ``histogram``."""
        self._histogram = histogram
        self._recent: deque[float] = deque(maxlen=_KEPT)

    @property
    def max_seconds(self) -> float:
        """The most within the last minute."""
        return max(self._recent, default=0.0)

    def note(self, lag_seconds: float) -> None:
        """Count one sample."""
        self._recent.append(lag_seconds)
        self._histogram.observe(lag_seconds)

    async def sample_forever(self) -> None:
        """Sleep and see how much longer that takes than asked for."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(_EVERY_SECONDS)
            self.note(max(0.0, time.monotonic() - began - _EVERY_SECONDS))
