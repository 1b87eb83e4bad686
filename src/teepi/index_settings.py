"""The ``[index."user/name"]`` sections of ``teepi.toml``: what an index mirrors and how, or of which others it is made.

Credentials stand in the user info of the URLs from here on, wherever they were given. ``config`` reads everything
else; nothing is connected to here.
"""

from __future__ import annotations

import difflib
import logging
import math
import netrc
import re
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from packaging.utils import InvalidName, canonicalize_name

from teepi.errors import ConfigError
from teepi.origins import hide_user_info

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from teepi.config_file import ConfigFile, Section

log = logging.getLogger(__name__)

# Each of these is, or will be, a path of its own beside the indexes.
RESERVED_USERS: Final = frozenset(
    {"simple", "index", "pypi", "packages", "cache", "health", "healthz", "readyz", "metrics"}
)
RESERVED_INDEXES: Final = frozenset({"json"})

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.1
# teepi sets these itself, or the connection does.
_OUR_HEADERS: Final = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-length", "host", "if-modified-since", "if-none-match"),
        *("if-range", "proxy-authorization", "range", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """One index that teepi serves: a mirror of an upstream, or made of other indexes."""

    upstream: str = field(default="", repr=False)
    """Absolute http(s) URL of the root of the upstream's Simple API (PEP 503); ends with ``/``; credentials, if any,
    in its user info. Empty for an index made of others."""
    more_mirrors: tuple[str, ...] = field(default=(), repr=False)
    """Mirrors of the same upstream, asked in this order when it fails."""
    page_ttl_seconds: float | None = None
    """None: as in :class:`teepi.config.Settings`."""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """Sent to the origins of the mirrors and nowhere else."""
    ca_file: Path | None = None
    """PEM file of certificate authorities, trusted besides the system's."""
    proxy: str | None = field(default=None, repr=False)
    """URL; None: what the environment says; empty: none."""
    allow_private: bool = False
    """Whether redirects and links may lead to private addresses."""
    bases: tuple[str, ...] = ()
    """Names of the indexes that this one is made of, the first that has a project owns it."""
    merge: frozenset[str] = frozenset()
    """Normalised names of the projects that are put together from all bases."""

    is_trusted: bool = True
    """Whether the upstream itself may be at a private address: not when any user may have named it."""
    is_bound: bool = False
    """Whether pages that came from another upstream are not shown: clients say what the upstream is."""
    is_shared: bool = True
    """Whether a file that another index has, too, is fetched once for both: the upstream is believed to have what its
    pages say."""

    @property
    def bound_to(self) -> str:
        """What an index that shares no files has them from: its upstream without credentials; else empty."""
        return "" if self.is_shared else hide_user_info(self.upstream)

    @property
    def mirrors(self) -> tuple[str, ...]:
        """All URLs of the upstream in the order in which they are asked."""
        return (self.upstream, *self.more_mirrors) if self.upstream else ()


def read_indexes(file: ConfigFile, environ: Mapping[str, str]) -> dict[str, IndexSettings]:
    """Return the indexes of the section ``index`` of ``file``. Raises :class:`ConfigError`."""
    sections = file.content.get("index", {})
    if not isinstance(sections, dict):
        raise ConfigError(f'{file.at("index")} is a section; write [index."user/name"] and an upstream below it.')
    indexes = {}
    for name, section in sections.items():
        where = file.section("index", name)
        _check_name(name, where)
        if not isinstance(section, dict) or not {"upstream", "bases"} & set(section):
            raise ConfigError(
                f'{where} lacks its upstream; add a line upstream = "https://…/simple/", or bases = ["user/name", …].'
            )
        keys = BASES_KEYS if "bases" in section else UPSTREAM_KEYS
        for key in section:
            if key in keys:
                continue
            if key in (*BASES_KEYS, *UPSTREAM_KEYS):
                raise ConfigError(f"{where.at(key)} and {keys[0]} exclude each other; remove one of them.")
            raise ConfigError(f"{where.at(key)} is no key of an index; {nearest(key, keys)} or remove it.")
        indexes[name] = _made_of(section, where) if "bases" in section else _mirror(section, where, environ)
    return indexes


UPSTREAM_KEYS: Final = (
    *("upstream", "page_ttl", "headers", "ca_file", "proxy", "username", "password", "password_env", "allow_private"),
)
BASES_KEYS: Final = ("bases", "merge")


def _mirror(section: Mapping[str, Any], where: Section, environ: Mapping[str, str]) -> IndexSettings:
    upstream = section["upstream"]
    urls = upstream if isinstance(upstream, list) else [upstream]
    if not urls or not all(isinstance(url, str) for url in urls):
        raise ConfigError(
            f"{where.at('upstream')} = {shown(upstream)} has the wrong type; write a string, or a list of them."
        )
    mirrors = []
    for url in urls:
        try:
            mirrors.append(parse_upstream(url))
        except ValueError as error:
            raise ConfigError(f"{where.at('upstream')} = {shown(url)} cannot be used: {error}.") from None
    credentials = _credentials(section, where, environ)
    if credentials is not None:
        mirrors = [_with_credentials(url, credentials) for url in mirrors]
    page_ttl = section.get("page_ttl")
    if page_ttl is not None:
        if isinstance(page_ttl, bool) or not isinstance(page_ttl, (int, float)):
            raise ConfigError(f"{where.at('page_ttl')} = {shown(page_ttl)} has the wrong type; write a number.")
        try:
            page_ttl = parse_seconds(page_ttl)
        except ValueError as error:
            raise ConfigError(f"{where.at('page_ttl')} = {shown(page_ttl)} cannot be used: {error}.") from None
    allow_private = section.get("allow_private", False)
    if not isinstance(allow_private, bool):
        raise ConfigError(
            f"{where.at('allow_private')} = {shown(allow_private)} has the wrong type; write true or false."
        )
    return IndexSettings(
        mirrors[0],
        tuple(mirrors[1:]),
        page_ttl,
        _headers(section.get("headers", {}), where, has_credentials="username" in section),
        _ca_file(section.get("ca_file"), where),
        _proxy(section.get("proxy"), where),
        allow_private,
    )


def _credentials(section: Mapping[str, Any], where: Section, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return user name and password of the section; no message shows them."""
    for key in ("username", "password", "password_env"):
        if key in section and not isinstance(section[key], str):
            raise ConfigError(f"{where.at(key)} has the wrong type; write a string.")
    if "password" in section and "password_env" in section:
        raise ConfigError(f"{where.at('password_env')} and password say the same thing twice; remove one of them.")
    if "username" not in section:
        for key in ("password", "password_env"):
            if key in section:
                raise ConfigError(f"{where.at(key)} needs a username; add one.")
        return None
    password = section.get("password", "")
    if "password_env" in section:
        variable = section["password_env"]
        if variable not in environ:
            raise ConfigError(f"{where.at('password_env')}: the environment variable {variable!r} is not set; set it.")
        password = environ[variable]
    if ":" in section["username"]:  # RFC 7617, 2
        raise ConfigError(f"{where.at('username')}: a username has no colon.")
    return section["username"], password


def _with_credentials(url: str, credentials: tuple[str, str]) -> str:
    """Return ``url`` with user info, unless it has its own."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return url
    user, password = (quote(text, safe="") for text in credentials)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))


