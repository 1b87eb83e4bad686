"""The heart: states, limits, waiters, single-flight."""
# ruff: noqa: D102, D107 - the rules of the state machine are named for what they do

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from teepi.descriptor import Descriptor
from teepi.download import MOVES, Download, Registry, State
from teepi.download_report import line as report
from teepi.errors import Interrupted, Mismatch
from teepi.model import FileKey
from teepi.readable import Cursor
from teepi.ring import Ring
from teepi.source import SourceHead

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = FileKey("sha256:" + "0" * 64)
WITHHELD = 10


def _download() -> Download:
    return Download(KEY, withheld_bytes=WITHHELD)


def _descriptor() -> Descriptor:
    return Descriptor(os.open(os.devnull, os.O_RDONLY))


def _streaming(total: int | None = 100, arrived: int = 0) -> Download:
    download = _download()
    file = _descriptor()
    download.started(SourceHead(0, total), file=file, arrived=arrived)
    file.drop()
    return download


REPORTS: dict[State, Callable[[Download], None]] = {
    State.STREAMING: lambda download: download.started(SourceHead(0, 1), file=None, ring_bytes=16),
    State.VERIFIED: lambda download: download.verified(),
    State.COMPLETE: lambda download: download.completed(),
    State.FAILED: lambda download: download.failed(Interrupted("x")),
}


@given(st.lists(st.sampled_from(list(REPORTS)), max_size=6))
def test_states_any_sequence_of_reports_moves_only_as_the_table_says(reports: list[State]) -> None:
    """A report that the table does not allow raises and changes nothing."""
    download = _download()
    for to in reports:
        before = download.state
        if to in MOVES[before]:
            REPORTS[to](download)
            assert download.state is to
        else:
            with pytest.raises(RuntimeError):
                REPORTS[to](download)
            assert download.state is before


def test_limit_while_streaming_withholds_the_end() -> None:
    """The last bytes are shown to nobody before the digest is right."""
    download = _streaming(total=100)
    download.extended(50)
    assert download.limit == 50
    download.extended(50)
    assert download.limit == 90
    download.verified()
    assert download.limit == 100


def test_limit_of_a_file_smaller_than_the_withheld_end_is_zero() -> None:
    """A small file is withheld whole."""
    download = _streaming(total=WITHHELD)
    download.extended(WITHHELD)
    assert download.limit == 0


def test_limit_of_unknown_size_shows_all_but_the_newest_read() -> None:
    """Without a size nobody knows where the end begins: the newest read may be it."""
    download = _streaming(total=None)
    download.extended(30)
    assert download.limit == 0
    download.extended(20)
    assert download.limit == 30
    download.verified()
    assert (download.limit, download.total) == (50, 50)


def test_failed_by_mismatch_keeps_the_end_withheld() -> None:
    """After a mismatch nobody gets further than before."""
    download = _streaming(total=100)
    download.extended(100)
    download.failed(Mismatch("wrong"))
    assert download.limit == 90


def test_failed_by_interruption_shows_all_that_arrived() -> None:
    """After a break everything that has arrived is flushed, but never the whole file. Contract 31."""
    download = _streaming(total=100)
    download.extended(95)
    download.failed(Interrupted("broke"), interrupted=True)
    assert download.limit == 95
    whole = _streaming(total=100)
    whole.extended(100)
    whole.failed(Interrupted("broke"), interrupted=True)
    assert whole.limit == 99


def test_failed_after_verified_takes_nothing_from_readers() -> None:
    """A commit that fails does not shorten a body."""
    download = _streaming(total=100)
    download.extended(100)
    download.verified()
    download.failed(Interrupted("disk"))
    assert download.limit == 100


def test_extended_outside_streaming_raises() -> None:
    """Bytes count only while streaming."""
    download = _download()
    with pytest.raises(RuntimeError, match="CONNECTING"):
        download.extended(1)


def test_park_wakes_only_those_whom_the_limit_has_passed() -> None:
    """A reader ahead of the tip sleeps on."""
    download = _streaming(total=100)
    woken: list[str] = []
    near, far = Cursor(0), Cursor(60)
    near.wake = lambda: woken.append("near")
    far.wake = lambda: woken.append("far")
    for cursor in (near, far):
        download.attach(cursor)
        download.park(cursor)
    download.extended(40)
    assert woken == ["near"]
    download.extended(40)
    assert woken == ["near", "far"]


