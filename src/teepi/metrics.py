"""What teepi counts. Plain integers, raised where the thing happens; ``exposition`` and ``history`` read them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import Final

_FIRST_BYTE_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAG_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_RECENT: Final = 12  # a glance takes in no more


class Histogram:
    """How often a value, in seconds, fell below each of some bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin empty; ``bounds`` rise, and one more slot takes what lies above them."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Values up to each bound that lie above the one before."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count ``value``."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class UpstreamCounters:
    """What is counted of the upstream of one index."""

    __slots__ = ("answered_at", "answers", "failed_at", "first_byte")

    def __init__(self) -> None:
        """Begin at nothing."""
        self.answers: dict[str, int] = {}
        """Requests by what came of them: ``2xx`` to ``5xx``, ``timeout``, ``unreachable``."""
        self.first_byte = Histogram(_FIRST_BYTE_BOUNDS)
        """Seconds from a request to the head of its answer, redirects and waiting for a connection included."""
        self.answered_at = self.failed_at = float("-inf")
        """Monotonic seconds of the last answer, and of the last failure (a server error is one)."""

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer with the HTTP ``status``."""
        self._count(f"{status // 100}xx")
        self.first_byte.observe(seconds)
        if status < 500:  # noqa: PLR2004 - RFC 9110, 15.6
            self.answered_at = time.monotonic()
        else:
            self.failed_at = time.monotonic()

    def failed(self, result: str) -> None:
        """Count a request that had no answer."""
        self._count(result)
        self.failed_at = time.monotonic()

    def _count(self, result: str) -> None:
        self.answers[result] = self.answers.get(result, 0) + 1


@dataclass(frozen=True, slots=True)
class Ended:
    """A download that has ended."""

    name: str
    size_bytes: int
    clients: int
    """Requests that it has served."""
    seconds: float
    ended_at: float
    """Unix time."""
    outcome: str = ""
    """Empty when the file was committed, else what became of it, in few words."""

    @property
    def is_committed(self) -> bool:
        """Whether the file is in the cache."""
        return not self.outcome

    @property
    def age_seconds(self) -> float:
        """How long ago it ended."""
        return max(0.0, time.time() - self.ended_at)


@dataclass(slots=True)
class Metrics:
    """Counters since the process began."""

    hits: int = 0
    """File requests answered from the cache."""
    misses: int = 0
    """File requests that started a fetch."""
    collapsed: int = 0
    """File requests that joined a fetch in flight."""
    passed_ranges: int = 0
    """Range requests passed upstream by themselves."""
    page_hits: int = 0
    """Page requests answered without waiting for upstream."""
    page_misses: int = 0
    """Page requests that waited for upstream."""
    hot_answers: int = 0
    """Requests answered by the hot path; they are counted like any others as well."""
    stale_pages: int = 0
    """Pages served although upstream could not confirm them."""
    upstream_requests: int = 0
    upstream_bytes: int = 0
    """Body bytes received from upstream."""
    upstream_page_bytes: int = 0
    """… of which are of pages and lists; the rest is of files."""
    sent_bytes: int = 0
    """Body bytes of files handed to clients."""
    cached_bytes: int = 0
    """… of which came from the cache."""
    passed_bytes: int = 0
    """… of which were ranges passed from upstream."""
    resumes: int = 0
    """Transfers taken up again in mid-file."""
    mismatches: int = 0
    """Transfers whose bytes were not what the index promised."""
    interrupted: int = 0
    """Transfers that broke and could not be resumed."""
    committed: int = 0
    """Files committed to the cache."""
    unverified: int = 0
    """… of which the index gave no digest."""
    uncached: int = 0
    """Whole files served that could not be committed (disk full, read-only, failing)."""
    evicted: int = 0
    """Files that left the cache to make room, or because nobody used them for long."""
    evicted_bytes: int = 0
    set_aside: int = 0
    """Cached files that were found damaged."""
    short_bodies: int = 0
    """Responses that ended short."""
    cache_limit_bytes: int | None = None
    """What the cache may hold; None without a limit: then nothing is said of evictions either."""
    requests: dict[tuple[str, str, int], int] = field(default_factory=dict)
    """Requests by kind, result and first digit of the status (0 where the client left before)."""
    upstreams: dict[str, UpstreamCounters] = field(default_factory=dict)
    """By index."""
    loop_lag: Histogram = field(default_factory=lambda: Histogram(_LAG_BOUNDS))
    """Seconds by which the event loop was late, sampled."""

    recent: deque[Ended] = field(default_factory=lambda: deque(maxlen=_RECENT))
    """The downloads that ended last, newest first."""

    @property
    def saved_bytes(self) -> int:
        """Bytes of files sent to clients less those fetched for them; below 0 while a fetch is ahead of its clients."""
        return self.sent_bytes - self.upstream_file_bytes

    @property
    def upstream_file_bytes(self) -> int:
        """Body bytes of files received from upstream."""
        return self.upstream_bytes - self.upstream_page_bytes

    def count_request(self, kind: str, result: str, status: int) -> None:
        """Count a request that was answered with the HTTP ``status``."""
        key = (kind, result, status // 100)
        self.requests[key] = self.requests.get(key, 0) + 1

    def of_upstream(self, index: str) -> UpstreamCounters:
        """Return the counters of the upstream of ``index``."""
        return self.upstreams.setdefault(index, UpstreamCounters())

    def snapshot(self) -> dict[str, int]:
        """Return all plain counters by name."""
        values = ((name, getattr(self, name)) for name in self.__slots__)
        return {name: value for name, value in values if isinstance(value, int)}
