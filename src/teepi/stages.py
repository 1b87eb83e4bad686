"""Private indexes as clients read them: pages, versions, files; their own first, bases after.

Stages merge, the first that has a file of a name wins. A name in any stage hides the mirrors below, unless it is on
the stages' whitelist; among mirrors the first that has the project owns it. A base that fails is an error and never a
reason to look at the next. Nothing is kept here: what was uploaded is shown at once.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from teepi.bases import merged
from teepi.data import StoredFile, projects
from teepi.errors import Deleted, NotFound, StoreError, Unavailable
from teepi.pages import Freshness
from teepi.simple_api import ProjectPage, render
from teepi.versions import rank, version_key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping, Sequence

    from teepi.accounts import Accounts
    from teepi.data import Archive, StoredDocs, StoredResult, StoredVersion, Summary
    from teepi.http_semantics import PageFormat
    from teepi.index_config import IndexConfig
    from teepi.indexes import Indexes
    from teepi.page_memory import Page
    from teepi.pages import Pages
    from teepi.store import CachedFile

log = logging.getLogger(__name__)

METADATA: Final = ".metadata"  # PEP 658
PROVENANCE: Final = ".provenance"  # PEP 740
_OWN: Final = "\0"  # before a link that begins at the root of this server: no upstream's can
_API_VERSION: Final = "1.3"  # of the pages made here: PEP 740 is the newest of what they have


@dataclass(frozen=True, slots=True)
class StagePage:
    """The page of a project in a stage."""

    freshness: Freshness
    mirror: tuple[str, Page] | None
    """Index and page, when a mirror below answers alone."""
    content: ProjectPage | None
    """Else what is shown; its links begin at the root of this server."""
    added: tuple[str, Page] | None = None
    """Index and page of the mirror, when it adds to what stages have."""
    is_settled: bool = False
    """Whether no mirror has a say in it: it stays as long as :meth:`Stages.mark` does."""


@dataclass(frozen=True, slots=True)
class Release:
    """A version of a project in one stage, with all that belongs to it."""

    version: StoredVersion
    files: Sequence[StoredFile]
    docs: StoredDocs | None
    results: Sequence[StoredResult]
    """Of test runs, for all of its files; without what they said."""


class Stages:
    """All stages. ``accounts`` says which there are, ``archive`` has what was uploaded."""

    def __init__(self, archive: Archive, accounts: Accounts, indexes: Indexes, pages: Pages) -> None:
        """Ask ``indexes`` and ``pages`` for what mirrors have."""
        self._archive = archive
        self._accounts = accounts
        self._indexes = indexes
        self._pages = pages

    def stage(self, index: str) -> IndexConfig | None:
        """Return the stage of that name, None for a mirror or an unknown one."""
        config = self._accounts.directory.index(index)
        return config if config is not None and config.is_stage else None

    def below(self, index: str) -> tuple[list[IndexConfig], list[str]]:
        """Return the stages and the names of the mirrors that ``index`` is made of, each in their order."""
        stages, mirrors = [], []
        for name in self._accounts.directory.order(index):
            config = self.stage(name)
            if config is not None:
                stages.append(config)
            else:
                mirrors.append(name)
        return stages, mirrors

    def made_of(self, index: str) -> Collection[str]:
        """Return ``index`` with all that it is made of, mirrors of the settings' included. Raises :class:`NotFound`."""
        directory = self._accounts.directory
        directory.require(index)
        return {each for name in directory.order(index) for each in (name, *self._of_settings(name))}

    def _of_settings(self, name: str) -> Sequence[str]:
        return self._indexes.resolved(name) if self._accounts.directory.index(name) is None else ()

    # -- pages ---------------------------------------------------------------------------------------

    async def page(self, index: str, project: str, *, newer_than: float | None = None) -> StagePage:
        """Return the page of ``project`` (normalised) in the stage ``index``.

        Raises :class:`NotFound` when no index that it is made of has it, and what the first mirror raises.
        """
        names = [stage.name for stage in self.below(index)[0]]

        def read(connection: sqlite3.Connection) -> list[dict[str, Any]]:
            having = projects.owners(connection, names, project)
            return [
                _document(
                    project,
                    projects.spellings(connection, name, project),
                    projects.files(connection, name, project, with_log=False),
                )
                for name in names
                if name in having
            ]

        documents = await self._archive.database.read(read)
        found = await self.of_mirrors(index, project, is_owned=bool(documents), newer_than=newer_than)
        if not documents:
            if found is None:
                raise NotFound(f"None of the indexes that {index} is made of has a project {project}.")
            mirror, page, freshness = found
            return StagePage(freshness, (mirror, page), None)
        freshness = Freshness.HIT
        if found is not None:
            mirror, page, freshness = found
            documents.append(await self._rooted(mirror, page))
        document = merged(documents)
        links = [file["url"] for file in document["files"]]
        added = None if found is None else (found[0], found[1])
        content = ProjectPage(index, project, document, links, links)
        return StagePage(freshness, None, content, added, is_settled=not self._asked(index, project, is_owned=True))

    def _require_whole(self, index: str, project: str) -> None:
        """Raise :class:`Unavailable` when a base is no more: it may have had the project, and hidden all below it."""
        missing = self._accounts.directory.missing(index)
        if missing:
            raise Unavailable(
                f"{index} is made of {', '.join(missing)}, which is no more: whose {project} is, cannot be said. "
                "Bring it back, or take it out of the bases."
            )

    async def mark(self) -> tuple[object, ...]:
        """Return what stays equal as long as nothing has changed in any private index."""
        directory = self._accounts.directory
        return directory, await self._archive.database.read(projects.state)

    async def of_mirrors(
        self, index: str, project: str, *, is_owned: bool, newer_than: float | None = None
    ) -> tuple[str, Page, Freshness] | None:
        """Return which mirror of ``index`` answers for ``project``, or adds to one that ``is_owned`` by a stage.

        None when no mirror has it or may add to it. Raises what the first mirror raises.
        """
        if not is_owned:
            self._require_whole(index, project)
        for mirror in self._asked(index, project, is_owned=is_owned):
            try:
                page, freshness = await self._indexes.page(mirror, project, newer_than=newer_than)
            except NotFound:
                continue
            return mirror, page, freshness
        return None

    def _asked(self, index: str, project: str, *, is_owned: bool) -> Sequence[str]:
        stages, mirrors = self.below(index)
        return mirrors if not is_owned or _is_whitelisted(stages, project) else ()

    async def _rooted(self, mirror: str, page: Page) -> dict[str, Any]:
        """Return what the page of a mirror says, with links from the root of this server."""
        content = await self._pages.shown(page)
        files = [
            {**file, "url": f"{quote(mirror)}/{link}"}
            for file, link in zip(content.document["files"], content.links, strict=True)
        ]
        return {**content.document, "files": files}

    def hidden(self, index: str, project: str) -> list[str]:
        """Return the mirrors of ``index`` that are not asked for a ``project`` which one of its stages has."""
        stages, mirrors = self.below(index)
        return [] if _is_whitelisted(stages, project) else mirrors

    async def owner(self, index: str, project: str) -> str | None:
        """Return the first stage of ``index`` that has ``project``, None when it is a mirror's or nobody's."""
        stages, _ = self.below(index)
        names = [stage.name for stage in stages]
        having = await self._archive.database.read(lambda c: projects.owners(c, names, project))
        return next((name for name in names if name in having), None)

    async def names(self, index: str) -> list[str]:
        """Return the projects of all stages that ``index`` is made of, sorted."""
        names = [stage.name for stage in self.below(index)[0]]
        found = await self._archive.database.read(lambda c: projects.project_names(c, names))
        return sorted({project for each in found.values() for project in each})

    def mirrors(self, index: str) -> list[str] | None:
        """Return the names of the mirrors that a stage is made of, in their order; None for what is no stage."""
        return None if self.stage(index) is None else self.below(index)[1]

    async def own_projects(self, index: str) -> list[str]:
        """Return what was uploaded to ``index`` itself, sorted."""
        found = await self._archive.database.read(lambda c: projects.project_names(c, [index]))
        return found[index]

    async def summaries(self, index: str | None = None, project: str | None = None) -> list[Summary]:
        """Return in a word what all versions are that were uploaded, or those of one project."""
        return await self._archive.database.read(lambda c: projects.summaries(c, index, project))

    # -- versions ------------------------------------------------------------------------------------

    async def releases(
        self, index: str, project: str, version: str | None = None, *, with_bases: bool = True
    ) -> list[Release]:
        """Return the versions of a project, or that one, however it is spelt; of ``index`` first, then of its stages.

        Of each stage newest first. None is in the answer when no stage has any.
        """
        stages, _ = self.below(index)
        names = [stage.name for stage in stages] if with_bases else [index]
        key = None if version is None else version_key(version)

        def read(connection: sqlite3.Connection) -> list[Release]:
            found = []
            for name in names:
                docs = {each.version_key: each for each in projects.docs(connection, name, project)}
                files: dict[str, list[StoredFile]] = {}
                for file in projects.files(connection, name, project, key):
                    files.setdefault(file.version_key, []).append(file)
                results: dict[int, list[StoredResult]] = {}
                for result in projects.results_of(connection, name, project, key):
                    results.setdefault(result.file_id, []).append(result)
                of_stage = []
                for each in projects.versions(connection, name, project, key):
                    mine = files.get(each.version_key, [])
                    said = [result for file in mine for result in results.get(file.id, ())]
                    of_stage.append(Release(each, mine, docs.get(each.version_key), said))
                found += sorted(of_stage, key=lambda release: rank(release.version.version), reverse=True)
            return found

        return await self._archive.database.read(read)

    # -- files ---------------------------------------------------------------------------------------

    async def version_of(self, file: StoredFile) -> str:
        """Return the version that a file is of, as it was first spelt."""
        found = await self._archive.database.read(
            lambda c: projects.versions(c, file.index, file.project, file.version_key)
        )
        return found[0].version if found else file.version_key

    async def file(self, index: str, prefix: str, filename: str) -> StoredFile:
        """Return the file of that name in ``index`` whose sha256 begins with ``prefix`` (16 hex).

        Raises :class:`NotFound`, and :class:`Deleted` for what was here.
        """

        def read(connection: sqlite3.Connection) -> tuple[StoredFile | None, bool]:
            found = projects.file_named(connection, index, filename)
            if found is not None and found.sha256.startswith(prefix):
                return found, False
            return None, projects.was_deleted(connection, index, filename, prefix)

        found, is_gone = await self._archive.database.read(read)
        if found is not None:
            return found
        if is_gone:
            raise Deleted(f"{filename[:200]} was deleted from {index}.")
        raise NotFound(f"{index} has no file {filename[:200]} with that digest.")

    async def result(self, file: StoredFile, number: int) -> str:
        """Return what a test run said of a file: JSON. Raises :class:`NotFound`."""
        found = await self._archive.database.read(lambda c: projects.result(c, file.id, number))
        if found is not None:
            return found
        raise NotFound(f"There is no such result of a test run of {file.filename}.")

    async def open(self, file: StoredFile | StoredDocs) -> CachedFile:
        """Open what was uploaded, for one reader. Raises :class:`StoreError` when the disk has lost it."""
        landed = self._archive.blobs.open(file.sha256, file.size)
        if landed is None:
            log.error("%s/%s: the file %s is missing or cut.", file.index, file.project, file.sha256)
            raise StoreError(
                f"The bytes of this file (sha256 {file.sha256[:16]}) are missing in teepi's data directory or cut: run "
                "'teepi data check' there; uploading the very same file again brings it back."
            )
        return landed

    async def core_metadata_named(self, index: str, project: str, filename: str) -> bytes | None:
        """Return the core metadata of the first file of that name in the stages of ``index``, None without any."""
        names = [stage.name for stage in self.below(index)[0]]

        def read(connection: sqlite3.Connection) -> bytes | None:
            for name in names:
                file = projects.file_named(connection, name, filename)
                if file is not None and file.project == project:
                    return projects.core_metadata(connection, file.id)
            return None

        return await self._archive.database.read(read)

    async def core_metadata(self, file: StoredFile) -> bytes:
        """Return the core metadata of a file (PEP 658). Raises :class:`NotFound`."""
        found = await self._archive.database.read(lambda c: projects.core_metadata(c, file.id))
        if found is None:
            raise NotFound(f"There is no core metadata of {file.filename}.")
        return found


