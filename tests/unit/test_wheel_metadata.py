"""METADATA out of parts of a wheel: what zipfile reads is what the plan reads, and nothing that is not sound."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from teepi.errors import BadWheel, NoCoreMetadata
from teepi.wheel_metadata import DIRECTORY_BYTES, METADATA_BYTES, TAIL_BYTES, extract, plan, wheel_name
from tests.support.wheels import noise

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = "demo_pkg-1.0-py3-none-any.whl"
INFO: Final = "demo_pkg-1.0.dist-info/METADATA"
METADATA: Final = b"Metadata-Version: 2.1\nName: demo-pkg\nVersion: 1.0\n"


def packed(
    members: Mapping[str, bytes] | list[tuple[str, bytes]],
    *,
    comment: bytes = b"",
    method: int = zipfile.ZIP_DEFLATED,
    extra: bytes = b"",
    zip64: bool = False,
) -> bytes:
    """Return a zip of ``members``; ``extra`` goes into each, ``zip64`` writes their local headers in its form."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items() if not isinstance(members, list) else members:
            member = zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0))
            member.compress_type, member.extra = method, extra
            with archive.open(member, "w", force_zip64=zip64) as file:
                file.write(content)
        archive.comment = comment
    return buffer.getvalue()


def read(content: bytes, filename: str = NAME) -> tuple[bytes, list[tuple[int, int]]]:
    """Return METADATA and the parts of the wheel that were asked for."""
    asked: list[tuple[int, int]] = []

    def part(start: int, stop: int) -> bytes:
        assert 0 <= start <= stop <= len(content)
        asked.append((start, stop))
        return content[start:stop]

    return extract(filename, len(content), part), asked


PATHS = st.text("abc/._é", min_size=1, max_size=20).filter(lambda path: ".dist-info" not in path)
MEMBERS = st.dictionaries(PATHS, st.binary(max_size=2000), max_size=8)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    before=MEMBERS,
    after=MEMBERS,
    metadata=st.binary(max_size=5000),
    comment=st.binary(max_size=200).filter(lambda text: b"PK" not in text) | st.just(b"x" * 0xFFFF),
    method=st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]),
    extra=st.sampled_from([b"", struct.pack("<HH", 0x9999, 200) + b"e" * 200]),
    zip64=st.booleans(),
    padding=st.sampled_from([0, 200_000]),
)
def test_extract_from_any_wheel_gives_what_zipfile_gives(
    *,
    before: dict[str, bytes],
    after: dict[str, bytes],
    metadata: bytes,
    comment: bytes,
    method: int,
    extra: bytes,
    zip64: bool,
    padding: int,
) -> None:
    """Contract 15. Stored and deflated, with comments, extra fields, zip64, METADATA at either end."""
    members = [*before.items(), (INFO, metadata), ("pad", noise(padding)), *[("z" + k, v) for k, v in after.items()]]
    content = packed(members, comment=comment, method=method, extra=extra, zip64=zip64)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read(INFO) == metadata
    found, asked = read(content)
    assert found == metadata
    assert len(asked) <= 5
    assert sum(stop - start for start, stop in asked) <= TAIL_BYTES + 60_000


def test_extract_from_a_large_wheel_reads_its_end_alone() -> None:
    """Contract 15. METADATA stands at the end, as the wheel specification recommends: one range."""
    content = packed({"pad": noise(3_000_000), INFO: METADATA})
    assert read(content) == (METADATA, [(len(content) - TAIL_BYTES, len(content))])


def test_extract_from_a_wheel_with_metadata_in_front_asks_for_little_more() -> None:
    """Contract 15. The local header's own length counts, also when the directory has no extra field."""
    content = bytearray(packed({INFO: METADATA, "pad": noise(300_000)}))
    name_length = len(INFO)
    shift = 900  # a longer local header than the directory lets expect: everything behind it moves
    struct.pack_into("<H", content, 28, shift)
    content[30 + name_length : 30 + name_length] = struct.pack("<HH", 0x9999, shift - 4) + bytes(shift - 4)
    end = content.rindex(b"PK\x05\x06")
    offset = struct.unpack_from("<L", content, end + 16)[0] + shift
    struct.pack_into("<L", content, end + 16, offset)
    second = content.index(b"PK\x01\x02", offset + 4)
    struct.pack_into("<L", content, second + 42, struct.unpack_from("<L", content, second + 42)[0] + shift)
    found, asked = read(bytes(content))
    assert found == METADATA
    assert [start for start, _ in asked] == [len(content) - TAIL_BYTES, 0, asked[1][1]]


def test_extract_with_bytes_before_the_archive_counts_from_its_start() -> None:
    """Zipfile, and so pip, reads such a file: offsets are from where the archive begins."""
    assert read(b"#!/bin/sh\n" + packed({INFO: METADATA}))[0] == METADATA


