"""The systemd units that come with teepi, with what one machine needs filled in. Nothing is written or run here."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from teepi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE: Final = "teepi.service"
SOCKET: Final = "teepi.socket"


def directory() -> Path:
    """Return where the units lie: beside this module when installed, else in the checkout."""
    installed = Path(__file__).parent / "units"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "systemd"


def service(command: Sequence[str], *, is_system: bool) -> str:
    """Return ``teepi.service`` that runs ``command``; with ``is_system`` the one with a user of its own."""
    text = (directory() / ("teepi-system.service" if is_system else SERVICE)).read_text(encoding="utf-8")
    return _replaced(text, "ExecStart", [" ".join(map(_quoted, command))])


def listening_socket(addresses: Sequence[tuple[str, int]]) -> str:
    """Return ``teepi.socket`` for ``addresses`` (host, port).

    Raises :class:`ConfigError` for an address that systemd cannot listen on.
    """
    text = (directory() / SOCKET).read_text(encoding="utf-8")
    return _replaced(text, "ListenStream", [_stream(host, port) for host, port in addresses])


def _stream(host: str, port: int) -> str:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        msg = f"A socket unit listens on addresses only, and {host!r} in 'listen' is a name; write its address there."
        raise ConfigError(msg) from None
    if not port:
        msg = "A socket unit needs a port of its own, and 'listen' has port 0 (any free one); write another there."
        raise ConfigError(msg)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004 - IP's own number


def _replaced(text: str, key: str, values: Sequence[str]) -> str:
    """Replace the one line of ``key`` by a line for each of ``values``."""
    lines = []
    for line in text.splitlines():
        lines += [f"{key}={value}" for value in values] if line.startswith(f"{key}=") else [line]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """Quote a word of a command line as systemd.service(5) and systemd.unit(5) have it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(letter.isspace() or letter in "\"'\\;" for letter in word) or not word else escaped
