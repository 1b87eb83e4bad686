"""Sends what was uploaded, whole or a range of it."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING

from aiohttp import web

from teepi.files import Opened, Outcome
from teepi.http_semantics import if_none_match, if_range_allows, parse_range
from teepi.readable import Cursor
from teepi.web import answers

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from teepi.data import StoredDocs, StoredFile
    from teepi.stages import Stages
    from teepi.web.send import Senders


async def send_stored(
    request: BaseRequest,
    senders: Senders,
    stages: Stages,
    file: StoredFile | StoredDocs,
    *,
    cache_control: str,
    content_type: str = "application/octet-stream",
) -> web.StreamResponse:
    """Answer with ``file``, or that it is unchanged. Raises what :meth:`Stages.open` does, and for a wrong range."""
    etag = f'"{file.sha256}"'
    headers = {
        "Content-Type": content_type,
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": formatdate(file.uploaded_at, usegmt=True),
        "Cache-Control": cache_control,
        "Cache-Status": f"teepi; {Outcome.HIT.value}",
        "X-Content-Type-Options": "nosniff",
    }
    condition = answers.header(request, "If-None-Match")
    if condition is not None and if_none_match(condition, etag):
        return web.Response(status=304, headers=headers)
    wanted = parse_range(answers.header(request, "Range")) if request.method == "GET" else None
    if wanted is not None and not if_range_allows(answers.header(request, "If-Range"), etag, None):
        wanted = None
    start, stop = (0, file.size) if wanted is None else wanted.resolve(file.size)
    response = web.StreamResponse(headers=headers)
    if wanted is not None:
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    response.content_length = stop - start
    opened = Opened(await stages.open(file), Cursor(start, stop), Outcome.HIT)
    try:
        return await senders.send(request, response, opened)
    finally:
        opened.close()
