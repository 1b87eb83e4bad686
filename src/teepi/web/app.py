"""The one table of routes, and the one place that turns errors into answers.

Routes match the path percent-decoded exactly once (wire contract 2), hence a table of our own: aiohttp's router
decodes ``%2F`` inside segments and does not keep empty ones.
"""

from __future__ import annotations

import errno
import logging
import re
from typing import TYPE_CHECKING, Final

from teepi.errors import BadRequest, MethodNotAllowed, NotFound, TeepiError, Unavailable
from teepi.http_semantics import decode_target
from teepi.indexes import DEFAULT_INDEX
from teepi.web import answers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.web import StreamResponse
    from aiohttp.web_request import BaseRequest

    from teepi.web.files import FileHandlers
    from teepi.web.legacy import LegacyHandlers
    from teepi.web.ops import OpsHandlers
    from teepi.web.simple import PageHandlers

    Handler = Callable[[BaseRequest, Mapping[str, str]], Awaitable[StreamResponse]]

log = logging.getLogger(__name__)

_INDEX: Final = r"/(?P<index>[^/+]+/[^/+]+)"
# Links of a page behind an empty segment (/simple//name/) lead here: how many to climb clients do not agree on.
_BELOW: Final = r"(?:(?:/(?:simple|index|pypi/simple)|/[^/+]+/[^/+]+/\+simple)/*)?"
_METHODS: Final = frozenset({"GET", "HEAD"})


class App:
    """Finds the handler of a request and answers its errors."""

    def __init__(self, pages: PageHandlers, files: FileHandlers, legacy: LegacyHandlers, ops: OpsHandlers) -> None:
        """Build the table."""
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
                (r"/", lambda r, _: ops.root(r)),
            )
        ]

    @staticmethod
    def _project(pages: PageHandlers) -> Handler:
        return lambda r, m: pages.project(r, m.get("index", DEFAULT_INDEX), m["name"], slash=bool(m["slash"]))

    @staticmethod
    def _document(legacy: LegacyHandlers) -> Handler:
        return lambda r, m: legacy.project(r, m.get("index", DEFAULT_INDEX), m["name"], m.get("version"))

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """Answer one request."""
        try:
            return await self._dispatch(request)
        except TeepiError as error:
            return _answer(request, error)
        except OSError as error:
            if isinstance(error, ConnectionError) or request.transport is None:
                raise  # the client has gone
            log.error("%s %s: %s", request.method, request.raw_path[:200], error)  # noqa: TRY400 - one sentence
            what = "has no file descriptor left" if error.errno in {errno.EMFILE, errno.ENFILE} else f"failed: {error}"
            return _answer(request, Unavailable(f"teepi {what}; try again in a moment."))
        except Exception as error:
            log.exception("%s %s failed.", request.method, request.raw_path[:200])
            return _answer(request, TeepiError(f"teepi failed on this request ({type(error).__name__}); see its log."))

    async def _dispatch(self, request: BaseRequest) -> StreamResponse:
        path, _ = decode_target(request.raw_path)
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


def _not_taken(request: BaseRequest) -> MethodNotAllowed:
    return MethodNotAllowed(f"{request.method} is not taken here: this URL is for GET; teepi mirrors an index.")


async def _add_slash(request: BaseRequest, last: str) -> StreamResponse:
    return answers.redirect(f"{last}/", request.raw_path.partition("?")[2])


def _answer(request: BaseRequest, error: TeepiError) -> StreamResponse:
    """Answer ``error``; once a head has gone out, only breaking the connection is honest."""
    if request.writer.output_size > 0:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(error.message)
    response = answers.error(error)
    if isinstance(error, BadRequest):
        response.force_close()
    return response
