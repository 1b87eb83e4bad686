"""A data directory that cannot be written, is damaged, of a newer teepi, or another's (faults 4, 5, 8)."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest

from teepi import cli
from tests.process.tools import read_only, status
from tests.support.clients import RawClient, fetch
from tests.support.data_directory import INDEX, prepare, shown, upload
from tests.support.teepi import DidNotStart, TeepiProcess
from tests.support.wheels import sdist

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.process.conftest import Mounted, Publish
    from tests.support.upstream import Upstream

pytestmark = pytest.mark.fault

FILE = sdist("private")


async def put(teepi: TeepiProcess, path: str, content: object) -> tuple[int, str]:
    """Send JSON; return status and message."""
    body = json.dumps(content).encode()
    headers = {"Host": f"127.0.0.1:{teepi.address[1]}", "Accept": "application/json", "Content-Length": str(len(body))}
    async with await RawClient.connect(teepi.address) as client:
        await client.send("PUT", path, {"Content-Type": "application/json", **headers})
        await client.send_bytes(body)
        answer = await client.read_answer()
    return answer.status, answer.body.decode()


async def test_data_directory_that_cannot_be_made_keeps_no_mirror_from_starting(
    make_process: MakeProcess, publish: Publish, tmp_path: Path
) -> None:
    """Said once, shown as a problem; the cache works, and what is private is 503 with that sentence, not 404."""
    file = publish(200_000)
    (tmp_path / "taken").write_bytes(b"a file")
    data = tmp_path / "taken" / "data"
    teepi = await make_process(arguments=["--data-dir", str(data)])
    sentence = f"The data directory {data} cannot be made or written (Not a directory): teepi has no private indexes"
    for _ in range(2):
        assert (await fetch(teepi.address, file.link)).body == file.content
    assert (await fetch(teepi.address, "/root/pypi/+simple/demo/")).status == 200
    found = await status(teepi)
    assert found["counters"]["hits"] == 1
    assert [each.startswith(sentence) for each in found["problems"]] == [True]
    ready = await fetch(teepi.address, "/readyz")
    assert (ready.status, json.loads(ready.body)["status"]) == (200, "degraded")
    for target in (f"/{INDEX}/+simple/private/", f"/{INDEX}/+api", "/admin"):
        answer = await fetch(teepi.address, target, {"Accept": "application/json"})
        assert (answer.status, sentence in answer.body.decode()) == (503, True), target
        assert "retry-after" not in answer.headers
    refused = [await put(teepi, "/admin", {"password": "secret"}), await put(teepi, f"/{INDEX}", {})]
    answer = await upload(teepi.address, FILE, "private")
    refused.append((answer.status, answer.body.decode()))
    assert [(code, sentence in said) for code, said in refused] == [(503, True)] * 3
    assert await teepi.terminate() == 0
    assert teepi.stderr.count(sentence) == 1
    assert "Traceback" not in teepi.stderr


async def test_data_directory_that_is_read_only_is_read(
    make_process: MakeProcess, publish: Publish, tmp_path: Path, mounted: Mounted
) -> None:
    """As after a disk's error: what was uploaded before the crash is served, an upload is 503, nothing changes."""
    file = publish(1000)
    root = tmp_path / "data"
    prepare(root)
    teepi = await make_process()
    assert (await upload(teepi.address, FILE, "private")).status == 200
    await teepi.kill9()
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    teepi = await make_process(prefix=mounted(*read_only(root)))
    links = await shown(teepi.address, "private")
    answer = await fetch(teepi.address, urljoin(f"/{INDEX}/+simple/private/", links[FILE.filename]))
    assert answer.body == FILE.content
    assert (await fetch(teepi.address, file.link)).body == file.content
    assert (await fetch(teepi.address, "/admin/other/+api")).status == 404
    answer = await upload(teepi.address, sdist("other"), "other")
    assert (answer.status, "nothing was stored" in answer.body.decode()) == (503, True)
    code, said = await put(teepi, "/bob", {"password": "secret"})
    assert code == 503
    sentence = f"The data directory {root} cannot be written (Read-only file system): private indexes can be read"
    assert sentence in said
    assert [each.startswith(sentence) for each in (await status(teepi))["problems"]] == [True]
    assert await teepi.terminate() == 0
    assert teepi.stderr.count(sentence) == 1
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


