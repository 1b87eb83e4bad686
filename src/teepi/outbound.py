"""One index's way out: connections, proxies, credentials, and each hop of a redirect checked.

Every hop, the first included, must be http(s) and lead to a public address, unless it is an upstream's own origin
or the index allows private ones. What the answers mean is for ``upstream`` to say.
"""

from __future__ import annotations

import socket
import ssl
import urllib.request
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import DefaultResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from teepi import __version__
from teepi.errors import UpstreamError
from teepi.origins import Origin, basic, is_loopback, is_public, origin_of, split_user_info

if TYPE_CHECKING:
    from collections.abc import Mapping

    from teepi.index_settings import IndexSettings

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 10


class PrivateAddress(OSError):
    """A name has no public address."""


class PrivateTarget(UpstreamError):
    """A request was to go to a private address, which is not allowed there."""


class _Resolver(AbstractResolver):
    """Gives out public addresses only, save for ``trusted`` hosts; what it gives out is what is connected to."""

    def __init__(self, trusted: set[tuple[str, int]], *, allow_private: bool) -> None:
        self._inner = DefaultResolver()
        self._trusted = trusted
        self._allow_private = allow_private
        self._own: set[str] | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if self._allow_private or (host.lower(), port) in self._trusted:
            return found
        allowed = [each for each in found if is_public(each["host"])]
        if not allowed:
            own = await self._upstream_addresses()
            allowed = [each for each in found if each["host"] in own]
        if not allowed:
            raise PrivateAddress(f"{host} has no public address")
        return allowed

    async def _upstream_addresses(self) -> set[str]:
        """Return where the upstream itself is, loopback left out: a gateway that stands for the internet is there.

        Its resolver gives one address for the index and for the hosts that its pages name alike.
        """
        if self._own is None:
            found = [await self._inner.resolve(host, port, socket.AF_UNSPEC) for host, port in self._trusted]
            self._own = {each["host"] for each_found in found for each in each_found if not is_loopback(each["host"])}
        return self._own

    async def close(self) -> None:
        await self._inner.close()


class Outbound:
    """HTTP towards the upstream of one index. Create it on the running event loop."""

    def __init__(self, settings: IndexSettings) -> None:
        """Open no connection yet."""
        self._headers = settings.headers
        self._allow_private = settings.allow_private
        self._own: dict[Origin, str | None] = {}  # and its Authorization
        for mirror in settings.mirrors:
            bare, user_info = split_user_info(mirror)
            authorization = basic(*user_info) if user_info is not None else None
            self._own[origin_of(bare)] = authorization or self._own.get(origin_of(bare))
        self._proxies = _proxies(settings.proxy)
        self._proxies_are_ours = settings.proxy is not None
        self._proxy_places = {(origin.host, origin.port) for origin in map(origin_of, self._proxies.values())}
        self._trusted = set(self._own) if settings.is_trusted else set()
        trusted = {(origin.host, origin.port) for origin in self._trusted} | self._proxy_places
        self._resolver = _Resolver(trusted, allow_private=self._allow_private)
        self._ssl: ssl.SSLContext | bool = True
        if settings.ca_file is not None:
            self._ssl = ssl.create_default_context()
            self._ssl.load_verify_locations(settings.ca_file)

    def session(self, per_host: int) -> aiohttp.ClientSession:
        """Return a session whose requests are to be made by :meth:`request`."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                limit_per_host=per_host,
                ttl_dns_cache=300,
                keepalive_timeout=60,
                resolver=self._resolver,
                ssl=self._ssl,
            ),
            headers={"User-Agent": f"teepi/{__version__}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp would ask netrc for every host that a redirect names; proxies are chosen here, hop by hop.
            trust_env=False,
            max_line_size=16384,
            max_field_size=16384,
            # A transfer's own clock decides (limits); aiohttp's default of 300 s in total kills large files.
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def aclose(self) -> None:
        """Let go of the resolver; close the sessions first."""
        await self._resolver.close()

    async def request(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        decompress: bool,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - of one hop's socket; the caller bounds the whole
        data: aiohttp.FormData | None = None,
    ) -> aiohttp.ClientResponse:
        """Ask for ``url`` and follow redirects; return the last answer. With ``data`` to send none is followed.

        Raises :class:`UpstreamError` for a hop that is refused, and what aiohttp raises.
        """
        link_user: tuple[str, str] | None
        url, link_user = split_user_info(url)
        for _ in range(_MOST_REDIRECTS + 1):
            origin = origin_of(url)
            proxy = self._proxy_for(origin)
            self._require_public(origin, through_proxy=proxy is not None)
            sent = dict(headers)
            if link_user is not None:
                sent["Authorization"] = basic(*link_user)
            if origin in self._own:
                sent |= self._headers
                if (authorization := self._own[origin]) is not None:
                    sent["Authorization"] = authorization
            try:
                response = await session.request(
                    method,
                    URL(url, encoded=True),
                    headers=sent,
                    auto_decompress=decompress,
                    allow_redirects=False,
                    proxy=proxy,
                    timeout=timeout,
                    data=data,
                )
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, PrivateAddress):
                    raise _private(origin) from error
                raise
            location = response.headers.get("Location") if response.status in _REDIRECTS else None
            if location is None or data is not None:
                return response
            response.release()
            url, link_user = _target(response.url, location), None
        msg = f"{origin_of(url).host} redirects more than {_MOST_REDIRECTS} times."
        raise UpstreamError(msg)

    def _proxy_for(self, origin: Origin) -> str | None:
        proxy = self._proxies.get(origin.scheme)
        if proxy is not None and not self._proxies_are_ours and urllib.request.proxy_bypass(origin.host):
            return None
        return proxy

    def _require_public(self, origin: Origin, *, through_proxy: bool) -> None:
        """Refuse a literal private address, for which no resolver is asked, and the proxy itself as a target."""
        if self._allow_private or origin in self._trusted:
            return
        try:
            literal = is_public(origin.host)
        except ValueError:
            try:
                literal = is_public(socket.inet_ntoa(socket.inet_aton(origin.host)))  # 2130706433, 0x7f.1
            except (OSError, ValueError):
                literal = through_proxy or (origin.host, origin.port) not in self._proxy_places
        if not literal:
            raise _private(origin)


def _private(origin: Origin) -> PrivateTarget:
    msg = (
        f"{origin.host} is at a private address, and only a configured upstream may be; "
        "set allow_private for this index if that is meant."
    )
    return PrivateTarget(msg)


def _target(url: URL, location: str) -> str:
    """Return where a redirect leads (RFC 9110, 10.2.2), without user info and fragment."""
    try:
        target = url.join(URL(location)).with_fragment(None)
        origin_of(str(target))
    except ValueError:
        msg = f"{url.host} redirects to something that is no http or https URL."
        raise UpstreamError(msg) from None
    return split_user_info(str(target))[0]


def _proxies(proxy: str | None) -> dict[str, str]:
    """Return the proxy of each scheme: ``proxy`` for both, ``""`` for none, None for what the environment says."""
    given = urllib.request.getproxies() if proxy is None else {"http": proxy, "https": proxy}
    return {
        scheme: given[scheme]
        for scheme in ("http", "https")
        if given.get(scheme, "").startswith(("http://", "https://"))
    }