def has_provenance(content: ProjectPage) -> bool:
    """Whether a page of :class:`StagePage` has links to the provenance of uploads, which are absolute."""
    return any(str(file.get("provenance")).startswith(_OWN) for file in content.document["files"])


def render_page(content: ProjectPage, form: PageFormat, root: str, outside: str) -> bytes:
    """Render a page of :class:`StagePage`; ``root`` leads from it to the root of this server, ``../../``.

    ``outside`` is the URL of that root, with a slash at its end: links to provenance are absolute (PEP 740).
    """
    files = [
        {**file, "provenance": outside + link[len(_OWN) :]}
        if isinstance(link := file.get("provenance"), str) and link.startswith(_OWN)
        else file
        for file in content.document["files"]
    ]
    return render(replace(content, document={**content.document, "files": files}), form, root)


def provenance(file: StoredFile) -> dict[str, Any]:
    """Return the provenance of a file (PEP 740): its attestations as uploaded, and who uploaded them.

    Raises :class:`NotFound` when it came without.
    """
    if file.attestations is None:
        raise NotFound(f"{file.filename} was uploaded without attestations.")
    publisher = {"kind": "teepi", "claims": {"user": file.uploaded_by, "index": file.index}}
    return {
        "version": 1,
        "attestation_bundles": [{"publisher": publisher, "attestations": json.loads(file.attestations)}],
    }


