"""Who makes a request, and whether he may read the index that it is about; ``directory`` says what is allowed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from teepi.directory import ANYBODY, Asker
from teepi.errors import Forbidden, Unauthorized
from teepi.principals import given as given_by
from teepi.web.hot import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.web_request import BaseRequest

    from teepi.accounts import Accounts

ASKER: Final = web.RequestKey("asker", Asker)
"""Who makes the request, once that was asked."""


class Gate:
    """Asked before every handler that is about an index, and by those that write."""

    def __init__(self, accounts: Accounts) -> None:
        """Ask ``accounts``."""
        self._accounts = accounts

    async def asker(self, request: BaseRequest) -> Asker:
        """Return who makes a request, by its headers; wrong credentials are those of nobody.

        Raises :class:`TooManyAttempts`.
        """
        known: Asker | None = request.get(ASKER)
        if known is not None:
            return known
        given = given_by(request.headers.get("Authorization"), request.headers.get("X-Devpi-Auth"))
        asker = ANYBODY if given is None else await self._accounts.asker(given, request.remote or "")
        request[ASKER] = asker
        return asker

    async def require_read(self, request: BaseRequest, index: str) -> None:
        """Raise unless whoever asks may read ``index``; one that is unknown is not judged here, if that is known.

        The answer to a request that had to be asked for that is for nobody else.
        """
        directory = self._accounts.directory
        if directory.unavailable is not None:
            directory.require(index)
        if directory.is_public(index):
            return
        request[PRIVATE] = True
        asker = await self.asker(request)
        if self._accounts.directory.may_read(asker, index, time.time()):
            return
        if asker.user is None:
            raise Unauthorized(f"{index} is not for everybody: log in with a user and password that may read it.")
        raise Forbidden(f"{asker.user} may not read {index}, or one of the indexes that it is made of.")

    async def readable(self, request: BaseRequest, index: str | None = None) -> Sequence[str]:
        """Return the indexes that whoever asks may read: ``index`` with what it is made of, in that order, or all."""
        directory = self._accounts.directory
        if index is None:
            return directory.readable(await self.asker(request), time.time())
        directory.require(index)
        await self.require_read(request, index)
        return directory.order(index)
