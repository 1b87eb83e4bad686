"""SIGHUP at the real process."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from tests.support.clients import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess


async def test_sighup_reads_the_settings_again_and_a_wrong_one_changes_nothing(
    make_process: MakeProcess, tmp_path: Path
) -> None:
    """What is wrong is named by file and line, and teepi goes on as it was."""
    file = tmp_path / "some.toml"
    file.write_text("offline = false\n")
    teepi = await make_process(arguments=["--config", str(file)])
    file.write_text("\noffline = 3\n")
    teepi.signal(signal.SIGHUP)
    await teepi.said(f"The settings stay as they were: {file}, line 2: offline = 3 has the wrong type")
    assert (await fetch(teepi.address, "/simple/none/")).status == 404
    file.write_text('offline = true\nlisten = "127.0.0.1:1"\n')  # the flag goes before the key: nothing to restart for
    teepi.signal(signal.SIGHUP)
    await teepi.said("The settings were read again.")
    assert (await fetch(teepi.address, "/simple/none/")).status == 503
    assert await teepi.terminate() == 0


ON_A_TERMINAL = """
import os, sys
leader, follower = os.openpty()
os.set_inheritable(leader, True)
os.dup2(follower, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


async def test_sighup_with_a_terminal_on_stdin_ends_the_server_and_says_why(make_process: MakeProcess) -> None:
    """As when that terminal is closed; who wants a reload is told how."""
    teepi = await make_process(prefix=[sys.executable, "-c", ON_A_TERMINAL])
    teepi.signal(signal.SIGHUP)
    assert await teepi.wait() == 0
    assert "SIGHUP ends teepi, since its standard input is a terminal" in teepi.stderr
    assert "The settings were read again" not in teepi.stderr


async def test_sighup_names_what_needs_a_restart_by_its_keys(make_process: MakeProcess, tmp_path: Path) -> None:
    """As they stand in the file."""
    file = tmp_path / "some.toml"
    file.write_text("")
    teepi = await make_process(arguments=["--config", str(file)])
    file.write_text("drain = 7\nmax_age_unused = 3\npatience = 1\n")
    teepi.signal(signal.SIGHUP)
    await teepi.said("Only a restart brings a new max_age_unused, patience, drain.")
    assert await teepi.terminate() == 0
