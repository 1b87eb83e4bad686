"""Handlers for uploaded documentation: its pages, and the zip.

Whoever may upload decides what stands in them, so a browser gives them no part in this origin: they run in a sandbox
(CSP, ``sandbox`` without ``allow-same-origin``), cannot read what teepi answers, and their writes come with the Origin
``null``, which ``guard`` refuses.
"""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING, Final

from aiohttp import web
from packaging.utils import canonicalize_name

from teepi.documentation import INDEX
from teepi.errors import NotFound
from teepi.http_semantics import if_none_match
from teepi.web import answers
from teepi.web.hot import PRIVATE
from teepi.web.stored import send_stored

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from teepi.documentation import Documentation
    from teepi.stages import Stages
    from teepi.web.send import Senders

POLICY: Final = (
    "sandbox allow-scripts allow-popups; frame-ancestors 'self'; base-uri 'none'; form-action 'none'; object-src 'none'"
)
_TYPES: Final = mimetypes.MimeTypes()  # reads the system's files, so once and not on the event loop
for _extension in (".js", ".mjs"):
    _TYPES.add_type("text/javascript", _extension)  # RFC 9239; systems differ
_UNKNOWN: Final = "application/octet-stream"
_ZIP: Final = ".doc.zip"


class DocsHandlers:
    """Thin: ask ``documentation``, answer."""

    def __init__(self, documentation: Documentation, stages: Stages, senders: Senders) -> None:
        """``stages`` has the zips."""
        self._documentation = documentation
        self._stages = stages
        self._senders = senders

    async def page(self, request: BaseRequest, index: str, name: str, version: str, path: str) -> web.StreamResponse:
        """``/{user}/{index}/{project}/{version}/+d/{path}``; the version may be ``latest`` or ``stable``."""
        docs = await self._documentation.find(index, canonicalize_name(name), version)
        found = await self._documentation.path(docs, path)
        if found.endswith("/"):
            return answers.redirect(f"{found.rpartition('/')[0].rpartition('/')[2]}/", _query(request))
        if not path and found != INDEX:
            return answers.redirect(found, _query(request))
        etag = docs.etag(found)
        headers = {
            "Content-Type": _content_type(found),
            "ETag": etag,
            "Cache-Control": _cache_control(request),
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
        }
        condition = answers.header(request, "If-None-Match")
        if condition is not None and if_none_match(condition, etag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=await self._documentation.read(docs, found), headers=headers)

    async def zip(self, request: BaseRequest, index: str, name: str, version: str, path: str) -> web.StreamResponse:
        """``…/{version}/+doc/{name}-{version}.doc.zip``; other paths are devpi-web's for the pages, and lead there."""
        if not path.endswith(_ZIP):
            return answers.redirect(f"{'../' * (path.count('/') + 1)}+d/{path}", _query(request))
        project = canonicalize_name(name)
        docs = await self._documentation.find(index, project, version)
        if path not in {f"{project}-{each}{_ZIP}" for each in (version, docs.version)}:
            raise NotFound(f"The documentation of {project} {docs.version} is {project}-{docs.version}{_ZIP}.")
        return await send_stored(
            request,
            self._senders,
            self._stages,
            docs.zip,
            cache_control=_cache_control(request),
            content_type="application/zip",
        )


def _query(request: BaseRequest) -> str:
    return request.raw_path.partition("?")[2]


def _cache_control(request: BaseRequest) -> str:
    """Return the Cache-Control of what another upload may replace."""
    return "private, no-cache" if request.get(PRIVATE) else "no-cache"


def _content_type(path: str) -> str:
    """Return what the name of a member says; HTML says its charset itself."""
    kind, coding = _TYPES.guess_type(path)
    return kind if kind is not None and coding is None else _UNKNOWN
