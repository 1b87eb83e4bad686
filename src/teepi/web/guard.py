"""Whether a write may be looked at: it has to come under a name of teepi's, and from no other site's page.

Names that somebody else owns can be pointed at this machine while a page of theirs is open (DNS rebinding); the
browser then takes teepi for their site. Who may do what is for others to say, and reading is not guarded.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from teepi.errors import RefusedWrite

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.web_request import BaseRequest

    from teepi.config import Settings

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, 9.2.1
_AUTHORITY: Final = r"(?P<host>[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
_HOST: Final = re.compile(_AUTHORITY)
_ORIGIN: Final = re.compile(r"(?P<scheme>https?)://" + _AUTHORITY)  # RFC 6454, 6.2
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class _Place(NamedTuple):
    host: str
    """Lower case; an IPv6 address in its brackets."""
    port: int | None


def check(request: BaseRequest, settings: Settings) -> None:
    """Let a request pass that reads, or writes where and as it may. Raises :class:`RefusedWrite`."""
    if request.method in _SAFE:
        return
    names = _names(settings)
    host = _place(_HOST, request.headers.getall("Host", ()))
    if host is None:
        raise RefusedWrite("A write names the host that it is for; this one has no Host that can be read.")
    if not (_is_nobodys(host.host) or _is_listed(host.host, names)):
        raise RefusedWrite(
            f"Writes are not taken under the name {host.host}; if it is teepi's, add it to the setting allowed_hosts."
        )
    origins = request.headers.getall("Origin", ())
    if origins and not _is_own(origins, host, names):
        raise RefusedWrite(
            "This write comes from a web page of another site; if that is teepi's, add its name to the setting "
            "allowed_hosts."
        )
    if "cross-site" in request.headers.getall("Sec-Fetch-Site", ()):  # W3C Fetch Metadata; told by the browser itself
        raise RefusedWrite("This write comes from a web page of another site; use teepi's own page or a client.")


def check_form(request: BaseRequest, base: str) -> None:
    """Let a form pass that is of a page below ``base`` itself, or of no page at all. Raises :class:`RefusedWrite`.

    The cookie that such a form acts by goes to every port and to every name below this server's (RFC 6265, 8.5; sites
    have no ports), which others may have: more is asked of it than of a write that brings its own credentials.
    """
    origins = request.headers.getall("Origin", ())
    told = request.headers.getall("Sec-Fetch-Site", ())  # W3C Fetch Metadata; told by the browser itself
    if not origins and not told:
        return
    if told:
        is_ours = list(told) == ["same-origin"]
    else:
        host = _place(_HOST, request.headers.getall("Host", ()))
        own = urlsplit(base)
        origin = f"{own.scheme}://{own.netloc}"
        is_ours = (host is not None and _is_own(origins, host, ())) or list(origins) == [origin]
    if not is_ours:
        raise RefusedWrite("This form was sent by a page that is not of this server; use teepi's own page.")


def _names(settings: Settings) -> tuple[str, ...]:
    if settings.outside_url is None:
        return settings.allowed_hosts
    return (*settings.allowed_hosts, (urlsplit(settings.outside_url).hostname or "").rstrip("."))


def _place(pattern: re.Pattern[str], values: Iterable[str]) -> _Place | None:
    """Return the one value's host and port; None when it is none, or there are several."""
    found = pattern.fullmatch(", ".join(values).strip())
    if found is None:
        return None
    port = found["port"] or _DEFAULT_PORTS.get(found.groupdict().get("scheme", ""))
    return _Place(found["host"].lower(), None if port is None else int(port))


def _is_nobodys(host: str) -> bool:
    """Whether ``host`` cannot be bought, so that nobody else can point it here."""
    if "." not in host and ":" not in host:
        return True
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.removesuffix(".").rpartition(".")[2] == "localhost"  # RFC 6761, 6.3
    return True


def _is_listed(host: str, names: Iterable[str]) -> bool:
    """Whether ``host`` is one of ``names``, or below one that begins with ``*.``."""
    name = host.removesuffix(".").strip("[]")
    return any(name.endswith(each[1:]) if each.startswith("*.") else name == each for each in names)


def _is_own(origins: Iterable[str], host: _Place, names: Iterable[str]) -> bool:
    """Whether Origin is where the request went, http or https (TLS may end before us), or a name of teepi's."""
    values = list(origins)
    origin = _place(_ORIGIN, values)
    if origin is None:  # null, a browser's extension, or nonsense
        return False
    usual = _DEFAULT_PORTS[values[0].strip().partition(":")[0]]
    own_port = usual if host.port is None else host.port
    return (origin.host, origin.port) == (host.host, own_port) or _is_listed(origin.host, names)
