"""What happens behind the first requests after a start: old partials go, a lost catalogue is rebuilt.

Of the pages it needs only the files that nobody would find by their names; the others are found on the page itself.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import TYPE_CHECKING, Final

from teepi.errors import TeepiError
from teepi.simple_api import parse_page

if TYPE_CHECKING:
    from teepi.catalog import Catalog
    from teepi.limits import Limits
    from teepi.model import FileRecord
    from teepi.store import PageStore, Store, StoredPage

log = logging.getLogger(__name__)

_BATCH: Final = 1000  # files in one transaction: a request that looks something up waits for no more
FLUSH_SECONDS: Final = 30.0  # of access times; losing half a minute of them costs nothing


async def recover(store: Store, pages: PageStore, catalog: Catalog, limits: Limits) -> None:
    """Tidy up what a crash left, and rebuild the catalogue when it needs it."""
    removed = await asyncio.to_thread(store.remove_old_partials, limits.partial_max_age_days)
    if removed:
        log.info("%d partial files that no one touched for a week were deleted.", removed)
    if catalog.needs_rebuild:
        await rebuild(store, pages, catalog)


async def rebuild(store: Store, pages: PageStore, catalog: Catalog) -> None:
    """Fill the catalogue from the stored pages and files; requests are answered meanwhile."""
    stored_pages = pages.walk()
    count = 0
    while (page := await asyncio.to_thread(next, stored_pages, None)) is not None:
        records = await asyncio.to_thread(_records, page)
        await catalog.remember(records)
        count += 1
    files = store.cached_files()
    total = 0
    while batch := await asyncio.to_thread(lambda: list(islice(files, _BATCH))):
        await catalog.add_files(batch)
        total += len(batch)
    await catalog.mark_rebuilt()
    if count or total:
        log.info("The catalogue was rebuilt from %d pages and %d files.", count, total)


def _records(page: StoredPage) -> list[FileRecord]:
    try:
        parsed = parse_page(
            page.body, content_type=page.content_type, url=page.url, index=page.index, project=page.project
        )
    except TeepiError as error:
        log.warning("The stored page of %s cannot be read: %s", page.project, error)
        return []
    return [parsed.record(at) for at in parsed.odd]


async def flush_forever(catalog: Catalog) -> None:
    """Write access times now and then, in one transaction."""
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        await catalog.flush()
