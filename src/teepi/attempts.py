"""Who may try a password, and whose turn it is: what slows guessing without slowing anybody else.

A lane is one user at one address. Passwords and hashes are ``credentials``' job.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections import OrderedDict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from teepi.errors import TooManyAttempts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_FREE_FAILURES: Final = 5  # typing errors
_LONGEST_WAIT_SECONDS: Final = 60.0
_FORGOTTEN_SECONDS: Final = 900.0
"""After the last failure: whoever pauses so long to begin anew has fewer tries than whoever waits each time."""
_MOST_LANES: Final = 10_000  # about 2 MB
_MOST_AT_ADDRESS: Final = 64
"""Attempts of one address that wait, some two seconds of hashing."""


class Lane(NamedTuple):
    """What one guesser can be told apart by."""

    network: str
    """As :func:`network_of` has it."""
    user: str | None
    """None is shared by all users that cannot log in, so that made-up names are one lane."""


def network_of(address: str) -> str:
    """Return what ``address`` counts as: an IPv6 one as its /64, in which a machine picks at will (RFC 8981)."""
    with suppress(ValueError):
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address):
            return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
    return address


class Failures:
    """Failures in a row of each lane, and how long the next try has to wait."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds that never go back."""
        self._clock = clock
        self._lanes: OrderedDict[Lane, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many lanes are remembered."""
        return len(self._lanes)

    def of(self, lane: Lane) -> int:
        """Return the failures in a row."""
        count, last = self._lanes.get(lane, (0, 0.0))
        return count if self._clock() - last < _FORGOTTEN_SECONDS else 0

    def check(self, lane: Lane) -> None:
        """Raise :class:`TooManyAttempts` when ``lane`` has to wait: 1, 2, 4 … 60 s from the fifth failure on."""
        failures = self.of(lane) - _FREE_FAILURES
        if failures < 0:
            return
        wait = min(_LONGEST_WAIT_SECONDS, 2.0 ** min(failures, 10))
        left = self._lanes[lane][1] + wait - self._clock()
        if left > 0:
            seconds = math.ceil(left)
            raise TooManyAttempts(f"Too many wrong passwords; try again in {seconds} s.", seconds)

    def add(self, lane: Lane) -> None:
        """Count a failure."""
        self._lanes[lane] = self.of(lane) + 1, self._clock()
        self._lanes.move_to_end(lane)
        while len(self._lanes) > _MOST_LANES:
            self._lanes.popitem(last=False)

    def clear(self, lane: Lane) -> None:
        """Forget them, after a success."""
        self._lanes.pop(lane, None)

    def clear_user(self, user: str) -> None:
        """Forget those of ``user`` at every address, after a change of the password."""
        for lane in [lane for lane in self._lanes if lane.user == user]:
            del self._lanes[lane]


@dataclass(slots=True, eq=False)
class _Waiting:
    lane: Lane
    turn: asyncio.Future[None]


class Turns:
    """Turns to hash: one at a time of each network, and lanes with fewer failures first."""

    def __init__(self, at_once: int, failures: Callable[[Lane], int]) -> None:
        """Give no more than ``at_once``."""
        self._at_once = at_once
        self._failures = failures
        self._running: set[str] = set()
        self._waiting: list[_Waiting] = []

    @asynccontextmanager
    async def turn(self, lane: Lane, most_waiting: int) -> AsyncIterator[None]:
        """Wait for the turn of ``lane`` and hold it. Raises :class:`TooManyAttempts` when too many wait already.

        ``most_waiting`` is how many of this lane may wait.
        """
        waiting = _Waiting(lane, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._give()
        self._refuse(lane, most_waiting)
        try:
            await waiting.turn
            yield
        finally:
            if waiting in self._waiting:  # cancelled, or refused
                self._waiting.remove(waiting)
            elif waiting.turn.exception() is None:
                self._running.discard(lane.network)
            self._give()

    def _give(self) -> None:
        while len(self._running) < self._at_once:
            ready = [each for each in self._patient() if each.lane.network not in self._running]
            if not ready:
                return
            chosen = min(ready, key=self._order)  # the first to come of equals
            self._waiting.remove(chosen)
            self._running.add(chosen.lane.network)
            chosen.turn.set_result(None)

    def _refuse(self, lane: Lane, most_waiting: int) -> None:
        """Turn one away where too many wait: the last of the lane, else whoever failed most at this address."""
        near = [each for each in self._patient() if each.lane.network == lane.network]
        same = [each for each in near if each.lane == lane]
        if len(same) > most_waiting:
            refused = same[-1]
        elif len(near) > _MOST_AT_ADDRESS:
            refused = max(reversed(near), key=self._order)
        else:
            return
        self._waiting.remove(refused)
        refused.turn.set_exception(TooManyAttempts("Too many wait for their password to be checked; try again.", 1))

    def _patient(self) -> list[_Waiting]:
        return [each for each in self._waiting if not each.turn.done()]  # one that was cancelled leaves by itself

    def _order(self, waiting: _Waiting) -> int:
        return self._failures(waiting.lane)
