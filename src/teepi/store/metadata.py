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
from typing import TYPE_CHECKING

from teepi.store.disk import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor
    from pathlib import Path

    from teepi.model import FileKey


@dataclass(frozen=True, slots=True)
class StoredMetadata:
    """The core metadata of one wheel."""

    project: str
    """Normalised name of the project whose page has the wheel."""
    wheel: str
    """``FileKey.value`` of the wheel."""
    sha256: str
    """Of the content, in hex."""
    content: bytes
    modified_seconds: float
    """Wall clock, when it was read out."""

    @classmethod
    def of(cls, project: str, wheel: FileKey, content: bytes) -> StoredMetadata:
        """Return what was read out just now."""
        return cls(project, wheel.value, hashlib.sha256(content).hexdigest(), content, time.time())


class MetadataStore:
    """The core metadata of all wheels that were looked into. Methods block."""

    def __init__(self, root: Path, executor: Executor) -> None:
        """Keep files below ``root``; callers save in ``executor``."""
        self._root = root
        self.executor = executor

    def _path(self, wheel: FileKey) -> Path:
        slug = wheel.slug
        return self._root / slug.rpartition("-")[2][:2] / slug

    def load(self, wheel: FileKey) -> StoredMetadata | None:
        """Return what was read out of ``wheel``; None when there is nothing, or it is damaged.

        Some kilobytes are read and hashed, in less time than a change of threads takes: it may run on the event loop.
        """
        stored = _read(self._path(wheel))
        return stored if stored is not None and stored.wheel == wheel.value else None

    def save(self, wheel: FileKey, stored: StoredMetadata) -> None:
        """Write ``stored``. Raises OSError; what was there before stays then."""
        path = self._path(wheel)
        head = json.dumps({"project": stored.project, "wheel": stored.wheel, "sha256": stored.sha256})
        data = head.encode() + b"\n" + stored.content
        try:
            replace_file(path, data, durable=False)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data, durable=False)

    def walk(self) -> Iterator[StoredMetadata]:
        """Yield everything, for rebuilding the catalogue."""
        for path in self._root.glob("*/*"):
            stored = _read(path)
            if stored is not None:
                yield stored


def _read(path: Path) -> StoredMetadata | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), path.open("rb", buffering=0) as file:
        head, _, content = file.read().partition(b"\n")
        said = json.loads(head)
        if hashlib.sha256(content).hexdigest() == said["sha256"]:
            modified_seconds = os.fstat(file.fileno()).st_mtime
            return StoredMetadata(said["project"], said["wheel"], said["sha256"], content, modified_seconds)
    return None