def _headers(value: object, where: Section, *, has_credentials: bool) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ConfigError(f'{where.at("headers")} has the wrong type; write a table such as {{ X-Team = "a" }}.')
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OUR_HEADERS:
            raise ConfigError(f"{where.at('headers')}: {name!r} cannot be set; remove it.")
        if name.lower() == "authorization" and has_credentials:
            raise ConfigError(
                f"{where.at('headers')}: Authorization and username exclude each other; remove one of them."
            )
        if not isinstance(text, str) or not (text.isascii() and text.isprintable()):
            raise ConfigError(f"{where.at('headers')}: the value of {name} is no string of printable ASCII characters.")
    return MappingProxyType(dict(value))


def _ca_file(value: object, where: Section) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ConfigError(f"{where.at('ca_file')} = {shown(value)} has the wrong type; write the path of a PEM file.")
    path = where.file.path.parent / value
    try:
        path = (where.file.path.parent / Path(value).expanduser()).absolute()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:  # before OSError, which it is; its words are OpenSSL's
        raise ConfigError(
            f"{where.at('ca_file')} = {value!r}: there is no certificate in {path}, or a broken one; write the path of "
            "a PEM file, in which certificates begin with -----BEGIN CERTIFICATE-----."
        ) from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{where.at('ca_file')} = {value!r} cannot be read ({reason}); write the path of a PEM file."
        ) from None
    return path


