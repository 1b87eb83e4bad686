"""What all commands share: how they print, and how they take settings."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from teepi import config

if TYPE_CHECKING:
    from collections.abc import Callable

PLACES = (
    "Each setting may also stand in the environment (--page-ttl is TEEPI_PAGE_TTL) or in the configuration file "
    "(page_ttl). A flag goes before a variable, a variable before the file."
)


def complain(sentence: str) -> None:
    """Print one sentence on stderr."""
    print("teepi:", " ".join(sentence.split()), file=sys.stderr)


def print_anywhere() -> None:
    """Let nothing fail for a character that the terminal or a pipe cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def sign(state: str) -> str:
    """Return the sign before a line: ``well``, ``note``, ``doubt`` or ``bad``; in ASCII where that is all there is."""
    best, plain = _SIGNS[state]
    try:
        best.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return plain
    return best


_SIGNS = {"well": ("✓", "+"), "note": ("·", "-"), "doubt": ("!", "!"), "bad": ("✗", "x")}


def print_json(value: object) -> None:
    """Print ``value`` for scripts."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def settings_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--config`` and the flags of the settings ``names`` (all when none is named) to a command.

    Their values reach the command as keyword arguments, None where not given; :func:`effective` reads them.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "--config",
            metavar="FILE",
            help="Configuration file. (default: $XDG_CONFIG_HOME/teepi/teepi.toml, if it exists)",
        )(command)
        for option in reversed(config.OPTIONS):
            if not names or option.name in names:
                command = _flag(option)(command)
        return command

    return decorate


def effective(arguments: dict[str, Any]) -> config.Effective:
    """Return the settings for the flags in ``arguments``. Raises :class:`~teepi.errors.ConfigError`."""
    return config.trace(arguments, os.environ)


def _flag(option: config.Option) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    text = f"{option.help[:1].upper()}{option.help[1:]}. (default: {option.default})"
    if bool in option.toml:  # None where not given, so that --no-offline goes before a variable
        return click.option(f"{option.flag}/--no-{option.flag[2:]}", option.name, default=None, help=text)
    if list in option.toml:
        return click.option(
            option.flag,
            option.name,
            multiple=True,
            metavar=option.metavar,
            help=text,
            callback=lambda _context, _parameter, values: list(values) or None,
        )
    return click.option(option.flag, option.name, default=None, metavar=option.metavar, help=text)