def in_zip64(content: bytes, *, fields: bool = True) -> bytes:
    """Return an archive of METADATA alone with all that zip64 can take over; ``fields`` False leaves its sizes out."""
    entry, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    small, large = struct.unpack_from("<LL", content, entry + 20)
    extra = struct.pack("<HHB", 0x9999, 1, 0) + struct.pack("<HHQQQ", 1, 24, large, small, 0) * fields
    central = bytearray(content[entry:end])
    struct.pack_into("<LL", central, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", central, 30, len(extra))
    struct.pack_into("<L", central, 42, 0xFFFFFFFF)
    central += extra
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(central), entry)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, entry + len(central), 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return content[:entry] + bytes(central) + end64 + locator + last


def test_extract_from_zip64_reads_sizes_and_offsets_there() -> None:
    """APPNOTE.TXT 4.5.3. As zipfile does; without the sizes it is refused."""
    content = in_zip64(packed({INFO: METADATA}))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read(INFO) == METADATA
    assert read(content)[0] == METADATA
    with pytest.raises(BadWheel, match="zip64 sizes"):
        read(in_zip64(packed({INFO: METADATA}), fields=False))


def test_extract_with_end_records_in_the_comment_takes_the_one_that_fits() -> None:
    """Four bytes in a comment are no end record."""
    assert read(packed({INFO: METADATA}, comment=b"PK\x05\x06" * 20))[0] == METADATA


def test_extract_with_a_directory_longer_than_the_tail_reads_all_of_it() -> None:
    """Thousands of members: the directory's front is a range of its own."""
    content = packed({**{f"pkg/{number:05}": b"" for number in range(3000)}, INFO: METADATA})
    found, asked = read(content)
    assert found == METADATA
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("filename", "directory"),
    [
        ("Demo.Pkg-1.0.0-py3-none-any.whl", "demo_pkg-1.0"),
        ("demo_pkg-1.0-2-py3-none-any.whl", "Demo-Pkg-1.0"),
        ("demo_pkg-1.0+cpu.1-cp313-cp313-manylinux_2_28_x86_64.whl", "demo_pkg-1.0+cpu_1"),
    ],
)
def test_extract_compares_names_and_versions_as_normalised(filename: str, directory: str) -> None:
    """The spelling of the directory may differ from the file's (PEP 503, PEP 440)."""
    assert read(packed({f"{directory}.dist-info/METADATA": METADATA}), filename)[0] == METADATA


VENDORED = "demo_pkg/_vendor/other-2.0.dist-info/METADATA"


def test_extract_with_vendored_metadata_takes_the_wheels_own() -> None:
    """Only a directory at the top is the wheel's."""
    assert read(packed([(VENDORED, b"other"), (INFO, METADATA)]))[0] == METADATA


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "members",
    [
        [("pkg.py", b"x")],
        [],
        [("demo_pkg-1.0.dist-info/WHEEL", b"x")],
        [(VENDORED, b"other")],
        [(INFO, METADATA), ("other-2.0.dist-info/METADATA", b"other")],
        [(INFO, METADATA), ("other-2.0.dist-info/RECORD", b"")],
        [(INFO, METADATA), (INFO, b"other")],
        [("other-1.0.dist-info/METADATA", METADATA)],
        [("demo_pkg-1.1.dist-info/METADATA", METADATA)],
        [("demo_pkg.dist-info/METADATA", METADATA)],
        [(INFO.lower(), METADATA)],
    ],
)
def test_extract_without_one_metadata_of_the_wheels_own_says_so(members: list[tuple[str, bytes]]) -> None:
    """Contract 14. None, several, or another project's: definitely nothing to serve."""
    with pytest.raises(NoCoreMetadata, match="no core metadata to serve"):
        read(packed(members))


def test_extract_metadata_too_large_or_oddly_packed_says_so() -> None:
    """Nothing larger than the bound is unpacked, and what installers cannot read is none."""
    with pytest.raises(NoCoreMetadata, match="more than"):
        read(packed({INFO: bytes(METADATA_BYTES + 1)}))
    with pytest.raises(NoCoreMetadata, match="packed in a way"):
        read(packed({INFO: METADATA}, method=zipfile.ZIP_LZMA))


