"""pipenv with teepi as its mirror: locking and syncing."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from teepi import config
from tests.clients.installers import Client

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.conftest import Offline
    from tests.clients.installers import Shop
    from tests.conftest import MakeProcess

pytestmark = pytest.mark.client


@pytest.mark.parametrize(
    ("shop", "path", "with_source"),
    [("html", "/simple/", False), ("json", "/root/pypi/+simple", True)],
    indirect=["shop"],
)
async def test_pipenv_locks_and_syncs_through_a_mirror_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path, path: str, *, with_source: bool
) -> None:
    """Contract 4, 39 and 41. A variable with a trailing slash (``/simple//name/`` is asked), or without, by configure.

    The lock file names the mirror where the Pipfile names no source, and never where it names the public index.
    """
    client = Client("pipenv", tmp_path / "home")
    teepi = await make_process()
    settings = {
        "PIPENV_PYPI_MIRROR": teepi.url + path,
        "PIPENV_VENV_IN_PROJECT": "1",
        "PIPENV_NOSPIN": "1",
        "PIPENV_PYTHON": str(client.python),
    }
    client.fresh()
    public = config.load({}, {"HOME": "/"}).indexes[config.DEFAULT_INDEX_NAME].upstream
    source = f'[[source]]\nname = "pypi"\nurl = "{public}"\nverify_ssl = true\n\n' if with_source else ""
    (client.home / "Pipfile").write_text(source + '[packages]\nteetop = "*"\n')

    command = ["pipenv"]
    if with_source:
        await client.configure(teepi.url)
        del settings["PIPENV_PYPI_MIRROR"]
        command = ["sh", "-c", '. "$HOME/.profile"; exec "$0" "$@"', "pipenv"]

    async def sync() -> None:
        await client.run(*command, "sync", **settings)
        python = client.home / ".venv" / "bin" / "python"
        assert await client.versions("teetop", "teebase", "teebuilt", python=python) == ["2.0", "1.5", "3.0"]

    await client.run(*command, "lock", **settings)
    await sync()
    shop.assert_fetched_once()
    lock = json.loads((client.home / "Pipfile.lock").read_text())
    assert [each["url"] for each in lock["_meta"]["sources"]] == [
        public if with_source else settings["PIPENV_PYPI_MIRROR"]
    ]
    assert (teepi.url in json.dumps(lock)) is not with_source
    locked = lock["default"]
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
