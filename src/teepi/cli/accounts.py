"""What ``teepi user`` and ``teepi token`` share: whom they ask, and how tables and times are printed."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import click

from teepi.cli.console import effective, settings_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from teepi.config import Settings

EPILOG: Final = (
    "A server that runs is asked through the socket in its cache directory, one at --url with the token in the data "
    "directory, and what is changed holds at once; where none runs the command works on the data directory itself."
)

_LONG: Final = frozenset({"email", "indexes", "description"})
"""Columns that take further lines where there is no room."""

json_option = click.option("--json", "is_json", is_flag=True, help="Print JSON.")


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says where the accounts are; :func:`call` reads it."""
    function = click.option("--url", metavar="URL", help="Ask the teepi at this address instead.")(function)
    return settings_options("cache_dir", "data_dir")(function)


def call(arguments: dict[str, Any], url: str | None, name: str, wanted: dict[str, Any], *, begins: bool = False) -> Any:  # noqa: ANN401 - as the operation has it
    """Run an operation and return its result; ``begins`` lets it make a data directory that is not there."""
    from teepi.clients.address import parse_server_url  # noqa: PLC0415 - most commands have no --url

    settings = effective(arguments).settings
    url = None if url is None else parse_server_url(url)
    return asyncio.run(_run(settings, url, name, wanted, begins=begins))


async def _run(settings: Settings, url: str | None, name: str, wanted: dict[str, Any], *, begins: bool) -> Any:  # noqa: ANN401
    from teepi.operator_client import connect_accounts  # noqa: PLC0415

    result = None
    async with connect_accounts(settings, url, begins=begins) as make, aclosing(make(name, wanted)) as events:
        async for event in events:
            result = event.get("result", result)
    return result


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows for people, without what could control their terminal: anyone may say what his email is."""
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that other commands need not wait
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name not in _LONG)
    for row in rows:
        table.add_row(*map(_printable, row))
    Console(highlight=False, markup=False).print(table)


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)


def when(at: float | None) -> str:
    """Return a time (seconds since 1970) in the zone of this machine."""
    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
