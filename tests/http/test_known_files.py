"""What is known of a file without asking: from its page, or from the catalogue when it was asked for before."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from teepi.index_settings import IndexSettings
from teepi.simple_api import parse_page
from tests.http.links import file_target, get_page, sha256
from tests.support.clients import fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from teepi.simple_api import ProjectPage
    from tests.conftest import MakeTeepi
    from tests.http.clock import Clock
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

    Restart = Callable[..., Awaitable[Teepi]]

FIRST, SECOND = "demo-1.0.tar.gz", "demo-2.0.tar.gz"
ONE, TWO = b"one" * 100, b"two" * 100
MORE_THAN_ANY_TTL = 100_000.0


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the projects whose pages were parsed."""
    projects: list[str] = []

    def counting(body: bytes, **facts: Any) -> ProjectPage:
        projects.append(facts["project"])
        return parse_page(body, **facts)

    monkeypatch.setattr("teepi.pages.parse_page", counting)
    return projects


@pytest.fixture
async def restart(make_teepi: MakeTeepi) -> AsyncIterator[Restart]:  # noqa: ARG001 - what it started is stopped after
    """Give a function that starts teepi anew with some settings changed."""
    started: list[Teepi] = []

    async def make(teepi: Teepi, **changes: Any) -> Teepi:
        started.append(await teepi.restarted(**changes))
        return started[-1]

    yield make
    for teepi in reversed(started):
        await teepi.stop()


def rows(teepi: Teepi) -> list[str]:
    """Return the names of the files that the catalogue knows, of a teepi that has stopped."""
    with closing(sqlite3.connect(teepi.settings.cache_dir / "catalog.sqlite3")) as database:
        return sorted(name for (name,) in database.execute("SELECT filename FROM known"))


async def test_page_costs_no_row_for_a_file_that_nobody_asked_for(make_teepi: MakeTeepi, upstream: Upstream) -> None:
    """Design 4. The catalogue knows what was asked for; the page on disk knows the rest."""
    upstream.project("demo", {FIRST: ONE, SECOND: TWO})
    teepi = await make_teepi()
    assert (await fetch(teepi.address, await file_target(teepi, FIRST))).body == ONE
    await teepi.stop()
    assert rows(teepi) == [FIRST]


async def test_file_asked_for_before_is_found_after_restart_without_its_page(
    make_teepi: MakeTeepi, restart: Restart, upstream: Upstream, parsed: list[str]
) -> None:
    """Design 4. One look into the catalogue; the page may be large, or gone."""
    upstream.project("demo", {FIRST: ONE}).put(SECOND, TWO, b"Metadata-Version: 2.1\n")
    teepi = await make_teepi()
    targets = {name: await file_target(teepi, name) for name in (FIRST, SECOND)}
    for target in targets.values():
        await fetch(teepi.address, target)
    parsed.clear()
    teepi = await restart(teepi, offline=True)
    assert (await fetch(teepi.address, targets[FIRST])).body == ONE
    assert (await fetch(teepi.address, targets[FIRST], {"If-None-Match": f'"{sha256(ONE)}"'})).status == 304
    assert (await fetch(teepi.address, f"/root/pypi/+f/{sha256(TWO)[:3]}/{sha256(TWO)[3:16]}/{SECOND}")).body == TWO
    assert parsed == []
    shutil.rmtree(teepi.settings.cache_dir / "v1" / "pages")
    teepi = await restart(teepi)
    assert (await fetch(teepi.address, targets[FIRST])).body == ONE


async def test_metadata_of_a_file_asked_for_before_is_found_after_restart_without_its_page(
    make_teepi: MakeTeepi, restart: Restart, upstream: Upstream, parsed: list[str]
) -> None:
    """Design 4. The page is not read to see that no file has the name of the metadata."""
    wheel, metadata = "demo-1.0-py3-none-any.whl", b"Metadata-Version: 2.1\nName: demo\n"
    upstream.project("demo", {}).put(wheel, ONE, metadata)
    teepi = await make_teepi()
    target = await file_target(teepi, wheel) + ".metadata"
    assert (await fetch(teepi.address, target)).body == metadata
    parsed.clear()
    teepi = await restart(teepi, offline=True)
    assert (await fetch(teepi.address, target)).body == metadata
    assert parsed == []


async def test_file_never_asked_for_is_found_after_restart_by_the_stored_page(
    make_teepi: MakeTeepi, restart: Restart, upstream: Upstream, parsed: list[str]
) -> None:
    """Design 4. However old it is upstream is not asked, and the page is read once for all who ask."""
    path = upstream.project("demo", {FIRST: ONE, SECOND: TWO}).path(SECOND)
    teepi = await make_teepi()
    targets = [await file_target(teepi, SECOND), f"/packages/demo/{SECOND}"]
    targets.append(f"/root/pypi/+f/{sha256(TWO)[:3]}/{sha256(TWO)[3:16]}/{SECOND}")
    parsed.clear()
    teepi = await restart(teepi)
    for target in targets:
        assert (await fetch(teepi.address, target)).body == TWO
    assert parsed == ["demo"]
    assert upstream.count("GET", "/simple/demo/") == upstream.count("GET", path) == 1