def test_descriptor_lives_until_the_last_reader_detaches() -> None:
    """Complete or not, a reader keeps the descriptor open."""
    download = _streaming(total=10)
    cursor = Cursor()
    download.attach(cursor)
    assert download.file is not None
    fd = download.file.fd
    download.extended(10)
    download.verified()
    download.completed()
    os.fstat(fd)
    download.detach(cursor)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


def test_descriptor_taken_after_close_raises() -> None:
    """A closed descriptor cannot come back under another file's number."""
    descriptor = _descriptor()
    descriptor.drop()
    with pytest.raises(RuntimeError):
        descriptor.take()


async def test_wait_beyond_returns_when_the_limit_moves_or_nothing_more_comes() -> None:
    """``wait_beyond`` is built on the same change as parked readers."""
    download = _streaming(total=100)
    waiting = asyncio.ensure_future(download.wait_beyond(20))
    download.extended(20)
    await asyncio.sleep(0)
    assert not waiting.done()
    download.extended(1)
    await waiting
    stuck = asyncio.ensure_future(download.wait_beyond(90))
    await asyncio.sleep(0)
    download.failed(Interrupted("x"), interrupted=True)
    await stuck


async def test_ring_waits_for_its_slowest_reader() -> None:
    """Memory is bounded: the fetch waits, and goes on when the reader has taken something."""
    download = _download()
    slow = Cursor()
    download.attach(slow)
    download.started(SourceHead(0, 100), file=None, ring_bytes=32)
    landing = asyncio.ensure_future(download.append(b"x" * 40))
    await asyncio.sleep(0)
    assert not landing.done()
    assert download.arrived == 32
    download.advance(slow, 8)
    await landing
    assert download.arrived == 40
    download.detach(slow)


async def test_ring_without_readers_is_abandoned() -> None:
    """A download that nothing keeps ends with its readers."""
    download = _download()
    abandoned: list[bool] = []
    download.abandoned = lambda: abandoned.append(True)
    cursor = Cursor()
    download.attach(cursor)
    download.started(SourceHead(0, 100), file=None, ring_bytes=32)
    assert not abandoned
    download.detach(cursor)
    assert abandoned


def test_ring_after_a_file_keeps_what_was_written_readable() -> None:
    """The disk fills in mid-file: what is in the file is read from there, the rest from memory."""
    download = _streaming(total=100)
    cursor = Cursor()
    download.attach(cursor)
    download.extended(30)
    download.leave_file(32)
    assert download.file_stop == 30
    assert download.ring is not None
    assert download.ring.start == 30
    assert download.serves(0)
    download.detach(cursor)


def test_registry_joins_while_in_flight_and_starts_anew_after() -> None:
    """Single-flight: one download per key until it is forgotten."""
    registry = Registry()
    first, joined = registry.join_or_start(KEY, _download)
    again, joined_again = registry.join_or_start(KEY, _download)
    assert (joined, joined_again) == (False, True)
    assert first is again
    registry.forget(first)
    other, joined = registry.join_or_start(KEY, _download)
    assert not joined
    registry.forget(first)
    assert registry.get(KEY) is other


async def test_registry_replaces_a_ring_that_has_forgotten_the_beginning() -> None:
    """A late client cannot begin in the middle of a ring; it gets a fetch of its own."""
    registry = Registry()
    download, _ = registry.join_or_start(KEY, _download)
    cursor = Cursor()
    download.attach(cursor)
    download.started(SourceHead(0, 100), file=None, ring_bytes=32)
    await download.append(b"x" * 20)
    download.advance(cursor, 10)
    other, joined = registry.join_or_start(KEY, _download)
    assert other is not download
    assert not joined
    registry.forget(download)
    assert registry.get(KEY) is other


@given(st.lists(st.binary(min_size=1, max_size=12), max_size=20), st.integers(min_value=0, max_value=1000))
def test_ring_any_chunks_reads_back_what_was_appended(chunks: list[bytes], offset: int) -> None:
    """The ring gives back every byte at its offset in the file, across its seam."""
    ring = Ring(16, offset)
    sent = b""
    taken = b""
    for chunk in chunks:
        while ring.room < len(chunk):
            view = ring.view(ring.start, 7)
            taken += bytes(view)
            ring.release(ring.start + len(view))
        ring.append(memoryview(chunk))
        sent += chunk
    while ring.start < ring.stop:
        view = ring.view(ring.start, 7)
        taken += bytes(view)
        ring.release(ring.start + len(view))
    assert taken == sent


