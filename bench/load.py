"""The load: ``wrk`` on the other core replays heads over keep-alive connections, in an order shuffled once."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.machine import cores, cpu_seconds, spawn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_QUIET_SECONDS = 0.1
_LIMITED_SECONDS = 300
_QUIET_PATIENCE_SECONDS = 60.0

# wrk does not look into answers when there is no response(): so it costs less than what it measures.
_SCRIPT = """
local heads, at = {}, 0
for head in io.open("@HEADS@", "rb"):read("*a"):gmatch("[^%z]+") do heads[#heads + 1] = head end
local many, limit, sent = #heads, @LIMIT@, 0
function request()
  if limit > 0 then  -- at random, so many, then done
    sent = sent + 1
    if sent > limit then os.exit(0) end
    return heads[math.random(many)]
  end
  at = at + 1
  if at > many then at = 1 end
  return heads[at]
end
function done(summary, latency, requests)
  local errors = summary.errors
  local form = '\\n{"requests": %d, "seconds": %f, "bytes": %.0f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\\n'
  io.write(string.format(form,
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass
class Sample:
    """One run of the load against one server."""

    requests: int
    seconds: float
    bytes: float
    """With heads."""
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_seconds: float = 0.0
    """Of the server and its children."""

    @property
    def rate(self) -> float:
        """Requests per second of wall time."""
        return self.requests / self.seconds

    @property
    def per_core(self) -> float:
        """Requests per second of the server's CPU time."""
        return self.requests / max(self.cpu_seconds, 0.01)  # less than a tick cannot be told


class Replay:
    """Heads in a file, with the script that sends them."""

    def __init__(self, directory: Path, name: str, heads: Iterable[bytes], seed: int = 1, limit: int = 0) -> None:
        """Write both below ``directory``; with a ``limit`` that many requests are sent, at random."""
        shuffled = list(heads)
        random.Random(seed).shuffle(shuffled)
        (directory / f"{name}.heads").write_bytes(b"\0".join(shuffled))
        self.script = directory / f"{name}.lua"
        text = _SCRIPT.replace("@HEADS@", str(directory / f"{name}.heads")).replace("@LIMIT@", str(limit))
        self.script.write_text(text, encoding="ascii")
        self.limit = limit


def missing() -> str | None:
    """Return why there is no load, if so."""
    return None if shutil.which("wrk") else "wrk is not installed (Debian package wrk)"


def replay(heads: Replay, pid: int, port: int, connections: int, seconds: int) -> Sample:
    """Load the server with the family of ``pid``; raise RuntimeError when an answer was an error."""
    wait_until_quiet(pid)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(heads.script)]
    before = cpu_seconds(pid)
    with spawn([*command, f"http://127.0.0.1:{port}/"], cores()[1], stderr=subprocess.STDOUT) as process:
        output, _ = process.communicate()
    used = cpu_seconds(pid) - before
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode or not lines:
        raise RuntimeError(f"wrk failed: {output}")
    sample = Sample(**json.loads(lines[-1]), cpu_seconds=used)
    if sample.errors or not sample.requests:
        raise RuntimeError(f"{sample.errors} of {sample.requests} answers were errors")
    return sample


def replay_limited(heads: Replay, pid: int, port: int, connections: int) -> Sample:
    """Send as many requests as ``heads`` is limited to; wall time has wrk's own start in it. Raises RuntimeError."""
    wait_until_quiet(pid)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{_LIMITED_SECONDS}s", "--timeout", "60s", "-s", str(heads.script)]
    before, begin = cpu_seconds(pid), time.monotonic()
    with spawn([*command, f"http://127.0.0.1:{port}/"], cores()[1], stderr=subprocess.STDOUT) as process:
        output, _ = process.communicate()
    seconds = time.monotonic() - begin
    if process.returncode or "requests in" in output:  # a summary means that the time was up first
        raise RuntimeError(f"wrk did not send all requests: {output[-200:]}")
    return Sample(heads.limit, seconds, 0, 0, 0, 0, cpu_seconds(pid) - before)


def wait_until_quiet(pid: int) -> None:
    """Wait until the server has finished what the last load left behind, a minute at most."""
    give_up = time.monotonic() + _QUIET_PATIENCE_SECONDS
    before = cpu_seconds(pid)
    while time.monotonic() < give_up:
        time.sleep(_QUIET_SECONDS)
        now = cpu_seconds(pid)
        if now - before <= _QUIET_SECONDS / 5:
            return
        before = now
