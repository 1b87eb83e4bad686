"""Changes that run one at a time, each to its end."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class Lockable(Protocol):
    """What is changed by one at a time."""

    alone: asyncio.Lock
    """Held by whoever changes anything."""


_P = ParamSpec("_P")
_T = TypeVar("_T")
_S = TypeVar("_S", bound=Lockable)
_Change = Callable[Concatenate[_S, _P], Coroutine[Any, Any, _T]]


def alone(change: _Change[_S, _P, _T]) -> _Change[_S, _P, _T]:
    """Let a method run with no other such method of its object beside it, and to its end once it was called.

    Of two at once the second sees what the first has done; a client that leaves parts nothing that belongs together.
    """

    @functools.wraps(change)
    async def one(self: _S, /, *args: _P.args, **options: _P.kwargs) -> _T:
        async def work() -> _T:
            async with self.alone:
                return await change(self, *args, **options)

        return await asyncio.shield(asyncio.ensure_future(work()))

    return one
