"""Pushes a version out of a mirror into a stage: each file is fetched like any download, then kept like any upload."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from packaging.utils import canonicalize_version

from teepi.errors import NotFound, TeepiError, TooLarge, UpstreamError
from teepi.filenames import interpreters_of_filename, version_of_filename
from teepi.tasks import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from teepi.directory import Asker
    from teepi.files import Files, Opened
    from teepi.index_config import IndexConfig
    from teepi.indexes import Indexes
    from teepi.live import Live
    from teepi.model import FileRecord
    from teepi.pages import Pages
    from teepi.uploads import Uploads

log = logging.getLogger(__name__)

_STEP_BYTES: Final = 1 << 20


class Mirrored:
    """What mirrors have, for stages."""

    def __init__(self, indexes: Indexes, pages: Pages, files: Files, uploads: Uploads, live: Live) -> None:
        """Find files by ``indexes`` and ``pages``, fetch them by ``files``, keep them by ``uploads``."""
        self._indexes = indexes
        self._pages = pages
        self._files = files
        self._uploads = uploads
        self._live = live

    async def push(self, asker: Asker, source: str, project: str, version: str, target: IndexConfig) -> list[list[Any]]:
        """Copy the files of a version (``project`` normalised) from the mirror ``source``, each whole or not at all.

        Returns devpi's log of what was done: a file that could not be kept stands there with its status and why. Raises
        :class:`NotFound` when there is no such version, and the first file's error when none could be kept.
        """
        records = await self._records(source, project, version)
        said: list[list[Any]] = []
        errors: list[TeepiError] = []
        for record in records:
            try:
                path = await self._copy(asker, source, record, target)
            except TeepiError as error:
                log.info("%s is not pushed from %s to %s: %s", record.filename, source, target.name, error.message)
                errors.append(error)
                said.append([error.status, "store_releasefile", f"{target.name}/{record.filename}", error.message])
            else:
                said.append([200, "store_releasefile", path])
        if len(errors) == len(records):
            raise errors[0].with_traceback(None)
        return [[200, "register", project, version, "->", target.name], *said]

    async def _records(self, source: str, project: str, version: str) -> list[FileRecord]:
        """Return the wheels and sdists of a version, at the index that they are fetched through."""
        page, _ = await self._indexes.page(self._indexes.require(source), project)
        content = (await self._pages.whole(page)).content
        key = canonicalize_version(version)
        found: dict[str, str] = {}
        for file, address in zip(content.document["files"], content.addresses, strict=True):
            parsed = version_of_filename(file["filename"])
            if parsed is not None and canonicalize_version(parsed) == key:
                found.setdefault(file["filename"], address)
        if not found:
            raise NotFound(f"no release/files found for {project} {version} in {source}")
        return [await self._indexes.file(source, address) for address in found.values()]

    async def _copy(self, asker: Asker, source: str, record: FileRecord, target: IndexConfig) -> str:
        """Fetch a file and keep it; return where it is below the root of this server."""
        opened = self._files.open(record)
        try:
            await self._files.arrive(opened)
            incoming = await self._uploads.begin()
            try:
                await self._read(opened, record.filename, lambda data: self._uploads.write(incoming, data))
                claims = {"pyversion": interpreters_of_filename(record.filename)}
                if (sha256 := record.sha256) is not None:
                    claims["sha256_digest"] = sha256
                kept = await self._uploads.file(asker, target, record.filename, incoming, claims, pushed_from=source)
            finally:
                await self._uploads.end(incoming)
        finally:
            opened.close()
        return kept.file.path

    async def _read(self, opened: Opened, filename: str, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Give all bytes of a file that is here to ``write``."""
        file, size = opened.body.file, opened.body.total
        if file is None or size is None:
            raise UpstreamError(f"{filename} cannot be read now; try again.")
        most = self._live.settings.max_upload_bytes
        if size > most:
            raise TooLarge(f"{filename} has {size} bytes; at most {most} are taken (setting max_upload).")
        fd, offset = file.fd, 0
        while offset < size:
            try:
                data = await in_thread(partial(os.pread, fd, _STEP_BYTES, offset))
            except OSError as error:
                raise UpstreamError(f"The cached {filename} cannot be read: {error.strerror}.") from error
            if not data:
                raise UpstreamError(f"The cached {filename} is shorter than it was; try again.")
            await write(data)
            offset += len(data)
