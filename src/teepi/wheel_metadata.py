"""Core metadata out of a wheel of which only parts are at hand: end record, central directory, one member.

A plan: it says which bytes it needs and is given them, so that a file, a mirror's ranges and a test look the same.
No IO. Nothing of an archive is believed that was not compared: sizes are bounded, the checksum is right, the directory
is the wheel's own (Binary distribution format; PEP 658; APPNOTE.TXT 4.3 for the zip).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from packaging.utils import canonicalize_name
from packaging.version import Version

from teepi.errors import BadWheel, NoCoreMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Plan = Generator[tuple[int, int], bytes, bytes]
    """Yields (start, stop) in bytes of the wheel, is sent exactly those, returns METADATA."""

END: Final = struct.Struct("<4s4H2LH")
END64: Final = struct.Struct("<4sQ2H2L4Q")
END64_LOCATOR: Final = struct.Struct("<4sLQL")
CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
LOCAL: Final = struct.Struct("<4s5H3L2H")

_LONGEST_COMMENT: Final = 0xFFFF
TAIL_BYTES: Final = 32 << 10
"""Of the end of a wheel, to begin with: mostly holds all we want."""
END_BYTES: Final = _LONGEST_COMMENT + END.size
"""So much of the end holds the end record, whatever comment follows it."""
DIRECTORY_BYTES: Final = 8 << 20
"""A central directory larger than this (about 100,000 members) is not read."""
METADATA_BYTES: Final = 8 << 20
"""A METADATA larger than this, packed or not, is not read."""

IN_EXTRA: Final = 0xFFFFFFFF
EXTRA_ZIP64: Final = 1
ENCRYPTED: Final = 1
STORED: Final = 0
DEFLATED: Final = 8
_LOCAL_EXTRA: Final = 64  # by so much a local header may be longer than the directory lets expect, mostly
_PARTS: Final = 3  # name, version, and the rest: perhaps a build tag, three tags, .whl
_TAGS: Final = re.compile(r"(?:[0-9][^-]*-)?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:-\w+(?:\.\w+)*){2}\.whl", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._]*[A-Za-z0-9])?")


def wheel_name(filename: str) -> tuple[str, Version] | None:
    """Return normalised project and version of a wheel's file name, or None for anything else.

    As strict as :func:`packaging.utils.parse_wheel_filename`, at a fraction of its price: a page has thousands.
    """
    parts = filename.split("-", 2)
    if len(parts) != _PARTS or not _are_tags(parts[2]):
        return None
    name, version = _project(parts[0]), _version(parts[1])
    return None if name is None or version is None else (name, version)


@lru_cache(maxsize=4096)
def _project(name: str) -> str | None:
    return canonicalize_name(name) if _NAME.fullmatch(name) and "__" not in name else None


@lru_cache(maxsize=4096)
def _are_tags(tags: str) -> bool:
    return _TAGS.fullmatch(tags) is not None


@lru_cache(maxsize=4096)
def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except ValueError:  # also for a number with more digits than Python reads
        return None


def extract(filename: str, size: int, read: Callable[[int, int], bytes]) -> bytes:
    """Run a plan to its end over ``read(start, stop)``. Raises as :func:`plan` does, and what ``read`` raises."""
    steps = plan(filename, size, read(max(0, size - TAIL_BYTES), size))
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(read(*wanted))
    except StopIteration as done:
        metadata: bytes = done.value
        return metadata


def plan(filename: str, size: int, tail: bytes) -> Plan:
    """Find METADATA in the wheel ``filename`` of ``size`` bytes, whose last bytes are ``tail``.

    Raises :class:`BadWheel` for bytes that are no sound archive, and :class:`NoCoreMetadata` for a sound one with
    none that may be served: none at all, several, another project's, too large, packed in an unknown way.
    """
    archive = _Archive(filename, size, tail)
    if end_record(tail) is None:
        archive = _Archive(filename, size, (yield from archive.read(max(0, size - END_BYTES), size)))
    directory_start, directory, shift = yield from _directory(archive)
    member = _find(archive, directory)
    return (yield from _content(archive, member, shift, directory_start))


@dataclass(frozen=True, slots=True)
class _Archive:
    """What is at hand: the end of the file."""

    filename: str
    size: int
    tail: bytes

    def read(self, start: int, stop: int) -> Plan:
        """Return bytes ``[start, stop)``, asking for those before the tail alone."""
        if not 0 <= start <= stop <= self.size:
            raise self.bad("it points outside itself")
        tail_start = self.size - len(self.tail)
        front = b""
        if start < tail_start and start < stop:
            middle = min(stop, tail_start)
            front = yield start, middle
            if len(front) != middle - start:
                raise self.bad("it is cut short")
        return front + self.tail[max(0, start - tail_start) : max(0, stop - tail_start)]

    def bad(self, why: str) -> BadWheel:
        return BadWheel(f"{self.filename} is not a sound wheel: {why}.")

    def none(self, why: str) -> NoCoreMetadata:
        return NoCoreMetadata(f"{self.filename} has no core metadata to serve: {why}.")


@dataclass(frozen=True, slots=True)
class _Member:
    """An entry of the central directory (APPNOTE.TXT 4.3.12)."""

    name: bytes
    extra: bytes
    flags: int
    method: int
    crc: int
    packed: int
    """Bytes in the archive."""
    size: int
    offset: int
    """Of the local header."""


def _directory(archive: _Archive) -> Generator[tuple[int, int], bytes, tuple[int, bytes, int]]:
    """Return start and bytes of the central directory, and by how much all offsets are too small."""
    tail = archive.tail
    at = end_record(tail)
    if at is None:
        raise archive.bad("it has no end record")
    *_, length, offset, _comment = END.unpack_from(tail, at)
    stop = archive.size - len(tail) + at
    # Zip64's records stand right before it (4.3.14, 4.3.15).
    if stop >= END64.size + END64_LOCATOR.size:
        records = yield from archive.read(stop - END64.size - END64_LOCATOR.size, stop)
        if records[END64.size : END64.size + 4] == b"PK\x06\x07":
            if records[:4] != b"PK\x06\x06":
                raise archive.bad("its zip64 end record is missing")
            *_, length, offset = END64.unpack_from(records)
            stop -= END64.size + END64_LOCATOR.size
    if length > DIRECTORY_BYTES:
        raise archive.none(f"its directory has {length} bytes, more than the {DIRECTORY_BYTES} that are read")
    start = stop - length
    directory = yield from archive.read(start, stop)
    return start, directory, start - offset


def end_record(tail: bytes) -> int | None:
    """Return where the end record stands in the last bytes of an archive (APPNOTE.TXT 4.3.16)."""
    at = len(tail) + 1
    while (at := tail.rfind(b"PK\x05\x06", 0, max(0, at - 1 + 4))) >= 0:
        # The comment must reach to the very end, or these are four bytes of a comment or of a member.
        if at + END.size <= len(tail) and at + END.size + END.unpack_from(tail, at)[7] == len(tail):
            return at
    return None


def _find(archive: _Archive, directory: bytes) -> _Member:
    """Return METADATA of the one ``.dist-info`` directory, which must be named after the wheel."""
    owners: set[bytes] = set()
    found: list[_Member] = []
    at = 0
    while at < len(directory):
        if directory[at : at + 4] != b"PK\x01\x02" or at + CENTRAL.size > len(directory):
            raise archive.bad("its directory is damaged")
        fields = CENTRAL.unpack_from(directory, at)
        flags, method, crc, packed, size = fields[3], fields[4], *fields[7:10]
        name_stop = at + CENTRAL.size + fields[10]
        name = directory[at + CENTRAL.size : name_stop]
        extra = directory[name_stop : name_stop + fields[11]]
        at = name_stop + fields[11] + fields[12]
        owner, _, rest = name.partition(b"/")
        if owner.endswith(b".dist-info"):
            owners.add(owner)
            if rest == b"METADATA":
                found.append(_Member(name, extra, flags, method, crc, packed, size, fields[16]))
    if at != len(directory):
        raise archive.bad("its directory is damaged")
    if len(owners) > 1:
        raise archive.none("it has more than one .dist-info directory")
    if not found:
        raise archive.none("it has no .dist-info/METADATA")
    if len(found) > 1:
        raise archive.none("it has METADATA twice")
    if not _is_named_after(owners.pop(), archive.filename):
        raise archive.none("its .dist-info directory is another project's or version's")
    return found[0]


def _is_named_after(owner: bytes, filename: str) -> bool:
    """Whether ``{name}-{version}.dist-info`` is the wheel's own, both normalised."""
    name, _, version = owner.removesuffix(b".dist-info").decode(errors="replace").rpartition("-")
    return (canonicalize_name(name), _version(version)) == wheel_name(filename)


