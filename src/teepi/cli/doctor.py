"""``teepi doctor``: find out what is wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from teepi.cli.console import effective, print_json, settings_options, sign
from teepi.clients.address import parse_server_url, root_of, server_url
from teepi.clients.known import Surroundings
from teepi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from teepi.doctor import Finding

_BY_DEFAULT = "http://127.0.0.1:3141/"


@click.command(
    "doctor", epilog="Exit status: 0 all is well, 1 something was found (! or ✗), 2 nothing could be looked at."
)
@click.option("--url", metavar="URL", help="Address of teepi. (default: where the settings let it listen)")
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
@settings_options()
def command(*, url: str | None, is_json: bool, **arguments: Any) -> int:  # noqa: ANN401 - one for each setting
    """Look at the server, its upstreams, the disk, this installation and the clients, and say what to do."""
    server = root_of(parse_server_url(url)) if url is not None else None
    import asyncio  # noqa: PLC0415 - --help need not wait for these

    from teepi.doctor import Finding, Inquiry, State, examine  # noqa: PLC0415

    settings, certificate, found = None, None, []
    try:
        trace = effective(arguments)
        settings = trace.settings
        certificate = settings.tls_cert if server is None else None
        server = server or server_url(settings.listen, settings.scheme)
        found.append(Finding(State.WELL, "config", f"{trace.file or 'No file, variables and flags'} can be used"))
    except ConfigError as error:
        remedy = "Correct that; upstream and disk were not looked at." if settings is None else ""
        found.append(Finding(State.BAD, "config", error.message.rstrip("."), remedy))
    inquiry = Inquiry(settings, server or _BY_DEFAULT, Surroundings(os.environ, Path.cwd()), certificate)
    found += asyncio.run(examine(inquiry))
    if is_json:
        print_json([{"what": one.what, "state": one.state, "said": one.said, "remedy": one.remedy} for one in found])
    else:
        _show(found)
    return 1 if any(one.state in {State.DOUBT, State.BAD} for one in found) else 0


def _show(found: Sequence[Finding]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    width = max(len(one.what) for one in found)
    for one in found:
        line = Text.assemble(
            (sign(one.state), _STYLES[one.state]),
            f" {one.what:{width}}  {one.said}.",
            (f" {one.remedy}".rstrip(), "bold"),
        )
        console.print(line)


_STYLES = {"well": "green", "note": "dim", "doubt": "yellow", "bad": "red"}
