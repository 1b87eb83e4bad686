"""Gzipped tar archives of sdists, read once from front to end: one gzip member, one top directory, nothing behind.

tarfile says what is in them, as it does for pip; what it is given to read is bounded here.
"""

from __future__ import annotations

import io
import posixpath
import re
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING, Final

from teepi.distributions.limits import MEMBERS, check_unpacked, unpacked_limit
from teepi.distributions.paths import check_path
from teepi.distributions.refusal import quoted_path, refusal

if TYPE_CHECKING:
    from typing import BinaryIO

    from teepi.errors import BadUpload

_CHUNK_BYTES: Final = 64 << 10
_ONE_READ_BYTES: Final = 16 << 10
"""tarfile reads a header, or what extends one, at once: a path of 4,096 bytes and some attributes fit."""
_HEADERS_BYTES: Final = 256 << 20
"""Of all headers together."""
_LONG_HEADERS_BYTES: Final = 8 << 20
"""Of all that take more than one block: tarfile reads some megabytes of records in a second."""
_DIGITS: Final = re.compile(rb"[0-9]{128}")
"""tarfile's patterns for pax headers took quadratic time over digits (CVE-2024-6232)."""


def checked_content(
    file: BinaryIO, size: int, wanted: str, limit: int, *, needs_top: bool = True
) -> tuple[str, bytes | None]:
    """Return the top directory of a sound ``.tar.gz`` and the bytes of ``wanted`` right below it, or None.

    ``size`` is the file's in bytes, ``limit`` that of the wanted member. A flat archive, which has ``wanted`` itself at
    its top, has the top directory ``""``; another one has one directory there if it ``needs_top``. Raises
    :class:`BadUpload` with the reason.
    """
    file.seek(0)
    if zipfile.is_zipfile(file):  # pip would unpack it as one
        raise _unsound("it is a zip archive, too")
    stream = _Inflated(file, size)
    try:
        archive = tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape")
        found = _walk(archive, stream, wanted, limit, needs_top=needs_top)
    except tarfile.TarError as error:
        raise _unsound("its tar headers are damaged") from error
    except (ValueError, LookupError, OverflowError, RecursionError, TypeError) as error:
        raise _unsound("its tar headers cannot be read") from error
    stream.finish()
    return found


def is_tar(file: BinaryIO) -> bool:
    """Whether a file begins as an unpacked tar does."""
    file.seek(0)
    try:
        tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError):
        return False
    return True


def _unsound(why: str) -> BadUpload:
    return refusal(f"The file is no sound .tar.gz archive: {why}.")


def _walk(
    archive: tarfile.TarFile, stream: _Inflated, wanted: str, limit: int, *, needs_top: bool
) -> tuple[str, bytes | None]:
    top = beside = ""
    is_flat = False
    content: bytes | None = None
    paths: set[str] = set()
    links: set[str] = set()
    count = 0
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # its own list of all that it has seen
        count += 1
        if count > MEMBERS:
            raise refusal(f"The archive has more than {MEMBERS} members.")
        if not needs_top and member.name in {".", "./"}:  # bdist_dumb begins all names so
            continue
        path = check_path(member.name if needs_top else member.name.removeprefix("./"))
        top = top or path.partition("/")[0]
        if path.partition("/")[0] != top:
            beside = beside or path
        _check_kind(member, path, top)
        if member.issym():
            links.add(path)
        if path in {wanted, f"{top}/{wanted}"}:
            is_flat = is_flat or path == wanted
            if content is not None or not member.isreg():
                raise refusal(f"{quoted_path(path)} in the archive is there twice or is no plain file.")
            content = _content(stream, member, limit)
        paths.add(path)
    stream.check_ended_in_zeros()
    _check_nothing_below(links, paths)
    if beside and needs_top and not is_flat:
        raise refusal(f"The sdist has {quoted_path(beside)} beside its one directory {quoted_path(top)}.")
    return "" if is_flat else top, content


