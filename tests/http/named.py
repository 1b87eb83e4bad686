"""Host names for scripted upstreams: a resolver that knows a few, so that origins and addresses can differ."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

if TYPE_CHECKING:
    import pytest

    from tests.support.upstream import Upstream

NAMES: dict[str, tuple[str, ...]] = {
    "index.example": ("127.0.0.1",),
    "mirror.example": ("127.0.0.1",),
    "other.example": ("127.0.0.1",),
    "localhost": ("127.0.0.1",),
    "mapped.example": ("::ffff:127.0.0.1",),
    "nat64.example": ("64:ff9b::7f00:1",),
    "mixed.example": ("10.0.0.1", "8.8.8.8"),
}


class FakeResolver(AbstractResolver):
    """Answers from :data:`NAMES`."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See aiohttp; everything else is unknown, but for what the C library reads as numbers (0x7f000001)."""
        addresses = NAMES.get(host)
        if addresses is None:
            addresses = (socket.inet_ntoa(socket.inet_aton(host)),)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        """Do nothing."""


def give_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let teepi resolve by :class:`FakeResolver`."""
    monkeypatch.setattr("teepi.outbound.DefaultResolver", FakeResolver)


def named(host: str, upstream: Upstream) -> str:
    """Return the origin of ``upstream`` under the name ``host``."""
    return f"http://{host}:{upstream.url.rpartition(':')[2]}"
