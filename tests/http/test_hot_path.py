"""The hot path answers what the ordinary path would, byte for byte, and only where nothing can have changed."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teepi.limits import Limits
from teepi.web import connection
from tests.http.links import file_target
from tests.http.scene import CALM, until
from tests.support.certificates import make_pair
from tests.support.clients import RawClient, TlsClient, fetch
from tests.support.wheels import noise, wheel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.http.clock import Clock
    from tests.support.clients import Answer
    from tests.support.projects import Project
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

JSON = "application/vnd.pypi.simple.v1+json"
UV = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
BUILT = wheel("demo", "1.0", padding=3000)
BESIDE = wheel("demo", "2.0")
LARGE = "demo-1.0.tar.gz"
PAGE = "/simple/demo/"
LIMITS = replace(CALM, page_hashes_seconds=0.0, learning_seconds=0.0)
_VARYING = re.compile(rb"(?:Date|X-Request-ID): [^\r]*\r\n")


def publish(upstream: Upstream) -> Project:
    """Publish a project with two small wheels, for one of which upstream has core metadata, and a large file."""
    files = {BUILT.filename: BUILT.content, BESIDE.filename: BESIDE.content, LARGE: noise(200_000)}
    return upstream.project("demo", files, metadata={BESIDE.filename: BESIDE.metadata})


async def targets_of(teepi: Teepi) -> dict[str, str]:
    """Return a target of each kind, all in the cache."""
    targets = {"page": PAGE, "index": "/root/pypi/+simple/demo/", "absent": "/simple/absent/", "status": "/healthz"}
    for name, filename in ("small", BUILT.filename), ("beside", BESIDE.filename), ("large", LARGE):
        targets[name] = await file_target(teepi, filename)
    targets["metadata"] = targets["beside"] + ".metadata"
    targets["read out"] = targets["small"] + ".metadata"
    for target in targets.values():
        await fetch(teepi.address, target)
    await until(lambda: not list(teepi.server.registry))
    # The page says the hash of what was read out, behind the answer: from then on it stays as it is.
    while b'"core-metadata":true' in (await fetch(teepi.address, PAGE, {"Accept": JSON})).body:
        pass
    return targets


def hot_answers(teepi: Teepi) -> int:
    """Return how many requests the hot path has answered."""
    return teepi.server.metrics.hot_answers


async def warm(teepi: Teepi, target: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Ask until the hot path answers, and return that answer."""
    for _ in range(50):
        before = hot_answers(teepi)
        answer = await fetch(teepi.address, target, headers)
        if hot_answers(teepi) > before:
            return answer
    msg = f"{target} does not become hot"
    raise AssertionError(msg)


def is_inside_a_message(teepi: Teepi) -> bool:
    """Whether a connection has read a part of a request."""
    http = teepi.server._http  # noqa: SLF001 - there is no other sign of it
    return http is not None and any(not each._is_at_boundary for each in http.connections)  # type: ignore[attr-defined] # noqa: SLF001