def _proxy(value: object, where: Section) -> str | None:
    if value is None or value == "":
        return value
    try:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004, TRY301 - one sentence for all
        return parse_upstream(value)
    except ValueError:
        raise ConfigError(
            f'{where.at("proxy")} = {shown(value)} cannot be used: write a URL, http://proxy.example:3128, or "".'
        ) from None


def _made_of(section: Mapping[str, Any], where: Section) -> IndexSettings:
    lists = {}
    for key in BASES_KEYS:
        value = section.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{where.at(key)} = {shown(value)} has the wrong type; write a list of names.")
        lists[key] = value
    if not lists["bases"]:
        raise ConfigError(f"{where.at('bases')} is empty; name the indexes that it is made of.")
    if len(set(lists["bases"])) < len(lists["bases"]):
        raise ConfigError(f"{where.at('bases')} = {shown(lists['bases'])} names an index twice; remove one.")
    try:
        merge = frozenset(canonicalize_name(name, validate=True) for name in lists["merge"])
    except InvalidName:
        raise ConfigError(
            f"{where.at('merge')} = {shown(lists['merge'])} has what is not the name of a project."
        ) from None
    return IndexSettings(bases=tuple(lists["bases"]), merge=merge)


def check_bases(indexes: Mapping[str, IndexSettings]) -> None:
    """Raise :class:`ConfigError` when a base is unknown, or an index would be its own base."""

    def follow(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " → ".join((*above[above.index(name) :], name))
            raise ConfigError(f"The bases of indexes go in a circle ({circle}); take one of them out.")
        for base in indexes[name].bases:
            if base not in indexes:
                raise ConfigError(
                    f'[index."{name}"] bases: there is no index {base!r}; {nearest(base, indexes)} or add its section.'
                )
            follow(base, (*above, name))

    for name in indexes:
        follow(name, ())


def with_netrc(indexes: Mapping[str, IndexSettings], environ: Mapping[str, str]) -> dict[str, IndexSettings]:
    """Return ``indexes`` with the credentials that ``~/.netrc`` (or ``NETRC``) has for hosts of upstreams without any.

    Its ``default`` entry is not used: it names no host, and would be sent to public indexes.
    """
    named, home = environ.get("NETRC", ""), environ.get("HOME", "")
    path = Path(named) if named else Path(home, ".netrc")
    if not path.is_absolute() or not path.is_file():
        return dict(indexes)
    try:
        hosts = netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        reason = error.msg if isinstance(error, netrc.NetrcParseError) else type(error).__name__
        log.warning("%s is not used, since it cannot be read: %s.", path, reason)
        return dict(indexes)

    def completed(url: str) -> str:
        host = urlsplit(url).hostname or ""
        if host == "default" or host not in hosts:
            return url
        user, _, password = hosts[host]
        return _with_credentials(url, (user, password or ""))

    return {
        name: replace(
            index,
            upstream=completed(index.upstream),
            more_mirrors=tuple(map(completed, index.more_mirrors)),
        )
        if index.upstream and "authorization" not in map(str.lower, index.headers)
        else index
        for name, index in indexes.items()
    }


def _check_name(name: str, where: Section) -> None:
    user, slash, index = name.partition("/")
    if not (slash and _NAME.fullmatch(user) and _NAME.fullmatch(index)):
        raise ConfigError(
            f'{where}: an index is named "user/name", in quotes, each of lower-case letters, digits, ".", "_" and "-".'
        )
    for part, reserved in ((user, RESERVED_USERS), (index, RESERVED_INDEXES)):
        if part in reserved:
            raise ConfigError(f"{where}: {part!r} is reserved for a path of teepi's own; choose another name.")


# Shared with ``config`` -----------------------------------------------------------------------------


def shown(value: object) -> str:
    """Return the value for a message: user info, queries of URLs and what stands in a table are hidden."""
    if isinstance(value, dict):
        return "{…}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, (bool, int, float)):
        return repr(value)
    hidden = hide_user_info(str(value))
    return repr(re.sub(r"(?s)(//[^?]*\?).+", r"\1…", hidden))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what to write instead of ``name``."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"write {close[0]!r}" if close else f"write one of {', '.join(known)}"


def parse_upstream(value: str) -> str:
    """Return the URL with a slash at its end. Raises ValueError saying what is expected."""
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


def parse_seconds(value: str | float) -> float:
    """Return seconds. Raises ValueError saying what is expected."""
    expected = "write a number of seconds, 0 or more"
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        raise ValueError(expected) from None
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(expected)
    return seconds
