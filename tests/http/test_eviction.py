"""The cache stays below its limits: reservations, least recently used first, nothing in use, and no request fails."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import os
import sqlite3
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from teepi.eviction import Keeper
from teepi.store import LOG_BYTES
from teepi.store.partial import Partial
from teepi.store.pins import Pins
from tests.http.scene import CALM, until
from tests.support.clients import RawClient, fetch
from tests.support.wheels import noise

if TYPE_CHECKING:
    from pathlib import Path

    from teepi.space import Candidate
    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

MB = 1_000_000
COUNT = 12


class Many:
    """A project of many files of 1 MB, and teepi with a limit."""

    def __init__(self, upstream: Upstream, size: int = MB, count: int = COUNT) -> None:
        """Publish."""
        self.upstream = upstream
        self.contents = {f"demo-{n}.0.tar.gz": noise(size, seed=n) for n in range(count)}
        self.project = upstream.project("demo", self.contents)
        self.names = list(self.contents)
        self.teepi: Teepi

    async def start(self, make_teepi: MakeTeepi, limit: int) -> None:
        """Start teepi with ``limit`` for files and pages, and let it see the page."""
        self.teepi = await make_teepi(CALM, max_size_bytes=limit + LOG_BYTES)
        assert (await fetch(self.teepi.address, "/simple/demo/")).status == 200

    def target(self, name: str) -> str:
        """Return teepi's target of a file."""
        return f"/root/pypi/+http/{self.upstream.url.removeprefix('http://')}{self.project.path(name)}"

    async def get(self, name: str) -> Answer:
        """Ask for a file and require all of it."""
        answer = await fetch(self.teepi.address, self.target(name))
        assert (answer.status, answer.body == self.contents[name]) == (200, True)
        return answer

    async def kept(self, name: str) -> None:
        """Ask for a file and wait until it is committed."""
        await self.get(name)
        await self.settled()

    async def settled(self) -> None:
        """Wait until nothing is in flight and the catalogue has all rows."""
        await until(lambda: not list(self.teepi.server.registry))

    def gets(self, name: str) -> int:
        """Return how often upstream was asked for a file."""
        return self.upstream.count("GET", self.project.path(name))

    @property
    def stored(self) -> set[str]:
        """Names of the committed files."""
        names = {hashlib.sha256(content).hexdigest(): name for name, content in self.contents.items()}
        return {names[path.name] for path in (self.teepi.settings.cache_dir / "v1/files/sha256").glob("*/*")}

    @property
    def on_disk(self) -> int:
        """Bytes of everything below the cache directory."""
        total = 0
        for path in self.teepi.settings.cache_dir.rglob("*"):
            try:
                total += path.stat().st_size if path.is_file() else 0
            except FileNotFoundError:
                continue
        return total


