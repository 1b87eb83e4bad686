"""What the page for people shows: gathered here, so that the page asks one service.

Numbers and names only; how they look is said in ``web/ui``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from teepi.catalog import Catalog
    from teepi.download import Registry
    from teepi.history import Sample
    from teepi.live import Live
    from teepi.metrics import Ended, Metrics
    from teepi.search import Search

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
class FoundProject:
    """A project that a search has found, and what is cached of it."""

    index: str
    project: str
    """Normalised name."""
    files: int
    size_bytes: int
    used_at: float
    """Unix time of the last use of one of them; 0 where there is none."""
    name: str = ""
    """As it is spelt, where that is known."""
    version: str = ""
    summary: str = ""
    is_uploaded: bool = False

    @property
    def idle_seconds(self) -> float:
        """How long ago that was."""
        return max(0.0, time.time() - self.used_at)


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


class Overviews:
    """Gathers an :class:`Overview` whenever it is asked."""

    def __init__(
        self,
        live: Live,
        registry: Registry,
        metrics: Metrics,
        catalog: Catalog,
        problems: Callable[[], Sequence[str]],
        samples: Callable[[], Sequence[Sample]],
        search: Search,
    ) -> None:
        """Gather from these; ``samples`` gives what was counted in the last day."""
        self._live = live
        self._registry = registry
        self._metrics = metrics
        self._catalog = catalog
        self._problems = problems
        self._samples = samples
        self._search = search
        self._began = time.monotonic()

    async def now(self) -> Overview:
        """Return what is to be seen at this moment."""
        metrics = self._metrics
        files, size = self._catalog.totals
        downloads = sorted(self._registry, key=lambda download: download.arrived, reverse=True)
        return Overview(
            problems=self._problems(),
            is_offline=self._live.offline,
            uptime_seconds=time.monotonic() - self._began,
            hits=metrics.hits,
            file_requests=metrics.hits + metrics.misses + metrics.collapsed,
            collapsed=metrics.collapsed,
            sent_bytes=metrics.sent_bytes,
            fetched_bytes=metrics.upstream_file_bytes,
            upstream_requests=metrics.upstream_requests,
            cache_files=files,
            cache_bytes=size,
            cache_limit_bytes=metrics.cache_limit_bytes,
            in_flight=[
                Arriving(download.public_name, download.arrived, download.total, download.readers)
                for download in downloads[:SHOWN_DOWNLOADS]
            ],
            more_in_flight=max(0, len(downloads) - SHOWN_DOWNLOADS),
            recent=list(metrics.recent),
            samples=self._samples(),
        )

    async def search(self, words: str, indexes: Sequence[str], *, each: bool = True) -> tuple[list[FoundProject], bool]:
        """Return the projects of ``indexes`` with ``words``, and whether there are more than are returned.

        ``each`` as in :meth:`Search.find`.
        """
        hits = await self._search.find([words], indexes, SHOWN_PROJECTS + 1, each=each)
        found = []
        for hit in hits[:SHOWN_PROJECTS]:
            cached = self._search.cached(hit.index, hit.project)
            here = cached.files, cached.size_bytes, cached.used_at
            found.append(
                FoundProject(hit.index, hit.project, *here, hit.name, hit.version, hit.summary, hit.is_uploaded)
            )
        return found, len(hits) > SHOWN_PROJECTS
