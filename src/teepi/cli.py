"""The command line: reads flags, runs one command, and says what went wrong in one sentence.

No defaults and no checks of values live here (``config`` has them), and no network.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from teepi import __version__, config
from teepi.errors import TeepiError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED: Final = 2
"""Exit status for whatever keeps a command from running; argparse's own."""
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""

_DESCRIPTION: Final = "A caching proxy for Python package indexes: fetches once, streams to everyone."
_SERVE: Final = "Serve the package index at /simple/, fetching from upstream what is not cached yet."
_PLACES: Final = (
    "Each setting may also stand in the environment (--page-ttl is TEEPI_PAGE_TTL) or in the configuration file "
    "(page_ttl). A flag goes before a variable, a variable before the file."
)


class _Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{message}; see '{self.prog} --help'")
        raise SystemExit(FAILED)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv`` (default: the process's own arguments) and return its exit status.

    ``--help``, ``--version`` and wrong flags raise SystemExit, as argparse does.
    """
    parser = _parser()
    arguments = vars(parser.parse_args(argv))
    if arguments["command"] is None:
        parser.print_help(sys.stderr)
        return FAILED
    try:
        settings = config.load(arguments, os.environ)
        from teepi.server import run  # noqa: PLC0415 - --help and wrong settings need not wait for aiohttp

        return run(settings)
    except TeepiError as error:
        _complain(error.message)
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return FAILED


def _complain(sentence: str) -> None:
    print("teepi:", " ".join(sentence.split()), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="teepi", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"teepi {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    serve = commands.add_parser(
        "serve", help="serve a package index", description=_SERVE, epilog=_PLACES, allow_abbrev=False
    )
    for option in config.OPTIONS:
        _add(serve, option)
    serve.add_argument(
        "--config", metavar="FILE", help="configuration file (default: $XDG_CONFIG_HOME/teepi/teepi.toml, if it exists)"
    )
    return parser


def _add(parser: argparse.ArgumentParser, option: config.Option) -> None:
    text = f"{option.help} (default: {option.default})"
    if bool in option.toml:  # None where not given, so that --no-offline goes before a variable
        parser.add_argument(option.flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        action = "append" if list in option.toml else "store"
        parser.add_argument(option.flag, action=action, metavar=option.metavar, help=text)
