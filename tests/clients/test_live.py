"""One install from the real default upstream: ``pytest -m live``."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from teepi import config
from tests.clients.installers import Client
from tests.support.clients import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess

_WAYS_OUT = {"http_proxy", "https_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"}


@pytest.mark.live
async def test_pip_installs_a_small_project_from_the_default_upstream(
    make_process: MakeProcess, tmp_path: Path
) -> None:
    """The machine's own way out (proxy variables) is teepi's; pip itself reaches loopback only; then offline."""
    upstream = config.load({}, {"HOME": "/"}).indexes[config.DEFAULT_INDEX_NAME].upstream
    client = Client("pip", tmp_path / "home")

    async def install(url: str) -> None:
        client.fresh()
        index = f"{url}/root/pypi/+simple/"
        await client.run("pip", "install", "--index-url", index, "--target", client.target, "--no-deps", "iniconfig")
        assert (client.target / "iniconfig").is_dir()

    outside = {name: value for name, value in os.environ.items() if name.lower() in _WAYS_OUT}
    teepi = await make_process(upstream=upstream, environment=outside)
    await install(teepi.url)
    counters = json.loads((await fetch(teepi.address, "/+status")).body)["counters"]
    assert counters["committed"] >= 1
    assert counters["upstream_requests"] >= 2
    assert await teepi.terminate() == 0
    teepi = await make_process(upstream=upstream, arguments=["--offline"])
    await install(teepi.url)
