"""``teepi cache``: look at the cache, and keep it, by way of the server that runs on it or without one."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from teepi.cli.console import complain, effective, print_json, settings_options
from teepi.sizes import counted, parse_size, said

if TYPE_CHECKING:
    from collections.abc import Callable

    from teepi.config import Settings

DAMAGED = 1
"""Exit status of ``verify`` when it found damage."""
NOT_DELETED = 1
"""Exit status of ``purge`` when something could not be deleted."""
_SHOWN = 20  # names after a deletion
_UNITS = {"h": 1 / 24, "d": 1, "w": 7, "m": 30, "y": 365}
_EPILOG = (
    "A server that runs on the cache directory is asked through its socket there, one at --url with the token in the "
    "data directory; where none runs the command works on the cache itself."
)


@click.group("cache", epilog=_EPILOG)
def command() -> None:
    """Look at the cache, delete from it, pin what must stay, and verify it."""


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what all of them take."""
    function = click.option("--json", "is_json", is_flag=True, help="Print JSON.")(function)
    function = click.option("--url", metavar="URL", help="Ask the teepi at this address instead.")(function)
    return settings_options("cache_dir", "data_dir", "max_size", "min_free")(function)


_dry_run = click.option("--dry-run", "dry_run", is_flag=True, help="Only say what would be deleted.")


@command.command("info", epilog=_EPILOG, short_help="Print the size, the limit and what takes most.")
@_options
def info(*, is_json: bool, url: str | None, **arguments: Any) -> None:  # noqa: ANN401 - one for each setting
    """Print how large the cache is, how large it may be, and what takes most of it."""
    found = _call(arguments, url, "info", {})
    if is_json:
        print_json(found)
        return
    lines = [
        ("directory", found["cache_dir"]),
        ("size", f"{said(found['bytes'])} of {said(found['limit_bytes'])} ({_share(found)})"),
        ("files", f"{found['files']}, {said(found['file_bytes'])}"),
        ("unfinished", said(found["partial_bytes"])),
        ("pages, catalogue", said(found["other_bytes"])),
        ("disk", f"{said(found['free_bytes'])} free; {said(found['min_free_bytes'])} stay free"),
        ("oldest use", _when(found["least_recently_used_at"])),
        ("pinned", ", ".join([*found["pinned"]["projects"], *found["pinned"]["files"]]) or "nothing"),
    ]
    server = found["server"]
    if server is None:
        lines.append(("server", "none runs on this cache"))
    elif server["asked"]:
        lines.append(("hit ratio", f"{server['hit_ratio']:.1%} of {server['asked']} requests since the server began"))
    else:
        lines.append(("hit ratio", "no file was asked for since the server began"))
    lines += [("problem", each) for each in found["problems"]]
    for name, value in lines:
        print(f"{name:17} {value}")
    if found["biggest_projects"]:
        print("\nbiggest projects")
        for row in found["biggest_projects"]:
            print(f"  {said(row['bytes']):>10}  {row['project'] or '(name unknown)'}")


@command.command("list", epilog=_EPILOG)
@click.argument("project", required=False)
@click.option("--sort", type=click.Choice(["name", "size", "used"]), default="name", help="Order. (default: name)")
@_options
def list_(*, project: str | None, sort: str, is_json: bool, url: str | None, **arguments: Any) -> None:  # noqa: ANN401
    """List the cached projects, or the cached files of PROJECT."""
    name = "project" if project is None else "file"
    rows = _call(arguments, url, "list", {} if project is None else {"project": project})
    order: dict[str, Callable[[dict[str, Any]], Any]] = {
        "name": lambda row: row[name],
        "size": lambda row: -row["bytes"],
        "used": lambda row: -row["used_at"],
    }
    rows.sort(key=order[sort])
    if is_json:
        print_json(rows)
        return
    if not rows:
        print("Nothing is cached." if project is None else f"Nothing of {project} is cached.")
        return
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that other commands need not wait
    from rich.table import Table  # noqa: PLC0415

    table = Table(name, "size", "last used", "", box=None, pad_edge=False, header_style="bold")
    table.columns[1].justify = "right"
    for row in rows:
        label = row[name] or "(name unknown)"
        if project is None:
            label += f" ({row['files']} files)" if row["files"] > 1 else ""
        table.add_row(label, said(row["bytes"]), _when(row["used_at"]), "pinned" if row["pinned"] else "")
    Console(highlight=False, markup=False).print(table)


def _age(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?)([hdwmy]?)", value.strip().lower())
    if found is None:
        raise click.BadParameter("write a number of days, or 12h, 30d, 4w, 6m, 1y")
    return float(found[1]) * _UNITS[found[2] or "d"]


@command.command("purge", epilog=_EPILOG, short_help="Delete projects or files.")
@click.argument("names", metavar="[PROJECT|FILE|SHA256]...", nargs=-1)
@click.option(
    "--older-than",
    "older_than_days",
    metavar="AGE",
    callback=_age,
    help="Only what nobody used for so long (12h, 30d, 4w, 6m, 1y).",
)
@click.option("--index", metavar="USER/NAME", help="Only what came through this index.")
@click.option("--all", "everything", is_flag=True, help="Everything that is not pinned.")
@_dry_run
@_options
def purge(*, is_json: bool, url: str | None, **arguments: Any) -> int:  # noqa: ANN401 - one for each setting
    """Delete projects (their pages, too) or files from the cache; what is pinned goes only when it is named.

    What is deleted is fetched anew when it is asked for, byte for byte the same. Exit status 1 says that something
    could not be deleted.
    """
    wanted = {name: arguments.pop(name) for name in ("older_than_days", "index", "everything", "dry_run")}
    wanted["names"] = list(arguments.pop("names"))
    found = _call(arguments, url, "purge", wanted, "deleting")
    kept_files, kept_pages = found["not_deleted"]["files"], found["not_deleted"]["pages"]
    if is_json:
        print_json(found)
    else:
        _say_deleted(found, is_dry=wanted["dry_run"])
        if found["pages"]:
            print(f"{counted(found['pages'], 'page')} {_verb(found['pages'], is_dry=wanted['dry_run'])} deleted.")
        if kept_files or kept_pages:
            kinds = ((kept_files, "file"), (kept_pages, "page"))
            what = " and ".join(counted(len(names), noun) for names, noun in kinds if names)
            names = [*kept_files, *kept_pages]
            named = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            complain(f"{what} could not be deleted ({named}); see whether the cache directory can be written.")
    return NOT_DELETED if kept_files or kept_pages else 0


