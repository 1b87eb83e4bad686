"""``teepi import``: bring a folder of wheels and sdists, or what a devpi-server has, into private indexes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from teepi.cli.console import print_json
from teepi.cli.remote import Server, account_of, account_options, check_index_name, server_of, server_options
from teepi.errors import BadInput
from teepi.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from teepi.devpi_directory import Contents
    from teepi.imports import Item, Made, Tally
    from teepi.index_client import Account, IndexClient

NOT_WHOLE: Final = 1
"""Exit status when a file was refused or is in conflict."""
_SHOWN: Final = 20  # names of files that are left out


@click.group("import")
def command() -> None:
    """Bring files into private indexes: from a folder, or from a devpi-server's directory."""


_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be uploaded, and upload nothing.")
_json = click.option("--json", "is_json", is_flag=True, help="Print JSON.")


@command.command("dir")
@click.argument("directory", metavar="DIR")
@click.option("--index", required=True, metavar="USER/NAME", help="Index that gets the files.")
@_dry_run
@_json
@account_options("the USER of the index")
@server_options
def from_directory(
    directory: str,
    index: str,
    url: str | None,
    user: str | None,
    password_env: str | None,
    *,
    password_stdin: bool,
    dry_run: bool,
    is_json: bool,
    **arguments: Any,  # noqa: ANN401 - one for each setting
) -> int:
    """Upload all wheels and sdists in DIR and below it.

    A link is followed within DIR only. Exit status 1 when a file was refused, or another one has its name.
    """
    from teepi.imports import Item, find_distributions  # noqa: PLC0415 - --help need not wait

    index = check_index_name(index, "--index")
    paths, others = find_distributions(Path(directory))
    items = [Item(index, path.name, lambda _directory, path=path: path) for path in paths]  # type: ignore[misc]
    if not items:
        msg = f"There is no wheel and no sdist in {directory}."
        raise BadInput(msg)
    if dry_run:
        return _say_what(items, is_json=is_json)
    server = server_of(url, arguments)
    account = account_of(user, index.partition("/")[0], password_env, password_stdin=password_stdin)

    async def upload(client: IndexClient) -> Tally:
        await client.check(index, for_upload=True)
        return await _send(client, items, is_quiet=is_json)

    tally = asyncio.run(_with_client(server, account, upload))
    return _report(tally, f", {counted(others, 'other file')} left out" if others else "", is_json=is_json)


@command.command("devpi")
@click.argument("directory", metavar="DIR")
@click.option(
    "--index",
    "chosen",
    multiple=True,
    metavar="SRC[=DST]",
    help="Index of devpi's to bring, and what it is called here; may be repeated. (default: all, as they are)",
)
@click.option("--create", is_flag=True, help="Make the users and indexes that are not there.")
@_dry_run
@_json
@account_options("root")
@server_options
def from_devpi(
    directory: str,
    chosen: Sequence[str],
    url: str | None,
    user: str | None,
    password_env: str | None,
    *,
    create: bool,
    password_stdin: bool,
    dry_run: bool,
    is_json: bool,
    **arguments: Any,  # noqa: ANN401 - one for each setting
) -> int:
    """Bring what was uploaded to a devpi-server.

    DIR is the server's own directory (--serverdir, mostly ~/.devpi/server) or what devpi-export wrote. Of an export
    the settings of the indexes come along; in a server's own directory they cannot be read, and an index made by
    --create is not volatile and stands above root/pypi. Passwords never come along: a user made by --create has
    one that nobody knows, until you set it. With --create the account that is logged in (root, unless --user
    names another) may upload to the indexes while the import runs. Exit status 1 when a file was refused, or another
    one has its name.
    """
    from teepi.devpi_directory import knows_mirrors, read  # noqa: PLC0415
    from teepi.imports import Item  # noqa: PLC0415

    place = Path(directory)
    contents = read(place)
    targets = _targets(contents, chosen, is_choice_needed=not knows_mirrors(place))
    items = [
        Item(
            targets[file.index],
            file.filename,
            lambda scratch, file=file: contents.open_path(file, scratch),  # type: ignore[misc]
            file.project,
            file.version,
        )
        for file in contents.files
        if file.index in targets
    ]
    if dry_run:
        return _say_what(items, is_json=is_json)
    server = server_of(url, arguments)
    account = account_of(user, "root", password_env, password_stdin=password_stdin)
    if create and account is None:
        raise BadInput("--create needs a login; give --user root and its password (DEVPI_PASSWORD, --password-stdin).")
    tally, made = asyncio.run(_bring(server, account, contents, targets, items, creates=create, is_quiet=is_json))
    left_out = [name for name in contents.left_out if name.partition(": ")[0] in targets]
    if not is_json:
        _say_more(left_out, made)
    words = f", {counted(len(left_out), 'other file')} left out" if left_out else ""
    return _report(tally, words, is_json=is_json, more={"users": made.users, "indexes": made.indexes})


