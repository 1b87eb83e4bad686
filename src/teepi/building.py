"""Makes wheels for what has none and puts them into an index: what ``teepi build`` does, printing aside.

What has to be built is decided by :func:`decide`, from names alone. Builds run in pip's own isolation, by the
interpreter they are for, and have the password in no variable.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import packaging
from packaging import tags as tagging
from packaging.utils import parse_wheel_filename
from packaging.version import InvalidVersion, Version

from teepi.errors import BadInput, TeepiError
from teepi.filenames import has_known_extension
from teepi.index_client import Refused
from teepi.resolving import cause, pip_environment, pip_line
from teepi.upload_form import read_form

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from packaging.tags import Tag

    from teepi.index_client import IndexClient
    from teepi.resolving import ServedIndex
    from teepi.wanted import Wanted

_ASKED: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from packaging.tags import sys_tags
import json
print(json.dumps([".".join(map(str, sys.version_info[:2])), sorted({str(tag) for tag in sys_tags()})]))
"""


class Step(StrEnum):
    """What becomes of one version for one interpreter."""

    BUILT = "built"
    EXISTS = "exists"
    """The index itself has a wheel."""
    READY = "has a wheel"
    """A base of the index has one."""
    COPIED = "copied"
    """A base had one, and the index was to have all."""
    LEFT_OUT = "left out"
    """A directory or a repository: it comes from no index."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python to build for."""

    path: str
    version: str
    """As in ``3.12``."""
    tags: frozenset[Tag]
    """Of the wheels that it can use (PEP 425)."""

    @classmethod
    def at(cls, path: str) -> Interpreter:
        """Ask the interpreter at ``path``. Raises :class:`BadInput` when none runs there."""
        where = str(Path(packaging.__file__).parents[1])
        line = [path, "-I", "-c", _ASKED, where]
        try:
            ended = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 - a list of ours
            version, tags = json.loads(ended.stdout)
        except (OSError, ValueError):
            msg = f"--python {path} is no Python that runs; name an interpreter, as in --python python3.12."
            raise BadInput(msg) from None
        return cls(path, version, frozenset().union(*map(tagging.parse_tag, tags)))


@dataclass(frozen=True, slots=True)
class Task:
    """One version of a project, for one interpreter."""

    interpreter: Interpreter
    wanted: Wanted

    @property
    def name(self) -> str:
        """Project and version."""
        return f"{self.wanted.project} {self.wanted.version}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a task."""

    task: Task
    step: Step
    filename: str | None = None
    """The wheel that was made or copied."""
    reason: str | None = None
    log: Path | None = None
    """What the build said, where it failed."""


def decide(wanted: Wanted, tags: AbstractSet[Tag], own: Iterable[str]) -> Step | None:
    """Return what is the case already, from the names of the files in the index itself; None: a wheel must be made.

    ``wanted`` is what the resolver chose through the index: a wheel where any is to be had.
    """
    if any(_fits(filename, wanted, tags) for filename in own):
        return Step.EXISTS
    if wanted.filename.endswith(".whl"):
        return Step.READY
    return None if has_known_extension(wanted.filename) and wanted.url is not None else Step.LEFT_OUT


def _fits(filename: str, wanted: Wanted, tags: AbstractSet[Tag]) -> bool:
    try:
        project, version, _, wheel_tags = parse_wheel_filename(filename)
        return project == wanted.project and version == Version(wanted.version or "") and bool(tags & wheel_tags)
    except (InvalidVersion, ValueError):  # no wheel, among others
        return False


