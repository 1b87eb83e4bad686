"""Uploaded files: what real builders make is taken, and each way to make an archive mean two things is refused."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import random
import struct
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teepi.distributions import Distribution, check_digests, inspect, inspect_docs, limits
from teepi.distributions.refusal import refusal
from teepi.errors import BadUpload
from tests.support.wheels import sdist, wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Members = Sequence[tuple[str | zipfile.ZipInfo, bytes]]

WHEEL: Final = "demo_pkg-1.0-py3-none-any.whl"
SDIST: Final = "demo_pkg-1.0.tar.gz"
INFO: Final = "demo_pkg-1.0.dist-info"
METADATA: Final = b"Metadata-Version: 2.1\nName: demo-pkg\nVersion: 1.0\n"
FORM: Final = {"name": "demo-pkg", "version": "1.0", "filetype": "bdist_wheel"}
END: Final = b"PK\x05\x06"


def look(content: bytes, filename: str = WHEEL, claims: Mapping[str, str | list[str]] | None = None) -> Distribution:
    """Inspect ``content`` as an upload without a form."""
    return inspect(io.BytesIO(content), len(content), filename, claims or {})


def refused(content: bytes, filename: str = WHEEL, claims: Mapping[str, str | list[str]] | None = None) -> str:
    """Return the sentence that refuses ``content``, which fits into a reason phrase."""
    with pytest.raises(BadUpload) as caught:
        look(content, filename, claims)
    assert_fits_a_reason_phrase(caught.value.message)
    return caught.value.message


def assert_fits_a_reason_phrase(sentence: str) -> None:
    """One line of at most 200 printable ASCII characters."""
    assert sentence.isascii()
    assert sentence.isprintable()
    assert 0 < len(sentence) <= 200


def zipped(members: Members, *, comment: bytes = b"", stream: bool = False) -> bytes:
    """Return a deflated zip; ``stream`` writes it as to a pipe, with descriptors behind the members."""
    buffer = Pipe() if stream else io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
        archive.comment = comment
    return buffer.getvalue()


class Pipe(io.BytesIO):
    """What cannot be sought in."""

    def seekable(self) -> bool:
        """Say no."""
        return False

    def seek(self, *_args: object) -> int:
        """Refuse."""
        raise io.UnsupportedOperation

    def tell(self) -> int:
        """Refuse."""
        raise io.UnsupportedOperation


def members(metadata: bytes = METADATA, info: str = INFO) -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    """Return what a small wheel has."""
    return [
        ("demo_pkg/__init__.py", b"x = 1\n" * 20),
        (f"{info}/METADATA", metadata),
        (f"{info}/WHEEL", b"Wheel-Version: 1.0\nTag: py3-none-any\n"),
        (f"{info}/RECORD", b""),
    ]


GOOD: Final = zipped(members())


def packed_tar(*entries: tarfile.TarInfo | tuple[str, bytes], end: bytes = b"", fmt: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a ``.tar.gz``; ``end`` is put behind the tar, inside the gzip data."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=fmt) as archive:
        for entry in entries:
            member, content = (
                (entry, b"") if isinstance(entry, tarfile.TarInfo) else (tarfile.TarInfo(entry[0]), entry[1])
            )
            if not isinstance(entry, tarfile.TarInfo):
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue() + end, mtime=0)


def link(path: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """Return a link or, with another ``kind``, a device."""
    member = tarfile.TarInfo(path)
    member.type, member.linkname = kind, target
    return member


PKG_INFO: Final = ("demo_pkg-1.0/PKG-INFO", METADATA)
GOOD_TAR: Final = packed_tar(PKG_INFO, ("demo_pkg-1.0/setup.py", b""))


# What is taken.


def test_wheel_with_its_form_is_read_whole() -> None:
    """Project, version, core metadata byte for byte, and fields for the version's JSON."""
    metadata = (
        b"Metadata-Version: 2.4\nName: Demo.Pkg\nVersion: 1.0.0\nSummary: A demo\nRequires-Python: >=3.9\n"
        b"Classifier: A :: B\nClassifier: C :: D\nRequires-Dist: idna\nProject-URL: Home, https://home.example/\n"
        b"Keywords: one,two\nLicense-Expression: MIT\nProvides-Extra: more\nX-Unknown: 1\n\nThe description\n"
    )
    found = look(zipped(members(metadata)), claims={**FORM, "author": "Of the form", "summary": "Another"})
    assert (found.project, found.name, found.version, found.version_key) == ("demo-pkg", "Demo.Pkg", "1.0.0", "1")
    assert (found.filetype, found.requires_python, found.summary) == ("bdist_wheel", ">=3.9", "A demo")
    assert found.core_metadata == metadata
    wanted = {
        "metadata_version": "2.4", "summary": "A demo", "author": "Of the form", "home_page": "", "keywords": "one,two",
        "license_expression": "MIT", "classifiers": ["A :: B", "C :: D"], "platform": [], "requires_dist": ["idna"],
        "project_urls": ["Home, https://home.example/"], "provides_extra": ["more"], "description": "The description",
    }  # fmt: skip
    assert {field: found.fields[field] for field in wanted} == wanted


