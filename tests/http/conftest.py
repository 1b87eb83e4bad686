"""Fixtures of the tests over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

import tests.support.teepi  # noqa: F401 - an import reads files, and has to come before the guard
from tests.http.clock import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["clock"]


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop() -> Iterator[None]:
    """Fail on a blocking call of teepi's on the event loop (fault 20)."""
    with blockbuster_ctx("teepi") as guard:
        guard.functions["os.sendfile"].can_block_in("teepi/web/send.py", "_send")  # to a socket that does not block
        guard.functions["io.BufferedReader.read"].can_block_in("teepi/store/files.py", "open_cached")  # a look-up
        yield