@asynccontextmanager
async def ordinary(teepi: Teepi) -> AsyncIterator[tuple[str, int]]:
    """Listen beside ``teepi``, with the same services and no hot path; yield the address."""
    http = connection.Server(teepi.server.services.app.handle, teepi.server.limits, access_log=None)
    listener = await asyncio.get_running_loop().create_server(http, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    try:
        yield host, port
    finally:
        listener.close()
        await http.shutdown(0)


# -- equality ----------------------------------------------------------------------------------------

HEADERS: dict[str, list[str]] = {
    "Accept": [JSON, UV, "text/html", "*/*", "image/png", ""],
    "Accept-Encoding": ["gzip, deflate", "identity", "gzip, br, zstd", "zstd", "br", "*;q=0"],
    "User-Agent": ["pip/26.0", 'uv/0.13 {"a": 1}', "x" * 5000],
    "Connection": ["keep-alive", "Keep-Alive", "close", "Upgrade"],
    "Cache-Control": ["max-age=0", "no-cache", "no-store", "max-age=0, no-cache"],
    "If-None-Match": ["ETAG", "W/ETAG", "*", '"x"', 'ETAG, "y"'],
    "Range": ["bytes=0-9", "bytes=5-", "bytes=-3", "bytes=9999999-", "lines=1"],
    "If-Range": ["ETAG", '"x"'],
    "Authorization": ["Basic eDp5"],
    "X-Devpi-Auth": ["eDp5"],
    "X-Forwarded-Host": ["evil.example"],
    "Content-Length": ["0"],
    "Expect": ["100-continue"],
    "Host": ["teepi.example", "127.0.0.1:3141", "[::1]:3141", "a b", ""],
}
SPELLINGS: list[Callable[[str], str]] = [str, str.lower, str.upper]


@dataclass(frozen=True)
class Shape:
    """A request to generate."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str, int], ...]
    query: str


SHAPES = st.builds(
    Shape,
    method=st.sampled_from(["GET"] * 6 + ["HEAD", "get", "POST"]),
    target=st.sampled_from(["page", "page", "index", "small", "metadata", "read out", "large", "absent", "status"]),
    version=st.sampled_from(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/1.2"]),
    headers=st.lists(
        st.sampled_from(sorted(HEADERS)).flatmap(
            lambda name: st.tuples(st.just(name), st.sampled_from(HEADERS[name]), st.integers(0, 2))
        ),
        max_size=3,
        unique_by=lambda field: field[0],
    ).map(tuple),
    query=st.sampled_from([""] * 6 + ["?a=1"]),
)


def head_of(shape: Shape, target: str, etag: str) -> bytes:
    """Write a request head; Host comes first unless the shape has one."""
    lines = [f"{shape.method} {target}{shape.query} {shape.version}"]
    if not any(name == "Host" for name, _, _ in shape.headers):
        lines.append("Host: teepi.example")
    lines += [f"{SPELLINGS[spelling](name)}: {value.replace('ETAG', etag)}" for name, value, spelling in shape.headers]
    return "\r\n".join([*lines, "", ""]).encode()


async def said(client: RawClient, head: bytes, method: str) -> bytes | None:
    """Send a head and return what comes back, without what varies; None when the connection ends."""
    await client.send_bytes(head)
    try:
        answer = await client.read_answer(method)
    except Exception:  # noqa: BLE001 - the server has closed: so must the other
        return None
    return _VARYING.sub(b"", answer.head.raw) + answer.body


async def test_hot_path_answers_as_the_ordinary_path_does_byte_for_byte(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Generated requests, each asked of both three times: recorded, then hot, on one connection and on a new one."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    targets = await targets_of(teepi)
    etags = {name: (await fetch(teepi.address, target)).headers.get("etag", '"-"') for name, target in targets.items()}
    loop = asyncio.get_running_loop()

    async def compare(address: tuple[str, int], shape: Shape) -> None:
        head = head_of(shape, targets[shape.target], etags[shape.target])
        heard: list[list[bytes | None]] = []
        for where in (teepi.address, address):
            async with await RawClient.connect(where) as client:
                one = [await said(client, head, shape.method)]
                if one[0] is not None:
                    one.append(await said(client, head, shape.method))
            async with await RawClient.connect(where) as client:
                one.append(await said(client, head, shape.method))
            heard.append(one)
        assert heard[0] == heard[1], head

    @settings(
        max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=False
    )
    @given(SHAPES)
    def every(shape: Shape) -> None:
        asyncio.run_coroutine_threadsafe(compare(address, shape), loop).result(20)

    async with ordinary(teepi) as address:
        await asyncio.to_thread(every)
    assert hot_answers(teepi) > 50


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": JSON},
        {"Accept": UV, "Accept-Encoding": "gzip"},
        {"Accept": "text/html", "Cache-Control": "max-age=0", "Connection": "keep-alive", "User-Agent": "pip/26"},
    ],
)
async def test_what_installers_send_is_hot_from_the_third_request_on(
    upstream: Upstream, make_teepi: MakeTeepi, headers: dict[str, str]
) -> None:
    """The first fetches, the second is recorded; pages, their confirmations, files and core metadata."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    targets = await targets_of(teepi)
    for name in ("page", "index", "small", "metadata", "read out"):
        first = await warm(teepi, targets[name], headers)
        again = await warm(teepi, targets[name], headers)
        assert (first.status, first.body) == (again.status, again.body) == (200, first.body)
    etag = (await warm(teepi, PAGE, headers)).headers["etag"]
    for spelling in ("If-None-Match", "if-none-match"):
        confirmed = await warm(teepi, PAGE, headers | {spelling: etag})
        assert (confirmed.status, confirmed.body) == (304, b"")


async def test_hot_answers_are_counted_as_ordinary_ones(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """All counters grow by the same, whichever path answers."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    targets = await targets_of(teepi)
    etag = (await warm(teepi, PAGE)).headers["etag"]
    cases: list[tuple[str, dict[str, str]]] = [(PAGE, {"If-None-Match": etag})]
    cases += [(targets[name], {}) for name in ("page", "small", "metadata", "read out")]

    def counters() -> dict[Any, int]:
        metrics = teepi.server.metrics
        return {**metrics.snapshot(), **metrics.requests, "hot_answers": 0}

    async with ordinary(teepi) as address:
        for target, headers in cases:
            await warm(teepi, target, headers)
            grown = []
            for where in (teepi.address, address):
                before = counters()
                await fetch(where, target, headers)
                grown.append({name: value - before.get(name, 0) for name, value in counters().items()})
            assert grown[0] == grown[1], (target, headers)


async def test_hot_answers_are_logged_as_ordinary_ones(
    upstream: Upstream, make_teepi: MakeTeepi, tmp_path: Path
) -> None:
    """Whichever path answers, the line is the same but for its time and the request's id."""
    publish(upstream)
    path = tmp_path / "access.log"
    teepi = await make_teepi(LIMITS, access_log=path, access_log_format="json")
    targets = await targets_of(teepi)
    etag = (await warm(teepi, PAGE)).headers["etag"]
    headers = {"User-Agent": "x" * 400}
    cases = [(targets[name], headers) for name in ("page", "small", "read out")]
    cases.append((PAGE, headers | {"If-None-Match": etag}))
    for target, asked in cases:
        await warm(teepi, target, asked)
        await fetch(teepi.address, target, asked | {"X-Ordinary": "1"})
    await teepi.stop()
    lines = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    varying = {"time", "request_id", "duration_ms"}
    told = [{name: value for name, value in line.items() if name not in varying} for line in lines]
    for target, asked in cases:
        status = 304 if "If-None-Match" in asked else 200
        hot, plain = [line for line in told if line["target"] == target and line["status"] == status][-2:]
        assert hot == plain


# -- order and framing -------------------------------------------------------------------------------


async def test_pipelined_and_mixed_requests_are_answered_in_order(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Hot and ordinary ones in one read, in many, and a head cut anywhere."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    targets = await targets_of(teepi)
    plain = {name: (await warm(teepi, targets[name])).body for name in ("page", "small", "metadata")}
    plain["large"] = (await fetch(teepi.address, targets["large"])).body
    heads = {name: f"GET {targets[name]} HTTP/1.1\r\nHost: teepi.example\r\n\r\n".encode() for name in plain}
    orders = list(itertools.permutations(plain))
    async with await RawClient.connect(teepi.address) as client:
        for number, order in enumerate(orders):
            data = b"".join(heads[name] for name in order)
            cut = number * 7 % len(data) or 1
            for piece in (data[:cut], data[cut:]):
                await client.send_bytes(piece)
                await asyncio.sleep(0)
            for name in order:
                assert (await client.read_answer()).body == plain[name], (order, cut)


async def test_half_a_head_that_looks_like_a_request_is_none(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A head cut in two, whose second half looks like a whole GET, has one answer."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    await targets_of(teepi)
    body = (await warm(teepi, PAGE)).body
    before = hot_answers(teepi)
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(b"GET /healthz HTTP/1.1\r\nX-A: ")
        await until(lambda: is_inside_a_message(teepi))
        await client.send_bytes(f"GET {PAGE} HTTP/1.1\r\nHost: teepi.example\r\n\r\n".encode())
        answer = await client.read_answer()
        assert answer.body != body
        await client.send("GET", PAGE)
        assert (await client.read_answer()).body == body
    assert hot_answers(teepi) in {before, before + 1}


async def test_body_that_looks_like_a_request_is_none(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """What is announced as a body is read as one."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    await targets_of(teepi)
    await warm(teepi, PAGE)
    inner = f"GET {PAGE} HTTP/1.1\r\nHost: teepi.example\r\n\r\n".encode()
    async with await RawClient.connect(teepi.address) as client:
        await client.send("POST", "/+operator/info", {"Content-Length": str(len(inner))})
        assert (await client.read_answer()).status == 403
        await client.send_bytes(inner)
        await client.send("GET", "/healthz")
        assert (await client.read_answer()).status == 200


async def test_client_that_asks_and_never_reads_fills_no_memory(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Behind a megabyte that nobody takes the ordinary path answers, which waits."""
    project = {f"demo-{n}.0-{'x' * 100}.tar.gz": b"x" for n in range(500)}
    upstream.project("demo", project)
    teepi = await make_teepi(LIMITS)
    await warm(teepi, PAGE)
    async with await RawClient.connect(teepi.address, receive_buffer_bytes=4096) as client:
        before = None
        while before != (before := hot_answers(teepi)):
            for _ in range(50):
                await client.send("GET", PAGE)
                await asyncio.sleep(0)
        assert (await fetch(teepi.address, "/healthz")).status == 200


async def test_file_that_the_socket_takes_in_part_is_sent_whole(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """To a client that asks a hundred times before it reads; every answer comes whole and in order."""
    content = noise(60_000)
    upstream.project("demo", {"demo-3.0.tar.gz": content})
    teepi = await make_teepi(LIMITS)
    target = await file_target(teepi, "demo-3.0.tar.gz")
    await warm(teepi, target)
    async with await RawClient.connect(teepi.address, receive_buffer_bytes=4096) as client:
        for _ in range(100):
            await client.send("GET", target)
        for _ in range(100):
            assert (await client.read_answer()).body == content


async def test_hot_answers_over_tls_go_through_the_transport(
    upstream: Upstream, make_teepi: MakeTeepi, tmp_path: Path
) -> None:
    """Page and file are whole; nothing goes past the encryption."""
    publish(upstream)
    pair = make_pair(tmp_path / "tls")
    teepi = await make_teepi(LIMITS, tls_cert=pair.cert, tls_key=pair.key)
    async with await TlsClient.connect_tls(teepi.address, pair.trust) as client:
        page = json.loads((await client.get(PAGE, {"Accept": JSON})).body)
        [link] = [file["url"] for file in page["files"] if file["filename"] == BUILT.filename]
        pages = {(await client.get(PAGE, {"Accept": JSON})).body for _ in range(6)}
        assert len(pages) <= 2  # what was read out of a wheel may become known in between
        bodies = {(await client.get(urljoin(PAGE, link))).body for _ in range(6)}
        assert bodies == {BUILT.content}
    assert hot_answers(teepi) > 4


# -- what takes an answer out ------------------------------------------------------------------------


async def test_page_is_hot_no_longer_than_it_is_fresh(upstream: Upstream, make_teepi: MakeTeepi, clock: Clock) -> None:
    """Then upstream is asked, and what it says is shown."""
    project = publish(upstream)
    teepi = await make_teepi(LIMITS, page_ttl_seconds=600.0)
    await warm(teepi, PAGE, {"Accept": JSON})
    clock.advance(599)
    await warm(teepi, PAGE, {"Accept": JSON})
    project.put("demo-9.0.tar.gz", b"new", None)
    clock.advance(2)
    before = hot_answers(teepi)
    answer = await fetch(teepi.address, PAGE, {"Accept": JSON})
    assert hot_answers(teepi) == before
    assert "demo-9.0.tar.gz" in [file["filename"] for file in json.loads(answer.body)["files"]]


async def test_file_that_was_purged_is_fetched_again(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Opening it is the look-up, here as well."""
    project = publish(upstream)
    teepi = await make_teepi(LIMITS)
    target = (await targets_of(teepi))["small"]
    await warm(teepi, target)
    async for _ in teepi.server.services.operations.call("purge", {"names": [BUILT.filename]}):
        pass
    before, asked = hot_answers(teepi), upstream.count("GET", project.path(BUILT.filename))
    assert (await fetch(teepi.address, target)).body == BUILT.content
    assert hot_answers(teepi) == before
    assert upstream.count("GET", project.path(BUILT.filename)) == asked + 1


async def test_file_that_became_shorter_is_not_sent(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """It is set aside and fetched anew, as on the ordinary path."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    target = (await targets_of(teepi))["small"]
    await warm(teepi, target)
    path = teepi.settings.cache_dir / "v1/files/sha256" / BUILT.sha256[:2] / BUILT.sha256
    path.chmod(0o600)
    path.write_bytes(BUILT.content[:-1])
    answer = await fetch(teepi.address, target)
    assert (answer.status, answer.body) == (200, BUILT.content)


async def test_file_whose_digest_the_page_changes_is_another_one(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock
) -> None:
    """The same URL, but not the same file."""
    project = publish(upstream)
    teepi = await make_teepi(LIMITS, page_ttl_seconds=600.0)
    target = (await targets_of(teepi))["small"]
    await warm(teepi, target)
    project.put(BUILT.filename, b"another", None)
    clock.advance(601)
    await fetch(teepi.address, PAGE)
    assert (await fetch(teepi.address, target)).body == b"another"


@pytest.mark.parametrize("change", ["offline", "upstream"])
async def test_reload_of_the_settings_takes_everything_out(
    upstream: Upstream, make_teepi: MakeTeepi, change: str
) -> None:
    """The ordinary path decides by the new ones."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    await warm(teepi, PAGE)
    changes: dict[str, Any] = {"offline": True} if change == "offline" else {"page_ttl_seconds": 0.0}
    teepi.server.reload(replace(teepi.settings, **changes))
    before = hot_answers(teepi)
    assert (await fetch(teepi.address, PAGE)).status == 200
    assert hot_answers(teepi) == before


async def test_page_that_is_invalidated_asks_upstream_at_once(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Proxpi's DELETE holds here, too."""
    project = publish(upstream)
    teepi = await make_teepi(LIMITS, proxpi_invalidation=True)
    await warm(teepi, PAGE)
    asked = upstream.count("GET", project.page_path)
    assert (await fetch(teepi.address, "/cache/demo", None, "DELETE")).status == 200
    assert (await fetch(teepi.address, PAGE)).status == 200
    assert upstream.count("GET", project.page_path) == asked + 1


@pytest.mark.parametrize("shape", ["/index/demo/{0}", "/packages/demo/{0}"])
async def test_file_by_name_or_path_is_never_hot(upstream: Upstream, make_teepi: MakeTeepi, shape: str) -> None:
    """What it means hangs on the page's freshness, or on what other pages link to."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    await targets_of(teepi)
    before = hot_answers(teepi)
    for _ in range(5):
        assert (await fetch(teepi.address, shape.format(BUILT.filename))).body == BUILT.content
    assert hot_answers(teepi) == before


async def test_target_longer_than_any_that_is_linked_to_is_not_remembered(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Any number of slashes lead to a page, and would fill memory."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    await warm(teepi, PAGE)
    target = "/simple" + "/" * 1000 + "demo/"
    for _ in range(4):
        assert (await fetch(teepi.address, target)).status == 200
    assert list(teepi.server.services.hot.entries.by_target) == [PAGE.encode()]


async def test_condition_behind_the_empty_line_is_none(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """It belongs to whatever comes next, which is no request."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    etag = (await warm(teepi, PAGE)).headers["etag"]
    await warm(teepi, PAGE, {"If-None-Match": etag})
    head = f"GET {PAGE} HTTP/1.1\r\nHost: teepi.example\r\n\r\nIf-None-Match: {etag}\r\n"
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(head.encode())
        assert (await client.read_answer()).status == 400


async def test_core_metadata_that_was_damaged_is_read_out_again(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """It is not synced, so its bytes are compared each time."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    target = (await targets_of(teepi))["read out"]
    await warm(teepi, target)
    [path] = (teepi.settings.cache_dir / "v1/metadata").glob("*/*")
    data = bytearray(path.read_bytes())
    data[-10:] = b"x" * 10
    path.write_bytes(data)
    for _ in range(3):
        assert (await fetch(teepi.address, target)).body == BUILT.metadata


async def test_invalidation_that_a_request_overtakes_holds(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that turns hot while the indexes are gone through is taken out all the same."""
    project = publish(upstream)
    teepi = await make_teepi(LIMITS)
    indexes = dict.fromkeys(("root/pypi", "team/too"), teepi.settings.indexes["root/pypi"])
    teepi.server.reload(replace(teepi.settings, indexes=indexes))
    target = "/team/too/+simple/demo/"
    await warm(teepi, target)
    pages = teepi.server.services.pages
    known, reached, go = pages._known, asyncio.Event(), asyncio.Event()  # noqa: SLF001 - it stands between two steps

    async def held(key: tuple[str, str]) -> Any:
        page = await known(key)
        if key[0] == "team/too" and not reached.is_set():
            reached.set()
            await go.wait()
        return page

    monkeypatch.setattr(pages, "_known", held)
    invalidating = asyncio.ensure_future(pages.invalidate("demo"))
    await reached.wait()
    await warm(teepi, target)
    go.set()
    await invalidating
    asked = upstream.count("GET", project.page_path)
    assert (await fetch(teepi.address, target)).status == 200
    assert upstream.count("GET", project.page_path) == asked + 1


async def test_page_of_an_index_made_of_others_is_never_hot(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """It hangs on each of them."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    mirror = teepi.settings.indexes["root/pypi"]
    indexes = {"root/pypi": mirror, "team/all": replace(mirror, upstream="", bases=("root/pypi",))}
    teepi.server.reload(replace(teepi.settings, indexes=indexes))
    for _ in range(5):
        assert (await fetch(teepi.address, "/team/all/+simple/demo/")).status == 200
    assert hot_answers(teepi) == 0


async def test_use_of_hot_files_and_pages_is_noted(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Eviction goes by it."""
    publish(upstream)
    teepi = await make_teepi(LIMITS)
    targets = await targets_of(teepi)
    await warm(teepi, targets["small"])
    catalog = teepi.server.services.catalog
    await catalog.flush()
    assert not catalog.was_touched(BUILT.sha256)
    await warm(teepi, targets["small"])
    assert catalog.was_touched(BUILT.sha256)


async def test_aiohttp_that_is_made_otherwise_leaves_all_to_the_ordinary_path(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One sentence says so at the start."""
    monkeypatch.setattr(connection, "_NEEDED", ("_waiter", "_gone"))
    publish(upstream)
    with caplog.at_level(logging.WARNING):
        teepi = await make_teepi(Limits())
    assert "This aiohttp has no _gone: pages and small files are served more slowly." in caplog.text
    for _ in range(4):
        assert (await fetch(teepi.address, PAGE)).status == 200
    assert hot_answers(teepi) == 0
