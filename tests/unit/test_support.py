"""The test support itself: an upstream that lied by accident would prove nothing."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import itertools
import json
import socket
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import aiohttp
import pytest
import uvloop

from tests.support import faults
from tests.support.clients import ConnectionEnd, RawClient, fetch
from tests.support.network import Guard, OutsideNetwork
from tests.support.projects import HTML, JSON
from tests.support.wheels import noise, sdist, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.upstream import Upstream

CONTENT = noise(300_000)
PATH = "/packages/demo/demo-1.0-py3-none-any.whl"


def at(upstream: Upstream) -> tuple[str, int]:
    """Return where ``upstream`` listens."""
    host, port = upstream.url.removeprefix("http://").split(":")
    return host, int(port)


@pytest.fixture
def served(upstream: Upstream) -> Upstream:
    """Put CONTENT under PATH."""
    upstream.file(PATH, CONTENT, etag='"one"')
    return upstream


# --- the loop and the guard


async def test_loop_of_async_tests_is_uvloop() -> None:
    """Tests run on the loop that teepi runs on."""
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


@pytest.mark.parametrize("host", ["192.0.2.1", "files.example", "::ffff:192.0.2.1", "0xC0000201"])
async def test_guard_refuses_uvloop_connection_outside(network_guard: Guard, host: str) -> None:
    """Neither an address nor a name gets past loop.create_connection, and the error names it."""
    with pytest.raises(OutsideNetwork, match=host):
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, 80)
    assert network_guard.refused == [f"{host}:80"]
    network_guard.refused.clear()


async def test_guard_refuses_aiohttp_request_outside(network_guard: Guard) -> None:
    """The HTTP client's own resolver and connector are caught as well."""
    async with aiohttp.ClientSession() as session:
        for url in ("http://files.example/x", "http://192.0.2.1/x"):
            with pytest.raises(OutsideNetwork):
                await session.get(url)
    assert network_guard.refused == ["files.example (a name to be resolved)", "192.0.2.1:80"]
    network_guard.refused.clear()


def test_guard_refuses_plain_sockets_outside(network_guard: Guard) -> None:
    """Blocking code is caught as well, in both spellings of connect, and so are datagrams and look-ups."""
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for attempt in (
            lambda: stream.connect(("192.0.2.1", 80)),
            lambda: stream.connect_ex(("192.0.2.1", 80)),
            lambda: datagram.sendto(b"", ("192.0.2.1", 53)),
            lambda: socket.create_connection(("files.example", 80)),
        ):
            with pytest.raises(OutsideNetwork):
                attempt()
    assert len(network_guard.refused) == 4
    network_guard.refused.clear()


async def test_guard_lets_loopback_pass(served: Upstream) -> None:
    """Every spelling of loopback works, and literals may be parsed."""
    port = at(served)[1]
    loop = asyncio.get_running_loop()
    for host in ("127.0.0.1", "localhost", "127.1"):
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
        transport.close()
    assert await loop.getaddrinfo("192.0.2.1", 80)
    assert socket.getaddrinfo("::1", 80)


# --- the upstream when it behaves


