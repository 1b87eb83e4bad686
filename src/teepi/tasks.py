"""Scopes that outlive the client who caused a task, and work in threads: nobody spawns loose tasks."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from teepi.errors import TeepiError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

log = logging.getLogger(__name__)

T = TypeVar("T")


async def in_executor(executor: Executor, work: Callable[..., T], *arguments: object) -> T:
    """Run ``work`` in ``executor`` and return its result."""
    return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)


class TaskScope:
    """Tasks that end with this scope. A task that fails unexpectedly is logged and harms no other."""

    def __init__(self) -> None:
        """Begin empty and open."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run ``work`` in this scope and return its task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, TeepiError):  # those are told by whoever asked
            log.error("%s failed: %r", task.get_name(), error, exc_info=error)

    async def aclose(self) -> None:
        """Cancel what still runs and wait until it has ended (each may need a moment to keep its work)."""
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread and do not leave before it has ended, for it uses what the caller then closes."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
