"""Whether bytes of a file are in memory: what is not must not be waited for on the event loop. Nothing is sent here."""

from __future__ import annotations

import os
from typing import Final

_NOWAIT: Final = getattr(os, "RWF_NOWAIT", None)  # of preadv2(2): Linux only
_buffers: Final = [bytearray(1)]


def is_in_memory(fd: int, offset: int) -> bool | None:
    """Return whether the byte at ``offset`` can be read at once; None when this system, or the file's, cannot tell."""
    if _NOWAIT is None:
        return None
    try:
        os.preadv(fd, _buffers, offset, _NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
