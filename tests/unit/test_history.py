"""The history of hits and bytes: sums by the minute and by the hour, over restarts, whatever the clock does."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from teepi import history
from teepi.history import History
from teepi.metrics import Metrics
from teepi.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = 86400


class Clock:
    """Stands for the ``time`` module."""

    now = 1_700_000_100.0  # 22:15 UTC, the beginning of a quarter of an hour

    def time(self) -> float:
        """Return the wall clock."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the wall clock into the test's hands."""
    clock = Clock()
    monkeypatch.setattr(history, "time", clock)
    return clock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give a cache directory."""
    store = Store(tmp_path)
    yield store
    store.close()


@pytest.fixture
def metrics() -> Metrics:
    """Give counters."""
    return Metrics()


def serve(metrics: Metrics, *, hits: int = 0, misses: int = 0) -> None:
    """Serve files of 100 bytes."""
    metrics.hits += hits
    metrics.misses += misses
    metrics.sent_bytes += 100 * (hits + misses)
    metrics.cached_bytes += 100 * hits
    metrics.upstream_page_bytes += 10 * misses
    metrics.upstream_bytes += 110 * misses


def test_series_has_every_span_and_sums_what_lies_in_it(clock: Clock, store: Store, metrics: Metrics) -> None:
    """Quarters of an hour by default, the last one the present; gaps are zeros."""
    kept = History(metrics, store)
    serve(metrics, misses=2)
    kept.sample()
    clock.now += 120
    serve(metrics, hits=3)
    metrics.collapsed += 1
    kept.sample()
    clock.now += 3600
    serve(metrics, hits=1)
    series = kept.series()
    assert len(series) == 96
    assert {after.begin - before.begin for before, after in pairwise(series)} == {900.0}
    assert series[-1].begin == 1_700_003_700 == clock.now - 120
    then, now = series[-5], series[-1]
    assert (then.hits, then.misses, then.cached_bytes, then.fetched_bytes, then.saved_bytes) == (3, 3, 300, 220, 300)
    assert (now.hits, now.misses, now.saved_bytes) == (1, 0, 100)
    assert all(sample.hits == sample.misses == 0 for sample in series if sample not in {then, now})


def test_series_beyond_a_day_is_made_of_hours(clock: Clock, store: Store, metrics: Metrics) -> None:
    """Thirty days; nothing finer is promised, and no more points than there are hours."""
    kept = History(metrics, store)
    for _ in range(40):
        serve(metrics, hits=1)
        kept.sample()
        clock.now += DAY
    clock.now -= DAY
    assert [sample.hits for sample in kept.series(hours=720, points=30)] == [1] * 30
    assert len(kept.series(hours=48, points=9999)) == 48
    assert sum(sample.hits for sample in kept.series(hours=24, points=9999)) == 1
    assert len(kept.series(hours=24, points=9999)) == 1440
    assert len(kept.series(hours=0, points=0)) == 1
    assert [sample.hits for sample in kept.series(hours=10**6, points=1)] == [30]


async def test_history_stays_small(clock: Clock, store: Store, metrics: Metrics, tmp_path: Path) -> None:
    """A day of minutes and a month of hours, however long teepi has run."""
    kept = History(metrics, store)
    for step, count in ((61, 1500), (3601, 750)):
        for _ in range(count):
            serve(metrics, hits=1)
            kept.sample()
            clock.now += step
        await kept.save()
        found = json.loads((tmp_path / "history.json").read_bytes())
        assert len(found["minutes"]) <= 1440
        assert len(found["hours"]) <= 720


def test_clock_that_was_ahead_hides_nothing_afterwards(clock: Clock, store: Store, metrics: Metrics) -> None:
    """A machine that boots in 2038 and then asks the time."""
    kept = History(metrics, store)
    clock.now += 10 * 365 * DAY
    serve(metrics, hits=1)
    kept.sample()
    clock.now -= 10 * 365 * DAY
    serve(metrics, hits=2)
    assert kept.series()[-1].hits == 2
    assert sum(sample.hits for sample in kept.series(hours=720, points=30)) == 2


async def test_history_outlives_the_process(clock: Clock, store: Store, metrics: Metrics) -> None:
    """What was served before a restart is there after it, and counted once."""
    kept = History(metrics, store)
    serve(metrics, hits=3)
    await kept.save()
    anew = History(Metrics(), store)
    await anew.load()
    assert anew.series() == kept.series()
    assert anew.series()[-1].hits == 3
    clock.now += 60
    assert anew.series()[-1].hits == 3


async def test_history_that_has_not_changed_is_not_written(
    clock: Clock, store: Store, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle machine's disk sleeps."""
    written: list[bytes] = []
    monkeypatch.setattr(Store, "write_history", lambda _, data: written.append(data))
    kept = History(metrics, store)
    await kept.save()
    serve(metrics, hits=1)
    await kept.save()
    clock.now += 600
    await kept.save()
    assert len(written) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"minutes": {"x": 1}, "hours": {}}', b"\xff"])
async def test_history_that_cannot_be_read_begins_anew_in_one_sentence(
    store: Store, metrics: Metrics, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """It is worth a line in the log, not a start."""
    (tmp_path / "history.json").write_bytes(content)
    kept = History(metrics, store)
    await kept.load()
    assert len(caplog.messages) == 1
    assert sum(sample.hits for sample in kept.series()) == 0


async def test_history_on_a_disk_that_takes_nothing_is_kept_in_memory(
    store: Store, metrics: Metrics, tmp_path: Path
) -> None:
    """And written as soon as the disk takes it."""
    (tmp_path / "history.json").mkdir()
    kept = History(metrics, store)
    serve(metrics, hits=1)
    await kept.save()
    assert kept.series()[-1].hits == 1
    (tmp_path / "history.json").rmdir()
    await kept.save()
    assert (tmp_path / "history.json").stat().st_size > 0


async def test_history_is_sampled_each_full_minute_and_saved_each_tenth(
    clock: Clock, store: Store, metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that minutes in the plot are minutes of the clock."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds
        serve(metrics, hits=1)
        if len(slept) > 10:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    clock.now += 13
    with pytest.raises(asyncio.CancelledError):
        await History(metrics, store).keep_forever()
    assert slept == [47.0, *[60.0] * 10]
    assert (tmp_path / "history.json").exists()
