"""Answers that every handler uses: plain sentences, errors, redirects, conditional requests."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from aiohttp import web

from teepi.codings import Coding
from teepi.errors import MethodNotAllowed, NotAcceptable, RangeNotSatisfiable, Unauthorized
from teepi.http_semantics import PageFormat, choose_page_format, if_none_match
from teepi.origins import sound_base
from teepi.web.hot import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.web_request import BaseRequest

    from teepi.config import Settings
    from teepi.errors import TeepiError
    from teepi.page_memory import Variant

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

OUTSIDE_URL: Final = "X-Outside-URL"
"""Belongs into Vary, with Host, where an answer has absolute links."""

_LONGEST_REASON: Final = 300
VARY: Final = "Accept, Accept-Encoding"
"""Of index pages."""
KIND: Final = web.RequestKey("kind", str)
"""What is asked for, as the metrics have it: set by the handlers of ``page``, ``list``, ``legacy``, ``file`` …"""

SENT: Final = web.RequestKey("sent", int)
"""Bytes of the body that were sent, for the access log: set by who sends it piece by piece."""


JSON_ERRORS: Final = web.RequestKey("json_errors", bool)
"""Set where devpi answers errors in JSON though its client does not ask for that."""

DEVPI_HEADERS: Final = {"X-Devpi-Api-Version": "2"}
"""devpi's clients warn of a server without it."""


def devpi(
    kind: str | None = None,
    result: Any = None,  # noqa: ANN401 - JSON
    message: str | None = None,
    *,
    status: int = 200,
    more: Mapping[str, Any] | None = None,
) -> web.Response:
    """Answer in the envelope that devpi's clients read: ``kind`` with ``result``, a ``message``, or all of them.

    ``more`` stands beside them.
    """
    content: dict[str, Any] = {"message": message} if kind is None else {"type": kind, "result": result}
    if kind is not None and message is not None:
        content["message"] = message
    content.update(more or {})
    return _devpi(json.dumps(content).encode(), status)


def devpi_encoded(kind: str, result: bytes) -> web.Response:
    """Answer as :func:`devpi` does, with a result that is JSON already."""
    return _devpi(b'{"type": %b, "result": %b}' % (json.dumps(kind).encode(), result), 200)


def _devpi(body: bytes, status: int) -> web.Response:
    return web.Response(
        status=status,
        body=body,
        # No charset behind it: devpi's client compares the whole.
        headers={"Content-Type": "application/json", "Cache-Control": "no-store", **DEVPI_HEADERS},
    )


def wants_json(request: BaseRequest) -> bool:
    """Say whether a client asks for devpi's JSON: no installer does, nor a browser."""
    if request.get(JSON_ERRORS):
        return True
    accept = request.headers.get("Accept", "")
    return "application/json" in accept and "application/xhtml+xml" not in accept


def is_browser(request: BaseRequest) -> bool:
    """Say whether a person looks: no installer asks for XHTML, and all browsers do."""
    return "application/xhtml+xml" in request.headers.get("Accept", "")


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
    if isinstance(problem, Unauthorized):
        headers["WWW-Authenticate"] = 'Basic realm="pypi"'  # RFC 9110, 15.5.2
    return headers


def error(problem: TeepiError) -> web.Response:
    """Turn a deliberate error into its answer: the sentence, never cached."""
    return plain(problem.message, problem.status, error_headers(problem))


def devpi_error(problem: TeepiError) -> web.Response:
    """Turn a deliberate error into what devpi's clients read."""
    response = devpi(message=problem.message, status=problem.status)
    response.headers.update(error_headers(problem))
    return response


def say_reason(response: web.StreamResponse, message: str) -> None:
    """Put a sentence into the reason phrase: clients that upload, twine and devpi's, show that and not the body."""
    printable = "".join(each if " " <= each <= "~" else "?" for each in message)
    response.set_status(response.status, printable[:_LONGEST_REASON])


def negotiate(request: BaseRequest) -> PageFormat:
    """Return the form of an index page that Accept asks for. Raises :class:`NotAcceptable`."""
    form = choose_page_format(header(request, "Accept"))
    if form is None:
        offered = ", ".join(form.content_type for form in PageFormat)
        msg = f"The Accept header excludes every form of this page; it comes as {offered}."
        raise NotAcceptable(msg)
    return form


def page(request: BaseRequest, variant: Variant, form: PageFormat, cache_status: str) -> web.Response:
    """Answer a finished index page, or that it is unchanged; ``cache_status`` as in RFC 9211."""
    headers = {
        "Content-Type": form.content_type,
        # A 304 is cheap here; a copied max-age would add to our own freshness.
        "Cache-Control": "private, no-cache" if request.get(PRIVATE) else "no-cache",
        "ETag": variant.etag,
        "Vary": VARY,
        "Cache-Status": f"teepi; {cache_status}",
    }
    if variant.coding is not Coding.IDENTITY:
        headers["Content-Encoding"] = variant.coding.value
    condition = header(request, "If-None-Match")
    if condition is not None and if_none_match(condition, variant.etag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=variant.body, headers=headers)


def immutable(request: BaseRequest) -> str:
    """Return the Cache-Control of what its URL names by digest, for everybody or for whoever may read it."""
    return f"max-age=365000000, immutable, {'private' if request.get(PRIVATE) else 'public'}"


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
