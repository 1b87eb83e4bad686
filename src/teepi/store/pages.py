"""Upstream's index pages on disk, as received, each behind a checksum and one line of JSON that says what it is."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import aiofiles

from teepi.disk import open_regular, read_regular
from teepi.store.documents import Documents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor
    from pathlib import Path

    from teepi.space import Space

log = logging.getLogger(__name__)

_PROJECT: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_INDEX: Final = re.compile(r"[A-Za-z0-9._@-]+/[A-Za-z0-9._@-]+")


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A page as upstream sent it (content coding removed)."""

    index: str
    project: str
    url: str
    """Where it came from in the end, the base of its relative links."""
    content_type: str
    etag: str | None
    last_modified: str | None
    fetched_at: float
    """Wall-clock seconds of the last answer, 304 included."""
    body: bytes
    asked: str = ""
    """The URL that was asked, before redirects: to nobody else do the validators mean anything."""


class PageStore:
    """The pages of all indexes, one file each."""

    def __init__(self, root: Path, executor: Executor, space: Space | None = None) -> None:
        """Keep pages below ``root``, counted in ``space``; writes block in ``executor``."""
        self.documents = Documents(root, "*/*/*.page", space)
        self._root = root
        self._executor = executor

    def _path(self, index: str, project: str) -> Path:
        if not _PROJECT.fullmatch(project) or not _INDEX.fullmatch(index):
            msg = f"not a normalised project of an index: {index!r} {project!r}"
            raise ValueError(msg)
        return self._root / index.replace("/", "+") / project[:2] / f"{project}.page"

    async def load(self, index: str, project: str) -> StoredPage | None:
        """Return the stored page; None when there is none, or it is damaged."""
        try:
            async with aiofiles.open(self._path(index, project), "rb", opener=open_regular) as file:
                data = await file.read()
        except OSError:
            return None
        return _decode(data)

    async def save(self, page: StoredPage) -> None:
        """Write ``page``, also when the caller is cancelled. Raises OSError; the page stored before stays then."""
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, self._write, page))

    def _write(self, page: StoredPage) -> None:
        self.documents.put(self._path(page.index, page.project), _encode(page))

    def remove(self, index: str, project: str) -> bool:
        """Delete a page (blocking), if there is one; return whether there is none now."""
        try:
            self.documents.discard(self._path(index, project))
        except OSError:
            return False
        return True

    def remove_all(self, index: str) -> None:
        """Delete all pages of an index (blocking), as far as that can be done."""
        for path in list(self._path(index, "x").parent.parent.glob("*/*.page")):
            with contextlib.suppress(OSError):
                self.documents.discard(path)

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield index and project of every stored page (blocking)."""
        return map(self.name, self.documents.paths())

    @staticmethod
    def name(path: Path) -> tuple[str, str]:
        """Return index and project of the page at ``path``."""
        return path.parent.parent.name.replace("+", "/"), path.stem

    def walk(self) -> Iterator[StoredPage]:
        """Yield every stored page (blocking), for rebuilding the catalogue."""
        for path in self.documents.paths():
            with contextlib.suppress(OSError):
                page = _decode(read_regular(path))
                if page is not None:
                    yield page


def _encode(page: StoredPage) -> bytes:
    head = asdict(page)
    del head["body"]
    data = json.dumps(head).encode() + b"\n" + page.body
    return hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def _decode(data: bytes) -> StoredPage | None:
    """Read a page back. The checksum in the first line covers head and body, so what it lets through is ours."""
    checksum, _, rest = data.partition(b"\n")
    if checksum != hashlib.sha256(rest).hexdigest().encode():
        log.warning("A stored page is damaged; it is fetched anew.")
        return None
    line, _, body = rest.partition(b"\n")
    try:
        return StoredPage(body=body, **json.loads(line))
    except (ValueError, TypeError):  # of another version
        return None
