"""pipenv with teepi as its mirror: locking and syncing."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize(
    ("shop", "path"),
    [("json", "/simple"), ("html", "/simple/"), ("json", "/root/pypi/+simple")],
    indirect=["shop"],
)
async def test_pipenv_locks_and_syncs_through_a_mirror_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path, path: str
) -> None:
    """``PIPENV_PYPI_MIRROR`` with and without a trailing slash (contract 4: it then asks for ``/simple//name/``)."""
    client = Client("pipenv", tmp_path / "home")
    teepi = await make_process()
    settings = {
        "PIPENV_PYPI_MIRROR": teepi.url + path,
        "PIPENV_VENV_IN_PROJECT": "1",
        "PIPENV_NOSPIN": "1",
        "PIPENV_PYTHON": str(client.python),
        "VIRTUALENV_NO_PERIODIC_UPDATE": "1",  # its own wheels for pip and setuptools do
    }
    client.fresh()
    (client.home / "Pipfile").write_text('[packages]\nteetop = "*"\n')

    async def sync() -> None:
        await client.run("pipenv", "sync", **settings)
        python = client.home / ".venv" / "bin" / "python"
        assert await client.versions("teetop", "teebase", "teebuilt", python=python) == ["2.0", "1.5", "3.0"]

    await client.run("pipenv", "lock", **settings)
    await sync()
    shop.assert_fetched_once()
    locked = json.loads((client.home / "Pipfile.lock").read_text())["default"]
    assert {name: entry["version"] for name, entry in locked.items()} == {
        "teetop": "==2.0",
        "teebase": "==1.5",
        "teebuilt": "==3.0",
    }
    requests = len(shop.upstream.requests)
    await offline(teepi)
    for made in (".venv", ".cache"):
        shutil.rmtree(client.home / made)
    await sync()
    assert len(shop.upstream.requests) == requests
