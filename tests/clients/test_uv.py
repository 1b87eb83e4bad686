"""uv installing, locking and syncing through teepi."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.clients.installers import Client

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.conftest import Offline
    from tests.clients.installers import Shop
    from tests.conftest import MakeProcess

pytestmark = pytest.mark.client

PROJECT = """[project]
name = "app"
version = "0"
requires-python = ">=3.11"
dependencies = ["teetop"]
"""


async def test_uv_pip_installs_through_teepi_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path
) -> None:
    """The newest versions with a dependency and an sdist, every file fetched once; then without upstream."""
    client = Client("uv", tmp_path / "home")
    teepi = await make_process()

    async def install() -> None:
        client.fresh()
        index = f"{teepi.url}/root/pypi/+simple/"
        await client.run("uv", "pip", "install", "--target", client.target, "teetop", UV_DEFAULT_INDEX=index)
        assert await client.versions("teetop", "teebase", "teebuilt") == ["2.0", "1.5", "3.0"]

    await install()
    shop.assert_fetched_once()
    requests = len(shop.upstream.requests)
    await offline(teepi)
    await install()
    assert len(shop.upstream.requests) == requests


async def test_uv_locks_and_syncs_through_teepi_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path
) -> None:
    """The lock file names teepi's URLs; a sync from it alone works without upstream (contract 41)."""
    client = Client("uv", tmp_path / "home")
    teepi = await make_process()
    index = f"{teepi.url}/root/pypi/+simple/"
    client.fresh()
    (client.home / "pyproject.toml").write_text(PROJECT)

    async def sync(*options: str) -> None:
        await client.run("uv", "sync", *options, UV_DEFAULT_INDEX=index)
        python = client.home / ".venv" / "bin" / "python"
        assert await client.versions("teetop", "teebase", "teebuilt", python=python) == ["2.0", "1.5", "3.0"]

    await client.run("uv", "lock", UV_DEFAULT_INDEX=index)
    await sync()
    shop.assert_fetched_once()
    lock = (client.home / "uv.lock").read_text()
    authority = shop.upstream.url.removeprefix("http://")
    assert all(f'url = "{teepi.url}/root/pypi/+http/{authority}{path}"' in lock for path in shop.wanted)
    requests = len(shop.upstream.requests)
    await offline(teepi)
    for made in (".venv", ".cache"):
        shutil.rmtree(client.home / made)
    await sync("--frozen")
    assert len(shop.upstream.requests) == requests