def test_extract_a_directory_too_large_says_so_without_reading_it() -> None:
    """The end record's claim is enough."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, DIRECTORY_BYTES + 1, 0, 0)
    steps = plan(NAME, 2 * DIRECTORY_BYTES, bytes(TAIL_BYTES - len(end)) + end)
    with pytest.raises(NoCoreMetadata, match="directory"):
        next(steps)


def test_extract_a_bomb_unpacks_no_more_than_was_promised() -> None:
    """A member that is larger than it says ends at the promised size, and is refused."""
    content = bytearray(packed({INFO: bytes(50_000_000)}))
    entry = content.index(b"PK\x01\x02")
    struct.pack_into("<L", content, entry + 24, 1000)
    with pytest.raises(BadWheel, match="longer or shorter"):
        read(bytes(content))


def test_extract_wrong_checksum_is_refused() -> None:
    """One flipped byte of a stored METADATA."""
    content = packed({INFO: METADATA}, method=zipfile.ZIP_STORED).replace(b"Version: 1.0", b"Version: 6.6")
    with pytest.raises(BadWheel, match="checksum"):
        read(content)


def test_extract_a_header_that_names_another_member_is_refused() -> None:
    """Directory and local header must agree, or two readers see two wheels."""
    content = packed({INFO: METADATA}).replace(INFO.encode(), INFO.lower().encode(), 1)
    with pytest.raises(BadWheel, match="disagree"):
        read(content)


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 200, b"<html>not a wheel</html>", b"PK\x05\x06" * 50])
def test_extract_from_what_is_no_zip_is_refused(content: bytes) -> None:
    """No end record, or one that does not fit."""
    with pytest.raises(BadWheel):
        extract(NAME, len(content), lambda start, stop: content[start:stop])


SOUND = packed({"demo_pkg/__init__.py": noise(70_000), INFO: METADATA, "z": b"1"}, comment=b"made for a test")


@settings(deadline=None)
@given(st.integers(0, len(SOUND) - 1), st.data())
def test_extract_from_a_damaged_wheel_gives_the_right_bytes_or_an_error(cut: int, data: st.DataObject) -> None:
    """Cut anywhere, or a few bytes changed: never wrong metadata, never another exception, never endless."""
    damaged = bytearray(SOUND)
    if data.draw(st.booleans()):
        del damaged[cut:]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            near_end = st.integers(len(SOUND) - 600, len(SOUND) - 1)
            damaged[data.draw(near_end | st.integers(0, len(SOUND) - 1))] = data.draw(st.integers(0, 255))
    try:
        found, asked = read(bytes(damaged))
    except (BadWheel, NoCoreMetadata):
        return
    assert found == METADATA
    assert zlib.crc32(found) == zlib.crc32(METADATA)
    assert len(asked) <= 5


@settings(deadline=None)
@given(st.binary(max_size=300).map(lambda junk: junk + b"PK\x05\x06" + junk))
def test_extract_from_garbage_ends_in_an_error(garbage: bytes) -> None:
    """Whatever it is."""
    with pytest.raises((BadWheel, NoCoreMetadata)):
        extract(NAME, len(garbage), lambda start, stop: garbage[start:stop])


def test_extract_told_of_a_short_part_is_refused() -> None:
    """A reader that gives less than was asked for cannot shift what is read."""
    content = packed({INFO: METADATA, "pad": noise(300_000)})
    with pytest.raises(BadWheel, match="cut short"):
        extract(NAME, len(content), lambda start, stop: content[start:stop] if start else content[: stop - 1])


WHEEL_PARTS = st.lists(
    st.sampled_from(
        ["demo", "Demo.x", "a__b", "1.0", "1.0.post1+l_1", "v2", "1!2", "x", "1", "2b", "py3", "", "é", "_a"]
    ),
    min_size=3,
    max_size=7,
)


@given(WHEEL_PARTS.map(lambda parts: "-".join(parts) + ".whl"))
def test_wheel_name_reads_what_packaging_reads(filename: str) -> None:
    """Nothing that packaging refuses is a wheel, and of the rest name and version are the same."""
    found = wheel_name(filename)
    try:
        expected = parse_wheel_filename(filename)[:2]
    except InvalidWheelFilename:
        assert found is None
    else:
        assert found in {expected, None}


@pytest.mark.parametrize(
    "filename",
    [
        "demo-1.0.tar.gz",
        "demo-1.0.whl",
        "demo-1.0-py3-none-any.whl.asc",
        "demo-x-a-b-c.whl",
        f"demo-{'1' * 5000}-py3-none-any.whl",
    ],
    ids=lambda name: name[:30],
)
def test_wheel_name_of_anything_else_is_none(filename: str) -> None:
    """Contract 15. Only wheels, never sdists."""
    assert wheel_name(filename) is None


def test_wheel_name_of_real_wheels_is_read() -> None:
    """Build tags and compressed tags, too."""
    for filename in (NAME, "a.b-1!2.0rc1-1local-cp39.cp310-abi3-manylinux1_x86_64.manylinux2014_x86_64.whl"):
        assert wheel_name(filename) == parse_wheel_filename(filename)[:2]
