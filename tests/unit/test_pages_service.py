"""The pages service where its steps interleave: what was looked up before an await is not trusted after it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import pytest

from teepi import page_memory
from teepi.catalog import Catalog
from teepi.codings import Coding
from teepi.errors import NotFound, Unavailable
from teepi.hot_entries import HotEntries
from teepi.http_semantics import PageFormat
from teepi.index_settings import IndexSettings
from teepi.limits import Limits
from teepi.live import Live
from teepi.metrics import Metrics
from teepi.page_memory import MarkedVariants, Variant
from teepi.pages import Freshness, Pages
from teepi.simple_api import parse_page
from teepi.store import PageStore, StoredPage
from teepi.tasks import TaskScope
from teepi.upstream import Upstream as Client
from tests.support.projects import JSON
from tests.support.teepi import settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from teepi.page_memory import Page
    from teepi.simple_api import ProjectPage
    from tests.support.upstream import Upstream

INDEX = "root/pypi"
STORED = StoredPage(INDEX, "demo", "http://files.example/simple/demo/", JSON, None, None, 0.0, b'{"files": []}')


class SlowStore(PageStore):
    """Pages on disk whose look-ups can be held until the test lets them see what was there when they began."""

    held: asyncio.Event | None = None
    waiting = 0

    async def load(self, index: str, project: str) -> StoredPage | None:
        """Look, then wait if told to."""
        found = await super().load(index, project)
        if (held := self.held) is not None:
            self.waiting += 1
            await held.wait()
        return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SlowStore]:
    """Give an empty store of pages."""
    with ThreadPoolExecutor(1) as executor:
        yield SlowStore(tmp_path / "pages", executor)


@pytest.fixture
async def pages(upstream: Upstream, store: SlowStore, tmp_path: Path) -> AsyncIterator[Pages]:
    """Give the service before the scripted upstream, with real limits."""
    limits, metrics, scope = Limits(), Metrics(), TaskScope()
    catalog = Catalog.open(tmp_path / "catalog.sqlite3")
    client = Client(IndexSettings(upstream.index_url), limits, metrics)
    live = Live(settings_for(tmp_path, upstream.index_url))
    yield Pages({INDEX: client}, store, catalog, scope, limits, metrics, live, HotEntries())
    await scope.aclose()
    await client.aclose()
    await catalog.close()


async def test_get_by_many_looks_on_disk_once_and_asks_upstream_once(
    pages: Pages, store: SlowStore, upstream: Upstream
) -> None:
    """Contract 27. While the disk is slow all wait for the one look, and then for the one request."""
    upstream.project("demo", {"demo-1.0.tar.gz": b"x"})
    held = store.held = asyncio.Event()
    asking = [asyncio.create_task(pages.get(INDEX, "demo")) for _ in range(8)]
    while not store.waiting:  # noqa: ASYNC110 - the disk's answer, one turn of the loop at a time
        await asyncio.sleep(0)
    held.set()
    answers = await asyncio.gather(*asking)
    assert len({id(page) for page, _ in answers}) == 1
    assert [freshness for _, freshness in answers].count(Freshness.MISS) == 1
    assert store.waiting == 1
    assert upstream.count("GET", "/simple/demo/") == 1


async def test_get_of_an_unknown_project_by_many_asks_once(pages: Pages, upstream: Upstream) -> None:
    """Contract 34. A 404 is shared like a page, by those who wait and by those who come soon after."""
    gate = upstream.gate("/simple/none/")
    asking = [asyncio.create_task(pages.get(INDEX, "none")) for _ in range(8)]
    await gate.reached.wait()
    gate.open()
    for task in (*asking, asyncio.create_task(pages.get(INDEX, "none"))):
        with pytest.raises(NotFound):
            await task
    assert upstream.count("GET", "/simple/none/") == 1


async def test_get_of_a_stored_page_that_is_damaged_asks_upstream(
    pages: Pages, store: SlowStore, upstream: Upstream, tmp_path: Path
) -> None:
    """Fault 7. A page whose bytes are not those that were stored counts as none."""
    upstream.project("demo", {"demo-1.0.tar.gz": b"x"})
    await store.save(STORED)
    [path] = (tmp_path / "pages").rglob("*.page")
    path.write_bytes(path.read_bytes().replace(b'{"files": []}', b'{"files":[ ]}'))
    page, freshness = await pages.get(INDEX, "demo")
    assert freshness is Freshness.MISS
    assert [record.filename for record in page.content.files] == ["demo-1.0.tar.gz"]


async def test_variant_of_a_large_page_asked_by_many_is_one(pages: Pages, upstream: Upstream) -> None:
    """Rendering leaves the event loop for large pages; those who wanted the same share it, and it is counted once."""
    upstream.project("demo", {f"demo-{number}.tar.gz": b"x" for number in range(2000)})
    page, _ = await pages.get(INDEX, "demo")
    assert len(page.stored.body) > 256 * 1024
    before = pages.memory.variant_bytes
    variants = await asyncio.gather(*(pages.variant(page, PageFormat.HTML, "../") for _ in range(8)))
    assert len({id(variant) for variant in variants}) == 1
    assert pages.memory.variant_bytes - before == len(variants[0].body)


async def test_variants_of_endless_depths_are_kept_in_bounded_number(pages: Pages, upstream: Upstream) -> None:
    """Fault 17. A path of ever more empty segments asks for ever another variant; memory does not grow with it."""
    upstream.project("demo", {"demo-1.0.tar.gz": b"x"})
    page, _ = await pages.get(INDEX, "demo")
    for depth in range(200):
        assert b"../" * depth in (await pages.variant(page, PageFormat.JSON, "../" * depth)).body
    assert len(page.variants) < 32


async def test_variant_begun_before_core_metadata_was_learnt_is_not_kept(
    pages: Pages, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract 15. A look into the catalogue that is overtaken by a new digest is answered with, but not kept."""
    upstream.project("demo", {"demo-1.0-py3-none-any.whl": b"x"})
    page, _ = await pages.get(INDEX, "demo")
    [record] = page.content.files
    catalog = pages._catalog  # noqa: SLF001 - what the service itself looks into
    look, looked, held = catalog.core_metadata, asyncio.Event(), asyncio.Event()

    async def slow(project: str) -> dict[str, str]:
        found = await look(project)
        looked.set()
        await held.wait()
        return found

    monkeypatch.setattr(catalog, "core_metadata", slow)
    late = asyncio.create_task(pages.variant(page, PageFormat.JSON, "../"))
    await looked.wait()
    await catalog.learn_core_metadata([("demo", record.key.value, "5" * 64)])
    pages.forget_core_metadata("demo", at_once=True)
    held.set()
    assert b'"core-metadata":true' in (await late).body
    assert b"5" * 64 in (await pages.variant(page, PageFormat.JSON, "../")).body


