"""The servers that the scenarios compare: teepi, nginx's proxy_cache, and none (direct)."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from bench import paced
from bench.machine import cores, ended, spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

_START_SECONDS = 20
_LISTENS = re.compile(r"teepi \S+ listens on http://127\.0\.0\.1:(\d+)")

# What an operator would write to coalesce requests: one lock per file, long enough for a slow upstream.
_NGINX = """
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {directory}/body;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    proxy_temp_path {directory}/temp;
    proxy_cache_path {directory}/cache levels=1:2 keys_zone=files:10m max_size=10g use_temp_path=off;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache files;
            proxy_cache_key $uri;
            proxy_cache_valid 200 10m;
            proxy_cache_lock on;
            proxy_cache_lock_age 600s;
            proxy_cache_lock_timeout 600s;
        }}
    }}
}}
"""


def get(port: int, target: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Return status and body of a GET on loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", target, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def report(port: int) -> dict[str, Any]:
    """Return what the paced upstream was asked."""
    found: dict[str, Any] = json.loads(get(port, "/+report")[1])
    return found


@contextlib.contextmanager
def upstream(content: Path, bytes_per_second: float) -> Iterator[int]:
    """Run the paced upstream; give its port."""
    command = [sys.executable, "-m", "bench.paced", str(content), str(bytes_per_second)]
    with ended(spawn(command, cores()[1])) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def start_teepi(
    directory: Path, upstream_port: int, arguments: tuple[str, ...] = (), prefix: tuple[str, ...] = ()
) -> tuple[subprocess.Popen[str], int]:
    """Start the real process on directories below ``directory``, run by ``prefix``; return it and its port."""
    command = [*prefix, sys.executable, "-m", "teepi", "serve", "--listen", "127.0.0.1:0", "--log-level", "warning"]
    command += ["--upstream", f"http://127.0.0.1:{upstream_port}/simple/"]
    command += ["--cache-dir", str(directory / "cache"), "--data-dir", str(directory / "data"), *arguments]
    process = spawn(command, cores()[0])
    assert process.stdout is not None
    for line in process.stdout:
        if found := _LISTENS.search(line):
            return process, int(found[1])
    raise RuntimeError(f"teepi ended with code {process.wait()} before it listened")


@contextlib.contextmanager
def teepi(directory: Path, upstream_port: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run teepi for the block."""
    process, port = start_teepi(directory, upstream_port)
    with ended(process):
        yield process, port


def teepi_target(port: int) -> str:
    """Return the path under which teepi has the paced upstream's file, from its page."""
    page_path = f"/root/pypi/+simple/{paced.PROJECT}/"
    status, body = get(port, page_path, {"Accept": "application/vnd.pypi.simple.v1+json"})
    if status != 200:
        raise RuntimeError(f"teepi answered {page_path} with {status}: {body[:200]!r}")
    link: str = json.loads(body)["files"][0]["url"]
    return urljoin(page_path, link)


def nginx_installed() -> str | None:
    """Return the path of nginx, if there is one."""
    return shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


@contextlib.contextmanager
def nginx(directory: Path, upstream_port: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run nginx's proxy_cache for the block."""
    binary = nginx_installed()
    assert binary is not None
    port = free_port()
    directory.mkdir(parents=True)
    configuration = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else the worker may not enter the directory
    text = _NGINX.format(user=user, directory=directory, port=port, upstream=upstream_port)
    configuration.write_text(text, encoding="ascii")
    with ended(spawn([binary, "-p", str(directory), "-c", str(configuration)], cores()[0])) as process:
        _wait_for(port)
        yield process, port


def free_port() -> int:
    """Return a port of loopback that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return
