"""Settings from flags, ``TEEPI_`` variables and ``teepi.toml``, as one frozen object.

``options`` names every setting once. The first of flag, variable, file and default that has it wins. Nothing is
created, connected to or printed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from teepi.config_file import ConfigFile
from teepi.errors import ConfigError
from teepi.index_settings import IndexSettings, check_bases, nearest, read_indexes, shown, with_netrc
from teepi.limits import Limits
from teepi.options import CONFIG_VARIABLE, OPTIONS, PREFIX, Option

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_INDEX_NAME",
    "OPTIONS",
    "PREFIX",
    "Effective",
    "Option",
    "Settings",
    "load",
    "trace",
]

DEFAULT_INDEX_NAME: Final = "root/pypi"
"""The index that is always there; a bare ``upstream`` is its upstream."""

BY_DEFAULT: Final = "default"
"""The origin of what nobody has set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked."""

    listen: tuple[tuple[str, int], ...]
    """Host (an IPv6 address without its brackets) and port, 0 for any free one."""
    tls_cert: Path | None
    """Absolute; PEM. With :attr:`tls_key`: all addresses speak TLS."""
    tls_key: Path | None
    """Absolute; PEM."""
    outside_url: str | None
    """Absolute http(s) URL, perhaps with a path, without a slash at its end; None: as the request says."""
    allowed_hosts: tuple[str, ...]
    """Lower case, without a dot at the end; ``*.name`` is all below ``name``. Writes are taken under them."""
    indexes: Mapping[str, IndexSettings]
    """By ``user/name``; always has :data:`DEFAULT_INDEX_NAME`, first."""
    has_built_in: bool
    """Whether the default index mirrors what it does since nobody has set anything else."""
    cache_dir: Path
    """Absolute; may be emptied while teepi is stopped."""
    data_dir: Path
    """Absolute; precious."""
    max_size_bytes: int | None
    """Bytes that the cache may hold; None is half of what is free at the first start."""
    min_free_bytes: int
    """Bytes of the cache's disk that stay free."""
    max_age_unused_days: float | None
    """Days; what was not used for so long is evicted."""
    scrub: bool
    """Hash cached files again in the background."""
    proxpi_invalidation: bool
    """Answer proxpi's ``DELETE /cache/…``."""
    page_ttl_seconds: float
    """So long a page is served without asking upstream; 0 asks every time."""
    patience_seconds: float
    """So long a request that has a stale answer waits for upstream to confirm it; 0 not at all."""
    offline: bool
    """Never ask upstream."""
    synthesize_metadata: bool
    """Advertise core metadata of wheels for which upstream has none, and read it out of them when asked."""
    drain_seconds: float
    """So long running answers may take to end once teepi is told to stop."""
    log_level: str
    """``debug``, ``info``, ``warning`` or ``error``."""
    log_format: str
    """``text`` or ``json``."""
    restrict_modify: tuple[str, ...]
    """Users and groups who alone may make and change users and indexes; empty: anyone his own."""
    insecure_empty_root: bool
    """Let root log in with an empty password until one is set."""
    max_upload_bytes: int
    """Bytes of the largest upload that is taken."""
    access_log: Path | str | None
    """Absolute path, or ``-`` for stdout; None for none."""
    access_log_format: str
    """``combined`` or ``json``."""

    @property
    def configured_indexes(self) -> frozenset[str]:
        """Names of those that somebody set: clients cannot change them."""
        return frozenset(self.indexes) - ({DEFAULT_INDEX_NAME} if self.has_built_in else set())

    @property
    def scheme(self) -> str:
        """Of the server's URLs."""
        return "http" if self.tls_cert is None else "https"


@dataclass(frozen=True, slots=True)
class Effective:
    """The settings, and for each where it came from."""

    settings: Settings
    file: Path | None
    """The configuration file that was read."""
    origins: Mapping[str, str]
    """By option or index (``user/name``): ``default``, the flag, the variable, or file and line."""


