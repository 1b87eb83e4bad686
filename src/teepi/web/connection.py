"""One client connection: aiohttp's RequestHandler with the hot path before it.

aiohttp does not cancel a handler when its client leaves, and a reader parked at the tip of a download does not touch
its socket; :meth:`Connection.connection_lost` ends it. What is answered is not decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import resource
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from teepi.web.finishing import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import StreamReader

    from teepi.limits import Limits
    from teepi.web.hot import HotPath

log = logging.getLogger(__name__)

_UNREADABLE: Final = "The request is not valid HTTP/1.1: its target, Host or another header is wrong or too long.\n"
_FAILED: Final = "teepi failed on this request; see its log.\n"
_REFUSED_TEXT: Final = b"teepi has no file descriptor left; try again in a moment.\n"
_REFUSED: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nCache-Control: no-store\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s" % (len(_REFUSED_TEXT), _REFUSED_TEXT)
)
_REFUSED_WAIT_SECONDS: Final = 1.0
_HEAD_END: Final = b"\r\n\r\n"
_PUSH: Final = b"PUSH "
_PUSH_LINE: Final = re.compile(rb"PUSH /[!-~]* HTTP/1\.[01]\r\n")
"""A verb of devpi's clients that aiohttp's parser refuses; here it is a POST of JSON."""
_NEEDED: Final = (
    *("_waiter", "_messages", "_request_count", "_upgraded", "_close", "_force_close"),
    *("_next_keepalive_close_time", "_keepalive_timeout", "_loop"),
)
"""Private attributes of aiohttp's that the hot path reads."""
_MIN_RESERVE: Final = 16
_MAX_RESERVE: Final = 256


class Connection(RequestHandler):
    """A client connection."""

    __slots__ = ("_body", "_hot", "_is_at_boundary", "client_left", "lost")

    def __init__(self, manager: Server, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:  # noqa: ANN401
        """See RequestHandler."""
        super().__init__(manager, loop=loop, **options)
        self._hot = manager.hot
        self._is_at_boundary = True
        self._body: StreamReader | None = None  # of the last request
        self.client_left: Callable[[], None] | None = None
        """Called when the connection is lost, by the body that is on its way."""
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the connection is lost."""

    def data_received(self, data: bytes) -> None:
        """Take requests; one that would upgrade is answered as if it would not, and is the last (RFC 9110, 7.8).

        aiohttp drops what came with it in one read: a client whose next request was in that would wait for ever.
        """
        hot = self._hot
        if hot is not None:
            if self._is_idle() and hot.answer(data, cast("asyncio.Transport", self.transport)):
                self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                return
            before = self._request_count
            self._take(data)
            if data:  # aiohttp calls with nothing to read on in what it has
                heads = self._request_count - before
                self._is_at_boundary = heads > 0 and data[-4:] == _HEAD_END and data.count(_HEAD_END) == heads
        else:
            self._take(data)
        for at, (message, payload) in enumerate(self._messages):
            if isinstance(message, RawRequestMessage) and message.upgrade:
                self._messages[at] = (message._replace(should_close=True), payload)

    def _take(self, data: bytes) -> None:
        """Give ``data`` to aiohttp, whose parser does not know the verb of ``devpi push``: as POST, which is as long.

        A whole first line where no body is on its way: the second half of a head that was cut does not begin so.
        """
        if data[:5] == _PUSH and _PUSH_LINE.match(data) and (self._body is None or self._body.is_eof()):
            data = b"POST " + data[5:]
        before = self._request_count
        super().data_received(data)
        if self._request_count > before and self._messages:
            self._body = self._messages[-1][1]

    def _is_idle(self) -> bool:
        """Whether what comes is the beginning of a request, and nothing comes before its answer.

        A request that was taken and has not begun to be handled shows in the waiter alone; a head that was cut in two
        may look like a whole one in its second half.
        """
        waiter = self._waiter
        return (
            self._is_at_boundary
            and (self._request_count == 0 if waiter is None else not waiter.done())
            and not self._messages
            and not self._upgraded
            and not self._close
            and not self._force_close
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer requests, unless descriptors run out: the kernel gives the lowest free one, so its number tells."""
        manager = cast("Server", self._manager)
        sock = transport.get_extra_info("socket")
        excess = sock.fileno() - manager.descriptor_limit
        if excess >= 0:
            both_ways = cast("asyncio.Transport", transport)
            both_ways.set_protocol(_Refusal(both_ways))
            if excess > manager.reserve // 2:
                both_ways.abort()
            return
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # else an answer that nobody reads would be kept for ever
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, manager.idle_milliseconds)
        super().connection_made(transport)

    def close(self) -> None:
        """Take no more requests. With none to answer the connection ends now: aiohttp would leave it open, idle."""
        is_idle = self._waiter is not None and not self._waiter.done()
        super().close()
        if is_idle and self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell whoever waits."""
        is_lingering = self._waiter is None and not getattr(self, "_request_in_progress", True)
        task = self._task_handler
        super().connection_lost(exc)
        if is_lingering and task is not None:  # aiohttp would wait on for the rest of a body that cannot come
            task.cancel()
        if not self.lost.done():
            self.lost.set_result(None)
        if self.client_left is not None:
            self.client_left()

    def handle_error(self, *args: Any, **kw: Any) -> web.StreamResponse:  # noqa: ANN401 - as aiohttp has it
        """Answer a request that could not be read, in a sentence and not to be stored, like every other error."""
        status = super().handle_error(*args, **kw).status
        response = web.Response(
            status=status,
            text=_UNREADABLE if status < HTTPStatus.INTERNAL_SERVER_ERROR else _FAILED,
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401 - as aiohttp has it
        """Say what was wrong with a request head in one line: anyone can send a thousand bad ones.

        The parser shows the wrong line behind an empty one, which may be credentials: that is left out.
        """
        error = kw.get("exc_info")
        said = error.message.partition("\n\n")[0] if isinstance(error, HttpProcessingError) else repr(error)
        log.info("%s: %s", str(args[0]) % args[1:] if args else "Bad request", " ".join(said.split()).rstrip(":"))


class _Refusal(asyncio.Protocol):
    """A connection too many: told so as soon as it asks, which takes none of what is left to files and upstreams."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_REFUSED_WAIT_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - whatever it is
        """Answer once a request has come: closing a socket with unread input would reset it."""
        self._transport.write(_REFUSED)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a protocol
        """Forget it."""
        self._timer.cancel()


