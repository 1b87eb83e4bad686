"""Gathers what the access log says of a request; how it is written is ``access_log``'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from aiohttp.abc import AbstractAccessLogger

from teepi import logs
from teepi.http_semantics import shown_target
from teepi.web import answers

if TYPE_CHECKING:
    from aiohttp.web import StreamResponse
    from aiohttp.web_request import BaseRequest

    from teepi.access_log import AccessLog

_LONGEST: Final = 300  # characters of a header: the user agents of pip and uv have 250
_BODILESS: Final = frozenset({204, 304})


class Accesses(AbstractAccessLogger):
    """One for each connection, made by aiohttp with the :class:`~teepi.access_log.AccessLog` in its ``logger``."""

    __slots__ = ()

    def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
        """Note a request that was answered in ``time`` seconds, be it that its client has left meanwhile."""
        headers = request.headers
        version = request.version
        cast("AccessLog", self.logger).note(
            request.remote or "",
            f"{request.method} {shown_target(request.raw_path)} HTTP/{version.major}.{version.minor}",
            response.status,
            _sent(request, response),
            headers.get("Referer", "")[:_LONGEST],
            headers.get("User-Agent", "")[:_LONGEST],
            time,
            logs.current_request.get(),
            response.headers.get("Cache-Status", "").removeprefix("teepi; "),
            headers.get("X-Forwarded-For", "")[:_LONGEST],
        )


def _sent(request: BaseRequest, response: StreamResponse) -> int:
    """Return how many bytes of the body were handed to the kernel or, of a small one, to the transport."""
    counted: int | None = request.get(answers.SENT)
    if counted is not None:
        return counted
    if request.method == "HEAD" or response.status in _BODILESS or request.transport is None:
        return 0
    return response.content_length or 0
