"""The circuit breaker, by a clock that the test holds."""

from __future__ import annotations

from teepi.breaker import Breaker


def _failed(times: int, *, now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        breaker.failed(now)
    return breaker


def test_breaker_opens_at_the_third_failure_in_a_row() -> None:
    """One or two failures may be the network's."""
    assert _failed(2).allows(0.0)
    assert not _failed(3).allows(0.0)


def test_breaker_waits_twice_as_long_after_each_failure_up_to_a_minute() -> None:
    """1, 2, 4 … 60 s."""
    assert [_failed(times).wait_seconds(0.0) for times in (3, 4, 5, 30)] == [1.0, 2.0, 4.0, 60.0]


def test_breaker_whose_time_is_up_lets_one_probe_through() -> None:
    """A hundred clients do not all find out that upstream is still down."""
    breaker = _failed(3)
    assert [breaker.allows(1.5) for _ in range(3)] == [True, False, False]
    breaker.failed(2.0)
    assert not breaker.allows(3.9)
    assert breaker.allows(4.1)


def test_breaker_whose_probe_says_nothing_lets_another_through() -> None:
    """A probe that is lost does not close the way for ever."""
    breaker = _failed(3)
    assert breaker.allows(1.0)
    assert not breaker.allows(10.0)
    assert breaker.allows(17.0)


def test_breaker_closes_at_the_first_answer() -> None:
    """Upstream is back: everybody may ask, and failures are counted anew."""
    breaker = _failed(9)
    breaker.answered(in_time=True)
    assert breaker.allows(0.0)
    breaker.failed(0.0)
    assert breaker.allows(0.0)


def test_breaker_obeys_retry_after_at_once_within_reason() -> None:
    """Contract 35. Upstream asks to be left alone; five minutes are the most it gets."""
    for asked, waited in ((7.0, 7.0), (86400.0, 300.0)):
        breaker = Breaker()
        breaker.failed(0.0, asked_wait_seconds=asked)
        assert not breaker.allows(waited - 0.1)
        assert breaker.allows(waited)


def test_breaker_remembers_slowness_until_an_answer_in_time() -> None:
    """Waiting that was in vain three times is not tried a fourth."""
    breaker = Breaker()
    for _ in range(3):
        assert not breaker.is_slow
        breaker.dawdled()
    assert breaker.is_slow
    breaker.answered(in_time=False)
    assert breaker.is_slow
    breaker.answered(in_time=True)
    assert not breaker.is_slow
