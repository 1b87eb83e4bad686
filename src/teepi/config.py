"""Settings from flags, ``TEEPI_`` variables and ``teepi.toml``, as one frozen object.

One table, :data:`OPTIONS`, names every setting once: ``page_ttl`` is the flag ``--page-ttl``, the variable
``TEEPI_PAGE_TTL`` and the key ``page_ttl``. The first of flag, variable, file and default that has it wins.
Nothing is created, connected to or printed here.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from teepi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DEFAULT_INDEX_NAME: Final = "root/pypi"
"""The index that is always there; a bare ``upstream`` is its upstream."""

# Each of these is, or will be, a path of its own beside the indexes.
RESERVED_USERS: Final = frozenset(
    {"simple", "index", "pypi", "packages", "cache", "health", "healthz", "readyz", "metrics"}
)
RESERVED_INDEXES: Final = frozenset({"json"})

_PREFIX: Final = "TEEPI_"
_LARGEST_PORT: Final = 65535
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """One index that teepi serves."""

    upstream: str
    """Absolute http(s) URL of the root of the upstream's Simple API (PEP 503); ends with ``/``."""


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
        values, indexes = _from_file(file)
    values |= _from_environment(environ)
    for option in OPTIONS:
        given = arguments.get(option.name)
        if given is not None:
            values[option.name] = _parsed(option, given, option.flag)
    if "upstream" in values:
        indexes[DEFAULT_INDEX_NAME] = IndexSettings(values["upstream"])
    default = indexes.get(DEFAULT_INDEX_NAME) or IndexSettings(_default_upstream())
    return Settings(
        listen=values.get("listen", (("127.0.0.1", 3141),)),
        indexes=MappingProxyType({DEFAULT_INDEX_NAME: default} | indexes),
        cache_dir=values.get("cache_dir") or _xdg(environ, "XDG_CACHE_HOME", ".cache", "cache_dir"),
        data_dir=values.get("data_dir") or _xdg(environ, "XDG_DATA_HOME", ".local/share", "data_dir"),
        page_ttl_seconds=values.get("page_ttl", 600.0),
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
                f"{_nearest(variable, (*known, CONFIG_VARIABLE))} or unset it."
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


def _from_file(file: Path) -> tuple[dict[str, Any], dict[str, IndexSettings]]:
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
            indexes = _indexes(value, file)
        elif key in known:
            values[key] = _parsed(
                known[key], _typed(known[key], value, f"{file}: {key}"), f"{file}: {key}", file.parent
            )
        else:
            what = "section" if isinstance(value, dict) else "key"
            raise ConfigError(
                f"{file}: the {what} {key!r} is unknown; {_nearest(key, (*known, 'index'))} or remove it."
            )
    if "upstream" in values and DEFAULT_INDEX_NAME in indexes:
        raise ConfigError(
            f'{file}: upstream and [index."{DEFAULT_INDEX_NAME}"] say the same thing twice; remove one of them.'
        )
    return values, indexes


def _indexes(sections: object, file: Path) -> dict[str, IndexSettings]:
    if not isinstance(sections, dict):
        raise ConfigError(f'{file}: index is a section; write [index."user/name"] and an upstream below it.')
    indexes = {}
    upstream = next(option for option in OPTIONS if option.name == "upstream")
    for name, section in sections.items():
        where = f'{file}: [index."{name}"]'
        _check_name(name, where)
        if not isinstance(section, dict) or "upstream" not in section:
            raise ConfigError(f'{where} lacks its upstream; add a line upstream = "https://…/simple/".')
        for key in section:
            if key != "upstream":
                raise ConfigError(f"{where}: the key {key!r} is unknown; {_nearest(key, ['upstream'])} or remove it.")
        at = f"{where} upstream"
        indexes[name] = IndexSettings(_parsed(upstream, _typed(upstream, section["upstream"], at), at))
    return indexes


def _check_name(name: str, where: str) -> None:
    user, slash, index = name.partition("/")
    if not (slash and _NAME.fullmatch(user) and _NAME.fullmatch(index)):
        raise ConfigError(
            f'{where}: an index is named "user/name", in quotes, each of lower-case letters, digits, ".", "_" and "-".'
        )
    for part, reserved in ((user, RESERVED_USERS), (index, RESERVED_INDEXES)):
        if part in reserved:
            raise ConfigError(f"{where}: {part!r} is reserved for a path of teepi's own; choose another name.")


def _typed(option: Option, value: object, where: str) -> object:
    # bool is an int to Python, but 'page_ttl = true' is a mistake
    if not isinstance(value, option.toml) or (isinstance(value, bool) and bool not in option.toml):
        expected = " or ".join(_TOML_NAMES[kind] for kind in option.toml)
        raise ConfigError(f"{where} = {_shown(value)} has the wrong type; write {expected}.")
    return value


def _parsed(option: Option, value: object, where: str, base: Path | None = None) -> Any:  # noqa: ANN401 - as parsed
    try:
        parsed = option.parse(value)
    except ValueError as error:
        raise ConfigError(f"{where} = {_shown(value)} cannot be used: {error}.") from None
    if isinstance(parsed, Path):
        return (base / parsed if base is not None else parsed).absolute()
    return parsed


def _shown(value: object) -> str:
    """Return the value for a message, without the password of a URL."""
    shown = value if isinstance(value, (str, list, bool, int, float)) else str(value)
    return re.sub(r"//[^/@\s]*@", "//…@", repr(shown))


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"write {close[0]!r}" if close else f"write one of {', '.join(known)}"


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


def _upstream(value: str) -> str:
    text = value.strip()
    expected = "write an absolute URL such as https://index.example/simple/"
    if "?" in text or "#" in text:
        raise ValueError("an upstream has no query and no fragment")
    if "\\" in text or " " in text or not text.isprintable():
        raise ValueError(f"it has characters that no URL has; {expected}")
    try:
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            raise ValueError  # noqa: TRY301 - as urlsplit does for other URLs that are none
    except ValueError:
        raise ValueError(expected) from None
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/", "", ""))


def _directory(value: str | Path) -> Path:
    text = str(value)
    if not text.strip() or "\0" in text:
        raise ValueError("write the path of a directory")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("that home directory is unknown; write the whole path") from None


def _seconds(value: str | float) -> float:
    expected = "write a number of seconds, 0 or more"
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        raise ValueError(expected) from None
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(expected)
    return seconds


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
    Option("upstream", _upstream, "URL", "root of the Simple API that root/pypi mirrors", "PyPI"),
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
        _seconds,
        "SECONDS",
        "how long a page is served before upstream is asked whether it changed",
        "600",
        toml=(int, float),
    ),
    Option("offline", _switch, "", "never ask upstream: serve what is cached", "no", toml=(bool,)),
    Option("synthesize_metadata", _switch, "", "offer core metadata out of wheels", "yes", toml=(bool,)),
    Option("log_level", _log_level, "LEVEL", f"one of {', '.join(_LOG_LEVELS)}", "info"),
)
"""Every setting, in the order in which the help shows them."""
