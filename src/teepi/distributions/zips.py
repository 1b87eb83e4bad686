"""Zip archives that mean one thing only, whether read by the directory at their end or from the front.

The records stand without a gap from the first byte to the last: members, directory, end record. So there is no second
directory, nothing in front, behind or between, and no bytes that two members share (APPNOTE.TXT 4.3).
"""

from __future__ import annotations

import stat
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from teepi.distributions.limits import MEMBERS, check_unpacked, unpacked_limit
from teepi.distributions.paths import check_path
from teepi.distributions.refusal import quoted_path, refusal
from teepi.wheel_metadata import (
    CENTRAL,
    DEFLATED,
    DIRECTORY_BYTES,
    ENCRYPTED,
    END,
    END64,
    END64_LOCATOR,
    END_BYTES,
    EXTRA_ZIP64,
    IN_EXTRA,
    LOCAL,
    STORED,
    end_record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from teepi.errors import BadUpload

_END_SIGNATURE: Final = b"PK\x05\x06"
_END64_SIGNATURE: Final = b"PK\x06\x06"
_LOCATOR_SIGNATURE: Final = b"PK\x06\x07"
_DESCRIPTOR_SIGNATURE: Final = b"PK\x07\x08"
_DESCRIBED: Final = 0x8
"""Checksum and sizes follow the member (4.4.4, bit 3)."""
_LONGEST_DESCRIPTOR: Final = 24
_UTF8: Final = 0x800
_UNICODE_PATH: Final = 0x7075
"""A second name, which some readers prefer (4.6.9)."""
_UNIX: Final = 3
_END64_REST: Final = END64.size - 12  # what the record says of its length leaves out its first two fields
_CHUNK_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of the directory that agrees with its local header; sizes in bytes."""

    name: str
    is_directory: bool
    size: int
    packed: int
    method: int
    checksum: int
    start: int
    """Of the packed bytes."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record of the central directory (4.3.12)."""

    raw_name: bytes
    name: str
    flags: int
    method: int
    checksum: int
    packed: int
    size: int
    offset: int
    """Of the local header."""
    is_directory: bool


def checked_members(file: BinaryIO, size: int) -> dict[str, Member]:
    """Return the members of a sound zip by their paths, each read once to its end.

    ``size`` is the file's in bytes. Raises :class:`BadUpload` saying what is wrong with the archive.
    """
    members = listed_members(file, size)
    for member in members.values():
        for _chunk in _unpacked(file, member):
            pass
    return members


def listed_members(file: BinaryIO, size: int) -> dict[str, Member]:
    """Return the members of a zip by their paths, none of them read: for one that was checked when it came.

    Raises :class:`BadUpload` as :func:`checked_members` does.
    """
    start, directory, count = _directory(file, size)
    entries = sorted(_entries(directory), key=lambda entry: entry.offset)
    if len(entries) != count:
        raise _unsound("its end record counts other members than its directory has")
    if len(entries) > MEMBERS:
        raise refusal(f"The archive has more than {MEMBERS} members.")
    check_unpacked(sum(entry.size for entry in entries), unpacked_limit(size))
    bounds = [*(entry.offset for entry in entries), start]
    if bounds[0]:
        raise _unsound("there are bytes before its first member")
    members: dict[str, Member] = {}
    for entry, stop in zip(entries, bounds[1:], strict=True):
        if entry.name in members:
            raise _unsound(f"it has {quoted_path(entry.name)} twice")
        members[entry.name] = _member(file, entry, stop)
    return members


def content(file: BinaryIO, member: Member, limit: int) -> bytes:
    """Return a member's bytes. Raises :class:`BadUpload` for more than ``limit``."""
    if member.size > limit:
        raise refusal(f"{quoted_path(member.name)} in the archive has more than {limit} bytes.")
    return b"".join(_unpacked(file, member))


def _unsound(why: str) -> BadUpload:
    return refusal(f"The file is no sound zip archive: {why}.")


def _read(file: BinaryIO, start: int, stop: int) -> bytes:
    if not 0 <= start <= stop:
        raise _unsound("it points outside itself")
    file.seek(start)
    data = file.read(stop - start)
    if len(data) != stop - start:
        raise _unsound("it is cut short")
    return data


def _directory(file: BinaryIO, size: int) -> tuple[int, bytes, int]:
    """Return start and bytes of the central directory, and how many members the end record counts."""
    tail = _read(file, max(0, size - END_BYTES), size)
    at = end_record(tail)
    if at is None:
        raise _unsound("it has no end record, or bytes behind it")
    _, disk, directory_disk, here, count, length, offset, _comment = END.unpack_from(tail, at)
    stop = size - len(tail) + at
    end = stop
    located = end - END64_LOCATOR.size
    locator = _read(file, located, end) if located >= END64.size else b""
    if locator.startswith(_LOCATOR_SIGNATURE):
        _, _, record_at, _disks = END64_LOCATOR.unpack(locator)
        stop = located - END64.size
        record = END64.unpack(_read(file, stop, located))
        if record_at != stop or record[0] != _END64_SIGNATURE or record[1] != _END64_REST:
            raise _unsound("its zip64 end record is not right before its end record")
        short = ((here, 0xFFFF), (count, 0xFFFF), (length, IN_EXTRA), (offset, IN_EXTRA))
        if any(value not in {large, most} for (value, most), large in zip(short, record[6:], strict=True)):
            raise _unsound("its two end records disagree")
        here, count, length, offset = record[6:]
    if disk or directory_disk or here != count:
        raise _unsound("it is a part of several")
    if length > DIRECTORY_BYTES:
        raise refusal(f"The archive's directory has more than {DIRECTORY_BYTES} bytes.")
    if offset + length != stop:
        raise _unsound("its directory is not where its end record says, so there may be two")
    directory = _read(file, offset, stop)
    if _END_SIGNATURE in directory or _END_SIGNATURE in tail[at + 1 :]:
        raise _unsound("it has two end records")
    return offset, directory, count


def _entries(directory: bytes) -> Iterator[_Entry]:
    at = 0
    while at < len(directory):
        if directory[at : at + 4] != b"PK\x01\x02" or at + CENTRAL.size > len(directory):
            raise _unsound("its directory is damaged")
        fields = CENTRAL.unpack_from(directory, at)
        name_stop = at + CENTRAL.size + fields[10]
        extra_stop = name_stop + fields[11]
        raw_name = directory[at + CENTRAL.size : name_stop]
        at = extra_stop + fields[12]
        if at > len(directory):
            raise _unsound("its directory is damaged")
        yield _entry(fields, raw_name, directory[name_stop:extra_stop])


def _entry(fields: tuple[int, ...], raw_name: bytes, extra: bytes) -> _Entry:
    made_by, flags, method, checksum, disk, attributes = (fields[index] for index in (1, 3, 4, 7, 13, 15))
    name = _decoded(raw_name, flags)
    path = check_path(name)
    blocks = _extra(extra, name)
    size, packed, offset = _zip64(blocks, fields[9], fields[8], fields[16])
    kind = stat.S_IFMT(attributes >> 16) if made_by >> 8 == _UNIX else 0
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise refusal(f"{quoted_path(name)} in the archive is a link or a device.")
    if flags & ENCRYPTED or method not in {STORED, DEFLATED} or disk:
        raise refusal(f"{quoted_path(name)} in the archive is packed in a way that installers do not read.")
    return _Entry(raw_name, path, flags, method, checksum, packed, size, offset, is_directory=name.endswith("/"))


def _decoded(raw_name: bytes, flags: int) -> str:
    try:
        return raw_name.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise _unsound("a member's name is not in the encoding it says") from error


def _extra(extra: bytes, name: str) -> dict[int, bytes]:
    """Return the blocks of an extra field that matter here (4.5)."""
    blocks: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        block = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if kind not in {EXTRA_ZIP64, _UNICODE_PATH}:
            continue
        if len(block) != length or kind in blocks:
            raise _unsound(f"the extra field of {quoted_path(name)} is damaged")
        blocks[kind] = block
    # One byte of version and four of a checksum stand before the name.
    if _UNICODE_PATH in blocks and blocks[_UNICODE_PATH][5:] != name.encode():
        raise _unsound(f"{quoted_path(name)} has a second name")
    return blocks


def _zip64(blocks: dict[int, bytes], *values: int) -> list[int]:
    """Return ``values``, from the zip64 block where they do not fit into their fields (4.5.3)."""
    block = blocks.get(EXTRA_ZIP64, b"")
    large = [number for (number,) in struct.iter_unpack("<Q", block[: len(block) // 8 * 8])]
    try:
        return [large.pop(0) if value == IN_EXTRA else value for value in values]
    except IndexError:
        raise _unsound("its zip64 sizes are missing") from None


def _member(file: BinaryIO, entry: _Entry, stop: int) -> Member:
    """Return the member that fills the bytes up to ``stop``, once its local header says what the directory says."""
    if stop < entry.offset + LOCAL.size:
        raise _unsound("its members overlap")
    fields = LOCAL.unpack(_read(file, entry.offset, entry.offset + LOCAL.size))
    name_stop = entry.offset + LOCAL.size + fields[9]
    start = name_stop + fields[10]
    if fields[0] != b"PK\x03\x04" or start + entry.packed > stop:
        raise _unsound(f"{quoted_path(entry.name)} is not where its directory says")
    raw_name = _read(file, entry.offset + LOCAL.size, name_stop)
    blocks = _extra(_read(file, name_stop, start), _decoded(raw_name, fields[2]))
    size, packed = _zip64(blocks, fields[8], fields[7])
    told = (entry.checksum, entry.packed, entry.size)
    described = bool(fields[2] & _DESCRIBED)
    meaning = ENCRYPTED if entry.name.isascii() else ENCRYPTED | _UTF8
    agree = (
        raw_name == entry.raw_name
        and fields[3] == entry.method
        and fields[2] & meaning == entry.flags & meaning
        and ((fields[6], packed, size) == told or (described and (fields[6], packed, size) == (0, 0, 0)))
    )
    if not agree:
        raise _unsound(f"directory and local header disagree about {quoted_path(entry.name)}")
    rest = stop - start - entry.packed
    if rest > _LONGEST_DESCRIPTOR or _read(file, stop - rest, stop) not in (_descriptors(told) if described else {b""}):
        raise _unsound(f"there are bytes behind {quoted_path(entry.name)} that are no member's")
    if described and entry.method == STORED and entry.size:
        raise _unsound(f"where {quoted_path(entry.name)} ends can only be guessed when it is read from the front")
    if entry.is_directory and entry.size:
        raise _unsound(f"{quoted_path(entry.name)} is a directory with content")
    return Member(entry.name, entry.is_directory, entry.size, entry.packed, entry.method, entry.checksum, start)


def _descriptors(told: tuple[int, int, int]) -> set[bytes]:
    """Return the forms of a data descriptor (4.3.9): with a signature or without, sizes of four bytes or eight."""
    plain = {struct.pack("<LQQ", *told)}
    if max(told) <= IN_EXTRA:
        plain.add(struct.pack("<LLL", *told))
    return plain | {_DESCRIPTOR_SIGNATURE + form for form in plain}


def _unpacked(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Yield a member's bytes; to the end they have the size and checksum that it says, and no packed byte is left."""
    file.seek(member.start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED and member.packed else None
    left, size, checksum = member.packed, 0, 0
    while left or (inflater is not None and inflater.unconsumed_tail):
        held = inflater.unconsumed_tail if inflater is not None else b""
        if not held:
            held = file.read(min(left, _CHUNK_BYTES))
            left -= len(held)
        if not held or (inflater is not None and inflater.eof):
            raise _unsound(f"{quoted_path(member.name)} is longer or shorter than it says")
        try:
            chunk = held if inflater is None else inflater.decompress(held, _CHUNK_BYTES)
        except zlib.error as error:
            raise _unsound(f"{quoted_path(member.name)} cannot be unpacked") from error
        size += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
        if size > member.size:
            break
        yield chunk
    if inflater is not None and size <= member.size:
        chunk = inflater.flush()  # what was held back at the last chunk's limit
        size += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    whole = inflater is None or (inflater.eof and not inflater.unused_data)
    if not whole or size != member.size or checksum != member.checksum:
        raise _unsound(f"size or checksum of {quoted_path(member.name)} is wrong")
