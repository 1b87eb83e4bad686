"""URLs under which installers find this teepi."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from teepi.errors import ConfigError
from teepi.index_settings import parse_upstream, shown
from teepi.origins import is_loopback, origin_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_INDEX: Final = re.compile(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*")


def server_url(listen: Sequence[tuple[str, int]], scheme: str) -> str:
    """Return the URL of the first address of ``listen`` for clients on this machine, ``/`` at its end.

    Raises :class:`ConfigError` when the port is any free one.
    """
    host, port = listen[0]
    if not port:
        raise ConfigError("The settings let teepi listen on any free port; name its address with --url.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{scheme}://{host}:{port}/"
    if address.is_unspecified:  # all interfaces: loopback is one of them
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")  # noqa: PLR2004 - IPv4
    return f"{scheme}://[{address}]:{port}/" if ":" in str(address) else f"{scheme}://{address}:{port}/"


def parse_server_url(text: str) -> str:
    """Return what ``--url`` names, ``/`` at its end. Raises :class:`ConfigError`."""
    try:
        url = parse_upstream(text)
    except ValueError:
        raise ConfigError(f"--url {shown(text)} is no address; write one such as http://127.0.0.1:3141/.") from None
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigError("--url has a user name or password; leave them out, they belong into ~/.netrc.")
    if not re.fullmatch(r"[A-Za-z0-9._~%:/\[\]+-]+", url):
        raise ConfigError(f"--url {shown(text)} has characters that a client's settings cannot hold.")
    return url


def index_url(server: str, index: str) -> str:
    """Return the URL of an index; a ``server`` that ends with ``simple/`` is one already.

    Raises :class:`ConfigError` when ``index`` is no ``user/name``.
    """
    if server.endswith(("/+simple/", "/simple/")):
        return server
    if not _INDEX.fullmatch(index):
        raise ConfigError(f"--index {index!r} is no index; write USER/NAME, as in root/pypi.")
    return f"{server}{index}/+simple/"


def is_same_server(one: str | None, other: str) -> bool:
    """Whether two URLs lead to one server; all names of this machine's loopback are the same."""
    try:
        return one is not None and _place(one) == _place(other)
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Whether ``host`` is this machine's loopback."""
    try:
        return host == "localhost" or is_loopback(host)
    except ValueError:
        return False


def _place(url: str) -> tuple[str, str, int]:
    scheme, host, port = origin_of(url)
    return scheme, "localhost" if is_local(host) else host, port


def root_of(url: str) -> str:
    """Return the server of an index URL; any other URL is one itself."""
    return re.sub(r"([^/]+/[^/]+/\+simple|(?<=/)simple)/$", "", url)
