"""pdm with teepi in the place of its default index."""

from __future__ import annotations

import shutil
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.clients.installers import APP, Client

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.conftest import Offline
    from tests.clients.installers import Shop
    from tests.conftest import MakeProcess

pytestmark = pytest.mark.client

PROJECT = APP + "\n[tool.pdm]\ndistribution = false\n"


@pytest.mark.parametrize(("shop", "option"), [("json", ""), ("html", "static_urls")], indirect=["shop"])
async def test_pdm_locks_and_installs_through_teepi_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path, option: str
) -> None:
    """Contract 39 and 41. By configure, or the variable: its URLs are in the lock with ``static_urls`` alone."""
    client = Client("pdm", tmp_path / "home")
    client.fresh()
    teepi = await make_process()
    (client.home / "pyproject.toml").write_text(PROJECT)
    settings = {
        "PDM_CHECK_UPDATE": "0",
    }
    if option:
        settings["PDM_PYPI_URL"] = f"{teepi.url}/root/pypi/+simple/"
    else:
        await client.configure(teepi.url)

    async def install() -> None:
        await client.run("pdm", "install", "--frozen-lockfile", **settings)
        python = client.home / ".venv" / "bin" / "python"
        assert await client.versions("teetop", "teebase", "teebuilt", python=python) == ["2.0", "1.5", "3.0"]

    await client.run("pdm", "lock", *(["--strategy", option] if option else []), **settings)
    await install()
    shop.assert_fetched_once()
    requests = len(shop.upstream.requests)
    await offline(teepi)
    for made in (".venv", ".cache"):
        shutil.rmtree(client.home / made)
    await install()
    assert len(shop.upstream.requests) == requests
    text = (client.home / "pdm.lock").read_text()
    locked = {each["name"]: each["version"] for each in tomllib.loads(text)["package"]}
    assert locked == {"teetop": "2.0", "teebase": "1.5", "teebuilt": "3.0"}
    assert (teepi.url in text) is (option == "static_urls")
    if option == "static_urls":  # used as they stand, so that another prefix is another place to fetch from
        ours = f"{teepi.url}/root/pypi/+http/"
        (client.home / "pdm.lock").write_text(text.replace(ours, "http://"))
        shop.upstream.requests.clear()
        for made in (".venv", ".cache"):
            shutil.rmtree(client.home / made)
        await install()
        shop.assert_fetched_once()
