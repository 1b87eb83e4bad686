"""The page for people at ``/``: rendered here, without a build step, and complete without JavaScript.

Nothing comes from elsewhere, and nothing inline is allowed: the Content-Security-Policy is strict. All text that is not
ours is escaped by the templates.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from teepi import __version__
from teepi.errors import NotFound, Unauthorized
from teepi.web import answers
from teepi.web.answers import is_browser
from teepi.web.ui.plot import plot
from teepi.web.ui.view import SECURITY, ClientLine, Views, client_lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp.web_request import BaseRequest

    from teepi.errors import TeepiError
    from teepi.live import Live
    from teepi.overview import FoundProject, Overview

__all__ = ["SECURITY", "ClientLine", "IndexLine", "UiHandlers", "client_lines", "is_browser"]

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_LONGEST_QUERY: Final = 200
_HEADINGS: Final = {NotFound.status: "There is no page here", Unauthorized.status: "Log in"}
FORM: Final = 'FormBased realm="teepi"'
"""The challenge of a page with a form (RFC 9110, 11.6.1)."""


@dataclass(frozen=True, slots=True)
class IndexLine:
    """An index on the page at ``/``."""

    name: str
    what: str
    """Its title, or what it is made of."""


class UiHandlers:
    """The pages for people."""

    def __init__(
        self,
        overview: Callable[[], Awaitable[Overview]],
        search: Callable[[BaseRequest, str], Awaitable[tuple[Sequence[FoundProject], bool]]],
        index: str,
        live: Live,
        readable: Callable[[BaseRequest], Awaitable[Sequence[IndexLine]]] | None = None,
        is_open: Callable[[], bool] = lambda: False,
    ) -> None:
        """Read templates and static files (blocking); ``search`` gives projects and whether there are more.

        ``index`` is the one that clients use; ``readable`` gives those that whoever asks may read, and ``is_open`` says
        whether anybody can log in as root.
        """
        self._overview = overview
        self._search = search
        self._index = index
        self._live = live
        self._readable = readable
        self._is_open = is_open
        self.views = Views()

    async def home(self, request: BaseRequest) -> web.StreamResponse:
        """``/``: for a browser the page, for everybody else a few lines of text."""
        base = answers.outside(request, self._live.settings)
        if not is_browser(request):
            lines = "".join(f"{client.name:8}{client.line}\n" for client in client_lines(base, self._index))
            return answers.plain(
                f"teepi {__version__}, a caching proxy for Python package indexes.\n\n{lines}\n"
                "Health: /healthz, /readyz   Status: /+status   Metrics: /metrics\n",
                headers={"Vary": "Accept"},
            )
        query = request.rel_url.query.get("q", "").strip()[:_LONGEST_QUERY]
        found, is_cut = await self._search(request, query) if query else ((), False)
        return self.views.page(
            "home.html",
            request=request,
            indexes=() if self._readable is None else await self._readable(request),
            is_open=self._is_open(),
            **await self._view(),
            query=query,
            found=found,
            is_cut=is_cut,
            clients=client_lines(base, self._index),
        )

    async def live(self, request: BaseRequest) -> web.StreamResponse:  # noqa: ARG002 - a handler
        """``/+live``: the part of the page that changes, which the page's script asks for."""
        return self.views.page("live.html", **await self._view())

    async def static(self, request: BaseRequest, name: str) -> web.StreamResponse:  # noqa: ARG002 - a handler
        """``/+static/NAME``: what the pages need; the query is its version, so that it may be kept for good."""
        if name not in self.views.files:
            raise NotFound("There is no such file here.")
        return web.Response(
            body=self.views.files[name],
            content_type=_TYPES[name.rpartition(".")[2]],
            charset="utf-8",
            headers={"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"},
        )

    def error(self, request: BaseRequest, problem: TeepiError) -> web.Response:
        """Return the page for an error that a person has met."""
        page = self.views.page(
            "error.html",
            request=request,
            status=problem.status,
            heading=_HEADINGS.get(problem.status, "This did not work"),
            message=problem.message,
            next=request.raw_path.partition("?")[0].lstrip("/") if request.method == "GET" else "",
            clients=client_lines(answers.outside(request, self._live.settings), self._index),
        )
        page.headers.update(answers.error_headers(problem))
        if isinstance(problem, Unauthorized):
            page.headers["WWW-Authenticate"] = FORM  # Basic would open the browser's own dialog above the page
        return page

    async def _view(self) -> dict[str, Any]:
        """Return what ``live.html`` shows."""
        overview = await self._overview()
        return {"view": overview, "plot": plot(overview.samples, time.time())}
