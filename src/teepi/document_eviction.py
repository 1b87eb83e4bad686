"""Lets go pages, legacy JSON and core metadata: when they crowd out the files, when nothing else is left, when unused.

Methods block; ``eviction`` says when. What is pinned stays, and so does every file: those are not looked at here.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from teepi.sizes import said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from teepi.space import Space
    from teepi.store import Document, Documents, DocumentStores
    from teepi.store.pins import Pins

log = logging.getLogger(__name__)

_MOST_SHARE: Final = 0.5  # of the limit: a cache of packages is for packages
_LOW_SHARE: Final = 0.4


class DocumentKeeper:
    """Of one cache directory."""

    def __init__(self, stores: DocumentStores, space: Space, pins: Pins) -> None:
        """Evict from ``stores``, but for the projects in ``pins``."""
        self._stores = stores
        self._space = space
        self._pins = pins
        self.gone: Callable[[str, str], object] | None = None
        """Called with index and project, in the thread that evicts, when a page went."""

    def crowd(self) -> int:
        """Return how many bytes must go because more than half of the limit would be taken by what is no package."""
        if self._space.other <= self._space.limit * _MOST_SHARE:
            return 0
        return self._space.other - int(self._space.limit * _LOW_SHARE)

    def evict(self, need: int) -> int:
        """Delete what was not used for longest until ``need`` bytes are free; return how many are."""
        freed = 0
        for documents, document in sorted(self._all(), key=lambda each: each[1].used_at):
            if freed >= need:
                break
            freed += self._discard(documents, document)
        if freed:
            log.info("Index pages and core metadata (%s) were evicted from the cache.", said(freed))
        return freed

    def evict_unused(self, before: float) -> None:
        """Delete what was not used since ``before``, in seconds of the wall clock."""
        for documents, document in self._all():
            if document.used_at < before:
                self._discard(documents, document)

    def _all(self) -> Iterator[tuple[Documents, Document]]:
        for documents in self._stores.all():
            for document in documents.all():
                yield documents, document

    def _discard(self, documents: Documents, document: Document) -> int:
        stores = self._stores
        if documents is stores.metadata.documents:
            index = project = ""
        else:
            index, project = stores.pages.name(document.path)
            if project in self._pins.projects:
                return 0
        with suppress(OSError):
            size = documents.discard(document.path)
            if documents is stores.pages.documents and self.gone is not None:
                self.gone(index, project)
            return size
        return 0
