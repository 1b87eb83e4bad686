"""An upstream network that breaks (fault 13): resumed so that nobody notices, or ended honestly."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.scene import CALM, IMPATIENT, stage
from tests.support.faults import (
    BadContentRange,
    ChangedEtag,
    CutChunk,
    EarlyEnd,
    Fault,
    HangBeforeHead,
    IgnoreRange,
    Replace,
    Reset,
    Stall,
    Status,
    Trickle,
    Unasked206,
    WrongLength,
)
from tests.support.wheels import noise

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.http.scene import Scene
    from tests.support.exchange import Answer, Line
    from tests.support.upstream import Upstream

CONTENT = noise(1_000_000)
TOTAL = len(CONTENT)
CUT = 400_000
NO_VALIDATORS: dict[str, Any] = {"etag": None, "last_modified": None}


async def all_right(scene: Scene, clients: int = 5) -> None:
    """Let several clients ask at once; all get the whole file, and it is cached."""
    answers = await asyncio.gather(*(scene.get() for _ in range(clients)))
    assert [(answer.status, answer.complete, answer.body == CONTENT) for answer in answers] == [
        (200, True, True)
    ] * clients
    await scene.settled()
    assert scene.stored == {scene.sha256}


async def all_short(scene: Scene, clients: int = 5, *, at: int = CUT) -> None:
    """Let several clients ask at once; all get what had arrived, then FIN, and nothing is cached."""
    answers = await asyncio.gather(*(scene.get() for _ in range(clients)))
    for answer in answers:
        assert (answer.status, answer.head.length, answer.end) == (200, TOTAL, "fin")
        assert answer.body == CONTENT[:at]
    await scene.settled()
    assert scene.stored == set()


class CutInChunk(CutChunk):
    """A chunk that is cut in its right bytes."""

    async def strike(self, line: Line) -> None:
        """Promise a chunk and send ten bytes of it."""
        await line.send(b"ffff\r\n" + CONTENT[CUT : CUT + 10])
        line.finish()


class LaterPart(Fault):
    """206 with a part that begins one byte late, and says so."""

    def alter(self, answer: Answer) -> None:
        """Leave out a byte."""
        answer.start, answer.body, answer.length = answer.start + 1, answer.body[1:], len(answer.body) - 1
        answer.headers["Content-Range"] = f"bytes {answer.start}-{TOTAL - 1}/{TOTAL}"


class EtagOnPart(Fault):
    """206 to a range with another ETag than the file had: an If-Range that was not understood."""

    def alter(self, answer: Answer) -> None:
        """Change the ETag of the answer alone."""
        answer.headers["ETag"] = '"changed"'


# --- resumed: nobody notices (contract 30)


@pytest.mark.parametrize("fault", [Reset(CUT), EarlyEnd(CUT)], ids=lambda fault: type(fault).__name__)
async def test_break_in_mid_file_is_resumed_by_range(upstream: Upstream, make_teepi: MakeTeepi, fault: Fault) -> None:
    """Reset, or an early end with a length: one more GET, from the exact place. Contract 30."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [fault])
    await all_right(scene)
    assert scene.ranges == [None, f"bytes={CUT}-"]


@pytest.mark.parametrize("size", [True, False])
async def test_cut_chunk_is_resumed_by_range(upstream: Upstream, make_teepi: MakeTeepi, *, size: bool) -> None:
    """A chunked body that ends inside a chunk, its size known or not. Contract 30."""
    scene = await stage(upstream, make_teepi, CONTENT, size=size)
    upstream.script(scene.path, [CutInChunk(CUT)])
    await all_right(scene)
    assert scene.gets == 2
    assert scene.ranges[1] in {f"bytes={CUT}-", f"bytes={CUT + 10}-"}


