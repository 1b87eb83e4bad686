"""More lines than memory should hold, sorted: runs of them in one nameless file, then merged.

Methods block; callers run them in a thread. What is in a line is not known here.
"""

from __future__ import annotations

import heapq
import os
import tempfile
from typing import TYPE_CHECKING, Final

from teepi.disk import make_directories, memory_file, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_READ_BYTES: Final = 16 << 10  # of each run at a time


class SortedLines:
    """Lines, each with its line feed, that come out in the order of their bytes. Close it."""

    def __init__(self, directory: Path | None) -> None:
        """Open a file in ``directory``; None keeps it in memory. Raises OSError."""
        self._runs: list[tuple[int, int]] = []
        self._size = 0
        if directory is None:
            self._fd = memory_file("teepi lines")
        else:
            make_directories(directory)
            with tempfile.TemporaryFile(dir=directory) as file:
                self._fd = os.dup(file.fileno())

    def add(self, lines: list[bytes]) -> None:
        """Take some thousand lines, in any order. Raises OSError."""
        lines.sort()
        data = b"".join(lines)
        write_all(self._fd, data, self._size)
        self._runs.append((self._size, self._size + len(data)))
        self._size += len(data)

    def __iter__(self) -> Iterator[bytes]:
        """Give all lines. Raises OSError."""
        return heapq.merge(*(self._lines(start, stop) for start, stop in self._runs))

    def _lines(self, start: int, stop: int) -> Iterator[bytes]:
        rest = b""
        while start < stop:
            data = os.pread(self._fd, min(_READ_BYTES, stop - start), start)
            if not data:
                msg = "lines that were being sorted are lost"
                raise OSError(msg)
            start += len(data)
            whole, line_feed, rest = (rest + data).rpartition(b"\n")
            yield from (whole + line_feed).splitlines(keepends=True)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)
