"""Logging in and out with a browser: the login token of devpi's clients, kept in a cookie that no script can read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aiohttp import web

from teepi.errors import TooManyAttempts, Unauthorized
from teepi.web.gate import COOKIE
from teepi.web.requests import form_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web_request import BaseRequest

    from teepi.accounts import Accounts
    from teepi.web.gate import Gate
    from teepi.web.ui.view import Views

_PATH: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-][A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,1000}")


class SessionHandlers:
    """``/+session``."""

    def __init__(self, accounts: Accounts, gate: Gate, views: Views, outside: Callable[[BaseRequest], str]) -> None:
        """``outside`` gives the URL of this server as the visitor knows it."""
        self._accounts = accounts
        self._gate = gate
        self._views = views
        self._outside = outside

    async def form(self, request: BaseRequest) -> web.StreamResponse:
        """``GET``: the form."""
        await self._gate.asker(request)
        return self._page(request, request.rel_url.query.get("next", ""))

    async def post(self, request: BaseRequest) -> web.StreamResponse:
        """``POST``: log in, or out when the form says so; then on to the page that the visitor came from."""
        fields = await form_body(request)
        onwards = fields.get("next", "")
        if fields.get("do") == "logout":
            response = see_other(onwards)
            response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict", secure=self._is_https(request))
            return response
        user = fields.get("user", "").strip()
        try:
            token, seconds = await self._accounts.identity.login(user, fields.get("password", ""), request.remote or "")
        except (Unauthorized, TooManyAttempts) as error:
            response = self._page(request, onwards, status=error.status, problem=error.message, name=user)
            if isinstance(error, TooManyAttempts):
                response.headers["Retry-After"] = str(error.retry_after_seconds)
            return response
        response = see_other(onwards)
        self.keep(request, response, token, seconds)
        return response

    def keep(self, request: BaseRequest, response: web.StreamResponse, token: str, seconds: int) -> None:
        """Give the visitor a login token, for this host alone."""
        response.set_cookie(
            COOKIE, token, max_age=seconds, path="/", httponly=True, samesite="Strict", secure=self._is_https(request)
        )

    def _is_https(self, request: BaseRequest) -> bool:
        return self._outside(request).startswith("https:")

    def _page(
        self, request: BaseRequest, onwards: str, *, status: int = 200, problem: str = "", name: str = ""
    ) -> web.Response:
        return self._views.page(
            "session.html", request=request, status=status, next=onwards, problem=problem, name=name[:100]
        )


def see_other(where: str, root: str = "./") -> web.Response:
    """Go on to a page (RFC 9110, 15.4.4): ``where`` is its encoded path below the root, which ``root`` leads to.

    What is no such path leads to the start.
    """
    where = where if _PATH.fullmatch(where) else ""
    return web.Response(status=303, headers={"Location": root + where, "Cache-Control": "no-store"})
