"""What several process tests do: look at the cache from outside, read some bytes and stop, ask for the status."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from tests.support.clients import RawClient, fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.teepi import TeepiProcess

WITHHELD = 64 * 1024
"""The end of what has arrived that nobody sees."""


def assert_names_hold(cache: Path) -> None:
    """Require what a name in ``files/`` promises, of every one."""
    for path in (cache / "v1" / "files" / "sha256").glob("*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


async def status(teepi: TeepiProcess) -> dict[str, Any]:
    """Return ``/+status``."""
    answer = await fetch(teepi.address, "/+status")
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def stopped_fetching(teepi: TeepiProcess) -> None:
    """Wait until nothing is in flight: a client has its bytes before the file is committed, or has failed to be."""
    while (await status(teepi))["in_flight"]:
        pass


async def begin(teepi: TeepiProcess, target: str, count: int) -> tuple[RawClient, bytes]:
    """Ask for ``target`` and read ``count`` bytes of the body, which have landed then; return the open client."""
    client = await RawClient.connect(teepi.address)
    await client.send("GET", target)
    head = await client.read_head()
    assert head.status == 200, head.raw
    return client, await client.read(count)


def read_only(path: Path) -> tuple[list[str | Path], list[str | Path]]:
    """Return the two commands that make ``path`` read-only in a namespace."""
    return ["mount", "--bind", path, path], ["mount", "-o", "remount,bind,ro", path]
