"""The only HTTP client: index pages, files, ranges and the project list of an upstream.

It turns every way in which a request can fail into an error of ``errors``. What is asked, cached or retried is
decided elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import aiohttp

from teepi.errors import BadPage, Interrupted, NotFound, RangeNotSatisfiable, UpstreamError
from teepi.http_semantics import conditions, parse_content_range, parse_retry_after, sendable
from teepi.origins import origin_of, shown, split_user_info
from teepi.outbound import Outbound
from teepi.response import ResponseStream, number, partial_head, reason, whole_head
from teepi.simple_html import is_cut
from teepi.source import SourceHead
from teepi.watchdog import WatchedStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from teepi.index_settings import IndexSettings
    from teepi.limits import Limits
    from teepi.metrics import Metrics
    from teepi.source import SourceStream

log = logging.getLogger(__name__)

T = TypeVar("T")

# JSON is always asked for; HTML is parsed only where that is all an upstream has.
PAGE_ACCEPT: Final = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1, */*;q=0.01"
)
_OK: Final = 200
_PARTIAL: Final = 206
_NOT_MODIFIED: Final = 304
_NOT_FOUND: Final = (404, 410)
_RANGE_REFUSED: Final = 416
_WORTH_ANOTHER_TRY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


_Ranged = tuple[int, int, int | None, ResponseStream]


@dataclass(frozen=True, slots=True)
class UpstreamPage:
    """Upstream's answer for a project page."""

    url: str
    """After redirects: the base of relative links."""
    content_type: str
    etag: str | None
    last_modified: str | None
    body: bytes | None
    """None when upstream said 304 Not Modified."""
    asked: str = ""
    """Before redirects."""


