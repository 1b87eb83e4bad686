"""Warm answers: pages, small and large, in each form and coding, and small files. One server each, kept for all.

Before anything is timed, every target is asked for once with the very heads that are replayed then, and each body is
checked. ``direct`` is the scripted upstream; it shares a core with the load and is no fair server.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import exchange, heads, load, world
from bench.environments import FAILURES
from bench.lab import say
from bench.results import NGINX, Result, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.lab import Lab
    from bench.peers import Running

CONNECTIONS = 32
_FEW_CONNECTIONS = 4  # where an answer takes tens of milliseconds: what is cut off at the end is not counted
_SLOW_SECONDS = 2
_PATIENCE_SECONDS = 20.0
_AGAIN_SECONDS = 0.2
_SLACK = 0.98  # for the rounding of means
_NAME = re.compile(r">([^<>]+\.whl)</a>")


@dataclass(frozen=True)
class Pages:
    """Pages of one size in one form and coding."""

    size: str
    form: str
    coding: str

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return f"{self.size}-page-{self.form}-{self.coding}"

    def run(self, lab: Lab) -> Result:
        """Measure."""
        is_large = self.size == "large"
        name, count = (world.large, world.LARGE) if is_large else (world.small, world.SMALL)
        projects = [name(number) for number in range(count)]
        recorded = (heads.PIP_PAGE, heads.PIP_24_PAGE, heads.UV_PAGE) if self.form == "json" else (heads.OLD_PIP_PAGE,)
        files = len(lab.world.projects[projects[0]])
        agents = "pip 20.3" if self.form == "html" else "pip 26.3, pip 24.0 and uv in turn"
        if self.form == "json" and self.coding == "gzip":
            agents += " (uv takes zstd too)"
        title = (
            f"{len(projects):,} pages of {files:,} files each as {self.form.upper()}, "
            f"{'compressed' if self.coding == 'gzip' else 'identity'}, warm; heads of "
            f"{agents}."
        )
        least = 0.9 if is_large else 1.0
        targets = [Target("per_core", least, NGINX)]
        if is_large:
            targets.append(Target("per_core", 10, "nginx proxy"))
        targets += [Target("per_core", 20, "devpi"), Target("per_core", 20, "proxpi")]
        result = Result(self.name, title, "per_core", targets)

        def wanted(running: Running) -> list[bytes]:
            return [
                heads.head(recorded[number % len(recorded)], running.page_target(project), running.port,
                           identity=self.coding == "identity")
                for number, project in enumerate(projects)
            ]  # fmt: skip

        def check(place: int, got: exchange.Answer) -> bool:
            return _names(got) == sorted(file.name for file in lab.world.projects[projects[place]])

        measure_all(lab, result, wanted, check, slow=("devpi", "proxpi", "nginx proxy", "direct") if is_large else ())
        return result


def small_files(lab: Lab) -> Result:
    """Measure files of 50 KB."""
    title = f"{world.SMALL:,} wheels of 50 KB, cached; heads of pip and uv in turn."
    targets = [Target("per_core", 0.7, NGINX), Target("per_core", 20, "devpi"), Target("per_core", 20, "proxpi")]
    result = Result("small-file", title, "per_core", targets)
    projects = [world.small(number) for number in range(world.SMALL)]

    def wanted(running: Running) -> list[bytes]:
        with contextlib.closing(exchange.Connection(running.port)) as connection:
            targets = [running.links(project, connection)[lab.world.real(project).name] for project in projects]
        recorded = (heads.PIP_FILE, heads.UV_FILE)
        return [heads.head(recorded[number % 2], target, running.port) for number, target in enumerate(targets)]

    def check(place: int, got: exchange.Answer) -> bool:
        return hashlib.sha256(got.body).hexdigest() == lab.world.real(projects[place]).sha256

    measure_all(lab, result, wanted, check)
    return result


def measure_all(
    lab: Lab,
    result: Result,
    wanted: Callable[[Running], list[bytes]],
    check: Callable[[int, exchange.Answer], bool],
    slow: Sequence[str] = (),
) -> None:
    """Warm and check every peer with the heads that it is measured with, then measure all in turn."""
    if (reason := load.missing()) is not None:
        result.notes |= dict.fromkeys(lab.peers, reason)
        return
    ready: dict[str, tuple[Running, load.Replay, int]] = {}
    for peer in lab.peers:
        try:
            running = lab.shared(peer)
            say(f"{result.name}: asking {peer} for everything once …")
            asked = wanted(running)
            least = verify(running.port, asked, check)
        except FAILURES as error:
            result.notes[peer] = f"skipped: {error}"
        else:
            ready[peer] = running, load.Replay(lab.directory, f"{result.name}-{running.port}", asked), least

    def measure(peer: str) -> dict[str, float]:
        running, replay, least = ready[peer]
        is_slow = peer in slow
        connections = _FEW_CONNECTIONS if is_slow else CONNECTIONS
        seconds = max(lab.seconds, _SLOW_SECONDS) if is_slow else lab.seconds
        return figures(load.replay(replay, running.pid, running.port, connections, seconds), least)

    lab.interleave(result, list(ready), measure, once=slow)


def figures(sample: load.Sample, least: int) -> dict[str, float]:
    """Return a run as figures; raises RuntimeError when answers were smaller than the ones that were checked."""
    if sample.bytes / sample.requests < least:
        raise RuntimeError(f"answers of {sample.bytes / sample.requests:.0f} bytes, smaller than those checked")
    found = {"rate": sample.rate, "p99_ms": sample.p99_ms, "answer_bytes": least / _SLACK}
    if sample.cpu_seconds:
        found["per_core"] = sample.per_core
        found["cpu_us"] = sample.cpu_seconds / sample.requests * 1e6
        found["busy"] = 100 * sample.cpu_seconds / sample.seconds
    return found


def verify(port: int, asked: Sequence[bytes], check: Callable[[int, exchange.Answer], bool]) -> int:
    """Send each head on one connection and check each answer; return the bytes of the mean body, with some slack.

    An answer that is not 200 is asked for again for a while: proxpi redirects while it fetches. Raises RuntimeError.
    """
    total = 0
    with contextlib.closing(exchange.Connection(port)) as connection:
        for place, head in enumerate(asked):
            give_up = time.monotonic() + _PATIENCE_SECONDS
            while (got := connection.ask(head)).status != 200 and time.monotonic() < give_up:
                time.sleep(_AGAIN_SECONDS)
            if got.status != 200 or not check(place, got):
                target = head.split(b" ")[1].decode()
                raise RuntimeError(f"answered {target} with {got.status} and {len(got.body)} bytes: {got.body[:80]!r}")
            total += got.length
    return int(_SLACK * total / len(asked))


def _names(got: exchange.Answer) -> list[str]:
    """Return the names of the files on a page, sorted: not every server keeps the order."""
    body = got.decoded()
    if "json" in got.headers.get("content-type", ""):
        return sorted(file["filename"] for file in json.loads(body)["files"])
    return sorted(html.unescape(name).strip() for name in _NAME.findall(body.decode()))