class Builder:
    """Builds for one index."""

    def __init__(
        self,
        client: IndexClient,
        index: str,
        source: ServedIndex,
        logs: Path,
        secrets: Container[str],
        *,
        takes_all: bool,
        is_dry: bool,
    ) -> None:
        """Put wheels into ``index``; what a build needs comes through ``source``.

        Logs of failed builds stay in ``logs``. With ``takes_all`` wheels that a base has are copied into the index;
        ``is_dry`` says what would be done. A build does not see the variables in ``secrets``.
        """
        self._client = client
        self._index = index
        self._source = source
        self._logs = logs
        self._secrets = secrets
        self._takes_all = takes_all
        self._is_dry = is_dry
        self._own: dict[str, asyncio.Future[list[str]]] = {}

    async def do(self, task: Task) -> Outcome:
        """Do what is needed. Tasks of one version have to come one after another: a wheel may serve several."""
        wanted = task.wanted
        if wanted.project not in self._own:
            self._own[wanted.project] = asyncio.ensure_future(self._own_names(wanted.project))
        try:
            own = await self._own[wanted.project]
            step = decide(wanted, task.interpreter.tags, own)
            if step is Step.LEFT_OUT or step is Step.EXISTS or (step is Step.READY and not self._takes_all):
                return Outcome(task, step)
            if self._is_dry:
                return Outcome(task, Step.COPIED if step is Step.READY else Step.BUILT)
            with tempfile.TemporaryDirectory(prefix="teepi-build-") as directory:
                if step is Step.READY:
                    wheel, step = await self._copy(wanted, Path(directory, wanted.filename)), Step.COPIED
                else:
                    wheel, step = await self._build(task, Path(directory)), Step.BUILT
                if not await self._upload(wheel):
                    step = Step.EXISTS
                own.append(wheel.name)
                return Outcome(task, step, wheel.name)
        except _BuildFailed as failed:
            return Outcome(task, Step.FAILED, reason=failed.message, log=failed.log)
        except TeepiError as error:
            return Outcome(task, Step.FAILED, reason=error.message.rstrip("."))

    async def _own_names(self, project: str) -> list[str]:
        return [file.filename for file in await self._client.own_files(self._index, project)]

    async def _copy(self, wanted: Wanted, path: Path) -> Path:
        await self._client.download(wanted.url or "", path)
        return path

    async def _build(self, task: Task, directory: Path) -> Path:
        wanted = task.wanted
        log = self._logs / f"{wanted.project}-{wanted.version}-py{task.interpreter.version}.log"
        digest = f"#sha256={wanted.sha256}" if wanted.sha256 is not None else ""
        what = f"{wanted.project} @ {wanted.url}{digest}"
        line = pip_line(task.interpreter.path, "wheel", "--no-deps", "--wheel-dir", str(directory), what)
        output = await asyncio.to_thread(log.open, "wb")
        try:
            environ = pip_environment(self._source, self._secrets)
            status = await _run(line, output.fileno(), environ, directory)
        finally:
            await asyncio.to_thread(output.close)
        made = await asyncio.to_thread(lambda: sorted(directory.glob("*.whl")))
        if status != 0 or len(made) != 1:
            text = await asyncio.to_thread(log.read_text, encoding="utf-8", errors="replace")
            raise _BuildFailed(cause(text) if status != 0 else f"the build made {len(made)} wheels", log)
        await asyncio.to_thread(log.unlink)
        return made[0]

    async def _upload(self, wheel: Path) -> bool:
        """Return whether it was sent: False when somebody else was quicker with a wheel of that name."""
        form = await asyncio.to_thread(read_form, wheel)
        fields = (*form.fields, ("sha256_digest", form.sha256))
        try:
            return await self._client.upload(self._index, fields, wheel, wheel.name)
        except Refused as refused:
            if refused.is_conflict:
                return False
            raise Refused(f"{wheel.name} was refused: {refused.message}", refused.answered) from None


class _BuildFailed(TeepiError):
    """A build ended without a wheel."""

    def __init__(self, message: str, log: Path) -> None:
        super().__init__(message)
        self.log = log


async def _run(line: Sequence[str], output: int, environ: dict[str, str], directory: Path) -> int:
    """Return the exit status of a build; when we are interrupted, it ends with all that it has started."""
    process = await asyncio.create_subprocess_exec(
        *line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, cwd=directory,
        start_new_session=True,
    )  # fmt: skip
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def group(tasks: Iterable[Task]) -> list[list[Task]]:
    """Return the tasks by project, in their order."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.wanted.project, []).append(task)
    return list(groups.values())