def test_sdist_with_its_form_is_read_and_offers_no_core_metadata() -> None:
    """PKG-INFO fills the fields; PEP 658 is for wheels."""
    built = sdist("demo.pkg", "2.0", requires_python=">=3.8")
    found = look(built.content, built.filename, {"name": "demo-pkg", "version": "2.0", "filetype": "sdist"})
    assert (found.project, found.version, found.filetype) == ("demo-pkg", "2.0", "sdist")
    assert (found.requires_python, found.core_metadata) == (">=3.8", None)


@pytest.mark.parametrize(
    ("filename", "version"),
    [
        ("demo_pkg-1.0+local.1-py3-none-any.whl", "1.0+local.1"),
        ("demo_pkg-1!2.0-py3-none-any.whl", "1!2.0"),
        ("demo_pkg-1.0-1build-cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "1.0"),
        ("Demo.Pkg-1.0.0-py2.py3-none-any.whl", "1.0"),
    ],
)
def test_wheel_with_local_version_epoch_build_tag_or_old_spelling_is_taken(filename: str, version: str) -> None:
    """Private indexes keep local versions; old builders kept dots and capitals."""
    metadata = f"Metadata-Version: 2.1\nName: demo-pkg\nVersion: {version}\n".encode()
    found = look(zipped(members(metadata, f"demo_pkg-{version}.dist-info")), filename)
    assert (found.project, found.version) == ("demo-pkg", version)


def shape_setuptools() -> bytes:
    """Directories as members of their own, a .data directory, a comment."""
    extra: Members = [
        ("demo_pkg/", b""),
        ("demo_pkg-1.0.data/scripts/run", b"#!python\n"),
        (f"{INFO}/top_level.txt", b""),
    ]
    return zipped([*extra, *members(b"Metadata-Version: 2.0\nName: demo-pkg\nVersion: 1.0\nLicense: UNKNOWN\n")])


def shape_maturin() -> bytes:
    """METADATA first, zip64 local headers, non-ASCII names, an executable's mode."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*members()[1:], ("demo_pkg/bücher.so", b"\x7fELF" * 50), ("demo_pkg/empty", b"")]:
            member = zipfile.ZipInfo(str(name))
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o100755 << 16
            with archive.open(member, "w", force_zip64=True) as file:
                file.write(content)
    return buffer.getvalue()


def shape_zip64() -> bytes:
    """Put the end records of a large archive on a small one."""
    at = GOOD.rindex(END)
    *_, here, count, length, offset, _comment = struct.unpack("<4s4H2LH", GOOD[at:])
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, here, count, length, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
    most = struct.pack("<4s4H2LH", END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return GOOD[:at] + record + locator + most


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(shape_setuptools(), id="setuptools"),
        pytest.param(shape_maturin(), id="maturin"),
        pytest.param(shape_zip64(), id="zip64"),
        pytest.param(wheel("demo-pkg").content, id="flit stored"),
        pytest.param(zipped(members(), stream=True), id="hatch to a pipe"),
        pytest.param(zipped(members(), comment=b"made by hand"), id="comment"),
        pytest.param(zipped(members(METADATA.replace(b"\n", b"\r\n"))), id="pdm on Windows"),
    ],
)
def test_wheel_in_the_shape_of_a_builder_is_taken(content: bytes) -> None:
    """Each builder has its way with zip; all are sound."""
    assert look(content, claims=FORM).project == "demo-pkg"


@pytest.mark.parametrize(
    ("filename", "content", "name", "version"),
    [
        (
            "demo-pkg-1.0.tar.gz",
            packed_tar(("demo-pkg-1.0", b""), ("demo-pkg-1.0/PKG-INFO", METADATA)),
            "demo_pkg",
            "1.0",
        ),
        ("demo_pkg-1.0.tar.gz", packed_tar(PKG_INFO, link("demo_pkg-1.0/a/l", "../b")), "demo-pkg", "1.0"),
        ("demo_pkg-1.0.tar.gz", packed_tar(PKG_INFO, fmt=tarfile.GNU_FORMAT), "demo-pkg", "1.0"),
        ("demo_pkg-1.0.tar.gz", packed_tar(PKG_INFO, ("demo_pkg-1.0/" + "d/" * 90 + "é", b"")), "demo-pkg", "1.0"),
        ("demo_pkg-1.0.zip", zipped([PKG_INFO, ("demo_pkg-1.0/setup.py", b"")]), "demo-pkg", "1.0"),
        (
            "demo-pkg-1.0-1.tar.gz",
            packed_tar(("demo-pkg-1.0-1/PKG-INFO", METADATA.replace(b"1.0", b"1.0.post1"))),
            "demo-pkg",
            "1.0.post1",
        ),
    ],
    ids=["old name", "link inside", "gnu", "long path", "zip", "dash in the version"],
)
def test_sdist_in_the_shape_of_a_builder_is_taken(filename: str, content: bytes, name: str, version: str) -> None:
    """Old spellings of name and version, links inside, all tar formats, zip."""
    assert look(content, filename, {"name": name, "version": version}).version == version


def test_egg_is_taken_with_and_without_its_metadata() -> None:
    """As devpi takes them; the form speaks where there is no PKG-INFO."""
    claims = {"name": "demo-pkg", "version": "1.0", "filetype": "bdist_egg", "summary": "Of the form"}
    bare = look(zipped([("demo_pkg/__init__.py", b"")]), "demo_pkg-1.0-py2.7.egg", claims)
    assert (bare.filetype, bare.version, bare.summary, bare.core_metadata) == ("bdist_egg", "1.0", "Of the form", None)
    assert look(zipped([("EGG-INFO/PKG-INFO", METADATA)]), "demo_pkg-1.0-py2.7-linux-x86_64.egg").name == "demo-pkg"


@pytest.mark.parametrize(
    "metadata",
    [
        METADATA + b"License: GPL\xe9\n",
        METADATA + b"Summary: twice\nSummary: again\n",
        METADATA + b"Requires-Dist: what (is this\nDescription-Content-Type: text/odd\n",
        METADATA + b"Content-Type: multipart/mixed; boundary=x\n\n--x\n\n--x--\n",
        METADATA + b"Content-Type: message/rfc822\n\n" * 2000,
        METADATA.replace(b"2.1", b"9.9"),
        b"\xef\xbb\xbf" + METADATA,
        METADATA + b"Project-URL: a, https://a.example/\nProject-URL: a, https://b.example/\n",
    ],
)
def test_metadata_that_harms_nobody_is_taken(metadata: bytes) -> None:
    """Old builders wrote what the specification of today has not."""
    assert look(zipped(members(metadata)), claims=FORM).project == "demo-pkg"


# Names, versions and the form.


@pytest.mark.parametrize(
    "filename",
    [
        "../demo_pkg-1.0-py3-none-any.whl", "a/demo_pkg-1.0-py3-none-any.whl", "a\\demo_pkg-1.0-py3-none-any.whl",
        "demo_pkg-1.0-py3-none-any.whl\n", "demo_pkg-1.0-py3-none-any\0.whl", "démo-1.0-py3-none-any.whl",
        ".demo-1.0.zip", "", "demo_pkg-1.0.exe", "demo_pkg-1.0.msi", "demo_pkg-1.0.rpm", "demo_pkg-1.0.tar.bz2",
        "demo_pkg-1.0.txt", "demo_pkg.whl", "demo_pkg-1.0.whl", "demo_pkg-one-py3-none-any.whl", "demo_pkg.tar.gz",
        "demo__pkg-1.0-py3-none-any.whl", "demo.egg", "x" * 300 + "-1.0.zip",
        "demo_pkg-1.0-py3-none-a..b.whl", "demo_pkg-1.0-1<b>-py3-none-any.whl", "demo_pkg-1.0-py3.11-../x.egg",
        "demo_pkg-" + "1" * 240 + ".zip",
    ],
)  # fmt: skip
def test_filename_that_is_no_distributions_is_refused(filename: str) -> None:
    """Paths, control characters, other kinds of files, names without a version."""
    assert refused(GOOD, filename)


def test_version_of_the_form_that_is_not_in_the_filename_is_refused_in_devpis_words() -> None:
    """A client's tests look for that sentence."""
    said = refused(GOOD, claims={**FORM, "version": "0.7"})
    assert f"filename {WHEEL!r} does not contain version '0.7'" in said
    said = refused(GOOD_TAR, SDIST, {"name": "demo-pkg", "version": "0.7"})
    assert f"filename {SDIST!r} does not contain version '0.7'" in said


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"name": "other"}, "does not contain project name 'other'"),
        ({"name": "-demo-"}, "Project name '-demo-' is invalid"),
        ({"name": "démo"}, "is invalid"),
        ({"version": "one"}, "Version 'one' is invalid"),
        ({"version": "1" * 5000}, "is invalid"),
        ({"version": "1." * 200 + "0"}, "is invalid"),
        ({"filetype": "sdist"}, "does not fit filetype 'sdist'"),
        ({"requires_python": "newest"}, "Requires-Python 'newest'"),
        ({"version": ["0.7", "1.0"]}, "does not contain version '0.7'"),
    ],
)
def test_form_that_contradicts_the_file_or_pep_440_is_refused(claims: dict[str, Any], word: str) -> None:
    """Each claim is compared."""
    assert word in refused(GOOD, claims={**FORM, **claims})


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        (METADATA.replace(b"demo-pkg", b"other"), "is for project 'other'"),
        (METADATA.replace(b"1.0", b"1.1"), "is for version '1.1'"),
        (b"Metadata-Version: 2.1\nVersion: 1.0\n", "has no Name"),
        (b"Metadata-Version: 2.1\nName: demo-pkg\n", "has no Version"),
        (METADATA + b"Name: other\n", "more than one Name"),
        (METADATA + b"Version: 1.1\n", "more than one Version"),
        (METADATA + b"Requires-Python: >=three\n", "Requires-Python"),
        (METADATA.replace(b"1.0", b"one"), "Version 'one' is invalid"),
        (METADATA + b"".join(b"X-%d: y\n" % number for number in range(200)), "different fields"),
    ],
)
def test_metadata_that_names_another_release_or_harms_is_refused(metadata: bytes, word: str) -> None:
    """In a wheel and in an sdist, with a form that agrees with the file's name."""
    assert word in refused(zipped(members(metadata)), claims=FORM)
    assert word in refused(
        packed_tar(("demo_pkg-1.0/PKG-INFO", metadata)), SDIST, {"name": "demo-pkg", "version": "1.0"}
    )


