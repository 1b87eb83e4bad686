"""devpi's own clients, as their users type them: devpi-client and devpi-builder, unmodified."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.installers import Client
from tests.support.clients import fetch
from tests.support.wheels import sdist, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.installers import Shop
    from tests.conftest import MakeProcess
    from tests.support.teepi import TeepiProcess

pytestmark = pytest.mark.client

_SESSION = """
import contextlib, io, json, sys
from devpi.main import main

said = []
for line in json.loads(sys.argv[1]):
    output = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            code = main(["devpi", *line])
        except SystemExit as error:
            code = error.code
    said.append([code or 0, output.getvalue()])
print("SESSION" + json.dumps(said))
"""
"""Types one command after the other, in one process: each start of devpi-client takes most of a second."""


async def session(client: Client, *lines: str) -> list[tuple[int, str]]:
    """Run commands of devpi-client; return exit code and what is said of each."""
    output = await client.run("python", "-c", _SESSION, json.dumps([line.split() for line in lines]))
    found: list[Any] = json.loads(output.rpartition("SESSION")[2])
    return [(code, text) for code, text in found]


async def logged_in(client: Client, teepi: TeepiProcess, *more: str) -> list[str]:
    """Make the user ``admin`` with the index ``admin/dev`` over ``root/pypi``, and run ``more``; all must end well."""
    lines = (
        f"use {teepi.url}",
        "user -c admin password=somepassword",
        "login admin --password=somepassword",
        "index -c dev",
        "use admin/dev",
        *more,
    )
    said = await session(client, *lines)
    assert all(code == 0 for code, _ in said), "\n".join(
        f"$ devpi {line}\n{code} {text}" for line, (code, text) in zip(lines, said, strict=True)
    )
    return [text for _, text in said[5:]]


async def test_devpi_client_makes_indexes_uploads_lists_pushes_and_removes(
    make_process: MakeProcess, tmp_path: Path
) -> None:
    """devpi-protocol 2.1 to 2.11. The session that devpi's users know, typed by their own client."""
    client = Client("devpi", tmp_path / "home")
    client.fresh()
    teepi = await make_process()
    for built in (wheel("gamma", "0.1"), sdist("gamma", "0.1")):
        (client.home / built.filename).write_bytes(built.content)
    made, indexes, uploaded, listed, versions, data, pushed, there, identical, removed, left, off = await logged_in(
        client,
        teepi,
        "index -c mirror bases=root/pypi",
        "index -l",
        "upload gamma-0.1-py3-none-any.whl gamma-0.1.tar.gz",
        "list",
        "list gamma",
        "getjson gamma/0.1",
        "push gamma==0.1 admin/mirror",
        "list --index admin/mirror",
        "upload gamma-0.1-py3-none-any.whl",
        "remove -y gamma==0.1",
        "list",
        "logoff",
    )
    assert "bases=root/pypi" in made
    assert indexes.split() == ["admin/dev", "admin/mirror"]
    assert "file_upload of gamma-0.1.tar.gz" in uploaded
    assert "file_upload of gamma-0.1-py3-none-any.whl" in identical
    assert listed.split()[-1] == "gamma"
    assert f"{teepi.url}/admin/dev/+f/" in versions
    assert "gamma-0.1.tar.gz" in versions
    assert json.loads(data[data.index("{") :])["type"] == "versiondata"
    assert "200 store_releasefile admin/mirror/+f/" in " ".join(pushed.split()).replace("-> ", "")
    assert there.split()[-1] == "gamma"
    assert "gamma" in removed
    assert "gamma" not in left.replace("remove", "")
    assert all("WARN" not in text for text in (made, indexes, uploaded, listed, versions, pushed, removed, off))
    page = await fetch(teepi.address, "/admin/mirror/+simple/gamma/")
    assert page.body.count(b"<a ") == 2


@pytest.mark.parametrize("shop", ["json"], indirect=True)
async def test_devpi_builder_builds_once_and_pip_installs_the_result(
    make_process: MakeProcess, shop: Shop, tmp_path: Path
) -> None:
    """devpi-protocol 2.16. What has only an sdist becomes a wheel in the index; the second run builds nothing."""
    client = Client("devpi", tmp_path / "home")
    client.fresh()
    teepi = await make_process()
    await logged_in(client, teepi, "index bases=root/pypi")
    (client.home / "requirements.txt").write_text("teebuilt==3.0\nteebase==1.5\n")
    index = f"{teepi.url}/admin/dev"
    command = ["devpi-builder", "requirements.txt", index, "--user", "admin", "--password", "somepassword"]
    surroundings = {"PIP_INDEX_URL": f"{teepi.url}/root/pypi/+simple/", "NO_PROXY": "127.0.0.1"}
    await client.run(*command, **surroundings)
    page = await fetch(teepi.address, "/admin/dev/+simple/teebuilt/")
    assert b"teebuilt-3.0-py3-none-any.whl" in page.body
    shop.upstream.requests.clear()
    said = await client.run(*command, **surroundings)
    assert "Building" not in said
    assert not shop.fetched()
    await client.run(
        "pip",
        "install",
        "--no-cache-dir",
        "--target",
        client.target,
        "--only-binary=:all:",
        "-i",
        f"{index}/",
        "teetop",
    )
    assert await client.versions("teetop", "teebase", "teebuilt") == ["2.0", "1.5", "3.0"]
