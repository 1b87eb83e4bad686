"""uv installing, locking and syncing through teepi."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.clients.installers import APP, CONFIGURED, Client
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.conftest import Offline
    from tests.clients.installers import Shop
    from tests.conftest import MakeProcess

pytestmark = pytest.mark.client


@pytest.mark.parametrize("shop", ["json"], indirect=True)
async def test_uv_pip_installs_through_teepi_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path
) -> None:
    """Contract 39. Set up by ``teepi configure``: each file of the newest versions once; then without upstream."""
    client = Client("uv", tmp_path / "home")
    teepi = await make_process()

    async def install() -> None:
        client.fresh()
        await client.configure(teepi.url)
        await client.run("uv", "pip", "install", "--target", client.target, "teetop", **CONFIGURED)
        assert await client.versions("teetop", "teebase", "teebuilt") == ["2.0", "1.5", "3.0"]

    await install()
    shop.assert_fetched_once()
    requests = len(shop.upstream.requests)
    await offline(teepi)
    await install()
    assert len(shop.upstream.requests) == requests


@pytest.mark.parametrize("shop", ["html"], indirect=True)
async def test_uv_locks_and_syncs_through_teepi_and_again_offline(
    make_process: MakeProcess, offline: Offline, shop: Shop, tmp_path: Path
) -> None:
    """The lock file names teepi's URLs; a sync from it alone works without upstream (contract 41)."""
    client = Client("uv", tmp_path / "home")
    teepi = await make_process()
    index = f"{teepi.url}/root/pypi/+simple/"
    client.fresh()
    (client.home / "pyproject.toml").write_text(APP)

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


@pytest.mark.parametrize("shop", ["json"], indirect=True)
async def test_uv_lock_made_through_teepi_equals_upstreams_and_each_serves_for_the_other(
    make_process: MakeProcess, shop: Shop, tmp_path: Path
) -> None:
    """Contract 40. Two prefixes replaced, to and fro; ``sync --frozen`` also from a teepi that knows no page yet."""
    client = Client("uv", tmp_path / "home")
    upstream = shop.upstream
    shop.stamp(others="2025-01-01T00:00:00Z", newest="2025-03-01T12:30:00.123456Z")
    teepi = await make_process()
    lock = client.home / "uv.lock"
    authority = upstream.url.removeprefix("http://")
    prefixes = {
        f"{teepi.url}/root/pypi/+simple/": upstream.index_url,
        f"{teepi.url}/root/pypi/+http/{authority}/packages/": f"{upstream.url}/packages/",
    }

    async def locked(index: str) -> str:
        client.fresh()
        (client.home / "pyproject.toml").write_text(APP)
        await client.run("uv", "lock", UV_DEFAULT_INDEX=index)
        return lock.read_text()

    async def sync(text: str) -> None:
        client.fresh()
        (client.home / "pyproject.toml").write_text(APP)
        lock.write_text(text)
        await client.run("uv", "sync", "--frozen")
        python = client.home / ".venv" / "bin" / "python"
        assert await client.versions("teetop", "teebase", "teebuilt", python=python) == ["2.0", "1.5", "3.0"]

    direct = await locked(upstream.index_url)
    ours = direct
    for at_teepi, at_upstream in prefixes.items():
        ours = ours.replace(at_upstream, at_teepi)
    upstream.requests.clear()
    await sync(ours)
    shop.assert_fetched_once()
    requests = len(upstream.requests)
    through = await locked(f"{teepi.url}/root/pypi/+simple/")
    assert through == ours
    assert len(upstream.requests) > requests
    theirs = through
    for at_teepi, at_upstream in prefixes.items():
        theirs = theirs.replace(at_teepi, at_upstream)
    assert theirs == direct
    upstream.requests.clear()
    await sync(theirs)
    shop.assert_fetched_once()
    # uv itself moves a lock file, too: the versions stay, although there are newer ones.
    shop.projects[1].put("teebase-1.6-py3-none-any.whl", wheel("teebase", "1.6").content)
    lock.write_text(ours)
    await client.run("uv", "lock", UV_DEFAULT_INDEX=upstream.index_url)
    assert lock.read_text() == direct


@pytest.mark.parametrize("shop", ["json"], indirect=True)
async def test_uv_exclude_newer_leaves_out_what_was_uploaded_later(
    make_process: MakeProcess, shop: Shop, tmp_path: Path
) -> None:
    """Contract 10 and 12. Upload times come through: nothing after the date, and no complaint of a missing time."""
    client = Client("uv", tmp_path / "home")
    client.fresh()
    shop.stamp(others="2025-01-01T00:00:00Z", newest="2025-03-01T12:30:00.123456Z")
    teepi = await make_process()
    index = f"{teepi.url}/root/pypi/+simple/"
    command = ["uv", "pip", "install", "--target", str(client.target), "--exclude-newer", "2025-02-01T00:00:00Z"]
    said = await client.run(*command, "teetop", "teebase", UV_DEFAULT_INDEX=index)
    assert "missing an upload date" not in said
    assert await client.versions("teetop", "teebase") == ["1.0", "1.0"]
    assert set(shop.fetched()) == {f"/packages/{name}/{name}-1.0-py3-none-any.whl" for name in ("teetop", "teebase")}


@pytest.mark.parametrize("shop", ["json"], indirect=True)
async def test_uv_requirements_hold_no_url_of_teepi_and_a_lock_is_bound_to_its_index(
    make_process: MakeProcess, shop: Shop, tmp_path: Path
) -> None:
    """Contract 41. ``export`` and ``pip compile`` name teepi only when told to; ``lock --check`` needs its index."""
    client = Client("uv", tmp_path / "home")
    client.fresh()
    teepi = await make_process()
    index = f"{teepi.url}/root/pypi/+simple/"
    (client.home / "pyproject.toml").write_text(APP)

    async def compiled(*options: str) -> str:
        return await client.run("uv", "pip", "compile", "--quiet", *options, "pyproject.toml", UV_DEFAULT_INDEX=index)

    assert teepi.url not in await compiled("--generate-hashes")
    assert f"--index-url {index}" in await compiled("--emit-index-url")
    assert f"{teepi.url}/root/pypi/+http/" in await compiled("--format", "pylock.toml")
    await client.run("uv", "lock", UV_DEFAULT_INDEX=index)
    exported = await client.run("uv", "export", "--quiet", UV_DEFAULT_INDEX=index)
    assert all(f"--hash=sha256:{digest}" in exported for digest in shop.digests)
    assert teepi.url not in exported
    await client.run("uv", "lock", "--check", UV_DEFAULT_INDEX=index)
    code, said = await client.end("uv", "lock", "--check", UV_DEFAULT_INDEX=shop.upstream.index_url)
    assert (code, "needs to be updated" in said) == (1, True)
    assert shop.upstream.count("GET", "/simple/teetop/") == 2  # teepi's, and the last one
