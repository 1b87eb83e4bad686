"""A reload: which settings a running server takes over, and which it keeps until a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from teepi.index_settings import IndexSettings
from tests.http.scene import CALM
from tests.support.clients import RawClient, fetch
from tests.support.upstream import Upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTeepi

FILENAME = "demo-1.0-py3-none-any.whl"
PAGE = "/root/pypi/+simple/demo/"


async def test_reload_brings_new_indexes_ttls_and_offline_into_a_running_server(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Each of them holds from the next request on; a removed index is gone."""
    upstream.project("demo", {FILENAME: b"x" * 100})
    teepi = await make_teepi()
    assert (await fetch(teepi.address, "/team/all/+simple/demo/")).status == 404
    made_of = {**teepi.settings.indexes, "team/all": IndexSettings(bases=("root/pypi",))}
    assert teepi.server.reload(replace(teepi.settings, indexes=made_of, page_ttl_seconds=0.0)) == []
    assert (await fetch(teepi.address, "/team/all/+simple/demo/")).status == 200
    before = upstream.count("GET", "/simple/demo/")
    assert (await fetch(teepi.address, PAGE)).status == 200
    assert upstream.count("GET", "/simple/demo/") == before + 1
    assert teepi.server.reload(replace(teepi.settings, offline=True)) == []
    assert (await fetch(teepi.address, PAGE)).status == 200
    assert (await fetch(teepi.address, "/simple/other/")).status == 503
    assert (await fetch(teepi.address, "/team/all/+simple/demo/")).status == 404
    assert upstream.count("GET", "/simple/demo/") == before + 1


async def test_reload_with_another_upstream_asks_that_one_and_lets_running_transfers_end(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """A transfer that the former upstream has begun comes whole; new requests go to the new one."""
    content = bytes(range(256)) * 4096
    upstream.project("demo", {FILENAME: content})
    gate = upstream.gate(f"/packages/demo/{FILENAME}", at=len(content) // 2)
    teepi = await make_teepi(CALM)
    await fetch(teepi.address, PAGE)
    other = Upstream()
    await other.start()
    try:
        async with await RawClient.connect(teepi.address) as client:
            await client.send("GET", f"/packages/demo/{FILENAME}")
            await gate.reached.wait()
            changed = {"root/pypi": replace(teepi.settings.indexes["root/pypi"], upstream=other.index_url)}
            teepi.server.reload(replace(teepi.settings, indexes=changed))
            other.project("new", {})
            assert (await fetch(teepi.address, "/simple/new/")).status == 200
            gate.open()
            assert (await client.read_answer()).body == content
        assert upstream.count("GET", "/simple/new/") == 0
    finally:
        await other.stop()


async def test_reload_of_synthesize_metadata_renders_pages_anew(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A page in memory shows at once what is offered now."""
    upstream.project("demo", {FILENAME: b"x"}, form="html")
    teepi = await make_teepi()
    assert b"data-core-metadata" in (await fetch(teepi.address, PAGE)).body
    teepi.server.reload(replace(teepi.settings, synthesize_metadata=False))
    assert b"data-core-metadata" not in (await fetch(teepi.address, PAGE)).body


async def test_reload_keeps_what_needs_a_restart_and_names_it(make_teepi: MakeTeepi, tmp_path: Path) -> None:
    """Sockets and directories stay as they are, and the operator is told, by the names of the keys."""
    teepi = await make_teepi()
    wanted = replace(
        teepi.settings,
        listen=(("127.0.0.1", 1),),
        cache_dir=tmp_path / "elsewhere",
        max_size_bytes=1,
        min_free_bytes=1,
        page_ttl_seconds=1.0,
    )
    assert teepi.server.reload(wanted) == ["listen", "cache_dir", "max_size", "min_free"]
    now = teepi.server.live.settings
    assert (now.listen, now.cache_dir) == (teepi.settings.listen, teepi.settings.cache_dir)
    assert now.page_ttl_seconds == 1.0
