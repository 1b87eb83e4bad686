"""The one table of routes, and the one place that turns errors into answers.

Routes match the path percent-decoded exactly once (wire contract 2), hence a table of our own: aiohttp's router
decodes ``%2F`` inside segments and does not keep empty ones.
"""

from __future__ import annotations

import errno
import logging
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from teepi import logs
from teepi.errors import BadRequest, MethodNotAllowed, NotFound, TeepiError, Unauthorized, Unavailable
from teepi.files import Outcome
from teepi.http_semantics import decode_target, shown_target
from teepi.index_settings import RESERVED_USERS
from teepi.indexes import DEFAULT_INDEX
from teepi.pages import Freshness
from teepi.web import answers, guard
from teepi.web.answers import is_browser
from teepi.web.gate import FORMS
from teepi.web.search import is_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.web import StreamResponse
    from aiohttp.web_request import BaseRequest

    from teepi.live import Live
    from teepi.metrics import Metrics
    from teepi.web.devpi import DevpiHandlers
    from teepi.web.docs import DocsHandlers
    from teepi.web.files import FileHandlers
    from teepi.web.gate import Gate
    from teepi.web.legacy import LegacyHandlers
    from teepi.web.operator import OperatorHandlers
    from teepi.web.ops import OpsHandlers
    from teepi.web.search import SearchHandlers
    from teepi.web.simple import PageHandlers
    from teepi.web.stages import StageHandlers
    from teepi.web.ui import UiHandlers
    from teepi.web.ui.manage import ManageUi
    from teepi.web.ui.projects import ProjectUi
    from teepi.web.ui.session import SessionHandlers
    from teepi.web.uploads import UploadHandlers

    Handler = Callable[[BaseRequest, Mapping[str, str]], Awaitable[StreamResponse]]

log = logging.getLogger(__name__)

_OURS: Final = f"(?!(?:{'|'.join(sorted(RESERVED_USERS))})(?:/|$))"
_USER: Final = rf"/(?P<user>{_OURS}[^/+]+)/?"
_INDEX: Final = rf"/(?P<index>{_OURS}[^/+]+/[^/+]+)"
_PROJECT: Final = _INDEX + r"/(?P<name>[^/+]+)"
_VERSION: Final = _PROJECT + r"/(?P<version>(?!\+)[^/]+)"
_FILE: Final = _INDEX + r"/\+f/(?P<prefix>[0-9a-f]{3}/[0-9a-f]{13})/(?P<file>[^/]+)"
# Links of a page behind an empty segment (/simple//name/) lead here: how many to climb clients do not agree on.
_BELOW: Final = r"(?:(?:/(?:simple|index|pypi/simple)|/[^/+]+/[^/+]+/\+simple)/*)?"
_METHODS: Final = frozenset({"GET", "HEAD"})
_RESULTS: Final = {f"teepi; {each.value}": each.name.lower() for each in (*Freshness, *Outcome)}
"""What requests are counted as, by the Cache-Status of their answer: the metrics say what clients are told."""


@dataclass(frozen=True, slots=True)
class Private:
    """The handlers of private indexes, and who is let in."""

    gate: Gate
    devpi: DevpiHandlers
    stages: StageHandlers
    uploads: UploadHandlers
    search: SearchHandlers
    docs: DocsHandlers


@dataclass(frozen=True, slots=True)
class Ui:
    """The pages for people."""

    home: UiHandlers
    projects: ProjectUi
    session: SessionHandlers
    manage: ManageUi


