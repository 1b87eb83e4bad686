"""The digests of a file as it lands: the sha256 that the store names it by, and the one that the index promised."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teepi.model import Digest


class FileHasher:
    """Hashes a file's bytes in order; as a hashlib object it has ``update``."""

    def __init__(self, promised: Digest | None) -> None:
        """``promised`` is the digest that decides, None when the index gives none."""
        self._promised = promised
        self._sha256 = hashlib.sha256()
        self._other: Any = None  # hashlib's objects have no public type
        if promised is not None and promised.algorithm != "sha256":
            self._other = hashlib.new(promised.algorithm, usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Add the next bytes (releases the GIL where there are many)."""
        self._sha256.update(data)
        if self._other is not None:
            self._other.update(data)

    @property
    def sha256(self) -> str:
        """Sha256 in hex of what was added so far."""
        return self._sha256.hexdigest()

    @property
    def keeps_promise(self) -> bool:
        """Whether what was added has the promised digest; True when none was promised."""
        if self._promised is None:
            return True
        return bool((self._other or self._sha256).hexdigest() == self._promised.hex)
