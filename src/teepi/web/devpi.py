"""Handlers for devpi's clients: what this server is, logging in, users and indexes. All of it JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from teepi.errors import BadRequest
from teepi.http_semantics import query_names
from teepi.web import answers
from teepi.web.requests import json_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp import web
    from aiohttp.web_request import BaseRequest

    from teepi.accounts import Accounts
    from teepi.web.gate import Gate

FEATURES: Final = ("push-no-docs", "push-only-docs", "push-register-project", "server-keyvalue-parsing")


class DevpiHandlers:
    """Thin: read the request, ask ``accounts``, answer in devpi's envelope."""

    def __init__(
        self,
        accounts: Accounts,
        gate: Gate,
        projects_of: Callable[[str], Awaitable[Sequence[str]]],
        outside: Callable[[BaseRequest], str],
    ) -> None:
        """``projects_of`` gives the projects of an index, ``outside`` the URL of this server without a last slash."""
        self._accounts = accounts
        self._gate = gate
        self._projects_of = projects_of
        self._outside = outside

    # -- what this is --------------------------------------------------------------------------------

    async def api(self, request: BaseRequest, index: str | None = None) -> web.StreamResponse:
        """Answer ``/+api``, ``/{user}/+api`` and ``/{user}/{index}/+api``."""
        base = self._outside(request)
        asker = await self._gate.asker(request)
        result: dict[str, Any] = {
            "login": f"{base}/+login",
            "authstatus": ["noauth", "", []] if asker.user is None else ["ok", asker.user, []],
            "features": list(FEATURES),
        }
        if index is not None:
            config = self._accounts.directory.require(index)
            result["index"] = f"{base}/{index}"
            result["simpleindex"] = f"{base}/{index}/+simple/"
            if config is not None and config.is_stage:
                result["pypisubmit"] = f"{base}/{index}/"
        return answers.devpi("apiconfig", result)

    async def login(self, request: BaseRequest) -> web.StreamResponse:
        """``POST /+login``."""
        given = await json_body(request)
        user, password = (given.get(key) if isinstance(given, dict) else None for key in ("user", "password"))
        if not isinstance(user, str) or not isinstance(password, str):
            raise BadRequest("Bad request: no user/password specified")
        token, seconds = await self._accounts.identity.login(user, password, request.remote or "")
        return answers.devpi("proxyauth", {"password": token, "expiration": seconds}, "login successful")

    # -- users ---------------------------------------------------------------------------------------

    async def users(self, request: BaseRequest) -> web.StreamResponse:
        """``GET /``: all users with those of their indexes that whoever asks may read."""
        readable = set(await self._gate.readable(request))
        directory = self._accounts.directory
        names = {*directory.users, *(name.partition("/")[0] for name in readable)}
        return answers.devpi("list:userconfig", {name: self._shown(name, readable) for name in sorted(names)})

    async def user(self, request: BaseRequest, name: str) -> web.StreamResponse:
        """``GET /{user}``."""
        shown = self._shown(name, set(await self._gate.readable(request)))
        if not shown["indexes"]:
            self._accounts.directory.require_user(name)
        return answers.devpi("userconfig", shown)

    def _shown(self, name: str, readable: set[str]) -> dict[str, Any]:
        """Return what is said of a user; the settings may have indexes of one who has no account."""
        directory = self._accounts.directory
        user = directory.users.get(name)
        indexes = [index for index in directory.of_user(name) if index in readable]
        shown = {
            "indexes": {index.partition("/")[2]: self._index_shown(index) for index in indexes},
            "username": name,
        }
        return shown if user is None else {"created": user.created, **shown, **user.extra}

    async def create_user(self, request: BaseRequest, name: str) -> web.StreamResponse:
        """``PUT /{user}``: anyone may, until ``restrict_modify`` is set."""
        user = await self._accounts.create_user(await self._gate.asker(request), name, await self._object(request))
        return answers.devpi("userconfig", self._shown(user.name, set()), status=201)

    async def modify_user(self, request: BaseRequest, name: str) -> web.StreamResponse:
        """``PATCH /{user}``."""
        given = await self._object(request)
        renewed = await self._accounts.modify_user(await self._gate.asker(request), name, given)
        if renewed is None:
            return answers.devpi(message="user updated")
        result = {"password": renewed[0], "expiration": renewed[1]}
        return answers.devpi("userpassword", result, "user updated, new proxy auth")

    async def delete_user(self, request: BaseRequest, name: str) -> web.StreamResponse:
        """``DELETE /{user}``."""
        await self._accounts.delete_user(await self._gate.asker(request), name)
        return answers.devpi(message=f"user {name!r} deleted")

    # -- indexes -------------------------------------------------------------------------------------

    def _index_shown(self, name: str) -> dict[str, Any]:
        return self._accounts.shown(name)

    async def index(self, request: BaseRequest, name: str) -> web.StreamResponse:
        """``GET /{user}/{index}``, with the names of its projects unless ``?no_projects=``."""
        self._accounts.directory.require(name)
        result = self._index_shown(name)
        if "no_projects" not in query_names(request.raw_path):
            result["projects"] = list(await self._projects_of(name))
        return answers.devpi("indexconfig", result)

    async def create_index(self, request: BaseRequest, name: str) -> web.StreamResponse:
        """``PUT /{user}/{index}``."""
        config = await self._accounts.create_index(await self._gate.asker(request), name, await self._object(request))
        return answers.devpi("indexconfig", config.shown())

    async def modify_index(self, request: BaseRequest, name: str) -> web.StreamResponse:
        """``PATCH /{user}/{index}``: a list of changes, an object of settings, or what ``GET`` has answered."""
        given = await json_body(request)
        if isinstance(given, dict) and given.get("type") == "indexconfig" and isinstance(given.get("result"), dict):
            given = given["result"]
        config = await self._accounts.modify_index(
            await self._gate.asker(request),
            name,
            given,
            error_on_noop="error_on_noop" in query_names(request.raw_path),
        )
        return answers.devpi("indexconfig", config.shown())

    async def delete_index(self, request: BaseRequest, name: str) -> web.StreamResponse:
        """``DELETE /{user}/{index}``."""
        await self._accounts.delete_index(await self._gate.asker(request), name)
        return answers.devpi(message=f"index {name} deleted", status=201)

    async def _object(self, request: BaseRequest) -> dict[str, Any]:
        given = await json_body(request)
        if not isinstance(given, dict):
            raise BadRequest("The body of this request is one JSON object.")
        return given
