"""The catalogue deleted, damaged, of another schema, read-only (fault 4): served all the same, and rebuilt."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.process.tools import read_only, status
from tests.support.clients import fetch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.process.conftest import Mounted, Publish, Published
    from tests.support.teepi import TeepiProcess
    from tests.support.upstream import Upstream

pytestmark = pytest.mark.fault


def delete(path: Path) -> None:
    """Take it away."""
    path.unlink()


def garbage(path: Path) -> None:
    """Put something else under its name."""
    path.write_bytes(b"this is no database\n" * 1000)


def cut(path: Path) -> None:
    """Leave the first half of it."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def newer(path: Path) -> None:
    """Leave it as a later teepi does."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


def directory(path: Path) -> None:
    """Put a directory in its place."""
    path.unlink()
    path.mkdir()


async def filled(make_process: MakeProcess, files: list[Published]) -> None:
    """Fetch ``files`` and stop."""
    teepi = await make_process()
    for file in files:
        assert (await fetch(teepi.address, file.link)).body == file.content
    assert await teepi.terminate() == 0


async def assert_served(teepi: TeepiProcess, upstream: Upstream, files: list[Published]) -> None:
    """Pages and files come as before, and upstream is asked nothing."""
    requests = len(upstream.requests)
    for file in files:
        answer = await fetch(teepi.address, file.link)
        assert (answer.status, answer.body == file.content) == (200, True)
        assert (await fetch(teepi.address, f"/simple/{file.path.split('/')[2]}/")).status == 200
    assert len(upstream.requests) == requests


@pytest.mark.parametrize("harm", [delete, garbage, cut, newer])
async def test_catalogue_lost_is_rebuilt_and_everything_stays_installable_offline(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """Served offline from the first request on; afterwards it is whole again, so a restart rebuilds nothing."""
    files = [publish(100_000, "one"), publish(200_000, "other", sha256=False)]
    await filled(make_process, files)
    harm(tmp_path / "cache" / "catalog.sqlite3")
    teepi = await make_process(arguments=["--offline"])
    await assert_served(teepi, upstream, files)
    await teepi.said("The catalogue was rebuilt from 2 pages and 2 files.")
    found = await status(teepi)
    assert (found["cache"], found["problems"]) == ({"files": 2, "bytes": 300_000}, [])
    assert await teepi.terminate() == 0
    assert "Traceback" not in teepi.stderr
    teepi = await make_process(arguments=["--offline"])
    await assert_served(teepi, upstream, files)
    assert await teepi.terminate() == 0
    assert teepi.stderr == ""


async def test_catalogue_that_cannot_be_opened_is_kept_in_memory(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path
) -> None:
    """A directory in its place: served all the same, rebuilt in memory, the problem is said once and shown."""
    files = [publish(100_000, "one"), publish(200_000, "other", sha256=False)]
    await filled(make_process, files)
    directory(tmp_path / "cache" / "catalog.sqlite3")
    teepi = await make_process()
    await teepi.said("The catalogue was rebuilt from 2 pages and 2 files.")
    await assert_served(teepi, upstream, files)
    new = publish(50_000, "new")
    assert (await fetch(teepi.address, new.link)).body == new.content
    [problem] = (await status(teepi))["problems"]
    assert await teepi.terminate() == 0
    assert teepi.stderr.count(problem) == 1
    assert "Traceback" not in teepi.stderr
    assert new.cached.read_bytes() == new.content


async def test_catalogue_on_a_read_only_mount_serves_and_takes_new_files(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path, mounted: Mounted
) -> None:
    """The database alone is read-only: what it knows is used, what is new is kept in memory."""
    files = [publish(100_000, "one"), publish(200_000, "other", sha256=False)]
    await filled(make_process, files)
    teepi = await make_process(prefix=mounted(*read_only(tmp_path / "cache" / "catalog.sqlite3")))
    await assert_served(teepi, upstream, files)
    new = publish(50_000, "new")
    for _ in range(2):
        assert (await fetch(teepi.address, new.link)).body == new.content
    assert upstream.count("GET", new.path) == 1
    [problem] = (await status(teepi))["problems"]
    assert "cannot be written" in problem
    assert await teepi.terminate() == 0
    assert "Traceback" not in teepi.stderr
    teepi = await make_process(arguments=["--offline"])
    await assert_served(teepi, upstream, [*files, new])


@pytest.mark.parametrize("fetched_at", [None, 0.0])
async def test_catalogue_that_forgot_a_page_learns_it_again_from_disk(
    make_process: MakeProcess,
    publish: Publish,
    upstream: Upstream,
    tmp_path: Path,
    fetched_at: float | None,
) -> None:
    """The page on disk outlived what the catalogue knew: fresh or old, it tells where the file is, and asks nobody."""
    file = publish(100_000)
    await filled(make_process, [file])
    with closing(sqlite3.connect(tmp_path / "cache" / "catalog.sqlite3")) as database:
        database.execute("DELETE FROM known")
        database.commit()
    if fetched_at is not None:
        [page] = (tmp_path / "cache" / "v1" / "pages").rglob("*.page")
        _, head, body = page.read_bytes().split(b"\n", 2)
        data = json.dumps(json.loads(head) | {"fetched_at": fetched_at}).encode() + b"\n" + body
        page.write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
    teepi = await make_process()
    answer = await fetch(teepi.address, file.link)
    assert (answer.status, answer.body == file.content) == (200, True)
    assert [request.status for request in upstream.seen("/simple/demo/")] == [200]
    assert upstream.count("GET", file.path) == 1