def _is_whitelisted(stages: Sequence[IndexConfig], project: str) -> bool:
    """Whether mirrors may add to a project that stages have; the lists are put together as devpi does."""
    inheritance = stages[0].values.get("mirror_whitelist_inheritance", "intersection")  # of the index that is asked
    lists = [stage.whitelist for stage in stages]
    allowed = frozenset.union(*lists) if inheritance == "union" else frozenset.intersection(*lists)
    return project in allowed or "*" in allowed


def _document(project: str, spelt: Mapping[str, str], files: Sequence[StoredFile]) -> dict[str, Any]:
    """Return the page of uploaded files (PEP 691, 700, 714, 740); links begin at the root of this server."""
    shown: list[dict[str, Any]] = []
    for file in files:
        link = quote(file.path, safe="/+")
        entry: dict[str, Any] = {
            "filename": file.filename,
            "url": link,
            "hashes": {"sha256": file.sha256},
            "size": file.size,
            "upload-time": upload_time(file.uploaded_at),
            "yanked": False,
        }
        if file.requires_python:
            entry["requires-python"] = file.requires_python
        if file.metadata_sha256 is not None:
            entry["core-metadata"] = {"sha256": file.metadata_sha256}
        if file.attestations is not None:
            entry["provenance"] = _OWN + link + PROVENANCE
        shown.append(entry)
    versions = list(dict.fromkeys(spelt[file.version_key] for file in files))
    return {"meta": {"api-version": _API_VERSION}, "name": project, "files": shown, "versions": versions}


def upload_time(seconds: float) -> str:
    """Return a moment as PEP 700 wants it."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1_000_000):06}Z"
