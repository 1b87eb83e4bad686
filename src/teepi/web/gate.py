"""Who makes a request, and whether he may read the index that it is about; ``directory`` says what is allowed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from teepi.directory import ANYBODY, Asker
from teepi.errors import Forbidden, Unauthorized
from teepi.principals import given as given_by
from teepi.web import answers
from teepi.web.hot import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.web_request import BaseRequest

    from teepi.accounts import Accounts

ASKER: Final = web.RequestKey("asker", Asker)
"""Who makes the request, once that was asked."""

COOKIE: Final = "teepi-session"
"""Holds a browser's login token."""
FORMS: Final = ("/+session", "/+manage/")
"""Where the forms of our own pages go."""


def _session(request: BaseRequest) -> str | None:
    """Return what a browser's cookie says, of a request that one of our own pages can lead to.

    A form has to say which page it is of (RFC 6454, 7.3): that it is ours, ``guard`` has seen. No client of the API
    acts by a cookie, so that no page of anybody else makes a browser act as one.
    """
    is_form = request.method == "POST" and request.raw_path.startswith(FORMS) and "Origin" in request.headers
    if not (is_form or (request.method in {"GET", "HEAD"} and answers.is_browser(request))):
        return None
    return request.cookies.get(COOKIE)


class Gate:
    """Asked before every handler that is about an index, and by those that write."""

    def __init__(self, accounts: Accounts) -> None:
        """Ask ``accounts``."""
        self._accounts = accounts

    async def asker(self, request: BaseRequest, *, again: bool = False) -> Asker:
        """Return who makes a request, by its headers; wrong credentials are those of nobody.

        ``again`` asks anew, after a body that took its time. Raises :class:`TooManyAttempts`.
        """
        known: Asker | None = request.get(ASKER)
        if known is not None and not again:
            return known
        headers = request.headers
        given = given_by(headers.get("Authorization"), headers.get("X-Devpi-Auth"))
        session = _session(request)
        if given is not None:
            asker = await self._accounts.identity.asker(given, request.remote or "")
        else:
            asker = ANYBODY if session is None else self._accounts.identity.logged_in(session)
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
