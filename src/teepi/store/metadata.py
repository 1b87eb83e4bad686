"""Core metadata that was read out of wheels: one small file per wheel, behind one line of JSON with its digest.

``v1/metadata/ab/<key of the wheel>``. Nothing is synced, since it can be read out again: what a power cut has left of a
file is not what its digest says, and is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from teepi.hot_entries import InFile
from teepi.store.documents import Documents

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from teepi.model import FileKey
    from teepi.space import Space

_NOTED_SECONDS: Final = 86400.0


@dataclass(frozen=True, slots=True)
class StoredMetadata:
    """The core metadata of one wheel."""

    sha256: str
    """Of the content, in hex."""
    content: bytes
    modified_seconds: float
    """Wall clock, when it was read out."""

    @classmethod
    def of(cls, content: bytes) -> StoredMetadata:
        """Return what was read out just now."""
        return cls(hashlib.sha256(content).hexdigest(), content, time.time())


class MetadataStore:
    """The core metadata of all wheels that were looked into. Methods block."""

    def __init__(self, root: Path, executor: Executor, space: Space | None = None) -> None:
        """Keep files below ``root``, counted in ``space``; callers save in ``executor``."""
        self.documents = Documents(root, "*/*", space, is_used_by_reading=True)
        self._root = root
        self.executor = executor
        self._noted: dict[str, float] = {}

    def path(self, wheel: FileKey) -> Path:
        """Return where what is read out of ``wheel`` lies."""
        slug = wheel.slug
        return self._root / slug.rpartition("-")[2][:2] / slug

    def load(self, wheel: FileKey) -> StoredMetadata | None:
        """Return what was read out of ``wheel``; None when there is nothing, or it is damaged.

        Some kilobytes are read and hashed, in less time than a change of threads takes: it may run on the event loop.
        """
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), self.path(wheel).open("rb", 0) as file:
            line, _, content = file.read().partition(b"\n")
            head = json.loads(line)
            if head["wheel"] == wheel.value and head["sha256"] == hashlib.sha256(content).hexdigest():
                status = os.fstat(file.fileno())
                if status.st_atime < time.time() - _NOTED_SECONDS:  # by it eviction goes, and many disks note none
                    os.utime(file.fileno(), (time.time(), status.st_mtime))
                return StoredMetadata(head["sha256"], content, status.st_mtime)
        return None

    def place(self, wheel: FileKey, stored: StoredMetadata) -> InFile:
        """Return where the content of ``stored`` lies, once it is saved."""
        return InFile(str(self.path(wheel)), len(_first_line(wheel, stored)), len(stored.content), stored.sha256)

    def note_use(self, wheel: FileKey) -> None:
        """Note, about once a day and in a thread, that it was read without :meth:`load`."""
        now = time.time()
        if self._noted.get(wheel.value, 0.0) < now - _NOTED_SECONDS:
            self._noted[wheel.value] = now
            with contextlib.suppress(RuntimeError):  # teepi stops
                self.executor.submit(_note_use, self.path(wheel), now)

    def save(self, wheel: FileKey, stored: StoredMetadata) -> None:
        """Write ``stored``. Raises OSError; what was there before stays then."""
        data = _first_line(wheel, stored) + stored.content
        self.documents.put(self.path(wheel), data, durable=False)


def _first_line(wheel: FileKey, stored: StoredMetadata) -> bytes:
    return json.dumps({"wheel": wheel.value, "sha256": stored.sha256}).encode() + b"\n"


def _note_use(path: Path, now: float) -> None:
    with contextlib.suppress(OSError):
        os.utime(path, (now, path.stat().st_mtime))
