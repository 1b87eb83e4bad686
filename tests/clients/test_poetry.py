"""poetry with teepi as its primary source, and with the mirror plugin."""

from __future__ import annotations

import shutil
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.clients.installers import APP, Client
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.conftest import Offline
    from tests.clients.installers import Shop
    from tests.conftest import MakeProcess
    from tests.support.teepi import TeepiProcess

pytestmark = pytest.mark.client

PROJECT = APP + "\n[tool.poetry]\npackage-mode = false\n"
SETTINGS = {
    "POETRY_VIRTUALENVS_IN_PROJECT": "1",
    "POETRY_KEYRING_ENABLED": "0",
}


async def lock_and_install(
    client: Client, teepi: TeepiProcess, shop: Shop, offline: Offline, **settings: str
) -> list[dict[str, object]]:
    """Lock and install, then install again without upstream; return the locked packages."""

    async def install() -> None:
        await client.run("poetry", "install", "--no-interaction", **SETTINGS, **settings)
        python = client.home / ".venv" / "bin" / "python"
        assert await client.versions("teetop", "teebase", "teebuilt", python=python) == ["2.0", "1.5", "3.0"]

    await client.run("poetry", "lock", "--no-interaction", **SETTINGS, **settings)
    await install()
    shop.assert_fetched_once()
    requests = len(shop.upstream.requests)
    await offline(teepi)
    for made in (".venv", ".cache"):
        shutil.rmtree(client.home / made)
    await install()
    assert len(shop.upstream.requests) == requests
    packages: list[dict[str, object]] = tomllib.loads((client.home / "poetry.lock").read_text())["package"]
    assert {each["name"]: each["version"] for each in packages} == {
        "teetop": "2.0",
        "teebase": "1.5",
        "teebuilt": "3.0",
    }
    return packages


@pytest.mark.parametrize("shop", ["html"], indirect=True)
async def test_poetry_locks_and_installs_from_a_primary_source_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path
) -> None:
    """Contract 39 and 41. By ``teepi configure``: each locked package has its URL; a new lock replaces that alone."""
    client = Client("poetry", tmp_path / "home")
    client.fresh()
    teepi = await make_process()
    index = f"{teepi.url}/root/pypi/+simple"
    source = f'\n[[tool.poetry.source]]\nname = "teepi"\nurl = "{index}/"\npriority = "primary"\n'
    (client.home / "pyproject.toml").write_text(PROJECT)
    await client.configure(teepi.url)
    packages = await lock_and_install(client, teepi, shop, offline)
    assert all(each["source"] == {"type": "legacy", "url": index, "reference": "teepi"} for each in packages)
    assert (client.home / "poetry.lock").read_text().count(teepi.url) == len(packages)
    shop.projects[1].put("teebase-1.6-py3-none-any.whl", wheel("teebase", "1.6").content)
    (client.home / "pyproject.toml").write_text(PROJECT + source.replace(f"{index}/", shop.upstream.index_url))
    await client.run("poetry", "lock", "--no-interaction", **SETTINGS)
    lock = (client.home / "poetry.lock").read_text()
    assert lock.count(shop.upstream.index_url.rstrip("/")) == len(packages)
    assert teepi.url not in lock
    assert "1.6" not in lock


@pytest.mark.parametrize("shop", ["json"], indirect=True)
async def test_poetry_locks_and_installs_through_the_mirror_plugin_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path
) -> None:
    """Contract 39 and 41. ``POETRY_PYPI_MIRROR_URL`` leaves nothing of teepi in the lock file."""
    client = Client("poetry", tmp_path / "home")
    client.fresh()
    teepi = await make_process()
    (client.home / "pyproject.toml").write_text(PROJECT)
    index = f"{teepi.url}/root/pypi/+simple/"
    packages = await lock_and_install(client, teepi, shop, offline, POETRY_PYPI_MIRROR_URL=index)
    assert not any("source" in each for each in packages)
    assert teepi.url not in (client.home / "poetry.lock").read_text()
