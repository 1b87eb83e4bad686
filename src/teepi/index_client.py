"""Speaks devpi's protocol to a running teepi, as devpi's own clients do: looks, uploads, makes users and indexes.

Every refusal is the server's own sentence; passwords are in no message.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

import aiohttp
from yarl import URL

from teepi import tls
from teepi.errors import TeepiError
from teepi.origins import basic
from teepi.response import nobody_answers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

_SILENCE_SECONDS: Final = 300.0  # a server may hash a large file before it answers
_LONGEST_TEXT: Final = 500  # characters of what a server says
_CHUNK: Final = 256 << 10
_OK: Final = 200
_CREATED: Final = 201
_UNAUTHORIZED: Final = 401
_CLOSED: Final = {_UNAUTHORIZED, 403}
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409


class Refused(TeepiError):
    """The server did not do what it was asked; the message is its own."""

    def __init__(self, message: str, answered: int | None = None) -> None:
        """``answered`` is the HTTP status, None when no answer came."""
        super().__init__(message)
        self.answered = answered

    @property
    def is_conflict(self) -> bool:
        """Whether other content is there under that name."""
        return self.answered == _CONFLICT


@dataclass(frozen=True, slots=True)
class Account:
    """Whom to log in as."""

    user: str
    password: str

    def __repr__(self) -> str:
        """Show the name alone."""
        return f"Account({self.user!r})"


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file that lies in an index itself, not in its bases."""

    filename: str
    sha256: str | None
    """Lower-case hex."""


