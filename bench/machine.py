"""What the scenarios ask of the machine: pinned processes, memory and CPU time from ``/proc``, units.

Linux only. The server under test gets core 0; everything else core 1, when there are two.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MB = 1_000_000
_UNITS = {"": 1, "kb": 1000, "mb": MB, "gb": 1000 * MB, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_SAMPLE_SECONDS = 0.02
_USABLE = sorted(os.sched_getaffinity(0))  # before anything here is pinned
_REPOSITORY = Path(__file__).parent.parent


def quantity(text: str) -> int:
    """Return the bytes (per second) that ``100MB``, ``64KiB`` or ``50MB/s`` mean; ValueError otherwise."""
    found = re.fullmatch(r"([\d.]+)\s*([kmg]?i?b?)(?:/s)?", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise ValueError(text)
    return int(float(found[1]) * _UNITS[found[2]])


def cores() -> tuple[int, int]:
    """Return the core of the server under test and the core of the rest (the same when there is but one)."""
    return _USABLE[0], _USABLE[min(1, len(_USABLE) - 1)]


def environment() -> dict[str, str]:
    """Return an environment without proxies and without settings of pip, uv or teepi."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH") if name in os.environ}
    return kept | {"PYTHONUNBUFFERED": "1"}


def spawn(
    command: Sequence[str],
    core: int,
    *,
    stdout: int | IO[str] = subprocess.PIPE,
    stderr: int | IO[str] | None = None,
    more: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start ``command`` pinned to ``core`` from its first instruction, with ``more`` in its environment.

    Its output is a text pipe, unless ``stdout`` says otherwise: a pipe that nobody reads stops a talkative server.
    """
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # inherited by the child
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env=environment() | dict(more or {}),
            cwd=_REPOSITORY,
        )
    finally:
        os.sched_setaffinity(0, mine)


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Terminate ``process`` at the end of the block, with patience, then kill it."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def family(pid: int) -> list[int]:
    """Return ``pid`` and the ids of all processes below it."""
    pids = [pid]
    for each in pids:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids += map(int, children.read_text(encoding="ascii").split())
    return pids


def resident(pid: int) -> int:
    """Return the resident memory of the family of ``pid`` in bytes."""
    return sum(int(Path(f"/proc/{each}/statm").read_text("ascii").split()[1]) for each in family(pid)) * os.sysconf(
        "SC_PAGE_SIZE"
    )


def cpu_seconds(pid: int) -> float:
    """Return user and system time of the family of ``pid``."""
    ticks = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            # Fields 14 and 15 of proc_pid_stat(5), counted behind the name in parentheses.
            ticks += sum(map(int, Path(f"/proc/{each}/stat").read_text("utf-8").rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Usage:
    """Memory and CPU of a server and all its children, from the start of the block to its end."""

    def __init__(self, pid: int) -> None:
        """Watch the family of ``pid``."""
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.anon_bytes = 0
        """Largest sum of anonymous memory above the sum at the start."""
        self.peak_bytes = 0
        """Largest resident memory (the kernel's own high-water mark) above the one at the start."""
        self.cpu_seconds = 0.0
        """User and system time."""

    def __enter__(self) -> Self:
        """Begin."""
        for pid in family(self._pid):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
        self._anon_before = self._sum("RssAnon")
        self._rss_before = self._sum("VmRSS")
        self._cpu_before = cpu_seconds(self._pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        self.peak_bytes = self._sum("VmHWM") - self._rss_before
        self.cpu_seconds = cpu_seconds(self._pid) - self._cpu_before

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.anon_bytes = max(self.anon_bytes, self._sum("RssAnon") - self._anon_before)

    def _sum(self, field: str) -> int:
        total = 0
        for pid in family(self._pid):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
                total += int(found[1]) * 1024 if found else 0
        return total
