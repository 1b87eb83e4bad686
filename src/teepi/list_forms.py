"""A project list in its two forms, on their way to the disk and from there to a client, in pieces.

When a list is made, and of what, is decided in ``lists``.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Final

from teepi.http_semantics import PageFormat
from teepi.project_list import HTML_HEAD, HTML_TAIL, JSON_HEAD, JSON_TAIL, html_of, json_of
from teepi.tasks import in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from teepi.store import ListWriter, StoredList

JSON: Final = "json"
HTML: Final = "html"
_SEND_BYTES: Final = 256 << 10  # one step of sending, which holds the interpreter's lock for next to nothing
_READ_BYTES: Final = 64 << 10


class ListForms:
    """Writes names in both forms. Methods block, and raise OSError."""

    def __init__(self, writer: ListWriter, *, has_json: bool = False) -> None:
        """Write to ``writer``; with ``has_json`` it is given that form as upstream has it: unknown keys survive."""
        self._writer = writer
        self._has_json = has_json
        self._is_first = True

    def begin(self) -> None:
        """Write what stands before the names."""
        self._writer.add(HTML, HTML_HEAD)
        if not self._has_json:
            self._writer.add(JSON, JSON_HEAD)

    def put(self, names: Sequence[str]) -> None:
        """Write names."""
        self._writer.add(HTML, html_of(names))
        if not self._has_json and (elements := json_of(names, first=self._is_first)):
            self._writer.add(JSON, elements)
            self._is_first = False

    def end(self) -> None:
        """Write what stands behind the names."""
        self._writer.add(HTML, HTML_TAIL)
        if not self._has_json:
            self._writer.add(JSON, JSON_TAIL)


class ListBody:
    """One answer's way through a list. Close it."""

    def __init__(self, found: StoredList, form: PageFormat, *, gzip: bool) -> None:
        """Hold the file of ``form``."""
        name = JSON if form is PageFormat.JSON else HTML
        facts = found.head.forms[name]
        self.size = facts.gzip_bytes if gzip else facts.plain_bytes
        """Bytes of the body."""
        self.etag = f'"{facts.plain_sha256[:32]}-{form.name.lower()}{"-gzip" if gzip else ""}"'
        self._file = found.files[name].take()
        self._offset = 0
        self._inflater = None if gzip else zlib.decompressobj(31)

    async def read(self) -> bytes:
        """Return the next bytes, ``b""`` at the end. Raises OSError and :class:`zlib.error` for a disk that fails."""
        return await in_thread(self._read)

    def _read(self) -> bytes:
        inflater = self._inflater
        if inflater is None:
            return self._next(_SEND_BYTES)
        while not inflater.eof:
            packed = inflater.unconsumed_tail or self._next(_READ_BYTES)
            if data := inflater.decompress(packed, _SEND_BYTES):
                return data
            if not packed:
                break
        return b""

    def _next(self, count: int) -> bytes:
        data = os.pread(self._file.fd, count, self._offset)
        self._offset += len(data)
        return data

    def rewind(self) -> None:
        """Begin again."""
        self._offset = 0
        self._inflater = None if self._inflater is None else zlib.decompressobj(31)

    def close(self) -> None:
        """Let go of the file."""
        self._file.drop()
