"""Real installers in subprocesses, each as on a machine where nothing is configured, and an index of real wheels."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.teepi import scrubbed_environment
from tests.support.wheels import Distribution, sdist, wheel

if TYPE_CHECKING:
    from tests.support.projects import Form
    from tests.support.upstream import Upstream

CLIENTS = Path(os.environ.get("TEST_CLIENTS") or Path(__file__).parents[2] / ".ci" / "clients").absolute()
_RUN_SECONDS = 50
_NOWHERE = "http://127.0.0.1:9"
"""The discard port, where nothing listens: a client that looks for any other host fails at once, and loudly."""


class Client:
    """An installer with a home of its own, empty caches, and no way to the network but over loopback."""

    def __init__(self, name: str, home: Path) -> None:
        """``name`` is a folder of ``$TEST_CLIENTS``; the test is skipped when it is not there."""
        self.bin = CLIENTS / name / "bin"
        if not (self.bin / "python").exists():
            pytest.skip(f"{name} is not set up in {CLIENTS}: run .ci/setup-clients {CLIENTS}")
        self.home = home
        self.python = self.bin / "python"
        self.target = home / "target"
        """Where packages are installed."""

    def fresh(self) -> None:
        """Forget everything: caches, environments, installed packages."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()

    async def run(self, *command: str | Path, **environment: str) -> str:
        """Run ``command`` (a bare name is the client's own) in :attr:`home`; return what it says. It must end well."""
        program, *arguments = map(str, command)
        surroundings = scrubbed_environment(self.home)
        del surroundings["PYTHONPATH"], surroundings["PYTHONUNBUFFERED"]
        surroundings |= {
            "PATH": f"{self.bin}{os.pathsep}{surroundings['PATH']}",
            "TMPDIR": str(self.home),
            "HTTP_PROXY": _NOWHERE,
            "HTTPS_PROXY": _NOWHERE,
            "NO_PROXY": "127.0.0.1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_TRUSTED_HOST": "127.0.0.1",
            "PIP_RETRIES": "5",
            "UV_NO_CONFIG": "1",
            "UV_PYTHON": str(self.python),
            "UV_PYTHON_DOWNLOADS": "never",
        }
        local = self.bin / program
        process = await asyncio.create_subprocess_exec(
            str(local) if local.exists() else program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=surroundings | environment,
            cwd=self.home,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), _RUN_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = output.decode(errors="replace")
        assert process.returncode == 0, f"{program} {' '.join(arguments)}\n{said}"
        return said

    async def versions(self, *packages: str, python: Path | None = None) -> list[str]:
        """Import ``packages`` (from :attr:`target`, or in the environment of ``python``); return their versions."""
        script = f"import {', '.join(packages)}; print(*({', '.join(f'{name}.__version__' for name in packages)},))"
        said = await self.run(python or self.python, "-c", script, PYTHONPATH=str(self.target))
        return said.split()


@dataclass(frozen=True)
class Shop:
    """The index upstream: ``teetop`` needs ``teebase`` and ``teebuilt``, of which there is only an sdist."""

    upstream: Upstream
    wanted: tuple[str, ...]
    """Paths of the files that an install of ``teetop`` fetches."""

    def fetched(self) -> dict[str, int]:
        """Return how often each distribution was asked of upstream with GET."""
        files = [request.path for request in self.upstream.requests if request.path.startswith("/packages/")]
        return {path: files.count(path) for path in files if not path.endswith(".metadata")}

    def assert_fetched_once(self) -> None:
        """Upstream's counter moved, by one for each wanted file."""
        assert self.fetched() == dict.fromkeys(self.wanted, 1)


def open_shop(upstream: Upstream, form: Form, *, padding: int = 200_000) -> Shop:
    """Fill ``upstream``; pages in ``form``."""

    def project(name: str, *distributions: Distribution) -> list[str]:
        files = {built.filename: built.content for built in distributions}
        metadata = {built.filename: built.metadata for built in distributions if built.filename.endswith(".whl")}
        made = upstream.project(name, files, form=form, metadata=metadata)
        return [made.path(filename) for filename in files]

    base = project("teebase", wheel("teebase", "1.0"), wheel("teebase", "1.5", padding=padding))
    top = project("teetop", wheel("teetop", "1.0"), wheel("teetop", "2.0", requires=["teebase>=1.1", "teebuilt"]))
    built = project("teebuilt", sdist("teebuilt", "3.0"))
    return Shop(upstream, (top[-1], base[-1], *built))
