"""root of a teepi that lets it in with an empty password: makes indexes, uploads, pushes, reads devpi's JSON."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.teepi import Teepi
    from tests.support.wheels import Distribution

JSON = {"Accept": "application/json"}


class Owner:
    """Use ``async with Owner(teepi)``."""

    def __init__(self, teepi: Teepi, user: str = "root", password: str = "") -> None:
        """Log in with each request."""
        self.teepi = teepi
        self._session = aiohttp.ClientSession(
            headers={"Authorization": aiohttp.encode_basic_auth(user, password)}, base_url=teepi.url
        )

    async def __aenter__(self) -> Self:
        """Return it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close its connections."""
        await self._session.close()

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """Ask for JSON; return the status and what came: JSON, or a reason."""
        async with self._session.request(method, path, **{"headers": JSON, **more}) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else answer.reason

    async def read(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes, Mapping[str, str]]:
        """Return status, body and headers of what a browser gets; no redirect is followed."""
        async with self._session.get(path, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.read(), answer.headers

    async def index(self, name: str, **settings: Any) -> str:
        """Make an index; return its name."""
        status, said = await self.ask("PUT", f"/{name}", json=settings)
        assert status == 200, said
        return name

    async def upload(self, index: str, made: Distribution) -> str:
        """Upload a file that is taken; return its path."""
        is_wheel = made.filename.endswith(".whl")
        form = aiohttp.FormData(default_to_multipart=True, quote_fields=False)
        form.add_field(":action", "file_upload")
        form.add_field("filetype", "bdist_wheel" if is_wheel else "sdist")
        form.add_field("content", made.content, filename=made.filename)
        status, said = await self.ask("POST", f"/{index}/", data=form)
        assert status == 200, said
        return f"{index}/+f/{made.sha256[:3]}/{made.sha256[3:16]}/{quote(made.filename)}"

    async def docs(self, index: str, name: str, version: str, pages: Mapping[str, bytes]) -> bytes:
        """Upload documentation that is taken; return its zip."""
        content = docs_zip(pages)
        form = aiohttp.FormData(default_to_multipart=True, quote_fields=False)
        for field, value in ((":action", "doc_upload"), ("name", name), ("version", version)):
            form.add_field(field, value)
        form.add_field("content", content, filename=f"{name}.zip")
        status, said = await self.ask("POST", f"/{index}/", data=form)
        assert status == 200, said
        return content

    async def push(self, index: str, method: str = "PUSH", **given: Any) -> tuple[int, Any]:
        """Push as ``devpi push`` does; return the status and the log of what was done, or the message."""
        status, said = await self.ask(method, f"/{index}", json=given)
        return status, said["result"] if said.get("type") == "actionlog" else said["message"]

    async def links(self, index: str, project: str, version: str) -> list[dict[str, Any]]:
        """Return the links of a version's JSON."""
        status, said = await self.ask("GET", f"/{index}/{project}/{version}")
        assert status == 200, said
        found: list[dict[str, Any]] = said["result"]["+links"]
        return found


def docs_zip(pages: Mapping[str, bytes]) -> bytes:
    """Return a zip of documentation, with an index.html unless there are other pages of that name below."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        start = {} if "html/index.html" in pages else {"index.html": b"<h1>start</h1>"}
        for path, content in {**start, **pages}.items():
            archive.writestr(path, content)
    return buffer.getvalue()
