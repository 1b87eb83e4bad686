"""The one table of routes, and the one place that turns errors into answers.

Routes match the path percent-decoded exactly once (wire contract 2), hence a table of our own: aiohttp's router
decodes ``%2F`` inside segments and does not keep empty ones.
"""

from __future__ import annotations

import errno
import logging
import re
from functools import cache
from typing import TYPE_CHECKING, Final

from teepi import logs
from teepi.errors import BadRequest, MethodNotAllowed, NotFound, TeepiError, Unavailable
from teepi.files import Outcome
from teepi.http_semantics import decode_target, shown_target
from teepi.indexes import DEFAULT_INDEX
from teepi.pages import Freshness
from teepi.web import answers
from teepi.web.search import is_call
from teepi.web.ui import is_browser

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.web import StreamResponse
    from aiohttp.web_request import BaseRequest

    from teepi.metrics import Metrics
    from teepi.web.files import FileHandlers
    from teepi.web.legacy import LegacyHandlers
    from teepi.web.operator import OperatorHandlers
    from teepi.web.ops import OpsHandlers
    from teepi.web.search import SearchHandlers
    from teepi.web.simple import PageHandlers
    from teepi.web.ui import UiHandlers

    Handler = Callable[[BaseRequest, Mapping[str, str]], Awaitable[StreamResponse]]

log = logging.getLogger(__name__)

_INDEX: Final = r"/(?P<index>[^/+]+/[^/+]+)"
# Links of a page behind an empty segment (/simple//name/) lead here: how many to climb clients do not agree on.
_BELOW: Final = r"(?:(?:/(?:simple|index|pypi/simple)|/[^/+]+/[^/+]+/\+simple)/*)?"
_METHODS: Final = frozenset({"GET", "HEAD"})
_RESULTS: Final = {f"teepi; {each.value}": each.name.lower() for each in (*Freshness, *Outcome)}
"""What requests are counted as, by the Cache-Status of their answer: the metrics say what clients are told."""


