"""What the name of a file says: its project, its version. Strings in and out, each at the price of a page of thousands.

Every spelling that packaging reads is read alike (:func:`packaging.utils.parse_sdist_filename` and its like), and the
old ones beside.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from packaging.utils import (
    InvalidName,
    InvalidSdistFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

_EXTENSION: Final = re.compile(r"\.(?:whl|egg|exe|msi|zip|tar|tgz|tbz|tar\.(?:gz|bz2|xz|Z|zst))$")
_INSTALLER: Final = re.compile(r"(.+)-[^-]+\.(?:win32|win-amd64|win-arm32|win-arm64|win-ia64)(?:-py[0-9.]+)?")
_WHEEL_DASHES: Final = (4, 5)  # before the version, perhaps a build tag, and three tags
# Read without packaging: a name without dashes and a plain version.
_USUAL_SDIST: Final = re.compile(r"([A-Za-z0-9._]+)-[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc|\.post|\.dev)[0-9]+)?")
_MAX_FILENAME: Final = 255
"""Longer than any file system takes; what is tried at several dashes takes its time."""
_VERSION_DASHES: Final = 7  # with the one before it: "1-a-1-post-1-dev-1" (PEP 440), and any number behind its "+"


def has_known_extension(filename: str) -> bool:
    """Whether ``filename`` ends as distributions do."""
    return _EXTENSION.search(filename) is not None


def project_of_filename(filename: str) -> str | None:
    """Return the normalised project of a wheel, sdist, egg or Windows installer, or None for other names.

    The name of its ``.metadata`` or ``.asc`` will do as well.
    """
    if filename.endswith((".metadata", ".asc")):
        filename = filename.rpartition(".")[0]
    if len(filename) > _MAX_FILENAME:
        return None
    if filename.endswith(".whl"):  # of old ones with a version that is none, too
        return _normalised(filename.partition("-")[0]) if filename.count("-") in _WHEEL_DASHES else None
    extension = _EXTENSION.search(filename)
    if extension is None:
        return None
    stem = filename[: extension.start()]
    match extension[0]:
        case ".egg":  # dashes in a name are underscores there: name-version-pyX.Y[-platform]
            name = stem.partition("-")[0] if "-" in stem else None
        case ".exe" | ".msi":
            installer = _INSTALLER.fullmatch(stem)
            name = installer[1] if installer is not None else None
        case _:
            usual = _USUAL_SDIST.fullmatch(stem)
            name = usual[1] if usual is not None else _sdist_project(filename, stem)
    return _normalised(name) if name else None


def version_of_filename(filename: str) -> Version | None:
    """Return the version of a wheel or an sdist, or None for what is neither."""
    try:
        return parse_wheel_filename(filename)[1] if filename.endswith(".whl") else parse_sdist_filename(filename)[1]
    except ValueError:  # also of a number with more digits than Python reads
        return None


def interpreters_of_filename(filename: str) -> str:
    """Return what upload forms call ``pyversion``: the interpreters of a wheel, ``source`` for an sdist."""
    if not filename.endswith(".whl"):
        return "source"
    try:
        return ".".join(sorted({tag.interpreter for tag in parse_wheel_filename(filename)[3]}))
    except ValueError:
        return ""


@lru_cache(maxsize=4096)
def _normalised(name: str) -> str | None:
    try:
        return canonicalize_name(name, validate=True)
    except InvalidName:
        return None


def _sdist_project(filename: str, stem: str) -> str | None:
    """Return the project of an sdist; of old ones with dashes in the version, too (``foo-bar-1.0-beta``)."""
    try:
        return parse_sdist_filename(filename)[0]
    except InvalidSdistFilename:
        pass  # of another extension, or old
    dashes = [position for position, character in enumerate(stem) if character == "-"]
    local = stem.rfind("+")
    public = [dash for dash in dashes if dash < local][-_VERSION_DASHES:]
    for dash in public + [dash for dash in dashes if dash > local][-_VERSION_DASHES:]:
        try:
            Version(stem[dash + 1 :])
        except InvalidVersion:
            continue
        return stem[:dash]
    # A binary archive (foo-1.0.linux-x86_64) or no version at all: the last dash before a digit.
    numbered = [dash for dash in dashes if stem[dash + 1 : dash + 2].isdecimal()]
    return stem[: numbered[-1]] if numbered else None