@command.command("prune", epilog=_EPILOG, short_help="Go down to the limits now, and delete leftovers.")
@_dry_run
@_options
def prune(*, dry_run: bool, is_json: bool, url: str | None, **arguments: Any) -> None:  # noqa: ANN401
    """Go down to the limits now, and delete unfinished downloads and broken leftovers."""
    found = _call(arguments, url, "prune", {"dry_run": dry_run}, "deleting")
    if is_json:
        print_json(found)
        return
    _say_deleted(found, is_dry=dry_run)
    left = found["leftovers"]
    verb = _verb(left["files"], is_dry=dry_run)
    print(f"{counted(left['files'], 'leftover')} ({said(left['bytes'])}) {verb} deleted.")


@command.command("verify", epilog=_EPILOG)
@click.option("--rate", metavar="SIZE", help="Read no more than this in a second. (default: 256 MiB beside a server)")
@_options
def verify(*, rate: str | None, is_json: bool, url: str | None, **arguments: Any) -> int:  # noqa: ANN401
    """Hash every cached file again. A damaged one is set aside and fetched anew; exit status 1 says that one was."""
    try:
        wanted = {} if rate is None else {"bytes_per_second": parse_size(rate)}
    except ValueError as error:
        raise click.BadParameter(f"{error}", param_hint="--rate") from None
    found = _call(arguments, url, "verify", wanted, "verifying")
    if is_json:
        print_json(found)
    else:
        for each in found["damaged"]:
            print(f"damaged: {each['file'] or each['sha256']} ({each['problem']})")
        number = len(found["damaged"])
        summary = f"{number} damaged, set aside and fetched anew at the next request" if number else "all sound"
        print(f"{counted(found['files'], 'file')} ({said(found['bytes'])}) verified: {summary}.")
    return DAMAGED if found["damaged"] else 0


@command.command("pin", epilog=_EPILOG, short_help="Keep projects or files from eviction.")
@click.argument("names", metavar="PROJECT|FILE|SHA256...", nargs=-1, required=True)
@_options
def pin(*, names: tuple[str, ...], is_json: bool, url: str | None, **arguments: Any) -> None:  # noqa: ANN401
    """Keep projects or files from eviction, those of a project that come later, too."""
    _say_pinned(_call(arguments, url, "pin", {"names": list(names)}), is_json=is_json)


@command.command("unpin", epilog=_EPILOG)
@click.argument("names", metavar="PROJECT|FILE|SHA256...", nargs=-1, required=True)
@_options
def unpin(*, names: tuple[str, ...], is_json: bool, url: str | None, **arguments: Any) -> None:  # noqa: ANN401
    """Let projects or files be evicted again."""
    _say_pinned(_call(arguments, url, "unpin", {"names": list(names)}), is_json=is_json)


# -- one call ----------------------------------------------------------------------------------------


def _call(
    arguments: dict[str, Any], url: str | None, name: str, wanted: dict[str, Any], working: str | None = None
) -> Any:  # noqa: ANN401 - as the operation has it
    """Run an operation and return its result; ``working`` names the progress bar of a long one."""
    from teepi.clients.address import parse_server_url  # noqa: PLC0415 - most commands have no --url

    settings = effective(arguments).settings
    url = None if url is None else parse_server_url(url)
    return asyncio.run(_run(settings, url, name, wanted, working))


async def _run(settings: Settings, url: str | None, name: str, wanted: dict[str, Any], working: str | None) -> Any:  # noqa: ANN401
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    from teepi.operator_client import connect  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_shown = working is not None and sys.stderr.isatty()
    result = None
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not is_shown) as progress:
        task = progress.add_task(working or "", total=None)
        async with connect(settings, url) as call, aclosing(call(name, wanted)) as events:
            async for event in events:
                if "result" in event:
                    result = event["result"]
                else:
                    progress.update(task, completed=event["done"], total=event["total"])
    return result


def _share(found: dict[str, Any]) -> str:
    return f"{found['bytes'] / found['limit_bytes']:.0%}" if found["limit_bytes"] else "full"


def _when(at: float | None) -> str:
    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _say_deleted(found: dict[str, Any], *, is_dry: bool) -> None:
    for name in found["names"][:_SHOWN]:
        print(f"  {name}")
    if found["files"] > _SHOWN:
        print(f"  … and {found['files'] - _SHOWN} more")
    verb = _verb(found["files"], is_dry=is_dry)
    print(f"{counted(found['files'], 'file')} ({said(found['bytes'])}) {verb} deleted.")


def _verb(number: int, *, is_dry: bool) -> str:
    return "would be" if is_dry else "was" if number == 1 else "were"


def _say_pinned(found: dict[str, Any], *, is_json: bool) -> None:
    if is_json:
        print_json(found)
        return
    print("pinned:", ", ".join([*found["projects"], *found["files"]]) or "nothing")
