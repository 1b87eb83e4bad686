"""One client connection: aiohttp's RequestHandler that tells a waiting sender when the client has gone.

aiohttp does not cancel a handler when its client leaves, and a reader parked at the tip of a download does not touch
its socket; :meth:`Connection.connection_lost` ends it. What is answered is not decided here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Connection(RequestHandler):
    """A client connection."""

    __slots__ = ("client_left", "lost")

    def __init__(self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:  # noqa: ANN401
        """See RequestHandler."""
        super().__init__(manager, loop=loop, **options)
        self.client_left: Callable[[], None] | None = None
        """Called when the connection is lost, by the body that is on its way."""
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the connection is lost."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell whoever waits."""
        super().connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)
        if self.client_left is not None:
            self.client_left()

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401 - as aiohttp has it
        """Say what was wrong with a request head in one line: anyone can send a thousand bad ones."""
        error = kw.get("exc_info")
        log.info("%s: %r", str(args[0]) % args[1:] if args else "Bad request", error)


class Server(web.Server):
    """aiohttp's low-level server, making :class:`Connection` objects."""

    def __call__(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)
