"""Ranges over HTTP: cached, arriving, passed upstream; If-Range (RFC 9110, 13.1.5 and 14)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.scene import CALM, WITHHELD, Held, stage, until
from tests.support.clients import RawClient, fetch
from tests.support.faults import BadContentRange, EarlyEnd, IgnoreRange, Status
from tests.support.wheels import noise

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

CONTENT = noise(1_000_000)
TOTAL = len(CONTENT)
NEAR = replace(CALM, near_tip_bytes=200_000, passed_range_bytes=300_000)
"""The 8 MiB of the real limits, scaled to a small file."""


def span(start: int, stop: int, total: int = TOTAL) -> str:
    """Return the Content-Range of bytes ``[start, stop)``."""
    return f"bytes {start}-{stop - 1}/{total}"


# --- cached


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=999990-", TOTAL - 10, TOTAL),
        ("bytes=-10000", TOTAL - 10_000, TOTAL),
        ("bytes=-9999999", 0, TOTAL),
        ("bytes=500000-9999999", 500_000, TOTAL),
        ("bytes=0-", 0, TOTAL),
    ],
)
async def test_range_of_cached_file_is_exact(
    upstream: Upstream, make_teepi: MakeTeepi, asked: str, start: int, stop: int
) -> None:
    """206 with the exact Content-Range, and the connection lives on. Contract 24."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    async with await RawClient.connect(scene.teepi.address) as client:
        for _ in range(2):
            answer = await client.get(scene.target, {"Range": asked})
            assert (answer.status, answer.headers["content-range"]) == (206, span(start, stop))
            assert (answer.head.length, answer.body) == (stop - start, CONTENT[start:stop])
            assert answer.headers["cache-control"] == "no-cache"  # verified bytes
    assert scene.gets == 1


@pytest.mark.parametrize("asked", ["bytes=1000000-", "bytes=1000000-1000009", "bytes=-0"])
@pytest.mark.parametrize("cached", [True, False])
async def test_range_past_the_end_answers_416(
    upstream: Upstream, make_teepi: MakeTeepi, asked: str, *, cached: bool
) -> None:
    """416 tells the size, cached or not, and the connection lives on. Contract 24."""
    scene = await stage(upstream, make_teepi, CONTENT)
    if cached:
        await scene.cached()
    async with await RawClient.connect(scene.teepi.address) as client:
        answer = await client.get(scene.target, {"Range": asked})
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{TOTAL}")
        assert answer.headers["cache-control"] == "no-store"
        assert (await client.get("/healthz")).status == 200


