"""Many clients ask for one cold large file at once: teepi, nginx's proxy_cache and no proxy, side by side.

One upstream serves the file at a rate that all its answers share. The clients compare every byte with the known
content. Times to the first byte count from the upstream's own first byte.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import paced, servers
from bench.crowd import Result, ask
from bench.machine import MB, Usage, cores, quantity

if TYPE_CHECKING:
    import argparse

_POLL_SECONDS = 0.01
_LEAVE_AT = 0.3
_MANY = 64


@dataclass
class Row:
    """One line of the table."""

    name: str
    note: str = ""
    """Said instead of figures."""
    results: list[Result] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    usage: Usage | None = None
    health: list[float] = field(default_factory=list)
    """Seconds of each answer of ``/healthz`` meanwhile."""

    @property
    def wall_seconds(self) -> float:
        """From the first request to the last byte."""
        return max(result.end for result in self.results) - min(result.begin for result in self.results)

    def cells(self, one_direct_seconds: float) -> list[str]:
        """Return the figures, with the wall time related to one direct client's."""
        if self.note:
            return [self.name, self.note] + [""] * 9
        methods = [request["method"] for request in self.report["requests"]]
        first = sorted(result.first_byte - self.report["first_byte"] for result in self.results if result.first_byte)
        stayed = [result for result in self.results if not result.left]
        return [
            self.name,
            str(methods.count("GET")),
            str(methods.count("HEAD")),
            f"{self.wall_seconds:.2f}",
            f"{self.wall_seconds / one_direct_seconds:.2f}",
            f"{statistics.median(first) * 1000:.0f} / {first[-1] * 1000:.0f}" if first else "none",
            f"{sum(result.right for result in stayed)} of {len(stayed)}",
            f"{self.usage.anon_bytes / MB:.0f}" if self.usage else "",
            f"{self.usage.peak_bytes / MB:.0f}" if self.usage else "",
            f"{self.usage.cpu_seconds:.2f}" if self.usage else "",
            f"{max(self.health) * 1000:.1f} ({len(self.health)})" if self.health else "",
        ]


_HEADINGS = [
    "server",
    "upstream GETs",
    "HEADs",
    "wall s",
    "ratio to one direct",
    "first byte, median / max ms",
    "right bodies",
    "anon MB above idle",
    "peak MB above idle",
    "server CPU s",
    "slowest /healthz ms (polls)",
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--size", type=quantity, default=quantity("100MB"), help="of the file, e.g. 100MB")
    parser.add_argument("--rate", type=quantity, default=quantity("50MB/s"), help="of the upstream, e.g. 50MB/s")
    parser.add_argument("--servers", default="direct,nginx,teepi", help="comma-separated subset (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Run all servers and print the table; exit code 1 when a client got a wrong body."""
    chosen = set(arguments.servers.split(","))
    many = max(_MANY, arguments.clients)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        bench = _Bench(Path(name), arguments.size, arguments.rate)
        one = bench.direct(1)
        rows = [one]
        if "direct" in chosen:
            rows.append(bench.direct(arguments.clients))
        if "nginx" in chosen:
            rows.append(bench.nginx(arguments.clients))
        if "teepi" in chosen:
            rows.append(bench.teepi(arguments.clients))
            rows.append(bench.teepi(arguments.clients, leave_at=_LEAVE_AT))
            rows.append(bench.teepi(many))
    print(f"{arguments.size / MB:.0f} MB at {arguments.rate / MB:.0f} MB/s, cores of server and rest: {cores()}\n")
    print("| " + " | ".join(_HEADINGS) + " |")
    print("|" + " --- |" * len(_HEADINGS))
    for row in rows:
        print("| " + " | ".join(row.cells(one.wall_seconds)) + " |")
    return 0 if all(result.right or result.left for row in rows for result in row.results) else 1


class _Bench:
    """The content and the runs; each run has an upstream, a server and directories of its own."""

    def __init__(self, directory: Path, size: int, rate: int) -> None:
        self._directory = directory
        self._rate = rate
        self._content = directory / "content"
        self._content.write_bytes(random.Random(0).randbytes(size))

    def direct(self, clients: int) -> Row:
        row = Row(f"direct × {clients}")
        with servers.upstream(self._content, self._rate) as upstream_port:
            row.results = self._crowd(upstream_port, paced.FILE_PATH, clients)
            row.report = servers.report(upstream_port)
        return row

    def nginx(self, clients: int) -> Row:
        row = Row(f"nginx proxy_cache × {clients}")
        if servers.nginx_installed() is None:
            row.note = "not installed"
            return row
        with (
            servers.upstream(self._content, self._rate) as upstream_port,
            servers.nginx(self._directory / "nginx", upstream_port) as (process, port),
            Usage(process.pid) as row.usage,
        ):
            row.results = self._crowd(port, paced.FILE_PATH, clients)
            row.report = servers.report(upstream_port)
        return row

    def teepi(self, clients: int, leave_at: float | None = None) -> Row:
        row = Row(f"teepi × {clients}" + (f", first leaves at {leave_at:.0%}" if leave_at else ""))
        with (
            tempfile.TemporaryDirectory(dir=self._directory) as directory,
            servers.upstream(self._content, self._rate) as upstream_port,
            servers.teepi(Path(directory), upstream_port) as (process, port),
        ):
            target = servers.teepi_target(port)
            with Usage(process.pid) as row.usage, _Poller(port, row.health):
                row.results = self._crowd(port, target, clients, leave_at)
            row.report = servers.report(upstream_port)
        return row

    def _crowd(self, port: int, target: str, clients: int, leave_at: float | None = None) -> list[Result]:
        return ask(self._content, port, target, clients, leave_at)


class _Poller(contextlib.AbstractContextManager["_Poller"]):
    """Asks for ``/healthz`` again and again; each time on a fresh connection, as a supervisor does."""

    def __init__(self, port: int, seconds: list[float]) -> None:
        self._port = port
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            begin = time.monotonic()
            status, _ = servers.get(self._port, "/healthz")
            if status == 200:
                self._seconds.append(time.monotonic() - begin)
