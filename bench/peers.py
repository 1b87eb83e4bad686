"""The servers that the suite compares, each set up and started as its users run it, on a :mod:`bench.world`.

All are pinned to the server's core and keep pages for a day, so that warm stays warm. Where a peer has an access log
it is off. Else devpi and proxpi are as they come: devpi with a mirror index in place of its own, proxpi under gunicorn
with two threads as in its image.
"""

from __future__ import annotations

import base64
import contextlib
import html
import http.client
import json
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urldefrag, urljoin

from bench import exchange, heads, nginx, servers
from bench.environments import Skipped, system
from bench.machine import cores, ended, environment, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.environments import Environments
    from bench.world import World

_START_SECONDS = 60
_DAY_SECONDS = "86400"
_TEEPI_PAGES = "/root/pypi/+simple/@/"
_HREF = re.compile(rb'href="([^"]*)"')


@dataclass(frozen=True)
class Place:
    """What a peer needs to be started."""

    world: World
    origin_port: int
    directory: Path
    """Of its own; what an earlier server has left there is used again."""
    environments: Environments


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    name: str
    pid: int
    port: int
    pages: str
    """The target of the page of project ``@`` ."""
    begun: float = 0.0
    """Monotonic seconds when its process was started."""

    def page_target(self, project: str) -> str:
        """Return the target of a project's page."""
        return self.pages.replace("@", project)

    @property
    def index_url(self) -> str:
        """What a client is configured with."""
        return f"http://127.0.0.1:{self.port}{self.pages.removesuffix('@/')}"

    def links(self, project: str, connection: exchange.Connection | None = None) -> dict[str, str]:
        """Return the targets of the files on a project's page by name. Raises RuntimeError when there is no page."""
        target = self.page_target(project)
        with contextlib.ExitStack() as stack:
            if connection is None:
                connection = stack.enter_context(contextlib.closing(exchange.Connection(self.port)))
            got = connection.ask(heads.head(heads.PIP_PAGE, target, self.port))
        body = got.decoded()
        if got.status != 200:
            raise RuntimeError(f"{self.name} answered {target} with {got.status}: {body[:200]!r}")
        if body[:1] == b"{":
            urls = [file["url"] for file in json.loads(body)["files"]]
        else:
            urls = [html.unescape(href.decode()) for href in _HREF.findall(body)]
        here = f"http://127.0.0.1:{self.port}"
        found = [urldefrag(urljoin(here + target, url)).url.removeprefix(here) for url in urls]
        return {target.rpartition("/")[2]: target for target in found}


@contextlib.contextmanager
def _started(name: str, command: list[str], place: Place, port: int, pages: str, **more: str) -> Iterator[Running]:
    """Run a server for the block, what it says going to a file."""
    place.directory.mkdir(parents=True, exist_ok=True)
    log = place.directory / "output.log"
    with log.open("w") as output:
        begun = time.monotonic()
        process = spawn(command, cores()[0], stdout=output, stderr=subprocess.STDOUT, more=more)
        with ended(process):
            _wait(process, port, name, log)
            yield Running(name, process.pid, port, pages, begun)


def _wait(process: subprocess.Popen[str], port: int, name: str, log: Path) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.005)
    raise Skipped(f"{name} does not start: {log.read_text(errors='replace')[-200:].strip()}")


@contextlib.contextmanager
def direct(place: Place) -> Iterator[Running]:
    """Give the upstream itself; its process is not ours to start, and its CPU time that of nobody."""
    yield Running("direct", 0, place.origin_port, "/simple/@/")


@contextlib.contextmanager
def _nginx(name: str, place: Place, pages: str, *, is_proxy: bool) -> Iterator[Running]:
    binary = system("nginx")
    if binary is None:
        raise Skipped("nginx is not installed (Debian package nginx-light)")
    port = servers.free_port()
    place.directory.mkdir(parents=True, exist_ok=True)
    if not is_proxy and not (place.directory / "root").exists():
        nginx.write_tree(place.directory, place.world, place.origin_port)
    text = nginx.configuration(place.directory, port, place.origin_port, is_proxy=is_proxy)
    configuration = place.directory / "nginx.conf"
    configuration.write_text(text, encoding="ascii")
    command = [binary, "-p", str(place.directory), "-c", str(configuration)]
    with _started(name, command, place, port, pages) as running:
        yield running


