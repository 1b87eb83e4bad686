"""The page for people at ``/``: rendered here, without a build step, and complete without JavaScript.

Nothing comes from elsewhere, and nothing inline is allowed: the Content-Security-Policy is strict. All text that is not
ours is escaped by the templates.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import jinja2
from aiohttp import web

from teepi import __version__
from teepi.errors import NotFound
from teepi.sizes import said
from teepi.web import answers
from teepi.web.ui.plot import plot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp.web_request import BaseRequest

    from teepi.errors import TeepiError
    from teepi.live import Live
    from teepi.overview import FoundProject, Overview

SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # no-referrer would make browsers send "Origin: null" with the forms of our own pages (Fetch, 3.2).
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept",
}

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_LONGEST_QUERY: Final = 200
_DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class ClientLine:
    """What one client needs, to be pasted into a shell."""

    name: str
    line: str


def client_lines(base: str, index: str) -> list[ClientLine]:
    """Return a line for each client; ``base`` is ``scheme://host:port`` and what may stand before the index."""
    simple = f"{base}/{index}/+simple/"
    host = base.partition("//")[2].partition("/")[0]
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    trusted = f" PIP_TRUSTED_HOST={name}" if base.startswith("http:") else ""
    return [
        ClientLine("pip", f"export PIP_INDEX_URL={simple}{trusted}"),
        ClientLine("uv", f"export UV_DEFAULT_INDEX={simple}"),
        ClientLine("pipenv", f"export PIPENV_PYPI_MIRROR={simple.rstrip('/')}"),
        ClientLine("poetry", f"poetry source add --priority=primary teepi {simple}"),
        ClientLine("pdm", f"export PDM_PYPI_URL={simple}"),
    ]


def is_browser(request: BaseRequest) -> bool:
    """Say whether a person looks: no installer asks for XHTML, and all browsers do."""
    return "application/xhtml+xml" in request.headers.get("Accept", "")


class UiHandlers:
    """The pages for people."""

    def __init__(
        self,
        overview: Callable[[], Awaitable[Overview]],
        search: Callable[[BaseRequest, str], Awaitable[tuple[Sequence[FoundProject], bool]]],
        index: str,
        live: Live,
    ) -> None:
        """Read templates and static files (blocking); ``search`` gives projects and whether there are more.

        ``index`` is the one that clients use.
        """
        self._overview = overview
        self._search = search
        self._index = index
        self._live = live
        self._files = {entry.name: entry.read_bytes() for entry in (resources.files(__package__) / "static").iterdir()}
        digest = hashlib.sha256(b"".join(self._files[name] for name in sorted(self._files)))
        templates = jinja2.Environment(
            loader=jinja2.PackageLoader(__package__, "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        templates.filters |= {
            "size": said, "percent": _percent, "number": _number, "duration": _duration, "iso": _iso,
        }  # fmt: skip
        templates.globals |= {"version": __version__, "assets": digest.hexdigest()[:12]}
        self._templates = {name: templates.get_template(name) for name in templates.list_templates(["html"])}

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
        return self._page(
            "home.html",
            root="./",
            **await self._view(),
            query=query,
            found=found,
            is_cut=is_cut,
            clients=client_lines(base, self._index),
        )

    async def live(self, request: BaseRequest) -> web.StreamResponse:  # noqa: ARG002 - a handler
        """``/+live``: the part of the page that changes, which the page's script asks for."""
        return self._page("live.html", **await self._view())

    async def static(self, request: BaseRequest, name: str) -> web.StreamResponse:  # noqa: ARG002 - a handler
        """``/+static/NAME``: what the pages need; the query is its version, so that it may be kept for good."""
        if name not in self._files:
            raise NotFound("There is no such file here.")
        return web.Response(
            body=self._files[name],
            content_type=_TYPES[name.rpartition(".")[2]],
            charset="utf-8",
            headers={"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"},
        )

    def error(self, request: BaseRequest, problem: TeepiError) -> web.Response:
        """Return the page for an error that a person has met."""
        path = request.raw_path.partition("?")[0]
        depth = max(0, path.count("/") - 1)
        page = self._page(
            "error.html",
            status=problem.status,
            root="../" * depth or "./",
            heading="There is no page here" if problem.status == NotFound.status else "This did not work",
            message=problem.message,
            clients=client_lines(answers.outside(request, self._live.settings), self._index),
        )
        page.headers.update(answers.error_headers(problem))
        return page

    async def _view(self) -> dict[str, Any]:
        """Return what ``live.html`` shows."""
        overview = await self._overview()
        return {"view": overview, "plot": plot(overview.samples, time.time())}

    def _page(self, template: str, *, status: int = 200, **values: Any) -> web.Response:  # noqa: ANN401 - for Jinja
        text = self._templates[template].render(status=status, **values)
        headers = {**SECURITY, "Cache-Control": "no-store"}
        return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.0f} %"


def _number(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")  # a narrow space, as in SI


def _duration(seconds: float) -> str:
    for length, unit in ((_DAY, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.0f} s"


def _iso(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="seconds")
