"""Handlers for index pages: the project list and a project's page, in the form that Accept asks for."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import web
from packaging.utils import canonicalize_name

from teepi.codings import Coding, choose_coding, takes
from teepi.errors import NotFound
from teepi.http_semantics import if_none_match, index_prefix, wants_fresh
from teepi.pages import Freshness
from teepi.web import answers
from teepi.web.hot import SEEN, wish_key

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from teepi.indexes import Indexes
    from teepi.limits import Limits
    from teepi.list_forms import ListBody
    from teepi.lists import ProjectLists
    from teepi.pages import Pages
    from teepi.web.hot import HotPath

_PROJECT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # PEP 508
_LONGEST_NAME: Final = 200  # characters; no index has longer ones, and the page must find room in a file name


class PageHandlers:
    """Thin: negotiate, ask ``pages``, answer."""

    def __init__(self, indexes: Indexes, pages: Pages, lists: ProjectLists, limits: Limits, hot: HotPath) -> None:
        """Answer from ``pages`` and ``lists``; ``hot`` takes note of what may be answered so again."""
        self._hot = hot
        self._lists = lists
        self._limits = limits
        self._indexes = indexes
        self._pages = pages

    async def project(self, request: BaseRequest, index: str, name: str, *, slash: bool) -> web.StreamResponse:
        """Answer ``…/{name}/``; a name that is not normalised, or no slash behind it, redirects (PEP 503)."""
        request[answers.KIND] = "page"
        request[SEEN] = self._hot.entries.drops
        self._indexes.require(index)
        if len(name) > _LONGEST_NAME or not _PROJECT.fullmatch(name):
            msg = f"{name[:100]!r} is not the name of a project."
            raise NotFound(msg)
        project = canonicalize_name(name)
        if not slash or project != name:
            query = request.raw_path.partition("?")[2]
            return answers.redirect(f"../{project}/" if slash else f"{project}/", query)
        form = answers.negotiate(request)
        newer_than = None
        if wants_fresh(answers.header(request, "Cache-Control")):
            newer_than = time.monotonic() - self._limits.refresh_seconds
        page, freshness = await self._indexes.page(index, project, newer_than=newer_than)
        base = index_prefix(request.raw_path.partition("?")[0]) + f"{index}/"
        coding = choose_coding(answers.header(request, "Accept-Encoding"))
        variant = await self._pages.variant(page, form, base, coding)
        response = answers.page(request, variant, form, freshness.value)
        if freshness is Freshness.HIT and variant is page.variants.get((form, base, coding)):
            await response.prepare(request)
            self._hot.record(
                request,
                response,
                project,
                partial(self._pages.memory.get, page.key),
                kind="page",
                wish=wish_key(form, coding),
                body=variant.body,
                expires_at=self._pages.stays_until(page),
            )
        return response

    async def project_list(self, request: BaseRequest, index: str) -> web.StreamResponse:
        """Answer ``…/``: the list of all projects, sent as it lies on disk to those who take gzip."""
        request[answers.KIND] = "list"
        if not self._lists.is_index(index):
            self._indexes.require(index)
        form = answers.negotiate(request)
        gzip = takes(answers.header(request, "Accept-Encoding"), Coding.GZIP)
        body, freshness = await self._lists.open(index, form, gzip=gzip)
        try:
            headers = {
                "Content-Type": form.content_type,
                "Cache-Control": "no-cache",
                "ETag": body.etag,
                "Vary": answers.VARY,
                "Cache-Status": f"teepi; {freshness.value}",
            }
            if if_none_match(answers.header(request, "If-None-Match"), body.etag):
                return web.Response(status=304, headers=headers)
            if gzip:
                headers["Content-Encoding"] = "gzip"
            response = web.StreamResponse(headers=headers)
            response.content_length = body.size
            await response.prepare(request)
            if request.method != "HEAD":
                await self._send(request, response, body)
            return response
        finally:
            body.close()

    async def _send(self, request: BaseRequest, response: web.StreamResponse, body: ListBody) -> None:
        """Send a list; one that cannot be sent whole is seen to be cut."""
        left = body.size
        try:
            while piece := await body.read():
                async with asyncio.timeout(self._limits.client_idle_seconds):
                    await response.write(piece)
                left -= len(piece)
        except ConnectionError:
            raise  # the client has gone
        except (OSError, zlib.error):  # TimeoutError is an OSError
            pass
        if left:
            response.force_close()
            if request.transport is not None:
                request.transport.abort()
