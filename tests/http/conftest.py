"""Fixtures of the tests over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.clock import clock
from tests.support.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["clock"]


@pytest.fixture
async def second() -> AsyncIterator[Upstream]:
    """Give another scripted upstream."""
    server = Upstream()
    await server.start()
    yield server
    await server.stop()