def _targets(contents: Contents, chosen: Sequence[str], *, is_choice_needed: bool) -> dict[str, str]:
    """Return what each index that is to be brought is called here. Raises :class:`BadInput`."""
    if not chosen:
        if is_choice_needed:
            msg = (
                f"{contents.directory} does not say which of its indexes are mirrors (its database is elsewhere); "
                "name those to bring with --index."
            )
            raise BadInput(msg)
        found = {name: name for name in contents.indexes if name != "root/pypi"}
        if not found:
            msg = f"Nothing was uploaded to an index of {contents.directory}."
            raise BadInput(msg)
        return found
    targets = {}
    for each in chosen:
        source, _, target = each.partition("=")
        source = check_index_name(source, "--index")
        if source not in contents.indexes:
            there = ", ".join(sorted(contents.indexes)) or "none"
            msg = f"--index {source} is not in {contents.directory}; there are files of: {there}."
            raise BadInput(msg)
        targets[source] = check_index_name(target, "--index") if target else source
    return targets


async def _bring(
    server: Server,
    account: Account | None,
    contents: Contents,
    targets: dict[str, str],
    items: Sequence[Item],
    *,
    creates: bool,
    is_quiet: bool,
) -> tuple[Tally, Made]:
    from teepi.imports import Made, make_missing, upload_right  # noqa: PLC0415

    made = Made()
    needed = sorted({item.index for item in items})

    async def work(client: IndexClient) -> Tally:
        nonlocal made
        if not creates or account is None:
            for index in needed:
                await client.check(index, for_upload=True)
            return await _send(client, items, is_quiet=is_quiet)
        made = await make_missing(client, contents, targets)
        for index in needed:
            await client.check(index, for_upload=True)
        async with upload_right(client, needed, account.user):
            return await _send(client, items, is_quiet=is_quiet)

    return await _with_client(server, account, work), made


async def _with_client(server: Server, account: Account | None, work: Callable[[IndexClient], Any]) -> Any:  # noqa: ANN401 - what work returns
    from teepi.imports import AT_A_TIME  # noqa: PLC0415
    from teepi.index_client import connect  # noqa: PLC0415

    async with connect(server.url, server.certificate, account, AT_A_TIME) as client:
        return await work(client)


async def _send(client: IndexClient, items: Sequence[Item], *, is_quiet: bool) -> Tally:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    from teepi.imports import send_all  # noqa: PLC0415

    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), disable=is_quiet,
    )  # fmt: skip
    with progress:
        whole = progress.add_task("files", total=len(items))
        return await send_all(client, items, lambda item: progress.update(whole, advance=1, description=item.filename))


def _say_what(items: Sequence[Item], *, is_json: bool) -> int:
    if is_json:
        print_json([{"index": item.index, "filename": item.filename} for item in items])
        return 0
    for item in items:
        print(item.name)
    print(f"{counted(len(items), 'file')} would be uploaded.")
    return 0


def _say_more(left_out: Sequence[str], made: Made) -> None:
    for name in left_out[:_SHOWN]:
        print(f"left out, neither wheel nor sdist: {name}", file=sys.stderr)
    for index in made.indexes:
        print(f"made the index {index}")
    for user in made.users:
        print(f"made the user {user}; nobody knows the password, set one: devpi user -m {user} password=...")


def _report(tally: Tally, more_words: str, *, is_json: bool, more: dict[str, Any] | None = None) -> int:
    if is_json:
        print_json(
            {
                "uploaded": tally.uploaded,
                "there": tally.there,
                "conflicts": tally.conflicts,
                "refused": tally.refused,
                "bytes": tally.size_bytes,
                **(more or {}),
            }
        )
    else:
        for name, why in tally.conflicts.items():
            print(f"{name}: another file has that name ({why})", file=sys.stderr)
        for name, why in tally.refused.items():
            print(f"{name}: {why}", file=sys.stderr)
        print(
            f"{counted(tally.uploaded, 'file')} uploaded ({tally.size_bytes / 1e6:.1f} MB), "
            f"{tally.there} there already, {counted(len(tally.conflicts), 'conflict')}, "
            f"{len(tally.refused)} refused{more_words}."
        )
    return 0 if tally.is_whole else NOT_WHOLE
