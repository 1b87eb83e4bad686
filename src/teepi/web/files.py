"""Handlers for files, under each of their URLs: GET and HEAD, ranges, conditions."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING

from aiohttp import web
from packaging.utils import canonicalize_name

from teepi.files import FileFacts, Outcome
from teepi.http_semantics import if_none_match, if_range_allows, parse_range
from teepi.metadata import METADATA
from teepi.web import answers
from teepi.web.hot import MOST_FILE_BYTES, SEEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web_request import BaseRequest

    from teepi.files import Files, Opened
    from teepi.hot_entries import InFile
    from teepi.http_semantics import RangeRequest
    from teepi.indexes import Indexes
    from teepi.metadata import CoreMetadata
    from teepi.metrics import Metrics
    from teepi.model import FileRecord
    from teepi.web.hot import HotPath
    from teepi.web.send import Senders


class FileHandlers:
    """Thin: find the record, ask ``files``, send."""

    def __init__(
        self,
        indexes: Indexes,
        files: Files,
        core_metadata: CoreMetadata,
        senders: Senders,
        metrics: Metrics,
        hot: HotPath,
    ) -> None:
        """Answer from ``files``, and with ``core_metadata`` what upstream has not; ``hot`` takes note of it."""
        self._hot = hot
        self._indexes = indexes
        self._files = files
        self._core_metadata = core_metadata
        self._senders = senders
        self._metrics = metrics

    async def by_address(self, request: BaseRequest, index: str, address: str) -> web.StreamResponse:
        """``/{user}/{index}/+files/{authority}/{path}``."""
        self._begin(request, address)
        record = await self._indexes.file(self._indexes.require(index), address)
        return await self._answer(request, record)

    async def by_digest(self, request: BaseRequest, index: str, prefix: str, filename: str) -> web.StreamResponse:
        """Answer devpi's ``/{user}/{index}/+f/{3}/{13}/{file}``: the URL carries the digest."""
        self._begin(request, filename)
        record = await self._indexes.file_by_digest(self._indexes.require(index), prefix.replace("/", ""), filename)
        return await self._answer(request, record, immutable=record.sha256 is not None)

    async def by_path(self, request: BaseRequest, path: str) -> web.StreamResponse:
        """``/packages/{path}``: the one known URL of the default index with that path."""
        self._begin(request, path, may_be_hot=False)  # another page may link to the same path at another host
        return await self._answer(request, await self._indexes.file_by_path(path))

    async def by_name(self, request: BaseRequest, project: str, filename: str) -> web.StreamResponse:
        """Answer proxpi's ``/index/{project}/{file}``."""
        self._begin(request, filename, may_be_hot=False)  # what it is hangs on how fresh the page is
        return await self._answer(request, await self._indexes.file_by_name(canonicalize_name(project), filename))

    # -- one answer ----------------------------------------------------------------------------------

    async def _answer(self, request: BaseRequest, record: FileRecord, *, immutable: bool = False) -> web.StreamResponse:
        if record.wheel is not None:
            return await self._read_out(request, record, record.wheel)
        etag = self._files.known_etag(record)
        if etag is not None and if_none_match(answers.header(request, "If-None-Match"), etag):
            headers = _headers(
                request, record, FileFacts(None, etag, None, record.immutable), Outcome.HIT, immutable=immutable
            )
            return web.Response(status=304, headers=headers)
        if request.method == "HEAD":
            return await self._head(request, record, immutable=immutable)
        wanted = parse_range(answers.header(request, "Range"))
        if_range = answers.header(request, "If-Range")
        # Only by ETag: a date does not tell a wrong copy from the right one after it. Without a digest If-Range
        # cannot be decided before upstream's validator is known: then the file is opened.
        certain = if_range_allows(if_range, etag, None)
        opened = self._files.look(record)
        if wanted is not None and not self._files.joins(wanted, opened, record.size):
            if opened is not None:
                opened.close()
                opened = None
            if certain:
                passed = await self._pass(request, record, wanted)
                if passed is not None:
                    return passed
                opened = self._files.look(record)  # time has passed
        if opened is None:
            first = wanted.first if wanted is not None and wanted.is_open and certain else None
            opened = self._files.open(record, position=first or 0)
        try:
            self._count(opened.outcome)
            opened.answers()
            await self._files.ready(opened)
            facts = self._files.facts(record, opened)
            if wanted is not None and not if_range_allows(if_range, facts.etag, None):
                wanted = None
            response = self._place(request, opened, record, facts, wanted, immutable=immutable)
            sent = await self._senders.send(request, response, opened)
            self._note(request, sent, record, self._files.place(opened))
            return sent
        finally:
            opened.close()

    async def _read_out(self, request: BaseRequest, record: FileRecord, wheel: FileRecord) -> web.StreamResponse:
        """Answer core metadata that upstream does not have: small, and at hand as a whole."""
        stored, outcome = await self._core_metadata.get(wheel)
        self._count(outcome)
        etag = f'"{stored.sha256}"'
        total = len(stored.content)
        facts = FileFacts(total, etag, formatdate(stored.modified_seconds, usegmt=True), record.immutable)
        headers = _headers(request, record, facts, outcome, immutable=False)
        if if_none_match(answers.header(request, "If-None-Match"), etag):
            return web.Response(status=304, headers=headers)
        wanted = parse_range(answers.header(request, "Range")) if request.method == "GET" else None
        if wanted is None or not if_range_allows(answers.header(request, "If-Range"), etag, None):
            if request.method != "GET":
                return web.Response(headers=headers, body=stored.content)
            self._sent(total, outcome)
            response = web.Response(headers=headers, body=stored.content)
            await response.prepare(request)
            if outcome is Outcome.HIT:
                self._note(request, response, record, self._core_metadata.place(wheel, stored))
            return response
        start, stop = wanted.resolve(total)
        self._sent(stop - start, outcome)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
        return web.Response(status=206, headers=headers, body=stored.content[start:stop])

    async def _head(self, request: BaseRequest, record: FileRecord, *, immutable: bool) -> web.StreamResponse:
        opened = self._files.look(record)
        outcome = Outcome.PASSED
        try:
            facts = None
            if opened is not None:
                outcome = opened.outcome
                facts = self._files.facts(record, opened)
                if facts.total is None and record.size is None:
                    await self._files.ready(opened)
                    facts = self._files.facts(record, opened)
            if facts is None or facts.total is None:
                facts = await self._files.describe(record)
        finally:
            if opened is not None:
                opened.close()
        response = web.StreamResponse(headers=_headers(request, record, facts, outcome, immutable=immutable))
        response.content_length = facts.total
        await response.prepare(request)
        return response

    def _place(
        self,
        request: BaseRequest,
        opened: Opened,
        record: FileRecord,
        facts: FileFacts,
        wanted: RangeRequest | None,
        *,
        immutable: bool,
    ) -> web.StreamResponse:
        """Begin the answer and put the cursor on the bytes that it carries (RFC 9110, 14)."""
        response = web.StreamResponse(headers=_headers(request, record, facts, opened.outcome, immutable=immutable))
        cursor, total = opened.cursor, facts.total
        if total is None:
            return response  # in chunks, and to HTTP/1.0 bare
        start, stop = (0, total) if wanted is None else wanted.resolve(total)
        if wanted is not None:
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
            if not facts.verified:
                response.headers["Cache-Control"] = "no-store"
        response.content_length = stop - start
        cursor.stop = stop
        opened.body.advance(cursor, start)  # a ring need not keep what lies before
        return response

    async def _pass(self, request: BaseRequest, record: FileRecord, wanted: RangeRequest) -> web.StreamResponse | None:
        async with self._files.pass_range(record, wanted) as passed:
            if passed is None:
                return None
            facts = FileFacts(passed.total, self._files.etag(record), None, immutable=False, verified=False)
            response = web.StreamResponse(
                status=206, headers=_headers(request, record, facts, Outcome.PASSED, immutable=False)
            )
            response.headers["Cache-Control"] = "no-store"
            response.headers["Content-Range"] = f"bytes {passed.start}-{passed.stop - 1}/{passed.total}"
            response.content_length = passed.stop - passed.start
            return await self._senders.relay(request, response, passed.stream, passed.stop - passed.start)

    def _begin(self, request: BaseRequest, name: str, *, may_be_hot: bool = True) -> None:
        request[answers.KIND] = "metadata" if name.endswith(METADATA) else "file"
        if may_be_hot:
            request[SEEN] = self._hot.entries.drops

    def _note(
        self,
        request: BaseRequest,
        response: web.StreamResponse,
        record: FileRecord,
        place: tuple[InFile, Callable[[], None]] | None,
    ) -> None:
        """Let the hot path answer so, when the file is small and all of it was sent from its ``place``."""
        if response.status == web.HTTPOk.status_code and place is not None and place[0].size <= MOST_FILE_BYTES:
            body, touch = place
            self._hot.record(request, response, record.project, touch, kind=request[answers.KIND], body=body)

    def _sent(self, size: int, outcome: Outcome) -> None:
        self._metrics.sent_bytes += size
        if outcome is Outcome.HIT:
            self._metrics.cached_bytes += size

    def _count(self, outcome: Outcome) -> None:
        metrics = self._metrics
        if outcome is Outcome.HIT:
            metrics.hits += 1
        elif outcome is Outcome.MISS:
            metrics.misses += 1
        else:
            metrics.collapsed += 1


def _headers(
    request: BaseRequest, record: FileRecord, facts: FileFacts, outcome: Outcome, *, immutable: bool
) -> dict[str, str]:
    metadata = record.filename.endswith(".metadata")
    headers = {
        "Content-Type": "text/plain; charset=utf-8" if metadata else "application/octet-stream",
        "Accept-Ranges": "bytes",
        "Cache-Control": answers.immutable(request) if immutable or facts.immutable else "no-cache",
        "Cache-Status": f"teepi; {outcome.value}",
        "X-Content-Type-Options": "nosniff",
    }
    if facts.etag is not None:
        headers["ETag"] = facts.etag
    if facts.last_modified is not None:
        headers["Last-Modified"] = facts.last_modified
    return headers
