"""The pages of users, indexes, projects and versions, at the URLs that clients use for the same, for browsers only."""

from __future__ import annotations

import re
import shlex
import time
from typing import TYPE_CHECKING, Final

from packaging.utils import canonicalize_name

from teepi.descriptions import MOST_CHARACTERS
from teepi.errors import Forbidden, NotFound, Unauthorized
from teepi.index_config import ANONYMOUS, AUTHENTICATED
from teepi.web import answers
from teepi.web.ui.view import client_lines, host_of, upload_lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp import web
    from aiohttp.web_request import BaseRequest

    from teepi.accounts import Accounts
    from teepi.directory import Asker
    from teepi.index_config import IndexConfig
    from teepi.live import Live
    from teepi.overview import FoundProject
    from teepi.project_pages import ProjectPages
    from teepi.web.gate import Gate
    from teepi.web.ui.view import Views

    Search = Callable[[BaseRequest, str, str], Awaitable[tuple[Sequence[FoundProject], bool]]]

_PROJECT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")  # PEP 508
_LONGEST_QUERY: Final = 200
_NUMBER: Final = re.compile("[0-9]{1,6}")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class ProjectUi:
    """Thin: ask who, ask ``pages``, render."""

    def __init__(
        self, accounts: Accounts, gate: Gate, pages: ProjectPages, views: Views, live: Live, search: Search
    ) -> None:
        """``search`` gives what an index (and what it is made of) has of some words."""
        self._accounts = accounts
        self._gate = gate
        self._pages = pages
        self._views = views
        self._live = live
        self._search = search

    # -- who may what --------------------------------------------------------------------------------

    def may_upload(self, asker: Asker, config: IndexConfig | None) -> bool:
        """Whether to show what uploads and deletes."""
        if config is None or not config.is_stage:
            return False
        try:
            self._accounts.directory.require_upload(asker, config, time.time())
        except (Unauthorized, Forbidden):
            return False
        return True

    def may_own(self, asker: Asker, user: str) -> bool:
        """Whether to show what changes indexes of ``user``."""
        try:
            self._accounts.directory.require_owner(asker, user, "", self._live.settings.restrict_modify)
        except (Unauthorized, Forbidden):
            return False
        return True

    # -- users ---------------------------------------------------------------------------------------

    async def user(self, request: BaseRequest, name: str) -> web.StreamResponse:
        """``/{user}``: who, and his indexes as far as the visitor may read them."""
        user = self._accounts.directory.users.get(name)
        asker = await self._gate.asker(request)
        readable = set(await self._gate.readable(request))
        own = [each for each in self._accounts.directory.of_user(name) if each in readable]
        if user is None and not own:
            raise NotFound(f"There is no user {name[:100]} here.")
        extra = {} if user is None else user.extra
        return self._views.page(
            "user.html",
            request=request,
            name=name,
            title=_text(extra.get("title")),
            description=_text(extra.get("description")),
            indexes=[{"name": each, "what": self.what(each)} for each in own],
            may_own=user is not None and self.may_own(asker, name),
            is_self=user is not None and asker.user == name and asker.token is None,
        )

    def what(self, index: str) -> str:
        """Return in a few words what an index is."""
        shown = self._accounts.shown(index)
        title = _text(shown.get("title"))
        if shown["type"] == "stage":
            bases = ", ".join(shown["bases"])
            what = f"private index on top of {bases}" if bases else "private index"
        else:
            what = f"mirror of {shown['mirror_url']}" if "mirror_url" in shown else "put together"
        return f"{title}: {what}" if title else what

    # -- indexes -------------------------------------------------------------------------------------

    async def index(self, request: BaseRequest, name: str) -> web.StreamResponse:
        """``/{user}/{index}/``: what it is made of, its projects, lines for clients."""
        directory = self._accounts.directory
        config = directory.require(name)
        asker = await self._gate.asker(request)
        query = request.rel_url.query
        words, number = query.get("q", "").strip()[:_LONGEST_QUERY], query.get("page", "1")
        found, is_cut = await self._search(request, name, words) if words else ((), False)
        part = await self._pages.projects(name, int(number) if _NUMBER.fullmatch(number) else 1)
        base = answers.outside(request, self._live.settings)
        shown = self._accounts.shown(name)
        is_stage = shown["type"] == "stage"
        return await self._views.large_page(
            "index.html",
            request=request,
            index=name,
            shown=shown,
            is_stage=is_stage,
            title=_text(shown.get("title")),
            description=_text(shown.get("description")),
            bases=list(shown.get("bases", ())) or list(self._bases(name)),
            below=[each for each in directory.order(name) if each != name],
            uploaders=said_of(config.acl_upload) if config is not None and is_stage else "",
            readers=said_of(config.acl_read) if config is not None else "everybody",
            whitelist=sorted(config.whitelist) if config is not None and is_stage else [],
            is_configured=config is None,
            query=words,
            found=found,
            is_cut=is_cut,
            part=part,
            clients=client_lines(base, name),
            uploads=upload_lines(base, name) if is_stage else [],
            may_upload=self.may_upload(asker, config),
            may_own=config is not None and self.may_own(asker, config.user),
        )

    def _bases(self, name: str) -> Sequence[str]:
        found = self._live.indexes.get(name)
        return () if found is None else found.bases

    # -- projects ------------------------------------------------------------------------------------

    async def project(
        self, request: BaseRequest, index: str, name: str, version: str | None = None, *, slash: bool = True
    ) -> web.StreamResponse:
        """``/{user}/{index}/{project}/`` with the newest version, or ``…/{version}``."""
        self._accounts.directory.require(index)
        if not _PROJECT.fullmatch(name):
            raise NotFound(f"{name[:100]!r} is not the name of a project.")
        project = canonicalize_name(name)
        raw_query = request.raw_path.partition("?")[2]
        if version is None and not (slash and project == name):
            return answers.redirect(f"../{project}/" if slash else f"{project}/", raw_query)
        asker = await self._gate.asker(request)
        found = await self._pages.project(index, project, version)
        config = self._accounts.directory.index(index)
        base = answers.outside(request, self._live.settings)
        return await self._views.large_page(
            "project.html",
            request=request,
            view=found,
            most_text=MOST_CHARACTERS,
            is_one=version is not None,
            name=found.about.name if canonicalize_name(found.about.name) == project else project,
            install=install_line(base, index, project, None if found.version is None else found.version.version),
            is_stage=config is not None and config.is_stage,
            may_upload=self.may_upload(asker, config),
        )


def install_line(base: str, index: str, project: str, version: str | None) -> str:
    """Return what installs one version with pip; ``base`` as in :func:`client_lines`."""
    host = host_of(base)
    trusted = f" --trusted-host {host}" if base.startswith("http:") and host not in _LOOPBACK else ""
    wanted = shlex.quote(project if version is None else f"{project}=={version}")
    return f"pip install --index-url {base}/{index}/+simple/{trusted} {wanted}"


def said_of(principals: Sequence[str]) -> str:
    """Return an access list in words."""
    if ANONYMOUS in principals:
        return "everybody"
    words = ["everybody who is logged in" if each == AUTHENTICATED else each for each in principals]
    return ", ".join(words) or "nobody but root"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