def nginx_static(place: Place) -> contextlib.AbstractContextManager[Running]:
    """Serve files written beforehand."""
    return _nginx("nginx static", place, _TEEPI_PAGES, is_proxy=False)


def nginx_proxy(place: Place) -> contextlib.AbstractContextManager[Running]:
    """Cache and rewrite."""
    return _nginx("nginx proxy", place, "/simple/@/", is_proxy=True)


@contextlib.contextmanager
def devpi(place: Place) -> Iterator[Running]:
    """Run devpi-server with one mirror index."""
    server = place.environments.binary("devpi", "devpi-server")
    at = ["--serverdir", str(place.directory / "server")]
    is_new = not (place.directory / "server").exists()
    if is_new:
        made = subprocess.run(
            [str(server.with_name("devpi-init")), *at, "--no-root-pypi"],
            env=environment(), capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        if made.returncode:
            raise Skipped(f"devpi-init fails: {made.stderr.strip()[-200:]}")
    port = servers.free_port()
    command = [str(server), *at, "--host", "127.0.0.1", "--port", str(port)]
    with _started("devpi", command, place, port, "/root/mirror/+simple/@/") as running:
        if is_new:
            _make_index(port, place.origin_port)
        yield running


def _make_index(port: int, origin_port: int) -> None:
    login = _devpi(port, "POST", "/+login", {"user": "root", "password": ""})
    token = base64.b64encode(f"root:{login['result']['password']}".encode()).decode()
    index = {
        "type": "mirror",
        "mirror_url": f"http://127.0.0.1:{origin_port}/simple/",
        "mirror_cache_expiry": _DAY_SECONDS,
    }
    _devpi(port, "PUT", "/root/mirror", index, {"X-Devpi-Auth": token})


def _devpi(port: int, method: str, target: str, body: object, headers: dict[str, str] | None = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, target, json.dumps(body), {"Content-Type": "application/json"} | (headers or {}))
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise Skipped(f"devpi answered {method} {target} with {answer.status}: {content[:200]!r}")
        return json.loads(content)
    finally:
        connection.close()


@contextlib.contextmanager
def proxpi(place: Place) -> Iterator[Running]:
    """Run proxpi under gunicorn."""
    gunicorn = place.environments.binary("proxpi", "gunicorn")
    port = servers.free_port()
    command = [str(gunicorn), "--preload", "--threads", "2", "--bind", f"127.0.0.1:{port}", "proxpi.server:app"]
    (place.directory / "cache").mkdir(parents=True, exist_ok=True)
    more = {
        "PROXPI_INDEX_URL": f"http://127.0.0.1:{place.origin_port}/simple/",
        "PROXPI_INDEX_TTL": _DAY_SECONDS,
        "PROXPI_CACHE_DIR": str(place.directory / "cache"),
        "PROXPI_LOGGING_LEVEL": "WARNING",
    }
    with _started("proxpi", command, place, port, "/index/@/", **more) as running:
        yield running


@contextlib.contextmanager
def teepi(place: Place) -> Iterator[Running]:
    """Run teepi from this tree."""
    with _started("teepi", *teepi_command(place)) as running:
        yield running


def teepi_command(place: Place) -> tuple[list[str], Place, int, str]:
    """Return the arguments for :func:`_started`."""
    port = servers.free_port()
    command = [sys.executable, "-m", "teepi", "serve", "--listen", f"127.0.0.1:{port}", "--log-level", "warning"]
    command += ["--upstream", f"http://127.0.0.1:{place.origin_port}/simple/", "--page-ttl", _DAY_SECONDS]
    command += ["--cache-dir", str(place.directory / "cache"), "--data-dir", str(place.directory / "data")]
    return command, place, port, _TEEPI_PAGES


PEERS: dict[str, Callable[[Place], contextlib.AbstractContextManager[Running]]] = {
    "direct": direct,
    "nginx static": nginx_static,
    "nginx proxy": nginx_proxy,
    "devpi": devpi,
    "proxpi": proxpi,
    "teepi": teepi,
}
"""In the order of the tables."""
