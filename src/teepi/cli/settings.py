"""``teepi config``: write, show and check the configuration."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from teepi import config, tls
from teepi.cli.console import PLACES, effective, print_json, settings_options
from teepi.clients.user_file import set_aside
from teepi.errors import ConfigError
from teepi.index_settings import IndexSettings
from teepi.origins import hide_user_info

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.group("config", epilog=PLACES)
def command() -> None:
    """Write, show and check the configuration."""


@command.command("init")
@click.option("--config", metavar="FILE", help="Where to write. (default: $XDG_CONFIG_HOME/teepi/teepi.toml)")
@click.option("--force", is_flag=True, help="Replace a file that is there; it is kept as FILE.bak, FILE.bak.2 …")
@click.option("--print", "is_printed", is_flag=True, help="Print it instead.")
def init(config: str | None, *, force: bool, is_printed: bool) -> None:
    """Write a configuration file in which every setting is explained and commented out."""
    if is_printed:
        print(commented_file(), end="")
        return
    path = _target(config)
    if path.is_dir():
        msg = f"{path} is a directory; name a file in it with --config."
        raise ConfigError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    backup = set_aside(path, ".bak") if force and path.exists() else None
    try:
        with path.open("x", encoding="utf-8") as file:
            path.chmod(0o600)  # it may come to hold passwords
            file.write(commented_file())
    except FileExistsError:
        msg = f"{path} is there already; edit it, or replace it with --force."
        raise ConfigError(msg) from None
    kept = f" The file that was there is {backup} now." if backup is not None else ""
    print(f"{path} written; every line is commented out and shows the default.{kept}")


@command.command("show")
@settings_options()
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
def show(*, is_json: bool, **arguments: Any) -> None:  # noqa: ANN401 - one for each setting
    """Print every setting that holds, and where it came from; secrets are hidden."""
    found = effective(arguments)
    rows = _rows(found)
    if is_json:
        print_json({name: {"value": value, "from": origin} for name, value, origin in rows})
        return
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that other commands need not wait
    from rich.table import Table  # noqa: PLC0415

    table = Table("setting", "value", "from", box=None, pad_edge=False, header_style="bold")
    for name, value, origin in rows:
        table.add_row(name, _text(value), origin)
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(f"\nconfiguration file: {found.file or 'none'}")


@command.command("check")
@settings_options()
def check(**arguments: Any) -> None:  # noqa: ANN401 - one for each setting
    """Say what is wrong with the configuration, with file, line, key and reason; exit status 2 if anything is."""
    found = effective(arguments)
    tls.check(found.settings.tls_cert, found.settings.tls_key)
    print(f"{found.file or 'No configuration file; variables and flags'}: all settings can be used.")


def commented_file() -> str:
    """Return a configuration file that sets nothing and explains everything."""
    lines = ["# teepi's settings. 'teepi config show' prints what holds, 'teepi config check' what is wrong.", ""]
    for option in config.OPTIONS:
        lines += [
            f"# {option.help[:1].upper()}{option.help[1:]} (default: {option.default}).",
            f"# {option.name} = {option.example}",
            "",
        ]
    return "\n".join(lines) + _INDEXES


def _target(named: str | None) -> Path:
    given = named or os.environ.get(config.CONFIG_VARIABLE, "").strip()
    try:
        path = Path(given).expanduser().absolute() if given else config.usual_config_file(os.environ)
    except RuntimeError:
        msg = f"The configuration file {given} is in an unknown home; write the whole path."
        raise ConfigError(msg) from None
    if path is None:
        msg = "HOME is not set, so there is no place for teepi.toml; name one with --config."
        raise ConfigError(msg)
    return path


def _rows(found: config.Effective) -> list[tuple[str, Any, str]]:
    settings = found.settings
    rows = []
    for option in config.OPTIONS:
        if option.name == "upstream":
            continue  # the same as the upstream of root/pypi
        value = getattr(settings, next(field.name for field in fields(settings) if field.name.startswith(option.name)))
        if value is None or value == ():
            value = option.default
        if option.name == "listen":
            value = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in value]
        rows.append((option.name, str(value) if isinstance(value, Path) else value, found.origins[option.name]))
    rows += [(f'index."{name}"', _index(index), found.origins[name]) for name, index in settings.indexes.items()]
    return rows


def _index(index: IndexSettings) -> Mapping[str, Any]:
    """Return what an index is set to, without what is as by default and without secrets."""
    shown: dict[str, Any] = {"upstream": [hide_user_info(url) for url in index.mirrors]} if index.mirrors else {}
    by_default = IndexSettings()
    for field in fields(IndexSettings):
        value = getattr(index, field.name)
        if field.name in {"upstream", "more_mirrors"} or value == getattr(by_default, field.name):
            continue
        if field.name == "headers":
            shown["headers"] = dict.fromkeys(value, "…")
        elif field.name == "proxy":
            shown["proxy"] = hide_user_info(value)
        else:
            shown[field.name.removesuffix("_seconds")] = sorted(value) if isinstance(value, frozenset) else value
    return {name: str(value) if isinstance(value, Path) else value for name, value in shown.items()}


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name} = {_text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


_INDEXES = """# An index of its own, served below /corp/main/. Of its keys only upstream is needed.
# [index."corp/main"]
# upstream = ["https://index.example/simple/"]   # mirrors of one upstream, the next where one fails
# page_ttl = 60
# username = "ci"                                # or in the URL, or in ~/.netrc
# password_env = "CORP_PASSWORD"                 # the variable that has it; or password = "..."
# headers = { X-Team = "build" }
# ca_file = "corp.pem"                           # trusted besides the system's authorities
# proxy = "http://proxy.example:3128"            # instead of HTTP(S)_PROXY; "" is none
# allow_private = true                           # links and redirects may lead to private addresses

# An index made of others: the first of them that has a project owns it.
# [index."team/all"]
# bases = ["root/pypi", "corp/main"]
# merge = []                                     # projects that are put together from all of them
"""
