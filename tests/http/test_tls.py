"""teepi that speaks TLS: the same bytes to everyone, and handshakes that cost nobody anything."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from teepi import operator_channel
from teepi.errors import ConfigError
from teepi.server import Server
from tests.http.scene import CALM, FILENAME, IMPATIENT, Held, Scene, descriptors, until
from tests.support.certificates import Pair, make_pair
from tests.support.clients import RawClient, TlsClient
from tests.support.faults import EarlyEnd
from tests.support.teepi import settings_for
from tests.support.wheels import noise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from teepi.limits import Limits
    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.upstream import Upstream

MIB = 1024 * 1024


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Give a certificate for 127.0.0.1."""
    return make_pair(tmp_path / "tls")


@pytest.fixture
def make_tls(make_teepi: MakeTeepi, pair: Pair) -> MakeTeepi:
    """Give a function that starts teepi with the certificate."""

    async def make(limits: Limits | None = None, **settings: object):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return await make_teepi(limits, tls_cert=pair.cert, tls_key=pair.key, **settings)

    return make


async def tls_stage(upstream: Upstream, make_tls: MakeTeepi, content: bytes, *, limits: Limits = CALM) -> Scene:
    """Publish ``content`` behind a teepi that speaks TLS."""
    project = upstream.project("demo", {FILENAME: content})
    path = project.path(FILENAME)
    teepi = await make_tls(limits)
    return Scene(upstream, teepi, content, path, f"/packages/demo/{FILENAME}")


