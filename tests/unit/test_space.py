"""What may be reserved and what must go: every sequence keeps the limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from teepi.sizes import parse_size, said
from teepi.space import LOW_WATER, Candidate, NoRoom, Space, choose

LIMIT = 1_000_000
FREE = 1 << 40
NAMES = st.sampled_from("abcde")


def candidates(sizes: list[int]) -> list[Candidate]:
    """Return files of ``sizes``, the least recently used first."""
    return [Candidate(str(at), size, float(at)) for at, size in enumerate(sizes)]


@given(
    st.lists(st.integers(min_value=0, max_value=100), max_size=30),
    st.integers(min_value=-5, max_value=2000),
    st.sets(st.integers(min_value=0, max_value=29)),
)
def test_choose_takes_the_least_recently_used_that_may_go_and_no_more(
    sizes: list[int], need: int, kept: set[int]
) -> None:
    """A prefix of what may go; enough, or all of it; without its last one it would not be enough."""
    may_go = [each for each in candidates(sizes) if int(each.sha256) not in kept]
    chosen = choose(candidates(sizes), need, may_go=lambda each: int(each.sha256) not in kept)
    assert chosen == may_go[: len(chosen)]
    total = sum(each.size for each in chosen)
    assert total >= need or chosen == may_go
    if chosen:
        assert total - chosen[-1].size < need


class Ledger(RuleBasedStateMachine):
    """Downloads come, grow, end, are evicted; nothing is ever granted above the limit."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.space = Space(LIMIT, min_free=1000)
        self.free = 700_000
        self.files: list[int] = []
        self.held: dict[str, tuple[int, int]] = {}

    @rule(name=NAMES, size=st.integers(min_value=0, max_value=LIMIT))
    def reserve(self, name: str, size: int) -> None:
        """Begin or grow one."""
        before = self.space.used
        reserved, written = self.held.get(name, (0, 0))
        if size - reserved > max(0, self.space.room(self.free)):
            with pytest.raises(NoRoom) as caught:
                self.space.reserve(name, size, self.free)
            assert caught.value.need == size - reserved
            assert self.space.used == before
        else:
            self.space.reserve(name, size, self.free)
            self.held[name] = (max(reserved, size), written)

    @rule(name=NAMES, share=st.floats(min_value=0, max_value=1))
    def write(self, name: str, share: float) -> None:
        """Write a part of what is reserved."""
        if name in self.held:
            reserved, written = self.held[name]
            stop = max(written, int(reserved * share))
            self.free -= stop - written
            self.held[name] = (reserved, stop)
            self.space.wrote(name, stop)

    @rule(name=NAMES)
    def commit(self, name: str) -> None:
        """End one as a file."""
        if name in self.held:
            _, written = self.held.pop(name)
            self.files.append(written)
            self.space.committed(name, written)

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        """End one as a partial."""
        if name in self.held:
            _, written = self.held[name]
            self.space.settle(name, written)
            self.held[name] = (written, written)
            if not written:
                del self.held[name]

    @rule()
    def evict(self) -> None:
        """Delete the oldest file."""
        if self.files:
            size = self.files.pop(0)
            self.free += size
            self.space.found(-size)

    @invariant()
    def holds(self) -> None:
        """Count all; grant what fits below the limit and leaves the disk its floor."""
        assert self.space.used == sum(self.files) + sum(reserved for reserved, _ in self.held.values())
        assert self.space.used <= LIMIT - self.space.margin
        unwritten = sum(reserved - written for reserved, written in self.held.values())
        assert self.free - unwritten >= 1000


TestLedger = Ledger.TestCase


def test_room_is_what_the_limit_and_the_disk_leave() -> None:
    """The smaller of both counts; a hundredth of the limit is for what grows unreserved."""
    space = Space(LIMIT, min_free=100)
    assert space.room(FREE) == LIMIT - space.margin == 990_000
    assert space.room(5100) == 5000
    space.reserve("a", 4000, 5100)
    assert space.room(5100) == 1000
    space.wrote("a", 3000)
    assert space.room(2100) == 1000


def test_nothing_is_reserved_before_the_files_are_counted() -> None:
    """A lost catalogue says nothing of what is there."""
    space = Space(LIMIT)
    space.is_counted = False
    with pytest.raises(NoRoom):
        space.reserve("a", 1, FREE)


def test_excess_goes_down_to_the_low_water_mark() -> None:
    """Of the limit, or to the floor of the disk, whichever is more."""
    space = Space(LIMIT, min_free=1000)
    space.found(LIMIT)
    assert space.excess(FREE) == LIMIT - int(LIMIT * LOW_WATER)
    assert space.excess(0) == LIMIT - int(LIMIT * LOW_WATER)
    space.min_free = LIMIT
    assert space.excess(0) == LIMIT


def test_pages_that_grow_into_the_margin_are_said() -> None:
    """They are written without being reserved, so files must go for them."""
    space = Space(LIMIT)
    said_tight: list[None] = []
    space.tight = lambda: said_tight.append(None)
    space.reserve("a", 980_000, FREE)
    space.grown(9_000)
    assert not said_tight
    space.grown(2_000)
    assert len(said_tight) == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1500000", 1_500_000),
        (7, 7),
        ("50GB", 50 * 10**9),
        ("20GiB", 20 << 30),
        ("1.5 kB", 1500),
        ("2tib", 2 << 40),
        ("3B", 3),
    ],
)
def test_size_is_read_as_people_write_it(text: Any, size: int) -> None:
    """Decimal and binary units, any case."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "5 apples", "GB", "1e9", "5G B", "nan", "5GBB", "٣"])
def test_size_that_is_none_is_refused_with_what_is_expected(text: str) -> None:
    """One sentence, never a guess."""
    with pytest.raises(ValueError, match="write a size such as 50GB"):
        parse_size(text)


def test_size_is_said_in_units_for_people() -> None:
    """Three figures and a unit."""
    sizes = (0, 999, 1500, 999_950, 2_340_000, 123_456_789, 5 * 10**9, 3 * 10**12, 5 * 10**15)
    assert [said(size) for size in sizes] == [
        "0 bytes", "999 bytes", "1.5 kB", "1.0 MB", "2.3 MB", "123 MB", "5.0 GB", "3.0 TB", "5000 TB",
    ]  # fmt: skip
