"""A data directory with a stage that takes uploads from anybody, uploads into it, and what is left of them."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teepi.data import Archive, StoredFile, StoredVersion, accounts, projects
from teepi.data.blobs import FILES, INCOMING
from teepi.data.database import NAME
from tests.support.clients import RawClient, fetch

if TYPE_CHECKING:
    import sqlite3

    from tests.support.clients import Answer
    from tests.support.wheels import Distribution

INDEX = "admin/dev"
_BOUNDARY = "teepi-tests"


def put_index(connection: sqlite3.Connection, name: str = INDEX, **values: Any) -> None:
    """Write a stage ``name`` and its user."""
    accounts.put_user(connection, name.partition("/")[0], None, "2026-01-01T00:00:00Z", {})
    accounts.put_index(connection, name, {"type": "stage", "bases": [], "acl_upload": [":ANONYMOUS:"], **values})


@cache
def _database(*, volatile: bool) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        archive = Archive(Path(directory))
        archive.open(0)
        archive.database.write_now(lambda connection: accounts.put_user(connection, "root", None, "", {}))
        archive.database.write_now(lambda connection: put_index(connection, volatile=volatile))
        archive.close_now()
        return (Path(directory) / NAME).read_bytes()


def prepare(root: Path, *, volatile: bool = True) -> None:
    """Make a data directory with the stage :data:`INDEX`, as a server leaves it that has stopped."""
    for directory in (root, root / FILES, root / INCOMING):
        directory.mkdir(mode=0o700, parents=True)
    (root / NAME).write_bytes(_database(volatile=volatile))
    for path in (root / NAME, root / "lock"):
        path.touch()
        path.chmod(0o600)


def row(content: bytes, filename: str, index: str = INDEX) -> StoredFile:
    """Return the row of a file of project ``demo``, version 1.0."""
    sha256 = hashlib.sha256(content).hexdigest()
    return StoredFile(
        0, index, "demo", "1", filename, sha256, len(content), "", "", "sdist", "", None, None, 0.0, "admin", None, []
    )


async def store(archive: Archive, content: bytes, filename: str, index: str = INDEX) -> str:
    """Keep a file as an upload does, without the checks; return its sha256."""
    incoming = archive.blobs.begin()
    incoming.write(content)
    incoming.finish()
    file = row(content, filename, index)

    def write(connection: sqlite3.Connection) -> None:
        projects.put_version(connection, StoredVersion(index, "demo", "1", "1.0", {}, time.time(), "admin"))
        projects.put_file(connection, file, None)

    try:
        await archive.keep(incoming, write)
    finally:
        incoming.abort()
    return file.sha256


def form(distribution: Distribution, project: str, version: str = "1.0") -> tuple[dict[str, str], bytes]:
    """Return headers and body of an upload, as twine sends them."""
    kind = "bdist_wheel" if distribution.filename.endswith(".whl") else "sdist"
    fields = {
        ":action": "file_upload", "name": project, "version": version, "metadata_version": "2.1", "filetype": kind,
        "pyversion": "py3" if kind == "bdist_wheel" else "source", "sha256_digest": distribution.sha256,
    }  # fmt: skip
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'form-data; name="content"; filename="{distribution.filename}"'
    parts.append(
        f"--{_BOUNDARY}\r\nContent-Disposition: {head}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        + distribution.content
        + f"\r\n--{_BOUNDARY}--\r\n".encode()
    )
    body = b"".join(parts)
    return {
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
        "Content-Length": str(len(body)),
    }, body


async def upload(address: tuple[str, int], distribution: Distribution, project: str, index: str = INDEX) -> Answer:
    """Upload version 1.0 of ``project``. Raises ConnectionEnd when there is no answer."""
    headers, body = form(distribution, project)
    async with await RawClient.connect(address) as client:
        await client.send("POST", f"/{index}/", {"Host": f"127.0.0.1:{address[1]}", **headers})
        await client.send_bytes(body)
        return await client.read_answer()


async def shown(address: tuple[str, int], project: str, index: str = INDEX) -> dict[str, str]:
    """Return the links of the page of ``project`` by file name; nothing when there is none."""
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    answer = await fetch(address, f"/{index}/+simple/{project}/", accept)
    assert answer.status in {200, 404}, answer
    if answer.status == 404:
        return {}
    return {file["filename"]: file["url"] for file in json.loads(answer.body)["files"]}


def left(root: Path) -> list[str]:
    """Return the names of everything below ``v1``."""
    return sorted(path.name for path in (root / "v1").rglob("*") if not path.is_dir())
