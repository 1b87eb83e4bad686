"""Cold pages of large projects, and the pages of many: CPU, answers meanwhile, memory, and the catalogue's size.

Times are those of teepi's own process; upstream and clients are others. The lag is the longest answer of ``/healthz``,
asked all the time while a cold page is made.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench import projects, servers
from bench.machine import MB, Usage, cores, ended, resident, spawn

if TYPE_CHECKING:
    import argparse

_ACCEPT = {"Accept": "application/vnd.pypi.simple.v1+json", "Accept-Encoding": "gzip"}
_WARM_UP = 3
_PAUSE_SECONDS = 0.2  # what is written behind an answer counts with it


class Health:
    """Asks ``/healthz`` on one connection until the block ends."""

    def __init__(self, port: int) -> None:
        """Prepare."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.seconds: list[float] = []
        """Of each answer."""

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _ask(self) -> None:
        while not self._stop.wait(0.001):
            begin = time.monotonic()
            self._connection.request("GET", "/healthz")
            self._connection.getresponse().read()
            self.seconds.append(time.monotonic() - begin)


class Client:
    """One client with one connection."""

    def __init__(self, port: int) -> None:
        """Prepare."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def page(self, project: str, etag: str | None = None) -> tuple[int, bytes, str]:
        """Return status, body and ETag of the page of ``project``."""
        headers = _ACCEPT | ({"If-None-Match": etag} if etag else {})
        self._connection.request("GET", f"/root/pypi/+simple/{project}/", headers=headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read(), answer.headers["ETag"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--files", type=int, default=5000, help="files of a large project (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="large projects asked for (default: %(default)s)")
    parser.add_argument("--projects", type=int, default=2000, help="small projects asked for (default: %(default)s)")
    parser.add_argument("--small", type=int, default=200, help="files of a small project (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Run both parts and print what they took."""
    with (
        tempfile.TemporaryDirectory() as directory,
        ended(spawn([sys.executable, "-m", "bench.projects"], cores()[1])) as upstream,
    ):
        assert upstream.stdout is not None
        port = int(upstream.stdout.readline())
        _large(Path(directory) / "large", port, arguments.files, arguments.rounds)
        _many(Path(directory) / "many", port, arguments.small, arguments.projects)
    return 0


def _large(directory: Path, upstream: int, files: int, rounds: int) -> None:
    with servers.teepi(directory, upstream) as (process, port):
        client, lags = Client(port), []

        def cold(number: int) -> float:
            project = projects.name_of(number, files)
            servers.get(upstream, f"/simple/{project}/")  # made there before it is asked for
            begin = time.monotonic()
            status, body, _ = client.page(project)
            wall = time.monotonic() - begin
            assert status == 200, body[:200]
            time.sleep(_PAUSE_SECONDS)
            return wall

        for number in range(_WARM_UP):
            cold(number)
        with Usage(process.pid) as usage:
            walls = [cold(_WARM_UP + number) for number in range(rounds)]
        for number in range(rounds):  # apart, for each question costs some CPU as well
            with Health(port) as health:
                cold(_WARM_UP + rounds + number)
            lags.append(max(health.seconds))
        print(f"cold page of {files} files, {rounds} times:")
        print(f"  CPU of teepi       {usage.cpu_seconds / rounds * 1000:6.1f} ms each")
        print(f"  answered after     {statistics.median(walls) * 1000:6.1f} ms, at most {max(walls) * 1000:.1f}")
        print(f"  /healthz meanwhile {statistics.median(lags) * 1000:6.1f} ms, at most {max(lags) * 1000:.1f}")


def _many(directory: Path, upstream: int, files: int, count: int) -> None:
    names = [projects.name_of(number, files) for number in range(count)]
    with servers.teepi(directory, upstream) as (process, port):
        client = Client(port)
        before = resident(process.pid)
        with Usage(process.pid) as cold:
            pages = [client.page(name) for name in names]
        after = resident(process.pid)
        with Usage(process.pid) as warm:
            again = [client.page(name, etag)[0] for name, (_, _, etag) in zip(names, pages, strict=True)]
        print(f"pages of {count} projects with {files} files each:")
        print(f"  CPU of teepi       {cold.cpu_seconds / count * 1000:6.2f} ms each")
        print(f"  304 of each        {warm.cpu_seconds / count * 1000:6.2f} ms ({again.count(304)} of them)")
        print(f"  compressed         {sum(len(body) for _, body, _ in pages) / MB:6.1f} MB in all")
        print(f"  resident memory    {after / MB:6.1f} MB ({before / MB:.1f} before)")
    catalogue = (directory / "cache").glob("catalog.sqlite3*")
    print(f"  catalogue on disk  {sum(path.stat().st_size for path in catalogue) / MB:6.2f} MB")
