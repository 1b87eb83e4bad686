"""Fault 7: a damaged cached file is found, set aside and fetched anew."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from teepi.verification import scrub_next, verify
from tests.http.scene import stage, until
from tests.support.clients import fetch
from tests.support.wheels import noise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.http.scene import Scene
    from tests.support.upstream import Upstream

CONTENT = noise(1_000_000)


def flip_a_byte(path: Path) -> None:
    """Size and kind stay."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(500_000)
        file.write(bytes([CONTENT[500_000] ^ 1]))


def truncate(path: Path) -> None:
    """Half of it is gone."""
    path.chmod(0o644)
    os.truncate(path, 500_000)


def zero(path: Path) -> None:
    """As a file system leaves it after a power cut."""
    path.chmod(0o644)
    path.write_bytes(bytes(len(CONTENT)))


def replace_by_a_directory(path: Path) -> None:
    """Somebody's hand."""
    path.unlink()
    path.mkdir()


def replace_by_a_link(path: Path) -> None:
    """Even one to the right bytes is none of ours."""
    target = path.rename(path.with_name("elsewhere"))
    path.symlink_to(target)


def delete(path: Path) -> None:
    """Somebody's hand."""
    path.unlink()


def cached(scene: Scene) -> Path:
    """Return where the file is committed."""
    return scene.teepi.settings.cache_dir / "v1/files/sha256" / scene.sha256[:2] / scene.sha256


@pytest.mark.parametrize("damage", [truncate, replace_by_a_directory, replace_by_a_link, delete])
async def test_damage_that_shows_on_opening_is_fetched_anew_at_once(
    upstream: Upstream, make_teepi: MakeTeepi, damage: Callable[[Path], None]
) -> None:
    """Wrong size or kind: the very next client has the right bytes."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    damage(cached(scene))
    assert (await scene.get()).body == CONTENT
    await scene.settled()
    assert scene.gets == 2
    assert cached(scene).read_bytes() == CONTENT
    assert not cached(scene).is_symlink()


@pytest.mark.parametrize("damage", [flip_a_byte, zero, truncate, replace_by_a_directory, replace_by_a_link])
async def test_damage_is_found_by_verification_and_the_file_fetched_anew(
    upstream: Upstream, make_teepi: MakeTeepi, damage: Callable[[Path], None]
) -> None:
    """Wrong bytes, too, are set aside on a live cache; the catalogue and the ledger follow."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    damage(cached(scene))
    store = scene.teepi.server.services.store
    assert store is not None
    checked = [each async for each in verify(store)]
    assert [(each.sha256, each.problem is not None) for each in checked] == [(scene.sha256, True)]
    assert [each async for each in verify(store)] == []
    await until(lambda: scene.teepi.server.metrics.set_aside == 1)
    assert (await scene.get()).body == CONTENT
    await scene.settled()
    assert scene.gets == 2
    assert [each.problem async for each in verify(store)] == [None]


async def test_file_deleted_while_it_is_sent_reaches_its_reader_whole(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """The reader has a descriptor; the next request fetches anew."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    async with await scene.connect(receive_buffer_bytes=4096) as client:
        await client.read_head()
        delete(cached(scene))
        assert await client.read(len(CONTENT)) == CONTENT
    assert (await scene.get()).body == CONTENT
    assert scene.gets == 2


async def test_file_that_came_anew_while_it_was_hashed_is_left_alone(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Only what was looked at is set aside, not what stands there since."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    flip_a_byte(cached(scene))
    store = scene.teepi.server.services.store
    assert store is not None

    def replaced(_count: int) -> None:
        fresh = cached(scene).with_name("fresh")
        fresh.write_bytes(CONTENT)
        fresh.rename(cached(scene))

    problem, _ = await asyncio.to_thread(store.shelves.check, scene.sha256, replaced)
    assert problem == "wrong bytes"
    assert cached(scene).read_bytes() == CONTENT


async def test_scrub_goes_on_at_its_mark_after_a_restart(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """One file after the other in the order of their digests; the last one leads back to the first."""
    contents = {f"demo-{n}.0.tar.gz": noise(100_000, seed=n) for n in range(3)}
    scene = await stage(upstream, make_teepi, CONTENT)
    project = upstream.project("three", contents)
    base = scene.target.removesuffix(scene.path)
    assert (await fetch(scene.teepi.address, "/simple/three/")).status == 200
    for name in contents:
        assert (await fetch(scene.teepi.address, base + project.path(name))).status == 200
    await scene.settled()
    seen: list[str] = []
    for _ in range(2):
        server = scene.teepi.server
        check = server.services.store.shelves.check

        def watched(sha256: str, pause: Callable[[int], None], check: Callable[..., object] = check) -> object:
            seen.append(sha256)
            return check(sha256, pause)

        server.services.store.shelves.check = watched  # type: ignore[method-assign,assignment]
        assert await scrub_next(server.services.store, server.services.catalog) > 0
        if len(seen) == 1:
            await scene.teepi.stop()
            scene.teepi = await make_teepi()
    assert len(seen) == 2
    assert seen == sorted(seen)
    assert await scrub_next(scene.teepi.server.services.store, scene.teepi.server.services.catalog) > 0
    assert await scrub_next(scene.teepi.server.services.store, scene.teepi.server.services.catalog) == 0.0


async def test_verification_that_is_left_stops_reading(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A client of ``verify`` that goes away leaves no thread behind that reads the whole cache at a slow pace."""
    contents = {f"slow-{n}.0.tar.gz": noise(100_000, seed=n) for n in range(3)}
    scene = await stage(upstream, make_teepi, CONTENT)
    project = upstream.project("slow", contents)
    assert (await fetch(scene.teepi.address, "/simple/slow/")).status == 200
    for name in contents:
        target = scene.target.removesuffix(scene.path) + project.path(name)
        assert (await fetch(scene.teepi.address, target)).status == 200
    await scene.settled()
    store = scene.teepi.server.services.store
    assert store is not None
    async with aclosing(verify(store, bytes_per_second=200_000)) as checks:
        await anext(checks)
    await until(lambda: not any(thread.name.startswith("verifying") for thread in threading.enumerate()))
