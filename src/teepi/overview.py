"""What the page for people shows: gathered here, so that the page asks one service.

Numbers and names only; how they look is said in ``web/ui``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


SHOWN_DOWNLOADS: Final = 20
"""Rows of each list: more than a glance takes in, and a page of a few kilobytes whatever happens."""
SHOWN_PROJECTS: Final = 50


@dataclass(frozen=True, slots=True)
class Arriving:
    """A download in flight."""

    name: str
    arrived_bytes: int
    total_bytes: int | None
    readers: int


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


@dataclass(frozen=True, slots=True)
class CachedProject:
    """A project of which files are cached."""

    index: str
    name: str
    files: int
    size_bytes: int
    used_at: float
    """Unix time of the last use of one of them."""

    @property
    def idle_seconds(self) -> float:
        """How long ago that was."""
        return max(0.0, time.time() - self.used_at)


class Sample(Protocol):
    """What was counted in one span of time."""

    @property
    def begin(self) -> float:
        """Unix time."""

    @property
    def hits(self) -> int:
        """File requests answered from the cache."""

    @property
    def misses(self) -> int:
        """File requests that caused or joined a fetch."""

    @property
    def cached_bytes(self) -> int:
        """Bytes of files handed out that upstream was not asked for."""

    @property
    def fetched_bytes(self) -> int:
        """Bytes received from upstream."""


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the page shows, at one moment."""

    problems: Sequence[str]
    is_offline: bool
    uptime_seconds: float
    hits: int
    file_requests: int
    collapsed: int
    sent_bytes: int
    fetched_bytes: int
    upstream_requests: int
    cache_files: int
    cache_bytes: int
    cache_limit_bytes: int | None
    in_flight: Sequence[Arriving]
    more_in_flight: int
    recent: Sequence[Ended]
    samples: Sequence[Sample]

    @property
    def saved_bytes(self) -> int:
        """Bytes that clients got and upstream did not send."""
        return max(0, self.sent_bytes - self.fetched_bytes)

    @property
    def hit_ratio(self) -> float | None:
        """Share of file requests answered from the cache, None before the first."""
        return self.hits / self.file_requests if self.file_requests else None
