"""Whether teepi can do its work now: the disk, the catalogue and the upstreams, asked off the way of requests.

Ready means that clients get answers. A disk that takes nothing costs the cache, an upstream that is down costs what is
not cached: either alone is *degraded*, with its sentence; both together are *unavailable*.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from teepi.errors import NotFound, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from teepi.store import DiskState
    from teepi.tasks import TaskScope
    from teepi.upstream import Upstream

T = TypeVar("T")

_SERVER_ERROR: Final = 500
PATIENCE_SECONDS: Final = 1.0
"""So long an answer waits for the probes; monitors give up after a few seconds."""
DISK_EVERY_SECONDS: Final = 5.0
UPSTREAM_EVERY_SECONDS: Final = 30.0
ROWS_EVERY_SECONDS: Final = 60.0
_RECENTLY_SECONDS: Final = 60.0  # an upstream that answered a client so lately need not be asked for this


class Probe(Generic[T]):
    """A fact that takes time to find out: asked for at most every so often, once for all who want it."""

    def __init__(
        self, scope: TaskScope, ask: Callable[[], Coroutine[Any, Any, T]], *, every_seconds: float, name: str
    ) -> None:
        """``ask`` runs in ``scope`` and does not raise."""
        self._scope = scope
        self._ask = ask
        self._every_seconds = every_seconds
        self._name = name
        self._task: asyncio.Task[T] | None = None
        self._asked_at = float("-inf")
        self.latest: T | None = None
        """What was found last, however long ago."""

    def refresh(self) -> asyncio.Task[T] | None:
        """Ask again if it is time; return the task while one is asking."""
        if self._task is None and time.monotonic() - self._asked_at >= self._every_seconds:
            self._asked_at = time.monotonic()
            self._task = self._scope.start(self._ask(), name=self._name)
            self._task.add_done_callback(self._found)
        return self._task

    def _found(self, task: asyncio.Task[T]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is None:
            self.latest = task.result()

    async def get(self) -> T | None:
        """Return what is so now; None when it could not be found out in time."""
        task = self.refresh()
        if task is not None:
            done, _ = await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
            if not done:
                return None
        return self.latest


class Readiness:
    """What ``/readyz`` says."""

    def __init__(
        self,
        scope: TaskScope,
        disk: Probe[DiskState],
        upstreams: Mapping[str, Upstream],
        *,
        catalogue_problem: Callable[[], str | None],
        cache_problem: Callable[[], str | None],
        data_problem: Callable[[], str | None],
        circuit_wait_seconds: Callable[[str], float],
        offline: Callable[[], bool],
    ) -> None:
        """``circuit_wait_seconds`` says how long the upstream of an index is left alone; 0 when it may be asked."""
        self._disk = disk
        self._upstreams = upstreams
        self._catalogue_problem = catalogue_problem
        self.cache_problem = cache_problem
        self._data_problem = data_problem
        self._circuit_wait_seconds = circuit_wait_seconds
        self._offline = offline
        self._probes = {
            index: Probe(
                scope, partial(_reach, upstream), every_seconds=UPSTREAM_EVERY_SECONDS, name=f"probing {index}"
            )
            for index, upstream in upstreams.items()
        }
        self.is_draining = False
        """No more requests are wanted: teepi stops."""

    async def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether teepi is ready, and the JSON object that says why: a sentence for each problem."""
        indexes = [] if self._offline() else list(self._upstreams)
        disk, *upstreams = await asyncio.gather(self._disk_problem(), *map(self._upstream_problem, indexes))
        checks = {
            "disk": disk,
            "cache": self.cache_problem(),
            "catalogue": self._catalogue_problem(),
            "data": self._data_problem(),
            **{f"upstream of {index}": problem for index, problem in zip(indexes, upstreams, strict=True)},
        }
        problems = [problem for problem in checks.values() if problem]
        if self.is_draining:
            status = "draining"
            problems.insert(0, "teepi is stopping and takes no more requests.")
        elif disk and indexes and all(upstreams):
            status = "unavailable"
        else:
            status = "degraded" if problems else "ok"
        return status in {"ok", "degraded"}, {"status": status, "problems": problems, "checks": checks}

    async def _disk_problem(self) -> str | None:
        state = await self._disk.get()
        return "The disk of the cache does not answer." if state is None else state.problem

    async def _upstream_problem(self, index: str) -> str | None:
        wait = self._circuit_wait_seconds(index)
        if wait > 0:
            return f"The upstream of {index} fails again and again; it is asked again in {wait:.0f} s."
        counters = self._upstreams[index].counters
        if counters.answered_at > max(counters.failed_at, time.monotonic() - _RECENTLY_SECONDS):
            return None
        # What came since then from clients' requests is newer than what the probe last found.
        found = await self._probes[index].get()
        if counters.answered_at > counters.failed_at:
            return None
        return found or f"The upstream of {index} has not answered yet."


async def _reach(upstream: Upstream) -> str | None:
    """Ask whether a mirror answers at all; return what is wrong with the first one when none does."""
    failure: str | None = None
    for mirror in upstream.roots:
        try:
            await upstream.head(mirror, has_digest=False)
        except NotFound:
            return None
        except UpstreamError as error:
            if error.upstream_status is not None and error.upstream_status < _SERVER_ERROR:
                return None
            failure = failure or error.message
        else:
            return None
    return failure
