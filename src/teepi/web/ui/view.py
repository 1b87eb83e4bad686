"""How pages for people are rendered: templates, what stands on every page, and the headers that guard them."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import jinja2
from aiohttp import web

from teepi import __version__
from teepi.sizes import said
from teepi.tasks import in_thread
from teepi.web.gate import ASKER

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

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
_DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class ClientLine:
    """What one client needs, to be pasted into a shell."""

    name: str
    line: str


def client_lines(base: str, index: str) -> list[ClientLine]:
    """Return a line for each client; ``base`` is ``scheme://host:port`` and what may stand before the index."""
    simple = f"{base}/{index}/+simple/"
    trusted = f" PIP_TRUSTED_HOST={host_of(base)}" if base.startswith("http:") else ""
    return [
        ClientLine("pip", f"export PIP_INDEX_URL={simple}{trusted}"),
        ClientLine("uv", f"export UV_DEFAULT_INDEX={simple}"),
        ClientLine("pipenv", f"export PIPENV_PYPI_MIRROR={simple.rstrip('/')}"),
        ClientLine("poetry", f"poetry source add --priority=primary teepi {simple}"),
        ClientLine("pdm", f"export PDM_PYPI_URL={simple}"),
    ]


def upload_lines(base: str, index: str) -> list[ClientLine]:
    """Return a line for each client that uploads; see :func:`client_lines`."""
    url = f"{base}/{index}/"
    return [
        ClientLine("twine", f"twine upload --repository-url {url} dist/*"),
        ClientLine("uv", f"uv publish --publish-url {url} --check-url {url}+simple/ dist/*"),
        ClientLine("devpi", f"devpi use {url} && devpi login {index.partition('/')[0]} && devpi upload"),
    ]


def host_of(base: str) -> str:
    """Return the host of ``scheme://host:port…``, an IPv6 address without its brackets."""
    host = base.partition("//")[2].partition("/")[0]
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


class Views:
    """The templates and static files."""

    def __init__(self) -> None:
        """Read and compile them (blocking), once in a process."""
        self.files, self._templates = _read()

    def page(
        self,
        template: str,
        *,
        request: BaseRequest | None = None,
        status: int = 200,
        **values: Any,  # noqa: ANN401 - for Jinja
    ) -> web.Response:
        """Return a page; with ``request`` it says who is logged in, and how to log in and come back."""
        return _response(self.text(template, request=request, status=status, **values), status)

    async def large_page(
        self,
        template: str,
        *,
        request: BaseRequest,
        **values: Any,  # noqa: ANN401 - for Jinja
    ) -> web.Response:
        """Return a page of many lines, rendered in a thread; see :meth:`page`."""
        return _response(await in_thread(lambda: self.text(template, request=request, status=200, **values)), 200)

    def text(self, template: str, *, request: BaseRequest | None, status: int, **values: Any) -> str:  # noqa: ANN401
        """Render a template."""
        here, user = "", None
        if request is not None:
            raw = request.raw_path.partition("?")[0]
            values.setdefault("root", root_of(raw))
            here = raw.lstrip("/")
            asker = request.get(ASKER)
            user = None if asker is None else asker.user
        return self._templates[template].render(**{"status": status, "here": here, "user": user} | values)


@cache
def _read() -> tuple[dict[str, bytes], dict[str, jinja2.Template]]:
    """Return the static files and the templates by name (blocking)."""
    files = {entry.name: entry.read_bytes() for entry in (resources.files(__package__) / "static").iterdir()}
    digest = hashlib.sha256(b"".join(files[name] for name in sorted(files)))
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters |= {
        "size": said, "percent": _percent, "number": _number, "duration": _duration, "iso": _iso, "day": _day,
        "path": path,
    }  # fmt: skip
    templates.globals |= {"version": __version__, "assets": digest.hexdigest()[:12]}
    return files, {name: templates.get_template(name) for name in templates.list_templates(["html"])}


def _response(text: str, status: int) -> web.Response:
    headers = {**SECURITY, "Cache-Control": "no-store"}
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def root_of(raw_path: str) -> str:
    """Return what leads from the page at ``raw_path`` to the root of this server, as browsers count slashes."""
    return "../" * max(0, raw_path.partition("?")[0].count("/") - 1) or "./"


def path(text: str) -> str:
    """Return a path below the root of this server, encoded: what it names may have any character."""
    return quote(text, safe="/+!")


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


def _day(moment: str) -> str:
    """Return ``2026-11-21 17:42`` of an ISO 8601 time."""
    return moment[:16].replace("T", " ")
