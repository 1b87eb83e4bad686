"""``teepi user``: accounts, managed on the machine of the server; for root's first password the only way."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from teepi.cli.accounts import EPILOG, call, json_option, options, print_table
from teepi.cli.console import print_json
from teepi.errors import BadInput
from teepi.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_DONE = 1
"""Exit status of ``delete`` when the answer was no."""
_LOGINS = {"password": "yes", "none": "no", "empty password": "yes, with an EMPTY PASSWORD"}


@click.group("user", epilog=EPILOG)
def command() -> None:
    """Create, list, disable and delete users, and set their passwords.

    root cannot log in before 'teepi user passwd root' was run. Users may also be created by devpi's own clients,
    'devpi user -c NAME', unless the setting restrict_modify says who may.
    """


_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input instead of asking for it."
)


@command.command("list", epilog=EPILOG)
@json_option
@options
def list_(*, is_json: bool, url: str | None, **arguments: Any) -> None:  # noqa: ANN401 - one for each setting
    """List all users, with their indexes and how many API tokens they have."""
    rows = call(arguments, url, "user-list", {})
    if is_json:
        print_json(rows)
        return
    print_table(
        ("user", "logs in", "email", "indexes", "tokens", "created"),
        (
            (
                row["user"], _LOGINS[row["login"]], row["email"], " ".join(row["indexes"]), str(row["tokens"]),
                row["created"][:10],
            )
            for row in rows
        ),
    )  # fmt: skip


@command.command("create", epilog=EPILOG)
@click.argument("name")
@click.option("--email", metavar="EMAIL", help="Shown to whoever lists the users.")
@_stdin
@options
def create(name: str, email: str | None, url: str | None, *, password_stdin: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Create the user NAME; the password is asked for twice."""

    def check() -> None:
        if any(row["user"] == name for row in call(arguments, url, "user-list", {}, begins=True)):
            raise BadInput(f"There is a user {name!r} already; 'teepi user passwd {name}' sets another password.")

    wanted = {"name": name, "password": _new_password(name, check, from_stdin=password_stdin)}
    if email is not None:
        wanted["email"] = email
    call(arguments, url, "user-create", wanted, begins=True)
    print(f"The user {name} was created.")


@command.command("passwd", epilog=EPILOG)
@click.argument("name")
@_stdin
@options
def passwd(name: str, url: str | None, *, password_stdin: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Set the password of the user NAME; it is asked for twice.

    It holds at once, and earlier logins end; API tokens stay. 'teepi user passwd root' is what lets root log in, and a
    user that was disabled logs in again.
    """
    check = lambda: _find(arguments, url, name, begins=True)  # noqa: E731
    wanted = {"name": name, "password": _new_password(name, check, from_stdin=password_stdin)}
    call(arguments, url, "user-password", wanted, begins=True)
    print(f"The password of {name} was set; earlier logins have ended.")


@command.command("disable", epilog=EPILOG)
@click.argument("name")
@options
def disable(name: str, url: str | None, **arguments: Any) -> None:  # noqa: ANN401
    """Keep the user NAME from logging in: take away the password, and revoke all API tokens.

    Logins end at once. Indexes and what was uploaded stay as they are. 'teepi user passwd NAME' lets the user in again.
    """
    found = call(arguments, url, "user-disable", {"name": name})
    revoked = f"; {counted(found['revoked'], 'API token')} revoked" if found["revoked"] else ""
    print(f"{name} cannot log in any more{revoked}.")


@command.command("delete", epilog=EPILOG)
@click.argument("name")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@options
def delete(name: str, url: str | None, *, is_sure: bool, **arguments: Any) -> int:  # noqa: ANN401
    """Delete the user NAME with all indexes, what was uploaded to them, and API tokens.

    An index that is not volatile keeps its user from being deleted. Exit status 1 when you answer no.
    """
    if not is_sure:
        if not sys.stdin.isatty():
            raise BadInput("There is no terminal to ask on whether you are sure; use --yes.")
        found = _find(arguments, url, name)
        what = [f"the index {index} and all that was uploaded to it" for index in found["indexes"]]
        what += [counted(found["tokens"], "API token")] if found["tokens"] else []
        if not click.confirm(f"Delete the user {name}{', with ' if what else ''}{', '.join(what)}?", err=True):
            print("Nothing was deleted.")
            return NOT_DONE
    found = call(arguments, url, "user-delete", {"name": name})
    indexes = f" with {', '.join(found['indexes'])}" if found["indexes"] else ""
    print(f"The user {name} was deleted{indexes}.")
    return 0


def _find(arguments: dict[str, Any], url: str | None, name: str, *, begins: bool = False) -> dict[str, Any]:
    """Return what is known of a user, before anything is asked. Raises :class:`BadInput`."""
    rows: list[dict[str, Any]] = call(arguments, url, "user-list", {}, begins=begins)
    for row in rows:
        if row["user"] == name:
            return row
    raise BadInput(f"There is no user {name!r}; 'teepi user list' shows them.")


def _new_password(name: str, check: Callable[[], object], *, from_stdin: bool) -> str:
    """Return a new password, never echoed; ``check`` is called before somebody types. Raises :class:`BadInput`."""
    if from_stdin:
        try:
            return sys.stdin.readline().rstrip("\r\n")
        except UnicodeDecodeError:
            raise BadInput("The password on standard input is no text in this terminal's encoding.") from None
    if not sys.stdin.isatty():
        raise BadInput("There is no terminal to ask for the password on; use --password-stdin.")
    check()
    prompt, again = f"New password of {name}", "The same again"
    found: str = click.prompt(prompt, hide_input=True, err=True, confirmation_prompt=again)
    return found
