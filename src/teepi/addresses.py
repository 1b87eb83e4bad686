"""Where an upstream's file lives below our index, and which URL a link of a page means.

Only strings in and out: no IO, no page formats, no records. Every link made here is one that
:func:`teepi.http_semantics.decode_target` accepts, and its path decodes to the address beside it.
"""

from __future__ import annotations

import hashlib
import re
import string
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from teepi.errors import BadRequest
from teepi.http_semantics import decode_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from teepi.model import Digest

_AUTHORITY: Final = re.compile(r"([a-z0-9][a-z0-9._-]*|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?")
_KINDS: Final = {"https": ("+files", 443), "http": ("+http", 80)}


def address_of(url: str, filename: str, digest: Digest | None) -> tuple[str, str]:
    """Return the address of the file at ``url`` below the index's base, decoded, and the link to it, encoded.

    ``+files/{authority}/{path}`` (``+http/…`` for http) keeps the upstream's own path byte for byte in the link,
    so that a lock file is turned into the upstream's by replacing a prefix. A URL for which that would be unsafe,
    ambiguous or not end in ``filename`` gets :func:`hashed_address`.
    """
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    place = _place(scheme, authority)
    decoded = _decoded(slash + path)
    if place is not None and decoded is not None and decoded.endswith("/" + filename):
        return place[0] + decoded, place[1] + slash + path
    return hashed_address(url, filename, digest)


def hashed_address(url: str, filename: str, digest: Digest | None) -> tuple[str, str]:
    """Return address and link by sha256, ``+f/{3}/{13}/{filename}``, else by raw URL, ``+e/{16}/{filename}``."""
    if digest is not None and digest.algorithm == "sha256":
        folder = f"+f/{digest.hex[:3]}/{digest.hex[3:16]}/"
    else:
        folder = f"+e/{hashlib.sha256(url.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}/"
    return folder + filename, folder + quote(filename, safe="")


_UNUSUAL: Final = re.compile(r"[^!$&-.0-;=@-Z_a-z~/]|/[./]")  # encoded, to be encoded, or with segments that vanish
_USUAL_ORIGIN: Final = re.compile(r"https?://[a-z0-9][a-z0-9.-]*(?::[0-9]+)?")


def plain_address(url: str) -> str | None:
    """Return the address of ``url``, which is also the link to it; None where :func:`address_of` has to decide.

    Says of an absolute URL in plain spelling what :func:`link_resolver` and :func:`address_of` say, at a third of
    their price: it is its own resolution, and has no fragment.
    """
    if _UNUSUAL.search(url, _AUTHORITY_START) is not None:
        return None
    path_start = url.find("/", _AUTHORITY_START)
    place = _plain_place(url[:path_start]) if 0 < path_start <= _LONGEST_ORIGIN else None
    return None if place is None else place + url[path_start:]


@lru_cache(maxsize=1024)
def _plain_place(origin: str) -> str | None:
    """Return kind and authority of ``origin`` where there is nothing special about them."""
    if not _USUAL_ORIGIN.fullmatch(origin) or not _has_host(origin):
        return None
    scheme, _, authority = origin.partition("://")
    place = _place(scheme, authority)
    return None if place is None else place[0]


@lru_cache(maxsize=1024)
def _place(scheme: str, authority: str) -> tuple[str, str] | None:
    """Return kind and authority (lower case, no userinfo, no default port), decoded and encoded, or None."""
    match = _AUTHORITY.fullmatch(authority.rpartition("@")[2].lower())
    if match is None or scheme.lower() not in _KINDS:
        return None
    kind, default_port = _KINDS[scheme.lower()]
    port = int(match[2] or default_port)
    place = f"{kind}/{match[1]}" + (f":{port}" if port != default_port else "")
    return place, place.replace("[", "%5B").replace("]", "%5D")


def _decoded(path: str) -> str | None:
    """Return ``path`` percent-decoded once, or None when a request for it would be refused or is ambiguous."""
    if "?" in path or "#" in path or not path.isascii():
        return None
    decoded = path
    if "%" in path or "/." in path or "\\" in path or not path.isprintable():
        try:
            decoded, _ = decode_target(path)
        except BadRequest:
            return None
    return None if "//" in decoded else decoded


_IN_URL: Final = string.ascii_letters + string.digits + string.punctuation
_SURROGATE: Final = re.compile("[\ud800-\udfff]")  # of JSON; UTF-8 has none
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ORIGIN: Final = re.compile(r"https?://[^/?#\\]+", re.IGNORECASE)
_LONGEST_ORIGIN: Final = 1000  # a host has 253 characters (RFC 1035), user info may be long
_AUTHORITY_START: Final = len("http://") + 1  # no authority is empty
# Climbs, or the root, and then a path without dot segments, scheme or query at its front.
_RELATIVE: Final = re.compile(r"((?:\.\./)*+|/)[^./:?#][^:]*")


def link_resolver(base: str) -> Callable[[str], tuple[str, str] | None]:
    """Return the function that turns a link of the page at ``base`` into (absolute URL, fragment).

    The URL stays raw as the page spelt it, except that what may not stand in a URL is percent-encoded. The
    function gives None for what is no file: other schemes than http and https, a fragment alone, no host, a
    control character. (A whole page is resolved five times as fast as by :func:`urllib.parse.urljoin` alone.)
    """
    folders: dict[str, str] = {}

    def resolve(link: str) -> tuple[str, str] | None:
        url, _, fragment = link.strip(string.whitespace).partition("#")
        if not url.isascii() or not url.isprintable() or " " in url:
            if _CONTROL.search(url):
                return None
            url = quote(_SURROGATE.sub("%3F", url), safe=_IN_URL)
        if not url:
            return None
        if not url.startswith(("https://", "http://")):
            match = _RELATIVE.fullmatch(url)
            try:
                if match is None or "/." in url[len(match[1]) :]:
                    url = urljoin(base, url)
                else:
                    lead = match[1]
                    if lead not in folders:
                        folders[lead] = urljoin(base, lead or "./")
                    url = folders[lead] + url[len(lead) :]
            except ValueError:
                return None
        path_start = url.find("/", _AUTHORITY_START)
        return (url, fragment) if 0 < path_start <= _LONGEST_ORIGIN and _has_host(url[:path_start]) else None

    return resolve


@lru_cache(maxsize=1024)
def _has_host(origin: str) -> bool:
    """Whether ``scheme://authority`` names a host, with a port that exists."""
    if not _ORIGIN.fullmatch(origin):
        return False
    try:
        parts = urlsplit(origin)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def filename_of(url: str) -> str:
    """Return the last segment of the path of ``url``, percent-decoded; empty when it has none."""
    name = url.partition("?")[0].rpartition("/")[2]
    return unquote(name) if "%" in name else name


def path_of(url: str) -> str:
    """Return the path of ``url``, percent-decoded; empty where it is no URL."""
    try:
        return unquote(urlsplit(url).path)
    except ValueError:  # an authority that is no IPv6 address
        return ""


def is_filename(name: str) -> bool:
    """Whether ``name`` can be the name of a file: one path segment of printable characters."""
    return name.isprintable() and "/" not in name and "\\" not in name and name not in {"", ".", ".."}