async def test_forgetting_core_metadata_keeps_the_count_of_memory(pages: Pages, upstream: Upstream) -> None:
    """Fault 17. What eviction goes by is as before the variants were made."""
    upstream.project("demo", {"demo-1.0-py3-none-any.whl": b"x"})
    page, _ = await pages.get(INDEX, "demo")
    before = pages.memory.variant_bytes
    await pages.variant(page, PageFormat.HTML, "../")
    pages.forget_core_metadata("demo", at_once=True)
    again = await pages.variant(page, PageFormat.HTML, "../")
    assert pages.memory.variant_bytes == before + len(again.body)


async def shown(pages: Pages, upstream: Upstream, *projects: str) -> list[Page]:
    """Return the pages of ``projects``, rendered and stored."""
    found = []
    for project in projects:
        upstream.project(project, {f"{project}-{number}.0.tar.gz": b"x" for number in range(20)})
        page, _ = await pages.get(INDEX, project)
        await pages.variant(page, PageFormat.JSON, "../")
        found.append(page)
        while page.saved_at is None:  # noqa: ASYNC110 - it is stored behind the answer
            await asyncio.sleep(0)
    return found


async def test_parsed_pages_beyond_their_budget_leave_their_variants(
    pages: Pages, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Design 6. What is ready to be sent needs no parsing; what is not is parsed from disk, once for all who ask."""
    demo, *_ = await shown(pages, upstream, "demo", "other")
    monkeypatch.setattr(page_memory, "PARSED_BYTES", pages.memory.parsed_bytes)
    await shown(pages, upstream, "third")
    assert pages.memory.parsed_bytes <= page_memory.PARSED_BYTES
    parses: list[bytes] = []

    def counting(body: bytes, **facts: Any) -> ProjectPage:
        parses.append(body)
        return parse_page(body, **facts)

    monkeypatch.setattr("teepi.pages.parse_page", counting)
    assert (await pages.get(INDEX, "demo")) == (demo, Freshness.HIT)
    await pages.variant(demo, PageFormat.JSON, "../")
    assert (demo.parsed, demo.stored.body, parses) == (None, b"", [])
    await asyncio.gather(*(pages.variant(demo, form, "../") for form in (PageFormat.HTML, PageFormat.HTML_V1)))
    assert len(parses) == 1
    assert upstream.count("GET", "/simple/demo/") == 1


async def test_variants_beyond_their_budget_go_the_oldest_first(
    pages: Pages, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17. Many projects fill no more memory than that; what was used last stays."""
    assert page_memory.VARIANT_BYTES <= 64 << 20
    demo, other = await shown(pages, upstream, "demo", "other")
    monkeypatch.setattr(page_memory, "VARIANT_BYTES", pages.memory.variant_bytes)
    await pages.get(INDEX, "demo")
    [third] = await shown(pages, upstream, "third")
    assert [len(page.variants) for page in (demo, other, third)] == [1, 0, 1]
    assert pages.memory.variant_bytes == demo.variant_bytes + third.variant_bytes <= page_memory.VARIANT_BYTES


async def test_page_that_is_lost_on_disk_and_not_in_memory_is_asked_for_anew(
    pages: Pages, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 7. One client is told to try again; then it is there."""
    demo, _ = await shown(pages, upstream, "demo", "other")
    monkeypatch.setattr(page_memory, "PARSED_BYTES", 1)
    await shown(pages, upstream, "third")
    for path in (tmp_path / "pages").rglob("*.page"):
        path.unlink()
    with pytest.raises(Unavailable, match="try again"):
        await pages.variant(demo, PageFormat.HTML, "../")
    page, freshness = await pages.get(INDEX, "demo")
    assert freshness is Freshness.MISS
    assert (await pages.variant(page, PageFormat.HTML, "../", Coding.GZIP)).body


async def test_page_that_cannot_be_stored_is_not_let_go_in_part(
    pages: Pages, store: SlowStore, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 5. Without a place on disk a page is in memory whole, or not at all."""

    async def full(_: StoredPage) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save", full)
    monkeypatch.setattr(page_memory, "PARSED_BYTES", 1)
    for project in ("demo", "other"):
        upstream.project(project, {f"{project}-1.0.tar.gz": b"x"})
        page, _ = await pages.get(INDEX, project)
        await pages.variant(page, PageFormat.JSON, "../")
    assert pages.memory.get((INDEX, "demo")) is None
    page, freshness = await pages.get(INDEX, "demo")
    assert freshness is Freshness.MISS
    assert (await pages.variant(page, PageFormat.HTML, "../")).body


async def test_save_of_a_caller_that_is_cancelled_is_written_all_the_same(tmp_path: Path) -> None:
    """Issue 2. A stop right after the answer, while the disk is busy, does not lose the page."""
    executor = ThreadPoolExecutor(1)
    store = PageStore(tmp_path, executor)
    busy = threading.Event()
    executor.submit(busy.wait)
    saving = asyncio.create_task(store.save(STORED))
    await asyncio.sleep(0)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    busy.set()
    executor.shutdown()
    assert await store.load(INDEX, "demo") == STORED


async def test_variants_of_one_page_stay_within_the_budget_of_all(
    pages: Pages, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A huge page in many forms is no reason to hold more: the form made last stays."""
    upstream.project("demo", {"demo-1.0.tar.gz": b"x"})
    page, _ = await pages.get(INDEX, "demo")
    last = await pages.variant(page, PageFormat.JSON, "../")
    size = len(last.body) + 100
    monkeypatch.setattr("teepi.page_memory.VARIANT_BYTES", 3 * size)
    for depth in range(2, 10):
        last = await pages.variant(page, PageFormat.JSON, "../" * depth)
    assert last in page.variants.values()
    assert pages.memory.variant_bytes == page.variant_bytes <= 3 * size


async def test_invalidate_goes_on_when_a_reload_changes_the_indexes_meanwhile(pages: Pages, store: SlowStore) -> None:
    """It looks on disk for the page of each index, and an index may come or go while it does."""
    held = store.held = asyncio.Event()
    invalidating = asyncio.create_task(pages.invalidate("demo"))
    while not store.waiting:  # noqa: ASYNC110 - one turn of the loop at a time
        await asyncio.sleep(0)
    upstreams = cast("dict[str, Client]", pages._upstreams)  # noqa: SLF001 - what a reload changes
    upstreams["team/new"] = upstreams[INDEX]
    held.set()
    await invalidating


def test_marked_pages_are_good_for_their_mark_and_within_a_budget() -> None:
    """Another mark makes one anew in its place; those used last stay."""
    kept = MarkedVariants(most_bytes=3200)
    pages = {name: Variant(name.encode() * 1000, name) for name in "abc"}
    for name in "ab":
        kept.put(name, 1, pages[name])
    assert kept.get("a", 2) is None
    assert kept.get("a", 1) is pages["a"]
    kept.put("a", 2, pages["a"])
    assert (kept.get("b", 1), kept.get("a", 2)) == (pages["b"], pages["a"])
    kept.put("c", 2, pages["c"])
    assert [kept.get(name, mark) for name, mark in (("a", 2), ("b", 1), ("c", 2))] == [pages["a"], None, pages["c"]]
    kept.put("d", 2, Variant(b"d" * 9000, "d"))
    assert [kept.get(name, 2) for name in "acd"] == [None, None, None]
