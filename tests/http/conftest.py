"""Fixtures of the tests over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

import tests.support.teepi  # noqa: F401 - an import reads files, and has to come before the guard
from tests.http.clock import clock
from tests.support.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["clock"]

_COMMANDS = ["teepi.cli", "teepi.operator_client", "teepi.building", "teepi.imports"]
"""Run in a thread of a test's, with an event loop that serves nobody."""


@pytest.fixture
async def second() -> AsyncIterator[Upstream]:
    """Give another scripted upstream."""
    server = Upstream()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop() -> Iterator[None]:
    """Fail on a blocking call of teepi's on the event loop (fault 20)."""
    with blockbuster_ctx("teepi", excluded_modules=_COMMANDS) as guard:
        # To a socket that does not block.
        guard.functions["os.sendfile"].can_block_in("teepi/web/sendfile.py", "_send")
        for call in ("os.sendfile", "socket.socket.send"):
            guard.functions[call].can_block_in("teepi/web/hot_files.py", "_send")
        guard.functions["io.BufferedReader.read"].can_block_in("teepi/store/files.py", "open_cached")  # a look-up
        guard.functions["io.BufferedReader.read"].can_block_in("teepi/store/metadata.py", "load")  # some kilobytes
        # Rare, and before the client's first byte: a cached file that is found damaged is moved away at once.
        for call in ("os.stat", "os.rename", "os.replace", "os.mkdir", "os.unlink"):
            if call in guard.functions:
                guard.functions[call].can_block_in("teepi/store/shelves.py", "set_aside")
        yield
