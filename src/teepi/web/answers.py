"""Answers that every handler uses: plain sentences, errors, redirects, conditional requests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aiohttp import web

from teepi.errors import MethodNotAllowed, RangeNotSatisfiable, RefusedWrite
from teepi.origins import sound_base

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.web_request import BaseRequest

    from teepi.config import Settings
    from teepi.errors import TeepiError

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

OUTSIDE_URL: Final = "X-Outside-URL"
"""Belongs into Vary, with Host, where an answer has absolute links."""

KIND: Final = web.RequestKey("kind", str)
"""What is asked for, as the metrics have it: set by the handlers of ``page``, ``list``, ``legacy``, ``file`` …"""

SENT: Final = web.RequestKey("sent", int)
"""Bytes of the body that were sent, for the access log: set by who sends it piece by piece."""


def plain(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer sentences for people."""
    return web.Response(
        status=status,
        text=text if text.endswith("\n") else text + "\n",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})},
    )


def error_headers(problem: TeepiError) -> dict[str, str]:
    """Return what an error says beside its sentence, with Retry-After where it helps."""
    headers: dict[str, str] = {}
    if problem.retry_after_seconds is not None:
        headers["Retry-After"] = str(problem.retry_after_seconds)
    if isinstance(problem, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{problem.size}"  # RFC 9110, 15.5.17
    if isinstance(problem, MethodNotAllowed):
        headers["Allow"] = "GET, HEAD"  # RFC 9110, 15.5.6
    return headers


def error(problem: TeepiError) -> web.Response:
    """Turn a deliberate error into its answer: the sentence, never cached."""
    response = plain(problem.message, problem.status, error_headers(problem))
    if isinstance(problem, MethodNotAllowed | RefusedWrite):
        response.set_status(problem.status, problem.message)  # twine shows the reason phrase and not the body
    return response


def redirect(target: str, query: str) -> web.Response:
    """Redirect for good to ``target`` (decoded, relative to the request's path), keeping the raw ``query``."""
    location = quote(target, safe="/+") + (f"?{query}" if query else "")
    return plain(f"Moved to {target}", 301, {"Location": location})


def outside(request: BaseRequest, settings: Settings) -> str:
    """Return the base of absolute links, without a slash at its end.

    That is ``outside_url``, else what a proxy before us says in X-Outside-URL (as one before devpi does), else
    ``scheme://host:port`` as the client wrote it, or where it arrived when that is no host.
    """
    named = settings.outside_url or sound_base(request.headers.get(OUTSIDE_URL, ""))
    return named if named is not None else _origin(request)


def _origin(request: BaseRequest) -> str:
    host = request.headers.get("Host", "")
    if not _HOST.fullmatch(host):  # none (HTTP/1.0), or one that is nothing to paste into a shell
        address, port = request.get_extra_info("sockname")[:2]
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{request.scheme}://{host}"


def header(request: BaseRequest, name: str) -> str | None:
    """Return a request header; several lines of it are one list (RFC 9110, 5.3)."""
    values = request.headers.getall(name, ())
    return ", ".join(values) if values else None
