"""Pages and core metadata count, too: they never take the cache above its limit, and go when they must."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from teepi.store import LOG_BYTES
from tests.http.links import file_target
from tests.http.scene import CALM, until
from tests.support.clients import fetch
from tests.support.wheels import noise, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.support.projects import Project
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

MB = 1_000_000
LIMIT = 8 * MB
BUILT = wheel("demo", "1.0")


def _on_disk(cache: Path) -> int:
    total = 0
    for path in cache.rglob("*"):
        with suppress(FileNotFoundError):  # it went meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def _large(upstream: Upstream, name: str) -> Project:
    """Publish a project with a page of about 700 kB."""
    return upstream.project(name, {f"{name}-{n}.0-{'x' * 150}.tar.gz": b"x" for n in range(1000)})


async def _metadata(teepi: Teepi) -> list[Path]:
    target = await file_target(teepi, BUILT.filename) + ".metadata"
    assert (await fetch(teepi.address, target)).body == BUILT.metadata
    found = list((teepi.settings.cache_dir / "v1/metadata").glob("*/*"))
    assert len(found) == 1
    return found


async def test_pages_never_take_the_cache_above_its_limit_and_files_find_room(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Every page is answered, stored or not; of those on disk the oldest go, so that packages can be kept."""
    projects = [_large(upstream, f"large{n}") for n in range(25)]
    content = noise(MB)
    small = upstream.project("small", {"small-1.0.tar.gz": content})
    teepi = await make_teepi(CALM, max_size_bytes=LIMIT + LOG_BYTES)
    cache, space = teepi.settings.cache_dir, teepi.server.services.store.space
    for project in projects:
        assert (await fetch(teepi.address, project.page_path)).status == 200
        assert space.used <= space.limit
        assert _on_disk(cache) <= space.limit
    target = f"/root/pypi/+http/{upstream.url.removeprefix('http://')}{small.path('small-1.0.tar.gz')}"
    assert (await fetch(teepi.address, small.page_path)).status == 200
    assert (await fetch(teepi.address, target)).body == content
    await until(lambda: not list(teepi.server.registry))
    assert teepi.server.metrics.committed == 1


async def test_page_whose_stored_copy_was_evicted_is_still_answered(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """From memory, or from upstream again."""
    projects = [_large(upstream, f"large{n}") for n in range(4)]
    teepi = await make_teepi(CALM)
    for project in projects:
        assert (await fetch(teepi.address, project.page_path)).status == 200
    pages = teepi.settings.cache_dir / "v1/pages"
    await until(lambda: len(list(pages.rglob("*.page"))) == 4)
    await asyncio.to_thread(teepi.server.services.keeper.documents.evict, 1 << 40)
    assert not list(pages.rglob("*.page"))
    for project in projects:
        assert (await fetch(teepi.address, project.page_path, {"Accept": "text/html"})).status == 200


async def test_core_metadata_goes_with_its_project_and_is_read_out_again(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """A purge leaves nothing behind."""
    upstream.project("demo", {BUILT.filename: BUILT.content})
    teepi = await make_teepi(replace(CALM, learning_seconds=0.0))
    catalog, operations = teepi.server.services.catalog, teepi.server.services.operations
    for arguments in ({"names": ["demo"]}, {"everything": True}, {"index": "root/pypi"}):
        [path] = await _metadata(teepi)
        while not await catalog.core_metadata("demo"):  # it is told behind the answer
            pass
        async for _ in operations.call("purge", arguments):
            pass
        assert not path.exists(), arguments


async def test_core_metadata_that_nobody_reads_for_long_goes(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """By the time of its last reading, which is noted once a day where the file system notes none."""
    upstream.project("demo", {BUILT.filename: BUILT.content})
    teepi = await make_teepi(CALM)
    [path] = await _metadata(teepi)
    written = path.stat().st_mtime
    os.utime(path, (1, written))
    await _metadata(teepi)
    assert path.stat().st_atime > 1
    assert path.stat().st_mtime == written
    os.utime(path, (1, written))
    await teepi.server.services.keeper.evict_unused(30.0)
    assert not path.exists()


async def test_page_stays_when_files_alone_cannot_go_down_to_the_low_water_mark(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """A page is small, and without it a file is hardly worth anything."""
    content = noise(LIMIT - MB // 2)
    project = upstream.project("demo", {"demo-1.0.tar.gz": content})
    teepi = await make_teepi(CALM, max_size_bytes=LIMIT + LOG_BYTES)
    keeper, space = teepi.server.services.keeper, teepi.server.services.store.space
    assert (await fetch(teepi.address, project.page_path)).status == 200
    target = f"/root/pypi/+http/{upstream.url.removeprefix('http://')}{project.path('demo-1.0.tar.gz')}"
    assert (await fetch(teepi.address, target)).body == content
    await until(lambda: not list(teepi.server.registry))
    pins = teepi.server.services.store.pins
    await asyncio.to_thread(pins.set, frozenset(), {hashlib.sha256(content).hexdigest(): "demo-1.0.tar.gz"})
    await keeper.lower()
    assert space.excess(1 << 60) > 0
    assert list((teepi.settings.cache_dir / "v1/pages").rglob("demo.page"))
