"""What teepi counts. Plain integers, raised where the thing happens and read by ``web/ops``."""

from __future__ import annotations

from dataclasses import asdict, dataclass


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
    stale_pages: int = 0
    """Pages served although upstream could not confirm them."""
    upstream_requests: int = 0
    upstream_bytes: int = 0
    """Body bytes received from upstream."""
    sent_bytes: int = 0
    """Body bytes of files handed to clients."""
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

    def snapshot(self) -> dict[str, int]:
        """Return all counters by name."""
        return asdict(self)