# Zip.


def entry_of(content: bytes, name: bytes) -> int:
    """Return where the directory's record of ``name`` begins."""
    return content.index(name, content.index(b"PK\x01\x02")) - 46


def patched(content: bytes, at: int, fmt: str, value: int) -> bytes:
    """Return ``content`` with a number written over."""
    return content[:at] + struct.pack(fmt, value) + content[at + struct.calcsize(fmt) :]


def two_directories() -> bytes:
    """Return a wheel with a second directory and end record of other members in its comment."""
    other = zipped([*members(), ("evil.py", b"")])
    return zipped(members(), comment=other[other.index(b"PK\x01\x02") :])


def directory_before_directory() -> bytes:
    """Return a wheel whose first directory is dead: the end record points at the second."""
    start, end = GOOD.index(b"PK\x01\x02"), GOOD.rindex(END)
    tail = bytearray(GOOD[end:])
    struct.pack_into("<L", tail, 16, end)
    return GOOD[:end] + GOOD[start:end] + bytes(tail)


def overlapping() -> bytes:
    """Return a wheel whose two first members begin at the same byte."""
    return patched(GOOD, entry_of(GOOD, f"{INFO}/METADATA".encode()) + 42, "<L", 0)


def named_twice(member: str) -> bytes:
    """Return a wheel with ``member`` twice."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zipped([*members(), (member, b"Name: other\n")])


def with_mode(mode: int) -> zipfile.ZipInfo:
    """Return a member that is no plain file."""
    member = zipfile.ZipInfo("demo_pkg/link")
    member.create_system, member.external_attr = 3, mode << 16
    return member


def with_method(method: int) -> zipfile.ZipInfo:
    """Return a member packed by ``method``."""
    member = zipfile.ZipInfo("demo_pkg/data")
    member.compress_type = method
    return member


def with_second_name() -> bytes:
    """Return a wheel with a member that has another name in its Unicode Path field."""
    member = zipfile.ZipInfo("demo_pkg/data")
    path = b"\x01" + struct.pack("<L", zlib.crc32(b"demo_pkg/data")) + b"demo_pkg/evil"
    member.extra = struct.pack("<HH", 0x7075, len(path)) + path
    return zipped([*members(), (member, b"")])


def end_record_in_directory() -> bytes:
    """Return a wheel with a member whose comment looks like an end record."""
    member = zipfile.ZipInfo("demo_pkg/data")
    member.comment = END
    return zipped([*members(), (member, b"")])


def script_in_front() -> bytes:
    """Return a wheel appended to other bytes, which its directory counts."""
    buffer = io.BytesIO(b"#!/bin/sh\n")
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members():
            archive.writestr(name, content)
    return buffer.getvalue()


INIT: Final = b"demo_pkg/__init__.py"
UNSOUND: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "two directories": (two_directories, "there may be two"),
    "a dead directory": (directory_before_directory, "that are no member's"),
    "bytes behind": (lambda: GOOD + b"behind", "no end record, or bytes behind"),
    "a zip behind a zip": (lambda: GOOD + GOOD, "there may be two"),
    "an end record in the comment": (lambda: zipped(members(), comment=END), "two end records"),
    "an end record in the directory": (end_record_in_directory, "two end records"),
    "a script in front": (script_in_front, "before its first member"),
    "nothing but bytes in front": (
        lambda: b"x" * 9 + struct.pack("<4s4H2LH", END, 0, 0, 0, 0, 0, 9, 0),
        "before its first",
    ),
    "bytes in front": (lambda: b"#!/bin/sh\n" + GOOD, "there may be two"),
    "overlapping members": (overlapping, "overlap"),
    "size in the directory": (lambda: patched(GOOD, entry_of(GOOD, INIT) + 24, "<L", 1), "disagree about"),
    "name in the local header": (lambda: b"".join([GOOD[:30], b"demo_pkg/__evil__.py", GOOD[50:]]), "disagree about"),
    "method in the local header": (lambda: patched(GOOD, 8, "<H", 0), "disagree about"),
    "checksum in both": (
        lambda: patched(patched(GOOD, 14, "<L", 7), entry_of(GOOD, INIT) + 16, "<L", 7),
        "size or checksum",
    ),
    "a directory with content": (lambda: zipped([*members(), ("demo_pkg/data/", b"x")]), "directory with content"),
    "encrypted in the local header": (lambda: patched(GOOD, 6, "<H", 1), "disagree about"),
    "zip64 record elsewhere": (
        lambda: patched(shape_zip64(), len(shape_zip64()) - 22 - 12, "<Q", 0),
        "not right before",
    ),
    "encrypted": (lambda: patched(GOOD, entry_of(GOOD, INIT) + 8, "<H", 1), "installers do not read"),
    "another count": (lambda: patched(GOOD, GOOD.rindex(END) + 8, "<L", 0x00050005), "counts other members"),
    "a part of several": (lambda: patched(GOOD, GOOD.rindex(END) + 4, "<H", 1), "part of several"),
    "no zip": (lambda: b"<html>", "no end record"),
    "empty": (lambda: b"", "no end record"),
    "cut": (lambda: GOOD[:-40], "no end record"),
    "zip64 says otherwise": (lambda: shape_zip64()[:-14] + struct.pack("<HHLLH", 9, 9, 9, 9, 0), "records disagree"),
    "METADATA twice": (lambda: named_twice(f"{INFO}/METADATA"), "twice"),
    "a module twice": (lambda: named_twice("demo_pkg/__init__.py"), "twice"),
    "file and directory": (lambda: zipped([*members(), ("demo_pkg/__init__.py/", b"")]), "twice"),
    "second name": (with_second_name, "second name"),
    "a link": (lambda: zipped([*members(), (with_mode(0o120777), b"/etc/passwd")]), "link or a device"),
    "lzma": (lambda: zipped([*members(), (with_method(zipfile.ZIP_LZMA), b"data")]), "installers do not read"),
    "stored, end unknown": (
        lambda: zipped([*members(), (with_method(zipfile.ZIP_STORED), b"data")], stream=True),
        "only be guessed",
    ),
    "no RECORD": (lambda: zipped(members()[:-1]), "has no"),
    "no WHEEL": (lambda: zipped([*members()[:2], *members()[3:]]), "has no"),
    "no METADATA": (lambda: zipped([*members()[:1], *members()[2:]]), "has no"),
    "no dist-info": (lambda: zipped(members()[:1]), "has 0 .dist-info"),
    "two dist-infos": (lambda: zipped([*members(), ("other-1.0.dist-info/METADATA", b"")]), "has 2 .dist-info"),
    "another's dist-info": (lambda: zipped(members(info="other-1.0.dist-info")), "another project's"),
    "another version's dist-info": (lambda: zipped(members(info="demo_pkg-1.1.dist-info")), "another project's"),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_wheel_that_readers_could_read_differently_is_refused(case: str) -> None:
    """Two directories, gaps, disagreements, second names: one sentence each."""
    make, word = UNSOUND[case]
    assert word in refused(make(), claims=FORM)


@pytest.mark.parametrize(
    "path",
    [
        "../evil.py", "/etc/evil", "demo_pkg/../../evil", "a\\b", "C:evil", "a//b", "./a", "a\tb", "a\x7fb", "/",
        pytest.param("a/" * 2500 + "b", id="long"),
    ],
)  # fmt: skip
def test_member_that_leads_outside_is_refused_in_wheel_sdist_egg_and_docs(path: str) -> None:
    """Zip slip, in all four kinds."""
    word = "no installer should unpack"
    assert word in refused(zipped([*members(), (path, b"")]))
    assert word in refused(zipped([PKG_INFO, (path, b"")]), "demo_pkg-1.0.zip")
    assert word in refused(zipped([(path, b"")]), "demo_pkg-1.0-py3.11.egg")
    docs = zipped([("index.html", b""), (path, b"")])
    with pytest.raises(BadUpload, match=word):
        inspect_docs(io.BytesIO(docs), len(docs))


def test_zip_bomb_is_refused_by_its_ratio_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros shrink to a thousandth; no code does."""
    monkeypatch.setattr(limits, "_ANY_RATIO_BYTES", 100_000)
    assert "suspiciously much" in refused(zipped([*members(), ("demo_pkg/zeros", bytes(1_000_000))]))
    assert look(zipped([*members(), ("demo_pkg/zeros", bytes(90_000))])).project == "demo-pkg"


