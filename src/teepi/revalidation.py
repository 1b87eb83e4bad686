"""Asks upstreams for pages: one request per page however many wait, each client only as long as it may be kept.

An upstream that fails again and again is left alone for a while (``breaker``), and so is a page that is not there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

from teepi.breaker import Breaker
from teepi.errors import Interrupted, NotFound, Unavailable
from teepi.single_flight import result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from teepi.limits import Limits
    from teepi.page_memory import Page
    from teepi.tasks import TaskScope

log = logging.getLogger(__name__)

Key: TypeAlias = tuple[str, str]
"""Index and project."""

_ABSENT_KEPT: Final = 10_000


class Revalidation:
    """The requests for pages that are under way, and what earlier ones told of upstreams and absent projects."""

    def __init__(
        self, revalidate: Callable[[Key, Page | None], Coroutine[Any, Any, Page]], scope: TaskScope, limits: Limits
    ) -> None:
        """``revalidate`` returns upstream's page, given the one that is here; it runs in ``scope``."""
        self._revalidate = revalidate
        self._scope = scope
        self._limits = limits
        self._absent: OrderedDict[Key, float] = OrderedDict()
        self._asking: dict[Key, asyncio.Task[Page]] = {}
        self._breakers: dict[str, Breaker] = {}

    def circuit_wait_seconds(self, index: str) -> float:
        """How long the upstream of ``index`` is left alone after failures; 0 when it may be asked."""
        return self._breaker(index).wait_seconds(time.monotonic())

    def _breaker(self, index: str) -> Breaker:
        return self._breakers.setdefault(index, Breaker())

    def is_absent(self, key: Key, newer_than: float | None = None) -> bool:
        """Whether upstream said, lately and after ``newer_than`` (monotonic seconds), that there is no such project."""
        absent_at = self._absent.get(key)
        oldest = time.monotonic() - self._limits.absent_seconds
        return absent_at is not None and absent_at > max(oldest, newer_than or 0.0)

    def forget_absence(self, key: Key) -> None:
        """Ask upstream again for a project that was not there."""
        self._absent.pop(key, None)

    def forget_index(self, index: str) -> None:
        """Know nothing of an upstream that is another one now."""
        for key in [key for key in self._absent if key[0] == index]:
            del self._absent[key]
        self._breakers.pop(index, None)

    async def ask(self, key: Key, page: Page | None) -> tuple[Page, bool]:
        """Return upstream's page and whether somebody had asked for it already; ``page`` is the one that is here.

        Raises :class:`NotFound` when upstream says so, :class:`Unavailable` when it is not asked or too slow for this
        client, and what reading its answer raises.
        """
        running = self._asking.get(key)
        task = running or self._begin(key, page)
        if task is None:
            wait = self._breaker(key[0]).wait_seconds(time.monotonic())
            msg = f"Upstream fails and there is no page of {key[1]} yet; it is asked again in {wait:.0f} s."
            raise Unavailable(msg)
        return await self._wait(task, key, has_page=page is not None), running is not None

    def _begin(self, key: Key, page: Page | None) -> asyncio.Task[Page] | None:
        """Start the one request for a page; None while the upstream's circuit is open."""
        now = time.monotonic()
        if not self._breaker(key[0]).allows(now):
            return None
        task = self._scope.start(self._revalidate(key, page), name=f"page {key[1]}")
        self._asking[key] = task
        task.add_done_callback(lambda done: self._answered(key, done, now))
        return task

    async def _wait(self, task: asyncio.Task[Page], key: Key, *, has_page: bool) -> Page:
        """Wait for upstream's answer as long as this client may be kept."""
        breaker, project = self._breaker(key[0]), key[1]
        patience = self._limits.page_patience_seconds if has_page else self._limits.cold_answer_seconds
        done, _ = await asyncio.wait({task}, timeout=0.0 if has_page and breaker.is_slow else patience)
        if not done:
            breaker.dawdled()
            msg = f"Upstream has not answered for {project} yet; teepi goes on asking. Try again."
            raise Unavailable(msg)
        return result_of(task, f"teepi failed on the page of {project}")

    def _answered(self, key: Key, task: asyncio.Task[Page], asked_at: float) -> None:
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
        if error is None:
            self._absent.pop(key, None)
        elif isinstance(error, NotFound):
            self._absent[key] = now
            while len(self._absent) > _ABSENT_KEPT:
                self._absent.popitem(last=False)
        else:
            log.warning("The page of %s was not fetched: %s", key[1], error)
