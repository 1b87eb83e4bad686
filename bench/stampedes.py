"""Many clients who all want the same thing that is not there yet: a file of 100 MB, and an index page."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench import crowd, exchange, heads, load, paced, servers, world
from bench.environments import FAILURES
from bench.lab import say
from bench.large import SLOW, leave_out
from bench.machine import MB, Usage, cpu_seconds
from bench.results import NGINX, Result, Target

if TYPE_CHECKING:
    from pathlib import Path

    from bench.lab import Lab
    from bench.peers import Place, Running

_CLIENTS = 32
_BYTES_PER_SECOND = 50 * MB
_PAGE_CLIENTS = 64
_DELAY_SECONDS = 0.1
_MOST_MEMORY_MB = 25
_NOTHING_COLD = "has no upstream"


def on_a_file(lab: Lab) -> Result:
    """Measure 32 clients on a cold file; ``direct`` is one client that needs no proxy."""
    title = (
        f"A file of 100 MB that is not cached, to {_CLIENTS} clients who compare each byte; the upstream gives "
        f"{_BYTES_PER_SECOND // MB} MB/s in all; direct is a single client. Fresh servers."
    )
    targets = [
        Target("upstream_gets", 1, is_least=False),
        Target("wall_ratio", 1.05, is_least=False),
        Target("crowd_mb", _MOST_MEMORY_MB, is_least=False),
    ]
    result = Result("stampede-file", title, "cpu_s", targets, reference="nginx proxy", notes={NGINX: _NOTHING_COLD})
    leave_out(lab, result)  # both fetch most of it many times: a minute each
    content = lab.world.path(world.HUGE, lab.world.real(world.HUGE).name)
    for number in range(lab.runs):
        direct = 0.0
        for peer in dict.fromkeys(["direct", *lab.peers]):
            if peer in result.notes or (number and peer in SLOW):
                continue
            say(f"{result.name}: {peer}, run {number + 1} of {lab.runs}")
            try:
                with servers.upstream(content, _BYTES_PER_SECOND) as origin_port:
                    place = dataclasses.replace(lab.place(), origin_port=origin_port)
                    figures = _file(lab, peer, place, content)
            except FAILURES as error:
                result.notes[peer] = f"failed: {error}"
                result.figures.pop(peer, None)
                continue
            direct = direct or figures["wall_s"]
            result.add(peer, figures | {"wall_ratio": figures["wall_s"] / direct})
    return result


def _file(lab: Lab, peer: str, place: Place, content: Path) -> dict[str, float]:
    """Return one run's figures. Raises RuntimeError when a client did not get the file."""
    with lab.fresh(peer, place) as running:
        target = running.links(paced.PROJECT)[paced.FILENAME]
        clients = 1 if peer == "direct" else _CLIENTS
        with Usage(running.pid) as usage:
            got = crowd.ask(content, running.port, target, clients)
        right = sum(each.right for each in got)
        if right < clients:
            statuses = sorted({each.status for each in got})
            raise RuntimeError(f"{right} of {clients} clients got the file; statuses {statuses}")
        report = servers.report(place.origin_port)
    first = sorted(each.first_byte - report["first_byte"] for each in got if each.first_byte is not None)
    figures = {
        "upstream_gets": float(sum(each["method"] == "GET" for each in report["requests"])),
        "right": float(right),
        "wall_s": max(each.end for each in got) - min(each.begin for each in got),
        "first_ms": statistics.median(first) * 1000,
        "last_ms": first[-1] * 1000,
    }
    if running.pid:
        figures |= {"anon_mb": usage.anon_bytes / MB, "crowd_mb": usage.peak_bytes / MB, "cpu_s": usage.cpu_seconds}
    return figures


def on_a_page(lab: Lab) -> Result:
    """Measure 64 clients on a cold page."""
    title = (
        f"A page of 50 files that is not cached, to {_PAGE_CLIENTS} clients at once, the upstream being "
        f"{_DELAY_SECONDS * 1000:.0f} ms away: another page each run, on servers that have run a while."
    )
    result = Result("stampede-page", title, "max_ms", reference="direct", notes={NGINX: _NOTHING_COLD})
    ready = []
    for peer in lab.peers:
        if peer in result.notes:
            continue
        try:
            lab.shared(peer).links(world.small(0))  # devpi reads the whole list of projects first
            ready.append(peer)
        except FAILURES as error:
            result.notes[peer] = f"skipped: {error}"
    asked = dict.fromkeys(ready, 0)

    def measure(peer: str) -> dict[str, float]:
        project = world.cold(asked[peer] % world.COLD)
        asked[peer] += 1
        running = lab.shared(peer)
        load.wait_until_quiet(running.pid)
        lab.asked()
        before = cpu_seconds(running.pid)
        lab.delay(_DELAY_SECONDS)
        try:
            seconds, right = _page(running, project, len(lab.world.projects[project]))
        finally:
            lab.delay(0)
        gets = sum(count for what, count in lab.asked().items() if what.rstrip("/") == f"GET /simple/{project}")
        figures = {"right": right, "median_ms": statistics.median(seconds) * 1000, "max_ms": max(seconds) * 1000}
        if running.pid:
            figures |= {"upstream_gets": gets, "cpu_s": cpu_seconds(running.pid) - before}
        return figures

    lab.interleave(result, ready, measure)
    return result


def _page(running: Running, project: str, files: int) -> tuple[list[float], float]:
    """Ask from all clients at one moment; return the seconds of each answer and how many were right."""
    head = heads.head(heads.PIP_PAGE, running.page_target(project), running.port)
    start = threading.Barrier(_PAGE_CLIENTS)

    def ask(_: int) -> tuple[float, bool]:
        with contextlib.closing(exchange.Connection(running.port)) as connection:
            connection.connect()
            start.wait()
            got = connection.ask(head)
            return got.seconds, got.status == 200 and got.decoded().count(b".whl") >= files

    with ThreadPoolExecutor(_PAGE_CLIENTS) as pool:
        answers = list(pool.map(ask, range(_PAGE_CLIENTS)))
    return [seconds for seconds, _ in answers], float(sum(right for _, right in answers))
