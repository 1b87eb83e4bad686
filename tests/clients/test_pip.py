"""pip, the newest and one of 2021, installing through teepi."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.installers import Client, open_shop
from tests.support.faults import Reset, WrongBytes
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.conftest import Offline
    from tests.clients.installers import Shop
    from tests.conftest import MakeProcess
    from tests.support.teepi import TeepiProcess
    from tests.support.upstream import Upstream

pytestmark = pytest.mark.client

MIB = 1024 * 1024
PIPS = ["pip", "pip-20.3"]


async def install(client: Client, teepi: TeepiProcess, path: str = "/root/pypi/+simple/") -> str:
    """Install ``teetop`` into a fresh target with an empty cache; return what pip says."""
    client.fresh()
    index = teepi.url + path
    return await client.run("pip", "install", "--index-url", index, "--target", client.target, "teetop")


@pytest.mark.parametrize("name", PIPS)
async def test_pip_installs_through_teepi_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path, name: str
) -> None:
    """The newest versions with a dependency and an sdist, every file fetched once; then without upstream."""
    client = Client(name, tmp_path / "home")
    teepi = await make_process()
    await install(client, teepi)
    assert await client.versions("teetop", "teebase", "teebuilt") == ["2.0", "1.5", "3.0"]
    shop.assert_fetched_once()
    requests = len(shop.upstream.requests)
    await offline(teepi)
    await install(client, teepi, "/simple/")
    assert await client.versions("teetop", "teebase", "teebuilt") == ["2.0", "1.5", "3.0"]
    assert len(shop.upstream.requests) == requests


@pytest.mark.parametrize("name", PIPS)
async def test_pip_does_not_notice_an_upstream_that_breaks_in_mid_file(
    make_process: MakeProcess, upstream: Upstream, tmp_path: Path, name: str
) -> None:
    """Four resets, each resumed by Range behind one answer; pip warns of nothing (contract 30)."""
    client = Client(name, tmp_path / "home")
    shop = open_shop(upstream, "json", padding=5 * MIB)
    _, base, _ = shop.wanted
    upstream.script(base, [Reset(count * MIB + count) for count in (1, 2, 3, 4)])
    said = await install(client, await make_process())
    assert "WARNING" not in said
    assert await client.versions("teetop", "teebase") == ["2.0", "1.5"]
    first, *resumed = upstream.ranges(base)
    assert first is None
    assert len(resumed) == 4
    assert None not in resumed


async def test_pip_is_refused_a_wrong_file_and_gets_the_right_one(
    make_process: MakeProcess, upstream: Upstream, tmp_path: Path
) -> None:
    """Wrong bytes once: pip's own retry gets the right file, and never sees a whole wrong one (contract 32)."""
    client = Client("pip", tmp_path / "home")
    shop = open_shop(upstream, "json", padding=MIB)
    _, base, _ = shop.wanted
    upstream.script(base, [WrongBytes(1000)])
    said = await install(client, await make_process())
    assert "DO NOT MATCH" not in said
    assert await client.versions("teebase") == ["1.5"]
    assert upstream.count("GET", base) == 2


async def test_pip_resolving_against_an_upstream_without_metadata_fetches_no_whole_wheel(
    make_process: MakeProcess, upstream: Upstream, tmp_path: Path
) -> None:
    """Contract 15. Thirty projects on HTML pages: pip takes the metadata that teepi reads out of each by one range."""
    client = Client("pip", tmp_path / "home")
    count = 30
    paths = []
    for number in range(count):
        requires = [f"tee{number + 1}>=1"] if number + 1 < count else []
        built = wheel(f"tee{number}", requires=requires, padding=200_000, seed=number)
        paths.append(
            upstream.project(f"tee{number}", {built.filename: built.content}, form="html").path(built.filename)
        )
    teepi = await make_process()
    for _ in range(2):  # the second time from the cache, with the hash that the page now says
        client.fresh()
        index = teepi.url + "/root/pypi/+simple/"
        said = await client.run("pip", "install", "--dry-run", "--index-url", index, "--target", client.target, "tee0")
        would = said.partition("Would install ")[2].split()
        assert sorted(would) == sorted(f"tee{number}-1.0" for number in range(count))
        ranges = [upstream.ranges(path) for path in paths]
        assert all(len(each) == 1 and each[0] is not None for each in ranges)
