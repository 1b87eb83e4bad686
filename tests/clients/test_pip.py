"""pip, the newest and those of 2024 and 2021, installing through teepi."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.installers import CONFIGURED, Client, open_shop
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
PIPS = ["pip", "pip-24.0", "pip-20.3"]


async def install(client: Client, teepi: TeepiProcess, path: str = "/root/pypi/+simple/") -> str:
    """Install ``teetop`` into a fresh target with an empty cache; return what pip says."""
    client.fresh()
    index = teepi.url + path
    return await client.run("pip", "install", "--index-url", index, "--target", client.target, "teetop")


# One form of the upstream for each: which it is, no pip sees.
@pytest.mark.parametrize(("shop", "name"), list(zip(["html", "json", "html"], PIPS, strict=True)), indirect=["shop"])
async def test_pip_installs_through_teepi_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path, name: str
) -> None:
    """Contract 39. Set up by ``teepi configure``: each file of the newest versions once; then without upstream."""
    client = Client(name, tmp_path / "home")
    teepi = await make_process()
    client.fresh()
    await client.configure(teepi.url)
    await client.run("pip", "install", "--target", client.target, "teetop", **CONFIGURED)
    assert await client.versions("teetop", "teebase", "teebuilt") == ["2.0", "1.5", "3.0"]
    shop.assert_fetched_once()
    requests = len(shop.upstream.requests)
    await offline(teepi)
    await install(client, teepi, "/simple/")
    assert await client.versions("teetop", "teebase", "teebuilt") == ["2.0", "1.5", "3.0"]
    assert len(shop.upstream.requests) == requests


@pytest.mark.parametrize("name", ["pip", "pip-20.3"])
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


@pytest.mark.parametrize("shop", ["json"], indirect=True)
async def test_pip_uploaded_prior_to_leaves_out_what_was_uploaded_later(
    make_process: MakeProcess, shop: Shop, tmp_path: Path
) -> None:
    """Contract 10 and 12. pip refuses an index without upload times; through teepi it sees upstream's."""
    client = Client("pip", tmp_path / "home")
    client.fresh()
    shop.stamp(others="2025-01-01T00:00:00Z", newest="2025-03-01T12:30:00.123456Z")
    index = f"{(await make_process()).url}/root/pypi/+simple/"
    command = ["pip", "install", "--index-url", index, "--target", str(client.target)]
    await client.run(*command, "--uploaded-prior-to", "2025-02-01T00:00:00Z", "teetop", "teebase")
    assert await client.versions("teetop", "teebase") == ["1.0", "1.0"]
    assert set(shop.fetched()) == {f"/packages/{name}/{name}-1.0-py3-none-any.whl" for name in ("teetop", "teebase")}


@pytest.mark.parametrize("shop", ["json"], indirect=True)
async def test_pip_lock_holds_file_urls_that_install_by_themselves(
    make_process: MakeProcess, shop: Shop, tmp_path: Path
) -> None:
    """Contract 2 and 41. pip escapes them (``%2Bhttp``) and asks by them; ``pip freeze`` names no URL."""
    client = Client("pip", tmp_path / "home")
    client.fresh()
    teepi = await make_process()
    index = f"{teepi.url}/root/pypi/+simple/"
    await client.run("pip", "lock", "--index-url", index, "teetop")
    lock = (client.home / "pylock.toml").read_text()
    authority = shop.upstream.url.removeprefix("http://").replace(":", "%3A")
    assert all(f'"{teepi.url}/root/pypi/%2Bhttp/{authority}{path}"' in lock for path in shop.wanted)
    await client.run("pip", "install", "--target", client.target, "-r", "pylock.toml", "--report", "report.json")
    assert f"{teepi.url}/root/pypi/%2Bhttp/{authority}{shop.wanted[0]}" in (client.home / "report.json").read_text()
    assert await client.versions("teetop", "teebase", "teebuilt") == ["2.0", "1.5", "3.0"]
    shop.assert_fetched_once()
    moved = lock.replace(f"{teepi.url}/root/pypi/%2Bhttp/{authority}/", f"{shop.upstream.url}/")
    assert teepi.url not in moved
    client.fresh()
    (client.home / "pylock.toml").write_text(moved)
    shop.upstream.requests.clear()
    await client.run("pip", "install", "--target", client.target, "-r", "pylock.toml")
    shop.assert_fetched_once()
    assert await client.run("pip", "freeze", "--path", client.target) == "teebase==1.5\nteebuilt==3.0\nteetop==2.0\n"
