"""The only HTTP client: index pages, files, ranges and the project list of an upstream.

It turns every way in which a request can fail into an error of ``errors``. What is asked, cached or retried is
decided elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import aiohttp

from teepi.errors import BadPage, Interrupted, NotFound, RangeNotSatisfiable, TeepiError, UpstreamError
from teepi.http_semantics import conditions, parse_content_range, parse_retry_after, sendable, strong_etag
from teepi.origins import origin_of, split_user_info
from teepi.outbound import Outbound
from teepi.simple_html import is_cut
from teepi.source import SourceHead
from teepi.watchdog import WatchedStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from teepi.index_settings import IndexSettings
    from teepi.limits import Limits
    from teepi.metrics import Metrics
    from teepi.source import SourceStream

log = logging.getLogger(__name__)

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
_LONGEST_REASON: Final = 200  # characters of what a library says of an error
_MOST_DIGITS: Final = 18  # a longer number is no size of any file


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


def shown(url: str) -> str:
    """Return ``url`` as it may be shown and logged: without user info and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Upstream:
    """HTTP towards the upstream of one index, and its mirrors. Create it on the running event loop."""

    def __init__(self, settings: IndexSettings, limits: Limits, metrics: Metrics) -> None:
        """Open no connection yet."""
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
            msg = f"{shown(url)} did not answer in time."
            raise Interrupted(msg) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            msg = f"{shown(url)} cannot be reached: {_reason(error)}."
            raise Interrupted(msg) from error
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

    async def project(
        self, project: str, *, seen_at: str | None = None, etag: str | None = None, last_modified: str | None = None
    ) -> UpstreamPage:
        """Fetch the page of ``project`` from the first mirror that has it to give.

        The validators are those of the page at ``seen_at`` and tell another mirror nothing. Raises as :meth:`page`;
        :class:`NotFound` only when every mirror says so.
        """
        failure: TeepiError | None = None
        for mirror in self._mirrors:
            url = f"{mirror}{project}/"
            conditional = len(self._mirrors) == 1 or (seen_at is not None and origin_of(seen_at) == origin_of(mirror))
            try:
                return await self.page(
                    url,
                    etag=etag if conditional else None,
                    last_modified=last_modified if conditional else None,
                    hurried=mirror != self._mirrors[-1],
                )
            except (NotFound, UpstreamError) as error:
                if failure is None or isinstance(failure, NotFound):
                    failure = error
                log.info("%s", error)
        if failure is None:
            msg = "This index has no upstream."
            raise NotFound(msg)
        raise failure

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
        self, url: str, *, etag: str | None = None, last_modified: str | None = None
    ) -> AsyncIterator[tuple[UpstreamPage, AsyncIterator[bytes]]]:
        """Open a project list, conditionally when validators are given: what is said of it, and its body in chunks.

        The ``body`` is None for 304, else empty. Raises as :meth:`page` does.
        """
        headers = {"Accept": PAGE_ACCEPT} | conditions(etag, last_modified)
        async with self._get(self._passing, url, headers, decompress=True) as response:
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
        stream = _Stream(response, url, SourceHead(0, None), self._metrics)
        watched = WatchedStream(stream, shown(url), self._limits)
        while part := await watched.read():
            yield part

    async def head(self, url: str) -> SourceHead:
        """Ask what a file is like without its bytes. Raises as :meth:`page` does."""
        async with self._get(self._small, url, {"Accept-Encoding": "identity"}, method="HEAD") as response:
            if response.status != _OK:
                raise self._refuse(url, response.status)
            return _whole_head(response)

    @asynccontextmanager
    async def range(self, url: str, header: str) -> AsyncIterator[tuple[int, int, int | None, _Stream] | None]:
        """Ask for one range of a file by itself (``header`` is the Range field's value).

        Yields (start, stop, total, stream), or None when upstream ignored the range or does not say which it sends.
        Raises :class:`RangeNotSatisfiable` when it lies past the end.
        """
        headers = {"Accept-Encoding": "identity", "Range": header}
        async with self._get(self._passing, url, headers) as response:
            if response.status == _OK:
                yield None
                return
            if response.status != _PARTIAL:
                size = _number(response.headers.get("Content-Range", "").removeprefix("bytes */"))
                if response.status == _RANGE_REFUSED and size is not None:
                    raise RangeNotSatisfiable(size)
                raise self._refuse(url, response.status)
            parsed = parse_content_range(response.headers.get("Content-Range"))
            if parsed is None:
                yield None
                return
            start, stop, total = parsed
            yield start, stop, total, _Stream(response, url, SourceHead(start, total), self._metrics)

    def sources(self, url: str, *, has_digest: bool) -> list[UpstreamSource]:
        """Return the :class:`~teepi.source.Source` of the file at ``url``.

        With a digest to tell right bytes, a file below a mirror's origin may come from the other mirrors' as well.
        """
        urls = [url]
        here, slash, path = split_user_info(url)[0].partition("://")[2].partition("/")
        origins = [mirror.partition("://") for mirror in self._mirrors]
        if has_digest and slash and here and origin_of(url) in map(origin_of, self._mirrors):
            urls += [
                f"{scheme}://{rest.partition('/')[0]}/{path}"
                for scheme, _, rest in origins
                if origin_of(f"{scheme}://{rest}") != origin_of(url)
            ]
        return [UpstreamSource(self, each) for each in dict.fromkeys(urls)]

    @asynccontextmanager
    async def open(
        self, url: str, offset: int, *, if_range: str | None = None, resuming: bool = False
    ) -> AsyncIterator[_Stream]:
        """See :meth:`teepi.source.Source.open`."""
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if if_range is not None:
                headers["If-Range"] = if_range
        async with self._get(self._files, url, headers, resuming=resuming) as response:
            if response.status == _OK:
                head = _whole_head(response)
            elif response.status == _PARTIAL and offset:
                head = _partial_head(response, url, offset)
            elif response.status == _PARTIAL:
                msg = f"Upstream answered a part of {shown(url)} although the whole was asked for."
                raise Interrupted(msg)
            else:
                raise self._refuse(url, response.status)
            yield _Stream(response, url, head, self._metrics)


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


