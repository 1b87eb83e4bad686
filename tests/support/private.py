"""A user of private indexes on the raw client: makes indexes, uploads as twine does, reads devpi's JSON."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.support.clients import RawClient, fetch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.support.clients import Answer
    from tests.support.teepi import Teepi
    from tests.support.wheels import Distribution

BOUNDARY = "5f2a9c0d7e"
JSON = {"Accept": "application/json"}
PAGE = {"Accept": "application/vnd.pypi.simple.v1+json"}
HTML = {"Accept": "text/html"}

Fields = "Iterable[tuple[str, str]]"


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of HTTP Basic."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def form(
    fields: Iterable[tuple[str, str]], filename: str | None, content: bytes = b"", *, part: str = "content"
) -> bytes:
    """Return a multipart form; the file is where its field ``part`` (with an empty value) stands, else the last."""
    pieces: list[bytes] = []

    def put_file() -> None:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{part}"; filename="{filename}"\r\n\r\n'
        pieces.append(head.encode() + content + b"\r\n")

    given = list(fields)
    for name, value in given:
        if name == part:
            put_file()
        else:
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
            pieces.append((head + value + "\r\n").encode())
    if filename is not None and all(name != part for name, _ in given):
        put_file()
    return b"".join(pieces) + f"--{BOUNDARY}--\r\n".encode()


def fields_of(built: Distribution, *, action: str = "file_upload", **more: str) -> list[tuple[str, str]]:
    """Return the fields that go with a file; ``more`` overrides them, an empty value leaves one out."""
    said = dict(line.split(": ", 1) for line in built.metadata.decode().splitlines() if ": " in line)
    filetype = "bdist_wheel" if built.filename.endswith(".whl") else "sdist"
    fields = {
        ":action": action,
        "protocol_version": "1",
        "metadata_version": "2.1",
        "name": said["Name"],
        "version": said["Version"],
        "filetype": filetype,
        "pyversion": "py3" if filetype == "bdist_wheel" else "source",
        **more,
    }
    return [(name, value) for name, value in fields.items() if value]


@dataclass
class Owner:
    """root of a teepi that lets it in with an empty password, or another user."""

    teepi: Teepi
    auth: Mapping[str, str] = field(default_factory=lambda: basic("root", ""))

    async def ask(self, method: str, path: str, given: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send JSON, or nothing, as devpi's clients do."""
        body = b"" if given is None else json.dumps(given).encode()
        sent = {**self.auth, **JSON, "Content-Length": str(len(body)), "Content-Type": "application/json"}
        async with await RawClient.connect(self.teepi.address) as client:
            await client.send(method, path, {**sent, **(headers or {})})
            await client.send_bytes(body)
            return await client.read_answer(method)

    async def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        """Get something, without logging in."""
        return await fetch(self.teepi.address, path, headers, method)

    async def json(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """Return the JSON that is at ``path``."""
        answer = await self.get(path, headers or JSON)
        assert answer.status == 200, (answer.head, answer.body)
        return json.loads(answer.body)

    async def index(self, name: str, **settings: Any) -> str:
        """Make an index; return its name."""
        answer = await self.ask("PUT", f"/{name}", settings)
        assert answer.status in {200, 201}, answer.body
        return name

    async def page(self, index: str, project: str) -> dict[str, Any]:
        """Return the JSON page of a project."""
        found: dict[str, Any] = await self.json(f"/{index}/+simple/{project}/", PAGE)
        return found

    async def names(self, index: str, project: str) -> list[str]:
        """Return the names of the files on the page of a project."""
        return [file["filename"] for file in (await self.page(index, project))["files"]]

    async def post(self, index: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a finished form."""
        sent = {
            **self.auth,
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }
        async with await RawClient.connect(self.teepi.address) as client:
            await client.send("POST", f"/{index}/", sent)
            await client.send_bytes(body)
            return await client.read_answer()

    async def upload(
        self, index: str, built: Distribution, headers: Mapping[str, str] | None = None, **more: str
    ) -> Answer:
        """Upload a file."""
        return await self.post(index, form(fields_of(built, **more), built.filename, built.content), headers)

    async def put(self, index: str, *built: Distribution) -> None:
        """Upload files that are taken."""
        for each in built:
            answer = await self.upload(index, each)
            assert (answer.status, answer.body) == (200, b""), answer.head

    def path(self, index: str, built: Distribution) -> str:
        """Return where an uploaded file is."""
        sha256 = built.sha256
        return f"/{index}/+f/{sha256[:3]}/{sha256[3:16]}/{quote(built.filename)}"

    @property
    def left(self) -> list[str]:
        """What lies in the data directory beside the database: files by digest, and what is arriving."""
        root = self.teepi.settings.data_dir / "v1"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
