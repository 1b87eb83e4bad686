"""Names and versions: the file's name, the form's claims, and whether they speak of the same release.

Wheels as :func:`packaging.utils.parse_wheel_filename` reads them. An sdist's name can be cut at several dashes
(``foo-bar-1.0-1``), so it is the claims that say where.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from packaging.utils import InvalidName, NormalizedName, canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from teepi.distributions.claims import text
from teepi.distributions.refusal import quoted, quoted_path, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from teepi.distributions.claims import Claims

_LONGEST_FILENAME: Final = 255
"""Longer than any file system takes."""
_LONGEST_VERSION: Final = 255
_FILENAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
"""What names, versions (``!`` for an epoch, ``+`` for a local one) and tags are made of."""
_EXTENSIONS: Final = {".whl": "bdist_wheel", ".tar.gz": "sdist", ".zip": "sdist", ".egg": "bdist_egg"}
DUMB: Final = "bdist_dumb"
"""An archive of a built tree for one platform, ``name-version.platform.tar.gz``: old, and taken as devpi does."""
_OTHER_EXTENSIONS: Final = re.compile(
    r"\.(?:exe|msi|rpm|deb|dmg|tgz|tbz|tar|tar\.(?:bz2|xz|Z|zst)|conda|dumb)$", re.IGNORECASE
)
_EGG: Final = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-py[0-9][0-9.]*(?:-.+)?)?")


@dataclass(frozen=True, slots=True)
class Named:
    """What a file's name says, agreed with the form."""

    filetype: str
    extension: str
    """``.whl``, ``.tar.gz``, ``.zip`` or ``.egg``."""
    project: NormalizedName
    version: Version


def named(filename: str, claims: Claims) -> Named:
    """Read a file's name. Raises :class:`BadUpload` for what is no distribution's, and where the form differs."""
    if len(filename) > _LONGEST_FILENAME or not _FILENAME.fullmatch(filename):
        raise refusal(f"{quoted_path(filename)} is no file name of a distribution.")
    extension = next((known for known in _EXTENSIONS if filename.endswith(known)), None)
    if extension is None:
        kind = "is of a kind that is" if _OTHER_EXTENSIONS.search(filename) else "has an extension that is"
        raise refusal(f"{quoted_path(filename)} {kind} not accepted: upload .whl, .tar.gz, .zip or .egg.")
    filetype = _EXTENSIONS[extension]
    claimed_type = text(claims, "filetype")
    if claimed_type == DUMB and filetype == "sdist":
        filetype = DUMB
    if claimed_type and claimed_type != filetype:
        raise refusal(f"filename {quoted_path(filename)} does not fit filetype {quoted(claimed_type)}.")
    claimed_name, claimed_version = text(claims, "name"), text(claims, "version")
    project = normalised(claimed_name) if claimed_name else None
    version = parsed_version(claimed_version) if claimed_version else None
    stem = filename.removesuffix(extension)
    readings = list(_dumb_readings(stem) if filetype == DUMB else _readings(filename, stem, extension))
    if not readings:
        raise refusal(f"{quoted_path(filename)} has no valid name and version (PEP 440) of a {filetype}.")
    if project is not None and all(project != reading[0] for reading in readings):
        raise refusal(f"filename {quoted_path(filename)} does not contain project name {quoted(claimed_name)}.")
    readings = [reading for reading in readings if project in {None, reading[0]}]
    if version is not None and all(version != reading[1] for reading in readings):
        raise refusal(f"filename {quoted_path(filename)} does not contain version {quoted(claimed_version)}.")
    agreed = next(reading for reading in readings if version in {None, reading[1]})
    return Named(filetype, extension, *agreed)


def normalised(name: str) -> NormalizedName:
    """Return a project's normalised name (PEP 503). Raises :class:`BadUpload` for what is none."""
    try:
        if len(name) <= _LONGEST_FILENAME:
            return canonicalize_name(name, validate=True)
    except InvalidName:
        pass
    raise refusal(f"Project name {quoted(name)} is invalid: it takes ASCII letters, digits and . _ - between them.")


def parsed_version(version: str) -> Version:
    """Return a version; epochs and local ones are welcome (PEP 440). Raises :class:`BadUpload` for what is none."""
    try:
        if len(version) <= _LONGEST_VERSION:
            return Version(version)
    except ValueError:  # also of a number with more digits than Python reads
        pass
    raise refusal(f"Version {quoted(version)} is invalid: see PEP 440.")


def is_release(stem: str, project: str, version: Version) -> bool:
    """Whether ``stem`` is ``{name}-{version}`` of this release, in any spelling."""
    return any((project, version) == split for split in _splits(stem))


def _readings(filename: str, stem: str, extension: str) -> Iterator[tuple[NormalizedName, Version]]:
    """Yield what a file's name can mean, the likeliest first."""
    try:
        if extension == ".whl":
            project, version, _build, _tags = parse_wheel_filename(filename)
            yield project, version
        elif extension == ".egg":  # dashes of name and version are underscores here
            parts = _EGG.fullmatch(stem)
            if parts is not None:
                yield canonicalize_name(parts["name"], validate=True), Version(parts["version"].replace("_", "-"))
        else:
            yield parse_sdist_filename(filename)
    except ValueError:
        pass
    if extension not in {".whl", ".egg"}:
        yield from _splits(stem)


def _dumb_readings(stem: str) -> Iterator[tuple[NormalizedName, Version]]:
    """Yield name and version before each dot that a platform can stand behind."""
    dot = len(stem)
    while (dot := stem.rfind(".", 0, dot)) > 0:
        yield from _splits(stem[:dot])


def _splits(stem: str) -> Iterator[tuple[NormalizedName, Version]]:
    """Yield name and version for each dash that can stand between them, the last one first."""
    dash = len(stem)
    while (dash := stem.rfind("-", 0, dash)) > 0:
        try:
            yield canonicalize_name(stem[:dash], validate=True), Version(stem[dash + 1 :])
        except ValueError:
            continue
