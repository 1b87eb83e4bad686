"""``teepi data``: check, back up and restore the data directory. What that means is in the package ``data``."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from teepi.cli.console import effective, print_json, settings_options, sign
from teepi.sizes import counted, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from teepi.data.inspection import Report

DAMAGED = 1
"""Exit status of ``check`` when it found damage."""


@click.group("data")
def command() -> None:
    """Check, back up and restore users, private indexes and uploads."""


_json = click.option("--json", "is_json", is_flag=True, help="Print JSON.")


@command.command("check", short_help="Look for damage.")
@click.option("--quick", "is_quick", is_flag=True, help="Hash no file: look at names and sizes only.")
@_json
@settings_options("data_dir")
def check(*, is_quick: bool, is_json: bool, **arguments: Any) -> int:  # noqa: ANN401 - one for each setting
    """Look whether the database is sound, and every uploaded file there with the right bytes.

    Changes nothing, and may run beside a server. One line for each problem; exit status 1 says that there is damage.
    """
    from teepi.data.inspection import inspect_directory  # noqa: PLC0415 - --help need not wait

    root = effective(arguments).settings.data_dir
    with _progress("checking", is_shown=not is_json) as progress:
        report = inspect_directory(root, is_quick=is_quick, progress=progress)
    if is_json:
        print_json(asdict(report))
    else:
        for line in report.problems:
            print(sign("bad"), line)
        for line in report.notes:
            print(sign("note"), line)
        number = len(report.problems)
        found = counted(number, "problem") if number else "no problem"
        print(f"{root}: {_contents(report)}{', not hashed' if is_quick else ''}: {found}.")
    return DAMAGED if report.problems else 0


@command.command("backup", short_help="Write all of it into a file.")
@click.argument("file", metavar="FILE.tar", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE.tar when it is there.")
@_json
@settings_options("data_dir")
def backup(*, file: Path, force: bool, is_json: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Write all of one moment into FILE.tar, while a server runs or not.

    The file has password hashes and the secret of logins: only its owner can read it. Nothing of the cache is in it.
    """
    from teepi.data.backup import back_up  # noqa: PLC0415

    root = effective(arguments).settings.data_dir
    with _progress("writing", is_shown=not is_json) as progress:
        written = back_up(root, file, may_replace=force, progress=progress)
    if is_json:
        print_json(asdict(written))
        return
    print(f"{file}: {counted(written.files, 'file')}, {said(written.size)}, schema {written.schema}.")


@command.command("restore", short_help="Make a backup the data directory again.")
@click.argument("file", metavar="FILE.tar", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Move what is in the data directory aside, instead of refusing.")
@_json
@settings_options("data_dir")
def restore(*, file: Path, force: bool, is_json: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Let the data directory be what FILE.tar has; no server may run on it.

    All of the file is looked at before anything changes. Nothing is deleted: --force moves what was there into a
    directory before-restore-… in it.
    """
    from teepi.data.restore import restore as restore_from  # noqa: PLC0415

    root = effective(arguments).settings.data_dir
    with _progress("reading", is_shown=not is_json) as progress:
        restored = restore_from(root, file, by_force=force, progress=progress)
    report, moved_to = restored.report, restored.moved_to
    if is_json:
        there = {"files": report.files, "size": report.size, "schema": report.schema}
        print_json({**there, "moved_to": None if moved_to is None else str(moved_to)})
        return
    if moved_to is not None:
        print(f"What was there is in {moved_to} now; delete it when nobody misses it.")
    print(f"{root}: {_contents(report)} restored from {file}.")


def _contents(report: Report) -> str:
    return f"{counted(report.files, 'file')} ({said(report.size)}), schema {report.schema}"


@contextmanager
def _progress(working: str, *, is_shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Give what shows how much of how much is done, on a terminal."""
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that --help need not wait
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    is_shown = is_shown and sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not is_shown) as progress:
        task = progress.add_task(working, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
