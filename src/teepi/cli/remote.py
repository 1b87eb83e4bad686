"""What commands share that work on a running teepi as its clients do: where it is, and whom to log in as."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from teepi.cli.console import effective, settings_options
from teepi.clients.address import parse_server_url, server_url
from teepi.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from teepi.index_client import Account

USER: Final = "DEVPI_USER"
PASSWORD: Final = "DEVPI_PASSWORD"  # noqa: S105 - a name
_NAME: Final = r"(?!\.{1,2}(?:/|$))[^\x00-\x20!\"#$%&'()*+,/:;<=>?\[\\\]^`{|}~]+"
_INDEX: Final = re.compile(f"{_NAME}/{_NAME}")


@dataclass(frozen=True, slots=True)
class Server:
    """A running teepi."""

    url: str
    """``/`` at its end."""
    certificate: Path | None
    """Its own, where it is known."""


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says where teepi is; :func:`server_of` reads it."""
    command = settings_options("listen", "tls_cert", "tls_key")(command)
    said = "Where teepi is. (default: the address in the settings)"
    return click.option("--url", metavar="URL", help=said)(command)


def server_of(url: str | None, arguments: dict[str, Any]) -> Server:
    """Return the server that ``--url`` names, or that runs with the settings here."""
    if url is not None:
        return Server(parse_server_url(url), None)
    settings = effective(arguments).settings
    return Server(server_url(settings.listen, settings.scheme), settings.tls_cert)


def account_options(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add what says whom to log in as, ``default`` else; :func:`account_of` reads it."""
    options = (
        click.option("--password-stdin", is_flag=True, help="Read the password from standard input."),
        click.option(
            "--password-env", metavar="VAR", help=f"The variable that has the password. (default: {PASSWORD})"
        ),
        click.option("--user", metavar="USER", help=f"Whom to log in as. (default: {USER}, else {default})"),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in options:
            command = option(command)
        return command

    return decorate


def account_of(
    user: str | None, fallback: str, password_env: str | None, *, password_stdin: bool, asks: bool = True
) -> Account | None:
    """Return whom to log in as, None for nobody: an index may take uploads from anybody.

    Without a variable or standard input the password is asked for where somebody can type it. Raises
    :class:`BadInput`.
    """
    from teepi.index_client import Account  # noqa: PLC0415 - and with it aiohttp, for which --help need not wait

    name = user or os.environ.get(USER) or fallback
    if password_stdin and password_env is not None:
        raise BadInput("--password-stdin and --password-env exclude each other; give one of them.")
    if password_stdin:
        password: str | None = sys.stdin.readline().rstrip("\r\n")
    elif password_env is not None:
        password = os.environ.get(password_env)
        if password is None:
            raise BadInput(f"--password-env names {password_env}, which is not set; set it, or use --password-stdin.")
    else:
        password = os.environ.get(PASSWORD)
        if password is None and asks and sys.stdin.isatty():
            password = click.prompt(f"Password of {name}", hide_input=True, err=True, default="", show_default=False)
    if password is None:
        if user is not None and asks:
            raise BadInput(f"There is no password for {user}; set {PASSWORD}, or use --password-stdin.")
        return None
    return Account(name, password)


def check_index_name(index: str, flag: str) -> str:
    """Return ``index``, ``USER/NAME``. Raises :class:`BadInput` when it is none."""
    name = index.strip("/")
    if _INDEX.fullmatch(name) is None:
        raise BadInput(f"{flag} {index!r} is no index; write USER/NAME, as in admin/dev.")
    return name
