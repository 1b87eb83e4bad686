"""Keeps the cache below its limits: makes room when a download needs it, and lets go what was not used for long.

What may be reserved and what goes is decided in ``space``; here it is measured and done, in small steps off the event
loop, one eviction at a time. A file that is read, written or pinned is never evicted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from teepi.disk import replace_file
from teepi.document_eviction import DocumentKeeper
from teepi.sizes import said
from teepi.space import UNLIMITED, Candidate, NoRoom, choose
from teepi.store import LOG_BYTES

if TYPE_CHECKING:
    from teepi.catalog import Catalog
    from teepi.metrics import Metrics
    from teepi.store import DocumentStores, Store
    from teepi.tasks import TaskScope

log = logging.getLogger(__name__)

DAY_SECONDS: Final = 86400.0
_TICK_SECONDS: Final = 30.0  # of looking whether other programs have filled the disk
_LOOK_SECONDS: Final = 600.0  # of measuring pages, of ages, of saying a problem
_WARN_SECONDS: Final = 3600.0  # a cache that is too small would say so with each download
_BATCH: Final = 500  # rows in one look at the catalogue
_STEP: Final = 32  # deletions in one go of a thread; one of a large file takes some ten milliseconds
_READY_SECONDS: Final = 2.0  # a download waits so long for a lost catalogue to be rebuilt, then goes on in memory
_DISK_FULL_BYTES: Final = 64 << 20  # goes when the disk is full although it should not be
_ROUNDS: Final = 3  # what was to go may be in use by then: others are chosen
_OTHER: Final = "other_bytes"


@dataclass(slots=True)
class Evicted:
    """What went, or would."""

    files: int = 0
    size: int = 0
    """Bytes."""
    oldest_at: float | None = None
    newest_at: float | None = None
    """When the least and the most recently used of them were used, in seconds of the wall clock."""
    names: list[str] = field(default_factory=list)

    def add(self, victim: Candidate, size: int) -> None:
        """Count one."""
        self.files += 1
        self.size += size
        self.oldest_at = victim.used_at if self.oldest_at is None else min(self.oldest_at, victim.used_at)
        self.newest_at = victim.used_at if self.newest_at is None else max(self.newest_at, victim.used_at)
        self.names.append(victim.filename or victim.sha256)


def limit_of(store: Store, max_size: int | None) -> int:
    """Return the limit in bytes: the one that is set, else the one that the first start has chosen.

    That is half of what is free then, what the cache itself holds counted as free. Blocks.
    """
    if max_size is not None:
        return max_size
    path = store.layout_path / "limit.json"
    try:
        return int(json.loads(path.read_bytes())["max_size_bytes"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.warning("The limit in %s cannot be read (%r); it is chosen anew.", path, error)
    try:
        limit = (store.free_bytes() + store.space.used) // 2
        replace_file(path, json.dumps({"max_size_bytes": limit}).encode())
    except OSError:  # read-only: nothing is added either
        limit = store.space.used
    return limit


class Keeper:
    """Of one cache directory."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        stores: DocumentStores,
        scope: TaskScope,
        metrics: Metrics,
        *,
        max_age_days: float | None = None,
    ) -> None:
        """Evict what was unused for ``max_age_days``, of ``stores`` as well; :meth:`begin` must follow."""
        self.problem: str | None = None
        """One sentence when nothing new can be cached, else None."""
        self._store = store
        self._space = store.space
        self._catalog = catalog
        self.documents = DocumentKeeper(stores, store.space, store.pins)
        self._scope = scope
        self._metrics = metrics
        self._max_age_days = max_age_days
        self._counted = asyncio.Event()
        self._named = asyncio.Event()
        self._alone = asyncio.Lock()
        self._lowering: asyncio.Task[None] | None = None
        self._warned_at = -math.inf
        self._began = time.time() - time.monotonic()  # a clock that jumps makes nothing old

    async def begin(self, max_size: int | None, min_free: int) -> None:
        """Count what is there, without looking at each file, and set the limits."""
        store, space = self._store, self._space
        await asyncio.to_thread(store.count_partials)
        space.found(self._catalog.totals[1])
        space.measured(int(await self._catalog.noted(_OTHER) or LOG_BYTES))
        space.limit = await asyncio.to_thread(limit_of, store, max_size)
        space.min_free = min_free
        space.is_counted = not self._catalog.needs_rebuild
        loop = asyncio.get_running_loop()
        space.tight = lambda: loop.call_soon_threadsafe(self._lower)
        store.make_room = self.make_room

        def gone(sha256: str) -> None:
            loop.call_soon_threadsafe(self._forget, sha256)

        store.shelves.gone = gone

    def counted(self) -> None:
        """All committed files are in the catalogue: room may be given."""
        self._space.is_counted = True
        self._counted.set()

    def named(self) -> None:
        """Let files go from here on: it is known which project each is of, hence what is pinned."""
        self._named.set()

    def _forget(self, sha256: str) -> None:
        self._metrics.set_aside += 1
        self._scope.start(self._catalog.remove_file(sha256), name=f"catalogue {sha256}")

    # -- when there is no room -----------------------------------------------------------------------

    async def make_room(self, error: OSError) -> bool:
        """Make room after ``error``: a :class:`NoRoom`, or a disk that is full. Say whether to try again.

        When it cannot be had by evicting, nothing is evicted.
        """
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._counted.wait()
        except TimeoutError:
            return False
        # shielded: who waits may leave, and the next one would evict the same files meanwhile
        return await asyncio.shield(self._scope.start(self._make_room(error), name="eviction for a download"))

    async def _make_room(self, error: OSError) -> bool:
        async with self._alone:
            if not isinstance(error, NoRoom):
                made = (await self._evict(_DISK_FULL_BYTES, partly=True)).size > 0
            else:
                if (crowd := self.documents.crowd()) > 0:
                    await asyncio.to_thread(self.documents.evict, crowd)
                need = error.need - self._space.room(await self._free())
                made = need <= 0 or (await self._evict(need)).size >= need
        if made:
            self._lower()
        return made

    def _lower(self) -> None:
        """Go down to the low-water mark, behind whoever needed room."""
        if self._lowering is None or self._lowering.done():
            self._lowering = self._scope.start(self.lower(), name="eviction")

    async def lower(self) -> None:
        """Go down to the low-water mark as far as files may go, and below the limit in any case."""
        async with self._alone:
            if (crowd := self.documents.crowd()) > 0:
                await asyncio.to_thread(self.documents.evict, crowd)
            excess = self._space.excess(await self._free())
            if excess > 0:
                await self._evict(excess, partly=True)
            need = -self._space.room(await self._free())
            if need > 0:  # not for the low-water mark: without its page a file is hardly worth anything
                await asyncio.to_thread(self.documents.evict, need)

    async def _free(self) -> int:
        try:
            return await asyncio.to_thread(self._store.free_bytes)
        except OSError as error:
            log.warning("The disk of %s does not say what is free: %s.", self._store.root, error.strerror)
            return 0

    # -- evicting ------------------------------------------------------------------------------------

    def may_go(self, candidate: Candidate) -> bool:
        """Whether the file is neither read nor written nor pinned."""
        if not candidate.sha256:
            return not self._space.is_active(candidate.filename)
        pins = self._store.pins
        return not (
            candidate.project in pins.projects
            or candidate.sha256 in pins.files
            or self._store.shelves.is_in_use(candidate.sha256)
        )

    async def _evict(self, need: int, *, partly: bool = False, before: float | None = None) -> Evicted:
        """Delete what was not used for longest until ``need`` bytes are free, or what was not used since ``before``.

        When so much cannot be had nothing goes, unless ``partly``.
        """
        evicted = Evicted()
        if not self._named.is_set():
            return evicted
        for attempt in range(_ROUNDS):
            victims = await self.plan(need - evicted.size, before=before, with_touched=attempt > 0)
            if not partly and sum(victim.size for victim in victims) < need - evicted.size:
                if attempt:
                    break
                continue  # what was used just now may be what is left
            for start in range(0, len(victims), _STEP):
                await self._delete(victims[start : start + _STEP], evicted)
            if evicted.size >= need or (not victims and attempt):
                break
        self._say(evicted)
        return evicted

    async def plan(self, need: int, *, before: float | None = None, with_touched: bool = True) -> list[Candidate]:
        """Return what would go for ``need`` bytes, or everything that was not used since ``before``."""
        await self._catalog.flush()
        catalog = self._catalog
        leftovers = [] if before is not None else await asyncio.to_thread(self._leftovers)
        victims: list[Candidate] = []
        after = (-1.0, "")
        while need > 0:
            batch = await catalog.files(after=after, most=_BATCH)
            candidates = [row for row in batch if with_touched or not catalog.was_touched(row.sha256)]
            is_last = len(batch) < _BATCH
            if batch:
                after = (batch[-1].used_at, batch[-1].sha256)
            while leftovers and (is_last or leftovers[0].used_at <= after[0]):
                candidates.append(leftovers.pop(0))
            candidates.sort(key=lambda candidate: candidate.used_at)
            if before is not None:
                candidates = [row for row in candidates if row.used_at < before]
                is_last = is_last or after[0] >= before
            chosen = choose(candidates, need, may_go=self.may_go)
            victims += chosen
            need -= sum(victim.size for victim in chosen)
            if is_last:
                break
        return victims

    def _leftovers(self) -> list[Candidate]:
        """Return partials by the time of their last write, and before them what was set aside."""
        found = [Candidate("", size, 0.0, filename=str(path)) for path, size in self._store.shelves.strays()]
        found += [Candidate("", size, at, filename=name) for name, size, at in self._store.idle_partials()]
        return sorted(found, key=lambda candidate: candidate.used_at)

    async def _delete(self, victims: list[Candidate], evicted: Evicted) -> None:
        for victim, size in await asyncio.to_thread(lambda: [(each, self._remove(each)) for each in victims]):
            if size is None:  # in use by now, or not to be deleted
                continue
            if victim.sha256:
                await self._forgotten(victim, size)
                self._metrics.evicted += 1
                self._metrics.evicted_bytes += size
            evicted.add(victim, size)

    async def _forgotten(self, victim: Candidate, size: int) -> bool:
        """Take a file's row away, ``size`` bytes of which were deleted; say whether there was one."""
        counted = await self._catalog.remove_file(victim.sha256)
        if not size and counted:  # deleted by somebody else, and only its row says that it was counted
            self._space.found(-counted)
        return counted is not None

    def _remove(self, victim: Candidate) -> int | None:
        store = self._store
        if not self.may_go(victim):  # pinned since it was chosen
            return None
        if victim.sha256:
            return store.shelves.remove(victim.sha256)
        if "/" in victim.filename:
            return store.shelves.remove_stray(victim.filename)
        size = store.remove_partial(victim.filename)
        return None if size < 0 else size

    def _say(self, evicted: Evicted) -> None:
        if not evicted.files or evicted.newest_at is None:
            return
        log.info("%d files (%s) were evicted from the cache.", evicted.files, said(evicted.size))
        now = time.monotonic()
        if evicted.newest_at > self.now() - DAY_SECONDS and now - self._warned_at > _WARN_SECONDS:
            self._warned_at = now
            log.warning(
                "Files that were used within a day are evicted: the cache is too small for what is asked of it. "
                "Give it more than %s with --max-size, or more disk.",
                said(self._space.limit),
            )

    def now(self) -> float:
        """Return seconds of the wall clock as it stood at start, moved on by the monotonic one."""
        return self._began + time.monotonic()

    # -- now and then --------------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Watch the disk, measure what is not reserved, and let go what is too old."""
        await self._named.wait()
        looked = -math.inf
        while True:
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                await self.look()
            if await asyncio.to_thread(self._store.was_emptied):
                self.problem = (
                    f"The cache directory {self._store.root} was emptied or replaced while teepi runs: restart it, so "
                    "that it counts anew. To empty it the next time: teepi cache purge --all."
                )
            if self._space.room(await self._free()) < 0:
                self._lower()
            await asyncio.sleep(_TICK_SECONDS)

    async def measure(self) -> None:
        """Measure pages, lists and the catalogue."""
        other = await asyncio.to_thread(self._store.other_bytes)
        self._space.measured(other)
        await self._catalog.note(_OTHER, str(other))

    async def look(self) -> None:
        """Measure; evict by age; find out whether anything can be cached."""
        await self.measure()
        if self._max_age_days is not None:
            await self.evict_unused(self._max_age_days)
        free = await self._free()
        self.problem = None
        if self._space.room(free) <= 0 and not self._space.files:
            short = free - self._space.min_free <= self._space.limit - self._space.margin - self._space.used
            reason = (
                f"{said(free)} are free on its disk, and {said(self._space.min_free)} stay free (--min-free)"
                if short
                else f"its limit is {said(self._space.limit)} (--max-size)"
            )
            self.problem = f"Nothing new can be cached in {self._store.root}: {reason}."
            log.warning("%s", self.problem)

    async def evict_unused(self, days: float) -> Evicted:
        """Evict what was not used for so many days: files, and pages that were not confirmed upstream."""
        before = self.now() - days * DAY_SECONDS
        async with self._alone:
            evicted = await self._evict(UNLIMITED, partly=True, before=before)
        await asyncio.to_thread(self.documents.evict_unused, before)
        return evicted

    # -- for an operator -----------------------------------------------------------------------------

    async def prune(self, *, is_dry: bool = False) -> Evicted:
        """Go down to the limits now. Return what went, or would."""
        async with self._alone:
            if not is_dry and (crowd := self.documents.crowd()) > 0:
                await asyncio.to_thread(self.documents.evict, crowd)
            need = -self._space.room(await self._free())
            if need > 0 and not is_dry:
                return await self._evict(need, partly=True)
            found = Evicted()
            for victim in await self.plan(need):
                found.add(victim, victim.size)
            return found

    async def prune_leftovers(self, *, is_dry: bool = False) -> Evicted:
        """Delete partials that nobody writes, what was set aside, and what is no file of the cache."""
        found = Evicted()
        async with self._alone:
            victims = [each for each in await asyncio.to_thread(self._leftovers) if self.may_go(each)]
            if is_dry:
                for victim in victims:
                    found.add(victim, victim.size)
            else:
                await self._delete(victims, found)
        return found

    async def purge(self, victim: Candidate, purged: Evicted) -> bool:
        """Delete a file, also while it is being read: whoever reads it reads on. Return whether it is gone."""
        async with self._alone:  # between deletion and row another one would count the file as gone once more
            size = await asyncio.to_thread(self._store.shelves.remove, victim.sha256, even_in_use=True)
            if size is not None and (await self._forgotten(victim, size) or size):
                purged.add(victim, size)
        return size is not None
