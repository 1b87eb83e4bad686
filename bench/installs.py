"""End to end: pip and uv install real wheels, one client or eight at once, cold and warm.

Each client is a process with an empty cache of its own. Cold, the upstream is 30 ms away and each run takes another
batch of wheels; warm, the server has them all. Counted is what was really installed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import load, world
from bench.environments import FAILURES, Skipped
from bench.large import SLOW
from bench.machine import cores, cpu_seconds, spawn
from bench.results import NGINX, Result, Target

if TYPE_CHECKING:
    from bench.lab import Lab
    from bench.peers import Running

_DELAY_SECONDS = 0.03
_WARM_BATCH = 0
_PIP_WHEELS = 20
_PATIENCE_SECONDS = 240


@dataclass(frozen=True)
class Install:
    """One installer, so many clients at once."""

    place: int
    """Among these scenarios: which batches are its own."""
    tool: str
    clients: int

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return f"install-{self.tool}-{self.clients}"

    def run(self, lab: Lab) -> Result:
        """Measure."""
        wheels = world.INSTALLED if self.tool == "uv" else _PIP_WHEELS
        title = (
            f"{wheels} wheels of 20 KB installed with {self.tool} by {self.clients} clients at once, cold "
            f"(upstream {_DELAY_SECONDS * 1000:.0f} ms away) and warm; the clients' own caches are empty."
        )
        targets = [Target("warm_s", 1.1, NGINX, is_least=False)] if self.tool == "uv" else []
        result = Result(self.name, title, "warm_s", targets)
        try:
            tool = lab.environments.binary("clients", self.tool)
        except Skipped as error:
            result.notes |= dict.fromkeys(lab.peers, f"skipped: {self.tool} {error}")
            return result
        is_long = self.tool == "pip" and self.clients > 1
        if lab.is_quick and self.clients > 1:  # devpi and proxpi take minutes
            left_out = {"direct", "nginx proxy", *SLOW} if is_long else set(SLOW)
            result.notes |= {peer: "left out of a quick run" for peer in lab.peers if peer in left_out}
        ready = []
        for peer in lab.peers:
            if peer in result.notes:
                continue
            try:
                lab.shared(peer)
                # once, so that all is cached
                _install(tool, lab.shared(peer), 1, [world.installed(_WARM_BATCH, n) for n in range(wheels)])
                ready.append(peer)
            except FAILURES as error:
                result.notes[peer] = f"skipped: {error}"
        colds = dict.fromkeys(ready, 0)

        def measure(peer: str) -> dict[str, float]:
            running = lab.shared(peer)
            figures: dict[str, float] = {}
            if colds[peer] < lab.cold_runs and peer != NGINX:
                batch = 1 + self.place * lab.cold_runs + colds[peer]
                colds[peer] += 1
                lab.delay(_DELAY_SECONDS)
                try:
                    names = [world.installed(batch, number) for number in range(wheels)]
                    figures["cold_s"], _ = _install(tool, running, self.clients, names)
                finally:
                    lab.delay(0)
            names = [world.installed(_WARM_BATCH, number) for number in range(wheels)]
            figures["warm_s"], used = _install(tool, running, self.clients, names)
            if running.pid:
                figures["warm_cpu_s"] = used
            return figures

        lab.interleave(result, ready, measure, once=(*SLOW, "direct", "nginx proxy", *(ready if is_long else ())))
        return result


def _install(tool: Path, running: Running, clients: int, names: list[str]) -> tuple[float, float]:
    """Return wall and the server's CPU seconds. Raises RuntimeError unless every client has installed all."""
    load.wait_until_quiet(running.pid)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, contextlib.ExitStack() as stack:
        before, begin = cpu_seconds(running.pid), time.monotonic()
        started = [_start(tool, running, Path(directory) / str(number), names) for number in range(clients)]
        failures = []
        for number, process in enumerate(started):
            stack.enter_context(process)
            try:
                _, said = process.communicate(timeout=_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                said = f"not ready after {_PATIENCE_SECONDS} s"
            target = Path(directory) / str(number) / "target"
            installed = len(list(target.glob("*/data")))
            if process.returncode or installed != len(names):
                failures.append(f"{installed} of {len(names)}: {said.strip()[-200:]}")
        seconds, used = time.monotonic() - begin, cpu_seconds(running.pid) - before
    if failures:
        raise RuntimeError(f"{clients - len(failures)} of {clients} installs worked: {failures[0]}")
    return seconds, used


def _start(tool: Path, running: Running, directory: Path, names: list[str]) -> subprocess.Popen[str]:
    directory.mkdir()
    target, cache = str(directory / "target"), str(directory / "cache")
    if tool.name == "uv":
        command = [str(tool), "pip", "install", "--quiet", "--no-config", "--python", sys.executable]
        command += ["--default-index", running.index_url, "--cache-dir", cache, "--target", target]
    else:
        command = [str(tool), "install", "--quiet", "--isolated", "--disable-pip-version-check", "--no-compile"]
        command += ["--no-input", "--index-url", running.index_url, "--cache-dir", cache, "--target", target]
    nothing = {"PIP_CONFIG_FILE": os.devnull, "HOME": str(directory), "PYTHONPATH": ""}
    return spawn([*command, *names], cores()[1], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, more=nothing)
