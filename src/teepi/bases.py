"""Pages of an index that is made of other indexes: who owns a project, and what is put together.

The first base that has a project owns it, unless the project is listed to be merged; a base that cannot say whether
it has one is an error and never a reason to look at the next, or whoever disturbs the first could put the second in
its place. What is decided is kept as a page of the index itself, so that its file URLs follow the same decision, also
after a restart and offline. Nothing is fetched here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from teepi.errors import NotFound
from teepi.pages import Freshness
from teepi.store import StoredPage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from teepi.live import Live
    from teepi.page_memory import Page
    from teepi.pages import Pages


class Bases:
    """The page of a project in any index, one made of others included."""

    def __init__(self, live: Live, pages: Pages) -> None:
        """Answer for all indexes of the settings; their bases go in no circle."""
        self._live = live
        self._pages = pages

    async def get(self, index: str, project: str, *, newer_than: float | None = None) -> tuple[Page, Freshness]:
        """Return the page of ``project`` (normalised) as :meth:`Pages.get` does, and raise what that raises.

        :class:`NotFound` means that every base says so; any other error of a base that comes before the owner is
        raised as it is.
        """
        settings = self._live.indexes[index]
        if not settings.bases or self._live.offline:  # offline nobody can be asked again: what was decided last stands
            return await self._pages.get(index, project, newer_than=newer_than)
        owners: list[Page] = []
        freshness = Freshness.HIT
        for base in settings.bases:
            try:
                page, found = await self.get(base, project, newer_than=newer_than)
            except NotFound:
                continue
            if not owners or found is Freshness.STALE:
                freshness = found
            owners.append(page)
            if project not in settings.merge:
                break
        if not owners:
            msg = f"None of {', '.join(settings.bases)}, of which {index} is made, has a project {project}."
            raise NotFound(msg)
        return await self._page_of(index, project, owners), freshness

    async def _page_of(self, index: str, project: str, owners: Sequence[Page]) -> Page:
        made_of = tuple(owner.token for owner in owners)
        page = self._pages.adopted(index, project, made_of)
        if page is not None:
            return page
        owners = [await self._pages.whole(owner) for owner in owners]
        first = owners[0].stored
        content_type, body = first.content_type, first.body
        if len(owners) > 1:
            document = merged([owner.content.document for owner in owners])
            content_type, body = "application/json", msgspec.json.encode(document)
        stored = StoredPage(index, project, first.url, content_type, None, None, time.time(), body)
        return await self._pages.adopt(stored, made_of)


def merged(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put pages (PEP 691) together: all files, of one name the first; what else there is from the first page."""
    files: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        new: dict[str, list[dict[str, Any]]] = {}
        for file in document["files"]:
            if file["filename"] not in files:
                new.setdefault(file["filename"], []).append(file)
        files |= new
    document = {**documents[0], "files": [file for group in files.values() for file in group]}
    # No claim may be higher than what all of them keep (PEP 700: sizes and versions from 1.1 on).
    document["meta"] = {**documents[0]["meta"], "api-version": min(map(_version, documents), key=_numbers)}
    versions = [document.get("versions") for document in documents]
    document.pop("versions", None)
    if all(isinstance(each, list) for each in versions):
        document["versions"] = list(dict.fromkeys(version for each in versions for version in each or ()))
    return document


def _version(document: dict[str, Any]) -> str:
    return str(document["meta"]["api-version"])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
