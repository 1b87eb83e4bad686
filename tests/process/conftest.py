"""What tests of the real process share: a large file upstream, strace and namespaces where they work."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.wheels import noise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.projects import Project
    from tests.support.upstream import Upstream


@dataclass(frozen=True)
class Published:
    """A file of the scripted upstream and where things of it are."""

    content: bytes
    path: str
    """At the upstream."""
    link: str
    """At teepi."""
    partial: Path
    """While it lands."""
    cached: Path
    """Once it is committed."""


class Publish(Protocol):
    """Makes a project with one file."""

    def __call__(self, size: int, name: str = "demo", *, sha256: bool = True) -> Published:
        """Publish ``size`` bytes of noise; without ``sha256`` the page gives no digest."""


@pytest.fixture
def publish(upstream: Upstream, tmp_path: Path) -> Publish:
    """Give a function that publishes one file of a project of its own."""

    def make(size: int, name: str = "demo", *, sha256: bool = True) -> Published:
        filename = f"{name}-1.0.tar.gz"
        content = noise(size, seed=len(name))
        project: Project = upstream.project(name, {filename: content}, sha256=sha256)
        digest = hashlib.sha256(content).hexdigest()
        path = project.path(filename)
        layout = tmp_path / "cache" / "v1"
        return Published(
            content,
            path,
            f"/root/pypi/+http/{upstream.url.removeprefix('http://')}{path}",
            layout / "partial" / f"sha256-{digest}",
            layout / "files" / "sha256" / digest[:2] / digest,
        )

    return make


class Strace(Protocol):
    """Gives the prefix that starts teepi under strace."""

    def __call__(self, *options: str, trace: str, only: Path | None = None) -> list[str]:
        """Trace the calls ``trace`` of all threads into :attr:`output`, of the path ``only`` if given."""

    @property
    def output(self) -> Path:
        """Where the trace is."""


class _Strace:
    def __init__(self, output: Path) -> None:
        self.output = output

    def __call__(self, *options: str, trace: str, only: Path | None = None) -> list[str]:
        command = ["strace", "-f", "-y", "-qq", "-o", str(self.output), "-e", "signal=none", "-e", f"trace={trace}"]
        return [*command, *(["-P", str(only)] if only is not None else []), *options]


def _works(command: list[str]) -> str | None:
    """Return why ``command`` does not work here, or None."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{command[0]} does not work here: {error}"
    return f"{command[0]} does not work here: {done.stderr.strip()}" if done.returncode else None


@pytest.fixture(scope="session")
def _strace_works() -> None:
    if reason := _works(["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=1", "true"]):
        pytest.skip(reason)


@pytest.fixture
def strace(_strace_works: None, tmp_path: Path) -> Strace:
    """Give a function that makes strace's command; the test is skipped where strace does not work."""
    return _Strace(tmp_path / "trace")


class Mounted(Protocol):
    """Gives the prefix that starts teepi in a mount namespace of its own."""

    def __call__(self, *commands: Sequence[str | Path]) -> list[str]:
        """Run ``commands`` in there first."""


@pytest.fixture(scope="session")
def _namespaces_work() -> None:
    if reason := _works(["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=1m", "probe", "/tmp"]):  # noqa: S108
        pytest.skip(reason)


@pytest.fixture
def mounted(_namespaces_work: None) -> Mounted:
    """Give a function that makes the command; the test is skipped where namespaces do not work."""

    def prefix(*commands: Sequence[str | Path]) -> list[str]:
        script = " && ".join([*(shlex.join(map(str, command)) for command in commands), 'exec "$@"'])
        return ["unshare", "-Urm", "sh", "-c", script, "sh"]

    return prefix