async def test_cut_chunk_of_wrong_bytes_never_completes(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The digest finds what the framing could not. Contract 32."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [CutChunk(CUT)])
    answers = await asyncio.gather(*(scene.get() for _ in range(3)))
    assert [(answer.status, answer.complete) for answer in answers] == [(200, False)] * 3
    await scene.settled()
    assert scene.stored == set()
    await all_right(scene)


@pytest.mark.parametrize("size", [True, False])
async def test_early_end_of_body_without_length_is_never_taken_for_the_end(
    upstream: Upstream, make_teepi: MakeTeepi, *, size: bool
) -> None:
    """With a size on the page it is resumed; without one the digest tells, and nobody completes. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT, size=size, length=False)
    upstream.script(scene.path, [EarlyEnd(CUT)])
    if size:
        await all_right(scene)
        assert scene.ranges == [None, f"bytes={CUT}-"]
        return
    answer = await scene.get()
    assert not answer.complete
    assert CONTENT.startswith(answer.body)
    await all_right(scene)


@pytest.mark.parametrize("traits", [{}, NO_VALIDATORS], ids=["validators", "none"])
async def test_four_resets_in_one_file_are_resumed(
    upstream: Upstream, make_teepi: MakeTeepi, traits: dict[str, Any]
) -> None:
    """100 KiB apart, with and without ETag and Last-Modified: each resume asks its Range. Contract 30."""
    scene = await stage(upstream, make_teepi, CONTENT, **traits)
    places = [200_000, 302_400, 404_800, 507_200]
    upstream.script(scene.path, [Reset(place) for place in places])
    await all_right(scene, 10)
    assert scene.ranges == [None, *(f"bytes={place}-" for place in places)]
    assert [request.headers.get("if-range") for request in upstream.seen(scene.path)] == [None] * 5  # digest decides


async def test_resets_without_end_are_survived_while_bytes_come(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """More resets than tries, for new bytes restore them."""
    limits = replace(CALM, resume_credit_bytes=100_000)
    scene = await stage(upstream, make_teepi, CONTENT, limits=limits)
    places = list(range(50_000, TOTAL, 50_000))
    upstream.script(scene.path, [Reset(place) for place in places])
    await all_right(scene)
    assert scene.ranges == [None, *(f"bytes={place}-" for place in places)]


async def test_break_without_digest_is_resumed_with_if_range(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """No digest but a strong ETag: If-Range makes sure that it is the same file. Contract 30."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False, etag='"theirs"')
    upstream.script(scene.path, [Reset(CUT), Reset(600_000)])
    await all_right(scene)
    assert scene.ranges == [None, f"bytes={CUT}-", "bytes=600000-"]
    assert [request.headers.get("if-range") for request in upstream.seen(scene.path)] == [None, '"theirs"', '"theirs"']


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
async def test_break_without_digest_and_strong_etag_ends_short(
    upstream: Upstream, make_teepi: MakeTeepi, etag: str | None
) -> None:
    """Nothing could tell a right rest from a wrong one: no resume. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False, etag=etag)
    upstream.script(scene.path, [Reset(CUT)])
    await all_short(scene)
    assert scene.gets == 1
    await all_right(scene)
    assert scene.ranges == [None, None]


@pytest.mark.parametrize("at", [0, CUT])
async def test_silence_after_the_head_is_resumed(upstream: Upstream, make_teepi: MakeTeepi, at: int) -> None:
    """An open connection without bytes counts as broken. Contract 30."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=IMPATIENT)
    upstream.script(scene.path, [Stall(at)])
    await all_right(scene)
    assert scene.ranges == [None, f"bytes={at}-" if at else None]


async def test_hang_before_the_head_of_a_resume_is_tried_again(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A resume has a time-out of its own. Contract 30."""
    scene = await stage(upstream, make_teepi, CONTENT, limits=IMPATIENT)
    upstream.script(scene.path, [Reset(CUT), HangBeforeHead(), Status(503), Status(429)])
    await all_right(scene)
    assert scene.ranges == [None, *[f"bytes={CUT}-"] * 4]


async def test_trickle_below_the_minimum_rate_is_resumed(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A byte now and then defeats a read time-out; a minimum over a window does not."""
    limits = replace(CALM, rate_window_seconds=0.1)
    scene = await stage(upstream, make_teepi, CONTENT, limits=limits)
    upstream.script(scene.path, [Trickle(1)])
    await all_right(scene)
    assert scene.gets == 2
    assert scene.ranges[1] is not None


async def test_upstream_that_stays_gone_ends_all_short_after_six_tries(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Six tries in a row, then every client has what arrived, then FIN; the next request takes it up. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [Reset(CUT), *[Status(503)] * 6])
    await all_short(scene)
    assert scene.ranges == [None, *[f"bytes={CUT}-"] * 6]
    await all_right(scene)
    assert scene.ranges[7:] == [f"bytes={CUT}-"]


async def test_interrupted_end_is_shown_except_a_last_byte(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Broken within the withheld end: all that arrived is flushed, and still nobody completes. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [Reset(TOTAL - 100), *[Status(503)] * 6])
    await all_short(scene, at=TOTAL - 100)


@pytest.mark.parametrize("status", [403, 404, 416, 500])
async def test_resume_that_upstream_refuses_never_completes_a_wrong_body(
    upstream: Upstream, make_teepi: MakeTeepi, status: int
) -> None:
    """416 on resume and others: retried or ended short, right at the next request. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [Reset(CUT), *[Status(status)] * (6 if status == 500 else 1)])
    await all_short(scene)
    await all_right(scene)


# --- what a resume may be answered with


@pytest.mark.parametrize(
    "fault",
    [LaterPart(), BadContentRange("start"), BadContentRange("total"), BadContentRange("missing")],
    ids=["later", "start", "total", "missing"],
)
async def test_resume_with_wrong_content_range_is_refused_and_tried_again(
    upstream: Upstream, make_teepi: MakeTeepi, fault: Fault
) -> None:
    """Exactly the place and the total asked for, or nothing of it is used."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [Reset(CUT), fault])
    await all_right(scene)
    assert scene.ranges == [None, f"bytes={CUT}-", f"bytes={CUT}-"]


async def test_resume_answered_200_with_same_bytes_goes_on(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The whole file again: its first part is hashed, compared and skipped."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [Reset(CUT), IgnoreRange()])
    await all_right(scene)
    assert scene.gets == 2


async def test_resume_answered_200_with_same_etag_goes_on_without_digest(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """An upstream that knows no ranges: ETag and compared bytes tell that it is the same file."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False, accept_ranges=False)
    upstream.script(scene.path, [Reset(CUT)])
    await all_right(scene)
    assert scene.gets == 2


@pytest.mark.parametrize("sha256", [True, False])
async def test_resume_answered_200_with_other_bytes_ends_short(
    upstream: Upstream, make_teepi: MakeTeepi, *, sha256: bool
) -> None:
    """Two copies that differ are never joined, whatever the ETag says. Contract 32."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=sha256)
    upstream.script(scene.path, [Reset(CUT), (Replace(noise(TOTAL, 1)), IgnoreRange())])
    await all_short(scene)
    await all_right(scene)


async def test_resume_with_changed_etag_goes_on_where_a_digest_decides(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Mirrors disagree about ETags; the digest is what counts."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [Reset(CUT), ChangedEtag()])
    await all_right(scene)
    assert scene.gets == 2


@pytest.mark.parametrize("fault", [ChangedEtag(), EtagOnPart()], ids=["200", "206"])
async def test_resume_with_changed_etag_ends_short_without_digest(
    upstream: Upstream, make_teepi: MakeTeepi, fault: Fault
) -> None:
    """Another version is not joined to this one, even where If-Range was ignored (RFC 9110, 15.3.7.3)."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False)
    upstream.script(scene.path, [Reset(CUT), fault])
    await all_short(scene)
    await all_right(scene)


async def test_changed_etag_right_after_the_head_ends_short_without_digest(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Not a byte had come, but clients were told another ETag and size."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=False)
    upstream.script(scene.path, [Reset(0), (Replace(noise(TOTAL, 1)), ChangedEtag())])
    answers = await asyncio.gather(*(scene.get() for _ in range(3)))
    assert not any(answer.complete and answer.status == 200 for answer in answers)
    await scene.settled()
    assert scene.stored == set()
    await all_right(scene)


@pytest.mark.parametrize("sha256", [True, False])
async def test_resume_of_another_size_never_completes(
    upstream: Upstream, make_teepi: MakeTeepi, *, sha256: bool
) -> None:
    """A file that grew is another file. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=sha256, size=False)
    upstream.script(scene.path, [Reset(CUT), *[Replace(CONTENT + b"more")] * 6])
    await all_short(scene)
    await all_right(scene)


# --- what a first answer may be


async def test_unasked_206_is_refused(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Half a file to a request for all of it is no file: 503, then fetched anew. Contract 33."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [Unasked206()])
    answer = await scene.get()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    await all_right(scene)


@pytest.mark.parametrize("sha256", [True, False])
@pytest.mark.parametrize("by", [-1000, 1000])
async def test_wrong_length_never_completes_and_is_never_cached(
    upstream: Upstream, make_teepi: MakeTeepi, by: int, *, sha256: bool
) -> None:
    """Content-Length too small or too large: no complete body, nothing cached, the next request right. Contract 31."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=sha256)
    upstream.script(scene.path, [WrongLength(by)])
    answer = await scene.get()
    assert not (answer.status == 200 and answer.complete)
    assert CONTENT.startswith(answer.body) or answer.status == 503
    await scene.settled()
    assert scene.stored == set()
    await all_right(scene)


@pytest.mark.parametrize("sha256", [True, False])
async def test_length_that_contradicts_the_page_and_never_comes_right_stays_503_or_short(
    upstream: Upstream, make_teepi: MakeTeepi, *, sha256: bool
) -> None:
    """An upstream that always lies never makes a complete body."""
    scene = await stage(upstream, make_teepi, CONTENT, sha256=sha256)
    upstream.script(scene.path, itertools.repeat(WrongLength(-1000)))
    for _ in range(4):
        answer = await scene.get()
        assert not (answer.status == 200 and answer.complete)
    assert scene.stored == set()


@pytest.mark.parametrize(
    ("status", "expected"), [(404, 404), (410, 404), (403, 503), (429, 503), (500, 503), (504, 503)]
)
async def test_first_answer_that_is_an_error_is_told_honestly(
    upstream: Upstream, make_teepi: MakeTeepi, status: int, expected: int
) -> None:
    """404 stays 404, all else is 503 with a sentence; nothing is remembered. Contracts 19, 33 to 36."""
    scene = await stage(upstream, make_teepi, CONTENT)
    upstream.script(scene.path, [Status(status)])
    answer = await scene.get()
    assert (answer.status, answer.headers["cache-control"]) == (expected, "no-store")
    assert answer.headers.get("retry-after") == ("1" if expected == 503 else None)
    assert answer.body.count(b"\n") == 1
    await all_right(scene)


async def test_upstream_that_refuses_connections_is_503_and_asked_anew(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """An outage is told at once, and over when it is over. Contract 33."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await upstream.stop()
    answer = await scene.get()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    await upstream.start()
    await all_right(scene)