def test_zip_member_that_is_longer_than_it_says_is_refused() -> None:
    """A reader that does not count would go on."""
    content = zipped([("demo_pkg/zeros", bytes(1_000_000)), *members()])
    lied = patched(patched(content, 22, "<L", 10), entry_of(content, b"demo_pkg/zeros") + 24, "<L", 10)
    assert "size or checksum" in refused(lied)


def test_zip_member_that_is_longer_than_it_says_is_unpacked_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory may promise ten bytes for ten terabytes."""
    passed: list[int] = []

    def checksum(data: bytes, value: int = 0) -> int:
        passed.append(len(data))
        return zlib_crc32(data, value)

    content = zipped([("demo_pkg/zeros", bytes(1_000_000)), *members()])
    lied = patched(patched(content, 22, "<L", 10), entry_of(content, b"demo_pkg/zeros") + 24, "<L", 10)
    zlib_crc32 = zlib.crc32
    monkeypatch.setattr("teepi.distributions.zips.zlib.crc32", checksum)
    monkeypatch.setattr("teepi.distributions.zips._CHUNK_BYTES", 1000)
    assert "size or checksum" in refused(lied)
    assert sum(passed) <= 1000


def test_zip_directory_larger_than_is_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be held in memory."""
    monkeypatch.setattr("teepi.distributions.zips.DIRECTORY_BYTES", 100)
    assert "directory has more than 100 bytes" in refused(GOOD)