def _content(stream: _Inflated, member: tarfile.TarInfo, limit: int) -> bytes:
    if member.size > limit:
        raise refusal(f"{quoted_path(member.name)} in the archive has more than {limit} bytes.")
    content = stream.take(member.size)
    if len(content) != member.size:
        raise _unsound("it is cut short")
    return content


def _check_kind(member: tarfile.TarInfo, path: str, top: str) -> None:
    if member.issparse() or not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise refusal(f"{quoted_path(path)} in the archive is a device, a pipe or a sparse file.")
    if member.issym() or member.islnk():
        _check_link(member, path, top)


def _check_link(member: tarfile.TarInfo, path: str, top: str) -> None:
    """Refuse a link out of the one directory, or that goes up behind another step: that step may be a link, too."""
    target = member.linkname
    parts = target.rstrip("/").split("/")
    if member.islnk():
        reached = target
    else:
        reached = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        while parts and parts[0] in {"..", "."}:
            parts.pop(0)
    inside = (reached + "/").startswith(top + "/")
    if not inside or ".." in parts or "\\" in target or "\0" in target:
        raise refusal(f"{quoted_path(path)} in the archive is a link that may lead outside of it.")


def _check_nothing_below(links: set[str], paths: set[str]) -> None:
    """Refuse members below a link: they would be written to where it leads."""
    if not links:
        return
    for path in paths:
        above = posixpath.dirname(path)
        while above:
            if above in links:
                raise refusal(f"{quoted_path(path)} in the archive lies below a link.")
            above = posixpath.dirname(above)


class _Inflated(io.RawIOBase):
    """The bytes of a gzip file's one member, for forward reading, with what tarfile needs of a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._file = file
        file.seek(0)
        self._inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._limit = unpacked_limit(size)
        self._buffer = b""
        self._position = 0
        self._headers = 0
        self._long_headers = 0
        self._last = b""

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes of headers, fewer at the end."""
        self._headers += size
        self._long_headers += size if size > tarfile.BLOCKSIZE else 0
        too_many = self._headers > _HEADERS_BYTES or self._long_headers > _LONG_HEADERS_BYTES
        if too_many or not 0 <= size <= _ONE_READ_BYTES:
            raise _unsound("its tar headers are too long")
        self._last = self.take(size)
        if size > tarfile.BLOCKSIZE and _DIGITS.search(self._last):
            raise _unsound("its tar headers cannot be read")
        return self._last

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on to ``offset``."""
        if whence != io.SEEK_SET or offset < self._position:
            raise _unsound("its tar headers point backwards")
        self._skip(offset - self._position)
        return self._position

    def take(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer at the end."""
        parts: list[bytes] = []
        while size and (part := self._next(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def check_ended_in_zeros(self) -> None:
        """After the last member come zeros alone: at a header that it cannot read, tarfile stops without a word."""
        rest = self._last
        while rest:
            if rest.strip(b"\0"):
                raise _unsound("there is more behind its last readable member")
            rest = self._next(_CHUNK_BYTES)

    def finish(self) -> None:
        """See that the gzip member is whole, its checksum right, and nothing behind it."""
        if not self._inflater.eof:
            raise _unsound("it is cut short")
        if self._inflater.unused_data or self._file.read(1):
            raise _unsound("there are bytes behind its gzip data")

    def _skip(self, size: int) -> None:
        while size:
            passed = len(self._next(min(size, _CHUNK_BYTES)))
            if not passed:
                return
            size -= passed

    def _next(self, size: int) -> bytes:
        """Return at most ``size`` bytes, none at the end."""
        while not self._buffer and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._file.read(_CHUNK_BYTES)
            if not packed:
                break
            try:
                self._buffer = self._inflater.decompress(packed, _CHUNK_BYTES)
            except zlib.error as error:
                raise _unsound("its gzip data is damaged") from error
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        self._position += len(part)
        check_unpacked(self._position, self._limit)
        return part
