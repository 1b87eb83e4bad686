"""Hashes cached files again: all of them for an operator, and all over four weeks in the background.

What does not keep its name's promise is set aside, and the next request fetches it anew. Safe on a live cache: who
reads a damaged file reads on, and a file that came anew meanwhile is left alone.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from teepi.catalog import Catalog
    from teepi.store import Store

_BATCH: Final = 64
THREADS: Final = 2  # hashing releases the interpreter's lock; more would take the disk from who downloads
_SCRUB_BYTES_PER_SECOND: Final = 8 << 20  # a small part of any disk
_SCRUB_SECONDS: Final = 28 * 86400.0  # once through the cache
_LONGEST_PAUSE_SECONDS: Final = 86400.0
_FIRST_PAUSE_SECONDS: Final = 60.0  # a start has better to do
_MARK: Final = "scrubbed"


@dataclass(frozen=True, slots=True)
class Checked:
    """One file that was looked at."""

    sha256: str
    problem: str | None
    """What is wrong with it, or None."""
    size: int
    """Bytes that were read."""


class Stopped(Exception):
    """Whoever wanted the hashing has gone."""


class Pace:
    """Holds threads back to ``bytes_per_second`` together, None for as fast as they go."""

    def __init__(self, bytes_per_second: float | None) -> None:
        """Begin now."""
        self._rate = bytes_per_second
        self._began = time.monotonic()
        self._bytes = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def pause(self, count: int) -> None:
        """Wait for as long as ``count`` bytes take. Raises :class:`Stopped`."""
        if self._rate is not None:
            with self._lock:
                self._bytes += count
                ahead = self._bytes / self._rate - (time.monotonic() - self._began)
            if ahead > 0:
                self._stopped.wait(ahead)
        if self._stopped.is_set():
            raise Stopped

    def stop(self) -> None:
        """Let every :meth:`pause` raise."""
        self._stopped.set()


async def verify(store: Store, *, bytes_per_second: float | None = None) -> AsyncGenerator[Checked]:
    """Hash every cached file again in some threads, yielding each when it is done."""
    loop = asyncio.get_running_loop()
    pace = Pace(bytes_per_second)
    names = store.shelves.names()

    def check(sha256: str) -> Checked:
        try:
            problem, size = store.shelves.check(sha256, pace.pause)
        except Stopped:  # nobody waits for this any more
            return Checked(sha256, None, 0)
        return Checked(sha256, problem, size)

    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="verifying")
    try:
        while batch := await asyncio.to_thread(lambda: list(islice(names, _BATCH))):
            for done in asyncio.as_completed([loop.run_in_executor(pool, check, sha256) for sha256 in batch]):
                yield await done
    finally:
        pace.stop()
        pool.shutdown(wait=False, cancel_futures=True)


async def scrub_forever(store: Store, catalog: Catalog) -> None:
    """Hash one file after the other, slowly, going on after a restart where it was."""
    await asyncio.sleep(_FIRST_PAUSE_SECONDS)
    while True:  # noqa: ASYNC110 - it waits for nobody
        await asyncio.sleep(await scrub_next(store, catalog))


async def scrub_next(store: Store, catalog: Catalog) -> float:
    """Hash the file after the mark and move the mark on. Return how many seconds to wait before the next one."""
    mark = await catalog.noted(_MARK) or ""
    found = await catalog.files(after=(0.0, mark), most=1, by_digest=True)
    if not found:  # the end, or an empty cache
        await catalog.note(_MARK, "")
        return _LONGEST_PAUSE_SECONDS if not mark else 0.0
    pace = Pace(_SCRUB_BYTES_PER_SECOND)
    try:
        await asyncio.to_thread(store.shelves.check, found[0].sha256, pace.pause)
    finally:
        pace.stop()
    await catalog.note(_MARK, found[0].sha256)
    share = found[0].size / max(catalog.totals[1], 1)
    return min(share * _SCRUB_SECONDS, _LONGEST_PAUSE_SECONDS)