class App:
    """Finds the handler of a request and answers its errors."""

    def __init__(
        self,
        pages: PageHandlers,
        files: FileHandlers,
        legacy: LegacyHandlers,
        ops: OpsHandlers,
        ui: Ui,
        operator: OperatorHandlers,
        private: Private,
        metrics: Metrics,
        live: Live,
        *,
        proxpi_invalidation: bool = False,
    ) -> None:
        """Build the tables."""
        self._metrics = metrics
        self._live = live
        self._ui = ui.home
        home, people, session, manage = ui.home, ui.projects, ui.session, ui.manage
        self._gate = private.gate
        devpi, stages, uploads, search = private.devpi, private.stages, private.uploads, private.search
        docs = private.docs
        self._writes: list[tuple[str, re.Pattern[str], Handler]] = [
            ("POST", re.compile(r"/\+operator/(?P<call>[a-z-]+)"), lambda r, m: operator.over_tcp(r, m["call"])),
            ("POST", re.compile(r"/\+login/?"), lambda r, _: devpi.login(r)),
            ("POST", re.compile(r"/\+session"), lambda r, _: session.post(r)),
            ("POST", re.compile(r"/\+manage/(?P<what>[a-z]+)"), lambda r, m: manage.do(r, m["what"])),
            ("PUT", re.compile(_USER), lambda r, m: devpi.create_user(r, m["user"])),
            ("PATCH", re.compile(_USER), lambda r, m: devpi.modify_user(r, m["user"])),
            ("DELETE", re.compile(_USER), lambda r, m: devpi.delete_user(r, m["user"])),
            ("PUT", re.compile(_INDEX + "/?"), lambda r, m: devpi.create_index(r, m["index"])),
            ("PATCH", re.compile(_INDEX + "/?"), lambda r, m: devpi.modify_index(r, m["index"])),
            ("DELETE", re.compile(_INDEX + "/?"), lambda r, m: devpi.delete_index(r, m["index"])),
            ("POST", re.compile(_INDEX + "/?"), self._posted(uploads, search)),
            ("POST", re.compile("/pypi/?"), self._posted(uploads, search)),
            ("DELETE", re.compile(_PROJECT + "/?"), lambda r, m: uploads.delete_project(r, m["index"], m["name"])),
            (
                "DELETE",
                re.compile(_VERSION + "/?"),
                lambda r, m: uploads.delete_version(r, m["index"], m["name"], m["version"]),
            ),
            (
                "DELETE",
                re.compile(_FILE),
                lambda r, m: uploads.delete_file(r, m["index"], m["prefix"], m["file"]),
            ),
            ("POST", re.compile(_FILE), lambda r, m: uploads.result(r, m["index"], m["prefix"], m["file"])),
            (
                "POST",
                re.compile(_INDEX + r"/\+simple/(?P<name>[^/]+)/refresh/?"),
                self._refresh(operator, stages),
            ),
        ]
        if proxpi_invalidation:
            self._writes[:0] = [
                ("DELETE", re.compile(r"/cache/list"), lambda r, _: operator.invalidate_list(r)),
                ("DELETE", re.compile(r"/cache/(?P<name>[^/]+)"), lambda r, m: operator.invalidate(r, m["name"])),
            ]
        document, project = self._document(legacy, stages), self._project(pages, stages)
        self._routes: list[tuple[re.Pattern[str], Handler]] = [
            (re.compile(pattern), handler)
            for pattern, handler in (
                # Legacy JSON beside the pages, and where pip-tools looks: at its index URL without "simple"; before
                # version 7.5 with pypi/ behind the index URL. What looks like a version is one of a project "simple".
                (r"/pypi/(?P<name>[^/]+)/json", self._default(document)),
                (r"/pypi/simple/+(?P<name>(?![0-9]+\.)[^/]+)/json", self._default(document)),
                (r"/pypi/(?P<name>[^/]+)/(?P<version>[^/]+)/json", self._default(document)),
                (r"/(?:simple|index)/+(?:pypi/)?(?P<name>[^/]+)/json", self._default(document)),
                (_INDEX + r"/(?:\+simple/+)?(?:pypi/)?(?P<name>[^/+]+)/json", document),
                (_INDEX + r"/(?:\+simple/+)?(?:pypi/)?(?P<name>[^/+]+)/(?P<version>[^/+][^/]*)/json", document),
                (
                    r"/index/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,199})/(?P<file>[^/]+)",
                    self._default(lambda r, m: files.by_name(r, m["name"], m["file"])),
                ),
                # Plain habit, proxpi's and other paths: the default index. pipenv asks for /simple//name/.
                (r"/(?:simple|index|pypi/simple)/+(?P<name>[^/]+)(?P<slash>/?)", self._default(project)),
                (_INDEX + r"/\+simple/+(?P<name>[^/]+)(?P<slash>/?)", project),
                (r"/(?:simple|index|pypi/simple)/", self._default(lambda r, _: pages.project_list(r, DEFAULT_INDEX))),
                (_INDEX + r"/\+simple/", lambda r, m: pages.project_list(r, m["index"])),
                (r"/(?:pypi/)?(?P<last>simple|index)", lambda r, m: _add_slash(r, m["last"])),
                (_INDEX + r"/(?P<last>\+simple)", lambda r, m: _add_slash(r, m["last"])),
                (_BELOW + _FILE, self._file(files, stages)),
                (
                    _BELOW + _INDEX + r"/(?P<address>\+(?:files|http|e)/.+)",
                    lambda r, m: files.by_address(r, m["index"], m["address"]),
                ),
                (r"/(?P<name>[^/+]+)/json", self._default(document)),
                (r"(?P<path>/packages/.+)", self._default(lambda r, m: files.by_path(r, m["path"]))),
                (r"(?:/[^/+]+)?/\+api/?", lambda r, _: devpi.api(r)),
                (_INDEX + r"/\+api/?", lambda r, m: devpi.api(r, m["index"])),
                (r"/healthz|/health", lambda r, _: ops.health(r)),
                (r"/\+status", lambda r, _: ops.status(r)),
                (r"/readyz", lambda r, _: ops.ready(r)),
                (r"/metrics", lambda r, _: ops.metrics(r)),
                (r"/\+live", lambda r, _: home.live(r)),
                (r"/\+session", lambda r, _: session.form(r)),
                (r"/\+manage/(?P<what>[a-z]+)", lambda r, m: manage.show(r, m["what"])),
                (r"/\+search", lambda r, _: search.json(r)),
                (r"/\+static/(?P<file>[^/]+)", lambda r, m: home.static(r, m["file"])),
                (r"/", lambda r, _: devpi.users(r) if answers.wants_json(r) else home.home(r)),
                (_USER, self._user(devpi, people)),
                (_INDEX + "(?P<slash>/?)", self._index(pages, devpi, people)),
                (_PROJECT + "(?P<slash>/?)", self._below(pages, stages, people)),
                (_VERSION + r"/(?P<last>\+d)", lambda r, m: _add_slash(r, m["last"])),
                (
                    _VERSION + r"/\+d/(?P<path>.*)",
                    lambda r, m: docs.page(r, m["index"], m["name"], m["version"], m["path"]),
                ),
                (
                    _VERSION + r"/\+doc/(?P<path>.*)",
                    lambda r, m: docs.zip(r, m["index"], m["name"], m["version"], m["path"]),
                ),
                (
                    _VERSION + "/?",
                    lambda r, m: (people.project if is_browser(r) else stages.versions)(
                        r, m["index"], m["name"], m["version"]
                    ),
                ),
            )
        ]

    @staticmethod
    def _project(pages: PageHandlers, stages: StageHandlers) -> Handler:
        def answer(request: BaseRequest, match: Mapping[str, str]) -> Awaitable[StreamResponse]:
            index = match.get("index", DEFAULT_INDEX)
            handlers = stages if stages.is_stage(index) else pages
            return handlers.project(request, index, match["name"], slash=bool(match["slash"]))

        return answer

    def _default(self, handler: Handler) -> Handler:
        """Return ``handler``, which is about the default index without naming it, behind the gate."""

        async def answer(request: BaseRequest, match: Mapping[str, str]) -> StreamResponse:
            await self._gate.require_read(request, DEFAULT_INDEX)
            return await handler(request, match)

        return answer

    @staticmethod
    def _document(legacy: LegacyHandlers, stages: StageHandlers) -> Handler:
        def answer(request: BaseRequest, match: Mapping[str, str]) -> Awaitable[StreamResponse]:
            index = match.get("index", DEFAULT_INDEX)
            if stages.is_stage(index):
                return stages.legacy(request, index, match["name"], match.get("version"), legacy.project)
            return legacy.project(request, index, match["name"], match.get("version"))

        return answer

    @staticmethod
    def _file(files: FileHandlers, stages: StageHandlers) -> Handler:
        def answer(request: BaseRequest, match: Mapping[str, str]) -> Awaitable[StreamResponse]:
            handler = stages.file if stages.is_stage(match["index"]) else files.by_digest
            return handler(request, match["index"], match["prefix"], match["file"])

        return answer

    @staticmethod
    def _user(devpi: DevpiHandlers, people: ProjectUi) -> Handler:
        """``/{user}`` by Accept: JSON for devpi's clients, a page for people."""

        def answer(request: BaseRequest, match: Mapping[str, str]) -> Awaitable[StreamResponse]:
            if answers.wants_json(request):
                return devpi.user(request, match["user"])
            return people.user(request, match["user"]) if is_browser(request) else _nothing()

        return answer

    @staticmethod
    def _index(pages: PageHandlers, devpi: DevpiHandlers, people: ProjectUi) -> Handler:
        """``/{user}/{index}/`` by Accept: JSON for devpi's clients, a page for people, else what installers want."""

        def answer(request: BaseRequest, match: Mapping[str, str]) -> Awaitable[StreamResponse]:
            if answers.wants_json(request):
                return devpi.index(request, match["index"])
            if not match["slash"]:
                return _add_slash(request, match["index"].rpartition("/")[2])
            if is_browser(request):
                return people.index(request, match["index"])
            return pages.project_list(request, match["index"])

        return answer

    def _below(self, pages: PageHandlers, stages: StageHandlers, people: ProjectUi) -> Handler:
        """``/{user}/{index}/{project}/`` by Accept, as :meth:`_index`."""
        project = self._project(pages, stages)

        def answer(request: BaseRequest, match: Mapping[str, str]) -> Awaitable[StreamResponse]:
            if answers.wants_json(request):
                return stages.versions(request, match["index"], match["name"])
            if is_browser(request):
                return people.project(request, match["index"], match["name"], slash=bool(match["slash"]))
            return project(request, match)

        return answer

    def _refresh(self, operator: OperatorHandlers, stages: StageHandlers) -> Handler:
        async def answer(request: BaseRequest, match: Mapping[str, str]) -> StreamResponse:
            await self._gate.require_read(request, match["index"])
            return await operator.refresh(match["name"], stages.made_of(match["index"]))

        return answer

    def _posted(self, uploads: UploadHandlers, search: SearchHandlers) -> Handler:
        """``POST /{user}/{index}``: XML is a search, all else a write."""

        async def answer(request: BaseRequest, match: Mapping[str, str]) -> StreamResponse:
            index = match.get("index", DEFAULT_INDEX)
            if not is_call(request):
                return await uploads.post(request, index)
            await self._gate.require_read(request, index)
            return await search.xmlrpc(request, index)

        return answer

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
        if is_browser(request) and (request.method == "GET" or request.raw_path.startswith(FORMS)):
            response = self._ui.error(request, error)
        elif answers.wants_json(request):
            response = answers.devpi_error(error)
        else:
            response = answers.error(error)
        # devpi's client looks for the word of a 401, and shows the reason phrase beside the message of JSON.
        if request.method not in _METHODS and not isinstance(error, Unauthorized) and not answers.wants_json(request):
            answers.say_reason(response, error.message)
        response.headers["X-Request-ID"] = request_id  # what stands in the log; whoever complains can name it
        if isinstance(error, BadRequest):
            response.force_close()
        return response

    async def _dispatch(self, request: BaseRequest) -> StreamResponse:
        path, _ = decode_target(request.raw_path)
        guard.check(request, self._live.settings)
        if request.method == "POST" and path.startswith(FORMS):
            guard.check_form(request, answers.outside(request, self._live.settings))
        for method, pattern, handler in self._writes:
            if request.method == method and (match := pattern.fullmatch(path)) is not None:
                return await handler(request, match.groupdict())
        for pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is not None:
                if request.method not in _METHODS:
                    raise _not_taken(request)
                groups = match.groupdict()
                if "index" in groups:
                    await self._gate.require_read(request, groups["index"])
                return await handler(request, groups)
        if request.method not in _METHODS:
            raise _not_taken(request)
        return await _nothing()


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


async def _nothing() -> StreamResponse:
    msg = "There is nothing at this URL. Index pages are under /simple/, and / says how to use them."
    raise NotFound(msg)


async def _add_slash(request: BaseRequest, last: str) -> StreamResponse:
    return answers.redirect(f"{last}/", request.raw_path.partition("?")[2])