def test_zip_that_is_a_tar_as_well_is_refused() -> None:
    """A tar header whose member is called like a zip's first bytes, over a zip's directory."""
    header = tarfile.TarInfo("PK").tobuf(tarfile.USTAR_FORMAT)
    assert "at once" in refused(header + GOOD)


# Tar.


def size_below_zero() -> bytes:
    """Return an sdist whose second member ends before it begins, so that it would be read for ever."""
    member = tarfile.TarInfo("demo_pkg-1.0/x")
    member.size = -1024
    return gzip.compress(gzip.decompress(GOOD_TAR)[:1024] + member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


TARS: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "a zip behind": (lambda: GOOD_TAR + GOOD, "is a zip archive, too"),
    "bytes behind": (lambda: GOOD_TAR + b"behind", "behind its gzip data"),
    "two gzip members": (lambda: GOOD_TAR + GOOD_TAR, "behind its gzip data"),
    "a second tar inside": (lambda: packed_tar(PKG_INFO, end=gzip.decompress(GOOD_TAR)), "behind its last readable"),
    "a damaged header inside": (lambda: packed_tar(PKG_INFO, end=b"x" * 512), "behind its last readable"),
    "cut": (lambda: GOOD_TAR[:-20], "cut short"),
    "damaged": (lambda: GOOD_TAR[:30] + b"\xff" * 10 + GOOD_TAR[40:], "damaged"),
    "plain tar": (lambda: gzip.decompress(GOOD_TAR), "gzip data is damaged"),
    "no tar": (lambda: gzip.compress(b"x" * 2000), "headers are damaged"),
    "empty": (lambda: b"", "headers are damaged"),
    "no members": (packed_tar, "not called name-version"),
    "a wheel": (lambda: GOOD, "is a zip archive, too"),
    "no PKG-INFO": (lambda: packed_tar(("demo_pkg-1.0/setup.py", b"")), "has no 'demo_pkg-1.0/PKG-INFO'"),
    "PKG-INFO below": (lambda: packed_tar(("demo_pkg-1.0/a.egg-info/PKG-INFO", METADATA)), "has no"),
    "PKG-INFO twice": (lambda: packed_tar(PKG_INFO, PKG_INFO), "twice"),
    "PKG-INFO is a link": (lambda: packed_tar(link("demo_pkg-1.0/PKG-INFO", "x")), "no plain file"),
    "two tops": (lambda: packed_tar(PKG_INFO, ("other/setup.py", b"")), "beside its one directory"),
    "another top": (lambda: packed_tar(("other-1.0/PKG-INFO", METADATA)), "not called name-version"),
    "another version's top": (lambda: packed_tar(("demo_pkg-1.1/PKG-INFO", METADATA)), "not called name-version"),
    "dot-dot": (lambda: packed_tar(PKG_INFO, ("demo_pkg-1.0/../evil", b"")), "no installer"),
    "absolute": (lambda: packed_tar(PKG_INFO, ("/etc/evil", b"")), "no installer"),
    "link to outside": (lambda: packed_tar(PKG_INFO, link("demo_pkg-1.0/l", "../../etc")), "may lead outside"),
    "link to the top's parent": (lambda: packed_tar(PKG_INFO, link("demo_pkg-1.0/l", "..")), "may lead outside"),
    "absolute link": (lambda: packed_tar(PKG_INFO, link("demo_pkg-1.0/l", "/etc/passwd")), "may lead outside"),
    "hard link to outside": (
        lambda: packed_tar(PKG_INFO, link("demo_pkg-1.0/l", "../etc/passwd", tarfile.LNKTYPE)),
        "may lead outside",
    ),
    "link through a link": (
        lambda: packed_tar(PKG_INFO, link("demo_pkg-1.0/a/l", ".."), link("demo_pkg-1.0/m", "a/l/../b")),
        "may lead outside",
    ),
    "a file below a link": (
        lambda: packed_tar(PKG_INFO, link("demo_pkg-1.0/a/l", ".."), ("demo_pkg-1.0/a/l/x", b"")),
        "lies below a link",
    ),
    "a device": (lambda: packed_tar(PKG_INFO, link("demo_pkg-1.0/d", "", tarfile.CHRTYPE)), "device"),
    "a pipe": (lambda: packed_tar(PKG_INFO, link("demo_pkg-1.0/d", "", tarfile.FIFOTYPE)), "device"),
    "a sparse file": (lambda: packed_tar(PKG_INFO, link("demo_pkg-1.0/d", "", tarfile.GNUTYPE_SPARSE)), "sparse"),
    "a size below zero": (size_below_zero, "point backwards"),
    "endless headers": (lambda: packed_tar(PKG_INFO, (f"demo_pkg-1.0/{'x' * 40_000}", b"")), "headers are too long"),
    "digits": (lambda: packed_tar(PKG_INFO, (f"demo_pkg-1.0/{'1' * 2_000}", b"")), "cannot be read"),
}


