"""The command line: ``main`` runs one command and says what went wrong in one sentence.

Each command has a module of its own, imported when it is asked for, so that ``teepi --help`` and the health check of a
container stay quick. No defaults and no checks of values live here: ``config`` has them.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Final

import click

from teepi import __version__
from teepi.cli.console import complain, print_anywhere
from teepi.errors import TeepiError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED: Final = 2
"""Exit status for whatever keeps a command from running; click's own for wrong flags."""
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""

COMMANDS: Final = {
    "serve": ("serve", "Serve a package index."),
    "config": ("settings", "Write, show and check the configuration."),
    "prefetch": ("prefetch", "Fetch into the cache what requirements or a lock file need."),
    "build": ("build", "Make wheels for what has none and upload them to an index."),
    "import": ("imports", "Bring a folder of wheels, or a devpi-server's files, into private indexes."),
    "configure": ("configure", "Set up pip, uv, poetry, pipenv or pdm to use teepi, or take that back."),
    "doctor": ("doctor", "Find out what is wrong with teepi, its upstream, or the clients' settings."),
    "cache": ("cache", "Look at the cache, purge, prune, pin and verify it."),
    "data": ("data", "Check, back up and restore users, private indexes and uploads."),
    "user": ("users", "Create, list, disable and delete users, and set passwords."),
    "token": ("tokens", "Make, list and revoke API tokens for CI."),
    "service": ("service", "Run teepi from boot on, by systemd."),
    "health": ("health", "Ask whether a server answers."),
}
"""By name: the module below this package whose ``command`` it is, and the line of the overview."""


class _Commands(click.Group):
    """Imports a command only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"teepi.cli.{COMMANDS[cmd_name][0]}").command
        assert isinstance(command, click.Command)  # noqa: S101 - each module of COMMANDS has one
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="'teepi COMMAND --help' says more of each.",
)
@click.version_option(__version__, message="teepi %(version)s")
def teepi() -> None:
    """A caching proxy for Python package indexes: fetches once, streams to everyone."""  # noqa: D401 - the help


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv`` (default: the process's own arguments) and return its exit status."""
    print_anywhere()
    try:
        status = teepi.main(args=None if argv is None else list(argv), prog_name="teepi", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:  # a bare 'teepi', or a group without its command
        print(error.format_message(), file=sys.stderr)
        return FAILED
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "teepi"
        complain(f"{error.format_message().rstrip('.')} (see '{command} --help').")
    except click.ClickException as error:
        complain(error.format_message())
    except TeepiError as error:
        complain(error.message)
    except BrokenPipeError:  # 'teepi cache list | head'
        sys.stderr.close()
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    else:
        return status if isinstance(status, int) else 0
    return FAILED