class _Stream:
    """The body of an upstream answer."""

    __slots__ = ("_broken", "_metrics", "_response", "_url", "head")

    def __init__(self, response: aiohttp.ClientResponse, url: str, head: SourceHead, metrics: Metrics) -> None:
        self._response = response
        self._url = url
        self._metrics = metrics
        self._broken: Exception | None = None
        self.head = head

    async def read(self) -> bytes:
        """See :meth:`teepi.source.SourceStream.read`."""
        content = self._response.content
        try:
            if self._broken is not None:
                raise self._broken
            data = await content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            # aiohttp raises before it gives out what had arrived; a resume begins behind that.
            data = content._read_nowait(-1) if content._buffer else b""  # noqa: SLF001
            self._broken = error
            if not data:
                msg = f"{shown(self._url)} broke off: {_reason(error)}."
                raise Interrupted(msg) from error
        self._metrics.upstream_bytes += len(data)
        return data


def _whole_head(response: aiohttp.ClientResponse) -> SourceHead:
    headers = response.headers
    return SourceHead(
        start=0,
        total=_number(headers.get("Content-Length", "")),
        etag=strong_etag(headers.get("ETag")),
        last_modified=sendable(headers.get("Last-Modified")),
        immutable="immutable" in headers.get("Cache-Control", "").lower(),
    )


def _partial_head(response: aiohttp.ClientResponse, url: str, offset: int) -> SourceHead:
    """Read a 206 (RFC 9110, 15.3.7). Only exactly ``offset`` to the end will do."""
    parsed = parse_content_range(response.headers.get("Content-Range"))
    if parsed is None or parsed[0] != offset or (parsed[2] is not None and parsed[1] != parsed[2]):
        msg = f"Upstream answered another range of {shown(url)} than was asked for."
        raise Interrupted(msg)
    whole = _whole_head(response)
    return SourceHead(offset, parsed[2], whole.etag, whole.last_modified, whole.immutable)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return type(error).__name__  # their words hold the URL with its query, which may be a secret
    return " ".join(str(error).split()).rstrip(".")[:_LONGEST_REASON] or type(error).__name__
