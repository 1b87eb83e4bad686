"""A bounded window over the newest bytes of a stream, in memory: what a download runs on without a file.

Offsets are those of the file. Pure data: who waits for whom is decided in ``download``.
"""

from __future__ import annotations


class Ring:
    """Bytes ``[start, stop)`` of a file in a fixed buffer of ``size`` bytes."""

    __slots__ = ("_buffer", "size", "start", "stop")

    def __init__(self, size: int, offset: int) -> None:
        """Begin empty at ``offset`` of the file."""
        self._buffer = bytearray(size)
        self.size = size
        self.start = self.stop = offset

    @property
    def room(self) -> int:
        """Bytes that :meth:`append` takes now."""
        return self.size - (self.stop - self.start)

    def append(self, data: memoryview) -> None:
        """Add ``data``, at most :attr:`room` bytes."""
        if len(data) > self.room:
            msg = "the ring has no room"
            raise ValueError(msg)
        at = self.stop % self.size
        first = min(len(data), self.size - at)
        self._buffer[at : at + first] = data[:first]
        self._buffer[: len(data) - first] = data[first:]
        self.stop += len(data)

    def release(self, offset: int) -> None:
        """Forget what lies before ``offset``."""
        self.start = max(self.start, min(offset, self.stop))

    def view(self, offset: int, most: int) -> memoryview:
        """Return up to ``most`` contiguous bytes from ``offset``; valid until the next :meth:`append`."""
        if not self.start <= offset <= self.stop:
            msg = f"offset {offset} is not in the ring [{self.start}, {self.stop})"
            raise ValueError(msg)
        at = offset % self.size
        length = min(most, self.stop - offset, self.size - at)
        return memoryview(self._buffer)[at : at + length]
