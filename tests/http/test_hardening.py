"""What a review by fresh eyes broke, and stays mended."""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING

import pytest

from teepi.errors import BadPage
from teepi.simple_api import parse_page
from tests.http.links import links
from tests.http.scene import CALM, stage
from tests.support.clients import fetch
from tests.support.faults import Redirect, Replace, WrongBytes
from tests.support.wheels import noise

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

CONTENT = noise(3_000_000)


async def test_if_range_by_date_never_joins_a_wrong_head_to_a_right_tail(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Contract 32. A wrong copy and the right one have the same Last-Modified: only ETags tell them apart."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=CALM)
    upstream.script(scene.path, [WrongBytes(10)])
    short = await scene.get()
    assert not short.complete
    headers = {"Range": f"bytes={len(short.body)}-", "If-Range": short.headers["last-modified"]}
    again = await scene.get(headers)
    assert (again.status, again.body) == (200, CONTENT)


async def test_query_of_an_upstream_url_is_never_shown(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A signed link is a secret: a redirect loop or a bad page after one says where, not with what."""
    path = "/packages/demo/demo-1.0.tar.gz"
    signed = {"demo-1.0.tar.gz": {"url": f"{upstream.url}{path}?sig=TOPSECRET"}}
    upstream.project("demo", {"demo-1.0.tar.gz": b"x"}, extra=signed)
    upstream.script(path, itertools.repeat(Redirect(f"{path}?sig=TOPSECRET")))
    teepi = await make_teepi()
    page = await fetch(teepi.address, "/simple/demo/")
    answer = await fetch(teepi.address, links(page, "/simple/demo/")["demo-1.0.tar.gz"])
    assert answer.status == 503
    assert b"TOPSECRET" not in answer.body
    url = "https://i.example/?t=TOPSECRET"
    with pytest.raises(BadPage) as caught:
        parse_page(b"{", content_type="application/json", url=url, index="a/b", project="c")
    assert "TOPSECRET" not in caught.value.message


async def test_upstream_size_of_absurd_length_is_no_size(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Fault 13. A 416 whose size has thousands of digits is an upstream error, not a defect of ours."""
    from tests.support.faults import Status  # noqa: PLC0415 - only here

    scene = await stage(upstream, make_teepi, CONTENT, limits=CALM)
    upstream.script(scene.path, [Status(416, {"Content-Range": "bytes */" + "9" * 5000})])
    answer = await scene.get({"Range": "bytes=5-9"})
    assert answer.status in {502, 503}


async def test_page_whose_head_is_damaged_on_disk_is_fetched_anew(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Fault 7. The checksum covers what is known of a page as well as its bytes."""
    upstream.project("demo", {"demo-1.0.tar.gz": b"x"})
    teepi = await make_teepi()
    first = await fetch(teepi.address, "/simple/demo/")
    await teepi.stop()
    (path,) = teepi.settings.cache_dir.rglob("*.page")
    checksum, head, body = path.read_bytes().split(b"\n", 2)
    damaged = json.loads(head) | {"content_type": None}
    path.write_bytes(b"\n".join((checksum, json.dumps(damaged).encode(), body)))
    again = await make_teepi()
    answer = await fetch(again.address, "/simple/demo/")
    assert (answer.status, answer.body) == (200, first.body)
    assert upstream.count("GET", "/simple/demo/") == 2


@pytest.mark.parametrize("what", ["fifo", "link"])
async def test_what_is_no_file_in_place_of_a_stored_one_is_none(
    upstream: Upstream, make_teepi: MakeTeepi, tmp_path: Path, what: str
) -> None:
    """Fault 7. It hangs no request and leads nowhere: pages, lists, legacy JSON and files without a digest alike."""
    name = "demo-1.0.tar.gz"
    upstream.project("demo", {name: b"x"}, sha256=False)
    upstream.file("/pypi/demo/json", b'{"info": {}}', content_type="application/json")
    upstream.file(f"/packages/demo/{name}", b"x")
    teepi = await make_teepi()

    async def ask(teepi: Teepi) -> list[Answer]:
        page = await fetch(teepi.address, "/simple/demo/")
        targets = ("/simple/", "/pypi/demo/json", links(page, "/simple/demo/")[name])
        return [page, *[await fetch(teepi.address, target) for target in targets]]

    before = await ask(teepi)
    await teepi.stop()
    kept = [path for path in (teepi.settings.cache_dir / "v1").rglob("*") if path.is_file()]
    kept = [path for path in kept if path.suffix in {".page", ".json"} or path.name == "head"]
    assert len(kept) == 4
    for path in kept:
        path.unlink()
        if what == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(tmp_path)
    again = await make_teepi()
    assert [(answer.status, answer.body) for answer in await ask(again)] == [
        (each.status, each.body) for each in before
    ]
    assert upstream.count("GET", "/simple/demo/") == upstream.count("GET", "/simple/") == 2


async def test_page_that_was_replaced_by_a_login_page_is_served_stale(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 14. A captive portal's 200 does not replace the last good page."""
    upstream.project("demo", {"demo-1.0.tar.gz": b"x"})
    teepi = await make_teepi(page_ttl_seconds=0)
    first = await fetch(teepi.address, "/simple/demo/")
    upstream.script("/simple/demo/", [Replace(b"<html><body><form>Log in</form></body></html>")])
    answer = await fetch(teepi.address, "/simple/demo/")
    assert (answer.status, answer.body) == (200, first.body)
    assert "stale" in answer.headers["cache-status"]
