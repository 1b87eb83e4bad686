"""The catalogue: an SQLite index over what the cache directory holds and what pages have linked to.

``catalog`` holds the actions, ``tables`` the schema, the statements and how a database file is opened.
No HTTP, no paths but the database's own, and no decision on what is fetched, evicted or shown lives here.
"""

from teepi.catalog.catalog import Catalog

__all__ = ["Catalog"]