@pytest.mark.parametrize("case", TARS)
def test_sdist_that_is_unsound_or_leads_outside_is_refused(case: str) -> None:
    """Two archives in one, links, devices, several directories, no PKG-INFO: one sentence each."""
    make, word = TARS[case]
    assert word in refused(make(), SDIST, {"name": "demo-pkg", "version": "1.0"})


def test_bytes_right_behind_the_last_read_of_a_gzip_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inflater has not seen them."""
    monkeypatch.setattr("teepi.distributions.tars._CHUNK_BYTES", len(GOOD_TAR))
    assert look(GOOD_TAR, SDIST).project == "demo-pkg"
    assert "behind its gzip data" in refused(GOOD_TAR + b"x", SDIST)


def test_tar_bomb_is_refused_once_too_much_came_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not unpacked to its end, whatever its header says."""
    monkeypatch.setattr(limits, "_ANY_RATIO_BYTES", 100_000)
    assert "suspiciously much" in refused(packed_tar(PKG_INFO, ("demo_pkg-1.0/zeros", bytes(1_000_000))), SDIST)


@pytest.mark.parametrize("limit", ["_HEADERS_BYTES", "_LONG_HEADERS_BYTES"])
def test_tar_with_too_many_headers_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is short, but together they keep tarfile busy for minutes."""
    content = packed_tar(PKG_INFO, *((f"demo_pkg-1.0/{number}/{'x' * 600}", b"") for number in range(9)))
    assert look(content, SDIST).project == "demo-pkg"
    monkeypatch.setattr(f"teepi.distributions.tars.{limit}", 5000)
    assert "headers are too long" in refused(content, SDIST)


def test_archive_with_too_many_members_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs memory here and an inode there."""
    monkeypatch.setattr("teepi.distributions.zips.MEMBERS", 3)
    monkeypatch.setattr("teepi.distributions.tars.MEMBERS", 1)
    assert "more than 3 members" in refused(GOOD)
    assert "more than 1 members" in refused(GOOD_TAR, SDIST)


