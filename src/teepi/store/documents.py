"""Small files that the cache holds beside packages: pages, legacy JSON, core metadata. Each may go, and comes anew.

They are counted before they are written, so that they never take the cache above its limit. Methods block.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from teepi.disk import make_directories, replace_file
from teepi.space import Space

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Document:
    """A file as eviction sees it."""

    path: Path
    size: int
    used_at: float
    """Seconds of the wall clock, about."""


class Documents:
    """The files below a directory that match a pattern."""

    def __init__(
        self, root: Path, pattern: str, space: Space | None = None, *, is_used_by_reading: bool = False
    ) -> None:
        """``pattern`` is one for ``Path.glob``; the bytes are counted in ``space``.

        A file counts as used when it was written (a page is, each time that upstream confirms it), or read.
        """
        self._is_used_by_reading = is_used_by_reading
        self.root = root
        self._pattern = pattern
        self._space = space or Space()

    def put(self, path: Path, data: bytes, *, durable: bool = True) -> None:
        """Write a file, in the place of what was there. Raises OSError, :class:`~teepi.space.NoRoom` among them."""
        before = 0
        with contextlib.suppress(OSError):
            before = path.lstat().st_size
        self._space.claim(len(data))
        try:
            make_directories(path.parent)
            replace_file(path, data, durable=durable)
        except BaseException:
            self._space.grown(-len(data))
            raise
        self._space.grown(-before)

    def paths(self) -> Iterator[Path]:
        """Yield where all of them lie."""
        with contextlib.suppress(OSError):
            yield from self.root.glob(self._pattern)

    def all(self) -> Iterator[Document]:
        """Yield all of them."""
        for path in self.paths():
            with contextlib.suppress(OSError):
                status = path.lstat()
                yield Document(path, status.st_size, status.st_atime if self._is_used_by_reading else status.st_mtime)

    def discard(self, path: Path) -> int:
        """Delete a file; return its bytes, 0 when it was not there. Raises OSError when it stays."""
        try:
            size = path.lstat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        self._space.grown(-size)
        return size
