"""Handlers for operators: each operation as JSON, one object on a line, while it runs.

``over_socket`` is for the unix socket, whose mode is the permission; ``over_tcp`` asks for the token.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web
from packaging.utils import InvalidName, canonicalize_name

from teepi.errors import BadRequest, Forbidden, NotFound, TeepiError
from teepi.http_semantics import decode_target
from teepi.operator_channel import PREFIX
from teepi.web import answers

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiohttp.web_request import BaseRequest

    from teepi.lists import ProjectLists
    from teepi.operator_calls import Calls, Events
    from teepi.pages import Pages
    from teepi.web.connection import Connection

_MAY_STOP: Final = frozenset({"verify", "fetch"})
"""Calls that end when their client leaves, wherever they are; the others end between two of their steps."""
_MOST_BYTES: Final = 1 << 20  # aiohttp's own limit for a body


class OperatorHandlers:
    """What needs a permission, and what proxpi lets anyone do."""

    def __init__(self, calls: Calls, pages: Pages, lists: ProjectLists, token: str | None) -> None:
        """Answer ``calls``; without a ``token`` nobody is let in over TCP."""
        self._calls = calls
        self._pages = pages
        self._lists = lists
        self._token = token

    async def over_tcp(self, request: BaseRequest, call: str) -> web.StreamResponse:
        """``POST /+operator/{call}`` with ``Authorization: Bearer TOKEN`` (RFC 6750)."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        expected = self._token or ""
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected.encode())
        if not (expected and is_right and scheme.lower() == "bearer"):
            raise Forbidden(
                "This is for operators: send the token of the data directory, or use teepi's commands on its machine."
            )
        return await self._answer(request, call)

    async def over_socket(self, request: BaseRequest) -> web.StreamResponse:
        """Answer the same on the unix socket."""
        try:
            path, _ = decode_target(request.raw_path)
            if request.method != "POST" or not path.startswith(PREFIX):
                raise NotFound(f"There is nothing at this URL; calls are POST {PREFIX}NAME.")
            return await self._answer(request, path.removeprefix(PREFIX))
        except TeepiError as error:
            return answers.error(error)

    async def _answer(self, request: BaseRequest, call: str) -> web.StreamResponse:
        events = self._calls.call(call, await _arguments(request))
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"},
        )
        work = asyncio.ensure_future(_stream(events, request, response))
        if call in _MAY_STOP:
            lost = cast("Connection", request.protocol).lost
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
        await work
        return response

    # -- proxpi --------------------------------------------------------------------------------------

    async def invalidate(self, request: BaseRequest, name: str) -> web.StreamResponse:  # noqa: ARG002 - a handler
        """``DELETE /cache/{project}``: proxpi forgets the page; here upstream is asked again before it is served."""
        try:
            project = canonicalize_name(name, validate=True)
        except InvalidName:
            msg = f"{name[:100]!r} is not the name of a project."
            raise NotFound(msg) from None
        await self._pages.invalidate(project)
        return web.json_response({"status": "success", "data": None})

    async def refresh(self, name: str, indexes: Collection[str]) -> web.StreamResponse:
        """``POST …/+simple/{project}/refresh``: the upstreams of ``indexes`` are asked for the page again."""
        try:
            project = canonicalize_name(name, validate=True)
        except InvalidName:
            raise NotFound(f"{name[:100]!r} is not the name of a project.") from None
        await self._pages.invalidate(project, indexes)
        return web.Response(status=302, headers={"Location": f"../{project}/", "Cache-Control": "no-store"})

    async def invalidate_list(self, request: BaseRequest) -> web.StreamResponse:  # noqa: ARG002 - a handler
        """``DELETE /cache/list``: the same for the list of projects."""
        await self._lists.invalidate()
        return web.json_response({"status": "success", "data": None})


async def _stream(events: Events, request: BaseRequest, response: web.StreamResponse) -> None:
    async with aclosing(events) as running:
        first = await anext(running)  # what is wrong from the beginning gets its own status
        await response.prepare(request)
        request[answers.SENT] = 0
        await _write(request, response, first)
        try:
            async for event in running:
                await _write(request, response, event)
        except TeepiError as error:
            await _write(request, response, {"error": error.message})
    await response.write_eof()


async def _arguments(request: BaseRequest) -> dict[str, Any]:
    try:
        body = await request.read()
        found = json.loads(body) if body else {}
    except web.HTTPRequestEntityTooLarge:
        raise BadRequest(f"The arguments of an operation take no more than {_MOST_BYTES} bytes.") from None
    except (ValueError, RecursionError):
        raise BadRequest("The arguments of an operation are one JSON object.") from None
    if not isinstance(found, dict):
        raise BadRequest("The arguments of an operation are one JSON object.")
    return found


async def _write(request: BaseRequest, response: web.StreamResponse, event: dict[str, Any]) -> None:
    line = json.dumps(event).encode() + b"\n"
    await response.write(line)
    request[answers.SENT] += len(line)
