"""``teepi token``: passwords for machines, each for one user, to upload or to read, on one index or on all."""

from __future__ import annotations

import re
import sys
from typing import Any, Final
from urllib.parse import urlsplit

import click

from teepi.cli.accounts import EPILOG, call, json_option, options, print_table, when
from teepi.cli.console import complain, print_json

_UNITS: Final = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "m": 30 * 86_400, "y": 365 * 86_400}
_EXPIRES: Final = re.compile(r"([1-9][0-9]{0,4})([hdwmy]?)")


@click.group("token", epilog=EPILOG)
def command() -> None:
    """Make, list and revoke API tokens: what CI sends in the place of a password."""


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> float | None:
    if value.strip().lower() == "never":
        return None
    found = _EXPIRES.fullmatch(value.strip().lower())
    if found is None:
        raise click.BadParameter("write a number of days, or 12h, 90d, 4w, 6m, 1y, never")
    return float(int(found[1]) * _UNITS[found[2] or "d"])


@command.command("create", epilog=EPILOG)
@click.option("--user", metavar="NAME", required=True, help="Whose rights it has at most.")
@click.option("--index", metavar="USER/INDEX", help="The only index that it opens. (default: all that the user may)")
@click.option("--upload", "may_upload", is_flag=True, help="Let it upload, and delete what was uploaded.")
@click.option("--read", "may_read", is_flag=True, help="Let it read what is not for everybody.")
@click.option(
    "--expires",
    "expires_seconds",
    metavar="AGE",
    default="90d",
    callback=_seconds,
    help="When it ends: 12h, 90d, 4w, 6m, 1y, or never. (default: 90d)",
)
@click.option("--description", metavar="TEXT", default="", help="What it is for; 'teepi token list' shows it.")
@options
def create(
    user: str,
    index: str | None,
    expires_seconds: float | None,
    description: str,
    url: str | None,
    *,
    may_upload: bool,
    may_read: bool,
    **arguments: Any,  # noqa: ANN401 - one for each setting
) -> None:
    """Make a token and print it, this once; it is stored nowhere.

    It alone is on standard output, so that TOKEN=$(teepi token create ...) holds it; how to use it is said beside. A
    token needs --upload, --read, or both. It goes on to hold when the password changes, until it expires or is revoked.
    """
    if not (may_upload or may_read):
        raise click.UsageError("Say what the token may do: --upload, --read, or both")
    wanted = {
        "user": user,
        "index": None if index is None else index.strip("/"),
        "upload": may_upload,
        "read": may_read,
        "expires_seconds": expires_seconds,
        "description": description,
    }
    found = call(arguments, url, "token-create", wanted)
    print(found["token"], flush=True)
    for sentence in found["warnings"]:
        complain(sentence)
    _say_how(found, url or found["url"] or "http://HOST:3141/")


def _say_how(found: dict[str, Any], server: str) -> None:
    index = found["index"] or "USER/INDEX"
    ends = "" if found["expires_at"] is None else f" until {when(found['expires_at'])}"
    parts = urlsplit(server.rstrip("/"))
    target = f"{parts.geturl()}/{index}/"
    pages = f"{parts.scheme}://__token__:$TOKEN@{parts.netloc}{parts.path}/{index}/+simple/"
    where = "all indexes" if found["index"] is None else found["index"]
    lines = [
        f"Token {found['id']} of {found['user']}: {where}, {_may(found)}{ends}.",
        "It is shown this once. As the variable TOKEN it is used so, with the user name __token__:",
        "",
    ]
    if found["upload"]:
        lines += [
            f'  twine  TWINE_USERNAME=__token__ TWINE_PASSWORD="$TOKEN" twine upload --repository-url {target} dist/*',
            f'  uv     UV_PUBLISH_TOKEN="$TOKEN" uv publish --publish-url {target}',
        ]
    if found["read"]:
        lines += [f'  pip    PIP_INDEX_URL="{pages}" pip install PROJECT']
    lines += ["", f"'teepi token revoke {found['id']}' takes it back."]
    print("\n".join(lines), file=sys.stderr)


@command.command("list", epilog=EPILOG)
@click.option("--user", metavar="NAME", help="Only those of this user.")
@json_option
@options
def list_(user: str | None, url: str | None, *, is_json: bool, **arguments: Any) -> None:  # noqa: ANN401
    """List the tokens: whose they are, what they allow and until when. The tokens themselves are stored nowhere."""
    rows = call(arguments, url, "token-list", {} if user is None else {"user": user})
    if is_json:
        print_json(rows)
        return
    if not rows:
        print("There is no token." if user is None else f"{user} has no token.")
        return
    print_table(
        ("id", "user", "index", "may", "expires", "created", "description"),
        (
            (
                row["id"], row["user"], row["index"] or "all", _may(row),
                "EXPIRED" if row["is_expired"] else when(row["expires_at"]), when(row["created_at"])[:10],
                row["description"],
            )
            for row in rows
        ),
    )  # fmt: skip


@command.command("revoke", epilog=EPILOG)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@options
def revoke(ids: tuple[str, ...], url: str | None, **arguments: Any) -> None:  # noqa: ANN401
    """Revoke tokens by their IDs, as 'teepi token list' shows them; they are refused at once.

    A token itself does as well: its ID is a part of it. When one of them is unknown none is revoked.
    """
    from teepi.api_tokens import id_of  # noqa: PLC0415 - --help need not wait

    for row in call(arguments, url, "token-revoke", {"ids": [id_of(each) or each for each in ids]}):
        print(f"Token {row['id']} of {row['user']} was revoked.")


def _may(row: dict[str, Any]) -> str:
    return ", ".join(word for word in ("upload", "read") if row[word])
