"""One piece of work per key, however many ask for it; those who ask wait a while, the work goes on.

Knows nothing of what the work is. Look-up and start have no await between them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from teepi.errors import TeepiError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from teepi.tasks import TaskScope

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Work in flight by key, in a scope that outlives whoever asked first."""

    def __init__(self, scope: TaskScope) -> None:
        """Run in ``scope``."""
        self._scope = scope
        self._flying: dict[Hashable, tuple[asyncio.Task[T], float]] = {}

    def is_flying(self, key: Hashable) -> bool:
        """Whether the work of ``key`` is under way."""
        return key in self._flying

    async def join(
        self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]], patience_seconds: float | None = None
    ) -> T:
        """Return what the work of ``key`` gives, started with ``work`` when it is not under way.

        Raises TimeoutError ``patience_seconds`` after it *began* (a hung upstream costs them once, not everybody
        again; None waits for the end), :class:`Unavailable` when teepi stops or fails, and what the work itself raises.
        """
        if key not in self._flying:
            task = self._scope.start(work(), name=f"{key}")
            self._flying[key] = task, time.monotonic()
            task.add_done_callback(lambda _: self._flying.pop(key))
        task, began = self._flying[key]
        left = None if patience_seconds is None else max(0.0, began + patience_seconds - time.monotonic())
        done, _ = await asyncio.wait({task}, timeout=left)
        if not done:
            raise TimeoutError
        return result_of(task, "teepi failed on this request")


def result_of(task: asyncio.Task[T], failed: str) -> T:
    """Return what a task that is done gives. Raises its own error, else :class:`Unavailable`; ``failed`` begins it."""
    if task.cancelled():
        msg = "teepi is stopping; try again in a moment."
        raise Unavailable(msg)
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, TeepiError):
        raise error.with_traceback(None)
    msg = f"{failed} ({type(error).__name__}); see its log."
    raise Unavailable(msg) from error