async def get(
    scene: Scene, pair: Pair, target: str | None = None, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> Answer:
    """Ask on a connection of its own."""
    async with await TlsClient.connect_tls(scene.teepi.address, pair.trust) as client:
        return await client.get(target or scene.target, headers, method)


async def ask(scene: Scene, pair: Pair, **options: int) -> TlsClient:
    """Ask for the file and leave the answer to the caller."""
    client = await TlsClient.connect_tls(scene.teepi.address, pair.trust, **options)
    await client.send("GET", scene.target)
    return client


async def test_page_and_file_over_tls_are_what_they_are_over_http(
    upstream: Upstream, make_tls: MakeTeepi, pair: Pair
) -> None:
    """Cold, cached, by range and HEAD, several on one connection."""
    scene = await tls_stage(upstream, make_tls, noise(3 * MIB))
    async with await TlsClient.connect_tls(scene.teepi.address, pair.trust) as client:
        assert FILENAME.encode() in (await client.get("/simple/demo/")).body
        assert (await client.get(scene.target)).body == scene.content
        await scene.settled()
        for _ in range(2):
            answer = await client.get(scene.target)
            assert (answer.headers["cache-status"], answer.body) == ("teepi; hit", scene.content)
        assert (await client.get(scene.target, {"Range": "bytes=1000000-1999999"})).body == scene.content[
            10**6 : 2 * 10**6
        ]
        assert (await client.get(scene.target, method="HEAD")).head.length == 3 * MIB
        assert (await client.get("/healthz")).body == b"ok\n"
    assert scene.gets == 1


async def test_many_clients_over_tls_share_one_fetch_while_it_arrives(
    upstream: Upstream, make_tls: MakeTeepi, pair: Pair
) -> None:
    """All have the first half before upstream sends the second; upstream is asked once."""
    scene = await tls_stage(upstream, make_tls, noise(4 * MIB))
    held = Held(2 * MIB)
    upstream.script(scene.path, [held])
    await get(scene, pair, "/simple/demo/")
    clients = [await ask(scene, pair) for _ in range(8)]
    for client in clients:
        assert (await client.read_head()).status == 200
        assert await client.read(MIB) == scene.content[:MIB]
    held.open()
    for client in clients:
        assert await client.read(3 * MIB) == scene.content[MIB:]
        client.close()
    assert scene.gets == 1


async def test_slow_client_over_tls_is_not_buffered_for_and_delays_nobody(
    upstream: Upstream, make_tls: MakeTeepi, pair: Pair
) -> None:
    """One that does not read stays where it is: the next gets all, and the first finds its bytes right later."""
    scene = await tls_stage(upstream, make_tls, noise(16 * MIB))
    await get(scene, pair, "/simple/demo/")
    slow = await ask(scene, pair, receive_buffer_bytes=4096)
    assert (await get(scene, pair)).body == scene.content
    await scene.settled()
    assert scene.teepi.server.metrics.sent_bytes < 16 * MIB + 8 * MIB
    assert (await slow.read_answer()).body == scene.content
    slow.close()
    assert scene.gets == 1


async def test_client_over_tls_that_takes_nothing_is_given_up(
    upstream: Upstream, make_tls: MakeTeepi, pair: Pair
) -> None:
    """Its connection goes and so does the descriptor of the file."""
    scene = await tls_stage(upstream, make_tls, noise(16 * MIB), limits=replace(CALM, client_idle_seconds=0.3))
    await get(scene, pair)
    await scene.settled()
    await until(lambda: scene.teepi.server.connections == 0)
    before = descriptors(upstream)
    client = await ask(scene, pair, receive_buffer_bytes=4096)
    await until(lambda: scene.teepi.server.connections == 1)
    await until(lambda: scene.teepi.server.connections == 0)
    client.close()
    await until(lambda: descriptors(upstream) == before)


@pytest.mark.parametrize("leave", [RawClient.close, RawClient.abort])
async def test_client_over_tls_that_leaves_disturbs_nobody(
    upstream: Upstream, make_tls: MakeTeepi, pair: Pair, leave: Callable[[RawClient], None]
) -> None:
    """By FIN or RST, in the middle of an arriving file: it goes on into the cache, and nothing is left open."""
    scene = await tls_stage(upstream, make_tls, noise(4 * MIB))
    await get(scene, pair, "/simple/demo/")
    await until(lambda: scene.teepi.server.connections == 0)
    before = descriptors(upstream)
    held = Held(2 * MIB)
    upstream.script(scene.path, [held])
    client = await ask(scene, pair)
    await client.read_head()
    await client.read(MIB)
    leave(client)
    await until(lambda: scene.teepi.server.connections == 0)
    held.open()
    await scene.settled()
    assert (await get(scene, pair)).body == scene.content
    await until(lambda: descriptors(upstream) == before)
    assert scene.gets == 1


@pytest.mark.parametrize("more", [b"", b"GET /healthz HTTP/1.1\r\nHost: teepi.example\r\n\r\n" * 3])
async def test_failed_body_over_tls_ends_short_behind_all_that_arrived(
    upstream: Upstream, make_tls: MakeTeepi, pair: Pair, more: bytes
) -> None:
    """With close_notify and no reset, requests that wait behind it or none: no client takes it for whole."""
    scene = await tls_stage(upstream, make_tls, noise(4 * MIB), limits=IMPATIENT)
    await get(scene, pair, "/simple/demo/")
    upstream.script(scene.path, [EarlyEnd(3 * MIB), *(EarlyEnd(0) for _ in range(20))])
    async with await ask(scene, pair) as client:
        if more:
            await client.send_bytes(more)
        answer = await client.read_answer()
    assert (answer.status, answer.end) == (200, "fin")
    assert scene.content.startswith(answer.body)
    assert len(answer.body) >= 2 * MIB


async def test_handshake_that_stalls_is_given_up_in_time(
    make_tls: MakeTeepi, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """One that says nothing, and one that stops within its hello; meanwhile others are served."""
    teepi = await make_tls(replace(CALM, tls_handshake_seconds=0.3))
    silent = await RawClient.connect(teepi.address)
    halting = await RawClient.connect(teepi.address)
    await halting.send_bytes(b"\x16\x03\x01\x02\x00\x01\x00")
    async with await TlsClient.connect_tls(teepi.address, pair.trust) as client:
        assert (await client.get("/healthz")).status == 200
        for stalled in (silent, halting):
            assert (await stalled.read_to_end())[0] == b""
            stalled.close()
        assert (await client.get("/healthz")).status == 200
    assert not caplog.records


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: teepi.example\r\n\r\n", b"\x16\x03\x01 nonsense", b"\0" * 999]
)
async def test_what_is_no_handshake_ends_the_connection_and_logs_nothing(
    make_tls: MakeTeepi, pair: Pair, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    """Anyone can send it, and often."""
    teepi = await make_tls()
    caplog.set_level(logging.INFO)
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(said)
        assert b"HTTP/" not in (await client.read_to_end())[0]
    async with await TlsClient.connect_tls(teepi.address, pair.trust) as other:
        assert (await other.get("/healthz")).status == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_handshake_of_tls_1_2_and_1_3_chooses_http_1_1(make_tls: MakeTeepi, pair: Pair) -> None:
    """A client that would rather speak HTTP/2 is told what there is."""
    teepi = await make_tls()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        trust = pair.trust
        trust.maximum_version = trust.minimum_version = version
        trust.set_alpn_protocols(["h2", "http/1.1"])
        async with await TlsClient.connect_tls(teepi.address, trust) as client:
            assert client.tls.selected_alpn_protocol() == "http/1.1"
            assert (await client.get("/healthz")).status == 200


async def test_renewed_certificate_is_shown_to_new_connections_and_ends_no_old_one(
    make_tls: MakeTeepi, pair: Pair
) -> None:
    """A bad pair, as while it is being written, changes nothing and is one sentence."""
    teepi = await make_tls()
    async with await TlsClient.connect_tls(teepi.address, pair.trust) as old:
        first = old.certificate
        second = pair.renew()
        assert first != second
        await teepi.server.renew()
        assert (await old.get("/healthz")).status == 200
        async with await TlsClient.connect_tls(teepi.address, pair.trust) as new:
            assert new.certificate == second
            assert (await new.get("/healthz")).status == 200
        key = pair.key.read_bytes()
        pair.renew()
        pair.key.write_bytes(key)
        with pytest.raises(ConfigError, match=r"is not the key of the first certificate in .*\.$"):
            await teepi.server.renew()
        async with await TlsClient.connect_tls(teepi.address, pair.trust) as new:
            assert new.certificate == second


async def test_page_for_people_over_tls_says_https(make_tls: MakeTeepi, pair: Pair) -> None:
    """The lines to paste lead to where the visitor is."""
    teepi = await make_tls()
    async with await TlsClient.connect_tls(teepi.address, pair.trust) as client:
        page = (await client.get("/", {"Accept": "text/html", "Host": "teepi.example:3141"})).body.decode()
    assert "https://teepi.example:3141/root/pypi/+simple/" in page
    assert "http://teepi.example" not in page


async def test_operators_socket_speaks_no_tls(make_tls: MakeTeepi) -> None:
    """Its permission is who may open it."""
    teepi = await make_tls()
    with operator_channel.socket_path(teepi.settings.cache_dir) as path:
        reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.0 404 ")
    writer.close()
    await writer.wait_closed()


async def test_inherited_socket_speaks_tls_too(upstream: Upstream, pair: Pair, tmp_path: Path) -> None:
    """The manager holds the address, the settings the certificate."""
    settings = settings_for(tmp_path, upstream.index_url, tls_cert=pair.cert, tls_key=pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)  # noqa: FBT003 - the standard library's signature
        server = Server(settings, CALM, [listening])
        await server.start()
        try:
            async with await TlsClient.connect_tls(server.addresses[0], pair.trust) as client:
                assert (await client.get("/healthz")).status == 200
        finally:
            await server.stop()


async def test_connection_too_many_over_tls_is_told_so(
    make_tls: MakeTeepi, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same 503 as over http, inside TLS."""
    teepi = await make_tls()
    http = vars(teepi.server)["_http"]
    monkeypatch.setattr(http, "descriptor_limit", 3)
    monkeypatch.setattr(http, "reserve", 10_000)
    async with await TlsClient.connect_tls(teepi.address, pair.trust) as client:
        answer = await client.get("/healthz")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
