"""``teepi build``: make wheels for what has none, and put them into an index of your own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from teepi.cli.console import complain, print_json
from teepi.cli.remote import (
    PASSWORD,
    Server,
    account_of,
    account_options,
    check_index_name,
    server_of,
    server_options,
)
from teepi.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from teepi.building import Outcome, Task
    from teepi.index_client import Account
    from teepi.resolving import ServedIndex

_EPILOG: Final = (
    "A project of which an index has a file of its own hides that of its bases: for a version that is not there yet, "
    "put the name into the index's mirror_whitelist, or resolve through a base by --from root/pypi."
)


@click.command("build", epilog=_EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME==VERSION...]")
@click.option("-r", "files", multiple=True, metavar="FILE", help="requirements.txt; may be repeated.")
@click.option("--index", required=True, metavar="USER/NAME", help="Index that gets the wheels.")
@click.option("--from", "source", metavar="USER/NAME", help="Index to resolve through. (default: the same)")
@click.option(
    "--python",
    "pythons",
    multiple=True,
    metavar="PYTHON",
    help="Interpreter to build for; may be repeated. (default: the one that runs teepi)",
)
@click.option("--all", "takes_all", is_flag=True, help="Copy the wheels that a base has into the index, too.")
@click.option("--jobs", type=click.IntRange(1, 256), metavar="N", help="Builds at a time. (default: one a core)")
@click.option("--keep-going/--fail-fast", default=True, help="Go on after a failure. (default: --keep-going)")
@click.option("--logs", metavar="DIR", help="Where the logs of failed builds stay. (default: a temporary directory)")
@click.option("--dry-run", is_flag=True, help="Say what would be built, and build nothing.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
@account_options("the USER of the index")
@server_options
def command(
    names: Sequence[str],
    files: Sequence[str],
    index: str,
    source: str | None,
    pythons: Sequence[str],
    jobs: int | None,
    logs: str | None,
    url: str | None,
    user: str | None,
    password_env: str | None,
    *,
    password_stdin: bool,
    takes_all: bool,
    keep_going: bool,
    dry_run: bool,
    is_json: bool,
    **arguments: Any,  # noqa: ANN401 - one for each setting
) -> int:
    """Make wheels of what the requirements need and has none, and upload them.

    pip resolves the requirements through the index, for each interpreter, and builds in isolation. What the index
    or one of its bases has a wheel of is not built. Exit status 1 when something failed.
    """
    if not names and not files:
        raise click.UsageError("Nothing to build: give names, or files with -r.")
    index = check_index_name(index, "--index")
    through = index if source is None else check_index_name(source, "--from")
    server = server_of(url, arguments)
    account = account_of(user, index.partition("/")[0], password_env, password_stdin=password_stdin, asks=not dry_run)
    job = _Job(server, account, index, through, {PASSWORD, password_env or PASSWORD})
    asyncio.run(job.check(for_upload=not dry_run))
    with job.login(), _log_directory(logs) as directory:
        tasks = job.resolve(names, files, pythons)
        outcomes = asyncio.run(
            job.run(
                tasks,
                directory,
                jobs or os.cpu_count() or 1,
                takes_all=takes_all,
                is_dry=dry_run,
                keeps_going=keep_going,
                is_quiet=is_json,
            )
        )
    _report(outcomes, len(tasks), is_dry=dry_run, is_json=is_json)
    return 1 if len(outcomes) < len(tasks) or any(each.step == "failed" for each in outcomes) else 0


class _Job:
    """What one call of the command has to do."""

    def __init__(self, server: Server, account: Account | None, index: str, through: str, secrets: set[str]) -> None:
        from teepi.resolving import ServedIndex  # noqa: PLC0415 - --help need not wait

        self._server = server
        self._account = account
        self._index = index
        self._through = through
        self._secrets = secrets
        self._source: ServedIndex = ServedIndex(f"{server.url}{through}/", server.certificate)
        self._needs_login = False

    async def check(self, *, for_upload: bool) -> None:
        """Raise a TeepiError when there is nothing to resolve through or to upload to."""
        from teepi.index_client import connect  # noqa: PLC0415

        async with connect(self._server.url, self._server.certificate, self._account, 1) as client:
            await client.check(self._index, for_upload=for_upload)
            if self._through != self._index:
                await client.check(self._through, for_upload=False)
        if self._account is not None:
            async with connect(self._server.url, self._server.certificate, None, 1) as anybody:
                self._needs_login = not await anybody.may_read(self._through)

    @contextlib.contextmanager
    def login(self) -> Iterator[None]:
        """Let pip log in, as long as this lasts, to an index that is not for everybody: only then it is told how."""
        from teepi.resolving import with_login  # noqa: PLC0415

        if self._account is None or not self._needs_login:
            yield
            return
        with with_login(self._source, self._account.user, self._account.password) as self._source:
            yield

    def resolve(self, names: Sequence[str], files: Sequence[str], pythons: Sequence[str]) -> list[Task]:
        """Return what the requirements come to for each interpreter. Raises :class:`BadInput`."""
        from teepi.building import Interpreter, Task  # noqa: PLC0415
        from teepi.resolving import check_text, requirements_in, resolve  # noqa: PLC0415

        requirements = requirements_in(names)
        for name in files:
            if not Path(name).is_file():
                msg = f"{name} is not there; -r takes requirements.txt."
                raise BadInput(msg)
            check_text(Path(name))
            requirements += ["-r", name]
        interpreters = [Interpreter.at(_found(python)) for python in pythons or [sys.executable]]
        tasks = []
        for interpreter in interpreters:
            try:
                wanted = resolve(self._source, requirements, interpreter=interpreter.path, secrets=self._secrets)
            except BadInput as error:
                is_missing = "No matching distribution" in error.message or "Could not find" in error.message
                hint = f" ({_HINT.format(index=self._index)})" if is_missing and self._through == self._index else ""
                raise BadInput(f"{error.message.rstrip('.')}{hint}.") from None
            tasks += [Task(interpreter, each) for each in wanted]
        return tasks

    async def run(
        self,
        tasks: Sequence[Task],
        logs: Path,
        jobs: int,
        *,
        takes_all: bool,
        is_dry: bool,
        keeps_going: bool,
        is_quiet: bool,
    ) -> list[Outcome]:
        """Do all, several projects at a time, and return what came of each."""
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        from teepi.building import Builder, Step, group  # noqa: PLC0415
        from teepi.index_client import connect  # noqa: PLC0415

        outcomes: list[Outcome] = []
        progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(stderr=True), disable=is_quiet or is_dry,
        )  # fmt: skip
        async with connect(self._server.url, self._server.certificate, self._account, jobs) as client:
            builder = Builder(
                client, self._index, self._source, logs, self._secrets, takes_all=takes_all, is_dry=is_dry
            )
            waiting = iter(group(tasks))
            with progress:
                whole = progress.add_task("wheels", total=len(tasks))

                async def work() -> None:
                    for together in waiting:
                        for task in together:
                            if not keeps_going and any(each.step is Step.FAILED for each in outcomes):
                                return
                            shown = progress.add_task(task.name, total=1)
                            outcomes.append(await builder.do(task))
                            progress.remove_task(shown)
                            progress.advance(whole)

                await asyncio.gather(*(work() for _ in range(min(jobs, len(tasks)))))
        order = {task: place for place, task in enumerate(tasks)}
        return sorted(outcomes, key=lambda outcome: order[outcome.task])


_HINT: Final = "once {index} has a file of a project it hides those of its bases; --from names one to resolve through"


def _found(python: str) -> str:
    path = shutil.which(python)
    if path is None:
        msg = f"--python {python} is no Python that runs; name an interpreter, as in --python python3.12."
        raise BadInput(msg)
    return path if path == sys.executable else str(Path(path).absolute())


@contextlib.contextmanager
def _log_directory(name: str | None) -> Any:  # noqa: ANN401
    """Give a directory, made where there is none; one of ours goes when nothing is left in it."""
    directory = Path(tempfile.mkdtemp(prefix="teepi-build-logs-") if name is None else name)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield directory.absolute()
    finally:
        if name is None:
            with contextlib.suppress(OSError):  # not empty
                directory.rmdir()


def _report(outcomes: Sequence[Outcome], expected: int, *, is_dry: bool, is_json: bool) -> None:
    if is_json:
        print_json(
            [
                {
                    "project": each.task.wanted.project,
                    "version": each.task.wanted.version,
                    "python": each.task.interpreter.version,
                    "result": str(each.step),
                    "filename": each.filename,
                    "reason": each.reason,
                    "log": None if each.log is None else str(each.log),
                }
                for each in outcomes
            ]
        )
        return
    counts: dict[str, int] = {}
    pythons = {each.task.interpreter.path for each in outcomes}
    for each in outcomes:
        counts[each.step] = counts.get(each.step, 0) + 1
        python = f" for Python {each.task.interpreter.version}" if len(pythons) > 1 else ""
        if each.step == "failed":
            log = f"; its log is {each.log}" if each.log is not None else ""
            complain(f"{each.task.name}{python} failed: {each.reason}{log}.")
        elif each.step == "left out":
            complain(f"{each.task.name}{python} is left out: it comes from no index.")
        elif each.step in {"built", "copied"}:
            what = f"would be {each.step}" if is_dry else f"{each.step}, {each.filename}"
            print(f"{each.task.name}{python}: {what}")
    if expected > len(outcomes):
        counts["not tried"] = expected - len(outcomes)
    parts = [f"{counts[step]} {_WORDS.get(step, step)}" for step in _ORDER if counts.get(step)]
    would = "Would be: " if is_dry else ""
    print(f"{would}{', '.join(parts) or 'nothing to do'}.")


_ORDER: Final = ("built", "copied", "exists", "has a wheel", "left out", "failed", "not tried")
_WORDS: Final = {"exists": "in the index already", "has a wheel": "with a wheel in a base"}