class IndexClient:
    """Calls on one server."""

    def __init__(self, session: aiohttp.ClientSession, server: str, account: Account | None) -> None:
        """Speak over ``session`` to ``server``, whose URL ends with ``/``; :func:`connect` makes both."""
        self._session = session
        self._server = server
        self._account = account

    async def check(self, index: str, *, for_upload: bool) -> None:
        """Raise :class:`Refused` when ``index`` is not there, takes no uploads or the login is not accepted."""
        status, body = await self._json("GET", f"{index}/+api")
        if status == _NOT_FOUND:
            raise Refused(
                f"There is no index {index} at {self._server}; make it with 'devpi index -c {index}'.", status
            )
        if status in _CLOSED:
            why = (
                "set DEVPI_PASSWORD, or use --password-stdin"
                if self._account is None
                else f"not for the user {self._account.user!r} with this password"
            )
            raise Refused(f"The index {index} is not for everybody: {why}.", status)
        about = body.get("result") if status == _OK else None
        if not isinstance(about, dict) or "login" not in about:
            raise Refused(
                f"Something else than teepi answers at {self._server}, or one without private indexes "
                f"(it said {status}); name teepi's address with --url.",
                status,
            )
        if not for_upload:
            return
        if "pypisubmit" not in about:
            raise Refused(f"The index {index} is a mirror, to which nothing can be uploaded; name another.", status)
        if self._account is not None and [*about.get("authstatus", ()), ""][0] != "ok":
            raise Refused(f"{self._server} does not accept the password of the user {self._account.user!r}.", status)

    async def may_read(self, index: str) -> bool:
        """Whether pages of ``index`` are shown to the account, or to nobody in particular. Raises :class:`Refused`."""
        async with self._asking("GET", f"{index}/+simple/-/") as answer:
            return answer.status not in _CLOSED

    async def own_files(self, index: str, project: str) -> list[OwnFile]:
        """Return the files of ``project`` that lie in ``index`` itself. Raises :class:`Refused`."""
        status, body = await self._json("GET", f"{index}/{project}?ignore_bases=")
        if status == _NOT_FOUND:
            return []
        versions = body.get("result")
        if status != _OK or not isinstance(versions, dict):
            raise _refusal(status, body, f"{self._server}{index}/{project}")
        links = [link for version in versions.values() for link in version.get("+links", ())]
        return [
            OwnFile(
                PurePosixPath(unquote(urlsplit(link["href"]).path)).name, dict(link.get("hashes", ())).get("sha256")
            )
            for link in links
            if link.get("rel") == "releasefile"
        ]

    async def upload(self, index: str, fields: Iterable[tuple[str, str]], path: Path, filename: str) -> bool:
        """Send a file; return False when the server had the very same. Raises :class:`Refused`."""
        if not filename.isprintable() or '"' in filename or "\\" in filename:
            raise Refused(f"{filename!a} is no file name of a distribution")  # nor may it end its header
        form = aiohttp.FormData(default_to_multipart=True, quote_fields=False)  # else "!" and "+" come as "%21", "%2B"
        for name, value in fields:
            form.add_field(name, value)
        file = await asyncio.to_thread(path.open, "rb")
        try:
            form.add_field("content", file, filename=filename, content_type="application/octet-stream")
            async with self._asking("POST", f"{index}/", data=form) as answer:
                if answer.status not in {_OK, _CREATED}:
                    raise Refused(await self._said(answer), answer.status)
                return "identical" not in (answer.reason or "").lower()
        finally:
            await asyncio.to_thread(file.close)

    async def download(self, url: str, path: Path) -> None:
        """Write what is at ``url``, one of this server's, to ``path``. Raises :class:`Refused`."""
        if not url.startswith(self._server):
            raise Refused(f"it lies elsewhere than at {self._server}")
        async with self._asking(
            "GET", url.removeprefix(self._server), headers={"Accept-Encoding": "identity"}
        ) as answer:
            if answer.status != _OK:
                raise Refused(await self._said(answer), answer.status)
            file = await asyncio.to_thread(path.open, "wb")
            try:
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    await asyncio.to_thread(file.write, chunk)
            finally:
                await asyncio.to_thread(file.close)

    async def settings(self, index: str) -> dict[str, Any] | None:
        """Return the settings of an index, None when it is not there. Raises :class:`Refused`."""
        return await self._look(f"{index}?no_projects=")

    async def has_user(self, user: str) -> bool:
        """Whether there is such a user. Raises :class:`Refused`."""
        return await self._look(user) is not None

    async def create_user(self, user: str, values: Mapping[str, str]) -> None:
        """Create a user; ``values`` has the password. Raises :class:`Refused`."""
        await self._do("PUT", user, dict(values))

    async def create_index(self, index: str, values: Mapping[str, Any]) -> None:
        """Create an index with settings. Raises :class:`Refused`."""
        await self._do("PUT", index, dict(values))

    async def change_index(self, index: str, changes: list[str]) -> None:
        """Change settings: ``key=value``, ``key+=value``, ``key-=value``. Raises :class:`Refused`."""
        await self._do("PATCH", index, changes)

    async def _look(self, path: str) -> dict[str, Any] | None:
        status, body = await self._json("GET", path)
        if status == _NOT_FOUND:
            return None
        result = body.get("result")
        if status != _OK or not isinstance(result, dict):
            raise _refusal(status, body, self._server + path)
        return result

    async def _do(self, method: str, path: str, content: object) -> None:
        status, body = await self._json(method, path, content)
        if status not in {_OK, _CREATED}:
            raise _refusal(status, body, self._server + path)

    async def _json(self, method: str, path: str, content: object = None) -> tuple[int, dict[str, Any]]:
        body = None if content is None else aiohttp.JsonPayload(content)
        async with self._asking(method, path, data=body, headers={"Accept": "application/json"}) as answer:
            try:
                found = await answer.json(content_type=None)
            except ValueError:  # a page for people: of an error, or of another server
                found = None
            return answer.status, found if isinstance(found, dict) else {}

    @asynccontextmanager
    async def _asking(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:  # noqa: ANN401 - aiohttp's
        url = URL(self._server + quote(path, safe="/+?=%"), encoded=True)
        try:
            async with self._session.request(method, url, allow_redirects=False, **more) as answer:
                yield answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Refused(nobody_answers(self._server, error)) from None

    async def _said(self, answer: aiohttp.ClientResponse) -> str:
        """Return a refusal in the server's words: the reason phrase (devpi), or a message in the body."""
        if answer.status == _UNAUTHORIZED:
            return "log in as a user who may upload here (401)"
        phrase = (answer.reason or "").strip()
        if answer.content_type == "application/json":
            body = await answer.json(content_type=None)
            phrase = str(body.get("message") or phrase) if isinstance(body, dict) else phrase
        return f"{phrase[:_LONGEST_TEXT] or 'no reason given'} ({answer.status})"


@asynccontextmanager
async def connect(
    server: str, certificate: Path | None, account: Account | None, connections: int
) -> AsyncIterator[IndexClient]:
    """Give a client of ``server`` (its URL, ``/`` at its end) that logs in with each call.

    ``certificate`` is the server's own, where it is known. Raises :class:`ConfigError` when it cannot be read.
    """
    # Sent with each call: no redirect is followed, and no URL outside the server is asked.
    headers = {} if account is None else {"Authorization": basic(account.user, account.password)}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENCE_SECONDS)
    trust = True if certificate is None else await asyncio.to_thread(tls.trusting, certificate)
    connector = aiohttp.TCPConnector(limit=connections, ssl=trust)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        yield IndexClient(session, server, account)


def _refusal(status: int, body: Mapping[str, Any], url: str) -> Refused:
    said = str(body.get("message") or "no reason given")[:_LONGEST_TEXT]
    return Refused(f"{url}: {said} ({status})", status)
