"""Where operators reach a running server: a unix socket in the cache directory, and a token in the data directory.

Both are readable by their owner alone; that is the permission. Nobody is let in for coming from this machine: in a
build with the host's network every ``setup.py`` does.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from typing import TYPE_CHECKING, Final

from teepi.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFIX: Final = "/+operator/"
"""Of every URL of the channel."""
_SOCKET: Final = "operator.sock"
TOKEN: Final = "operator-token"  # noqa: S105 - the name of a file
_LONGEST_PATH: Final = 100  # the kernel takes 108 bytes, macOS 104


@contextlib.contextmanager
def socket_path(cache_dir: Path) -> Iterator[str]:
    """Give a path of the socket that is short enough to bind or connect to. Raises OSError."""
    path = str(cache_dir / _SOCKET)
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    directory = os.open(cache_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{_SOCKET}"
    finally:
        os.close(directory)


def bind(cache_dir: Path) -> socket.socket:
    """Return the socket, bound; call it with the cache's lock: what an earlier process left is removed.

    Raises OSError where the directory cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        (cache_dir / _SOCKET).unlink()
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | getattr(socket, "SOCK_CLOEXEC", 0))
    try:
        with contextlib.suppress(OSError):
            os.fchmod(found.fileno(), 0o600)  # Linux takes over this mode, so that it is never wider
        with socket_path(cache_dir) as path:
            found.bind(path)
        (cache_dir / _SOCKET).chmod(0o600)
        found.setblocking(False)  # noqa: FBT003 - the standard library's signature
    except BaseException:
        found.close()
        raise
    return found


def unbind(cache_dir: Path) -> None:
    """Remove the socket."""
    with contextlib.suppress(OSError):
        (cache_dir / _SOCKET).unlink()


def answers(cache_dir: Path) -> bool:
    """Whether a server listens on the socket."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as found:
        found.settimeout(5)
        with socket_path(cache_dir) as path:
            found.connect(path)
        return True
    return False


def make_token(data_dir: Path) -> str | None:
    """Return the token, made if there is none; None where the data directory cannot be written. Blocks."""
    path = data_dir / TOKEN
    try:
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor
                file.write(secrets.token_urlsafe(32) + "\n")
        path.chmod(0o600)
        return path.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def read_token(data_dir: Path) -> str:
    """Return the token of a server with this data directory. Raises :class:`StoreError`."""
    path = data_dir / TOKEN
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise StoreError(
            f"The operator's token {path} cannot be read ({reason}); name the server's data directory with --data-dir."
        ) from None
