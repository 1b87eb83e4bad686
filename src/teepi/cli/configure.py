"""``teepi configure``: set clients up to use teepi."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from teepi.cli.console import effective, print_json, settings_options, sign
from teepi.clients.address import index_url, is_same_server, parse_server_url, server_url
from teepi.clients.change import Change, set_up, take_back
from teepi.clients.known import Surroundings, clients
from teepi.clients.use import use_of
from teepi.config import DEFAULT_INDEX_NAME
from teepi.origins import hide_user_info

if TYPE_CHECKING:
    from collections.abc import Sequence

    from teepi.clients.known import Client
    from teepi.clients.use import Use

_NAMES = ("pip", "uv", "poetry", "pipenv", "pdm")


@click.command("configure", epilog="Without a CLIENT, lists which of them use teepi. Each file is backed up.")
@click.argument("names", metavar="[pip|uv|poetry|pipenv|pdm]...", nargs=-1, type=click.Choice(_NAMES))
@click.option("--undo", is_flag=True, help="Take teepi's lines out again; what was there before comes back.")
@click.option("--print", "is_printed", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--url", metavar="URL", help="Address of teepi. (default: where the settings let it listen)")
@click.option("--index", metavar="USER/NAME", default=DEFAULT_INDEX_NAME, show_default=True, help="Index to use.")
@click.option("--json", "is_json", is_flag=True, help="Print the list as JSON.")
@settings_options("listen", "tls_cert", "tls_key")
def command(
    names: Sequence[str],
    *,
    undo: bool,
    is_printed: bool,
    url: str | None,
    index: str,
    is_json: bool,
    **arguments: Any,  # noqa: ANN401 - one for each setting
) -> int:
    """Set clients up to use this teepi, touching only its own lines of their settings."""
    if url is None:
        settings = effective(arguments).settings
        server = server_url(settings.listen, settings.scheme)
    else:
        server = parse_server_url(url)
    wanted = index_url(server, index)
    around = Surroundings(os.environ, Path.cwd())
    known = clients(around)
    if not names:
        _list([known[name] for name in _NAMES], around, wanted, is_json=is_json)
        return 0
    # All are looked at before the first is written: a file that cannot be changed leaves the others alone, too.
    changes = [(known[name], (take_back if undo else set_up)(known[name], around, wanted)) for name in names]
    for client, change in changes:
        if is_printed:
            print(change.diff() if change.is_needed else f"{client.name}: nothing to change in {change.file.path}.")
            continue
        backup = change.apply()
        if undo:
            _say_undone(client, change)
        else:
            _say_done(client, change, backup, around, wanted)
    return 0


def _say_done(client: Client, change: Change, backup: Path | None, around: Surroundings, url: str) -> None:
    if change.is_needed:
        kept = f"; what was there before is in {backup}" if backup is not None else ""
        print(f"{client.name} uses {url} from now on: {change.file.path} is written{kept}.")
        if client.what_to_do_next:
            print(client.what_to_do_next)
    else:
        print(f"{client.name} uses {url} already: {change.file.path} is as it should be.")
    other = client.index(change.text)
    if not is_same_server(other, url):
        print(f"But another line of {change.file.path} goes before it: {hide_user_info(other or '')}.")
    for variable in client.variables:
        value = around.environ.get(variable, "")
        if value and not is_same_server(value, url):
            print(f"But {variable} is set in this shell and goes before it: unset {variable}.")


def _say_undone(client: Client, change: Change) -> None:
    if change.is_to_go:
        print(f"{client.name}: {change.file.path} is removed; it was made for teepi.")
    elif change.is_needed:
        print(f"{client.name}: {change.file.path} is without teepi's lines.")
    else:
        print(f"{client.name}: there is nothing of teepi's in {change.file.path}.")


def _list(known: Sequence[Client], around: Surroundings, url: str, *, is_json: bool) -> None:
    uses = [use_of(client, around) for client in known]
    if is_json:
        print_json([_row(use, url) for use in uses])
        return
    for use in uses:
        if use.index:
            state = "well" if is_same_server(use.index, url) else "note"
            said = f"{hide_user_info(use.index)} ({use.place})"
        elif use.problem:
            state, said = "bad", use.problem
        else:
            state, said = "note", f"not set up: teepi configure {use.name}"
            said += "" if use.place else ", in the directory of a project"
        print(f"{sign(state)} {use.name:7} {said}")


def _row(use: Use, url: str) -> dict[str, Any]:
    return {
        "client": use.name,
        "uses_teepi": is_same_server(use.index, url),
        "index": hide_user_info(use.index) if use.index else None,
        "from": use.place,
        "problem": use.problem,
    }
