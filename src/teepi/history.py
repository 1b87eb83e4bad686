"""Hits and bytes over time, for people: by the minute for a day, by the hour for thirty days.

Once a minute what the counters have grown by goes into two rings; a request costs nothing more. A small file keeps them
over a restart; after ``kill -9`` ten minutes are missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from teepi.tasks import in_executor

if TYPE_CHECKING:
    from teepi.metrics import Metrics
    from teepi.store import Store

log = logging.getLogger(__name__)

MINUTE_SECONDS: Final = 60
HOUR_SECONDS: Final = 3600
_DAY_HOURS: Final = 24
_MOST_HOURS: Final = 30 * _DAY_HOURS
_SAVED_EVERY: Final = 10  # minutes; an idle teepi writes nothing

_Values = tuple[int, int, int, int, int]
_NOTHING: Final[_Values] = (0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was counted in one span of time."""

    begin: float
    """Unix time."""
    hits: int
    """File requests answered from the cache."""
    misses: int
    """File requests that caused or joined a fetch, or were passed to upstream."""
    cached_bytes: int
    """Bytes of files sent from the cache."""
    fetched_bytes: int
    """Bytes received from upstream, pages included."""
    saved_bytes: int
    """Bytes of files sent less those fetched for them; below 0 where clients got theirs later."""


class _Kept(msgspec.Struct):
    """The file: values by number of the minute and of the hour since 1970."""

    minutes: dict[int, _Values]
    hours: dict[int, _Values]


class _Ring:
    """Sums for each of the last ``count`` spans of ``step_seconds``; those in which nothing happened take no room."""

    def __init__(self, step_seconds: int, count: int) -> None:
        self.step_seconds = step_seconds
        self.slots: dict[int, _Values] = {}
        self._count = count

    def add(self, now: float, values: _Values) -> None:
        newest = int(now) // self.step_seconds
        # Also drops what a clock that was ahead has left.
        self.slots = {slot: kept for slot, kept in self.slots.items() if newest - self._count < slot <= newest}
        self.slots[newest] = _sum(self.slots.get(newest, _NOTHING), values)


class History:
    """The history of this cache."""

    def __init__(self, metrics: Metrics, store: Store) -> None:
        """Begin empty; the counters' present state is where it begins."""
        self._metrics = metrics
        self._store = store
        self._minutes = _Ring(MINUTE_SECONDS, _DAY_HOURS * 60)
        self._hours = _Ring(HOUR_SECONDS, _MOST_HOURS)
        self._seen = self._counted()
        self._is_changed = False

    def series(self, hours: int = _DAY_HOURS, points: int = 96) -> list[Sample]:
        """Return the last ``hours`` (1 to 720) in ``points`` equal spans, oldest first, none missing.

        The finest span is a minute within the last 24 hours and an hour beyond them; more points are not given. The
        last span is the one that now lies in; spans of up to an hour begin at a multiple of their length.
        """
        self.sample()
        hours = max(1, min(hours, _MOST_HOURS))
        ring = self._minutes if hours <= _DAY_HOURS else self._hours
        points = max(1, min(points, hours * HOUR_SECONDS // ring.step_seconds))
        width = hours * HOUR_SECONDS / points
        grain = min(width, HOUR_SECONDS)
        begin = (time.time() // grain + 1) * grain - points * width
        sums = [_NOTHING] * points
        for slot, values in ring.slots.items():
            place = int((slot * ring.step_seconds - begin) // width)
            if 0 <= place < points:
                sums[place] = _sum(sums[place], values)
        return [Sample(begin + place * width, *values) for place, values in enumerate(sums)]

    def sample(self) -> None:
        """Take over what the counters have grown by."""
        counted = self._counted()
        grown = tuple(now - before for now, before in zip(counted, self._seen, strict=True))
        self._seen = counted
        if any(grown):
            now = time.time()
            self._minutes.add(now, grown)  # type: ignore[arg-type] # as long as what it is made of
            self._hours.add(now, grown)  # type: ignore[arg-type]
            self._is_changed = True

    def _counted(self) -> _Values:
        counted = self._metrics
        misses = counted.misses + counted.collapsed + counted.passed_ranges
        return counted.hits, misses, counted.cached_bytes, counted.upstream_bytes, counted.saved_bytes

    # -- over a restart ------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take over what an earlier process kept; a file that cannot be read is as none."""
        try:
            data = await in_executor(self._store.committing, self._store.read_history)
            if data is not None:
                kept = msgspec.json.decode(data, type=_Kept)
                self._minutes.slots, self._hours.slots = kept.minutes, kept.hours
        except (OSError, msgspec.DecodeError) as error:
            log.warning("The history of hits cannot be read and begins anew: %s.", error)

    async def save(self) -> None:
        """Write the file if there is something new. A disk that does not take it is told of elsewhere."""
        self.sample()
        if not self._is_changed:
            return
        self._is_changed = False
        data = msgspec.json.encode(_Kept(self._minutes.slots, self._hours.slots))
        try:
            await in_executor(self._store.committing, self._store.write_history, data)
        except OSError as error:
            self._is_changed = True
            log.info("The history of hits cannot be written: %s.", error)

    async def keep_forever(self) -> None:
        """Sample every minute, and save now and then."""
        while True:
            for _ in range(_SAVED_EVERY):
                await asyncio.sleep(MINUTE_SECONDS - time.time() % MINUTE_SECONDS)
                self.sample()
            await self.save()


def _sum(one: _Values, other: _Values) -> _Values:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3], one[4] + other[4]
