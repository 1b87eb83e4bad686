"""Settings from flags, ``TEEPI_`` variables and ``teepi.toml``, as one frozen object.

One table, :data:`OPTIONS`, names every setting once: ``page_ttl`` is the flag ``--page-ttl``, the variable
``TEEPI_PAGE_TTL`` and the key ``page_ttl``. The first of flag, variable, file and default that has it wins.
Nothing is created, connected to or printed here.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from teepi.errors import ConfigError
from teepi.index_settings import (
    IndexSettings,
    check_bases,
    nearest,
    parse_seconds,
    parse_upstream,
    read_indexes,
    shown,
    with_netrc,
)
from teepi.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_INDEX_NAME: Final = "root/pypi"
"""The index that is always there; a bare ``upstream`` is its upstream."""

_PREFIX: Final = "TEEPI_"
_LARGEST_PORT: Final = 65535
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked."""

    listen: tuple[tuple[str, int], ...]
    """Host (an IPv6 address without its brackets) and port, 0 for any free one."""
    indexes: Mapping[str, IndexSettings]
    """By ``user/name``; always has :data:`DEFAULT_INDEX_NAME`, first."""
    cache_dir: Path
    """Absolute; may be emptied at any time."""
    data_dir: Path
    """Absolute; precious."""
    page_ttl_seconds: float
    """So long a page is served without asking upstream; 0 asks every time."""
    patience_seconds: float
    """So long a request that has a stale answer waits for upstream to confirm it; 0 not at all."""
    offline: bool
    """Never ask upstream."""
    synthesize_metadata: bool
    """Advertise core metadata of wheels for which upstream has none, and read it out of them when asked."""
    log_level: str
    """``debug``, ``info``, ``warning`` or ``error``."""


@dataclass(frozen=True, slots=True)
class Option:
    """One setting in all its places."""

    name: str
    parse: Callable[[Any], Any]
    """Value from text, or from TOML where that has a type of its own; raises ValueError saying what is expected."""
    metavar: str
    help: str
    default: str
    """For people."""
    toml: tuple[type, ...] = (str,)
    """Types of the key's value."""

    @property
    def flag(self) -> str:
        """As typed on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As set in the environment."""
        return _PREFIX + self.name.upper()


