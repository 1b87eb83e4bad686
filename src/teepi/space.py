"""What the cache holds, what may be reserved and what must go: decisions without awaits and without IO.

All threads of the store ask; each decision is made under one lock. What is measured on disk is handed in, and who
deletes is ``eviction``. Counted are bytes of content: committed files, partials (at what is reserved for them, or at
their length when nobody writes them), and everything else in the cache directory (pages, lists, damaged files, the
catalogue), which is measured now and then and followed in between where it grows.
"""

from __future__ import annotations

import errno
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

UNLIMITED: Final = sys.maxsize
LOW_WATER: Final = 0.9
"""Eviction goes on down to this share of the limit: so it runs now and then with a few thousand files at a time, not
before each download; a tenth less cache costs few hits, since what goes is what was not used for longest."""
_MARGIN: Final = 0.01  # of the limit files may not use: the catalogue and lists grow between two measurements
_MOST_MARGIN_BYTES: Final = 64 << 20
STEP_BYTES: Final = 8 << 20
"""A file of unknown size is reserved in such steps."""


class NoRoom(OSError):
    """What is asked for cannot be reserved now; errno is ENOSPC, as on a full disk."""

    def __init__(self, need: int) -> None:
        """``need`` is how many bytes must be had."""
        super().__init__(errno.ENOSPC, "there is no room left in the cache")
        self.need = need


@dataclass(slots=True)
class _Held:
    """A partial: ``reserved`` bytes are counted, ``written`` of them are on disk."""

    reserved: int
    written: int
    is_active: bool = False
    """Whether somebody writes it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A committed file as eviction sees it."""

    sha256: str
    size: int
    used_at: float
    index: str = ""
    project: str = ""
    filename: str = ""


class Space:
    """The ledger of one cache directory."""

    def __init__(self, limit: int = UNLIMITED, *, min_free: int = 0) -> None:
        """Hold at most ``limit`` bytes and leave ``min_free`` bytes of the disk free."""
        self.limit = limit
        self.min_free = min_free
        self.is_counted = True
        """Whether the committed files are known; until then nothing is reserved (a catalogue was lost)."""
        self.tight: Callable[[], object] | None = None
        """Called, in any thread, when what is not reserved (pages) has grown into the margin."""
        self._lock = threading.Lock()
        self._files = 0
        self._other = 0
        self._held: dict[str, _Held] = {}

    # -- what is there -------------------------------------------------------------------------------

    @property
    def files(self) -> int:
        """Bytes of committed files."""
        return self._files

    @property
    def other(self) -> int:
        """Bytes of pages, lists, damaged files and the catalogue."""
        return self._other

    @property
    def reserved(self) -> int:
        """Bytes of partials: what running downloads may write, and what earlier ones have left."""
        with self._lock:
            return self._reserved()

    @property
    def used(self) -> int:
        """All of it."""
        with self._lock:
            return self._used()

    @property
    def margin(self) -> int:
        """Bytes below the limit that no file may take."""
        return min(int(self.limit * _MARGIN), _MOST_MARGIN_BYTES)

    def _reserved(self) -> int:
        return sum(held.reserved for held in self._held.values())

    def _used(self) -> int:
        return self._files + self._other + self._reserved()

    # -- what may be -------------------------------------------------------------------------------

    def room(self, free: int) -> int:
        """Return how many bytes may be reserved (below 0: must go), with ``free`` bytes free on the disk."""
        with self._lock:
            return self._room(free)

    def _room(self, free: int) -> int:
        unwritten = sum(held.reserved - held.written for held in self._held.values())
        return min(self.limit - self.margin - self._used(), free - unwritten - self.min_free)

    def excess(self, free: int) -> int:
        """Return how many bytes must go for the low-water mark, 0 or less when none."""
        low = int(self.limit * LOW_WATER)
        return max(self.used - low, self.min_free - free)

    def reserve(self, name: str, size: int, free: int) -> None:
        """Let the partial ``name`` become ``size`` bytes long. Raises :class:`NoRoom`, leaving all as it was."""
        with self._lock:
            held = self._held.get(name) or _Held(0, 0)
            more = size - held.reserved
            if more > 0 and (not self.is_counted or more > self._room(free)):
                raise NoRoom(more)
            self._held[name] = _Held(max(held.reserved, size), held.written, is_active=True)

    def wrote(self, name: str, length: int) -> None:
        """Note that the partial ``name`` is ``length`` bytes long."""
        held = self._held.get(name)
        if held is not None:
            held.written = length

    def settle(self, name: str, length: int) -> None:
        """Nobody writes the partial ``name`` any more, ``length`` bytes of which stay on disk."""
        with self._lock:
            if length:
                self._held[name] = _Held(length, length)
            else:
                self._held.pop(name, None)

    def is_active(self, name: str) -> bool:
        """Whether somebody writes the partial ``name``."""
        held = self._held.get(name)
        return held is not None and held.is_active

    def held(self, name: str) -> int:
        """Return what is reserved for the partial ``name``."""
        held = self._held.get(name)
        return 0 if held is None else held.reserved

    def committed(self, name: str, growth: int) -> None:
        """Count the partial ``name`` as a file; ``growth`` is its size less that of a file it replaced."""
        with self._lock:
            self._held.pop(name, None)
            self._files += growth

    def found(self, size: int) -> None:
        """Count committed files of ``size`` bytes; negative when they have gone."""
        with self._lock:
            self._files += size

    def measured(self, other: int) -> None:
        """Set what everything else takes."""
        with self._lock:
            self._other = other

    def grown(self, size: int) -> None:
        """Count ``size`` more bytes of everything else."""
        with self._lock:
            self._other += size
            is_tight = size > 0 and self._used() > self.limit - self.margin
        if is_tight and self.tight is not None:
            self.tight()

    def claim(self, size: int) -> None:
        """Count ``size`` bytes of everything else that are to be written. Raises :class:`NoRoom`, counting nothing."""
        with self._lock:
            has_room = self._used() + size <= self.limit
        if has_room:
            self.grown(size)
            return
        if self.tight is not None:
            self.tight()
        raise NoRoom(size)


def choose(candidates: Iterable[Candidate], need: int, *, may_go: Callable[[Candidate], bool]) -> list[Candidate]:
    """Return what goes so that ``need`` bytes are freed: least recently used first, and no more than needed.

    ``candidates`` come in that order; all that may go is returned when it is not enough.
    """
    chosen: list[Candidate] = []
    for candidate in candidates:
        if need <= 0:
            break
        if may_go(candidate):
            chosen.append(candidate)
            need -= candidate.size
    return chosen
