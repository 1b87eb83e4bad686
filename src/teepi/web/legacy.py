"""Handler for legacy JSON: a project, or one release of it. The one answer whose links are absolute."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aiohttp import web
from packaging.utils import canonicalize_name

from teepi.errors import NotFound
from teepi.http_semantics import if_none_match
from teepi.web import answers

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from teepi.indexes import Indexes
    from teepi.legacy import Legacy
    from teepi.live import Live
    from teepi.pages import Pages

_PROJECT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")  # PEP 508


class LegacyHandlers:
    """Thin: ask ``pages`` and ``legacy``, answer."""

    def __init__(self, indexes: Indexes, pages: Pages, legacy: Legacy, live: Live) -> None:
        """Answer from ``legacy`` about what ``pages`` has."""
        self._live = live
        self._indexes = indexes
        self._pages = pages
        self._legacy = legacy

    async def project(
        self, request: BaseRequest, index: str, name: str, version: str | None = None
    ) -> web.StreamResponse:
        """Answer ``…/{name}/json`` and ``…/{name}/{version}/json``, however name and version are spelt."""
        request[answers.KIND] = "legacy"
        self._indexes.require(index)
        if not _PROJECT.fullmatch(name):
            msg = f"{name[:100]!r} is not the name of a project."
            raise NotFound(msg)
        page, freshness = await self._indexes.page(index, canonicalize_name(name))
        page = await self._pages.whole(page)
        base = answers.outside(request, self._live.settings)
        body, etag = await self._legacy.get(page, f"{base}/{index}/", version)
        headers = {
            "Content-Type": "application/json",
            "Cache-Control": "no-cache",
            "ETag": etag,
            "Vary": f"Host, {answers.OUTSIDE_URL}",  # the links carry them
            "Cache-Status": f"teepi; {freshness.value}",
        }
        condition = answers.header(request, "If-None-Match")
        if condition is not None and if_none_match(condition, etag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers)
