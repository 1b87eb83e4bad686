"""Origins of URLs, the user info in them, how they are shown, and which IP addresses are public.

Strings and addresses only: nothing is resolved or connected to here.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_SCHEME: Final = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
# Characters that mean nothing to a shell, HTML or JSON either: people paste it.
_SOUND_BASE: Final = re.compile(
    r"https?://(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?(?:/[A-Za-z0-9._~%+@-]+)*/*"
)
_LARGEST_PORT: Final = 65535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# Addresses that carry an IPv4 one in their last 32 bits: IPv4-compatible (RFC 4291), SIIT (RFC 2765), NAT64 (RFC 6052).
_IPV4_AT_END: Final = tuple(ipaddress.IPv6Network(text) for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
# Never public, whatever this Python's tables say: local NAT64 (RFC 8215), site-local (RFC 3879).
_NEVER_PUBLIC: Final = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b:1::/48", "fec0::/10"))


class Origin(NamedTuple):
    """Scheme, host (lower case, no brackets) and port (RFC 6454): where credentials may go."""

    scheme: str
    host: str
    port: int


def origin_of(url: str) -> Origin:
    """Return the origin of an absolute http(s) URL. Raises ValueError for anything else."""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("not an http or https URL")
    return Origin(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])


def sound_base(url: str) -> str | None:
    """Return an absolute http(s) URL that others can be put behind, without a slash at its end; else None."""
    found = _SOUND_BASE.fullmatch(url)
    if found is None or not 0 < int(found["port"] or 80) <= _LARGEST_PORT:
        return None
    try:
        urlsplit(url)  # brackets hold an address
    except ValueError:
        return None
    return url.rstrip("/")


def split_user_info(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return ``url`` without its user info, and that as (user, password), decoded, or None."""
    parts = urlsplit(url)
    user_info, at, place = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = user_info.partition(":")
    return urlunsplit(parts._replace(netloc=place)), (unquote(user), unquote(password))


def basic(user: str, password: str) -> str:
    """Return the value of Authorization (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def hide_user_info(url: str) -> str:
    """Return ``url``, which may be anything that somebody took for one, with ``…`` for its user info.

    That ends at the last ``@``, wherever it stands: a password that was not encoded may have any character in it, and
    a path that is hidden does less harm than a password that is not.
    """
    scheme = _SCHEME.match(url)
    start = scheme.end() if scheme is not None else 0
    at = url.rfind("@", start)
    return url if at < 0 else f"{url[:start]}…{url[at:]}"


def hide_user_info_in(text: str) -> str:
    """Return a line that may have a URL somewhere in it, the user info hidden as :func:`hide_user_info` does."""
    before, slashes, url = text.partition("//")
    return before + slashes + hide_user_info(url)


def shown(url: str) -> str:
    """Return ``url`` as it may be shown and logged: user info hidden, without query and fragment."""
    return re.split(r"[?#]", hide_user_info(url), maxsplit=1)[0]


def is_loopback(address: str) -> bool:
    """Whether a literal IP address is this machine's own, an IPv4 one in IPv6 included."""
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Whether a literal IP address belongs to the public internet.

    An IPv6 address that stands for an IPv4 one (mapped, compatible, NAT64, 6to4, Teredo) is judged by both.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        inner += [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) for network in _IPV4_AT_END if ip in network]
        carried = [each for each in inner if each is not None]
        if any(ip in network for network in _NEVER_PUBLIC) or not all(map(is_public, carried)):
            return False
        if carried:
            return True
    return ip.is_global and not (
        ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_reserved or ip.is_unspecified
    )
