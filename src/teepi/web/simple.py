"""Handlers for index pages: the project list and a project's page, in the form that Accept asks for."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11, web
from packaging.utils import canonicalize_name

from teepi.errors import NotAcceptable, NotFound, TeepiError
from teepi.http_semantics import PageFormat, choose_page_format, if_none_match, index_prefix
from teepi.web import answers

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from teepi.indexes import Indexes
    from teepi.limits import Limits
    from teepi.pages import Pages

_PROJECT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # PEP 508
_LONGEST_NAME: Final = 200  # characters; no index has longer ones, and the page must find room in a file name
_VARY: Final = "Accept, Accept-Encoding"
# What upstream's list is asked for, by what the client takes; it passes through as it comes.
_LIST_ACCEPT: Final = {
    PageFormat.JSON: "application/vnd.pypi.simple.v1+json",
    PageFormat.HTML_V1: "application/vnd.pypi.simple.v1+html, text/html;q=0.5",
    PageFormat.HTML: "text/html, application/vnd.pypi.simple.v1+html;q=0.5",
}


class PageHandlers:
    """Thin: negotiate, ask ``pages``, answer."""

    def __init__(self, indexes: Indexes, pages: Pages, limits: Limits) -> None:
        """Answer from ``pages``."""
        self._limits = limits
        self._indexes = indexes
        self._pages = pages

    async def project(self, request: BaseRequest, index: str, name: str, *, slash: bool) -> web.StreamResponse:
        """Answer ``…/{name}/``; a name that is not normalised, or no slash behind it, redirects (PEP 503)."""
        self._indexes.require(index)
        if len(name) > _LONGEST_NAME or not _PROJECT.fullmatch(name):
            msg = f"{name[:100]!r} is not the name of a project."
            raise NotFound(msg)
        project = canonicalize_name(name)
        if not slash or project != name:
            query = request.raw_path.partition("?")[2]
            return answers.redirect(f"../{project}/" if slash else f"{project}/", query)
        form = _negotiate(request)
        page, freshness = await self._indexes.page(index, project)
        base = index_prefix(request.raw_path.partition("?")[0]) + f"{index}/"
        variant = await self._pages.variant(page, form, base)
        headers = {
            "Content-Type": form.content_type,
            "Cache-Control": "no-cache",  # a 304 is cheap here; a copied max-age would add to our own freshness
            "ETag": variant.etag,
            "Vary": _VARY,
            "Cache-Status": f"teepi; {freshness.value}",
        }
        condition = answers.header(request, "If-None-Match")
        if condition is not None and if_none_match(condition, variant.etag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=variant.body, headers=headers)

    async def project_list(self, request: BaseRequest, index: str) -> web.StreamResponse:
        """Answer ``…/``: upstream's project list, passed through."""
        self._indexes.require(index)
        form = _negotiate(request)
        async with self._indexes.project_list(index, _LIST_ACCEPT[form]) as (content_type, body):
            response = web.StreamResponse(
                headers={
                    "Content-Type": content_type,
                    "Cache-Control": "no-store",
                    "Vary": _VARY,
                    "Cache-Status": "teepi; fwd=bypass",
                }
            )
            if request.version >= HttpVersion11:
                response.enable_chunked_encoding()
            else:
                response.force_close()  # HTTP/1.0 has no chunks: the end of the connection ends the body
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            try:
                async for part in body:
                    async with asyncio.timeout(self._limits.client_idle_seconds):
                        await response.write(part)
            except (TeepiError, TimeoutError):
                response.force_close()
                if request.transport is not None:
                    request.transport.abort()  # a chunked body without its last chunk is seen to be cut
        return response


def _negotiate(request: BaseRequest) -> PageFormat:
    form = choose_page_format(answers.header(request, "Accept"))
    if form is None:
        offered = ", ".join(form.content_type for form in PageFormat)
        msg = f"The Accept header excludes every form of this page; it comes as {offered}."
        raise NotAcceptable(msg)
    return form