def _content(archive: _Archive, member: _Member, shift: int, directory_start: int) -> Plan:
    """Return the checked bytes of a member."""
    packed, size, offset = _sizes(archive, member)
    if member.flags & ENCRYPTED or member.method not in {STORED, DEFLATED}:
        raise archive.none("its METADATA is packed in a way that no installer reads")
    if max(packed, size) > METADATA_BYTES:
        raise archive.none(f"its METADATA has more than the {METADATA_BYTES} bytes that are read")
    start = offset + shift
    # Header and bytes in one request; the header's length is the header's own to say.
    guess = start + LOCAL.size + len(member.name) + len(member.extra) + _LOCAL_EXTRA + packed
    held = yield from archive.read(start, min(guess, directory_start))
    if len(held) < LOCAL.size or held[:4] != b"PK\x03\x04":
        raise archive.bad("its METADATA is not where the directory says")
    fields = LOCAL.unpack_from(held)
    name_length, extra_length = fields[9], fields[10]
    skipped = LOCAL.size + name_length + extra_length
    if start + skipped + packed > directory_start:
        raise archive.bad("its METADATA reaches into the directory")
    if len(held) < skipped + packed:
        held += yield from archive.read(start + len(held), start + skipped + packed)
    if held[LOCAL.size : LOCAL.size + name_length] != member.name:
        raise archive.bad("its directory and its members disagree about METADATA")
    data = held[skipped : skipped + packed]
    content = data if member.method == STORED else _inflated(archive, data, size)
    if len(content) != size or zlib.crc32(content) != member.crc:
        raise archive.bad("the checksum of its METADATA is wrong")
    return content


def _sizes(archive: _Archive, member: _Member) -> tuple[int, int, int]:
    """Return packed size, size and offset, from the zip64 extra field where they do not fit (4.5.3)."""
    values = [member.size, member.packed, member.offset]
    if IN_EXTRA in values:
        extra, at = member.extra, 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<HH", extra, at)
            at += 4
            if kind == EXTRA_ZIP64:
                large = [number for (number,) in struct.iter_unpack("<Q", extra[at : at + length // 8 * 8][:length])]
                values = [large.pop(0) if value == IN_EXTRA and large else value for value in values]
                break
            at += length
        if IN_EXTRA in values:
            raise archive.bad("its zip64 sizes are missing")
    size, packed, offset = values
    return packed, size, offset


def _inflated(archive: _Archive, data: bytes, size: int) -> bytes:
    """Inflate to no more than one byte beyond ``size``."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise archive.bad("its METADATA cannot be unpacked") from error
    if not inflater.eof:
        raise archive.bad("its METADATA is longer or shorter than it says")
    return content