class Upstream:
    """HTTP towards the upstream of one index, and its mirrors. Create it on the running event loop."""

    def __init__(self, settings: IndexSettings, limits: Limits, metrics: Metrics, *, name: str = "") -> None:
        """Open no connection yet; ``name`` is the index's, for the metrics."""
        self.counters = metrics.of_upstream(name)
        self._limits = limits
        self._metrics = metrics
        self._outbound = Outbound(settings)
        self._mirrors = tuple(split_user_info(mirror)[0] for mirror in settings.mirrors)
        # Files have connections of their own: a page must not queue behind large files.
        self._files = self._outbound.session(per_host=200)
        self._small = self._outbound.session(per_host=64)
        # What passes straight through to a client lasts as long as that client likes.
        self._passing = self._outbound.session(per_host=200)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._files.close()
        await self._small.close()
        await self._passing.close()
        await self._outbound.aclose()

    @asynccontextmanager
    async def _get(
        self,
        session: aiohttp.ClientSession,
        url: str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        decompress: bool = False,
        resuming: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        limits = self._limits
        connect = limits.resume_connect_seconds if resuming else limits.connect_seconds
        first_byte = limits.resume_first_byte_seconds if resuming else limits.first_byte_seconds
        self._metrics.upstream_requests += 1
        began = time.monotonic()
        request = self._outbound.request(
            session,
            method,
            url,
            headers,
            decompress=decompress,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=first_byte),
        )
        try:
            async with asyncio.timeout(connect + first_byte):  # name resolution has no limit of its own
                response = await request
        except TimeoutError as error:
            self.counters.failed("timeout")
            msg = f"{shown(url)} did not answer in time."
            raise Interrupted(msg) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.counters.failed("unreachable")
            msg = f"{shown(url)} cannot be reached: {reason(error)}."
            raise Interrupted(msg) from error
        self.counters.answered(response.status, time.monotonic() - began)
        try:
            yield response
        finally:
            # A body read to its end has given its connection back already; anything else must not be reused.
            response.close()

    @staticmethod
    def _refuse(url: str, status: int, wait_seconds: float | None = None) -> UpstreamError | NotFound:
        if status in _NOT_FOUND:
            return NotFound(f"Upstream has no {shown(url)} (it answered {status}).")
        msg = f"Upstream answered {status} for {shown(url)}."
        if status in _WORTH_ANOTHER_TRY:
            return Interrupted(msg, status, asked_wait_seconds=wait_seconds)
        return UpstreamError(msg, status, asked_wait_seconds=wait_seconds)

    @property
    def root(self) -> str:
        """URL of the first mirror's project list."""
        return self._mirrors[0]

    @property
    def roots(self) -> Sequence[str]:
        """URLs of the project lists of all mirrors."""
        return self._mirrors

    @staticmethod
    async def first(urls: Sequence[str], ask: Callable[[str, bool], Awaitable[T]]) -> T:
        """Return what ``ask`` gives for the first of ``urls`` that has it; the rest is not asked.

        It is told whether to hurry, since there is somebody else to ask. :class:`NotFound` means that every one says
        so; any other :class:`UpstreamError` is the first one's.
        """
        failure: NotFound | UpstreamError | None = None
        for url in urls:
            try:
                return await ask(url, url != urls[-1])
            except (NotFound, UpstreamError) as error:
                if failure is None or isinstance(failure, NotFound):
                    failure = error
                log.info("%s", error)
        if failure is None:
            msg = "This index has no upstream."
            raise NotFound(msg)
        raise failure

    def _places(self, url: str, *, has_digest: bool) -> list[str]:
        """Return ``url`` and, of a file below a mirror's origin, where the other mirrors have it.

        Only a digest tells whether those have the same bytes.
        """
        hosts = {origin_of(mirror): mirror.split("/", 3)[:3] for mirror in self._mirrors}
        if not has_digest or len(hosts) == 1 or hosts.pop(origin_of(url), None) is None:
            return [url]
        path = split_user_info(url)[0].split("/", 3)[3]
        return [url, *("/".join([*host, path]) for host in hosts.values())]

    async def project(
        self, project: str, *, asked: str | None = None, etag: str | None = None, last_modified: str | None = None
    ) -> UpstreamPage:
        """Fetch the page of ``project`` from the first mirror that has it to give.

        The validators are of what came when ``asked`` was, and tell another mirror or upstream nothing. Raises as
        :meth:`page`; :class:`NotFound` only when every mirror says so.
        """

        async def ask(mirror: str, hurried: bool) -> UpstreamPage:  # noqa: FBT001 - as ``first`` calls it
            url = f"{mirror}{project}/"
            conditional = url == asked
            return await self.page(
                url,
                etag=etag if conditional else None,
                last_modified=last_modified if conditional else None,
                hurried=hurried,
            )

        return await self.first(self._mirrors, ask)

    async def page(
        self,
        url: str,
        *,
        etag: str | None = None,
        last_modified: str | None = None,
        accept: str = PAGE_ACCEPT,
        hurried: bool = False,
    ) -> UpstreamPage:
        """Fetch a project page, conditionally when validators are given (RFC 9110, 13).

        ``hurried`` shortens the time-outs, since there is somebody else to ask. Raises :class:`NotFound` for 404 and
        410, :class:`UpstreamError` for anything else that is no page.
        """
        headers = {"Accept": accept} | conditions(etag, last_modified)
        async with self._get(self._small, url, headers, decompress=True, resuming=hurried) as response:
            conditional = etag is not None or last_modified is not None
            if response.status != _OK and not (response.status == _NOT_MODIFIED and conditional):
                raise self._refuse(url, response.status, parse_retry_after(response.headers.get("Retry-After")))
            body = None if response.status == _NOT_MODIFIED else await self._whole(response, url)
            # Where the end of the connection is the only end, a page that breaks off looks like a shorter one.
            if (
                body is not None
                and not {"Content-Length", "Transfer-Encoding"} & response.headers.keys()
                and is_cut(body)
            ):
                raise Interrupted(f"{shown(url)} broke off: its HTML does not end.")
            return UpstreamPage(
                url=str(response.url),
                content_type=response.headers.get("Content-Type", ""),
                etag=sendable(response.headers.get("ETag")),
                last_modified=sendable(response.headers.get("Last-Modified")),
                body=body,
                asked=url,
            )

    async def _whole(self, response: aiohttp.ClientResponse, url: str) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in self._chunks(response, url):
            parts.append(part)
            size += len(part)
            if size > self._limits.page_bytes:
                msg = f"The page {shown(url)} is larger than {self._limits.page_bytes} bytes and is refused."
                raise BadPage(msg)
        return b"".join(parts)

    @asynccontextmanager
    async def project_list(
        self, url: str, *, etag: str | None = None, last_modified: str | None = None, hurried: bool = False
    ) -> AsyncIterator[tuple[UpstreamPage, AsyncIterator[bytes]]]:
        """Open a project list, conditionally when validators are given: what is said of it, and its body in chunks.

        The ``body`` is None for 304, else empty. Raises as :meth:`page` does.
        """
        headers = {"Accept": PAGE_ACCEPT} | conditions(etag, last_modified)
        async with self._get(self._passing, url, headers, decompress=True, resuming=hurried) as response:
            is_same = response.status == _NOT_MODIFIED and (etag is not None or last_modified is not None)
            if response.status != _OK and not is_same:
                raise self._refuse(url, response.status)
            said = response.headers
            answer = UpstreamPage(
                url=str(response.url),
                content_type=said.get("Content-Type", ""),
                etag=sendable(said.get("ETag")),
                last_modified=sendable(said.get("Last-Modified")),
                body=None if is_same else b"",
            )
            yield answer, self._chunks(response, url)

    async def _chunks(self, response: aiohttp.ClientResponse, url: str) -> AsyncIterator[bytes]:
        stream = ResponseStream(response, url, SourceHead(0, None), self._metrics)
        watched = WatchedStream(stream, shown(url), self._limits)
        while part := await watched.read():
            self._metrics.upstream_page_bytes += len(part)
            yield part

    async def head(self, url: str, *, has_digest: bool) -> SourceHead:
        """Ask what a file is like without its bytes, other mirrors too as in :meth:`sources`.

        Raises as :meth:`page` does.
        """

        async def ask(place: str, hurried: bool) -> SourceHead:  # noqa: FBT001 - as ``first`` calls it
            headers = {"Accept-Encoding": "identity"}
            async with self._get(self._small, place, headers, method="HEAD", resuming=hurried) as response:
                if response.status != _OK:
                    raise self._refuse(place, response.status)
                return whole_head(response)

        return await self.first(self._places(url, has_digest=has_digest), ask)

    @asynccontextmanager
    async def range(self, url: str, header: str, *, has_digest: bool) -> AsyncIterator[_Ranged | None]:
        """Ask for one range of a file by itself (``header`` is the Range field's value), mirrors as in :meth:`sources`.

        Yields (start, stop, total, stream), or None when upstream ignored the range or does not say which it sends.
        Raises :class:`RangeNotSatisfiable` when it lies past the end.
        """
        async with AsyncExitStack() as answers:

            def ask(place: str, hurried: bool) -> Awaitable[_Ranged | None]:  # noqa: FBT001 - as ``first`` calls it
                return answers.enter_async_context(self._range(place, header, hurried=hurried))

            yield await self.first(self._places(url, has_digest=has_digest), ask)

    @asynccontextmanager
    async def _range(self, url: str, header: str, *, hurried: bool) -> AsyncIterator[_Ranged | None]:
        headers = {"Accept-Encoding": "identity", "Range": header}
        async with self._get(self._passing, url, headers, resuming=hurried) as response:
            if response.status == _OK:
                yield None
                return
            if response.status != _PARTIAL:
                size = number(response.headers.get("Content-Range", "").removeprefix("bytes */"))
                if response.status == _RANGE_REFUSED and size is not None:
                    raise RangeNotSatisfiable(size)
                raise self._refuse(url, response.status)
            parsed = parse_content_range(response.headers.get("Content-Range"))
            if parsed is None:
                yield None
                return
            start, stop, total = parsed
            yield start, stop, total, ResponseStream(response, url, SourceHead(start, total), self._metrics)

    def sources(self, url: str, *, has_digest: bool) -> list[UpstreamSource]:
        """Return the :class:`~teepi.source.Source` of the file at ``url``.

        With a digest to tell right bytes, a file below a mirror's origin may come from the other mirrors' as well.
        """
        return [UpstreamSource(self, place) for place in self._places(url, has_digest=has_digest)]

    @asynccontextmanager
    async def open(
        self, url: str, offset: int, *, if_range: str | None = None, resuming: bool = False
    ) -> AsyncIterator[ResponseStream]:
        """See :meth:`teepi.source.Source.open`."""
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if if_range is not None:
                headers["If-Range"] = if_range
        async with self._get(self._files, url, headers, resuming=resuming) as response:
            if response.status == _OK:
                head = whole_head(response)
            elif response.status == _PARTIAL and offset:
                head = partial_head(response, url, offset)
            elif response.status == _PARTIAL:
                msg = f"Upstream answered a part of {shown(url)} although the whole was asked for."
                raise Interrupted(msg)
            else:
                raise self._refuse(url, response.status)
            yield ResponseStream(response, url, head, self._metrics)


@dataclass(frozen=True, slots=True)
class UpstreamSource:
    """A file at its upstream URL."""

    upstream: Upstream
    url: str

    @property
    def name(self) -> str:
        """The URL as it may be shown."""
        return shown(self.url)

    def open(
        self, offset: int, *, if_range: str | None = None, resuming: bool = False
    ) -> AbstractAsyncContextManager[SourceStream]:
        """See :meth:`teepi.source.Source.open`."""
        return self.upstream.open(self.url, offset, if_range=if_range, resuming=resuming)
