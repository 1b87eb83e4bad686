"""Every setting once: its name, what its values look like, and what is said of it.

``page_ttl`` is the flag ``--page-ttl``, the variable ``TEEPI_PAGE_TTL`` and the key ``page_ttl``. Where values
come from and which place wins is ``config``'s job. Nothing is created, connected to or printed here.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from teepi.index_settings import parse_seconds, parse_upstream
from teepi.logs import ACCESS_FORMATS, FORMATS, STDOUT
from teepi.origins import sound_base
from teepi.sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX: Final = "TEEPI_"
"""Of every variable."""
_LARGEST_PORT: Final = 65535
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
# Also with _ (containers' names), and an international name in its ASCII form, as browsers send it (RFC 5890).
_HOST_NAME: Final = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?")
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")


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
    example: str = '""'
    """The key's value in the file that ``teepi config init`` writes, in TOML."""
    reloads: bool = False
    """Whether SIGHUP brings a new value into a running server."""

    @property
    def flag(self) -> str:
        """As typed on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As set in the environment."""
        return PREFIX + self.name.upper()


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


def _file(value: str | Path) -> Path:
    try:
        return _directory(value)
    except ValueError as error:
        raise ValueError(str(error).replace("a directory", "a file")) from None


def _allowed_hosts(value: str | list[object]) -> tuple[str, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(item, str) for item in items):
        raise ValueError("every name is a string")
    names = [text.lower() for item in items for text in re.split(r"[,\s]+", str(item)) if text]
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise ValueError("write names such as teepi.example or *.teepi.example, without scheme and port")
    return tuple(dict.fromkeys(name.removesuffix(".") for name in names))


def _outside_url(value: str) -> str:
    url = sound_base(value.strip())
    if url is None:
        raise ValueError("write an absolute URL such as https://teepi.example or https://box.example/teepi")
    return url


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


def _log_format(value: str) -> str:
    name = value.strip().lower()
    if name not in FORMATS:
        raise ValueError(f"write one of {', '.join(FORMATS)}")
    return name


def _access_log(value: str | Path) -> str | Path | None:
    text = str(value).strip()
    if text.lower() == "off":
        return None
    return STDOUT if text == STDOUT else _file(value)


def _access_log_format(value: str) -> str:
    name = value.strip().lower()
    if name not in ACCESS_FORMATS:
        raise ValueError(f"write one of {', '.join(ACCESS_FORMATS)}")
    return name


def _days(value: str | float) -> float:
    try:
        return parse_seconds(value)
    except ValueError:
        raise ValueError("write a number of days, 0 or more") from None


def _names(value: str | list[object]) -> tuple[str, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(item, str) for item in items):
        raise ValueError("every name is a string")
    names = [name.strip() for item in items for name in str(item).split(",") if name.strip()]
    return tuple(dict.fromkeys(name.upper() if name.startswith(":") else name for name in names))


CONFIG_VARIABLE: Final = PREFIX + "CONFIG"
"""Names the file, as ``--config`` does; there is no such key in it."""

