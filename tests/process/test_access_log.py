"""The access log of the real process: rotated, on stdout, and where it cannot be written."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import fetch
from tests.support.teepi import DidNotStart

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess


async def test_renamed_log_is_opened_anew_on_sighup_and_the_last_lines_are_written_at_the_end(
    make_process: MakeProcess, tmp_path: Path
) -> None:
    """No line is lost over it."""
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    teepi = await make_process(arguments=["--access-log", str(path)])
    assert (await fetch(teepi.address, "/healthz")).status == 200
    while not path.read_bytes():  # noqa: ASYNC110 - within a second
        await asyncio.sleep(0.01)
    path.rename(old)
    teepi.signal(signal.SIGHUP)
    await teepi.said("The settings were read again.")
    assert (await fetch(teepi.address, "/+status")).status == 200
    assert await teepi.terminate() == 0
    assert '"GET /healthz HTTP/1.1" 200 3 ' in old.read_text()
    assert '"GET /+status HTTP/1.1" 200 ' in path.read_text()
    assert old.read_text().count("\n") == path.read_text().count("\n") == 1


async def test_log_on_stdout_is_behind_the_hello(make_process: MakeProcess) -> None:
    """As containers want it."""
    teepi = await make_process(arguments=["--access-log", "-", "--access-log-format", "json"])
    assert (await fetch(teepi.address, "/healthz")).status == 200
    assert await teepi.terminate() == 0
    assert json.loads(teepi.stdout.splitlines()[-1])["target"] == "/healthz"


async def test_log_that_cannot_be_opened_is_one_sentence_and_no_start(
    make_process: MakeProcess, tmp_path: Path
) -> None:
    """Exit status 2, as with every wrong setting."""
    with pytest.raises(DidNotStart) as caught:
        await make_process(arguments=["--access-log", str(tmp_path / "no" / "log")])
    assert caught.value.exit_code == 2
    assert caught.value.stderr.count("\n") == 1
    assert "access_log: " in caught.value.stderr
