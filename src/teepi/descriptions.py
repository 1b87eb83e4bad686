"""Descriptions of projects as HTML that is safe to show: rendered by processes of their own, and kept.

Whoever wrote one may be hostile. What is too long, takes too long or cannot be rendered is shown as the text it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from teepi.tasks import TaskScope

MOST_CHARACTERS: Final = 200_000
"""A longer description is cut where it is shown, and not rendered."""
RENDERED: Final = frozenset({"text/markdown", "text/x-rst"})
_MOST_RUNNING: Final = 2
_SECONDS: Final = 5.0
_KEPT: Final = 64


class Descriptions:
    """Renders descriptions, and keeps those rendered last."""

    def __init__(self, scope: TaskScope, render: Callable[[str, str], Awaitable[str | None]] | None = None) -> None:
        """Render in ``scope``, by a process unless ``render`` is given."""
        self._scope = scope
        self._render = render or in_process
        self._running: dict[str, asyncio.Task[None]] = {}
        self._kept: OrderedDict[str, str | None] = OrderedDict()

    async def html(self, text: str, content_type: str) -> str | None:
        """Return a description as HTML; None when it is to be shown as text."""
        kind = content_type.partition(";")[0].strip().lower() or "text/x-rst"
        if not text.strip() or len(text) > MOST_CHARACTERS or kind not in RENDERED:
            return None
        key = hashlib.sha256(f"{kind}\n{text}".encode("utf-8", "replace")).hexdigest()
        if key not in self._kept:
            if key not in self._running:
                if len(self._running) >= _MOST_RUNNING:
                    return None  # rather than to wait behind others
                self._running[key] = self._scope.start(self._keep(key, text, kind), name="rendering a description")
            await asyncio.wait({self._running[key]})
        if key not in self._kept:  # teepi is stopping
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    async def _keep(self, key: str, text: str, kind: str) -> None:
        try:
            self._kept[key] = await self._render(text, kind)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        finally:
            del self._running[key]


async def in_process(text: str, kind: str, *, seconds: float = _SECONDS) -> str | None:
    """Return a description of the media type ``kind`` as safe HTML; None when that fails or takes ``seconds``."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-s", "-m", "teepi.rendering", kind),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # nothing secret: strangers' text goes there
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(seconds):
            html, _ = await process.communicate(text.encode("utf-8", "replace"))
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return html.decode() if process.returncode == 0 else None
