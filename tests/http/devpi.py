"""A client that speaks to teepi as devpi's do: JSON, and credentials in X-Devpi-Auth."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.clients import RawClient, fetch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.teepi import Teepi
    from tests.support.wheels import Distribution

AGENT = "devpi-client/7.3.0 (py3.11.7; linux)"


class Reply(NamedTuple):
    """An answer of JSON."""

    status: int
    json: Any
    headers: Mapping[str, str]
    reason: str

    @property
    def message(self) -> str:
        """What clients show, where that is all that was said."""
        assert list(self.json) == ["message"], self.json
        return str(self.json["message"])

    @property
    def result(self) -> Any:
        """What clients read."""
        return self.json["result"]


def basic(user: str, secret: str) -> str:
    """Return user and secret as both headers have them."""
    return base64.b64encode(f"{user}:{secret}".encode()).decode()


@dataclass
class Devpi:
    """A session of devpi-client's, of whoever has logged in."""

    teepi: Teepi
    headers: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send JSON, or bytes as they are; every answer is what devpi-client can read."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = {"User-Agent": AGENT, "Accept": "application/json", "Content-Type": "application/json", **self.headers}
        sent |= {"Content-Length": str(len(content))} if content else {}
        async with await RawClient.connect(self.teepi.address) as client:
            await client.send(method, path, sent | dict(headers or {}))
            await client.send_bytes(content)
            answer = await client.read_answer()
        assert answer.headers["content-type"] == "application/json", answer.body
        assert answer.headers["x-devpi-api-version"] == "2"
        assert not (answer.status == 401 and "location" in answer.headers)
        return Reply(answer.status, json.loads(answer.body), answer.headers, answer.head.reason)

    async def get(self, path: str) -> Any:
        """Return the result of a GET that succeeds."""
        reply = await self.call("GET", path)
        assert reply.status == 200, reply
        return reply.result

    async def put(self, path: str, body: Any = None) -> Any:
        """Make a user or an index, and return what it is."""
        reply = await self.call("PUT", path, body or {})
        assert reply.status in {200, 201}, reply
        return reply.result

    async def patch(self, path: str, body: Any) -> Any:
        """Change an index, and return what it is."""
        reply = await self.call("PATCH", path, body)
        assert reply.status == 200, reply
        return reply.result

    def using(self, user: str, secret: str) -> Devpi:
        """Return a session with these credentials, whatever they are."""
        return Devpi(self.teepi, {"X-Devpi-Auth": basic(user, secret)})

    async def login(self, user: str, password: str) -> Devpi:
        """Log in, and return the session of that user."""
        reply = await self.call("POST", "/+login", {"user": user, "password": password})
        assert reply.status == 200, reply
        return self.using(user, reply.result["password"])

    async def who(self) -> str | None:
        """Return who the server says is asking."""
        state, user, groups = (await self.get("/+api"))["authstatus"]
        assert (state, groups) == (("ok" if user else "noauth"), [])
        return user or None

    async def user(self, name: str, password: str = "pw") -> Devpi:  # noqa: S107 - of a test
        """Make a user and return his session."""
        await Devpi(self.teepi).put(f"/{name}", {"password": password})
        return await Devpi(self.teepi).login(name, password)

    async def fetch(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET as an installer does, with the credentials of this session."""
        return await fetch(self.teepi.address, path, {**self.headers, **(headers or {})})

    async def upload(self, index: str, file: Distribution, name: str, version: str = "1.0") -> Answer:
        """Upload a wheel as twine does."""
        fields = {":action": "file_upload", "name": name, "version": version, "metadata_version": "2.1"}
        fields |= {"filetype": "bdist_wheel", "pyversion": "py3", "sha256_digest": file.sha256}
        parts = [f'--b\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{fields[key]}\r\n' for key in fields]
        last = f'--b\r\nContent-Disposition: form-data; name="content"; filename="{file.filename}"\r\n\r\n'
        body = "".join([*parts, last]).encode() + file.content + b"\r\n--b--\r\n"
        async with await RawClient.connect(self.teepi.address) as client:
            kind = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(len(body))}
            await client.send("POST", f"/{index}/", {**self.headers, **kind})
            await client.send_bytes(body)
            return await client.read_answer()


async def fresh(make_teepi: MakeTeepi, **settings: Any) -> tuple[Devpi, Devpi]:
    """Start teepi as a fresh devpi is, its built-in index and an empty root; return nobody's session and root's."""
    teepi = await make_teepi(**{"has_built_in": True, "insecure_empty_root": True, **settings})
    nobody = Devpi(teepi)
    return nobody, await nobody.login("root", "")