class App:
    """Finds the handler of a request and answers its errors."""

    def __init__(
        self,
        pages: PageHandlers,
        files: FileHandlers,
        legacy: LegacyHandlers,
        ops: OpsHandlers,
        ui: UiHandlers,
        operator: OperatorHandlers,
        search: SearchHandlers,
        metrics: Metrics,
        *,
        proxpi_invalidation: bool = False,
    ) -> None:
        """Build the tables."""
        self._metrics = metrics
        self._ui = ui
        self._writes: list[tuple[str, re.Pattern[str], Handler]] = [
            ("POST", re.compile(r"/\+operator/(?P<call>[a-z]+)"), lambda r, m: operator.over_tcp(r, m["call"])),
            ("POST", re.compile(rf"(?:{_INDEX}|/pypi)/?"), self._call(search)),
        ]
        if proxpi_invalidation:
            self._writes += [
                ("DELETE", re.compile(r"/cache/list"), lambda r, _: operator.invalidate_list(r)),
                ("DELETE", re.compile(r"/cache/(?P<name>[^/]+)"), lambda r, m: operator.invalidate(r, m["name"])),
            ]
        self._routes: list[tuple[re.Pattern[str], Handler]] = [
            (re.compile(pattern), handler)
            for pattern, handler in (
                # Legacy JSON beside the pages, and where pip-tools looks: at its index URL without "simple"; before
                # version 7.5 with pypi/ behind the index URL. What looks like a version is one of a project "simple".
                (r"/pypi/(?P<name>[^/]+)/json", self._document(legacy)),
                (r"/pypi/simple/+(?P<name>(?![0-9]+\.)[^/]+)/json", self._document(legacy)),
                (r"/pypi/(?P<name>[^/]+)/(?P<version>[^/]+)/json", self._document(legacy)),
                (r"/(?:simple|index)/+(?:pypi/)?(?P<name>[^/]+)/json", self._document(legacy)),
                (_INDEX + r"/(?:\+simple/+)?(?:pypi/)?(?P<name>[^/+]+)/json", self._document(legacy)),
                (
                    r"/index/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,199})/(?P<file>[^/]+)",
                    lambda r, m: files.by_name(r, m["name"], m["file"]),
                ),
                # Plain habit, proxpi's and other paths: the default index. pipenv asks for /simple//name/.
                (r"/(?:simple|index|pypi/simple)/+(?P<name>[^/]+)(?P<slash>/?)", self._project(pages)),
                (_INDEX + r"/\+simple/+(?P<name>[^/]+)(?P<slash>/?)", self._project(pages)),
                (r"/(?:simple|index|pypi/simple)/", lambda r, _: pages.project_list(r, DEFAULT_INDEX)),
                (_INDEX + r"/\+simple/", lambda r, m: pages.project_list(r, m["index"])),
                (r"/(?:pypi/)?(?P<last>simple|index)", lambda r, m: _add_slash(r, m["last"])),
                (_INDEX + r"/(?P<last>\+simple)", lambda r, m: _add_slash(r, m["last"])),
                (
                    _INDEX + r"/\+f/(?P<prefix>[0-9a-f]{3}/[0-9a-f]{13})/(?P<file>[^/]+)",
                    lambda r, m: files.by_digest(r, m["index"], m["prefix"], m["file"]),
                ),
                (
                    _BELOW + _INDEX + r"/(?P<address>\+(?:files|http|e)/.+)",
                    lambda r, m: files.by_address(r, m["index"], m["address"]),
                ),
                (r"/(?P<name>[^/+]+)/json", self._document(legacy)),
                (r"(?P<path>/packages/.+)", lambda r, m: files.by_path(r, m["path"])),
                (r"/healthz|/health", lambda r, _: ops.health(r)),
                (r"/\+status", lambda r, _: ops.status(r)),
                (r"/readyz", lambda r, _: ops.ready(r)),
                (r"/metrics", lambda r, _: ops.metrics(r)),
                (r"/\+live", lambda r, _: ui.live(r)),
                (r"/\+search", lambda r, _: search.json(r)),
                (r"/\+static/(?P<file>[^/]+)", lambda r, m: ui.static(r, m["file"])),
                (r"/", lambda r, _: ui.home(r)),
            )
        ]

    @staticmethod
    def _project(pages: PageHandlers) -> Handler:
        return lambda r, m: pages.project(r, m.get("index", DEFAULT_INDEX), m["name"], slash=bool(m["slash"]))

    @staticmethod
    def _document(legacy: LegacyHandlers) -> Handler:
        return lambda r, m: legacy.project(r, m.get("index", DEFAULT_INDEX), m["name"], m.get("version"))

    @staticmethod
    def _call(search: SearchHandlers) -> Handler:
        async def call(request: BaseRequest, match: Mapping[str, str]) -> StreamResponse:
            if not is_call(request):
                raise _not_taken(request)
            return await search.xmlrpc(request, match["index"] or DEFAULT_INDEX)

        return call

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """Answer one request, and count it."""
        request_id = logs.begin_request(request.headers.get("X-Request-ID"))
        result, status = "client_left", 0
        try:
            try:
                response = await self._dispatch(request)
                result = _RESULTS.get(response.headers.get("Cache-Status", ""), "other")
            except Exception as error:  # noqa: BLE001 - _failure tells them apart
                failure = _failure(request, error)
                response = self._answer(request, failure, request_id)
                result = _name(type(failure).__name__)
            status = response.status
            return response
        finally:
            self._metrics.count_request(request.get(answers.KIND, "other"), result, status)

    def _answer(self, request: BaseRequest, error: TeepiError, request_id: str) -> StreamResponse:
        """Answer ``error``; once a head has gone out, only breaking the connection is honest."""
        if request.writer.output_size > 0:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError(error.message)
        response = answers.error(error)
        if is_browser(request) and request.method == "GET":
            response = self._ui.error(request, error)
        response.headers["X-Request-ID"] = request_id  # what stands in the log; whoever complains can name it
        if isinstance(error, BadRequest):
            response.force_close()
        return response

    async def _dispatch(self, request: BaseRequest) -> StreamResponse:
        path, _ = decode_target(request.raw_path)
        for method, pattern, handler in self._writes:
            if request.method == method and (match := pattern.fullmatch(path)) is not None:
                return await handler(request, match.groupdict())
        for pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is not None:
                if request.method not in _METHODS:
                    raise _not_taken(request)
                return await handler(request, match.groupdict())
        if request.method not in _METHODS:
            raise _not_taken(request)
        msg = "There is nothing at this URL. Index pages are under /simple/, and / says how to use them."
        raise NotFound(msg)


def _failure(request: BaseRequest, error: Exception) -> TeepiError:
    """Return ``error`` as one that can be answered; raise it when the client has gone."""
    if isinstance(error, TeepiError):
        return error
    target = shown_target(request.raw_path)
    if isinstance(error, OSError):
        if isinstance(error, ConnectionError) or request.transport is None:
            raise error
        log.error("%s %s: %s", request.method, target, error)
        what = "has no file descriptor left" if error.errno in {errno.EMFILE, errno.ENFILE} else f"failed: {error}"
        return Unavailable(f"teepi {what}; try again in a moment.")
    log.error("%s %s failed.", request.method, target, exc_info=error)
    return TeepiError(f"teepi failed on this request ({type(error).__name__}); see its log.")


@cache
def _name(error: str) -> str:
    """Return the result of a request that an error answers: ``not_found`` for NotFound."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", error).lower()


def _not_taken(request: BaseRequest) -> MethodNotAllowed:
    return MethodNotAllowed(f"{request.method} is not taken here: this URL is for GET; teepi mirrors an index.")


async def _add_slash(request: BaseRequest, last: str) -> StreamResponse:
    return answers.redirect(f"{last}/", request.raw_path.partition("?")[2])