async def test_upstream_range_requests_answer_exact_parts(served: Upstream) -> None:
    """Bounded, open and suffix ranges are right, and counted."""
    for asked, part, span in (
        ("bytes=10-19", CONTENT[10:20], "10-19"),
        ("bytes=299990-", CONTENT[-10:], "299990-299999"),
        ("bytes=-5", CONTENT[-5:], "299995-299999"),
        ("bytes=299990-400000", CONTENT[-10:], "299990-299999"),
    ):
        answer = await fetch(at(served), PATH, {"Range": asked})
        assert (answer.status, answer.body) == (206, part)
        assert answer.headers["content-range"] == f"bytes {span}/300000"
    beyond = await fetch(at(served), PATH, {"Range": "bytes=300000-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */300000")
    assert served.ranges(PATH)[1] == "bytes=299990-"
    assert served.requests[1].bytes_sent == 10


async def test_upstream_conditions_are_honoured(served: Upstream) -> None:
    """If-Range with another ETag gives everything, If-None-Match with this one 304."""
    assert (await fetch(at(served), PATH, {"Range": "bytes=1-", "If-Range": '"one"'})).status == 206
    assert (await fetch(at(served), PATH, {"Range": "bytes=1-", "If-Range": '"two"'})).body == CONTENT
    assert (await fetch(at(served), PATH, {"If-None-Match": '"one"'})).status == 304


async def test_upstream_head_has_no_body_and_connection_is_kept(served: Upstream) -> None:
    """HEAD tells the length; the next request uses the same connection."""
    async with await RawClient.connect(at(served)) as client:
        head = await client.get(PATH, method="HEAD")
        assert (head.head.length, head.body) == (len(CONTENT), b"")
        assert (await client.get(PATH)).body == CONTENT
        assert (await client.get("/nothing")).status == 404
    assert (served.count("HEAD", PATH), served.count("GET", PATH)) == (1, 1)


async def test_upstream_without_length_sends_chunks_or_ends_by_fin(upstream: Upstream) -> None:
    """Both ways of not telling a length work."""
    upstream.file("/chunked", CONTENT, chunked=True)
    upstream.file("/endless", CONTENT, length=False)
    for path in ("/chunked", "/endless"):
        answer = await fetch(at(upstream), path)
        assert (answer.head.length, answer.body, answer.complete) == (None, CONTENT, True)


async def test_upstream_stopped_refuses_and_comes_back_on_its_port(served: Upstream) -> None:
    """An outage is a refusal, and the URL outlives it."""
    address = at(served)
    async with await RawClient.connect(address) as client:
        await client.get(PATH)
        await served.stop()
        assert (await client.read_to_end())[0] == b""
        with pytest.raises(ConnectionRefusedError):
            await RawClient.connect(address)
        await served.start()
        assert (await fetch(address, PATH)).body == CONTENT


# --- gates


async def test_gate_in_body_holds_at_its_byte(served: Upstream) -> None:
    """Exactly the bytes before the gate are out when it is reached."""
    gate = served.gate(PATH, at=123_456)
    async with await RawClient.connect(at(served)) as client:
        await client.send("GET", PATH)
        await gate.reached.wait()
        assert served.requests[0].bytes_sent == 123_456
        await client.read_head()
        assert await client.read(123_456) == CONTENT[:123_456]
        assert gate.waiting == 1
        gate.open()
        assert await client.read(300_000 - 123_456) == CONTENT[123_456:]


async def test_gate_at_head_holds_every_request(served: Upstream) -> None:
    """Nothing is answered before the gate opens; then everyone is."""
    gate = served.gate(PATH)
    answers = [asyncio.ensure_future(fetch(at(served), PATH)) for _ in range(3)]
    await served.arrived(PATH, 3)
    assert [request.status for request in served.requests] == [0, 0, 0]
    gate.open()
    assert {answer.body for answer in await asyncio.gather(*answers)} == {CONTENT}


async def test_gate_client_leaves_request_is_over(served: Upstream) -> None:
    """A client that goes away, by FIN or RST, is noticed although nothing is being sent."""
    gate = served.gate(PATH, at=1000)
    for leave in (RawClient.close, RawClient.abort):
        client = await RawClient.connect(at(served))
        await client.send("GET", PATH)
        request = await served.arrived(PATH, len(served.requests) + 1)
        await gate.reached.wait()
        leave(client)
        await request.over.wait()
    assert gate.waiting == 0


# --- faults


async def test_reset_delivers_what_came_before_and_ends_by_rst(served: Upstream) -> None:
    """The client reads exactly the bytes before the reset, counted in the file also for a range."""
    served.script(PATH, [faults.Reset(200_000), faults.Reset(250_000), faults.Reset("head")])
    first = await fetch(at(served), PATH)
    assert (first.body, first.end) == (CONTENT[:200_000], "rst")
    second = await fetch(at(served), PATH, {"Range": "bytes=200000-"})
    assert (second.body, second.end) == (CONTENT[200_000:250_000], "rst")
    with pytest.raises(ConnectionEnd, match="rst after 0"):
        await fetch(at(served), PATH)
    assert (await fetch(at(served), PATH)).body == CONTENT


async def test_early_end_is_fin(served: Upstream) -> None:
    """A short body ends by FIN."""
    served.script(PATH, [faults.EarlyEnd(1000)])
    answer = await fetch(at(served), PATH)
    assert (answer.body, answer.end) == (CONTENT[:1000], "fin")


@pytest.mark.parametrize("fault", [faults.Stall(1000), faults.HangBeforeHead()])
async def test_stall_lasts_until_client_leaves(served: Upstream, fault: faults.Fault) -> None:
    """Silence, and no request left over afterwards."""
    served.script(PATH, [fault])
    async with await RawClient.connect(at(served)) as client:
        await client.send("GET", PATH)
        request = await served.arrived(PATH)
        if fault.at != "head":
            await client.read_head()
            await client.read(1000)
        assert not request.over.is_set()
    await request.over.wait()


async def test_cut_chunk_ends_inside_a_chunk(served: Upstream) -> None:
    """The framing is broken, so the body is not complete."""
    served.script(PATH, [faults.CutChunk(1000)])
    answer = await fetch(at(served), PATH)
    assert (answer.body[:1000], answer.end) == (CONTENT[:1000], "fin")


async def test_trickle_sends_everything_in_small_steps(served: Upstream) -> None:
    """Slow, but right."""
    served.script(PATH, [faults.Trickle(100_000, 0.001)])
    assert (await fetch(at(served), PATH)).body == CONTENT


async def test_status_and_redirect_replace_the_answer(served: Upstream) -> None:
    """Status, headers and body are the script's."""
    served.script(PATH, [faults.Status(503, {"Retry-After": "1"}), faults.Redirect("file:///etc/passwd")])
    answer = await fetch(at(served), PATH)
    assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "1", b"not now\n")
    assert (await fetch(at(served), PATH)).headers["location"] == "file:///etc/passwd"


