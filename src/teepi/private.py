"""The services of private indexes, made and handed to each other; a part of ``assembly``."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from teepi.accounts import Accounts
from teepi.credentials import Credentials
from teepi.data import Archive
from teepi.descriptions import Descriptions
from teepi.documentation import Documentation
from teepi.external import External
from teepi.indexes import DEFAULT_INDEX
from teepi.mirrored import Mirrored
from teepi.project_pages import ProjectPages
from teepi.search_query import Project
from teepi.stages import Stages
from teepi.uploads import Uploads
from teepi.versions import rank
from teepi.web import answers
from teepi.web.app import Private, Ui
from teepi.web.devpi import DevpiHandlers
from teepi.web.docs import DocsHandlers
from teepi.web.gate import Gate
from teepi.web.search import SearchHandlers
from teepi.web.stages import StageHandlers
from teepi.web.ui import IndexLine, UiHandlers
from teepi.web.ui.manage import ManageUi
from teepi.web.ui.projects import ProjectUi
from teepi.web.ui.session import SessionHandlers
from teepi.web.uploads import UploadHandlers

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aiohttp.web_request import BaseRequest

    from teepi.files import Files
    from teepi.index_settings import IndexSettings
    from teepi.indexes import Indexes
    from teepi.limits import Limits
    from teepi.live import Live
    from teepi.metadata import CoreMetadata
    from teepi.model import FileRecord
    from teepi.overview import FoundProject, Overview
    from teepi.pages import Pages
    from teepi.search import Search
    from teepi.store import Store
    from teepi.tasks import TaskScope
    from teepi.web.send import Senders

    Found = Callable[[BaseRequest, str | None, str], Awaitable[tuple[Sequence[FoundProject], bool]]]

log = logging.getLogger(__name__)

_CHECKING_THREADS = 4  # each looks into one upload, which may be large


@dataclass(frozen=True, slots=True)
class PrivateIndexes:
    """What is asked for by handlers and operators."""

    live: Live
    scope: TaskScope
    indexes: Indexes
    pages: Pages
    archive: Archive
    accounts: Accounts
    stages: Stages
    uploads: Uploads
    gate: Gate
    problem: Callable[[], str | None]
    """Gives one sentence when the data directory cannot be written, or an upload failed lately."""

    @classmethod
    async def open(
        cls,
        live: Live,
        scope: TaskScope,
        undo: contextlib.AsyncExitStack,
        indexes: Indexes,
        pages: Pages,
        mirrors_changed: Callable[[Mapping[str, IndexSettings]], None],
        forget_upstream: Callable[[str, bool], Awaitable[None]],
        changed: Callable[[str, str], object],
    ) -> PrivateIndexes:
        """Open the data directory; ``undo`` closes it, also while it still waits. Raises :class:`StoreError`.

        ``mirrors_changed`` and ``forget_upstream`` are as :class:`Accounts` has them; ``changed`` is told index
        and project after each upload.
        """
        archive = Archive(live.settings.data_dir)
        undo.push_async_callback(archive.close)
        await asyncio.to_thread(archive.open)
        if archive.problem is not None:
            log.warning("%s", archive.problem)
        credentials = Credentials(scope)
        undo.callback(credentials.close)
        accounts = Accounts(archive, credentials, live, mirrors_changed, forget_upstream)
        await accounts.load()
        live.is_public = lambda index: accounts.directory.is_public(index)  # noqa: PLW0108 - of the picture as it is then
        if accounts.identity.empty_root:
            log.warning(
                "root logs in with an EMPTY PASSWORD (insecure_empty_root): whoever reaches this port can point "
                "root/pypi elsewhere. Set a password with 'teepi user passwd root'."
            )
        threads = ThreadPoolExecutor(_CHECKING_THREADS, thread_name_prefix="uploads")
        undo.push_async_callback(asyncio.to_thread, threads.shutdown)  # it waits for them
        stages = Stages(archive, accounts, indexes, pages)
        uploads = Uploads(archive, threads, changed)
        return cls(live, scope, indexes, pages, archive, accounts, stages, uploads, Gate(accounts), archive.trouble)

    def handlers(self, files: Files, senders: Senders, limits: Limits, search: Search) -> Private:
        """Return what answers requests."""
        mirrored = Mirrored(self.indexes, self.pages, files, self.uploads, self.live)
        external = External(self.stages, self.live, limits)
        return Private(
            self.gate,
            DevpiHandlers(self.accounts, self.gate, lambda index: self._projects(index, search), self.outside),
            StageHandlers(
                self.stages, self.indexes, self.pages, senders, self.outside, refresh_seconds=limits.refresh_seconds
            ),
            UploadHandlers(self.accounts, self.gate, self.stages, self.uploads, mirrored, external, self.live, limits),
            SearchHandlers(search, self.permitted),
            DocsHandlers(Documentation(self.stages), self.stages, senders),
        )

    async def people(
        self,
        limits: Limits,
        store: Store,
        search: Search,
        found: Found,
        overview: Callable[[], Awaitable[Overview]],
        read_metadata: Callable[[FileRecord], Awaitable[bytes]],
        core_metadata: CoreMetadata,
    ) -> Ui:
        """Return the pages for people; ``found`` gives what some words find, in an index or in all of them."""

        async def metadata(file: FileRecord) -> bytes | None:
            """Return what is small or here: nobody's look at a page fetches a wheel."""
            return await read_metadata(file) if file.metadata else await core_metadata.at_hand(file)

        def is_cached(file: FileRecord) -> bool:
            sha256 = store.sha256_of(file.key)
            return sha256 is not None and store.shelves.path(sha256).is_file()

        descriptions = Descriptions(self.scope)
        accounts, gate = self.accounts, self.gate
        pages = ProjectPages(
            *(self.archive, accounts, self.stages, self.indexes, self.pages, search, descriptions, metadata, is_cached)
        )

        async def readable(request: BaseRequest) -> Sequence[IndexLine]:
            return [IndexLine(name, projects.what(name)) for name in await gate.readable(request)]

        home = await asyncio.to_thread(
            UiHandlers,
            overview,
            lambda request, words: found(request, None, words),
            DEFAULT_INDEX,
            self.live,
            readable,
            lambda: accounts.identity.empty_root,
        )
        projects = ProjectUi(accounts, gate, pages, home.views, self.live, found)
        session = SessionHandlers(accounts, gate, home.views, self.outside)
        manage = ManageUi(
            *(accounts, gate, self.stages, self.uploads, home.views, self.live, session),
            idle_seconds=limits.client_idle_seconds,
        )
        return Ui(home, projects, session, manage)

    def outside(self, request: BaseRequest) -> str:
        """Return the URL of this server as a client knows it, without a last slash."""
        return answers.outside(request, self.live.settings)

    async def permitted(self, request: BaseRequest, index: str | None) -> Sequence[str]:
        """Return the indexes that a search looks into, in the order of their resolution, as far as the asker may."""
        readable = await self.gate.readable(request, index)
        known = self.live.indexes
        return list(
            dict.fromkeys(
                each for name in readable for each in (self.indexes.resolved(name) if name in known else [name])
            )
        )

    async def _projects(self, index: str, search: Search) -> Sequence[str]:
        """Return the names of what was uploaded to an index, or of what is cached of a mirror."""
        if self.stages.stage(index) is not None:
            return await self.stages.own_projects(index)
        return await search.cached_projects(index)

    # -- what a search knows of uploads --------------------------------------------------------------

    async def searchable(self) -> list[Project]:
        """Return all projects that were uploaded, for a search."""
        found: dict[tuple[str, str], Project] = {}
        for each in await self.stages.summaries():
            key = each.index, each.project
            if key not in found or rank(each.version) > rank(found[key].version):
                found[key] = Project(each.index, each.project, each.name, each.summary, each.version, is_uploaded=True)
        return list(found.values())

    async def tell(self, search: Search, index: str, project: str) -> None:
        """Tell ``search`` what a project is now."""
        versions = await self.stages.summaries(index, project)
        if not versions:
            await search.forget(index, project)
            return
        newest = max(versions, key=lambda each: rank(each.version))
        await search.note(index, project, newest.name, newest.summary, newest.version)
