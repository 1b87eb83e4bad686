"""The programs that the suite compares with or drives, and their versions: environments of their own, made once.

They lie below ``--peers-dir`` and are made with pip as the user has configured it. What cannot be had is skipped by
name, with the reason.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGES = {"devpi": ("devpi-server",), "proxpi": ("proxpi", "gunicorn"), "clients": ("uv", "pip")}
_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
_SETUP_SECONDS = 600


class Skipped(Exception):
    """Something is not there; the message says what, for people."""


FAILURES = (Skipped, RuntimeError, OSError, ValueError, LookupError, subprocess.SubprocessError)
"""What a peer may do to a measurement: it is then named with its reason, and the run goes on."""


class Environments:
    """Where the programs are."""

    def __init__(self, directory: Path) -> None:
        """Keep environments below ``directory``."""
        self._directory = directory
        self._failed: dict[str, str] = {}

    def binary(self, environment: str, program: str) -> Path:
        """Return the path of a program, making its environment first. Raises :class:`Skipped`."""
        path = self._directory / environment / "bin" / program
        ready = self._directory / environment / ".ready"
        if environment in self._failed:
            raise Skipped(self._failed[environment])
        if not ready.exists():
            print(f"setting up {environment} in {self._directory} …", file=sys.stderr, flush=True)
            try:
                self._make(environment)
            except (OSError, subprocess.SubprocessError) as error:
                output = getattr(error, "stderr", None) or str(error)
                said = [line for line in output.splitlines() if line.strip()]
                reason = f"cannot be set up: {said[-1][:200] if said else error}"
                self._failed[environment] = reason
                raise Skipped(reason) from error
            ready.touch()
        return path

    def _make(self, environment: str) -> None:
        path = self._directory / environment
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        for command in (
            [sys.executable, "-m", "venv", str(path)],
            [str(path / "bin" / "python"), "-m", "pip", "install", "--quiet", "--upgrade", *_PACKAGES[environment]],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SETUP_SECONDS)

    def versions(self) -> dict[str, str]:
        """Return the version of everything that is there, by name."""
        found = {"Python": platform.python_version()}
        for name in ("teepi", "aiohttp", "uvloop"):
            found[name] = metadata.version(name)
        for name, command in (("nginx", [system("nginx"), "-v"]), ("wrk", [system("wrk"), "-v"])):
            if command[0] and (version := _said(*map(str, command))):
                found[name] = version
        for environment, packages in _PACKAGES.items():
            if (self._directory / environment / ".ready").exists():
                python = str(self._directory / environment / "bin" / "python")
                for package in packages:
                    code = f"from importlib.metadata import version; print(version({package!r}))"
                    found[package] = _said(python, "-c", code)
        return found


def system(program: str) -> str | None:
    """Return the path of a program of the system, if it is there."""
    return shutil.which(program, path=_PATH) or shutil.which(program)


def _said(*command: str) -> str:
    """Return the first version number in what a program says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"\d+\.\d+(\.\d+)*", done.stdout + done.stderr)
    return found[0] if found else ""
