"""What answers say besides, whoever made them: put in when the head goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp.web_request import BaseRequest

from teepi.web import answers
from teepi.web.hot import PRIVATE

if TYPE_CHECKING:
    from aiohttp import web

_CLIENT: Final = "devpi-client"


class Request(BaseRequest):
    """A request as :class:`teepi.web.connection.Server` makes them."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Say to devpi's clients that this is such a server, and keep from shared caches what not everybody may read.

        They warn their users of every answer without it, errors and installers' pages too.
        """
        headers = response.headers
        if self.headers.get("User-Agent", "").startswith(_CLIENT) or answers.wants_json(self):
            headers.update(answers.DEVPI_HEADERS)
        if self.get(PRIVATE) and "no-store" not in (said := headers.get("Cache-Control", "")):
            kept = [each for part in said.split(",") if (each := part.strip()) not in {"", "public", "private"}]
            headers["Cache-Control"] = ", ".join(["private", *kept])