async def test_wrong_content_keeps_length_and_etag(served: Upstream) -> None:
    """WrongBytes flips what it says; Replace gives other bytes; nothing else betrays them."""
    served.script(PATH, [faults.WrongBytes(100, 2), faults.Replace(b"other")])
    answer = await fetch(at(served), PATH)
    differing = [index for index, (a, b) in enumerate(zip(answer.body, CONTENT, strict=True)) if a != b]
    assert (differing, answer.headers["etag"]) == ([100, 101], '"one"')
    assert (await fetch(at(served), PATH)).body == b"other"


async def test_wrong_length_lies_both_ways(served: Upstream) -> None:
    """Too large a length leaves the client short; too small a one sends more than was promised."""
    served.script(PATH, [faults.WrongLength(+10), faults.WrongLength(-10)])
    short = await fetch(at(served), PATH)
    assert (short.head.length, short.body, short.end) == (300_010, CONTENT, "fin")
    async with await RawClient.connect(at(served)) as client:
        long = await client.get(PATH)
        assert (long.head.length, long.body) == (299_990, CONTENT[:-10])
        assert await client.read_to_end() == (CONTENT[-10:], "fin")


async def test_range_faults_misanswer_ranges(served: Upstream) -> None:
    """Ignored, shifted, with another total, unasked, and behind a changed ETag."""
    served.script(
        PATH,
        [
            faults.IgnoreRange(),
            faults.BadContentRange(),
            faults.BadContentRange("total"),
            faults.BadContentRange("missing"),
            faults.Unasked206(),
            faults.ChangedEtag(),
        ],
    )
    ranged = {"Range": "bytes=10-", "If-Range": '"one"'}
    assert (await fetch(at(served), PATH, ranged)).status == 200
    for span in ("bytes 11-300000/300000", "bytes 10-299999/300001", None):
        answer = await fetch(at(served), PATH, ranged)
        assert (answer.status, answer.headers.get("content-range"), answer.body) == (206, span, CONTENT[10:])
    unasked = await fetch(at(served), PATH)
    assert (unasked.status, unasked.body) == (206, CONTENT[:150_000])
    changed = await fetch(at(served), PATH, ranged)
    assert (changed.status, changed.headers["etag"]) == (200, '"changed"')


async def test_script_counts_gets_combines_and_repeats(served: Upstream) -> None:
    """HEAD uses up nothing, None is an honest answer, a tuple is several faults, repeat never ends."""
    endless = itertools.repeat(faults.Status(500))
    served.script(PATH, [None, (faults.IgnoreRange(), faults.EarlyEnd(500)), *itertools.islice(endless, 2)])
    assert (await fetch(at(served), PATH, method="HEAD")).status == 200
    assert (await fetch(at(served), PATH)).complete
    both = await fetch(at(served), PATH, {"Range": "bytes=10-"})
    assert (both.status, both.body) == (200, CONTENT[:500])
    served.script(PATH, endless)
    assert {(await fetch(at(served), PATH)).status for _ in range(5)} == {500}


