"""The real process's log: as JSON, and for systemd's journal."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tests.support.clients import fetch

if TYPE_CHECKING:
    from tests.conftest import MakeProcess
    from tests.process.conftest import Publish


async def test_log_as_json_is_json_in_every_line(make_process: MakeProcess, publish: Publish) -> None:
    """Downloads, refusals and what aiohttp says of a request that is none."""
    file = publish(100_000)
    teepi = await make_process(arguments=["--log-format", "json"])
    await fetch(teepi.address, "/simple/demo/")
    await fetch(teepi.address, file.link, {"X-Request-ID": "ci-7"})
    await teepi.said("1 fetch")
    await teepi.terminate()
    lines = [json.loads(line) for line in teepi.stderr.splitlines()]
    [told] = [line for line in lines if "1 fetch" in line["message"]]
    assert (told["level"], told["logger"], told["request_id"]) == ("INFO", "teepi.files", "ci-7")
    assert told["message"].startswith("demo-1.0.tar.gz 100 kB, 1 fetch, 1 client, ")


async def test_log_in_a_journal_has_priorities_and_no_time(make_process: MakeProcess, publish: Publish) -> None:
    """``$JOURNAL_STREAM`` names the device and inode of stderr (systemd.exec(5)); here a pipe that the shell asks."""
    file = publish(100_000)
    script = 'JOURNAL_STREAM="$(stat -Lc %d:%i /dev/stderr)" exec "$@"'
    teepi = await make_process(prefix=["sh", "-c", script, "sh"])
    await fetch(teepi.address, "/simple/demo/")
    await fetch(teepi.address, file.link)
    await teepi.said("1 fetch")
    await teepi.terminate()
    assert re.fullmatch(r"(<6>INFO [^\n]+ \[[0-9a-f]{8}-\d+\]\n)+", teepi.stderr), teepi.stderr
