"""Reads the bodies of requests, each within a bound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from teepi.errors import BadRequest, TooLarge

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

_MOST_BYTES: Final = 1 << 20


async def whole_body(request: BaseRequest, *, most_bytes: int = _MOST_BYTES) -> bytes:
    """Return the body of a request. Raises :class:`TooLarge`."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > most_bytes:
            raise TooLarge(f"The body of this request takes no more than {most_bytes} bytes.")
    return bytes(body)


async def json_body(request: BaseRequest) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON in the body of a request, ``{}`` if that is empty.

    Raises :class:`BadRequest` and :class:`TooLarge`.
    """
    body = await whole_body(request)
    try:
        return json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise BadRequest("Bad request: could not decode json") from None
