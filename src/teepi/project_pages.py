"""What the pages of users, indexes, projects and versions show, gathered so that each page asks one service.

Of an upstream at most its index page is fetched, as for any installer, and the small core metadata that it has beside
a file, for which nobody waits long. How things look is said in ``web/ui``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from teepi.data import projects
from teepi.distributions.core_metadata import read_fields
from teepi.errors import NotFound, TeepiError
from teepi.project_facts import about, environments
from teepi.project_versions import LONGEST_VERSION, Owned, newest, put_together, upload_time_of
from teepi.project_views import FileRow, IndexProjects, ProjectRow, ProjectView, Run, VersionRow
from teepi.stages import upload_time
from teepi.tasks import in_thread
from teepi.versions import rank, version_key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Sequence

    from teepi.accounts import Accounts
    from teepi.data import Archive, Registered, StoredResult
    from teepi.descriptions import Descriptions
    from teepi.indexes import Indexes
    from teepi.model import FileRecord
    from teepi.pages import Pages
    from teepi.project_versions import VersionFiles
    from teepi.search import Search
    from teepi.simple_api import ProjectPage
    from teepi.stages import Stages

    Mirrored = tuple[str, ProjectPage]

PROJECTS: Final = 200
"""Of one page of an index."""
FILES: Final = 200
VERSIONS: Final = 300
_RUNS: Final = 50
_RUN_BYTES: Final = 1 << 20
_METADATA_SECONDS: Final = 3.0


class ProjectPages:
    """Gathers what a page shows whenever it is asked for."""

    def __init__(
        self,
        archive: Archive,
        accounts: Accounts,
        stages: Stages,
        indexes: Indexes,
        pages: Pages,
        search: Search,
        descriptions: Descriptions,
        metadata: Callable[[FileRecord], Awaitable[bytes | None]],
        is_cached: Callable[[FileRecord], bool],
    ) -> None:
        """``metadata`` gives core metadata that upstream has beside a file or that is here; ``is_cached`` blocks."""
        self._archive = archive
        self._accounts = accounts
        self._stages = stages
        self._indexes = indexes
        self._pages = pages
        self._search = search
        self._descriptions = descriptions
        self._metadata = metadata
        self._is_cached = is_cached

    # -- indexes -------------------------------------------------------------------------------------

    async def projects(self, index: str, page: int) -> IndexProjects:
        """Return what was uploaded to a stage, or what is cached of a mirror; ``page`` counts from 1."""
        self._accounts.directory.require(index)
        if self._stages.stage(index) is not None:
            names = [(index, name) for name in await self._stages.own_projects(index)]
        else:
            owners: dict[str, str] = {}
            for each in self._indexes.resolved(index):
                for name in await self._search.cached_projects(each):
                    owners.setdefault(name, each)
            names = [(owner, name) for name, owner in sorted(owners.items())]
        pages = max(1, -(-len(names) // PROJECTS))
        page = min(max(1, page), pages)
        shown = names[(page - 1) * PROJECTS : page * PROJECTS]
        if self._stages.stage(index) is not None:
            rows = await self._uploaded(index, [name for _, name in shown])
        else:
            rows = await self._cached(shown)
        return IndexProjects(rows, len(names), page, pages)

    async def _uploaded(self, index: str, names: Sequence[str]) -> list[ProjectRow]:
        versions = await self._archive.database.read(lambda c: projects.registered(c, index, names))

        def rows() -> list[ProjectRow]:
            best: dict[str, Registered] = {}
            last: dict[str, float] = {}
            for each in versions:
                if each.project not in best or _standing(each.version) > _standing(best[each.project].version):
                    best[each.project] = each
                last[each.project] = max(last.get(each.project, 0.0), each.registered_at)
            return [
                ProjectRow(index, name, str(found.name), found.version, str(found.summary), upload_time(last[name]))
                for name in names
                if (found := best.get(name)) is not None
            ]

        return await in_thread(rows)

    async def _cached(self, names: Sequence[tuple[str, str]]) -> list[ProjectRow]:
        rows = []
        described = {
            index: await self._search.described(index, [name for each, name in names if each == index])
            for index in {each for each, _ in names}
        }
        for index, name in names:
            told, cached = described[index].get(name), self._search.cached(index, name)
            shown = (name, "", "") if told is None else (told.shown or name, told.version, told.summary)
            rows.append(ProjectRow(index, name, *shown, "", cached.files, cached.size_bytes))
        return rows

    # -- projects ------------------------------------------------------------------------------------

    async def project(self, index: str, project: str, version: str | None = None) -> ProjectView:
        """Return ``project`` (normalised) with its newest version or that one, however it is spelt.

        Raises :class:`NotFound`, and what a mirror raises that has to be asked.
        """
        stage = self._stages.stage(index)
        if version is not None and len(version) > LONGEST_VERSION:
            raise _no_version(index, project, version)
        owned: list[Owned] = []
        mirror: Mirrored | None = None
        problem = ""
        hidden: list[str] = []
        if stage is None:
            self._accounts.directory.require(index)
            page, _ = await self._indexes.page(self._indexes.require(index), project)
            mirror = index, (await self._pages.whole(page)).content
        else:
            owned = await self._owned(index, project)
            try:
                found = await self._stages.page(index, project)
                below = found.mirror or found.added
                mirror = None if below is None else (below[0], (await self._pages.whole(below[1])).content)
                if owned and found.mirror is None and found.added is None:
                    hidden = self._stages.hidden(index, project)
            except NotFound:
                if not owned:
                    raise
            except TeepiError as error:
                if not owned:
                    raise
                problem = error.message
        return await self._view(index, project, version, owned, mirror, hidden, problem)

    async def _owned(self, index: str, project: str) -> list[Owned]:
        names = [stage.name for stage in self._stages.below(index)[0]]

        def read(connection: sqlite3.Connection) -> list[Owned]:
            having = projects.owners(connection, names, project)
            return [
                Owned(
                    name,
                    projects.registered(connection, name, [project]),
                    projects.files(connection, name, project),
                    frozenset(docs.version_key for docs in projects.docs(connection, name, project)),
                )
                for name in names
                if name in having
            ]

        return await self._archive.database.read(read)

    async def _view(
        self,
        index: str,
        project: str,
        version: str | None,
        owned: Sequence[Owned],
        mirror: Mirrored | None,
        hidden: Sequence[str],
        problem: str,
    ) -> ProjectView:
        def work() -> tuple[list[VersionFiles], VersionFiles | None, VersionFiles | None]:
            times = {file.id: upload_time(file.uploaded_at) for stage in owned for file in stage.files}
            versions = put_together(owned, mirror, times)
            best = newest(versions)
            if version is None:
                return versions, best, best
            key = version_key(version)
            return versions, best, next((each for each in versions if each.key == key), None)

        versions, best, chosen = await in_thread(work)
        if version is not None and chosen is None:
            raise _no_version(index, project, version)
        fields: dict[str, Any] | None = None
        files: list[FileRow] = []
        if chosen is not None:
            fields, runs = await self._stored(chosen)
            if fields is None and mirror is not None:
                fields = await self._read_metadata(mirror[1], chosen)
            files = await in_thread(lambda: self._files(chosen, mirror, runs))
        told = await in_thread(lambda: about(fields or {}))
        html = await self._descriptions.html(told.description, told.description_type)
        rows = [_row(each) for each in versions[:VERSIONS]]
        return ProjectView(
            index=index,
            project=project,
            version=None if chosen is None else _row(chosen),
            is_newest=chosen is best,
            newest="" if best is None else best.version,
            about=told,
            has_metadata=fields is not None,
            description_html=html,
            files=files,
            more_files=0 if chosen is None else chosen.files - len(files),
            versions=rows,
            more_versions=len(versions) - len(rows),
            registered_by="" if chosen is None else chosen.registered_by,
            stages=[each.index for each in owned],
            hidden=hidden,
            problem=problem,
        )

    async def _stored(self, chosen: VersionFiles) -> tuple[dict[str, Any] | None, list[StoredResult]]:
        """Return the metadata of a version that a stage has, and what test runs said of its files."""
        ids = [file.id for file in chosen.stored[:FILES]]
        if self._stages.stage(chosen.index) is None:
            return None, []

        def read(connection: sqlite3.Connection) -> tuple[dict[str, Any] | None, list[StoredResult]]:
            found = projects.versions(connection, chosen.index, chosen.project, chosen.key)
            return (
                found[0].fields if found else None,
                projects.latest_results(connection, ids, _RUNS, _RUN_BYTES),
            )

        return await self._archive.database.read(read)

    async def _read_metadata(self, page: ProjectPage, chosen: VersionFiles) -> dict[str, Any] | None:
        """Return the core metadata of a mirrored version as far as it is here or comes within a moment."""
        records = [page.record(at) for at in chosen.places]
        wheels = [record for record in records if record.filename.endswith(".whl")]
        telling = next((record for record in (*wheels, *records) if record.metadata), wheels[0] if wheels else None)
        if telling is None:
            return None
        try:
            async with asyncio.timeout(_METADATA_SECONDS):
                content = await self._metadata(telling)
            return None if content is None else await in_thread(lambda: read_fields(content, {}, telling.filename))
        except (TeepiError, TimeoutError):
            return None  # the page does without

    def _files(self, chosen: VersionFiles, mirror: Mirrored | None, results: Sequence[StoredResult]) -> list[FileRow]:
        """Return the files of a version (blocking)."""
        rows = []
        for file in chosen.stored[:FILES]:
            link = quote(file.path, safe="/+")
            runs = [
                Run(
                    f"{link}.toxresult-{result.id}",
                    upload_time(result.posted_at),
                    result.posted_by,
                    environments(result.content),
                )
                for result in results
                if result.file_id == file.id
            ]
            rows.append(
                FileRow(
                    *(file.filename, file.index, link, file.size, file.sha256, upload_time(file.uploaded_at)),
                    *(file.uploaded_by, None, file.requires_python or "", None, runs),
                )
            )
        if mirror is None:
            return rows
        index, page = mirror
        for at in chosen.places[: FILES - len(rows)]:
            entry, record = page.document["files"][at], page.record(at)
            yanked, requires = entry.get("yanked"), entry.get("requires-python")
            rows.append(
                FileRow(
                    *(record.filename, index, f"{quote(index)}/{page.links[at]}", record.size),
                    *(entry["hashes"].get("sha256", ""), upload_time_of(entry), "", self._is_cached(record)),
                    requires if isinstance(requires, str) else "",
                    (yanked if isinstance(yanked, str) else "") if yanked else None,
                )
            )
        return rows


def _standing(version: str) -> tuple[bool, Any]:
    is_version, parsed = rank(version)
    return is_version and not parsed.is_prerelease, (is_version, parsed)


def _row(found: VersionFiles) -> VersionRow:
    return VersionRow(
        *(found.version, found.index, found.files, found.size, found.time),
        *(found.is_yanked, found.is_prerelease, found.has_docs),
    )


def _no_version(index: str, project: str, version: str) -> NotFound:
    return NotFound(f"There is no version {version[:100]} of {project} in {index}.")