class Server(web.Server):
    """aiohttp's low-level server, making :class:`Connection` objects."""

    def __init__(
        self,
        handler: Callable[..., Any],
        limits: Limits,
        hot: HotPath | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """See web.Server. Create it once the limit of descriptors is what it will be.

        Without ``hot``, or when aiohttp is not made as the hot path needs it, every request goes the ordinary path.
        """
        super().__init__(
            handler,
            request_factory=lambda message, payload, protocol, writer, task: Request(
                message, payload, protocol, writer, task, self._loop
            ),
            keepalive_timeout=limits.keepalive_seconds,
            # A client that is refused while it sends reads the answer when it has sent all: it needs the time.
            lingering_time=limits.client_idle_seconds,
            **options,
        )
        self.hot: HotPath | None = None
        self.idle_milliseconds = int(limits.client_idle_seconds * 1000)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.reserve = min(max(soft // 4, _MIN_RESERVE), _MAX_RESERVE)
        """Descriptors for files and upstreams; up to half of them for telling clients that there are too many."""
        self.descriptor_limit = soft - self.reserve
        """Connections from this descriptor on are refused."""
        if hot is not None and (lacking := _lacking(self())):
            log.warning("This aiohttp has no %s: pages and small files are served more slowly.", ", ".join(lacking))
        else:
            self.hot = hot

    def __call__(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)


def _lacking(connection: Connection) -> list[str]:
    """Return what the hot path needs of a connection that is new, and does not find."""
    lacking = [name for name in _NEEDED if not hasattr(connection, name)]
    is_new = not lacking and connection._waiter is None and connection._request_count == 0  # noqa: SLF001
    return lacking if lacking or is_new else ["connection that counts its requests"]