@pytest.mark.parametrize("filename", [SDIST, "demo_pkg-1.0.zip"])
def test_metadata_larger_than_is_read_is_refused(filename: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PKG-INFO without end."""
    monkeypatch.setattr("teepi.distributions.inspection.METADATA_BYTES", 10)
    content = GOOD_TAR if filename == SDIST else zipped([PKG_INFO])
    assert "more than 10 bytes" in refused(content, filename)


def test_zip_sdist_with_two_tops_is_refused() -> None:
    """As a tar is."""
    assert "2 directories or files" in refused(zipped([PKG_INFO, ("other", b"")]), "demo_pkg-1.0.zip")


# Documentation.


def test_docs_with_index_are_listed_without_their_directories() -> None:
    """Path and size of each file."""
    content = zipped([("index.html", b"<p>"), ("api/", b""), ("api/x.html", b"12345")])
    assert inspect_docs(io.BytesIO(content), len(content)) == [("index.html", 3), ("api/x.html", 5)]


def test_sdist_that_is_flat_is_taken_by_the_metadata_at_its_top() -> None:
    """As devpi does, and pip unpacks it: no member leads elsewhere."""
    content = packed_tar(("PKG-INFO", PKG_INFO[1]), ("content", b"x"))
    assert look(content, "demo_pkg-1.0.tar.gz").version == "1.0"
    assert "beside its one directory" in refused(packed_tar(("a", b""), ("b", b"")), "demo_pkg-1.0.tar.gz")


@pytest.mark.parametrize("path", ["./usr/lib/demo.py", "usr/lib/demo.py"])
def test_dumb_archive_is_taken_for_its_platform_and_leads_nowhere(path: str) -> None:
    """bdist_dumb: what devpi's users may still have; installers leave it alone."""
    claims: dict[str, str | list[str]] = {"filetype": "bdist_dumb", "name": "demo-pkg", "version": "1.0"}
    filename = "demo-pkg-1.0.linux-x86_64.tar.gz"
    found = look(packed_tar((path, b"x"), ("other/x", b"")), filename, claims)
    assert (found.filetype, found.project, found.version) == ("bdist_dumb", "demo-pkg", "1.0")
    assert "no installer should unpack" in refused(packed_tar(("./../x", b"")), filename, claims)
    assert "does not contain version" in refused(packed_tar((path, b"")), filename, {**claims, "version": "2.0"})


# Digests.

DIGESTS: Final = (
    hashlib.sha256(GOOD).hexdigest(),
    hashlib.md5(GOOD, usedforsecurity=False).hexdigest(),
    hashlib.blake2b(GOOD, digest_size=32).hexdigest(),
)
FIELDS: Final = ("sha256_digest", "md5_digest", "blake2_256_digest")


def test_digests_that_match_are_taken_in_hex_and_base64url() -> None:
    """Upper case, unpadded base64, none at all, and the 512 bits that distutils called 256."""
    encoded = [base64.urlsafe_b64encode(bytes.fromhex(digest)).decode() for digest in DIGESTS]
    check_digests({}, *DIGESTS)
    check_digests(dict.fromkeys(FIELDS, ""), *DIGESTS)
    check_digests(dict(zip(FIELDS, DIGESTS, strict=True)), *DIGESTS)
    check_digests(dict(zip(FIELDS, map(str.upper, DIGESTS), strict=True)), *DIGESTS)
    check_digests(dict(zip(FIELDS, encoded, strict=True)), *DIGESTS)
    check_digests({"md5_digest": encoded[1].rstrip("=")}, *DIGESTS)
    check_digests({"blake2_256_digest": hashlib.blake2b(GOOD).hexdigest()}, *DIGESTS)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("claimed", ["0" * 64, "0" * 32, "é", "x", "\ud800"])
def test_digest_that_differs_is_refused_by_its_name(field: str, claimed: str) -> None:
    """Damaged on the way, or another file's digest."""
    with pytest.raises(BadUpload, match=field) as caught:
        check_digests({**dict(zip(FIELDS, DIGESTS, strict=True)), field: claimed}, *DIGESTS)
    assert_fits_a_reason_phrase(caught.value.message)


# Whatever comes.


@pytest.mark.parametrize("sentence", ["é" * 150, "one\r\nX-Header: two", "\U0001f600" * 60, "x" * 201])
def test_refusal_of_any_text_fits_a_reason_phrase(sentence: str) -> None:
    """Also where somebody forgets to quote."""
    assert_fits_a_reason_phrase(refusal(sentence).message)


FUZZ: Final = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def survives(content: bytes, filename: str) -> None:
    """Nothing but a refusal is raised."""
    try:
        look(content, filename)
    except BadUpload as error:
        assert_fits_a_reason_phrase(error.message)


@FUZZ
@given(st.binary(max_size=2000), st.sampled_from([WHEEL, SDIST, "demo_pkg-1.0.zip", "demo_pkg-1.0-py3.11.egg"]))
def test_random_bytes_raise_nothing_but_refusals(content: bytes, filename: str) -> None:
    """As a file, and as a tar within gzip."""
    survives(content, filename)
    survives(gzip.compress(content, 1), filename)


@FUZZ
@given(st.integers(), st.integers(1, 6))
def test_mutated_archives_raise_nothing_but_refusals(seed: int, changes: int) -> None:
    """Bytes written over, cut out and doubled; of a tar, within the gzip."""
    rng = random.Random(seed)
    for source in (GOOD, shape_zip64(), zipped(members(), stream=True), gzip.decompress(GOOD_TAR)):
        content = bytearray(source)
        for _change in range(changes):
            at = rng.randrange(len(content))
            match rng.randrange(3):
                case 0:
                    content[at] = rng.randrange(256)
                case 1:
                    del content[at : at + rng.randrange(1, 40)]
                case _:
                    content[at:at] = content[at : at + rng.randrange(1, 40)]
        survives(bytes(content), WHEEL)
        survives(gzip.compress(bytes(content), 1), SDIST)


@FUZZ
@given(st.binary(max_size=300))
def test_random_metadata_raises_nothing_but_refusals(metadata: bytes) -> None:
    """Behind a name and a version that are right, and instead of them."""
    survives(zipped(members(metadata)), WHEEL)
    survives(zipped(members(METADATA + metadata)), WHEEL)


@FUZZ
@given(
    st.text(max_size=40) | st.from_regex(r"[a-z._-]{1,9}-[0-9!+a-z._-]{1,9}(-py3-none-any\.whl|\.tar\.gz|\.egg)"),
    st.dictionaries(
        st.sampled_from(["name", "version", "filetype", "requires_python", "summary", *FIELDS]),
        st.text(max_size=12) | st.lists(st.text(max_size=12), max_size=2),
    ),
)
def test_random_names_and_forms_raise_nothing_but_refusals(filename: str, claims: dict[str, str | list[str]]) -> None:
    """What people type."""
    try:
        look(GOOD, filename, claims)
    except BadUpload as error:
        assert_fits_a_reason_phrase(error.message)