def load(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings; ``arguments`` are the flags by name, None or absent where not given.

    Raises :class:`ConfigError` with one sentence that names the flag, variable or file, the value and the remedy.
    """
    values: dict[str, Any] = {}
    indexes: dict[str, IndexSettings] = {}
    file = _config_file(arguments, environ)
    if file is not None:
        values, indexes = _from_file(file, environ)
    values |= _from_environment(environ)
    for option in OPTIONS:
        given = arguments.get(option.name)
        if given is not None:
            values[option.name] = _parsed(option, given, option.flag)
    if "upstream" in values:
        indexes[DEFAULT_INDEX_NAME] = IndexSettings(values["upstream"])
    default = indexes.get(DEFAULT_INDEX_NAME) or IndexSettings(_default_upstream())
    indexes = with_netrc({DEFAULT_INDEX_NAME: default} | indexes, environ)
    check_bases(indexes)
    return Settings(
        listen=values.get("listen", (("127.0.0.1", 3141),)),
        indexes=MappingProxyType(indexes),
        cache_dir=values.get("cache_dir") or _xdg(environ, "XDG_CACHE_HOME", ".cache", "cache_dir"),
        data_dir=values.get("data_dir") or _xdg(environ, "XDG_DATA_HOME", ".local/share", "data_dir"),
        page_ttl_seconds=values.get("page_ttl", 600.0),
        patience_seconds=values.get("patience", Limits().page_patience_seconds),
        offline=values.get("offline", False),
        synthesize_metadata=values.get("synthesize_metadata", True),
        log_level=values.get("log_level", "info"),
    )


# Where values come from -----------------------------------------------------------------------------


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = {option.variable: option for option in OPTIONS}
    values = {}
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable not in known:
            raise ConfigError(
                f"The environment variable {variable} is no setting of teepi; "
                f"{nearest(variable, (*known, CONFIG_VARIABLE))} or unset it."
            )
        if environ[variable].strip():  # an empty variable counts as unset, as with the XDG ones
            values[known[variable].name] = _parsed(known[variable], environ[variable], variable)
    return values


def _config_file(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Path | None:
    named = arguments.get("config") or environ.get(CONFIG_VARIABLE, "").strip()
    if named:
        try:
            return Path(named).expanduser().absolute()
        except RuntimeError:
            raise ConfigError(f"The configuration file {named} is in an unknown home; write the whole path.") from None
    base = _xdg_base(environ, "XDG_CONFIG_HOME", ".config")
    if base is None:
        return None
    file = base / "teepi" / "teepi.toml"
    return file if file.exists() else None


def _from_file(file: Path, environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, IndexSettings]]:
    try:
        content = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"The configuration file {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}, line {line}: this is not UTF-8; save the file in that encoding.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The configuration file {file} is not TOML: {error}.") from None
    known = {option.name: option for option in OPTIONS}
    values = {}
    indexes: dict[str, IndexSettings] = {}
    for key, value in content.items():
        if key == "index":
            indexes = read_indexes(value, file, environ)
        elif key in known:
            values[key] = _parsed(
                known[key], _typed(known[key], value, f"{file}: {key}"), f"{file}: {key}", file.parent
            )
        else:
            what = "section" if isinstance(value, dict) else "key"
            raise ConfigError(f"{file}: the {what} {key!r} is unknown; {nearest(key, (*known, 'index'))} or remove it.")
    if "upstream" in values and DEFAULT_INDEX_NAME in indexes:
        raise ConfigError(
            f'{file}: upstream and [index."{DEFAULT_INDEX_NAME}"] say the same thing twice; remove one of them.'
        )
    return values, indexes


def _typed(option: Option, value: object, where: str) -> object:
    # bool is an int to Python, but 'page_ttl = true' is a mistake
    if not isinstance(value, option.toml) or (isinstance(value, bool) and bool not in option.toml):
        expected = " or ".join(_TOML_NAMES[kind] for kind in option.toml)
        raise ConfigError(f"{where} = {shown(value)} has the wrong type; write {expected}.")
    return value


def _parsed(option: Option, value: object, where: str, base: Path | None = None) -> Any:  # noqa: ANN401 - as parsed
    try:
        parsed = option.parse(value)
    except ValueError as error:
        raise ConfigError(f"{where} = {shown(value)} cannot be used: {error}.") from None
    if isinstance(parsed, Path):
        return (base / parsed if base is not None else parsed).absolute()
    return parsed


def _xdg_base(environ: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    """Return a base directory (XDG Base Directory Specification: what is not absolute is ignored)."""
    for base, tail in ((environ.get(variable, ""), ""), (environ.get("HOME", ""), below_home)):
        if Path(base).is_absolute():
            return Path(base) / tail
    return None


def _xdg(environ: Mapping[str, str], variable: str, below_home: str, name: str) -> Path:
    base = _xdg_base(environ, variable, below_home)
    if base is None:
        raise ConfigError(
            f"HOME is not set, so there is no place for {name}; set {_PREFIX}{name.upper()} to a directory."
        )
    return base / "teepi"


def _default_upstream() -> str:
    """Return the Simple API beside the default of a well-kept library; its import costs 70 ms, hence only now."""
    from distlib.index import DEFAULT_INDEX  # noqa: PLC0415

    parts = urlsplit(str(DEFAULT_INDEX))
    return urlunsplit((parts.scheme, parts.netloc, "/simple/", "", ""))


# What values look like ------------------------------------------------------------------------------


def _listen(value: str | list[object]) -> tuple[tuple[str, int], ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(item, str) for item in items):
        raise ValueError("every address is a string")
    addresses = [_address(text) for item in items for text in re.split(r"[,\s]+", str(item)) if text]
    if not addresses:
        raise ValueError("it names no address; write HOST:PORT")
    return tuple(dict.fromkeys(addresses))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{host!r} is not an IPv6 address") from None
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets, as in [::1]:3141")
    elif not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError("write HOST:PORT, as in 127.0.0.1:3141, or 0.0.0.0:3141 for all interfaces")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _LARGEST_PORT:
        raise ValueError(f"the port is a number from 0 (any free one) to {_LARGEST_PORT}")
    return host, int(port)


def _directory(value: str | Path) -> Path:
    text = str(value)
    if not text.strip() or "\0" in text:
        raise ValueError("write the path of a directory")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("that home directory is unknown; write the whole path") from None


def _switch(value: str | bool) -> bool:  # noqa: FBT001 - it parses one
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError("write true or false")
    return text in _TRUE


def _log_level(value: str) -> str:
    level = value.strip().lower()
    if level not in _LOG_LEVELS:
        raise ValueError(f"write one of {', '.join(_LOG_LEVELS)}")
    return level


CONFIG_VARIABLE: Final = _PREFIX + "CONFIG"
"""Names the file, as ``--config`` does; there is no such key in it."""

_TOML_NAMES: Final = {str: "a string", list: "a list", int: "a whole number", float: "a number", bool: "true or false"}

OPTIONS: Final = (
    Option(
        "listen",
        _listen,
        "HOST:PORT",
        "address to listen on; may be given several times, port 0 is any free one",
        "127.0.0.1:3141",
        toml=(str, list),
    ),
    Option("upstream", parse_upstream, "URL", "root of the Simple API that root/pypi mirrors", "PyPI"),
    Option(
        "cache_dir",
        _directory,
        "DIR",
        "where fetched files are kept; may be emptied at any time",
        "$XDG_CACHE_HOME/teepi, else ~/.cache/teepi",
    ),
    Option(
        "data_dir",
        _directory,
        "DIR",
        "where users, private indexes and uploads are kept",
        "$XDG_DATA_HOME/teepi, else ~/.local/share/teepi",
    ),
    Option(
        "page_ttl",
        parse_seconds,
        "SECONDS",
        "how long a page is served before upstream is asked whether it changed",
        "600",
        toml=(int, float),
    ),
    Option(
        "patience",
        parse_seconds,
        "SECONDS",
        "how long a client that can be answered with something older waits for a slow upstream",
        "2",
        toml=(int, float),
    ),
    Option("offline", _switch, "", "never ask upstream: serve what is cached", "no", toml=(bool,)),
    Option("synthesize_metadata", _switch, "", "offer core metadata out of wheels", "yes", toml=(bool,)),
    Option("log_level", _log_level, "LEVEL", f"one of {', '.join(_LOG_LEVELS)}", "info"),
)
"""Every setting, in the order in which the help shows them."""
