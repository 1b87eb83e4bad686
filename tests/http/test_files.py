"""Files over HTTP when all goes well: heads, validators, framing, keep-alive, many at once."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.http.scene import CALM, FILENAME, stage, until
from tests.support.clients import ConnectionEnd, RawClient, fetch
from tests.support.faults import CutChunk, EarlyEnd
from tests.support.wheels import noise

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.support.upstream import Upstream

CONTENT = noise(400_000)
IMMUTABLE = "max-age=365000000, immutable, public"


# --- what the head says


async def test_file_with_digest_has_strong_etag_and_no_cache(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The ETag is the sha256 on the miss and on the hit alike; a name may change its bytes. Contract 18."""
    scene = await stage(upstream, make_teepi, CONTENT)
    miss = await scene.get()
    await scene.settled()
    hit = await scene.get()
    for answer in (miss, hit):
        assert (answer.status, answer.body) == (200, CONTENT)
        assert answer.headers["etag"] == f'"{scene.sha256}"'
        assert answer.headers["last-modified"] == "Wed, 01 Jan 2025 00:00:00 GMT"
        assert answer.headers["cache-control"] == "no-cache"
        assert "content-encoding" not in answer.headers
    assert "hit" in hit.headers["cache-status"]
    assert "fwd" in miss.headers["cache-status"]
    assert scene.gets == 1


