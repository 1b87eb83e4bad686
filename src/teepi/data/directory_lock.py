"""The lock of a data directory: one server, or one command that changes it."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from teepi.errors import InUse

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

NAME: Final = "lock"
_POLL_SECONDS: Final = 0.1
_SAY_SECONDS: Final = 0.5  # a wait that nobody notices is not worth a word


class DirectoryLock:
    """Held from :meth:`take` to :meth:`close`; the kernel gives it up with the process."""

    def __init__(self, root: Path) -> None:
        """Take nothing yet."""
        self._root = root
        self._fd = -1
        self._closed = threading.Event()

    def take(self, wait_seconds: float) -> bool:
        """Wait for whoever has it (blocking); say whether the directory may be written.

        Where it cannot be written the lock is shared with others who only read. Raises :class:`InUse` when it is
        not given up, and OSError.
        """
        path = self._root / NAME
        kind = fcntl.LOCK_EX
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            try:
                fd, kind = os.open(path, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH
            except FileNotFoundError:  # nor can anybody else write
                return False
        began = time.monotonic()
        said = False
        while True:
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:  # a file system without locks
                    os.close(fd)
                    return kind == fcntl.LOCK_EX
                waited = time.monotonic() - began
                if waited >= wait_seconds or self._closed.is_set():
                    os.close(fd)
                    raise InUse(
                        f"Another teepi uses the data directory {self._root}: stop it, or give this one a directory "
                        "of its own with --data-dir."
                    ) from None
                if not said and waited >= _SAY_SECONDS:
                    log.warning("Another teepi uses %s; waiting up to %.0f s for it to leave.", path, wait_seconds)
                    said = True
                self._closed.wait(_POLL_SECONDS)
            else:
                self._fd = fd
                return kind == fcntl.LOCK_EX

    def stop_waiting(self) -> None:
        """Let :meth:`take` give up at once; from any thread."""
        self._closed.set()

    def close(self) -> None:
        """Give it up."""
        self._closed.set()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