OPTIONS: Final = (
    Option(
        "listen",
        _listen,
        "HOST:PORT",
        "address to listen on; may be given several times, port 0 is any free one",
        "127.0.0.1:3141",
        toml=(str, list),
        example='["127.0.0.1:3141"]',
    ),
    Option(
        "tls_cert",
        _file,
        "FILE",
        "PEM file with the certificate, and those between it and its root, for https on all addresses",
        "none, so http",
        example='"/etc/teepi/fullchain.pem"',
    ),
    Option(
        "tls_key",
        _file,
        "FILE",
        "PEM file with the certificate's private key, not encrypted",
        "none, so http",
        example='"/etc/teepi/privkey.pem"',
    ),
    Option(
        "outside_url",
        _outside_url,
        "URL",
        "what clients outside reach teepi at, for links that have to be absolute; its host may be written to",
        "as the client's Host header, or X-Outside-URL, says",
        example='"https://teepi.example"',
        reloads=True,
    ),
    Option(
        "allowed_hosts",
        _allowed_hosts,
        "NAME",
        "host name under which teepi takes writes, besides addresses, localhost and names without a dot; "
        "may be given several times, *.NAME is all below it",
        "none",
        toml=(str, list),
        example='["teepi.example"]',
        reloads=True,
    ),
    Option(
        "upstream",
        parse_upstream,
        "URL",
        "root of the Simple API that root/pypi mirrors",
        "PyPI",
        example='"https://index.example/simple/"',
        reloads=True,
    ),
    Option(
        "cache_dir",
        _directory,
        "DIR",
        "where fetched files are kept; may be emptied while teepi is stopped",
        "$XDG_CACHE_HOME/teepi, else ~/.cache/teepi",
        example='"~/.cache/teepi"',
    ),
    Option(
        "data_dir",
        _directory,
        "DIR",
        "where users, private indexes and uploads are kept",
        "$XDG_DATA_HOME/teepi, else ~/.local/share/teepi",
        example='"~/.local/share/teepi"',
    ),
    Option(
        "max_size",
        parse_size,
        "SIZE",
        "how much the cache may hold; what was not used for longest goes first",
        "half of what is free at the first start",
        toml=(str, int),
        example='"50GB"',
    ),
    Option(
        "min_free",
        parse_size,
        "SIZE",
        "how much of the cache's disk always stays free",
        "5GiB",
        toml=(str, int),
        example='"5GiB"',
    ),
    Option(
        "max_age_unused",
        _days,
        "DAYS",
        "evict what nobody asked for in so many days, pages too",
        "never",
        toml=(int, float),
        example="90",
    ),
    Option(
        "scrub",
        _switch,
        "",
        "hash all cached files again in the background, slowly, about once in four weeks",
        "yes",
        toml=(bool,),
        example="true",
    ),
    Option(
        "proxpi_invalidation",
        _switch,
        "",
        "let anyone have a page fetched anew by DELETE /cache/PROJECT and /cache/list, as proxpi does",
        "no",
        toml=(bool,),
        example="false",
    ),
    Option(
        "page_ttl",
        parse_seconds,
        "SECONDS",
        "how long a page is served before upstream is asked whether it changed",
        "600",
        toml=(int, float),
        example="600",
        reloads=True,
    ),
    Option(
        "patience",
        parse_seconds,
        "SECONDS",
        "how long a client that can be answered with something older waits for a slow upstream",
        "2",
        toml=(int, float),
        example="2",
    ),
    Option(
        "offline",
        _switch,
        "",
        "never ask upstream: serve what is cached",
        "no",
        toml=(bool,),
        example="false",
        reloads=True,
    ),
    Option(
        "synthesize_metadata",
        _switch,
        "",
        "offer core metadata out of wheels",
        "yes",
        toml=(bool,),
        example="true",
        reloads=True,
    ),
    Option(
        "drain",
        parse_seconds,
        "SECONDS",
        "how long running answers may take to end once teepi is told to stop",
        "5",
        toml=(int, float),
        example="5",
    ),
    Option(
        "restrict_modify",
        _names,
        "USER,…",
        "who alone may make and change users and private indexes; root always may",
        "anyone makes users and changes what is his own",
        toml=(str, list),
        example='["root"]',
        reloads=True,
    ),
    Option(
        "insecure_empty_root",
        _switch,
        "",
        "let root log in with an empty password until one is set, for trying out",
        "no",
        toml=(bool,),
        example="false",
    ),
    Option(
        "max_upload",
        parse_size,
        "SIZE",
        "largest file that is taken as an upload",
        "10GiB",
        toml=(str, int),
        example='"10GiB"',
        reloads=True,
    ),
    Option(
        "log_level",
        _log_level,
        "LEVEL",
        f"one of {', '.join(_LOG_LEVELS)}",
        "info",
        example='"info"',
        reloads=True,
    ),
    Option(
        "log_format",
        _log_format,
        "FORMAT",
        "how log lines are written: text for people, json for programs",
        "text",
        example='"text"',
    ),
    Option(
        "access_log",
        _access_log,
        "FILE",
        "file for a line per answered request, opened anew on SIGHUP; - is stdout",
        "off",
        example='"off"',
    ),
    Option(
        "access_log_format",
        _access_log_format,
        "FORMAT",
        "how these lines are written: combined as nginx does, json with duration, request id and what the cache did",
        "combined",
        example='"combined"',
    ),
)
"""Every setting, in the order in which the help shows them."""
