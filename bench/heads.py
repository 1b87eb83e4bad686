"""Request heads as clients send them, recorded on a socket: pip 26.3, 24.0 and 20.3, uv 0.13.

The User-Agent's distribution and kernel are made generic, their length kept. ``identity`` is a head whose
Accept-Encoding was replaced, as a client behind a tool that asks for no compression sends it.
"""

from __future__ import annotations

import re

JSON = "application/vnd.pypi.simple.v1+json"
_ABOUT = (
    '"distro":{"id":"bookworm","libc":{"lib":"glibc","version":"2.36"},"name":"Debian GNU/Linux","version":"12"},'
    '"implementation":{"name":"CPython","version":"3.11.7"},'
)
_PIP_AGENT = (
    'pip/26.3 {"ci":null,"cpu":"x86_64",' + _ABOUT + '"installer":{"name":"pip","version":"26.3"},'
    '"openssl_version":"OpenSSL 3.0.19 27 Jan 2026","python":"3.11.7","system":{"name":"Linux","release":"6.1.0-41"}}'
)
_OLD_PIP_AGENT = _PIP_AGENT.replace("26.3", "20.3.4")
_UV_AGENT = (
    'uv/0.13.9 {"installer":{"name":"uv","version":"0.13.9","subcommand":["pip","install"]},"python":"3.11.7",'
    '"implementation":{"name":"CPython","version":"3.11.7"},"distro":{"name":"Debian GNU/Linux","version":"12",'
    '"id":"bookworm","libc":{"lib":"glibc","version":"2.36"}},"system":{"name":"Linux","release":"6.1.0-41"},'
    '"cpu":"x86_64","openssl_version":null,"setuptools_version":null,"rustc_version":null,"ci":null}'
)

PIP_PAGE = f"""GET @TARGET@ HTTP/1.1
Host: 127.0.0.1:@PORT@
User-Agent: {_PIP_AGENT}
Accept-Encoding: gzip, deflate
Accept: {JSON}, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01
Connection: keep-alive

"""

PIP_24_PAGE = PIP_PAGE.replace("pip/26.3", "pip/24.0").replace("keep-alive\n", "keep-alive\nCache-Control: max-age=0\n")
"""pip until 25 asks for pages like this."""

UV_PAGE = f"""GET @TARGET@ HTTP/1.1
Accept-Encoding: gzip, deflate, zstd
Accept: {JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01
User-Agent: {_UV_AGENT}
Host: 127.0.0.1:@PORT@

"""

OLD_PIP_PAGE = f"""GET @TARGET@ HTTP/1.1
Host: 127.0.0.1:@PORT@
User-Agent: {_OLD_PIP_AGENT}
Accept-Encoding: gzip, deflate
Accept: text/html
Connection: keep-alive
Cache-Control: max-age=0

"""
"""pip 20.3: the newest of those that take HTML alone."""

PIP_FILE = f"""GET @TARGET@ HTTP/1.1
Host: 127.0.0.1:@PORT@
User-Agent: {_PIP_AGENT}
Accept-Encoding: identity
Accept: */*
Connection: keep-alive

"""

UV_FILE = f"""GET @TARGET@ HTTP/1.1
Accept-Encoding: identity
Accept: */*
User-Agent: {_UV_AGENT}
Host: 127.0.0.1:@PORT@

"""

_CODINGS = re.compile(r"^Accept-Encoding: .*$", re.MULTILINE)


def head(recorded: str, target: str, port: int, *, identity: bool = False) -> bytes:
    """Return a recorded head as it goes over the wire to ``target``."""
    text = _CODINGS.sub("Accept-Encoding: identity", recorded) if identity else recorded
    return text.replace("@TARGET@", target).replace("@PORT@", str(port)).replace("\n", "\r\n").encode("ascii")
