"""Kills teepi with SIGKILL at random bytes of a download, again and again, and looks at what is left.

After each restart: nothing wrong under a final name, the next request gets the right bytes, and upstream is asked
only for the rest (``Range: bytes=N-``) when at least 1 MiB had landed, and for nothing when all had. Exit code 1 on
any violation.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import random
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench import servers
from bench.machine import MB, quantity

if TYPE_CHECKING:
    import argparse

_SIZE = 24 * MB
_RANGE_FROM_BYTES = 1024 * 1024
_STEP_BYTES = 64 * 1024


@dataclass
class Round:
    """What one kill left behind."""

    killed_at: int
    """Bytes that the client had then."""
    committed: bool = False
    """The file had its final name."""
    landed: int = 0
    """Bytes in the partial."""
    asked: list[str] = field(default_factory=list)
    """Ranges of the GETs after the restart."""
    faults: list[str] = field(default_factory=list)
    """What should not be."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="of the kill points (default: a fresh one, printed)")
    parser.add_argument("--rate", type=quantity, default=quantity("60MB/s"), help="of the upstream")


def run(arguments: argparse.Namespace) -> int:
    """Run the rounds; exit code 1 on any violation."""
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    dice = random.Random(seed)
    content = dice.randbytes(_SIZE)
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        content_path = Path(name) / "content"
        content_path.write_bytes(content)
        with servers.upstream(content_path, arguments.rate) as upstream_port:
            for number in range(1, arguments.rounds + 1):
                # A tenth of the kills meets the end: digest, sync and rename.
                killed_at = _SIZE if dice.random() < 0.1 else dice.randrange(_SIZE)
                with tempfile.TemporaryDirectory(dir=name) as directory:
                    done = _round(Path(directory), upstream_port, content, killed_at)
                rounds.append(done)
                left = "committed" if done.committed else f"{done.landed} landed"
                verdict = "; ".join(done.faults) or "ok"
                print(f"{number:3}: killed at {killed_at:8}, {left}, then asked {done.asked}: {verdict}", flush=True)
    bad = [done for done in rounds if done.faults]
    owed = [done for done in rounds if not done.committed and done.landed >= _RANGE_FROM_BYTES]
    print(
        f"seed {seed}: {len(rounds)} rounds, {len(bad)} with violations; {sum(r.committed for r in rounds)} committed, "
        f"{len(owed)} with 1 MiB or more landed, {sum(_continued(done) for done in owed)} of these continued "
        f"({sum(done.landed == _SIZE for done in owed)} without asking, since all had landed)"
    )
    return 1 if bad else 0


def _continued(done: Round) -> bool:
    """Whether upstream was asked once, for the rest, from a place in what had landed; or for nothing if all had."""
    if done.landed == _SIZE:
        return not done.asked
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in done.asked if asked.endswith("-")]
    return len(done.asked) == len(starts) == 1 and 0 < starts[0] <= done.landed


def _round(directory: Path, upstream_port: int, content: bytes, killed_at: int) -> Round:
    done = Round(killed_at)
    process, port = servers.start_teepi(directory, upstream_port)
    with process:
        try:
            target = servers.teepi_target(port)
            _read(port, target, killed_at)
        finally:
            process.kill()
    cache = directory / "cache"
    digest = hashlib.sha256(content).hexdigest()
    done.committed = any(path.name == digest for path in _final(cache))
    done.landed = max((path.stat().st_size for path in (cache / "v1/partial").glob("*")), default=0)
    _look(cache, done, "after the kill")
    servers.get(upstream_port, "/+reset")
    process, port = servers.start_teepi(directory, upstream_port)
    with process:
        try:
            status, body = servers.get(port, target)
        finally:
            process.terminate()
            if process.wait(30):
                done.faults.append(f"exit code {process.returncode} after SIGTERM")
    if status != 200 or body != content:
        done.faults.append(f"wrong answer after the restart: {status}, {len(body)} bytes")
    requests = servers.report(upstream_port)["requests"]
    done.asked = [request["range"] or "all" for request in requests if request["method"] == "GET"]
    if done.committed and done.asked:
        done.faults.append("a committed file was fetched again")
    if not done.committed and done.landed >= _RANGE_FROM_BYTES and not _continued(done):
        done.faults.append("not continued by Range")
    if not any(path.name == digest for path in _final(cache)):
        done.faults.append("not committed after the second request")
    _look(cache, done, "after the second request")
    return done


def _read(port: int, target: str, count: int) -> None:
    """Read ``count`` bytes of the body and leave the connection open."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", target)
    answer = connection.getresponse()
    while count > 0 and (data := answer.read(min(count, _STEP_BYTES))):
        count -= len(data)
    with contextlib.suppress(OSError):
        connection.close()


def _final(cache: Path) -> list[Path]:
    """Return everything that has a final name."""
    return [path for path in (cache / "v1/files/sha256").glob("*/*") if path.is_file()]


def _look(cache: Path, done: Round, when: str) -> None:
    for path in _final(cache):
        if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            done.faults.append(f"wrong bytes under the final name {path.name} {when}")
