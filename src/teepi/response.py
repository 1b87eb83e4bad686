"""The answer of an upstream: what its head says of a file, its body as a stream, and errors in words.

It belongs to ``upstream``, which asks; nothing is asked here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import aiohttp

from teepi.errors import Interrupted
from teepi.http_semantics import parse_content_range, sendable, strong_etag
from teepi.origins import shown
from teepi.source import SourceHead

if TYPE_CHECKING:
    from teepi.metrics import Metrics

_LONGEST_REASON: Final = 200  # characters of what a library says of an error
_MOST_DIGITS: Final = 18  # a longer number is no size of any file


class ResponseStream:
    """The body of an answer as a :class:`~teepi.source.SourceStream`."""

    __slots__ = ("_broken", "_metrics", "_response", "_url", "head")

    def __init__(self, response: aiohttp.ClientResponse, url: str, head: SourceHead, metrics: Metrics) -> None:
        """Read what comes of ``url``."""
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
                msg = f"{shown(self._url)} broke off: {reason(error)}."
                raise Interrupted(msg) from error
        self._metrics.upstream_bytes += len(data)
        return data


def whole_head(response: aiohttp.ClientResponse) -> SourceHead:
    """Read the head of an answer with the whole file, or to HEAD."""
    headers = response.headers
    return SourceHead(
        start=0,
        total=number(headers.get("Content-Length", "")),
        etag=strong_etag(headers.get("ETag")),
        last_modified=sendable(headers.get("Last-Modified")),
        immutable="immutable" in headers.get("Cache-Control", "").lower(),
    )


def partial_head(response: aiohttp.ClientResponse, url: str, offset: int) -> SourceHead:
    """Read a 206 (RFC 9110, 15.3.7). Only exactly ``offset`` to the end will do.

    Raises :class:`Interrupted` for anything else.
    """
    parsed = parse_content_range(response.headers.get("Content-Range"))
    if parsed is None or parsed[0] != offset or (parsed[2] is not None and parsed[1] != parsed[2]):
        msg = f"Upstream answered another range of {shown(url)} than was asked for."
        raise Interrupted(msg)
    whole = whole_head(response)
    return SourceHead(offset, parsed[2], whole.etag, whole.last_modified, whole.immutable)


def number(text: str) -> int | None:
    """Return the number of bytes that a header gives, or None where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def reason(error: Exception) -> str:
    """Return why a request failed, without a full stop and without what may be a secret."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or type(error.certificate_error).__name__
        return f"its certificate is not trusted ({why}); if an authority of your own signed it, name that by ca_file"
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return type(error).__name__  # their words hold the URL with its query, which may be a secret
    return " ".join(str(error).split()).rstrip(".")[:_LONGEST_REASON] or type(error).__name__


def nobody_answers(server: str, error: Exception) -> str:
    """Return the sentence of a command that could not reach the teepi at ``server``."""
    number = getattr(getattr(error, "os_error", None), "errno", None) or 0  # a resolver's are below 0
    why = os.strerror(number) if number > 0 else reason(error) if str(error) else "no answer in time"
    return f"No teepi answers at {server} ({why}); start it with 'teepi serve', or name its address with --url."