async def test_data_directory_on_a_full_disk_is_read(
    make_process: MakeProcess, tmp_path: Path, mounted: Mounted
) -> None:
    """Not even the log of the database finds room at the start: pages are served, an upload is 503."""
    root, saved = tmp_path / "data", tmp_path / "saved"
    prepare(root)
    teepi = await make_process()
    assert (await upload(teepi.address, FILE, "private")).status == 200
    assert await teepi.terminate() == 0
    root.rename(saved)
    root.mkdir()
    fill = ["sh", "-c", f"cp -a {saved}/. {root} && cat /dev/zero >{root}/ballast 2>{root}.log || true"]
    teepi = await make_process(prefix=mounted(["mount", "-t", "tmpfs", "-o", "size=256k", "full", root], fill))
    assert list(await shown(teepi.address, "private")) == [FILE.filename]
    assert (await upload(teepi.address, sdist("other"), "other")).status == 503
    assert "cannot be written" in teepi.stderr
    assert await teepi.terminate() == 0
    assert "Traceback" not in teepi.stderr


@pytest.mark.parametrize("harm", ["newer", "damaged"])
async def test_data_directory_that_may_have_private_indexes_and_cannot_be_used_is_refused(
    make_process: MakeProcess, tmp_path: Path, harm: str
) -> None:
    """Exit status 2 and one sentence; the database is neither touched nor set aside."""
    root = tmp_path / "data"
    prepare(root)
    path = root / "teepi.sqlite3"
    if harm == "newer":
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA user_version = 99")
    else:
        path.write_bytes(b"this is no database\n" * 1000)
    before = path.read_bytes()
    with pytest.raises(DidNotStart) as caught:
        await make_process()
    assert caught.value.exit_code == 2
    assert re.fullmatch(r"teepi: [^\n]+nothing was touched; [^\n]+\n", caught.value.stderr), caught.value
    assert path.read_bytes() == before


async def test_data_directory_of_another_process_is_waited_for(
    make_process: MakeProcess, upstream: Upstream, tmp_path: Path
) -> None:
    """With a cache of its own: a second one leaves at SIGTERM at once, a third takes over when the first ends."""
    first = await make_process()
    own = ["--cache-dir", str(tmp_path / "another")]
    said = f"Another teepi uses {tmp_path / 'data' / 'lock'}; waiting up to 15 s for it to leave."
    others = [TeepiProcess(tmp_path, upstream.index_url, arguments=own) for _ in range(2)]
    try:
        starting = asyncio.create_task(others[0].start())
        await others[0].said(said)
        began = time.monotonic()
        assert await others[0].terminate() == 0
        assert time.monotonic() - began < 5
        await asyncio.gather(starting, return_exceptions=True)
        starting = asyncio.create_task(others[1].start())
        await others[1].said(said)
        assert await first.terminate() == 0
        began = time.monotonic()
        await starting
        assert time.monotonic() - began < 5
        assert await others[1].terminate() == 0
        assert "Traceback" not in "".join(each.stderr for each in others)
    finally:
        for each in others:
            await each.end()


@pytest.mark.usefixtures("xdg_home")
async def test_data_directory_outlives_the_cache(make_process: MakeProcess, upstream: Upstream, tmp_path: Path) -> None:
    """Neither ``teepi cache purge --all`` nor ``prune`` nor an emptied cache directory touches an upload."""
    prepare(tmp_path / "data")
    teepi = await make_process()
    assert (await upload(teepi.address, FILE, "private")).status == 200
    places = ["--cache-dir", str(tmp_path / "cache"), "--data-dir", str(tmp_path / "data")]
    for command in (["purge", "--all"], ["prune"], ["purge", "private"]):
        assert await asyncio.to_thread(cli.main, ["cache", *command, *places]) == 0
    assert await teepi.terminate() == 0
    assert await asyncio.to_thread(cli.main, ["cache", "purge", "--all", *places]) == 0
    for path in sorted((tmp_path / "cache").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    await upstream.stop()
    teepi = await make_process()
    links = await shown(teepi.address, "private")
    answer = await fetch(teepi.address, urljoin(f"/{INDEX}/+simple/private/", links[FILE.filename]))
    assert answer.body == FILE.content