async def test_least_recently_used_goes_first_and_comes_back_byte_for_byte(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """A hit makes a file recent; what was evicted is fetched once more."""
    many = Many(upstream, 4 * MB)  # one of six is more than the way down to the low-water mark
    await many.start(make_teepi, 24 * MB)
    first, second, *others = many.names
    await many.kept(first)
    await many.kept(second)
    await many.get(first)
    for name in others[:4]:
        await many.kept(name)
    await until(lambda: second not in many.stored)
    assert first in many.stored
    assert many.teepi.server.metrics.evicted >= 1
    await many.kept(second)
    assert (many.gets(first), many.gets(second)) == (1, 2)


async def test_eviction_stops_at_the_low_water_mark(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A tenth below the limit there is room for some downloads; no more goes than that."""
    many = Many(upstream, size=200_000, count=60)
    await many.start(make_teepi, 10 * MB)
    for name in many.names:
        await many.get(name)
    await many.settled()
    space = many.teepi.server.services.store.space
    await until(lambda: space.used <= 10 * MB + LOG_BYTES)
    assert space.used > 8 * MB + LOG_BYTES
    assert many.names[-1] in many.stored
    assert many.names[0] not in many.stored


async def test_cache_is_never_above_its_limit_with_many_downloads_at_once(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Reservations included, and on disk; every client has every byte. Contract 27."""
    many = Many(upstream, count=30)
    limit = 8 * MB + LOG_BYTES
    await many.start(make_teepi, 8 * MB)
    space = many.teepi.server.services.store.space
    highest = [0, 0]

    async def watch() -> None:
        for turn in count():
            highest[0] = max(highest[0], space.used)
            if turn % 50 == 0:  # a walk through the directory
                highest[1] = max(highest[1], many.on_disk)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    for _ in range(2):
        await asyncio.gather(*(many.get(name) for name in many.names))
    await many.settled()
    watching.cancel()
    assert 8 * MB < highest[0] <= limit
    assert highest[1] <= limit
    assert many.teepi.server.metrics.evicted > 0


async def test_file_that_is_being_read_is_not_evicted(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A slow reader of the oldest file keeps it; the next oldest goes."""
    many = Many(upstream, size=3 * MB, count=5)
    await many.start(make_teepi, 10 * MB)
    slow, next_oldest, *others = many.names
    await many.kept(slow)
    await many.kept(next_oldest)
    async with await RawClient.connect(many.teepi.address, receive_buffer_bytes=4096) as client:
        await client.send("GET", many.target(slow))
        head = await client.read_head()
        await many.get(next_oldest)  # used later than the slow one
        for name in others:
            await many.kept(name)
        assert slow in many.stored
        assert next_oldest not in many.stored
        assert await client.read(int(head.headers["content-length"])) == many.contents[slow]
    assert many.gets(slow) == 1


async def test_file_larger_than_what_may_be_reserved_passes_through_and_evicts_nothing(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """It runs in memory; the cache is not emptied for what would not fit anyway."""
    many = Many(upstream, count=3)
    big = noise(9 * MB, seed=99)
    project = upstream.project("big", {"big-1.0.tar.gz": big})
    await many.start(make_teepi, 8 * MB)
    for name in many.names:
        await many.kept(name)
    assert (await fetch(many.teepi.address, "/simple/big/")).status == 200
    target = f"/root/pypi/+http/{upstream.url.removeprefix('http://')}{project.path('big-1.0.tar.gz')}"
    assert (await fetch(many.teepi.address, target)).body == big
    await many.settled()
    assert many.stored == set(many.names)
    metrics = many.teepi.server.metrics
    assert (metrics.uncached, metrics.evicted) == (1, 0)


@pytest.mark.parametrize("size", [4 * MB, 30 * MB])
async def test_file_of_unknown_size_is_reserved_as_it_grows(
    upstream: Upstream, make_teepi: MakeTeepi, size: int
) -> None:
    """What fits is kept and others go for it; what does not goes on in memory. Nobody notices."""
    many = Many(upstream, count=10)
    content = noise(size, seed=77)
    project = upstream.project("odd", {"odd-1.0.tar.gz": content}, size=False)
    upstream.file(project.path("odd-1.0.tar.gz"), content, chunked=True)
    await many.start(make_teepi, 12 * MB)
    for name in many.names:
        await many.kept(name)
    assert (await fetch(many.teepi.address, "/simple/odd/")).status == 200
    target = f"/root/pypi/+http/{upstream.url.removeprefix('http://')}{project.path('odd-1.0.tar.gz')}"
    assert (await fetch(many.teepi.address, target)).body == content
    await many.settled()
    digest = hashlib.sha256(content).hexdigest()
    path = many.teepi.settings.cache_dir / "v1/files/sha256" / digest[:2] / digest
    assert path.exists() == (size == 4 * MB)
    assert many.teepi.server.services.store.space.used <= 12 * MB + LOG_BYTES


async def test_pinned_project_is_never_evicted(upstream: Upstream, make_teepi: MakeTeepi, tmp_path: Path) -> None:
    """Its files stay, the oldest of all, and requests for others go on in memory when nothing else is left."""
    many = Many(upstream, count=4)
    other = {f"other-{n}.0.tar.gz": noise(MB, seed=100 + n) for n in range(4)}
    project = upstream.project("other", other)
    (tmp_path / "cache/v1").mkdir(parents=True)
    await asyncio.to_thread(Pins(tmp_path / "cache/v1/pins.json").set, frozenset({"demo"}), {})
    await many.start(make_teepi, int(5.5 * MB))
    for name in many.names:
        await many.kept(name)
    assert (await fetch(many.teepi.address, "/simple/other/")).status == 200
    for name, content in other.items():
        target = f"/root/pypi/+http/{upstream.url.removeprefix('http://')}{project.path(name)}"
        assert (await fetch(many.teepi.address, target)).body == content
        await many.settled()
    for name in many.names:
        await many.get(name)
        assert many.gets(name) == 1


async def test_file_pinned_after_it_was_chosen_is_not_evicted(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large eviction the last file goes seconds after the choice."""
    choose = Keeper.plan

    async def then_pinned(keeper: Keeper, *arguments: Any, **more: Any) -> list[Candidate]:
        chosen = await choose(keeper, *arguments, **more)
        await asyncio.to_thread(many.teepi.server.services.store.pins.set, frozenset({"demo"}), {})
        return chosen

    many = Many(upstream, count=5)
    await many.start(make_teepi, 4 * MB)
    for name in many.names[:3]:
        await many.kept(name)
    monkeypatch.setattr(Keeper, "plan", then_pinned)
    for name in many.names[3:]:
        await many.kept(name)
    assert set(many.names[:3]) <= many.stored


async def test_files_used_within_a_day_that_go_are_warned_of(
    upstream: Upstream, make_teepi: MakeTeepi, caplog: pytest.LogCaptureFixture
) -> None:
    """The cache is too small for what is asked of it: one sentence with the setting."""
    many = Many(upstream)
    await many.start(make_teepi, 6 * MB)
    with caplog.at_level(logging.WARNING):
        for name in many.names:
            await many.kept(name)
    assert "Files that were used within a day are evicted" in caplog.text
    assert "--max-size" in caplog.text


async def test_limit_of_the_first_start_is_kept_by_later_ones(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Half of what was free then, however much is free later."""
    many = Many(upstream, count=1)
    await many.start(make_teepi, 1 << 40)
    await many.teepi.stop()
    teepi = await make_teepi(max_size_bytes=None)
    path = teepi.settings.cache_dir / "v1/limit.json"
    assert json.loads(path.read_bytes()) == {"max_size_bytes": teepi.server.services.store.space.limit}
    await teepi.stop()
    path.write_text('{"max_size_bytes": 123456789}')
    teepi = await make_teepi(max_size_bytes=None)
    assert teepi.server.services.store.space.limit == 123456789
    await teepi.stop()
    teepi = await make_teepi(max_size_bytes=5 * MB)
    assert teepi.server.services.store.space.limit == 5 * MB


async def test_disk_without_its_floor_caches_nothing_and_says_so(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Less is free than must stay free: requests are served, one sentence says why nothing is kept."""
    many = Many(upstream, count=1)
    many.teepi = await make_teepi(CALM, min_free_bytes=1 << 60)
    assert (await fetch(many.teepi.address, "/simple/demo/")).status == 200
    await many.get(many.names[0])
    await many.settled()
    assert not many.stored
    status = json.loads((await fetch(many.teepi.address, "/+status")).body)
    assert "--min-free" in status["problems"][0]


async def test_full_disk_evicts_and_goes_on_in_the_file(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs may fill the disk below what was reserved: what was not used for longest goes."""
    many = Many(upstream, count=2)
    await many.start(make_teepi, 1 << 40)
    first, second = many.names
    await many.kept(first)
    append = Partial.append

    def full(self: Partial, data: bytes) -> None:
        if first in many.stored:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, data)

    monkeypatch.setattr(Partial, "append", full)
    await many.kept(second)
    assert many.stored == {second}
    assert many.teepi.server.metrics.uncached == 0


async def test_unused_for_longer_than_max_age_goes_and_what_is_pinned_or_recent_stays(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Files by their last use, pages by their last confirmation; the catalogue keeps the times over a restart."""
    many = Many(upstream, count=3)
    _, pinned, recent = many.names
    await many.start(make_teepi, 1 << 40)
    for name in many.names:
        await many.kept(name)
    await many.teepi.stop()
    cache = many.teepi.settings.cache_dir
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in many.contents.items()}
    await asyncio.to_thread(Pins(cache / "v1/pins.json").set, frozenset(), {digests[pinned]: pinned})
    with closing(sqlite3.connect(cache / "catalog.sqlite3")) as database, database:
        database.execute("UPDATE files SET used_at = 1.0 WHERE sha256 != ?", (digests[recent],))
    [page] = cache.glob("v1/pages/*/*/demo.page")
    os.utime(page, (1, 1))
    many.teepi = await make_teepi(CALM, max_age_unused_days=30.0)
    await until(lambda: not page.exists())
    assert many.stored == {pinned, recent}
    assert many.teepi.server.metrics.evicted == 1