def load(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings; ``arguments`` are the flags by name, None or absent where not given.

    Raises :class:`ConfigError` with one sentence that names the flag, variable or file and line, the value and the
    remedy.
    """
    return trace(arguments, environ).settings


def trace(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Effective:
    """Return the settings as :func:`load` does, with their origins."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    indexes: dict[str, IndexSettings] = {}
    path = config_file(arguments, environ)
    if path is not None:
        file = ConfigFile.read(path)
        values, indexes = _from_file(file, environ)
        origins |= {name: file.place(name) for name in values}
        origins |= {name: file.section("index", name).place for name in indexes}
    for option, text, origin in (*_in_environment(environ), *_in_arguments(arguments)):
        values[option.name] = _parsed(option, text, origin)
        origins[option.name] = origin
    if "upstream" in values:
        indexes[DEFAULT_INDEX_NAME] = IndexSettings(values["upstream"])
        origins[DEFAULT_INDEX_NAME] = origins["upstream"]
    default = indexes.get(DEFAULT_INDEX_NAME) or IndexSettings(_default_upstream())
    indexes = with_netrc({DEFAULT_INDEX_NAME: default} | indexes, environ)
    check_bases(indexes)
    _check_pair(values, origins)
    settings = Settings(
        listen=values.get("listen", (("127.0.0.1", 3141),)),
        tls_cert=values.get("tls_cert"),
        tls_key=values.get("tls_key"),
        outside_url=values.get("outside_url"),
        allowed_hosts=values.get("allowed_hosts", ()),
        indexes=MappingProxyType(indexes),
        has_built_in=DEFAULT_INDEX_NAME not in origins,
        cache_dir=values.get("cache_dir") or _xdg(environ, "XDG_CACHE_HOME", ".cache", "cache_dir"),
        data_dir=values.get("data_dir") or _xdg(environ, "XDG_DATA_HOME", ".local/share", "data_dir"),
        max_size_bytes=values.get("max_size"),
        min_free_bytes=values.get("min_free", 5 << 30),
        max_age_unused_days=values.get("max_age_unused"),
        scrub=values.get("scrub", True),
        proxpi_invalidation=values.get("proxpi_invalidation", False),
        page_ttl_seconds=values.get("page_ttl", 600.0),
        patience_seconds=values.get("patience", Limits().page_patience_seconds),
        offline=values.get("offline", False),
        synthesize_metadata=values.get("synthesize_metadata", True),
        drain_seconds=values.get("drain", 5.0),
        log_level=values.get("log_level", "info"),
        log_format=values.get("log_format", "text"),
        restrict_modify=values.get("restrict_modify", ()),
        insecure_empty_root=values.get("insecure_empty_root", False),
        max_upload_bytes=values.get("max_upload", 10 << 30),
        access_log=values.get("access_log"),
        access_log_format=values.get("access_log_format", "combined"),
    )
    names = (*(option.name for option in OPTIONS), *indexes)
    return Effective(settings, path, MappingProxyType({name: origins.get(name, BY_DEFAULT) for name in names}))


def _check_pair(values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if one in values and other not in values:
            raise ConfigError(
                f"{one} is set ({origins[one]}) and {other} is not: name both PEM files for https, none for http."
            )


def config_file(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Path | None:
    """Return the configuration file that is named, else the one in its usual place, if it is there."""
    named = arguments.get("config") or environ.get(CONFIG_VARIABLE, "").strip()
    if named:
        try:
            return Path(named).expanduser().absolute()
        except RuntimeError:
            raise ConfigError(f"The configuration file {named} is in an unknown home; write the whole path.") from None
    file = usual_config_file(environ)
    return file if file is not None and file.exists() else None


def usual_config_file(environ: Mapping[str, str]) -> Path | None:
    """Return ``$XDG_CONFIG_HOME/teepi/teepi.toml``, or None without a home."""
    base = _xdg_base(environ, "XDG_CONFIG_HOME", ".config")
    return None if base is None else base / "teepi" / "teepi.toml"


def _in_arguments(arguments: Mapping[str, Any]) -> list[tuple[Option, Any, str]]:
    given = ((option, arguments.get(option.name)) for option in OPTIONS)
    return [(option, value, option.flag) for option, value in given if value is not None]


def _in_environment(environ: Mapping[str, str]) -> list[tuple[Option, Any, str]]:
    known = {option.variable: option for option in OPTIONS}
    found = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable not in known:
            raise ConfigError(
                f"The environment variable {variable} is no setting of teepi; "
                f"{nearest(variable, (*known, CONFIG_VARIABLE))} or unset it."
            )
        if environ[variable].strip():  # an empty variable counts as unset, as with the XDG ones
            found.append((known[variable], environ[variable], variable))
    return found


def _from_file(file: ConfigFile, environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, IndexSettings]]:
    known = {option.name: option for option in OPTIONS}
    values = {}
    for key, value in file.content.items():
        if key in known:
            typed = _typed(known[key], value, file.at(key))
            values[key] = _parsed(known[key], typed, file.at(key), file.path.parent)
        elif key != "index":
            what = "section" if isinstance(value, dict) else "key"
            raise ConfigError(f"{file.at(key)} is no {what} of teepi; {nearest(key, (*known, 'index'))} or remove it.")
    indexes = read_indexes(file, environ)
    if "upstream" in values and DEFAULT_INDEX_NAME in indexes:
        raise ConfigError(
            f'{file.at("upstream")} and [index."{DEFAULT_INDEX_NAME}"] say the same thing twice; remove one of them.'
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


_TOML_NAMES: Final = {str: "a string", list: "a list", int: "a whole number", float: "a number", bool: "true or false"}


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
            f"HOME is not set, so there is no place for {name}; set {PREFIX}{name.upper()} to a directory."
        )
    return base / "teepi"


def _default_upstream() -> str:
    """Return the Simple API beside the default of a well-kept library; its import costs 70 ms, hence only now."""
    from distlib.index import DEFAULT_INDEX  # noqa: PLC0415

    parts = urlsplit(str(DEFAULT_INDEX))
    return urlunsplit((parts.scheme, parts.netloc, "/simple/", "", ""))
