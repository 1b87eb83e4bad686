"""A circuit breaker for one upstream: when it fails again and again, it is not asked for a while.

Pure: times come from the caller (monotonic seconds). ``revalidation`` keeps it; ``pages`` says what is answered
meanwhile.
"""

from __future__ import annotations

from typing import Final

_FAILURES: Final = 3  # in a row open the circuit; one or two may be the network's
_FIRST_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 60.0
_LONGEST_ASKED_SECONDS: Final = 300.0  # an upstream may ask for more patience than our users have
_PROBE_SECONDS: Final = 15.0  # a probe that says nothing for so long no longer keeps others from asking


class Breaker:
    """Closed: everyone may ask. Open: nobody until a time, then one probe; its success closes the circuit."""

    def __init__(self) -> None:
        """Begin closed."""
        self._failures = 0
        self._open_until = 0.0
        self._probe_until = 0.0
        self._slow = 0

    def allows(self, now: float) -> bool:
        """Whether upstream may be asked now; of an open circuit whose time is up this makes the caller the probe."""
        if now < self._open_until:
            return False
        if self._failures < _FAILURES:
            return True
        if now < self._probe_until:
            return False
        self._probe_until = now + _PROBE_SECONDS
        return True

    def wait_seconds(self, now: float) -> float:
        """How long nobody may ask."""
        return max(self._open_until, self._probe_until if self._failures >= _FAILURES else 0.0, now) - now

    def failed(self, now: float, *, asked_wait_seconds: float | None = None) -> None:
        """Note a failure; ``asked_wait_seconds`` is upstream's Retry-After, obeyed at once."""
        self._failures += 1
        self._probe_until = 0.0
        if self._failures >= _FAILURES:
            doubled = _FIRST_WAIT_SECONDS * 2.0 ** min(self._failures - _FAILURES, 16)
            self._open_until = now + min(doubled, _LONGEST_WAIT_SECONDS)
        if asked_wait_seconds is not None:
            self._open_until = max(self._open_until, now + min(asked_wait_seconds, _LONGEST_ASKED_SECONDS))

    def answered(self, *, in_time: bool) -> None:
        """Note an answer; only one that came within the patience ends the memory of slowness."""
        self._failures = 0
        self._open_until = self._probe_until = 0.0
        if in_time:
            self._slow = 0

    def dawdled(self) -> None:
        """Note that a client was not kept waiting any longer."""
        self._slow += 1

    @property
    def is_slow(self) -> bool:
        """Whether waiting has been in vain several times in a row: then a stale page is served without it."""
        return self._slow >= _FAILURES
