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
from teepi.documentation import Documentation
from teepi.external import External
from teepi.mirrored import Mirrored
from teepi.search_query import Project
from teepi.stages import Stages
from teepi.uploads import Uploads
from teepi.versions import rank
from teepi.web import answers
from teepi.web.app import Private
from teepi.web.devpi import DevpiHandlers
from teepi.web.docs import DocsHandlers
from teepi.web.gate import Gate
from teepi.web.search import SearchHandlers
from teepi.web.stages import StageHandlers
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
    from teepi.pages import Pages
    from teepi.search import Search
    from teepi.tasks import TaskScope
    from teepi.web.send import Senders

log = logging.getLogger(__name__)

_CHECKING_THREADS = 4  # each looks into one upload, which may be large


@dataclass(frozen=True, slots=True)
class PrivateIndexes:
    """What is asked for by handlers and operators."""

    live: Live
    scope: TaskScope
    indexes: Indexes
    pages: Pages
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
        if accounts.empty_root:
            log.warning(
                "root logs in with an EMPTY PASSWORD (insecure_empty_root): whoever reaches this port can point "
                "root/pypi elsewhere. Set a password with 'teepi user passwd root'."
            )
        threads = ThreadPoolExecutor(_CHECKING_THREADS, thread_name_prefix="uploads")
        undo.push_async_callback(asyncio.to_thread, threads.shutdown)  # it waits for them
        stages = Stages(archive, accounts, indexes, pages)
        uploads = Uploads(archive, threads, changed)
        return cls(live, scope, indexes, pages, accounts, stages, uploads, Gate(accounts), archive.trouble)

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
