"""The cache directory: the only package that knows paths.

It may not speak HTTP, know the database, or decide what is fetched.
"""

from teepi.store.documents import Document, Documents
from teepi.store.files import LOG_BYTES, CachedFile, DiskState, Store
from teepi.store.lists import ListStore, ListWriter, StoredList
from teepi.store.metadata import MetadataStore, StoredMetadata
from teepi.store.pages import PageStore, StoredPage
from teepi.store.partial import Partial, PartialNotes
from teepi.store.sorting import SortedLines
from teepi.store.stores import DocumentStores

__all__ = [
    "LOG_BYTES",
    "CachedFile",
    "DiskState",
    "Document",
    "DocumentStores",
    "Documents",
    "ListStore",
    "ListWriter",
    "MetadataStore",
    "PageStore",
    "Partial",
    "PartialNotes",
    "SortedLines",
    "Store",
    "StoredList",
    "StoredMetadata",
    "StoredPage",
]
