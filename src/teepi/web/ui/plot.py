"""The plot of the page for people: numbers to coordinates. The SVG itself is in ``templates/live.html``."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from teepi.sizes import said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from teepi.history import Sample

_WIDTH: Final = 660.0
_RATIO_TOP: Final = 8.0  # the hit ratio has a band of its own above the bytes
_RATIO_BOTTOM: Final = 42.0
_TOP: Final = 62.0
_BOTTOM: Final = 196.0
_HOURS: Final = 24
_COLUMNS: Final = 96  # a quarter of an hour each
_GAP: Final = 1.5
_SMALLEST: Final = 2.0  # pixels: what happened is seen


@dataclass(frozen=True, slots=True)
class Column:
    """A quarter of an hour."""

    label: str
    x: float
    width: float
    cached_bytes: int
    cached_y: float
    cached_height: float
    fetched_bytes: int
    fetched_y: float
    fetched_height: float
    hit_ratio: float | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the grid or a tick of the time axis."""

    label: str
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Plot:
    """Bytes as columns, the hit ratio as lines above them, for the last 24 hours."""

    columns: Sequence[Column]
    ratio_lines: Sequence[str]
    grid: Sequence[Mark]
    ticks: Sequence[Mark]
    saved_bytes: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing was served in these hours."""
        return not any(column.cached_bytes or column.fetched_bytes for column in self.columns)


def plot(samples: Sequence[Sample], now: float) -> Plot:
    """Lay ``samples`` out over the 24 hours before ``now`` (Unix seconds)."""
    span = _HOURS * 3600 / _COLUMNS
    begin = (math.floor(now / span) + 1) * span - _HOURS * 3600
    sums = [[0, 0, 0, 0] for _ in range(_COLUMNS)]
    for sample in samples:
        place = math.floor((sample.begin - begin) / span)
        if 0 <= place < _COLUMNS:
            counted = (sample.cached_bytes, sample.fetched_bytes, sample.hits, sample.misses)
            sums[place] = [old + new for old, new in zip(sums[place], counted, strict=True)]
    top = _round_up(max(cached + fetched for cached, fetched, _, _ in sums))
    step = _WIDTH / _COLUMNS

    def height(size: int) -> float:
        return 0.0 if size == 0 else round(max(_SMALLEST, size / top * (_BOTTOM - _TOP)), 1)

    columns = []
    lines: list[list[str]] = [[]]
    for place, (cached, fetched, hits, misses) in enumerate(sums):
        ratio = hits / (hits + misses) if hits + misses else None
        fetched_height, cached_height = height(fetched), height(cached)
        x = round(place * step, 1)
        columns.append(
            Column(
                _clock(begin + place * span),
                x,
                round(step - _GAP, 1),
                cached,
                round(_BOTTOM - fetched_height - cached_height, 1),
                cached_height,
                fetched,
                round(_BOTTOM - fetched_height, 1),
                fetched_height,
                ratio,
            )
        )
        if ratio is None:
            lines.append([])  # no line over hours in which nobody asked
        else:
            middle, level = x + step / 2, _RATIO_BOTTOM - ratio * (_RATIO_BOTTOM - _RATIO_TOP)
            lines[-1].append(f"{middle:.1f},{level:.1f}")
    return Plot(
        columns,
        [" ".join(line if len(line) > 1 else line * 2) for line in lines if line],
        [
            *(Mark(said(part * top / 2), y=_BOTTOM - part / 2 * (_BOTTOM - _TOP)) for part in range(3)),
            Mark("0 %", y=_RATIO_BOTTOM),
            Mark("100 %", y=_RATIO_TOP),
        ],
        [Mark(_clock(begin + hour * 3600), x=hour / _HOURS * _WIDTH) for hour in range(2, _HOURS, 4)],
        max(0, sum(sample.saved_bytes for sample in samples if begin <= sample.begin)),
    )


def _round_up(size: int) -> int:
    """Return the next 1, 2 or 5 times a power of ten, so that the axis has round labels."""
    power = int(10 ** (len(str(max(1, size))) - 1))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= size)


def _clock(moment: float) -> str:
    return time.strftime("%H:%M", time.localtime(moment))
