"""Handlers of searches: ``pip search`` (XML-RPC) and JSON."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from teepi import xmlrpc
from teepi.errors import BadRequest
from teepi.web import answers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp.web_request import BaseRequest

    from teepi.search import Found, Search

    Permitted = Callable[[BaseRequest, str | None], Awaitable[Sequence[str]]]
    """Gives the indexes that a search of this one looks into, in the order of their resolution, as far as the asker
    may; of all that there are when None is asked for."""

SHOWN: Final = 100
"""Hits of one answer: pip prints them all."""
_LISTED: Final = 20
"""Hits for ``pip search`` of which a name in upstream's list is all that is known."""
_MOST_SHOWN: Final = 500
_LONGEST_QUERY: Final = 1000
_NUMBER_DIGITS: Final = 4


def is_call(request: BaseRequest) -> bool:
    """Say whether a POST is XML-RPC: on the same URLs other clients push and upload."""
    return request.content_type in {"text/xml", "application/xml"}


class SearchHandlers:
    """Searches of an index, or of all."""

    def __init__(self, search: Search, permitted: Permitted) -> None:
        """Look into what ``permitted`` gives."""
        self._search = search
        self._permitted = permitted

    async def xmlrpc(self, request: BaseRequest, index: str) -> web.StreamResponse:
        """``POST /{user}/{index}``, as ``pip search --index`` sends it; what is wrong is a fault with status 200."""
        request[answers.KIND] = "search"
        indexes = await self._permitted(request, index)
        is_whole = True
        try:
            body = await _body(request)
            is_whole = len(body) <= xmlrpc.BODY_BYTES
            call = await asyncio.to_thread(xmlrpc.parse_search, body)
            found = _with_few_listed(await self._search.find(call.words, indexes, _MOST_SHOWN))[:SHOWN]
            hits = [xmlrpc.Hit(hit.index, hit.name, hit.summary, hit.version) for hit in found]
            answer = xmlrpc.render_hits(hits)
        except xmlrpc.BadCall as error:
            answer = xmlrpc.render_fault(error)
        response = web.Response(body=answer, content_type="text/xml", headers={"Cache-Control": "no-store"})
        if not is_whole:
            response.force_close()
        return response

    async def json(self, request: BaseRequest) -> web.StreamResponse:
        """``/+search?q=WORDS[&index=USER/INDEX][&limit=NUMBER]``: what was found, the best first."""
        request[answers.KIND] = "search"
        query = request.rel_url.query
        words, index = query.get("q", "").strip()[:_LONGEST_QUERY], query.get("index")
        limit = _limit(query.get("limit", str(SHOWN)))
        indexes = await self._permitted(request, index)
        found = await self._search.find([words], indexes, limit + 1, each=index is None)
        return web.json_response(
            {"query": words, "results": [_result(hit) for hit in found[:limit]], "cut": len(found) > limit},
            headers={"Cache-Control": "no-store"},
        )


async def _body(request: BaseRequest) -> bytes:
    """Return the body, or of one that is too large a part that is so, too."""
    body = b""
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > xmlrpc.BODY_BYTES:
            break
    return body


def _with_few_listed(found: Sequence[Found]) -> list[Found]:
    """Return what is uploaded, cached or described, and of the rest the best few, in their order."""
    listed = 0
    kept = []
    for hit in found:
        is_known = hit.is_uploaded or hit.is_cached or bool(hit.version)
        listed += not is_known
        if is_known or listed <= _LISTED:
            kept.append(hit)
    return kept


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS and 1 <= int(text) <= _MOST_SHOWN):
        msg = f"limit is a number from 1 to {_MOST_SHOWN}."
        raise BadRequest(msg)
    return int(text)


def _result(hit: Found) -> dict[str, str | bool]:
    return {
        "name": hit.name,
        "index": hit.index,
        "project": hit.project,
        "version": hit.version,
        "summary": hit.summary,
        "cached": hit.is_cached,
        "uploaded": hit.is_uploaded,
    }
