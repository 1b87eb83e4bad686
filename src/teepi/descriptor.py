"""A file descriptor with a count of its holders, closed when the last one lets go.

Readers of an arriving file share the download's own descriptor, so that rename, unlink and eviction under
a reader are harmless. Nothing here opens, reads or writes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Descriptor:
    """A descriptor held by whoever called :meth:`take` (the creator holds it once)."""

    __slots__ = ("_closed", "_holders", "fd")

    def __init__(self, fd: int, closed: Callable[[], None] | None = None) -> None:
        """Hold ``fd`` once; ``closed`` is called when the last holder has let go."""
        self.fd = fd
        self._holders = 1
        self._closed = closed

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
            if self._closed is not None:
                self._closed()
