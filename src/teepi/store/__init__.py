"""The cache directory: the only package that knows paths.

It may not speak HTTP, know the database, or decide what is fetched.
"""

from teepi.store.files import LOG_BYTES, CachedFile, Store
from teepi.store.lists import ListStore, ListWriter, StoredList
from teepi.store.pages import PageStore, StoredPage
from teepi.store.partial import Partial, PartialNotes

__all__ = [
    "LOG_BYTES",
    "CachedFile",
    "ListStore",
    "ListWriter",
    "PageStore",
    "Partial",
    "PartialNotes",
    "Store",
    "StoredList",
    "StoredPage",
]