async def test_file_of_an_index_made_of_others_is_found_after_restart_without_its_page(
    make_teepi: MakeTeepi, restart: Restart, upstream: Upstream, parsed: list[str]
) -> None:
    """Design 4. Both the index and the base through which it is fetched know it."""
    upstream.project("demo", {FIRST: ONE})
    indexes = {"root/pypi": IndexSettings(upstream.index_url), "team/all": IndexSettings(bases=("root/pypi",))}
    teepi = await make_teepi(indexes=indexes)
    target = (await file_target(teepi, FIRST)).replace("root/pypi", "team/all")
    assert (await fetch(teepi.address, "/team/all/+simple/demo/")).status == 200
    assert (await fetch(teepi.address, target)).body == ONE
    parsed.clear()
    teepi = await restart(teepi, offline=True)
    assert (await fetch(teepi.address, target)).body == ONE
    assert parsed == []


async def test_file_that_the_page_links_to_no_more_is_found_though_nobody_asked_before(
    make_teepi: MakeTeepi, restart: Restart, upstream: Upstream, clock: Clock
) -> None:
    """Issue 2. A lock file made of the old page still works, also after a restart and when a file was replaced."""
    demo = upstream.project("demo", {FIRST: ONE, SECOND: TWO})
    teepi = await make_teepi()
    targets = [await file_target(teepi, name) for name in (FIRST, SECOND)]
    assert (await fetch(teepi.address, targets[1])).body == TWO
    del demo.files[FIRST]  # from the page alone
    demo.put(SECOND, ONE)
    clock.advance(MORE_THAN_ANY_TTL)
    await get_page(teepi)
    teepi = await restart(teepi)
    for target in targets:
        assert (await fetch(teepi.address, target)).body == ONE
    assert upstream.count("GET", "/simple/demo/") == 2


@pytest.mark.parametrize("restarts", [False, True])
async def test_page_of_another_project_does_not_say_what_a_file_is(
    make_teepi: MakeTeepi, restart: Restart, upstream: Upstream, *, restarts: bool
) -> None:
    """Design 5. A page that was seen first and gives a wrong digest for another project's file harms nobody there."""
    demo = upstream.project("demo", {FIRST: ONE})
    upstream.project("other", {FIRST: TWO}).extra[FIRST] = {"url": demo.url(FIRST)}
    teepi = await make_teepi()
    await get_page(teepi, "other")
    target = await file_target(teepi, FIRST)
    if restarts:
        teepi = await restart(teepi)
    assert (await fetch(teepi.address, target)).body == ONE


async def test_odd_file_name_of_two_projects_leads_each_to_its_own_digest(
    make_teepi: MakeTeepi, restart: Restart, upstream: Upstream
) -> None:
    """Design 5. No project is named by it: who comes later gets an address by digest, the same after a restart."""
    odd = "some-tool.tar.gz"
    first = upstream.project("first", {odd: ONE})
    upstream.project("second", {odd: TWO}).extra[odd] = {"url": first.url(odd)}
    teepi = await make_teepi()
    plain, hashed = [await file_target(teepi, odd, name) for name in ("first", "second")]
    assert plain.endswith(first.path(odd))
    assert hashed.endswith(f"/root/pypi/+f/{sha256(TWO)[:3]}/{sha256(TWO)[3:16]}/{odd}")
    assert (await fetch(teepi.address, plain)).body == ONE
    upstream.file(first.path(odd), TWO)
    assert (await fetch(teepi.address, hashed)).body == TWO
    teepi = await restart(teepi, offline=True)
    assert [await file_target(teepi, odd, name) for name in ("first", "second")] == [plain, hashed]
    assert [(await fetch(teepi.address, target)).body for target in (plain, hashed)] == [ONE, TWO]


async def test_page_unchanged_is_answered_304_without_being_parsed_again(
    make_teepi: MakeTeepi, upstream: Upstream, parsed: list[str], clock: Clock
) -> None:
    """Design 6. By the variant that is at hand, also after upstream's own 304."""
    upstream.project("demo", {FIRST: ONE})
    teepi = await make_teepi()
    etag = (await get_page(teepi)).headers["etag"]
    parsed.clear()
    for _ in range(2):
        answer = await get_page(teepi, **{"If-None-Match": etag})
        assert (answer.status, answer.body) == (304, b"")
        clock.advance(MORE_THAN_ANY_TTL)
    assert parsed == []
    assert [request.status for request in upstream.seen("/simple/demo/")] == [200, 304]
