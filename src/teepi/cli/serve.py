"""``teepi serve``."""

from __future__ import annotations

from typing import Any

import click

from teepi.cli.console import PLACES, effective, settings_options


@click.command("serve", epilog=PLACES)
@settings_options()
def command(**arguments: Any) -> int:  # noqa: ANN401 - one for each setting
    """Serve the package index at /simple/, fetching from upstream what is not cached yet."""
    settings = effective(arguments).settings
    from teepi.server import run  # noqa: PLC0415 - --help and wrong settings need not wait for aiohttp

    return run(settings, lambda: effective(arguments).settings)
