"""What happens behind the first requests after a start: old partials go, a lost catalogue is rebuilt.

Of the pages it needs only the files that nobody would find by their names; the others are found on the page itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from itertools import islice
from typing import TYPE_CHECKING, Final

from teepi.errors import TeepiError
from teepi.simple_api import parse_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from teepi.catalog import Catalog
    from teepi.eviction import Keeper
    from teepi.limits import Limits
    from teepi.simple_api import ProjectPage
    from teepi.store import PageStore, Store, StoredPage

log = logging.getLogger(__name__)

_BATCH: Final = 1000  # files in one transaction: a request that looks something up waits for no more
FLUSH_SECONDS: Final = 30.0  # of access times; losing half a minute of them costs nothing


KEPT_UNTIL: Final = "kept_until"
_MARK_SLACK_SECONDS: Final = 90.0  # a file may be committed before a mark and its row be written after it


async def recover(
    store: Store,
    pages: PageStore,
    catalog: Catalog,
    limits: Limits,
    keeper: Keeper,
    bound_to: Callable[[str], str],
) -> None:
    """Tidy up what a crash left, and rebuild the catalogue when it needs it.

    ``bound_to`` says it of an index (:attr:`FileRecord.bound_to`): what the pages of a stranger's claim names no file
    of another's.
    """
    began = time.time()
    removed = await asyncio.to_thread(store.remove_old_partials, limits.partial_max_age_days)
    if removed:
        log.info("Partial files that no one touched for a week were deleted: %d.", removed)
    is_lost = catalog.needs_rebuild
    total = await reconcile(store, catalog, began)
    keeper.counted()
    if is_lost:
        await rebuild(store, pages, catalog, total, bound_to)
    elif total:
        await name(store, pages, catalog, bound_to)
    keeper.named()


async def reconcile(store: Store, catalog: Catalog, before: float) -> int:
    """Add to the catalogue what was committed (before ``before``) and lost its row to a kill or a power cut.

    Only shelves that changed since the catalogue's last mark are looked at. Returns how many files were added.
    """
    mark = None if catalog.needs_rebuild else await catalog.noted(KEPT_UNTIL)
    newer_than = None
    if mark is not None and float(mark) <= before:  # one from the future says nothing
        newer_than = float(mark) - _MARK_SLACK_SECONDS
    files: Iterator[tuple[str, int]] = store.shelves.files(newer_than=newer_than, before=before)
    number = catalog.totals[0]
    while batch := await asyncio.to_thread(lambda: list(islice(files, _BATCH))):
        store.space.found(await catalog.add_files(batch))
    await catalog.note(KEPT_UNTIL, str(before))
    return catalog.totals[0] - number


async def rebuild(store: Store, pages: PageStore, catalog: Catalog, total: int, bound_to: Callable[[str], str]) -> None:
    """Fill the catalogue from the stored pages and name its ``total`` files; requests are answered meanwhile."""
    stored_pages = pages.walk()
    count = 0
    while (page := await asyncio.to_thread(next, stored_pages, None)) is not None:
        parsed = await asyncio.to_thread(_parsed, page, bound_to)
        if parsed is not None:
            await catalog.remember([parsed.record(at) for at in parsed.odd])
        await catalog.name_files(await asyncio.to_thread(_names, store, parsed))
        count += 1
    await catalog.mark_rebuilt()
    if count or total:
        log.info("The catalogue was rebuilt from %d pages and %d files.", count, total)


async def name(store: Store, pages: PageStore, catalog: Catalog, bound_to: Callable[[str], str]) -> None:
    """Find out from the stored pages what files without a name are called."""
    unnamed = {each.sha256 for each in await catalog.files() if not each.filename}
    stored_pages = pages.walk()
    while unnamed and (page := await asyncio.to_thread(next, stored_pages, None)) is not None:
        parsed = await asyncio.to_thread(_parsed, page, bound_to)
        names = await asyncio.to_thread(_names, store, parsed)
        found = {sha256: called for sha256, called in names if sha256 in unnamed}
        if found:
            await catalog.name_files(found.items())
        unnamed -= found.keys()


def _names(store: Store, page: ProjectPage | None) -> list[tuple[str, tuple[str, str, str]]]:
    records = () if page is None else map(page.record, range(len(page.links)))
    found = ((store.sha256_of(record.key), record) for record in records)
    return [(sha256, (each.index, each.project, each.filename)) for sha256, each in found if sha256 is not None]


def _parsed(page: StoredPage, bound_to: Callable[[str], str]) -> ProjectPage | None:
    try:
        return parse_page(
            page.body,
            content_type=page.content_type,
            url=page.url,
            index=page.index,
            project=page.project,
            bound_to=bound_to(page.index),
        )
    except TeepiError as error:
        log.warning("The stored page of %s cannot be read: %s", page.project, error)
        return None


async def flush_forever(catalog: Catalog) -> None:
    """Write access times now and then, in one transaction, and a mark behind what was committed until then."""
    marked = catalog.totals
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        now, totals = time.time(), catalog.totals
        await catalog.flush()
        if totals != marked:
            await catalog.note(KEPT_UNTIL, str(now))
            marked = totals
