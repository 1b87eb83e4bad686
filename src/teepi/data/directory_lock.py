"""The lock of a data directory: one server, or one command that changes it."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from teepi.errors import InUse

if TYPE_CHECKING:
    from pathlib import Path

_POLL_SECONDS: Final = 0.1


class DirectoryLock:
    """Held from :meth:`take` to :meth:`close`; the kernel gives it up with the process."""

    def __init__(self, root: Path) -> None:
        """Take nothing yet."""
        self._root = root
        self._fd = -1
        self._closed = threading.Event()

    def take(self, wait_seconds: float) -> None:
        """Wait for whoever has it (blocking). Raises :class:`InUse` when it is not given up, and OSError."""
        fd = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:  # a file system without locks
                    os.close(fd)
                    return
                if time.monotonic() >= deadline or self._closed.is_set():
                    os.close(fd)
                    raise InUse(
                        f"Another teepi uses the data directory {self._root}: stop it, or give this one a directory "
                        "of its own with --data-dir."
                    ) from None
                self._closed.wait(_POLL_SECONDS)
            else:
                self._fd = fd
                return

    def close(self) -> None:
        """Give it up."""
        self._closed.set()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
