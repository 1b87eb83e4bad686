"""Fixtures for all tests: uvloop, the guard that keeps everything on loopback, an upstream, and teepi."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import uvloop

from tests.support.network import Guard
from tests.support.upstream import Upstream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from teepi.limits import Limits
    from tests.support.teepi import Teepi, TeepiProcess


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - named by the hook
    item: pytest.Item,  # noqa: ARG001 - named by the hook
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on the event loop that teepi runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide whatever this machine sets for teepi itself."""
    for variable in [name for name in os.environ if name.startswith("TEEPI_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def xdg_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty directory that stands for the user's home and all that XDG names."""
    for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def network_guard() -> Iterator[Guard]:
    """Refuse every address that is not on loopback; a refusal that the code swallowed fails the test, too."""
    guard = Guard()
    with pytest.MonkeyPatch.context() as monkeypatch:
        guard.install(monkeypatch)
        yield guard
    assert not guard.refused, f"something tried to reach {', '.join(guard.refused)}"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Give a scripted upstream that listens."""
    server = Upstream()
    await server.start()
    yield server
    await server.stop()


class MakeTeepi(Protocol):
    """Starts teepi in this process."""

    async def __call__(self, limits: Limits | None = None, **settings: Any) -> Teepi:
        """Start with short limits (or ``limits``) and any fields of Settings; stopped after the test."""


class MakeProcess(Protocol):
    """Starts teepi as a real process."""

    async def __call__(self, **options: Any) -> TeepiProcess:
        """Start with keywords of TeepiProcess, ``upstream`` and ``directory`` among them; killed after the test."""


@pytest.fixture
async def make_teepi(tmp_path: Path, upstream: Upstream) -> AsyncIterator[MakeTeepi]:
    """Give a function that starts teepi before ``upstream``, always on this test's own directories."""
    from tests.support.teepi import FAST, Teepi, settings_for  # noqa: PLC0415 - only tests of the whole need it

    started: list[Teepi] = []

    async def make(limits: Limits | None = None, **settings: Any) -> Teepi:
        teepi = Teepi(settings_for(tmp_path, upstream.index_url, **settings), limits or FAST)
        started.append(teepi)
        return await teepi.start()

    yield make
    for teepi in reversed(started):
        await teepi.stop()


@pytest.fixture
async def make_process(tmp_path: Path, upstream: Upstream) -> AsyncIterator[MakeProcess]:
    """Give a function that starts ``teepi serve`` before ``upstream``, always on this test's own directories."""
    from tests.support.teepi import TeepiProcess  # noqa: PLC0415 - only tests of the process need it

    prepared: list[TeepiProcess] = []

    async def make(**options: Any) -> TeepiProcess:
        given: dict[str, Any] = {"directory": tmp_path, "upstream": upstream.index_url} | options
        process = TeepiProcess(**given)
        prepared.append(process)
        return await process.start()

    yield make
    for process in reversed(prepared):
        await process.end()