async def test_file_without_digest_carries_upstreams_etag(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Without a digest the upstream's strong ETag is ours, on the miss and on the hit. Contract 18."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False, etag='"theirs"')
    assert (await scene.get()).headers["etag"] == '"theirs"'
    await scene.settled()
    hit = await scene.get()
    assert hit.headers["etag"] == '"theirs"'
    assert (hit.body, scene.gets) == (CONTENT, 1)


async def test_file_whose_upstream_says_immutable_is_immutable(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Upstream's word is passed on, from the first answer to the cached one. Contract 18."""
    scene = await stage(upstream, make_teepi, CONTENT, cache_control="max-age=100, immutable")
    assert (await scene.get()).headers["cache-control"] == IMMUTABLE
    await scene.settled()
    while (await scene.get()).headers["cache-control"] != IMMUTABLE:  # the catalogue is told behind the answer
        pass


async def test_file_by_digest_url_is_immutable(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Where the URL carries the digest its bytes cannot change. Contract 18."""
    scene = await stage(upstream, make_teepi, CONTENT)
    target = f"/root/pypi/+f/{scene.sha256[:3]}/{scene.sha256[3:16]}/{FILENAME}"
    answer = await fetch(scene.teepi.address, target)
    assert (answer.body, answer.headers["cache-control"]) == (CONTENT, IMMUTABLE)


async def test_if_none_match_of_file_answers_304_without_fetch(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Whoever has the bytes is told so, cached here or not."""
    scene = await stage(upstream, make_teepi, CONTENT)
    answer = await scene.get({"If-None-Match": f'"{scene.sha256}"'})
    assert (answer.status, answer.body, scene.gets) == (304, b"", 0)
    assert (await scene.get({"If-None-Match": '"other"'})).body == CONTENT


async def test_file_of_no_bytes_is_served_and_cached(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Zero bytes are a file like any other."""
    scene = await stage(upstream, make_teepi, b"")
    for _ in range(2):
        answer = await scene.get()
        assert (answer.status, answer.headers["content-length"]) == (200, "0")
        await scene.settled()
    assert scene.gets == 1


async def test_file_asked_for_anew_comes_from_the_cache(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Contract 20. ``no-cache`` (uv --refresh) and ``max-age=0`` (pip) ask for fresh pages, not for files again."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    for wish in ("no-cache", "max-age=0", "no-cache, max-age=0, no-store"):
        answer = await scene.get({"Cache-Control": wish, "Pragma": "no-cache"})
        assert (answer.status, answer.body, answer.headers["cache-status"]) == (200, CONTENT, "teepi; hit")
    assert (scene.gets, scene.heads, upstream.count("GET", "/simple/demo/")) == (1, 0, 1)


# --- HEAD (contract 22)


async def test_head_of_uncached_file_asks_no_full_download(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """What the page says is enough: upstream is not asked at all. Contract 22."""
    scene = await stage(upstream, make_teepi, CONTENT)
    answer = await scene.get(method="HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(CONTENT)))
    assert (answer.headers["accept-ranges"], answer.headers["etag"]) == ("bytes", f'"{scene.sha256}"')
    assert (scene.gets, scene.heads, scene.downloads) == (0, 0, [])


async def test_head_of_uncached_file_of_unknown_size_asks_upstreams_head(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """A page without sizes or digests costs one HEAD, never a GET. Contract 22."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False, size=False, etag='"theirs"')
    answer = await scene.get(method="HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(CONTENT)))
    assert (answer.headers["accept-ranges"], answer.headers["etag"]) == ("bytes", '"theirs"')
    assert (scene.gets, scene.heads) == (0, 1)


async def test_head_of_arriving_file_answers_at_once(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The fetch stands still in mid-file and HEAD knows all. Contract 22."""
    scene = await stage(upstream, make_teepi, CONTENT, size=False)
    gate = upstream.gate(scene.path, 1000)
    async with await scene.connect() as client:
        await client.read_head()
        answer = await scene.get(method="HEAD")
        assert (answer.status, answer.headers["content-length"]) == (200, str(len(CONTENT)))
        assert (answer.headers["accept-ranges"], answer.headers["etag"]) == ("bytes", f'"{scene.sha256}"')
        gate.open()
        assert await client.read(len(CONTENT)) == CONTENT
    assert (scene.gets, scene.heads) == (1, 0)


async def test_head_of_cached_file_has_no_body_and_keeps_the_connection(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """The next answer follows directly on the head. Contract 22."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    async with await RawClient.connect(scene.teepi.address) as client:
        head = await client.get(scene.target, method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(len(CONTENT)))
        assert (await client.get(scene.target)).body == CONTENT
    assert scene.gets == 1


# --- framing


async def test_first_miss_has_content_length(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The very first client gets a length, not chunks. Contract 23."""
    scene = await stage(upstream, make_teepi, CONTENT)
    async with await scene.connect() as client:
        head = await client.read_head()
    assert head.length == len(CONTENT)
    assert "transfer-encoding" not in head.headers


async def test_chunked_upstream_with_size_on_page_has_content_length(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The page's size serves where upstream sends none. Contract 23."""
    scene = await stage(upstream, make_teepi, CONTENT, chunked=True)
    answer = await scene.get()
    assert (answer.body, answer.head.length) == (CONTENT, len(CONTENT))
    await scene.settled()
    assert scene.stored == {scene.sha256}


async def test_chunked_upstream_without_size_streams_in_chunks(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Chunks only where nobody knows the size; bytes come while it arrives; cached it has a length. Contract 23."""
    scene = await stage(upstream, make_teepi, CONTENT, size=False, chunked=True)
    first, second = upstream.gate(scene.path, 200_000), upstream.gate(scene.path, 300_000)
    async with await scene.connect() as client:
        head = await client.read_head()
        assert head.headers["transfer-encoding"] == "chunked"
        await scene.landed(200_000)
        first.open()
        await scene.landed(300_000)
        length = int((await client.read(8)).partition(b"\r\n")[0], 16)
        assert length >= 1000  # bytes while upstream stands still
        second.open()
    assert (await scene.get()).body == CONTENT
    await scene.settled()
    assert (await scene.get()).head.length == len(CONTENT)
    assert scene.gets == 1


async def test_chunked_answer_keeps_the_connection(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """After a chunked body the next request on the same connection is answered."""
    scene = await stage(upstream, make_teepi, CONTENT, size=False, chunked=True)
    async with await RawClient.connect(scene.teepi.address) as client:
        first = await client.get(scene.target)
        assert (first.complete, first.body) == (True, CONTENT)
        assert (await client.get("/healthz")).status == 200


async def test_chunked_upstream_to_http10_client_ends_with_the_connection(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """HTTP/1.0 knows no chunks: the bytes come bare and FIN ends them (RFC 9112, 6.3)."""
    scene = await stage(upstream, make_teepi, CONTENT, size=False, chunked=True)
    async with await RawClient.connect(scene.teepi.address) as client:
        await client.send("GET", scene.target, version="HTTP/1.0")
        answer = await client.read_answer()
    assert "transfer-encoding" not in answer.headers
    assert (answer.status, answer.body, answer.end) == (200, CONTENT, None)


async def test_failing_chunked_body_never_ends_cleanly(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Without digest and validator a cut chunk cannot be resumed: no last chunk is ever sent. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False, size=False, chunked=True, etag=None)
    upstream.script(scene.path, [CutChunk(300_000)])
    answer = await scene.get()
    assert (answer.status, answer.end) == (200, "fin")
    assert CONTENT.startswith(answer.body)
    await scene.settled()
    assert scene.stored == set()


async def test_failing_body_of_unknown_size_resets_http10_client(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """There FIN would mean "whole", so only RST is honest. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False, size=False, chunked=True, etag=None)
    upstream.script(scene.path, [CutChunk(300_000)])
    async with await RawClient.connect(scene.teepi.address) as client:
        await client.send("GET", scene.target, version="HTTP/1.0")
        _, end = await client.read_to_end()
    assert end == "rst"


async def test_body_without_length_that_ends_early_is_resumed_by_the_pages_size(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """FIN looks like an end; the page's size tells that it is none. Contract 30."""
    scene = await stage(upstream, make_teepi, CONTENT, length=False)
    upstream.script(scene.path, [EarlyEnd(150_000)])
    answer = await scene.get()
    assert (answer.status, answer.body) == (200, CONTENT)
    assert scene.ranges == [None, "bytes=150000-"]


# --- several requests on one connection


async def test_keep_alive_connection_serves_files_and_pages_in_order(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Page, miss, hit, range, HEAD, page: one connection, each answer right. Contract 38."""
    scene = await stage(upstream, make_teepi, CONTENT)
    async with await RawClient.connect(scene.teepi.address) as client:
        for _ in range(3):
            assert (await client.get("/simple/demo/")).status == 200
            assert (await client.get(scene.target)).body == CONTENT
            part = await client.get(scene.target, {"Range": "bytes=5-9"})
            assert (part.status, part.body) == (206, CONTENT[5:10])
            assert (await client.get(scene.target, method="HEAD")).status == 200
            assert (await client.get("/simple/none/")).status == 404
    assert scene.gets == 1


async def test_pipelined_requests_are_answered_in_order(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """All at once on one connection, a cold file among them: answers in the order asked. Contract 38."""
    scene = await stage(upstream, make_teepi, CONTENT)
    async with await RawClient.connect(scene.teepi.address) as client:
        await client.send("GET", scene.target)
        await client.send("GET", "/simple/demo/")
        await client.send("GET", scene.target, {"Range": "bytes=-7"})
        await client.send("HEAD", scene.target)
        await client.send("GET", scene.target)
        await client.send("GET", "/healthz")
        assert (await client.read_answer()).body == CONTENT
        assert b"demo" in (await client.read_answer()).body
        assert (await client.read_answer()).body == CONTENT[-7:]
        assert (await client.read_answer("HEAD")).head.length == len(CONTENT)
        assert (await client.read_answer()).body == CONTENT
        assert (await client.read_answer()).body == b"ok\n"


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0, h2c"])
async def test_request_that_would_upgrade_is_answered_and_the_next_one_told_to_come_again(
    upstream: Upstream, make_teepi: MakeTeepi, protocol: str
) -> None:
    """Contract 38. RFC 9110, 7.8: Upgrade is ignored; what came behind it is not left without an end."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": protocol, "HTTP2-Settings": "AAMAAABkAAQ"}
    for target in ("/healthz", scene.target):
        async with await RawClient.connect(scene.teepi.address) as client:
            head = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": "teepi.example"} | upgrade).items())
            request = f"GET {target} HTTP/1.1\r\n{head}\r\n"
            await client.send_bytes((request + request).encode())
            answer = await client.read_answer()
            assert (answer.status, answer.complete) == (200, True)
            assert answer.headers["connection"].lower() == "close"
            with pytest.raises(ConnectionEnd) as caught:
                await client.read_head()
            assert (caught.value.end, caught.value.read) == ("fin", b"")


# --- load


async def test_three_hundred_connections_with_half_in_flight_are_never_refused(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """300 connections opened at once, 150 requests held in flight over 10 files, all right. Contract 37."""
    scene = await stage(upstream, make_teepi, CONTENT)
    names = [f"many-1.{number}-py3-none-any.whl" for number in range(10)]
    files = {name: noise(100_000 + number, number) for number, name in enumerate(names)}
    page = upstream.project("many", files)
    gates = [upstream.gate(page.path(name), 50_000) for name in names]
    clients = await asyncio.gather(*(RawClient.connect(scene.teepi.address) for _ in range(300)))
    try:

        async def ask(number: int) -> bool:
            name = names[number % 10]
            answer = await clients[number].get(scene.target.replace(scene.path, page.path(name)))
            return answer.status == 200 and answer.body == files[name]

        asking = [asyncio.create_task(ask(number)) for number in range(150)]
        await until(lambda: sum(download.readers for download in scene.downloads) == 150)
        healthy = await asyncio.gather(*(client.get("/healthz") for client in clients[150:]))
        assert {answer.status for answer in healthy} == {200}
        for gate in gates:
            gate.open()
        assert all(await asyncio.gather(*asking))
    finally:
        for client in clients:
            client.close()
    assert [upstream.count("GET", page.path(name)) for name in names] == [1] * 10


async def test_core_metadata_is_a_file_like_any_other(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """One fetch, a strong ETag of its own, ranges, never encoded. Contracts 11, 18, 24."""
    metadata = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.project("demo", {FILENAME: CONTENT}, metadata={FILENAME: metadata})
    elsewhere = scene.teepi.settings.cache_dir.parent / "other"
    other = await make_teepi(CALM, page_ttl_seconds=0.0, cache_dir=elsewhere, data_dir=elsewhere / "data")
    for _ in range(2):
        answer = await fetch(other.address, scene.target + ".metadata", {"Accept-Encoding": "gzip, zstd"})
        assert (answer.status, answer.body) == (200, metadata)
        assert answer.headers["etag"] == f'"{hashlib.sha256(metadata).hexdigest()}"'
        assert "content-encoding" not in answer.headers
        await until(lambda: not list(other.server.registry))
    part = await fetch(other.address, scene.target + ".metadata", {"Range": "bytes=0-7"})
    assert (part.status, part.body) == (206, metadata[:8])
    assert upstream.count("GET", scene.path + ".metadata") == 1


async def test_cached_file_outlives_a_restart_with_upstream_gone(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Neither page nor upstream is needed for what is in the cache."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    await scene.teepi.stop()
    await upstream.stop()
    scene.teepi = await make_teepi(CALM)
    answer = await scene.get()
    assert (answer.status, answer.body) == (200, CONTENT)
