"""SIGKILL between any two steps of an upload (fault 1): it is there whole or not at all."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest

from teepi.data.inspection import inspect_directory
from tests.support.clients import ConnectionEnd, fetch
from tests.support.data_directory import INDEX, left, prepare, shown, upload
from tests.support.wheels import sdist

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.process.conftest import Strace

pytestmark = pytest.mark.fault

FILE = sdist("demo")
SHELF = f"v1/files/{FILE.sha256[:2]}"
LOG = "teepi.sqlite3-wal"


@pytest.mark.parametrize(
    ("call", "when", "path", "is_there"),
    [
        ("mkdir", 1, SHELF, False),  # synced, under its first name
        ("rename", 1, None, False),  # the only one of this process: strace looks at the first path alone
        ("fsync", 1, SHELF, False),  # named
        ("pwrite64", 1, LOG, False),  # named for good, no row
        ("pwrite64", 11, LOG, False),  # all of the rows but the last page
        ("fdatasync", 2, LOG, True),  # a kill loses nothing of what was written; only a power cut does
    ],
)
async def test_upload_killed_at_a_step_is_there_whole_or_not_at_all(
    make_process: MakeProcess, tmp_path: Path, strace: Strace, call: str, when: int, path: str | None, *, is_there: bool
) -> None:
    """No answer; after the restart page, bytes and rows agree, nothing is left over, and the next upload is taken."""
    root = tmp_path / "data"
    prepare(root)
    kill = ["-e", f"inject={call}:signal=KILL:when={when}"]
    teepi = await make_process(prefix=strace(*kill, trace=call, only=None if path is None else root / path))
    with pytest.raises((ConnectionEnd, ConnectionError)):
        await upload(teepi.address, FILE, "demo")
    assert await teepi.wait() == -signal.SIGKILL
    teepi = await make_process()
    links = await shown(teepi.address, "demo")
    assert (list(links), left(root)) == (([FILE.filename], [FILE.sha256]) if is_there else ([], []))
    if not is_there:
        assert (await upload(teepi.address, FILE, "demo")).status == 200
        links = await shown(teepi.address, "demo")
    answer = await fetch(teepi.address, urljoin(f"/{INDEX}/+simple/demo/", links[FILE.filename]))
    assert answer.body == FILE.content
    report = await asyncio.to_thread(inspect_directory, root)
    assert (report.files, report.problems, report.notes) == (1, [], [])
