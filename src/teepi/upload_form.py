"""What an upload says of a file: the form fields that devpi's clients and twine send, out of its core metadata.

Of a wheel they stand in METADATA, of an sdist in PKG-INFO. A file without them, or with ones that cannot be read, is
sent with what its name says: the server judges it. Everything here blocks.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from packaging.metadata import parse_email
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from teepi.filenames import project_of_filename, version_of_filename

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTATION: Final = ".doc.zip"
"""As devpi names what doc_upload brought."""
_METADATA_BYTES: Final = 8 << 20  # as much as the server reads of it
_MEMBERS: Final = 2000  # of an sdist are looked at; PKG-INFO is one of the first
_UNREADABLE: Final = (OSError, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError, zlib.error)
_TYPES: Final = (zipfile.BadZipFile, tarfile.TarError)
_SDIST: Final = re.compile(r"\.(?:zip|tgz|tar\.(?:gz|bz2|xz|Z))$")
# What packaging names otherwise than the forms do.
_FORM_NAMES: Final = {
    "platforms": "platform",
    "supported_platforms": "supported_platform",
    "license_files": "license_file",
    "provides_extra": "provides_extras",
}


@dataclass(frozen=True, slots=True)
class Form:
    """The fields that go with a file, and its digest."""

    fields: tuple[tuple[str, str], ...]
    """Names may come several times."""
    sha256: str
    """Lower-case hex."""
    size_bytes: int


def is_distribution(filename: str) -> bool:
    """Whether ``filename`` is that of a wheel or an sdist with a project and a version."""
    if filename.endswith(".whl"):
        return version_of_filename(filename) is not None
    is_archive = _SDIST.search(filename) is not None and not filename.endswith(DOCUMENTATION)
    return is_archive and version_in(filename) is not None


def version_in(filename: str) -> str | None:
    """Return the version that stands in the name of a wheel or an sdist, an old one's included; None for others."""
    if (version := version_of_filename(filename)) is not None:
        return str(version)
    project = project_of_filename(filename)
    ending = _SDIST.search(filename)
    if project is None or ending is None:
        return None
    stem = filename[: ending.start()]
    dashes = [place for place, character in enumerate(stem) if character == "-"]
    ends = (place for place in dashes if canonicalize_name(stem[:place]) == project)
    text = stem[next(ends, len(stem)) + 1 :]
    return text if text[:1].isdigit() else None


def read_form(path: Path) -> Form:
    """Return what to send with the file at ``path``. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Form(_fields(path), sha256, path.stat().st_size)


def _fields(path: Path) -> tuple[tuple[str, str], ...]:
    name = path.name
    said: dict[str, Any] = {"metadata_version": "1.0", "name": project_of_filename(name) or name}
    said["version"] = version_in(name) or ""
    content = _core_metadata(path)
    if content is not None:
        raw, _unparsed = parse_email(content)
        if raw.get("name") and raw.get("version"):
            said = dict(raw)
    fields = [(":action", "file_upload"), ("protocol_version", "1"), *_kind(name)]
    for key, value in said.items():
        field = _FORM_NAMES.get(key, key)
        if key == "keywords":
            fields.append((field, ",".join(value)))
        elif key == "project_urls":
            fields += [(field, f"{label}, {url}") for label, url in value.items()]
        elif isinstance(value, list):
            fields += [(field, str(each)) for each in value]
        else:
            fields.append((field, str(value)))
    return tuple(fields)


def _kind(filename: str) -> list[tuple[str, str]]:
    try:
        tags = parse_wheel_filename(filename)[3]
    except InvalidWheelFilename:
        return [("filetype", "sdist"), ("pyversion", "source")]
    return [("filetype", "bdist_wheel"), ("pyversion", ".".join(sorted({tag.interpreter for tag in tags})))]


def _core_metadata(path: Path) -> bytes | None:
    """Return METADATA or PKG-INFO as it stands in the file, or None when it has none that can be read."""
    try:
        if path.name.endswith((".whl", ".zip")):
            return _from_zip(path)
        return _from_tar(path)
    except (*_UNREADABLE, *_TYPES):
        return None


def _from_zip(path: Path) -> bytes | None:
    wanted = re.compile(r"[^/]+\.dist-info/METADATA" if path.suffix == ".whl" else r"[^/]+/PKG-INFO")
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if wanted.fullmatch(member.filename):
                with archive.open(member) as file:
                    return _bounded(file.read(_METADATA_BYTES + 1))
    return None


def _from_tar(path: Path) -> bytes | None:
    with tarfile.open(path) as archive:
        for number, member in enumerate(archive):
            if member.isfile() and re.fullmatch(r"(?:\./)?[^/]+/PKG-INFO", member.name):
                file = archive.extractfile(member)
                return None if file is None else _bounded(file.read(_METADATA_BYTES + 1))
            if number >= _MEMBERS:
                break
    return None


def _bounded(content: bytes) -> bytes | None:
    return content if len(content) <= _METADATA_BYTES else None
