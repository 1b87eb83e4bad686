"""The guard that keeps tests on loopback: every other address is refused, loudly, and remembered.

It watches the ways out of this process: the standard library's sockets and resolver, and uvloop, which
resolves by itself. Literal addresses may be parsed; they are refused when something connects to them.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

import uvloop

if TYPE_CHECKING:
    import pytest


class OutsideNetwork(AssertionError):
    """A test reached for an address that is not on loopback. No handler of OSError swallows this."""


class Guard:
    """Refuses, and remembers in :attr:`refused` what it refused, so that a swallowed refusal still fails the test."""

    def __init__(self) -> None:
        """Refuse nothing until :meth:`install`."""
        self.refused: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand before sockets, resolver and uvloop for as long as ``monkeypatch`` lasts."""
        self._guard(monkeypatch, socket.socket, "connect", self.check_address)
        self._guard(monkeypatch, socket.socket, "connect_ex", self.check_address)
        self._guard(monkeypatch, socket.socket, "sendto", lambda *args: self.check_address(args[-1]))
        self._guard(monkeypatch, socket, "getaddrinfo", self.check_name)
        self._guard(monkeypatch, uvloop.Loop, "getaddrinfo", self.check_name)
        self._guard(
            monkeypatch,
            uvloop.Loop,
            "create_connection",
            lambda _factory, host=None, port=0: None if host is None else self.check_address((host, port)),
        )

    def check_address(self, address: Any) -> None:
        """Raise unless ``address`` (as given to connect) is on loopback, or no internet address at all."""
        if not isinstance(address, tuple):
            return
        host = str(address[0])
        if host != "localhost" and not _is_loopback(host):
            self._refuse(f"{host}:{address[1]}")

    def check_name(self, host: Any, *_: Any, **__: Any) -> None:
        """Raise when finding out ``host`` would ask a resolver."""
        name = host.decode() if isinstance(host, bytes) else host
        if name and name != "localhost" and not _is_literal(name):
            self._refuse(f"{name} (a name to be resolved)")

    def _refuse(self, what: str) -> None:
        self.refused.append(what)
        message = f"tests stay on loopback, but something wants to reach {what}"
        raise OutsideNetwork(message)

    @staticmethod
    def _guard(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, check: Any) -> None:
        original = getattr(owner, name)
        bound = isinstance(owner, type)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            known = {key: kwargs[key] for key in ("host", "port") if key in kwargs}
            relevant = args[1:] if bound else args
            check(*(relevant[:3] if name == "create_connection" else relevant), **known)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, guarded)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            socket.inet_aton(host)  # "127.1", "2130706433": spellings that need no resolver either
        except OSError:
            return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
