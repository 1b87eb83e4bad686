"""The stores of small files of one cache directory, together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from teepi.store.metadata import MetadataStore
from teepi.store.pages import PageStore

if TYPE_CHECKING:
    from teepi.store.documents import Documents
    from teepi.store.files import Store


@dataclass(frozen=True, slots=True)
class DocumentStores:
    """Upstream's pages and legacy JSON as received, and core metadata that was read out of wheels."""

    pages: PageStore
    legacy: PageStore
    metadata: MetadataStore

    @classmethod
    def of(cls, store: Store) -> Self:
        """Return those beside the files of ``store``, counted with them."""
        return cls(
            PageStore(store.pages_path, store.committing, store.space),
            PageStore(store.legacy_path, store.committing, store.space),
            MetadataStore(store.metadata_path, store.landing, store.space),
        )

    def all(self) -> tuple[Documents, ...]:
        """Return the files of each."""
        return self.pages.documents, self.legacy.documents, self.metadata.documents
