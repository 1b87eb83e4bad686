"""Read-through for index pages: fresh, stale or revalidate; one request upstream per page however many ask.

A page that upstream cannot confirm is served stale. 404 is answered only when upstream said 404. The stored page says
what it links to; what nobody would find by it, and what it links to no more, is in the catalogue before it is shown.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

from teepi.codings import Coding
from teepi.errors import NotFound, Offline, TeepiError, Unavailable, UpstreamError
from teepi.page_memory import Page, PageMemory, Variant
from teepi.revalidation import Revalidation
from teepi.simple_api import parse_page, render, with_core_metadata
from teepi.single_flight import SingleFlight
from teepi.store import StoredPage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from teepi.catalog import Catalog
    from teepi.hot_entries import HotEntries
    from teepi.http_semantics import PageFormat
    from teepi.limits import Limits
    from teepi.live import Live
    from teepi.metrics import Metrics
    from teepi.model import FileRecord
    from teepi.simple_api import ProjectPage
    from teepi.store import PageStore
    from teepi.tasks import TaskScope
    from teepi.upstream import Upstream

_T = TypeVar("_T")
log = logging.getLogger(__name__)

_THREAD_BYTES: Final = 256 << 10  # a larger page is parsed and rendered off the event loop


class Freshness(Enum):
    """How a page was answered, in the words of Cache-Status (RFC 9211)."""

    HIT = "hit"
    MISS = "fwd=uri-miss; stored"
    COLLAPSED = "fwd=uri-miss; collapsed"
    REVALIDATED = "fwd=stale"
    STALE = "hit; detail=stale"


class Pages:
    """The project pages of all mirror indexes."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        store: PageStore,
        catalog: Catalog,
        scope: TaskScope,
        limits: Limits,
        metrics: Metrics,
        live: Live,
        hot: HotEntries,
    ) -> None:
        """``upstreams`` by index; out of ``hot`` is taken what changes here."""
        self._upstreams = upstreams
        self._store = store
        self._catalog = catalog
        self._scope = scope
        self._limits = limits
        self._metrics = metrics
        self._live = live
        # One: such work holds Python's lock, so that more threads would only make all pages wait for each other.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._hot = hot
        self.memory = PageMemory(hot)
        """The pages used last."""
        self._loading = SingleFlight[Page | None](scope)
        self._revalidation = Revalidation(self._revalidate, scope, limits)
        self.circuit_wait_seconds = self._revalidation.circuit_wait_seconds

    def close(self) -> None:
        """End the thread, when nobody asks any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # -- get -----------------------------------------------------------------------------------------

    async def get(self, index: str, project: str, *, newer_than: float | None = None) -> tuple[Page, Freshness]:
        """Return the page of ``project`` (normalised) and how it was come by.

        ``newer_than`` (monotonic seconds) asks for an answer of upstream after that moment. Raises
        :class:`NotFound`, :class:`Offline`, or :class:`UpstreamError` / :class:`Unavailable` when there is no page
        to fall back to.
        """
        key = (index, project)
        page = await self._known(key)
        if self._live.offline:
            if page is None:
                msg = f"teepi runs offline and has no page of {project}."
                raise Offline(msg)
            return page, self._count(Freshness.HIT)
        now = time.monotonic()
        oldest = now - self._live.page_ttl_seconds(index) if newer_than is None else newer_than
        if page is not None and page.confirmed_at > oldest:
            return page, self._count(Freshness.HIT)
        if self._revalidation.is_absent(key, newer_than):
            msg = f"Upstream has no project {project}."
            raise NotFound(msg)
        try:
            renewed, is_joined = await self._revalidation.ask(key, page)
            if not self._is_of_upstream(renewed):  # that became another one while it was asked
                renewed, is_joined = await self._revalidation.ask(key, None)
        except NotFound:
            raise
        except TeepiError:
            if page is None:
                raise
            return page, self._count(Freshness.STALE)
        asked = Freshness.MISS if page is None else Freshness.REVALIDATED
        return renewed, self._count(Freshness.COLLAPSED if is_joined else asked)

    def _count(self, freshness: Freshness) -> Freshness:
        if freshness is Freshness.HIT:
            self._metrics.page_hits += 1
        elif freshness is Freshness.STALE:
            self._metrics.stale_pages += 1
        else:
            self._metrics.page_misses += 1
        return freshness

    # -- upstream ------------------------------------------------------------------------------------

    async def _revalidate(self, key: tuple[str, str], page: Page | None) -> Page:
        index, project = key
        etag = None if page is None else page.stored.etag
        last_modified = None if page is None else page.stored.last_modified
        asked = None if page is None else page.stored.asked
        upstream = self._upstreams.get(index)
        if upstream is None:
            raise NotFound(f"The index {index} was deleted.")
        answer = await upstream.project(project, asked=asked, etag=etag, last_modified=last_modified)
        now = time.time()
        old = None if page is None or answer.body is None else await self._parsed(page)
        if answer.body is None or (
            page is not None and old is not None and (answer.body, answer.url) == (page.stored.body, page.stored.url)
        ):
            if page is None:  # 304 to an unconditional request is refused in ``upstream``
                msg = f"Upstream says that the page of {project} is unchanged, but none is here."
                raise UpstreamError(msg)
            page.stored = replace(
                page.stored,
                etag=answer.etag or page.stored.etag,
                last_modified=answer.last_modified or page.stored.last_modified,
                fetched_at=now,
                asked=answer.asked,
            )
            page.confirmed_at = time.monotonic()
        else:
            stored = StoredPage(
                index,
                project,
                answer.url,
                answer.content_type,
                answer.etag,
                answer.last_modified,
                now,
                answer.body,
                answer.asked,
            )
            page = Page(stored, await self._parse(stored, old), time.monotonic())
            self.memory.keep(page)
        self._scope.start(self._save(page), name=f"store page {project}")
        return page

    async def adopt(self, stored: StoredPage, made_of: tuple[object, ...]) -> Page:
        """Keep a page that was made here, out of those of other indexes, as if an upstream had sent it."""
        before = await self._known((stored.index, stored.project))
        old = None if before is None else await self._parsed(before)
        if before is not None and (before.stored.body, before.stored.url) == (stored.body, stored.url):
            before.made_of, before.confirmed_at = made_of, time.monotonic()
            return before
        page = Page(stored, await self._parse(stored, old), time.monotonic(), made_of)
        self.memory.keep(page)
        self._scope.start(self._save(page), name=f"store page {stored.project}")
        return page

    def adopted(self, index: str, project: str, made_of: tuple[object, ...]) -> Page | None:
        """Return the page in memory that was made of exactly these (:attr:`Page.token`), if there is one."""
        page = self.memory.get((index, project))
        if page is None or len(page.made_of) != len(made_of):
            return None
        return page if all(a is b for a, b in zip(page.made_of, made_of, strict=True)) else None

    async def _parse(self, stored: StoredPage, old: ProjectPage | None = None) -> ProjectPage:
        """Parse, off the event loop when large, and tell the catalogue what only it can know.

        ``old`` is what ``stored`` takes the place of. Raises :class:`BadPage`.
        """

        def work() -> tuple[ProjectPage, list[FileRecord]]:
            page = parse_page(
                stored.body,
                content_type=stored.content_type,
                url=stored.url,
                index=stored.index,
                project=stored.project,
                bound_to=self._live.bound_to(stored.index),
            )
            kept = set(page.addresses) if old is not None else ()
            dropped = (
                [] if old is None else [old.record(at) for at, where in enumerate(old.addresses) if where not in kept]
            )
            return page, dropped + [page.record(at) for at in page.odd]

        page, records = work() if len(stored.body) < _THREAD_BYTES else await self._in_thread(work)
        taken = await self._catalog.settle(stored.index, stored.project, page.at, records)
        places = [at for at in page.odd if page.addresses[at] in taken]
        if places:
            page = page.with_hashed_addresses(places)
            await self._catalog.remember([page.record(at) for at in places])
        return page

    async def _save(self, page: Page) -> None:
        stored = page.stored
        try:
            if page.parsed is None:
                on_disk = await self._store.load(*page.key)
                if on_disk is None or on_disk.fetched_at != page.saved_at:  # lost, or of another process
                    return
                stored = replace(stored, body=on_disk.body)
            await self._store.save(stored)
        except OSError as error:
            log.warning("The page of %s was served but not stored: %s.", stored.project, error)
        else:
            page.saved_at = stored.fetched_at

    # -- memory --------------------------------------------------------------------------------------

    def linked(self, index: str, project: str) -> ProjectPage | None:
        """Return what the page of ``project`` links to when that is in memory."""
        page = self.memory.get((index, project))
        return None if page is None or not self._is_of_upstream(page) else page.parsed

    async def stored(self, index: str, project: str) -> ProjectPage | None:
        """Return what the page of ``project`` links to, from memory or disk; None when it is in neither."""
        page = await self._known((index, project))
        return None if page is None else await self._parsed(page)

    def note(self, record: FileRecord) -> None:
        """Remember a file that was asked for, behind the answer: it is found without its page from now on."""
        self._scope.start(self._catalog.remember([record]), name=f"catalogue {record.filename}")

    async def whole(self, page: Page) -> Page:
        """Return ``page`` with its content, for as long as the caller wants.

        Raises :class:`Unavailable` when memory has let the content go and the disk has lost it.
        """
        if page.parsed is None:
            loaded = await self._load(page.key)
            if loaded is None:
                self.memory.forget(page.key)
                msg = f"The page of {page.stored.project} is gone from the cache; try again."
                raise Unavailable(msg)
            page = loaded
        return replace(page)

    async def _parsed(self, page: Page) -> ProjectPage | None:
        """Return the parsed form of ``page``; None when it has been lost."""
        if page.parsed is None:
            await self._load(page.key)
        return page.parsed

    async def _known(self, key: tuple[str, str]) -> Page | None:
        """Return the page from memory or disk, whatever its age; one from memory need not be parsed."""
        found = self.memory.get(key) or await self._load(key)
        found = found or self.memory.get(key)  # upstream's answer may have come behind the look on disk
        return found if found is not None and self._is_of_upstream(found) else None

    def _is_of_upstream(self, page: Page) -> bool:
        """Whether a page may be shown: that of an index whose upstream clients name must have come from that one."""
        index, project = page.key
        settings, upstream = self._live.indexes.get(index), self._upstreams.get(index)
        if settings is None or upstream is None or not settings.is_bound:
            return True
        return page.stored.asked in {f"{root}{project}/" for root in upstream.roots}

    async def _load(self, key: tuple[str, str]) -> Page | None:
        """Return the page parsed, from disk unless somebody is quicker; once for all who want it."""
        return await self._loading.join(key, lambda: self._from_disk(key))

    async def _from_disk(self, key: tuple[str, str]) -> Page | None:
        stored = await self._store.load(*key)
        content = None
        try:
            content = None if stored is None else await self._parse(stored)
        except TeepiError as error:
            log.warning("The stored page of %s cannot be read: %s", key[1], error)
        page = self.memory.get(key)
        if page is not None and page.parsed is not None:  # upstream was quicker
            return page
        if stored is None or content is None:
            return None
        if page is not None and page.saved_at == stored.fetched_at:
            head = replace(page.stored, body=stored.body)  # it may have been confirmed since
            self.memory.restore(page, head, content)
            return page
        age = max(0.0, time.time() - stored.fetched_at)  # a time from the future counts as now
        page = Page(stored, content, time.monotonic() - age, saved_at=stored.fetched_at)
        self.memory.keep(page)
        return page

    def stays_until(self, page: Page) -> float:
        """Return the monotonic seconds up to which ``page`` is answered as it is now, unless it is dropped from hot.

        Minus infinity for a page that was made of others, since that hangs on each of them.
        """
        if page.made_of or not self.memory.has(page):
            return -math.inf
        confirmed = page.confirmed_at + self._live.page_ttl_seconds(page.stored.index)
        return min(math.inf if self._live.offline else confirmed, page.look_again_at)

    def reread(self, indexes: Collection[str]) -> None:
        """Let go of the pages of ``indexes`` in memory: whether these share files has changed, and records say it."""
        for page in [page for page in self.memory if page.stored.index in indexes]:
            self.memory.forget(page.key)

    def forget(self, index: str, project: str) -> None:
        """Let go of a page whose stored copy was deleted."""
        self.memory.forget((index, project))

    async def invalidate(self, project: str, only: Collection[str] | None = None) -> None:
        """Ask upstream at the next request for the page of ``project``, in all or these; until then it stays."""
        for index in tuple(self._upstreams):  # a reload may come in between
            if only is not None and index not in only:
                continue
            self._revalidation.forget_absence((index, project))
            page = await self._known((index, project))
            if page is not None:
                page.confirmed_at = -math.inf
            self._hot.drop(project)

    async def forget_upstream(self, index: str, *, is_new: bool) -> None:
        """Forget what the former upstream of ``index`` said; of a new index all that an earlier one has left."""
        self._revalidation.forget_index(index)
        await self._catalog.forget(index)
        if is_new:
            for page in [page for page in self.memory if page.stored.index == index]:
                self.memory.forget(page.key)
            await self._in_thread(lambda: self._store.remove_all(index))

    async def variant(self, page: Page, form: PageFormat, base: str, coding: Coding = Coding.IDENTITY) -> Variant:
        """Return ``page`` in ``form`` and ``coding`` with links relative to ``base`` (from the page to the index)."""
        key = (form, base, coding)
        if time.monotonic() >= page.look_again_at:
            self._forget_core_metadata(page)
        found = page.variants.get(key)
        if found is not None:
            return found
        learnt = page.learnt
        known = await self._core_metadata(page)
        whole = await self.whole(page)

        def make() -> Variant:
            content = whole.content if known is None else with_core_metadata(whole.content, known)
            return Variant.of(render(content, form, base), form, coding)

        variant = make() if len(whole.stored.body) < _THREAD_BYTES else await self._in_thread(make)
        found = page.variants.get(key)
        if found is not None:  # somebody was quicker
            return found
        if learnt == page.learnt and whole.token is page.token:
            self.memory.add_variant(page, key, variant)
        return variant

    async def shown(self, page: Page) -> ProjectPage:
        """Return what ``page`` shows, to be put together with something else."""
        known = await self._core_metadata(page)
        content = (await self.whole(page)).content
        return content if known is None else with_core_metadata(content, known)

    async def _core_metadata(self, page: Page) -> Mapping[str, str] | None:
        """Return what was read out of the project's wheels, or None when none is ever looked into."""
        if not self._live.synthesize_metadata:
            return None
        known, learnt = page.core_metadata, page.learnt
        if known is None:
            known = await self._catalog.core_metadata(page.stored.project)
            if learnt == page.learnt:
                page.core_metadata = known
                page.looked_at = time.monotonic()
        return known

    def forget_variants(self) -> None:
        """Render all pages anew when they are next asked for: what they show depends on settings that changed."""
        for page in self.memory:
            page.look_again_at = 0.0

    def forget_core_metadata(self, project: str, *, at_once: bool = False) -> None:
        """Look again at what is known of the wheels of ``project``, in all indexes: that has changed.

        Unless it must be ``at_once``, a page is made anew no more often than every ``page_hashes_seconds``.
        """
        self._hot.drop(project)
        now = time.monotonic()
        for page in self.memory.of_project(project):
            due = now if at_once else page.looked_at + self._limits.page_hashes_seconds
            page.look_again_at = min(page.look_again_at, due)

    def _forget_core_metadata(self, page: Page) -> None:
        self.memory.drop_variants(page)
        page.core_metadata = None
        page.learnt += 1
        page.look_again_at = math.inf
