"""What the access log says of requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.scene import CALM, FILENAME, Held, until
from tests.support.certificates import make_pair
from tests.support.clients import RawClient, TlsClient, fetch
from tests.support.wheels import noise

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

MIB = 1024 * 1024
TARGET = f"/packages/demo/{FILENAME}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the log lies."""
    return tmp_path / "access.log"


def text(path: Path) -> str:
    """Read the log."""
    return path.read_text("ascii")


async def lines(teepi: Teepi, path: Path) -> list[dict[str, Any]]:
    """Stop teepi, which writes what waits, and read the log."""
    await teepi.stop()
    return [json.loads(line) for line in text(path).splitlines()]


def told(found: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """Return some fields of each line."""
    return [tuple(line.get(name) for name in names) for line in found]


async def test_each_answered_request_is_one_line_with_the_bytes_of_its_body(
    upstream: Upstream, make_teepi: MakeTeepi, path: Path
) -> None:
    """Pages, files by sendfile, ranges, HEAD, 304, errors, and what is no request."""
    content = noise(MIB)
    upstream.project("demo", {FILENAME: content})
    teepi = await make_teepi(CALM, access_log=path, access_log_format="json")
    page = await fetch(teepi.address, "/simple/demo/")
    await fetch(teepi.address, "/simple/demo/", {"If-None-Match": page.headers["etag"]})
    await fetch(teepi.address, TARGET, {"X-Request-ID": "ci/17", "X-Forwarded-For": "10.9.8.7"})
    await until(lambda: not list(teepi.server.registry))
    await fetch(teepi.address, TARGET)
    await fetch(teepi.address, TARGET, {"Range": "bytes=10-109"})
    await fetch(teepi.address, TARGET, method="HEAD")
    missing = await fetch(teepi.address, "/nothing/here/at/all")
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(b"GET / HTTP/9\r\n\r\n")
        bad = await client.read_answer()
    found = await lines(teepi, path)
    assert told(found, "method", "target", "status", "bytes", "cache") == [
        ("GET", "/simple/demo/", 200, len(page.body), "fwd=uri-miss; stored"),
        ("GET", "/simple/demo/", 304, 0, "hit"),
        ("GET", TARGET, 200, MIB, "fwd=uri-miss; stored"),
        ("GET", TARGET, 200, MIB, "hit"),
        ("GET", TARGET, 206, 100, "hit"),
        ("HEAD", TARGET, 200, 0, "hit"),
        ("GET", "/nothing/here/at/all", 404, len(missing.body), None),
        ("UNKNOWN", "/", 400, len(bad.body), None),
    ]
    assert {line["client"] for line in found} == {"127.0.0.1"}
    assert all(0 <= line["duration_ms"] < 10_000 for line in found)
    assert found[2]["request_id"] == "ci/17"
    assert found[2]["forwarded_for"] == "10.9.8.7"
    assert found[6]["request_id"] == missing.headers["x-request-id"]


async def test_log_tells_neither_queries_nor_credentials_and_keeps_to_its_lines(
    make_teepi: MakeTeepi, path: Path
) -> None:
    """Whatever a client sends, as in every other log line of teepi's."""
    teepi = await make_teepi(access_log=path)
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(
            b"GET http://user:c2VjcmV0@a.example/healthz?token=c2VjcmV0 HTTP/1.1\r\nHost: a\r\n"
            b'Authorization: Basic c2VjcmV0\r\nUser-Agent: a" \xff\t\\x\r\nReferer: http://a/ \xe2\x80\xa8 1\r\n\r\n'
        )
        assert (await client.read_answer()).status == 200
        await client.send("GET", "/healthz", {"User-Agent": "b" * 5000})
        await client.read_answer()
    await teepi.stop()
    said = text(path)
    assert "c2VjcmV0" not in said
    assert said.count("\n") == 2
    assert max(map(len, said.splitlines())) < 500


async def test_client_that_leaves_is_logged_with_what_it_got(
    upstream: Upstream, make_teepi: MakeTeepi, path: Path
) -> None:
    """Bytes that were sent, not those that were promised."""
    content = noise(4 * MIB)
    project = upstream.project("demo", {FILENAME: content})
    held = Held(2 * MIB)
    upstream.script(project.path(FILENAME), [held])
    teepi = await make_teepi(CALM, access_log=path, access_log_format="json")
    async with await RawClient.connect(teepi.address) as client:
        await client.send("GET", TARGET)
        await client.read_head()
        await client.read(MIB)
    await until(lambda: teepi.server.connections == 0)
    held.open()
    await until(lambda: not list(teepi.server.registry))
    [line] = await lines(teepi, path)
    assert line["status"] == 200
    assert MIB <= line["bytes"] <= 2 * MIB


async def test_bytes_over_tls_are_counted_like_others(
    upstream: Upstream, make_teepi: MakeTeepi, path: Path, tmp_path: Path
) -> None:
    """Of the body, before it is encrypted."""
    content = noise(MIB)
    upstream.project("demo", {FILENAME: content})
    pair = make_pair(tmp_path / "tls")
    teepi = await make_teepi(CALM, access_log=path, access_log_format="json", tls_cert=pair.cert, tls_key=pair.key)
    async with await TlsClient.connect_tls(teepi.address, pair.trust) as client:
        assert (await client.get(TARGET)).body == content
    assert told(await lines(teepi, path), "target", "status", "bytes") == [(TARGET, 200, MIB)]


async def test_full_disk_of_the_log_disturbs_no_answer(make_teepi: MakeTeepi, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once that lines were dropped."""
    teepi = await make_teepi(access_log="/dev/full")
    async with await RawClient.connect(teepi.address) as client:
        for _ in range(20):
            assert (await client.get("/healthz")).status == 200
    await teepi.stop()
    assert [message for message in caplog.messages if "access log" in message] == [
        "20 lines of the access log were dropped: it cannot be written (No space left on device)."
    ]


async def test_without_the_setting_nothing_is_made(make_teepi: MakeTeepi) -> None:
    """No thread, no list: off costs nothing."""
    teepi = await make_teepi()
    assert teepi.server.access_log is None
