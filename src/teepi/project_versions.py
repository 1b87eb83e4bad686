"""The versions of a project with their files, put together of what stages and a mirror have. Pure.

Of a file name that several have the first counts, as in ``stages``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from teepi.legacy_json import version_of
from teepi.versions import rank, version_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from teepi.data import Registered, StoredFile
    from teepi.simple_api import ProjectPage

LONGEST_VERSION: Final = 200
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,20}(?:Z|[+-][0-9]{2}:?[0-9]{2})?")


@dataclass(frozen=True, slots=True)
class Owned:
    """What one stage has of a project."""

    index: str
    versions: Sequence[Registered]
    files: Sequence[StoredFile]
    docs: frozenset[str]
    """Keys of the versions with documentation."""


@dataclass(slots=True)
class VersionFiles:
    """A version while it is put together."""

    project: str
    key: str
    version: str
    """As it is spelt first."""
    index: str
    """The first that has it."""
    summary: str = ""
    registered_by: str = ""
    has_docs: bool = False
    stored: list[StoredFile] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Of files on the mirror's page."""
    size: int = 0
    """Bytes of all files, as far as they are known."""
    time: str = ""
    """Of its newest file, ISO 8601; empty when nobody says."""
    unyanked: int = 0
    """Files that were not withdrawn."""

    @property
    def files(self) -> int:
        """How many."""
        return len(self.stored) + len(self.places)

    @property
    def is_yanked(self) -> bool:
        """Whether all files were withdrawn (PEP 592)."""
        return self.files > 0 and not self.unyanked

    @property
    def is_prerelease(self) -> bool:
        """Whether installers leave it out unless it is asked for."""
        is_version, parsed = rank(self.version)
        return is_version and parsed.is_prerelease


def put_together(
    owned: Sequence[Owned], mirror: tuple[str, ProjectPage] | None, time_of: Mapping[int, str]
) -> list[VersionFiles]:
    """Return all versions, the newest first; ``time_of`` has the upload times of stored files by their id."""
    found: dict[str, VersionFiles] = {}
    seen: set[str] = set()
    for stage in owned:
        for each in stage.versions:
            found.setdefault(
                each.version_key,
                VersionFiles(
                    *(each.project, each.version_key, each.version, stage.index, each.summary, each.registered_by),
                    has_docs=each.version_key in stage.docs,
                ),
            )
        for file in stage.files:
            if file.filename not in seen and (version := found.get(file.version_key)) is not None:
                version.stored.append(file)
                version.unyanked += 1
                version.size += file.size
                version.time = max(version.time, time_of[file.id])
        seen.update(file.filename for file in stage.files)
    if mirror is not None:
        index, page = mirror
        for at, entry in enumerate(page.document["files"]):
            if entry["filename"] not in seen:
                _add(found, index, page.project, at, entry)
    return sorted(found.values(), key=lambda each: rank(each.version), reverse=True)


def _add(found: dict[str, VersionFiles], index: str, project: str, at: int, entry: Mapping[str, Any]) -> None:
    spelt = version_of(entry["filename"], project)
    if spelt is None or len(spelt) > LONGEST_VERSION:
        return
    key = version_key(spelt)
    version = found.setdefault(key, VersionFiles(project, key, spelt, index))
    version.places.append(at)
    version.unyanked += not entry.get("yanked")
    size = entry.get("size")
    version.size += size if isinstance(size, int) else 0
    version.time = max(version.time, upload_time_of(entry))


def upload_time_of(entry: Mapping[str, Any]) -> str:
    """Return when an upstream's file was uploaded (PEP 700), empty when it does not say so in a way to be read."""
    given = entry.get("upload-time")
    return given if isinstance(given, str) and _TIME.fullmatch(given) else ""


def newest(versions: Sequence[VersionFiles]) -> VersionFiles | None:
    """Return the version that an installer would choose: neither withdrawn nor a pre-release where there is one."""

    def standing(each: VersionFiles) -> tuple[bool, bool, bool, bool]:
        is_version, _ = rank(each.version)
        return each.unyanked > 0, is_version and not each.is_prerelease, is_version, each.files > 0

    return max(versions, key=standing, default=None)  # the first of the best: they come newest first
