"""Large cached files: how fast to 1, 8 and 64 clients, with how much memory, and what slow clients do to fast ones."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import exchange, heads, load, warm, world
from bench.environments import FAILURES
from bench.lab import say
from bench.machine import MB, Usage, cores, cpu_seconds, ended, resident, spawn
from bench.results import NGINX, Result, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lab import Lab
    from bench.peers import Running

_PATIENCE_SECONDS = 30.0
_AGAIN_SECONDS = 0.5
_DRAIN_SECONDS = 120
_SLOW_CLIENTS = 64
_SLOW_BYTES_PER_SECOND = 50_000
_SETTLE_SECONDS = 2.0
_FAST_CONNECTIONS = 8
_PAGES = 100
_MOST_MEMORY_MB = 25
SLOW = ("devpi", "proxpi")
"""Peers of which one run must do when it is a quick one."""


@dataclass(frozen=True)
class Download:
    """The file of 100 MB, to so many clients at a time."""

    clients: int
    times: int
    """How often each asks for it in a run."""
    quick_times: int

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return f"large-file-{self.clients}"

    def run(self, lab: Lab) -> Result:
        """Measure."""
        times = self.quick_times if lab.is_quick else self.times
        title = (
            f"A cached file of 100 MB to {self.clients} clients at once, {times} times each; the clients' kernel drops "
            "the bytes. Checked whole beforehand."
        )
        targets = [Target("gb_per_second", 0.9, NGINX), Target("gb_per_core", 0.9, NGINX)]
        result = Result(self.name, title, "gb_per_core", targets)
        ready: dict[str, tuple[Running, str]] = {}
        for peer in lab.peers:
            try:
                running = lab.shared(peer)
                ready[peer] = running, cached(lab, running)
            except FAILURES as error:
                result.notes[peer] = f"skipped: {error}"

        def measure(peer: str) -> dict[str, float]:
            running, target = ready[peer]
            load.wait_until_quiet(running.pid)
            before = cpu_seconds(running.pid)
            found = drained(running.port, target, self.clients, times)
            used = cpu_seconds(running.pid) - before
            gigabytes = found["bytes"] / 1e9
            figures = {"gb_per_second": gigabytes / found["seconds"]}
            if running.pid:
                figures |= {"gb_per_core": gigabytes / max(used, 0.01), "cpu_s_per_gb": used / gigabytes}
            return figures

        lab.interleave(result, list(ready), measure, once=("direct", *SLOW))
        return result


def cached(lab: Lab, running: Running) -> str:
    """Return the target of the file of 100 MB once the server has it; its digest is checked. Raises RuntimeError."""
    file = lab.world.real(world.HUGE)
    target = running.links(world.HUGE)[file.name]
    head = heads.head(heads.PIP_FILE, target, running.port)
    give_up = time.monotonic() + _PATIENCE_SECONDS
    with contextlib.closing(exchange.Connection(running.port)) as connection:
        while (got := connection.ask(head)).status != 200:  # proxpi redirects until it has the file
            if time.monotonic() > give_up:
                raise RuntimeError(f"answered {target} with {got.status}")
            time.sleep(_AGAIN_SECONDS)
    if hashlib.sha256(got.body).hexdigest() != file.sha256:
        raise RuntimeError(f"answered {target} with other bytes")
    return target


def drained(port: int, target: str, clients: int, times: int) -> dict[str, float]:
    """Let clients take a file; return what :func:`bench.drain.drain` does. Raises RuntimeError."""
    command = [sys.executable, "-m", "bench.drain", str(port), target, str(clients), str(times)]
    with spawn(command, cores()[1], stderr=subprocess.PIPE) as process:
        try:
            output, errors = process.communicate(timeout=_DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RuntimeError(f"took more than {_DRAIN_SECONDS} s") from None
    if process.returncode:
        raise RuntimeError(errors.strip().rpartition("\n")[2])
    found: dict[str, float] = json.loads(output)
    return found


def leave_out(lab: Lab, result: Result) -> None:
    """Leave out of a quick run the peers that take half a minute to be started and then stall."""
    if lab.is_quick:
        result.notes |= {peer: "left out of a quick run" for peer in SLOW if peer in lab.peers}


def memory(lab: Lab) -> Result:
    """Measure memory of fresh servers."""
    title = "Resident memory (all processes) when the file of 100 MB was fetched, and above it when 64 clients take it."
    result = Result("memory", title, "crowd_mb", [Target("crowd_mb", _MOST_MEMORY_MB, is_least=False)])
    leave_out(lab, result)
    for peer in lab.peers:
        if peer == "direct" or peer in result.notes:
            continue
        try:
            with lab.fresh(peer) as running:
                target = cached(lab, running)
                load.wait_until_quiet(running.pid)
                idle = resident(running.pid)
                with Usage(running.pid) as usage:
                    drained(running.port, target, 64, 1)
                result.add(peer, {"idle_mb": idle / MB, "crowd_mb": usage.peak_bytes / MB})
        except FAILURES as error:
            result.notes[peer] = f"failed: {error}"
    return result


def slow_clients(lab: Lab) -> Result:
    """Measure small pages while others read the large file slowly."""
    title = (
        f"{_PAGES} small pages to {_FAST_CONNECTIONS} connections, alone and while {_SLOW_CLIENTS} clients read the "
        f"file of 100 MB at {_SLOW_BYTES_PER_SECOND // 1000} KB/s each."
    )
    result = Result("slow-clients", title, "kept")
    if (reason := load.missing()) is not None:
        result.notes |= dict.fromkeys(lab.peers, reason)
        return result
    leave_out(lab, result)
    for peer in lab.peers:
        if peer in result.notes:
            continue
        say(f"{result.name}: {peer}")
        try:
            with lab.fresh(peer) as running:
                target = cached(lab, running)
                asked = [
                    heads.head(heads.PIP_PAGE, running.page_target(world.small(number)), running.port)
                    for number in range(_PAGES)
                ]
                warm.verify(running.port, asked, lambda _, got: got.status == 200)
                replay = load.Replay(lab.directory, f"slow-{running.port}", asked)
                for _ in range(lab.runs):
                    alone = load.replay(replay, running.pid, running.port, _FAST_CONNECTIONS, lab.seconds)
                    with _dawdling(running.port, target):
                        beside = load.replay(replay, running.pid, running.port, _FAST_CONNECTIONS, lab.seconds)
                    result.add(
                        peer,
                        {"rate": alone.rate, "p99_ms": alone.p99_ms, "beside_rate": beside.rate,
                         "beside_p99_ms": beside.p99_ms, "kept": beside.rate / alone.rate},
                    )  # fmt: skip
        except FAILURES as error:
            result.figures.pop(peer, None)
            result.notes[peer] = f"failed: {error}"
    return result


@contextlib.contextmanager
def _dawdling(port: int, target: str) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.drain", str(port), target, str(_SLOW_CLIENTS), "1"]
    with ended(spawn([*command, str(_SLOW_BYTES_PER_SECOND)], cores()[1])) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(_SETTLE_SECONDS)
        yield
