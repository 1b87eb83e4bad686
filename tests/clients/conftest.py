"""Fixtures of the tests with real installers: an index of real wheels, a restart without upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from tests.clients.installers import Shop, open_shop

if TYPE_CHECKING:
    from tests.conftest import MakeProcess
    from tests.support.teepi import TeepiProcess
    from tests.support.upstream import Upstream


@pytest.fixture(params=["json", "html"])
def shop(request: pytest.FixtureRequest, upstream: Upstream) -> Shop:
    """Give an upstream with real wheels, once in each form."""
    return open_shop(upstream, request.param)


class Offline(Protocol):
    """Restarts teepi ``--offline``, on the address that it had."""

    async def __call__(self, teepi: TeepiProcess) -> None:
        """Stop ``teepi`` and start another on its cache."""


@pytest.fixture
def offline(make_process: MakeProcess) -> Offline:
    """Give a function that restarts teepi offline."""

    async def restart(teepi: TeepiProcess) -> None:
        host, port = teepi.address
        assert await teepi.terminate() == 0
        assert "Traceback" not in teepi.stderr
        await make_process(arguments=["--offline", "--listen", f"{host}:{port}"])

    return restart