class Interleavings(RuleBasedStateMachine):
    """Readers come, read, park, leave in any order while the fetch reports in any legal order."""

    def __init__(self) -> None:
        super().__init__()
        self.download = _download()
        self.size: int | None = None
        self.cursors: list[Cursor] = []
        self.parked: set[Cursor] = set()

    @initialize(size=st.integers(min_value=1, max_value=60), known=st.booleans())
    def choose_size(self, size: int, known: bool) -> None:  # noqa: FBT001 - drawn
        self.real = size
        self.size = size if known else None

    @precondition(lambda self: not self.download.ended)  # the registry has forgotten it by then
    @rule()
    def attach(self) -> None:
        cursor = Cursor()
        cursor.wake = lambda: self.parked.discard(cursor)
        self.download.attach(cursor)
        self.cursors.append(cursor)

    @precondition(lambda self: self.download.state is State.CONNECTING)
    @rule()
    def start(self) -> None:
        file = _descriptor()
        self.download.started(SourceHead(0, self.size), file=file)
        file.drop()

    @precondition(lambda self: self.download.state is State.STREAMING and self.download.arrived < self.real)
    @rule(count=st.integers(min_value=1, max_value=20))
    def land(self, count: int) -> None:
        self.download.extended(min(count, self.real - self.download.arrived))

    @precondition(lambda self: self.download.state is State.STREAMING and self.download.arrived == self.real)
    @rule()
    def verify(self) -> None:
        self.download.verified()

    @precondition(lambda self: self.download.state is State.VERIFIED)
    @rule(committed=st.booleans())
    def commit(self, committed: bool) -> None:  # noqa: FBT001 - drawn
        if committed:
            self.download.completed()
        else:
            self.download.failed(Interrupted("disk"))

    @precondition(lambda self: self.download.state in {State.CONNECTING, State.STREAMING})
    @rule(interrupted=st.booleans())
    def fail(self, interrupted: bool) -> None:  # noqa: FBT001 - drawn
        self.download.failed(Interrupted("x"), interrupted=interrupted)

    @precondition(lambda self: self.cursors)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        cursor = data.draw(st.sampled_from(self.cursors))
        if cursor in self.parked:
            return
        room = self.download.limit - cursor.position
        if room > 0:
            self.download.advance(cursor, data.draw(st.integers(min_value=1, max_value=room)))
        elif not self.download.released and not self.download.ended:
            self.download.park(cursor)
            self.parked.add(cursor)

    @rule()
    def nothing(self) -> None:
        """Let a machine whose download has ended without readers go on."""

    @precondition(lambda self: self.cursors)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        cursor = data.draw(st.sampled_from(self.cursors))
        self.cursors.remove(cursor)
        self.parked.discard(cursor)
        self.download.detach(cursor)

    @invariant()
    def nobody_passes_the_limit(self) -> None:
        assert all(cursor.position <= self.download.limit for cursor in self.cursors)

    @invariant()
    def nobody_completes_before_verified(self) -> None:
        if not self.download.released:
            assert all(cursor.position < self.real for cursor in self.cursors)

    @invariant()
    def nobody_sleeps_when_there_is_something_to_do(self) -> None:
        for cursor in self.parked:
            assert not self.download.ended
            assert cursor.position >= self.download.limit

    @invariant()
    def descriptor_is_open_while_somebody_reads(self) -> None:
        if self.cursors and self.download.state is not State.CONNECTING and self.download.head is not None:
            assert self.download.file is not None
            assert self.download.file.fd >= 0

    def teardown(self) -> None:
        for cursor in self.cursors:
            self.download.detach(cursor)
        if not self.download.ended:
            self.download.failed(Interrupted("end"))


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("size", "clients", "resumes", "seconds", "line"),
    [
        (780_400_000, 12, 2, 31.4, "demo.whl 780 MB, 1 fetch, 12 clients, 31 s, resumed 2 times."),
        (2_345_678_901, 1, 1, 301.0, "demo.whl 2.3 GB, 1 fetch, 1 client, 301 s, resumed once."),
        (1_234, 0, 0, 0.04, "demo.whl 1.2 kB, 1 fetch, 0 clients, 0.0 s."),
        (999, 2, 0, 9.94, "demo.whl 999 bytes, 1 fetch, 2 clients, 9.9 s."),
    ],
)
def test_line_in_the_log_is_one_for_people(size: int, clients: int, resumes: int, seconds: float, line: str) -> None:
    """Name, size, fetch, clients, seconds, and resumes where there were any."""
    download = Download(KEY, withheld_bytes=0, name="demo.whl")
    download.arrived, download.clients, download.resumes = size, clients, resumes
    assert report(download, seconds) == line
