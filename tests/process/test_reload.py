"""SIGHUP at the real process."""

from __future__ import annotations

import signal
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
