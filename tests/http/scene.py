"""One file of one project on the scripted upstream, with teepi before it: where most tests of files begin."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from teepi.limits import Limits
from tests.support.clients import RawClient, fetch
from tests.support.faults import Fault
from tests.support.upstream import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from teepi.download import Download
    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.exchange import At, Line
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

WITHHELD = Limits().withheld_bytes

CALM = replace(
    Limits(), resume_waits_seconds=tuple(wait / 100 for wait in Limits().resume_waits_seconds), fin_wait_seconds=0.2
)
"""The real limits, so that a gate may be held for seconds, with short waits between the tries of a resume."""

IMPATIENT = replace(CALM, silence_seconds=0.15, resume_first_byte_seconds=0.15, first_byte_seconds=0.15)
"""For an upstream that hangs."""

FILENAME = "demo-1.0-py3-none-any.whl"


class Held(Fault):
    """One answer alone that stands at a gate (``Upstream.gate`` holds all of a path)."""

    def __init__(self, at: At) -> None:
        """Stand at byte ``at``, or before the head."""
        self.at = at
        self.gate = Gate(at)

    async def strike(self, line: Line) -> None:
        """Wait until the gate is open."""
        await self.gate.strike(line)

    def open(self) -> None:
        """Let it pass."""
        self.gate.open()


@dataclass
class Scene:
    """teepi, its upstream, and one file."""

    upstream: Upstream
    teepi: Teepi
    content: bytes
    path: str
    """At the upstream."""
    target: str
    """At teepi."""

    async def get(self, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        """Ask teepi for the file on a connection of its own."""
        return await fetch(self.teepi.address, self.target, headers, method)

    async def connect(self, headers: Mapping[str, str] | None = None, **options: Any) -> RawClient:
        """Ask teepi for the file and leave the answer to the caller."""
        client = await RawClient.connect(self.teepi.address, **options)
        await client.send("GET", self.target, headers)
        return client

    @property
    def gets(self) -> int:
        """How often upstream was asked for the file."""
        return self.upstream.count("GET", self.path)

    @property
    def heads(self) -> int:
        """How often upstream was asked what the file is like."""
        return self.upstream.count("HEAD", self.path)

    @property
    def ranges(self) -> list[str | None]:
        """Range of each GET that upstream saw."""
        return self.upstream.ranges(self.path)

    @property
    def sha256(self) -> str:
        """Digest of the content in hex."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def downloads(self) -> list[Download]:
        """What is in flight."""
        return list(self.teepi.server.registry)

    async def download(self) -> Download:
        """Wait for the one download in flight."""
        await until(lambda: len(self.downloads) == 1)
        return self.downloads[0]

    async def landed(self, count: int) -> Download:
        """Wait until ``count`` bytes have landed in the download in flight."""
        download = await self.download()
        await until(lambda: download.arrived >= count)
        return download

    async def settled(self) -> None:
        """Wait until nothing is in flight."""
        await until(lambda: not self.downloads)

    @property
    def stored(self) -> set[str]:
        """Digests of the committed files."""
        paths = list((self.teepi.settings.cache_dir / "v1/files/sha256").glob("*/*"))
        digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        assert digests == {path.name for path in paths}
        return digests

    async def cached(self) -> None:
        """Bring the file into the cache."""
        assert (await self.get()).body == self.content
        await self.settled()


async def stage(
    upstream: Upstream,
    make_teepi: MakeTeepi,
    content: bytes,
    *,
    limits: Limits = CALM,
    sha256: bool = True,
    size: bool = True,
    **traits: Any,
) -> Scene:
    """Publish ``content`` (``traits`` are those of ``Upstream.file``), start teepi, let it see the page."""
    project = upstream.project("demo", {FILENAME: content}, sha256=sha256, size=size)
    path = project.path(FILENAME)
    upstream.file(path, content, **traits)
    teepi = await make_teepi(limits)
    target = f"/root/pypi/+http/{upstream.url.removeprefix('http://')}{path}"
    assert (await fetch(teepi.address, "/simple/demo/")).status == 200
    return Scene(upstream, teepi, content, path, target)


async def until(fact: Callable[[], bool]) -> None:
    """Wait for something inside teepi that has no event of its own; the test's time-out bounds it."""
    while not fact():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


def descriptors(upstream: Upstream) -> int:
    """Return how many descriptors this process has open, those of connections kept to ``upstream`` left out."""
    return len(os.listdir("/proc/self/fd")) - 2 * upstream.open_connections  # noqa: PTH208 - both ends are ours
