"""Read-through for index pages: fresh, stale or revalidate; one request upstream per page however many ask.

A page that upstream cannot confirm is served stale. 404 is answered only when upstream said 404. What a page links
to is remembered in the catalogue before the page is shown.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from teepi.breaker import Breaker
from teepi.codings import Coding, encode, worth_encoding
from teepi.errors import Interrupted, NotFound, Offline, TeepiError, Unavailable, UpstreamError
from teepi.simple_api import ProjectPage, parse_page, render, with_core_metadata
from teepi.store import StoredPage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from teepi.catalog import Catalog
    from teepi.http_semantics import PageFormat
    from teepi.limits import Limits
    from teepi.metrics import Metrics
    from teepi.store import PageStore
    from teepi.tasks import TaskScope
    from teepi.upstream import Upstream

log = logging.getLogger(__name__)

_KEPT_BYTES: Final = 64 << 20  # of page bodies and finished variants in memory
_ABSENT_KEPT: Final = 10_000
_VARIANTS_KEPT: Final = 16  # per page: format, coding and depth
_THREAD_BYTES: Final = 256 << 10  # a larger page is parsed and rendered off the event loop


class Freshness(Enum):
    """How a page was answered, in the words of Cache-Status (RFC 9211)."""

    HIT = "hit"
    MISS = "fwd=uri-miss; stored"
    COLLAPSED = "fwd=uri-miss; collapsed"
    REVALIDATED = "fwd=stale"
    STALE = "hit; detail=stale"


@dataclass(frozen=True, slots=True)
class Variant:
    """A finished page: one format in one coding with links from one depth."""

    body: bytes
    etag: str
    coding: Coding = Coding.IDENTITY
    """What the body is really in: a short one is left as it is."""


@dataclass(slots=True)
class Page:
    """A project page in memory."""

    stored: StoredPage
    content: ProjectPage
    confirmed_at: float
    """Monotonic seconds of upstream's last answer; a clock that jumps does not change ages."""
    made_of: tuple[ProjectPage, ...] = ()
    """For the page of an index made of others: theirs."""
    is_remembered: bool = False
    """Whether the catalogue has been told, by this process, what the page links to."""
    variants: dict[tuple[PageFormat, str, Coding], Variant] = field(default_factory=dict)
    core_metadata: Mapping[str, str] | None = None
    """What the catalogue knows of wheels that were looked into (see ``Catalog.core_metadata``), once asked."""
    learnt: int = 0
    """Grows when that changes: what was looked up before is not kept."""

    @property
    def kept_bytes(self) -> int:
        """What this page is counted with: its parsed form takes a few times the body."""
        return 4 * len(self.stored.body) + sum(len(variant.body) for variant in self.variants.values())


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
        *,
        ttl_seconds: float,
        ttls_seconds: Mapping[str, float] | None = None,
        offline: bool = False,
        synthesize_metadata: bool = True,
    ) -> None:
        """``upstreams`` by index; ``ttls_seconds`` of those that have their own."""
        self._synthesize_metadata = synthesize_metadata
        self._upstreams = upstreams
        self._store = store
        self._catalog = catalog
        self._scope = scope
        self._limits = limits
        self._metrics = metrics
        self._ttl_seconds = ttl_seconds
        self._ttls_seconds = dict(ttls_seconds or {})
        self._offline = offline
        self._pages: OrderedDict[tuple[str, str], Page] = OrderedDict()
        self._kept_bytes = 0
        self._absent: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[Page]] = {}
        self._breakers: dict[str, Breaker] = {}

    # -- get -----------------------------------------------------------------------------------------

    async def get(self, index: str, project: str, *, newer_than: float | None = None) -> tuple[Page, Freshness]:
        """Return the page of ``project`` (normalised) and how it was come by.

        ``newer_than`` (monotonic seconds) asks for an answer of upstream after that moment. Raises
        :class:`NotFound`, :class:`Offline`, or :class:`UpstreamError` / :class:`Unavailable` when there is no page
        to fall back to.
        """
        key = (index, project)
        page = await self._known(key)
        if self._offline:
            if page is None:
                msg = f"teepi runs offline and has no page of {project}."
                raise Offline(msg)
            return page, self._count(Freshness.HIT)
        now = time.monotonic()
        oldest = now - self._ttls_seconds.get(index, self._ttl_seconds) if newer_than is None else newer_than
        if page is not None and page.confirmed_at > oldest:
            return page, self._count(Freshness.HIT)
        absent_at = self._absent.get(key)
        if absent_at is not None and absent_at > max(now - self._limits.absent_seconds, newer_than or 0.0):
            msg = f"Upstream has no project {project}."
            raise NotFound(msg)
        return await self._ask(key, page)

    def _breaker(self, index: str) -> Breaker:
        return self._breakers.setdefault(index, Breaker())

    def _begin_asking(self, key: tuple[str, str], page: Page | None) -> asyncio.Task[Page] | None:
        """Start the one request for a page; None while the upstream's circuit is open."""
        now = time.monotonic()
        if not self._breaker(key[0]).allows(now):
            return None
        task = self._scope.start(self._revalidate(key, page), name=f"page {key[1]}")
        self._asking[key] = task
        task.add_done_callback(lambda done: self._answered(key, done, now))
        return task

    async def _ask(self, key: tuple[str, str], page: Page | None) -> tuple[Page, Freshness]:
        """Ask upstream, single-flight; fall back to ``page`` when it errs or is slow."""
        breaker = self._breaker(key[0])
        running = self._asking.get(key)
        task = running or self._begin_asking(key, page)
        error: BaseException | None
        if task is None:
            wait = breaker.wait_seconds(time.monotonic())
            error = Unavailable(
                f"Upstream fails and there is no page of {key[1]} yet; it is asked again in {wait:.0f} s."
            )
        else:
            error = await self._wait(task, key[1], breaker, has_page=page is not None)
            if error is None:
                asked = Freshness.MISS if page is None else Freshness.REVALIDATED
                return task.result(), self._count(asked if running is None else Freshness.COLLAPSED)
        if page is not None and not isinstance(error, NotFound):
            return page, self._count(Freshness.STALE)
        if isinstance(error, TeepiError):
            raise error.with_traceback(None)
        msg = f"The page of {key[1]} could not be made ({type(error).__name__}); see teepi's log."
        raise Unavailable(msg) from error

    async def _wait(
        self, task: asyncio.Task[Page], project: str, breaker: Breaker, *, has_page: bool
    ) -> BaseException | None:
        """Wait for upstream's answer as long as this client may be kept; return why there is none."""
        patience = self._limits.page_patience_seconds if has_page else self._limits.cold_answer_seconds
        done, _ = await asyncio.wait({task}, timeout=0.0 if has_page and breaker.is_slow else patience)
        if not done:
            breaker.dawdled()
            return Unavailable(f"Upstream has not answered for {project} yet; teepi goes on asking. Try again.")
        if task.cancelled():
            return Unavailable("teepi is stopping; try again in a moment.")
        return task.exception()

    def _answered(self, key: tuple[str, str], task: asyncio.Task[Page], asked_at: float) -> None:
        del self._asking[key]
        if task.cancelled():
            return
        error = task.exception()
        now = time.monotonic()
        if error is None or isinstance(error, NotFound):
            in_time = now - asked_at <= self._limits.page_patience_seconds
            self._breaker(key[0]).answered(in_time=in_time)
        elif isinstance(error, Interrupted):  # a single page that cannot be read says nothing of the upstream
            self._breaker(key[0]).failed(now, asked_wait_seconds=error.asked_wait_seconds)
        if isinstance(error, NotFound):
            self._absent[key] = time.monotonic()
            while len(self._absent) > _ABSENT_KEPT:
                self._absent.popitem(last=False)
        elif error is not None:
            log.warning("The page of %s was not fetched: %s", key[1], error)

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
        seen_at = None if page is None else page.stored.url
        upstream = self._upstreams[index]
        answer = await upstream.project(project, seen_at=seen_at, etag=etag, last_modified=last_modified)
        now = time.time()
        if answer.body is None or (
            page is not None and (answer.body, answer.url) == (page.stored.body, page.stored.url)
        ):
            if page is None:  # 304 to an unconditional request is refused in ``upstream``
                msg = f"Upstream says that the page of {project} is unchanged, but none is here."
                raise UpstreamError(msg)
            old = page.stored
            page.stored = StoredPage(
                index, project, old.url, old.content_type, answer.etag or old.etag,
                answer.last_modified or old.last_modified, now, old.body,
            )  # fmt: skip
            page.confirmed_at = time.monotonic()
        else:
            stored = StoredPage(
                index, project, answer.url, answer.content_type, answer.etag, answer.last_modified, now, answer.body
            )
            page = Page(stored, await self._parse(stored), time.monotonic())
            await self.remember(page)
            self._keep(key, page)
        self._absent.pop(key, None)
        self._scope.start(self._save(page.stored), name=f"store page {project}")
        return page

    async def adopt(self, stored: StoredPage, made_of: tuple[ProjectPage, ...]) -> Page:
        """Keep a page that was made here, out of those of other indexes, as if an upstream had sent it."""
        key = (stored.index, stored.project)
        page = Page(stored, await self._parse(stored), time.monotonic(), made_of)
        await self.remember(page)
        self._keep(key, page)
        self._scope.start(self._save(stored), name=f"store page {stored.project}")
        return page

    def adopted(self, index: str, project: str, made_of: tuple[ProjectPage, ...]) -> Page | None:
        """Return the page in memory that was made of exactly these, if there is one."""
        page = self._pages.get((index, project))
        if page is None or len(page.made_of) != len(made_of):
            return None
        return page if all(a is b for a, b in zip(page.made_of, made_of, strict=True)) else None

    async def remember(self, page: Page) -> None:
        """Tell the catalogue what ``page`` links to, unless it has been told: a page from disk may have outlived it."""
        if not page.is_remembered:
            await self._catalog.remember(page.content.files)
            page.is_remembered = True

    async def _parse(self, stored: StoredPage) -> ProjectPage:
        """Parse, off the event loop when large. Raises :class:`BadPage`."""

        def work() -> ProjectPage:
            return parse_page(
                stored.body,
                content_type=stored.content_type,
                url=stored.url,
                index=stored.index,
                project=stored.project,
            )

        return work() if len(stored.body) < _THREAD_BYTES else await asyncio.to_thread(work)

    async def _save(self, stored: StoredPage) -> None:
        try:
            await self._store.save(stored)
        except OSError as error:
            log.warning("The page of %s was served but not stored: %s.", stored.project, error)

    # -- memory --------------------------------------------------------------------------------------

    async def _known(self, key: tuple[str, str]) -> Page | None:
        """Return the page from memory or disk, whatever its age."""
        page = self._pages.get(key)
        if page is not None:
            self._pages.move_to_end(key)
            return page
        stored = await self._store.load(*key)
        content = None
        try:
            content = None if stored is None else await self._parse(stored)
        except TeepiError as error:
            log.warning("The stored page of %s cannot be read: %s", key[1], error)
        if (page := self._pages.get(key)) is not None:  # somebody was quicker, from disk or from upstream
            return page
        if stored is None or content is None:
            return None
        age = max(0.0, time.time() - stored.fetched_at)  # a time from the future counts as now
        page = Page(stored, content, time.monotonic() - age)
        self._keep(key, page)
        return page

    def _keep(self, key: tuple[str, str], page: Page) -> None:
        old = self._pages.pop(key, None)
        if old is not None:
            self._kept_bytes -= old.kept_bytes
        self._pages[key] = page
        self._kept_bytes += page.kept_bytes
        while self._kept_bytes > _KEPT_BYTES and len(self._pages) > 1:
            _, dropped = self._pages.popitem(last=False)
            self._kept_bytes -= dropped.kept_bytes

    async def variant(self, page: Page, form: PageFormat, base: str, coding: Coding = Coding.IDENTITY) -> Variant:
        """Return ``page`` in ``form`` and ``coding`` with links relative to ``base`` (from the page to the index)."""
        key = (form, base, coding)
        found = page.variants.get(key)
        if found is not None:
            return found
        learnt = page.learnt
        known = await self._core_metadata(page)

        def make() -> Variant:
            content = page.content if known is None else with_core_metadata(page.content, known)
            body = render(content, form, base)
            etag = hashlib.sha256(body).hexdigest()[:32]
            if coding is Coding.IDENTITY or not worth_encoding(body):
                return Variant(body, f'"{etag}"', Coding.IDENTITY)
            # An ETag names bytes: each coding has its own (RFC 9110, 8.8.3.3).
            return Variant(encode(body, coding), f'"{etag}-{coding.value}"', coding)

        variant = make() if len(page.stored.body) < _THREAD_BYTES else await asyncio.to_thread(make)
        found = page.variants.get(key)
        if found is not None:  # somebody was quicker
            return found
        is_kept = self._pages.get((page.stored.index, page.stored.project)) is page
        if is_kept and len(page.variants) < _VARIANTS_KEPT and learnt == page.learnt:
            page.variants[key] = variant
            self._kept_bytes += len(variant.body)
        return variant

    async def _core_metadata(self, page: Page) -> Mapping[str, str] | None:
        """Return what was read out of the project's wheels, or None when none is ever looked into."""
        if not self._synthesize_metadata:
            return None
        known, learnt = page.core_metadata, page.learnt
        if known is None:
            known = await self._catalog.core_metadata(page.stored.project)
            if learnt == page.learnt:
                page.core_metadata = known
        return known

    def forget_core_metadata(self, project: str) -> None:
        """Look again at what is known of the wheels of ``project``, in all indexes: that has changed."""
        for index in self._upstreams:
            page = self._pages.get((index, project))
            if page is not None:
                self._kept_bytes -= page.kept_bytes
                page.variants.clear()
                page.core_metadata = None
                page.learnt += 1
                self._kept_bytes += page.kept_bytes
