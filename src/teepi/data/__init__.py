"""The data directory: users, private indexes, uploaded files. Precious, hence synced, and touched by no cache command.

Beside ``store`` and ``catalog`` the only package that knows paths and speaks SQL. What may be done by whom is not
decided here.
"""

from teepi.data.archive import Archive
from teepi.data.blobs import Blobs, Incoming
from teepi.data.database import Database
from teepi.data.directory_lock import DirectoryLock
from teepi.data.projects import Registered, StoredDocs, StoredFile, StoredResult, StoredVersion, Summary

__all__ = [
    "Archive",
    "Blobs",
    "Database",
    "DirectoryLock",
    "Incoming",
    "Registered",
    "StoredDocs",
    "StoredFile",
    "StoredResult",
    "StoredVersion",
    "Summary",
]
