"""A file descriptor with a count of its holders, closed when the last one lets go.

Readers of an arriving file share the download's own descriptor, so that rename, unlink and eviction under
a reader are harmless. Nothing here opens, reads or writes.
"""

from __future__ import annotations

import os


class Descriptor:
    """A descriptor held by whoever called :meth:`take` (the creator holds it once)."""

    __slots__ = ("_holders", "fd")

    def __init__(self, fd: int) -> None:
        """Hold ``fd`` once."""
        self.fd = fd
        self._holders = 1

    def take(self) -> Descriptor:
        """Add a holder. Must happen before the first await after a look-up, or commit closes it under you."""
        if self._holders <= 0:
            msg = "a closed descriptor was taken"
            raise RuntimeError(msg)
        self._holders += 1
        return self

    def drop(self) -> None:
        """Remove a holder; the last one closes the descriptor."""
        self._holders -= 1
        if self._holders == 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
