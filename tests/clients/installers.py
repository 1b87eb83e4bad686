"""Real installers in subprocesses, each as on a machine where nothing is configured, and an index of real wheels."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import teepi
from tests.support.teepi import scrubbed_environment
from tests.support.wheels import Distribution, sdist, wheel

if TYPE_CHECKING:
    from tests.support.projects import Form, Project
    from tests.support.upstream import Upstream

CLIENTS = Path(os.environ.get("TEST_CLIENTS") or Path(__file__).parents[2] / ".ci" / "clients").absolute()
_RUN_SECONDS = 50
CONFIGURED = {"PIP_CONFIG_FILE": "", "PIP_TRUSTED_HOST": "", "UV_NO_CONFIG": "0"}
"""Lets a client read the files that :meth:`Client.configure` wrote."""
APP = """[project]
name = "app"
version = "0"
requires-python = ">=3.11"
dependencies = ["teetop"]
"""
"""A ``pyproject.toml`` that needs what :class:`Shop` has."""
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
        self._name = name.partition("-")[0]
        self.python = self.bin / "python"
        self.target = home / "target"
        """Where packages are installed."""

    def fresh(self) -> None:
        """Forget everything: caches, environments, installed packages."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()

    async def run(self, *command: str | Path, **environment: str) -> str:
        """Run ``command`` (a bare name is the client's own) in :attr:`home`; return what it says. It must end well."""
        code, said = await self.end(*command, **environment)
        assert code == 0, f"{' '.join(map(str, command))}\n{said}"
        return said

    async def end(self, *command: str | Path, **environment: str) -> tuple[int, str]:
        """Run ``command`` like :meth:`run`, however it ends; return exit code and what it says."""
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
            "VIRTUALENV_NO_PERIODIC_UPDATE": "1",  # its own wheels for pip and setuptools do
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
        assert process.returncode is not None
        return process.returncode, output.decode(errors="replace")

    async def configure(self, url: str) -> None:
        """Run ``teepi configure`` for this client; start it with :data:`CONFIGURED` then."""
        source = str(Path(teepi.__file__).parent.parent)
        command = [sys.executable, "-m", "teepi", "configure", self._name, "--url", url]
        await self.run(*command, PYTHONPATH=source, SHELL="/bin/sh", **CONFIGURED)

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

    projects: tuple[Project, ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """The sha256 of each wanted file."""
        files = {each.path(name): content for each in self.projects for name, content in each.files.items()}
        return tuple(hashlib.sha256(files[path]).hexdigest() for path in self.wanted)

    def stamp(self, *, newest: str, others: str) -> None:
        """Give every file an upload time (PEP 700): the newest versions of wheels one, all others another."""
        for project in self.projects:
            newer = [name for name in project.files if name.endswith(".whl")][-1:]
            project.extra = {name: {"upload-time": newest if name in newer else others} for name in project.files}

    def fetched(self) -> dict[str, int]:
        """Return how often each distribution was asked of upstream with GET."""
        files = [request.path for request in self.upstream.requests if request.path.startswith("/packages/")]
        return {path: files.count(path) for path in files if not path.endswith(".metadata")}

    def assert_fetched_once(self) -> None:
        """Upstream's counter moved, by one for each wanted file."""
        assert self.fetched() == dict.fromkeys(self.wanted, 1)


def open_shop(upstream: Upstream, form: Form, *, padding: int = 200_000) -> Shop:
    """Fill ``upstream``; pages in ``form``."""

    def project(name: str, *distributions: Distribution) -> Project:
        files = {built.filename: built.content for built in distributions}
        metadata = {built.filename: built.metadata for built in distributions if built.filename.endswith(".whl")}
        return upstream.project(name, files, form=form, metadata=metadata)

    base = project("teebase", wheel("teebase", "1.0"), wheel("teebase", "1.5", padding=padding))
    top = project("teetop", wheel("teetop", "1.0"), wheel("teetop", "2.0", requires=["teebase>=1.1", "teebuilt"]))
    built = project("teebuilt", sdist("teebuilt", "3.0"))
    projects = (top, base, built)
    return Shop(upstream, tuple(each.path(list(each.files)[-1]) for each in projects), projects)
