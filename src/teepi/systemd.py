"""What systemd and a service speak of: readiness, watchdog, and sockets that it opened for us.

The protocols of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3), which systemd promises to keep. Where no
service manager started teepi, every message is nothing. When to send what is ``server``'s job.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Final

from teepi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
_STOP_MARGIN_SECONDS: Final = 15.0  # past the drain: closing, and syncing partials on a slow disk


class Notifier:
    """Tells the service manager how this process is."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` from ``environ``."""
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog_seconds(environ)
        """The manager restarts a service that is silent for so long; None: it does not watch."""
        # Open from the start: a beat must not fail for want of a descriptor.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        self._timer: asyncio.TimerHandle | None = None
        if self._socket is not None:
            self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature

    def close(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self, status: str) -> None:
        """Say that the start or a reload is over, and ``status`` to people; begin the watchdog's beat."""
        self._send("READY=1", f"STATUS={status}")
        if self._timer is None and self.watchdog_seconds is not None:
            self._beat()

    def reloading(self) -> None:
        """Say that settings are being read again; :meth:`ready` follows."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str, *, within_seconds: float) -> None:
        """Say that teepi drains for up to ``within_seconds``; the manager waits a moment longer before it kills."""
        microseconds = int((within_seconds + _STOP_MARGIN_SECONDS) * 1_000_000)
        self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={microseconds}")

    def _beat(self) -> None:
        """Say that the event loop turns; again after half the watchdog's time, as sd_watchdog_enabled(3) advises."""
        assert self.watchdog_seconds is not None  # noqa: S101 - only then is this called
        self._send("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self.watchdog_seconds / 2, self._beat)

    def _send(self, *assignments: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # a manager that does not listen must not stop the service
                self._socket.sendto("\n".join(assignments).encode(), self._address)


def inherited_sockets(environ: Mapping[str, str]) -> list[socket.socket]:
    """Return the listening TCP sockets that the service manager passed to this process, none if it passed none.

    Raises :class:`ConfigError` for a descriptor that is something else.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []  # meant for a parent
    count = int(environ["LISTEN_FDS"]) if environ.get("LISTEN_FDS", "").isdecimal() else 0
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * (count - len(names))
    return [_listening(_FIRST_DESCRIPTOR + number, names[number]) for number in range(count)]


def _listening(fd: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
        sock = socket.socket(fileno=fd)
        is_tcp = sock.family in {socket.AF_INET, socket.AF_INET6} and sock.type == socket.SOCK_STREAM
        if is_tcp and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.setblocking(False)  # noqa: FBT003
            return sock
        sock.detach()
    except OSError:
        pass
    msg = (
        f"The service manager passed descriptor {fd} ({name}), which is no listening TCP socket; "
        "write ListenStream=HOST:PORT in the socket unit."
    )
    raise ConfigError(msg)


def _address(text: str) -> str:
    """Return where to send, "" for nowhere. A leading @ is an abstract socket's NUL (unix(7))."""
    return "\0" + text[1:] if text.startswith("@") else text if text.startswith("/") else ""


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isdecimal() and int(text) else None
