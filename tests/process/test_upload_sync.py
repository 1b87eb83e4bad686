"""What the disk is told of an upload, and in which order (fault 2), and what follows when it says no (faults 3, 4)."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from teepi.data.inspection import inspect_directory
from tests.process import syscalls
from tests.process.tools import status
from tests.support.data_directory import left, prepare, shown, upload
from tests.support.wheels import sdist

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.process.conftest import Strace

pytestmark = pytest.mark.fault

FILE = sdist("demo")
OTHER = sdist("other")


async def test_upload_is_answered_once_all_of_it_is_on_disk(
    make_process: MakeProcess, tmp_path: Path, strace: Strace
) -> None:
    """The file's sync, its name, the directory's sync, the commit of the rows with its sync, the answer: in this order.

    The directories are made on the way, each durable, too.
    """
    root = tmp_path / "data"
    prepare(root)
    shutil.rmtree(root / "v1")
    teepi = await make_process(prefix=strace(trace=syscalls.TRACED))
    assert (await upload(teepi.address, FILE, "demo")).status == 200
    assert await teepi.terminate() == 0
    calls = syscalls.read(strace.output.read_text())
    assert syscalls.faults(calls, str(root)) == []
    blob = str(root / "v1" / "files" / FILE.sha256[:2] / FILE.sha256)
    [named] = [call for call in calls if call.name.startswith("rename") and call.paths[-1] == blob]
    syncs = [call for call in calls if call.name in {"fsync", "fdatasync"} and call.ok]
    shelf = next(call for call in syncs if f"{call.descriptor_path}/{FILE.sha256}" == blob and call.began > named.ended)
    log = [call for call in calls if call.descriptor_path == str(root / "teepi.sqlite3-wal")]
    rows = next(call for call in log if call.name == "pwrite64")
    answer = next(call for call in calls if call.name == "write" and '"HTTP/1.1 200 OK' in call.arguments)
    commit = [call for call in log if call.name == "fdatasync" and call.ended < answer.began][-1]
    written = [call for call in log if call.name == "pwrite64" and call.ended < answer.began][-1]
    assert named.ended < shelf.began <= shelf.ended < rows.began
    assert written.ended < commit.began <= commit.ended < answer.began


@pytest.mark.parametrize(
    ("call", "when", "refusal", "said"),
    [
        ("fdatasync", "2", "EIO", "The database of teepi's data directory failed (disk I/O error); try again later."),
        ("pwrite64", "3+", "ENOSPC", "The database of teepi's data directory failed (database or disk is full)"),
    ],
)
async def test_upload_whose_rows_are_refused_is_not_there_and_the_server_goes_on(
    make_process: MakeProcess, tmp_path: Path, strace: Strace, call: str, when: str, refusal: str, said: str
) -> None:
    """503 with the sentence, which is shown until an upload is kept; nothing on the page, sound after a restart."""
    root = tmp_path / "data"
    prepare(root)
    inject = ["-e", f"inject={call}:error={refusal}:when={when}"]
    teepi = await make_process(prefix=strace(*inject, trace=call, only=root / "teepi.sqlite3-wal"))
    answer = await upload(teepi.address, FILE, "demo")
    assert answer.status == 503
    assert said in answer.body.decode()
    assert await shown(teepi.address, "demo") == {}
    assert [said in each for each in (await status(teepi))["problems"]] == [True]
    if "+" not in when:
        assert (await upload(teepi.address, OTHER, "other")).status == 200
        assert (await status(teepi))["problems"] == []
    await teepi.kill9()
    teepi = await make_process()
    links = {**await shown(teepi.address, "demo"), **await shown(teepi.address, "other")}
    report = await asyncio.to_thread(inspect_directory, root)
    assert (report.problems, report.notes) == ([], [])
    assert len(left(root)) == len(links) == (0 if "+" in when else 1)
    assert "Traceback" not in teepi.stderr
