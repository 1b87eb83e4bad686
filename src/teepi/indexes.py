"""Named indexes: which index answers for which project, and which file a URL means.

Joins ``pages`` and ``files``: a file URL that the catalogue does not know leads to one look at the page of the project
that the file name belongs to. Nothing that no page has linked to is ever asked of upstream.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from teepi.bases import Bases
from teepi.errors import NotFound, Offline, Unavailable
from teepi.filenames import project_of_filename
from teepi.metadata import METADATA, metadata_of
from teepi.pages import Freshness
from teepi.simple_api import other_addresses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from teepi.catalog import Catalog
    from teepi.limits import Limits
    from teepi.live import Live
    from teepi.metadata import CoreMetadata
    from teepi.model import FileRecord
    from teepi.page_memory import Page
    from teepi.pages import Pages
    from teepi.simple_api import ProjectPage

    _Find = Callable[[str, "_Reach"], Awaitable[FileRecord | None]]

DEFAULT_INDEX: Final = "root/pypi"
_SHOWN: Final = 300  # characters of what was asked for that an error repeats


class _Reach(Enum):
    """How far a look for a file goes, nearest first; asking upstream for the page comes after."""

    MEMORY = "the catalogue, and pages in memory"
    DISK = "pages on disk, too"


class Indexes:
    """All indexes that this process serves."""

    def __init__(
        self,
        live: Live,
        pages: Pages,
        catalog: Catalog,
        limits: Limits,
        core_metadata: CoreMetadata,
    ) -> None:
        """Serve the indexes that the settings name; ``core_metadata`` has what upstream has not."""
        self._core_metadata = core_metadata
        self._live = live
        self._bases = Bases(live, pages)
        self._pages = pages
        self._catalog = catalog
        self._limits = limits

    def require(self, index: str) -> str:
        """Return ``index``, or raise :class:`NotFound` when there is none of that name."""
        if index not in self._live.indexes:
            known = ", ".join(sorted(self._live.settings.indexes))  # not those of users, who may hide them
            msg = f"There is no index {index} here; this teepi serves {known}."
            raise NotFound(msg)
        return index

    def resolved(self, index: str | None) -> list[str]:
        """Return ``index`` and all that it is made of, in the order in which they are asked; None means all indexes.

        Raises :class:`NotFound` when there is none of that name.
        """
        wanted = [self.require(index)] if index is not None else sorted(self._live.indexes)
        found: dict[str, None] = {}
        while wanted:
            name = wanted.pop(0)
            if name not in found and name in self._live.indexes:
                found[name] = None
                wanted[:0] = self._live.indexes[name].bases
        return list(found)

    async def page(self, index: str, project: str, *, newer_than: float | None = None) -> tuple[Page, Freshness]:
        """Return the page of ``project`` (normalised) in ``index``; see :meth:`Bases.get`."""
        return await self._bases.get(index, project, newer_than=newer_than)

    async def file(self, index: str, address: str) -> FileRecord:
        """Return the file at ``address`` below the base of ``index`` (decoded, as in :class:`FileRecord`).

        Raises :class:`NotFound`, or what fetching the page raises.
        """

        async def find(wanted: str, reach: _Reach) -> FileRecord | None:
            return await self._at_base(await self._at(index, wanted, reach), reach)

        return await self._with_metadata(index, address, find)

    async def file_by_digest(self, index: str, prefix: str, filename: str) -> FileRecord:
        """Return the file ``filename`` whose sha256 begins with ``prefix`` (16 hex): devpi's ``+f``."""

        def on_page(page: ProjectPage, wanted: str) -> list[FileRecord]:
            return [record for record in page.named(wanted) if (record.sha256 or "").startswith(prefix)]

        async def find(wanted: str, reach: _Reach) -> FileRecord | None:
            async def rows() -> list[FileRecord]:
                row = await self._catalog.find_by_digest(index, prefix, wanted)
                return [] if row is None else [row]

            found = await self._look(index, wanted, reach, lambda page: on_page(page, wanted), rows)
            return await self._at_base(found[0] if found else None, reach)

        return await self._with_metadata(index, filename, find)

    async def file_by_path(self, path: str) -> FileRecord:
        """Return the one file of the default index whose upstream URL has ``path``.

        Several hosts may have the same path: then none is right, and :class:`NotFound` says so.
        """

        async def find(wanted: str, reach: _Reach) -> FileRecord | None:
            found = await self._look(
                DEFAULT_INDEX,
                wanted,
                reach,
                lambda page: page.at_path(wanted),
                lambda: self._catalog.find_by_path(DEFAULT_INDEX, wanted),
            )
            return await self._at_base(_only(path, found), reach)

        return await self._with_metadata(DEFAULT_INDEX, path, find)

    async def file_by_name(self, project: str, filename: str) -> FileRecord:
        """Return the file ``filename`` that the default index's page of ``project`` (normalised) links to."""

        async def find(wanted: str, reach: _Reach) -> FileRecord | None:
            if reach is _Reach.MEMORY:
                await self.page(DEFAULT_INDEX, project)
            linked = await self._pages.stored(DEFAULT_INDEX, project)
            found = [] if linked is None else linked.named(wanted)
            return await self._at_base(await self._noted(found[0]) if found else None, reach)

        return await self._with_metadata(DEFAULT_INDEX, filename, find, project)

    async def _at(self, index: str, address: str, reach: _Reach) -> FileRecord | None:
        """Return the file at ``address`` as far as ``reach`` goes."""

        def on_page(page: ProjectPage) -> list[FileRecord]:
            record = page.at(address)
            return [] if record is None else [record]

        async def rows() -> list[FileRecord]:
            row = await self._catalog.find(index, address)
            return [] if row is None else [row]

        found = await self._look(index, address, reach, on_page, rows)
        return found[0] if found else None

    async def _look(
        self,
        index: str,
        wanted: str,
        reach: _Reach,
        on_page: Callable[[ProjectPage], list[FileRecord]],
        rows: Callable[[], Awaitable[list[FileRecord]]],
    ) -> list[FileRecord]:
        """Return the files that the page says, to which the name of ``wanted`` leads, else those of the catalogue.

        No other page may say what that project's file is: before its page has been looked for on disk, the rows of
        other projects do not count.
        """
        project = project_of_filename(wanted.rpartition("/")[2])
        page = None
        if project is not None:
            deep = reach is _Reach.DISK
            page = await self._pages.stored(index, project) if deep else self._pages.linked(index, project)
        linked = [] if page is None else on_page(page)
        if linked:
            return [await self._noted(record) for record in linked]
        found = await rows()
        if project is None or page is not None or reach is _Reach.DISK:
            return found
        return [record for record in found if record.project == project]

    async def _noted(self, record: FileRecord) -> FileRecord:
        """Return what the catalogue knows of a file that a page links to, and see that it knows it."""
        row = await self._catalog.find(record.index, record.address)
        if row is not None and replace(row, immutable=record.immutable, bound_to=record.bound_to) == record:
            return row
        self._pages.note(record)
        return record

    async def _at_base(self, record: FileRecord | None, reach: _Reach) -> FileRecord | None:
        """Return the record of the same file at the base that it is fetched through, with that one's settings.

        That this index has a record says that its own page links to the file; the base's alone would not do.
        """
        if record is None or not self._live.indexes[record.index].bases:
            return record
        for base in self._live.indexes[record.index].bases:
            for address in (record.address, *other_addresses(record)):
                found = await self._at_base(await self._at(base, address, reach), reach)
                if found is not None and (found.url, found.digest) == (record.url, record.digest):
                    return found
        return None

    async def _with_metadata(
        self,
        index: str,
        wanted: str,
        find: _Find,
        project: str | None = None,
    ) -> FileRecord:
        """Find ``wanted``, or the core metadata of the file it names with ``.metadata`` behind.

        What is not found is looked for on the page of ``project``, else of the project that the name belongs to.
        """
        found = await self._find_or_look(index, wanted, find, project)
        if found is not None:
            return found
        if self._live.offline:
            msg = f"teepi runs offline and does not know {wanted[:_SHOWN]}."
            raise Offline(msg)
        msg = f"No page of {index} links to {wanted[:_SHOWN]}."
        raise NotFound(msg)

    async def _find_or_look(self, index: str, wanted: str, find: _Find, project: str | None) -> FileRecord | None:
        for reach in _Reach:
            record = await self._find(wanted, find, reach)
            if record is not None:
                return record
        project = project or project_of_filename(wanted.rpartition("/")[2])
        if project is None:
            return None
        # The page may be older than the link (uv asks for the URLs of a lock file directly).
        recently = time.monotonic() - self._limits.page_recheck_seconds
        try:
            _, freshness = await self.page(index, project, newer_than=recently)
        except Offline:
            return None
        record = await self._find(wanted, find, _Reach.DISK)
        if record is None and freshness is Freshness.STALE and not self._live.offline:
            msg = f"Upstream cannot be asked now whether the page of {project} links to {wanted[:_SHOWN]}. Try again."
            raise Unavailable(msg)
        return record

    async def _find(self, wanted: str, find: _Find, reach: _Reach) -> FileRecord | None:
        """Find it; every record that is handed out comes through here."""
        record = self._apart(await find(wanted, reach))
        if record is None and wanted.endswith(METADATA):
            base = self._apart(await find(wanted.removesuffix(METADATA), reach))
            if base is not None and base.metadata:
                return metadata_of(base)
            if base is not None and self._live.synthesize_metadata:
                return self._core_metadata.record(base)
        return record

    def _apart(self, record: FileRecord | None) -> FileRecord | None:
        """Say in the record whether its index shares files: the catalogue does not, and settings change."""
        if record is None or record.bound_to == (bound_to := self._live.bound_to(record.index)):
            return record
        return replace(record, bound_to=bound_to)


def _only(path: str, records: Sequence[FileRecord]) -> FileRecord | None:
    if len({record.url for record in records}) > 1:
        msg = f"Several hosts have {path}; ask for it under /{DEFAULT_INDEX}/+files/HOST{path}."
        raise NotFound(msg)
    return records[0] if records else None
