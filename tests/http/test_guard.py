"""Writes on a live server: every one comes past the guard, reading and operators' socket do not."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from teepi import cli
from tests.support.clients import fetch

if TYPE_CHECKING:
    import pytest

    from tests.conftest import MakeTeepi
    from tests.support.upstream import Upstream

EVIL = {"Host": "evil.example"}
WHEEL = "demo-1.0-py3-none-any.whl"


async def test_write_under_a_foreign_name_is_403_before_anything_looks_at_it(
    make_teepi: MakeTeepi, upstream: Upstream
) -> None:
    """A DELETE as proxpi has it, operators' calls and what is nowhere; the reason phrase says it, too."""
    upstream.project("demo", {WHEEL: b"x"})
    teepi = await make_teepi(proxpi_invalidation=True)
    for method, target in (("DELETE", "/cache/demo"), ("POST", "/+operator/info"), ("PUT", "/nowhere")):
        answer = await fetch(teepi.address, target, EVIL, method)
        assert answer.status == 403
        assert "allowed_hosts" in answer.head.reason
        assert answer.head.reason == answer.body.decode().strip()
    page = await fetch(teepi.address, "/cache/demo", {"Host": "box", "Origin": "http://evil.example"}, "DELETE")
    assert page.status == 403
    assert (await fetch(teepi.address, "/cache/demo", {"Host": "box"}, "DELETE")).status == 200
    assert (await fetch(teepi.address, "/simple/demo/", EVIL)).status == 200
    assert (await fetch(teepi.address, "/simple/demo/", EVIL, "OPTIONS")).status == 405


async def test_reload_brings_new_names_into_a_running_server(make_teepi: MakeTeepi) -> None:
    """And takes them away."""
    teepi = await make_teepi(proxpi_invalidation=True, allowed_hosts=())
    assert (await fetch(teepi.address, "/cache/list", EVIL, "DELETE")).status == 403
    assert teepi.server.reload(replace(teepi.settings, outside_url="https://evil.example")) == []
    assert (await fetch(teepi.address, "/cache/list", EVIL, "DELETE")).status == 200
    assert teepi.server.reload(replace(teepi.settings, allowed_hosts=("*.example",))) == []
    assert (await fetch(teepi.address, "/cache/list", EVIL, "DELETE")).status == 200
    assert teepi.server.reload(teepi.settings) == []
    assert (await fetch(teepi.address, "/cache/list", EVIL, "DELETE")).status == 403


async def test_socket_of_operators_asks_for_no_name(make_teepi: MakeTeepi, capsys: pytest.CaptureFixture[str]) -> None:
    """Its mode is the permission."""
    settings = (await make_teepi(allowed_hosts=())).settings
    places = ["--cache-dir", str(settings.cache_dir), "--data-dir", str(settings.data_dir)]
    assert await asyncio.to_thread(cli.main, ["cache", "info", "--json", *places]) == 0
    assert json.loads(capsys.readouterr().out)["server"] is not None


async def test_outside_url_begins_the_links_of_legacy_json_and_the_lines_of_the_page(
    make_teepi: MakeTeepi, upstream: Upstream
) -> None:
    """Of the setting, else of a proxy's header, by which answers then differ."""
    upstream.project("demo", {WHEEL: b"x"})
    teepi = await make_teepi()
    proxied = {"X-Outside-URL": "https://b.example/sub"}
    answer = await fetch(teepi.address, "/pypi/demo/json", proxied)
    assert json.loads(answer.body)["urls"][0]["url"].startswith("https://b.example/sub/root/pypi/")
    assert answer.headers["vary"] == "Host, X-Outside-URL"
    teepi.server.reload(replace(teepi.settings, outside_url="https://a.example/teepi"))
    answer = await fetch(teepi.address, "/pypi/demo/json", proxied)
    assert json.loads(answer.body)["urls"][0]["url"].startswith("https://a.example/teepi/root/pypi/")
    home = await fetch(teepi.address, "/", proxied)
    assert b"https://a.example/teepi/root/pypi/+simple/" in home.body