# --- pages


async def test_project_page_follows_its_files(upstream: Upstream) -> None:
    """The page, its ETag and the files change together."""
    project = upstream.project("demo", {"demo-1.0-py3-none-any.whl": b"one"}, metadata={})
    before = await fetch(at(upstream), project.page_path)
    assert before.headers["content-type"] == JSON
    project.put("demo-2.0.tar.gz", b"two", b"Name: demo\n")
    after = await fetch(at(upstream), project.page_path)
    page = json.loads(after.body)
    assert before.headers["etag"] != after.headers["etag"]
    assert page["versions"] == ["1.0", "2.0"]
    assert page["files"][1] == {
        "filename": "demo-2.0.tar.gz",
        "url": project.url("demo-2.0.tar.gz"),
        "hashes": {"sha256": hashlib.sha256(b"two").hexdigest()},
        "size": 3,
        "core-metadata": {"sha256": hashlib.sha256(b"Name: demo\n").hexdigest()},
    }
    assert (await fetch(at(upstream), project.path("demo-2.0.tar.gz"))).body == b"two"
    assert (await fetch(at(upstream), project.path("demo-2.0.tar.gz") + ".metadata")).body == b"Name: demo\n"
    project.remove("demo-2.0.tar.gz")
    assert (await fetch(at(upstream), project.path("demo-2.0.tar.gz"))).status == 404
    assert (await fetch(at(upstream), project.page_path)).body == before.body


async def test_project_html_escapes_and_carries_attributes(upstream: Upstream) -> None:
    """The HTML form says what the JSON form says, as far as it can."""
    name = "demo-1.0-py3-none-any.whl"
    extra = {name: {"requires-python": ">=3.9", "yanked": 'bad & "old"', "hashes": {"md5": "0" * 32}}}
    project = upstream.project("demo", {name: b"one"}, form="both", extra=extra, links="relative", size=False)
    page = await fetch(at(upstream), project.page_path, {"Accept": "*/*"})
    assert page.headers["content-type"] == HTML
    assert page.body.decode().splitlines()[1] == (
        f'<a href="../../packages/demo/{name}#md5={"0" * 32}" data-requires-python="&gt;=3.9"'
        f' data-yanked="bad &amp; &quot;old&quot;">{name}</a><br>'
    )
    assert json.loads((await fetch(at(upstream), project.page_path, {"Accept": JSON})).body)["files"][0]["yanked"]


# --- wheels


def test_wheel_is_whole_and_repeatable() -> None:
    """Every member stands in RECORD with its hash; the same arguments give the same bytes."""
    built = wheel("demo-pkg", "1.2", requires=["other>=1"], requires_python=">=3.9", padding=1000)
    assert built == wheel("demo-pkg", "1.2", requires=["other>=1"], requires_python=">=3.9", padding=1000)
    assert built.filename == "demo_pkg-1.2-py3-none-any.whl"
    with zipfile.ZipFile(io.BytesIO(built.content)) as archive:
        names = set(archive.namelist())
        record = archive.read("demo_pkg-1.2.dist-info/RECORD").decode()
        assert archive.read("demo_pkg-1.2.dist-info/METADATA") == built.metadata
    assert {row[0] for row in csv.reader(io.StringIO(record))} == names
    assert b"Requires-Dist: other>=1\n" in built.metadata


@pytest.mark.parametrize("build", [wheel, sdist])
def test_distribution_is_installable_by_pip_without_network(build: object, tmp_path: Path) -> None:
    """A real installer takes both kinds, from the file alone."""
    assert callable(build)
    built = build("demo-pkg", "1.2", padding=50_000)
    file = tmp_path / built.filename
    file.write_bytes(built.content)
    target = tmp_path / "target"
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*command, str(file)], check=True, capture_output=True, env={"HOME": str(tmp_path)})
    assert (target / "demo_pkg/__init__.py").read_text() == '__version__ = "1.2"\n'