async def test_bounded_range_past_the_end_of_uncached_file_starts_no_fetch(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """To say 416 nobody needs the file. Contracts 24 and 25."""
    scene = await stage(upstream, make_teepi, CONTENT)
    assert (await scene.get({"Range": "bytes=1000000-1000009"})).status == 416
    assert None not in scene.ranges
    assert scene.downloads == []


@pytest.mark.parametrize("asked", ["bytes=0-9,20-29", "bytes=9-5", "items=0-9", "bytes=x-", "bytes=٣-٤"])
async def test_range_that_is_not_honoured_answers_200_whole(
    upstream: Upstream, make_teepi: MakeTeepi, asked: str
) -> None:
    """Several ranges, other units and nonsense get the whole file (RFC 9110, 14.2). Contract 24."""
    scene = await stage(upstream, make_teepi, CONTENT)
    async with await RawClient.connect(scene.teepi.address) as client:
        await client.send_bytes(
            f"GET {scene.target} HTTP/1.1\r\nHost: teepi.example\r\nRange: {asked}\r\n\r\n".encode()
        )
        answer = await client.read_answer()
    assert (answer.status, answer.body) == (200, CONTENT)


SIZES = [0, 1, 7, WITHHELD - 1, WITHHELD, WITHHELD + 1]


@pytest.fixture
async def shelf(upstream: Upstream, make_teepi: MakeTeepi) -> tuple[Teepi, list[str]]:
    """Cache a file of each of SIZES; give teepi and their targets there."""
    names = [f"shelf-{size}-py3-none-any.whl" for size in SIZES]
    page = upstream.project("shelf", {name: CONTENT[:size] for name, size in zip(names, SIZES, strict=True)})
    teepi = await make_teepi(CALM)
    targets = [f"/root/pypi/+http/{upstream.url.removeprefix('http://')}{page.path(name)}" for name in names]
    for target in targets:
        assert (await fetch(teepi.address, target)).status == 200
    await until(lambda: not list(teepi.server.registry))
    return teepi, targets


OFFSETS = st.none() | st.integers(0, 8) | st.integers(WITHHELD - 2, WITHHELD + 2) | st.integers(0, 2**70)


@given(which=st.integers(0, len(SIZES) - 1), first=OFFSETS, last=OFFSETS)
@settings(max_examples=80, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_ranges_of_cached_files_agree_with_the_oracle(
    shelf: tuple[Teepi, list[str]], which: int, first: int | None, last: int | None
) -> None:
    """Any range of a file of any awkward size is what a look at every single byte gives. Contract 24."""
    teepi, targets = shelf
    content = CONTENT[: SIZES[which]]
    wanted = oracle(first, last, len(content))
    asked = "bytes={}-{}".format(*("" if bound is None else bound for bound in (first, last)))
    answer = await fetch(teepi.address, targets[which], {"Range": asked})
    if wanted is None:
        assert (answer.status, answer.body) == (200, content)
    elif not wanted:
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(content)}")
    else:
        assert (answer.status, answer.body) == (206, bytes(content[place] for place in wanted))
        assert answer.headers["content-range"] == span(wanted[0], wanted[-1] + 1, len(content))


def oracle(first: int | None, last: int | None, size: int) -> list[int] | None:
    """Return the places of a file that ``bytes=first-last`` means, None when it is to be ignored."""
    if max(first or 0, last or 0) >= 10**19:  # more digits than any size has count as malformed
        return None
    if first is None:
        return None if last is None else [place for place in range(size) if size - place <= last]
    if last is not None and last < first:
        return None
    return [place for place in range(size) if first <= place and (last is None or place <= last)]


# --- If-Range (contract 26)


@pytest.mark.parametrize("state", ["cached", "uncached"])
async def test_if_range_with_right_etag_answers_206(upstream: Upstream, make_teepi: MakeTeepi, state: str) -> None:
    """A resume of what we served goes on where it was. Contract 26."""
    scene = await stage(upstream, make_teepi, CONTENT)
    if state == "cached":
        await scene.cached()
    answer = await scene.get({"Range": "bytes=900000-", "If-Range": f'"{scene.sha256}"'})
    assert (answer.status, answer.body) == (206, CONTENT[900_000:])


@pytest.mark.parametrize("asked", ["bytes=900000-", "bytes=5-9", "bytes=-9"])
@pytest.mark.parametrize("validator", ['"another"', 'W/"{}"', "Wed, 01 Jan 2020 00:00:00 GMT"])
@pytest.mark.parametrize("cached", [True, False])
async def test_if_range_with_another_validator_answers_200_whole(
    upstream: Upstream, make_teepi: MakeTeepi, asked: str, validator: str, *, cached: bool
) -> None:
    """Another ETag, a weak one or another date: the whole file. Contract 26."""
    scene = await stage(upstream, make_teepi, CONTENT)
    if cached:
        await scene.cached()
    answer = await scene.get({"Range": asked, "If-Range": validator.format(scene.sha256)})
    assert (answer.status, answer.body) == (200, CONTENT)


async def test_if_range_with_upstreams_etag_holds_without_digest(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Its validator is known once it answers, and decides then. Contract 26."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False, etag='"theirs"')
    right = await scene.get({"Range": "bytes=5-9", "If-Range": '"theirs"'})
    assert (right.status, right.body) == (206, CONTENT[5:10])
    other = await scene.get({"Range": "bytes=5-9", "If-Range": '"mine"'})
    assert (other.status, other.body) == (200, CONTENT)


# --- passed upstream (contract 25)


@pytest.mark.parametrize(
    ("asked", "start", "stop"), [("bytes=-10000", TOTAL - 10_000, TOTAL), ("bytes=1000-1999", 1000, 2000)]
)
async def test_bounded_range_on_a_miss_is_passed_upstream_alone(
    upstream: Upstream, make_teepi: MakeTeepi, asked: str, start: int, stop: int
) -> None:
    """Only that range is asked, no fetch starts, and the unverified bytes say no-store. Contracts 24 and 25."""
    scene = await stage(upstream, make_teepi, CONTENT)
    async with await RawClient.connect(scene.teepi.address) as client:
        for _ in range(2):
            answer = await client.get(scene.target, {"Range": asked})
            assert (answer.status, answer.headers["content-range"]) == (206, span(start, stop))
            assert answer.body == CONTENT[start:stop]
            assert answer.headers["cache-control"] == "no-store"
    assert scene.ranges == [asked, asked]
    assert (scene.downloads, scene.stored) == ([], set())


async def test_open_range_on_a_miss_starts_the_fetch_and_joins_it(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """``N-`` is never passed: it would hand out an unverified end. Contract 25."""
    scene = await stage(upstream, make_teepi, CONTENT)
    answer = await scene.get({"Range": "bytes=999000-"})
    assert (answer.status, answer.body) == (206, CONTENT[999_000:])
    assert scene.ranges == [None]
    await scene.settled()
    assert scene.stored == {scene.sha256}


@pytest.mark.parametrize("asked", ["bytes=0-999999", "bytes=-1000000", "bytes=100000-999998", "bytes=-300001"])
async def test_long_or_whole_range_on_a_miss_joins(upstream: Upstream, make_teepi: MakeTeepi, asked: str) -> None:
    """A range that covers the file counts as ``0-``; one over the limit would be fetched twice. Contract 25."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=NEAR)
    answer = await scene.get({"Range": asked})
    assert answer.status == 206
    assert answer.body in CONTENT
    assert scene.ranges == [None]


async def test_whole_range_within_the_limit_joins(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The whole of a small file is the file: one fetch, cached. Contract 25."""
    scene = await stage(upstream, make_teepi, CONTENT)
    answer = await scene.get({"Range": "bytes=0-999999"})
    assert (answer.status, answer.body) == (206, CONTENT)
    await scene.settled()
    assert (scene.ranges, scene.stored) == ([None], {scene.sha256})


@pytest.mark.parametrize(
    "fault", [IgnoreRange(), BadContentRange("start"), BadContentRange("total"), BadContentRange("missing")]
)
async def test_passed_range_that_upstream_answers_otherwise_joins(
    upstream: Upstream, make_teepi: MakeTeepi, fault: IgnoreRange | BadContentRange
) -> None:
    """A 200, or a 206 of something else, is not passed on: the file is fetched, the range is right. Contract 25."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [fault])
    answer = await scene.get({"Range": "bytes=1000-1999"})
    assert (answer.status, answer.body) == (206, CONTENT[1000:2000])
    assert scene.ranges == ["bytes=1000-1999", None]
    await scene.settled()
    assert scene.stored == {scene.sha256}


async def test_passed_range_that_breaks_ends_short_with_fin(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """What came is flushed, then FIN; nothing else is harmed. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [EarlyEnd(150_000)])
    answer = await scene.get({"Range": "bytes=100000-199999"})
    assert (answer.status, answer.end) == (206, "fin")
    assert answer.body == CONTENT[100_000:150_000]
    assert (await scene.get({"Range": "bytes=100000-199999"})).body == CONTENT[100_000:200_000]


@pytest.mark.parametrize(("status", "expected"), [(404, 404), (503, 503), (403, 503), (500, 503)])
async def test_passed_range_that_upstream_refuses_is_an_honest_error(
    upstream: Upstream, make_teepi: MakeTeepi, status: int, expected: int
) -> None:
    """404 stays 404; anything else is 503 with Retry-After and no-store. Contracts 19, 33 to 35."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [Status(status)])
    answer = await scene.get({"Range": "bytes=-10"})
    assert (answer.status, answer.headers["cache-control"]) == (expected, "no-store")
    assert ("retry-after" in answer.headers) == (expected == 503)


# --- of an arriving file


async def test_range_within_what_has_arrived_is_served_at_once(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Upstream stands still; the bytes are here, unverified and so no-store. Contracts 24 and 25."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, 500_000)
    async with await scene.connect() as client:
        await client.read_head()
        await scene.landed(500_000)
        answer = await scene.get({"Range": "bytes=100-499999"})
        assert (answer.status, answer.headers["content-range"]) == (206, span(100, 500_000))
        assert answer.body == CONTENT[100:500_000]
        assert answer.headers["cache-control"] == "no-store"
        gate.open()
        assert await client.read(TOTAL) == CONTENT
    assert scene.ranges == [None]


async def test_range_near_the_tip_joins_the_download(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """It begins within the limit of what has arrived: it waits, with its head sent at once. Contract 25."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=NEAR)
    gate = upstream.gate(scene.path, 300_000)
    async with await scene.connect(), await RawClient.connect(scene.teepi.address) as near:
        await scene.landed(300_000)
        await near.send("GET", scene.target, {"Range": "bytes=499000-599999"})
        head = await near.read_head()
        assert (head.status, head.headers["content-range"]) == (206, span(499_000, 600_000))
        gate.open()
        assert await near.read(101_000) == CONTENT[499_000:600_000]
    assert scene.ranges == [None]


@pytest.mark.parametrize("asked", ["bytes=500001-500100", "bytes=-100"])
async def test_range_far_ahead_of_the_tip_is_passed(upstream: Upstream, make_teepi: MakeTeepi, asked: str) -> None:
    """It does not wait for the bytes before it, nor for a fetch that stands still. Contract 25."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=NEAR)
    held = Held(300_000)
    upstream.script(scene.path, [held])
    async with await scene.connect() as client:
        await scene.landed(300_000)
        answer = await scene.get({"Range": asked})
        assert (answer.status, len(answer.body)) == (206, 100)
        assert answer.body in CONTENT
        assert answer.headers["cache-control"] == "no-store"
        held.open()
        assert (await client.read_answer()).body == CONTENT
    assert scene.ranges == [None, asked]


async def test_open_range_far_ahead_of_the_tip_joins(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A resume is never passed, wherever it begins: its end is withheld until it is right. Contract 25."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=NEAR)
    gate = upstream.gate(scene.path, 10_000)
    async with await scene.connect() as client, await RawClient.connect(scene.teepi.address) as ahead:
        await scene.landed(10_000)
        await ahead.send("GET", scene.target, {"Range": "bytes=999990-"})
        assert (await ahead.read_head()).status == 206
        gate.open()
        assert await ahead.read(10) == CONTENT[-10:]
        assert (await client.read_answer()).body == CONTENT
    assert scene.ranges == [None]


async def test_range_on_arriving_file_past_the_end_answers_416(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The size is known before the bytes are. Contract 24."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, 10_000)
    async with await scene.connect() as client:
        await scene.landed(10_000)
        answer = await scene.get({"Range": "bytes=1000000-1000001"})
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{TOTAL}")
        gate.open()
        assert (await client.read_answer()).body == CONTENT
    assert scene.ranges == [None]


async def test_if_range_on_arriving_file_compares_with_its_etag(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Right: 206 out of what has arrived; wrong: 200 and the whole. Contract 26."""
    scene = await stage(upstream, make_teepi, CONTENT)
    gate = upstream.gate(scene.path, 500_000)
    async with await scene.connect() as client, await RawClient.connect(scene.teepi.address) as other:
        await scene.landed(500_000)
        right = await scene.get({"Range": "bytes=5-9", "If-Range": f'"{scene.sha256}"'})
        assert (right.status, right.body) == (206, CONTENT[5:10])
        await other.send("GET", scene.target, {"Range": "bytes=5-9", "If-Range": '"other"'})
        assert (await other.read_head()).status == 200
        gate.open()
        assert await other.read(TOTAL) == CONTENT
        assert (await client.read_answer()).body == CONTENT
    assert scene.ranges == [None]
