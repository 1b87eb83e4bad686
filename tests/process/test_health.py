"""``teepi health``, which containers run every half minute."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.teepi import scrubbed_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.support.upstream import Upstream


async def health(home: Path, *arguments: str, **environment: str) -> tuple[int | None, str, str]:
    """Run it; return exit status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "importtime",
        *("-m", "teepi", "health", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=scrubbed_environment(home) | environment,
    )
    out, err = await process.communicate()
    lines = err.decode().splitlines(keepends=True)
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert not imported & {"aiohttp", "asyncio", "rich", "distlib"}, "it runs often, and has to stay quick"
    return process.returncode, out.decode(), "".join(line for line in lines if not line.startswith("import time:"))


async def test_health_of_a_server_that_answers_is_0(make_process: MakeProcess, tmp_path: Path) -> None:
    """By URL, by the variable that also told the server where to listen, and on all interfaces by loopback."""
    teepi = await make_process()
    port = teepi.address[1]
    for arguments, environment in (
        ([teepi.url], {}),
        ([f"{teepi.url}/"], {}),
        ([], {"TEEPI_LISTEN": f"127.0.0.1:{port}"}),
        ([], {"TEEPI_LISTEN": f"0.0.0.0:{port}"}),
    ):
        status, out, err = await health(tmp_path, *arguments, **environment)
        assert (status, err) == (0, "")
        assert " is healthy (" in out


async def test_health_of_a_server_that_does_not_answer_is_1(tmp_path: Path, upstream: Upstream) -> None:
    """Nobody listens, it hangs, it is something else, or the name is unknown: one sentence each."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for url, said in (
            ("http://127.0.0.1:1", "Connection refused"),
            (hanging, "no answer within 0.2 s"),
            (upstream.url, "/healthz is answered with 404"),
        ):
            status, out, err = await health(tmp_path, url, "--timeout", "0.2" if url == hanging else "5")
            assert (status, out) == (1, "")
            assert err.startswith(f"teepi: {url} is not healthy: {said}")
            assert err.count("\n") == 1


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "localhost:3141", "http://127.0.0.1:x", "http://"])
async def test_health_of_what_is_no_url_is_2(tmp_path: Path, url: str) -> None:
    """Which is told from a server that does not answer."""
    status, _, err = await health(tmp_path, url)
    assert (status, err.count("\n")) == (2, 1)
    assert "is no URL of a server; write http://HOST:PORT" in err
