"""What the pages of indexes and projects show, at one moment. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from teepi.project_facts import About, Environment


@dataclass(frozen=True, slots=True)
class ProjectRow:
    """A project in the list of an index."""

    index: str
    project: str
    """Normalised."""
    name: str
    version: str
    """The newest; empty when it is not known."""
    summary: str
    time: str
    """Of the newest upload, ISO 8601."""
    files: int = 0
    """Cached ones, of a mirror."""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class IndexProjects:
    """A part of the projects of an index."""

    rows: Sequence[ProjectRow]
    total: int
    page: int
    pages: int


@dataclass(frozen=True, slots=True)
class Run:
    """A test run."""

    link: str
    """From the root of this server, encoded."""
    time: str
    by: str
    environments: Sequence[Environment] | None
    """None: it cannot be read here."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file of the version that is shown."""

    filename: str
    index: str
    link: str
    """From the root of this server, encoded."""
    size_bytes: int | None
    sha256: str
    time: str
    uploaded_by: str
    is_cached: bool | None
    """None: it was uploaded, and is here always."""
    requires_python: str
    yanked: str | None
    """Why it was withdrawn; None for one that was not."""
    runs: Sequence[Run] = ()


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A line in the list of versions."""

    version: str
    index: str
    files: int
    size_bytes: int
    time: str
    is_yanked: bool
    is_prerelease: bool
    has_docs: bool


@dataclass(frozen=True, slots=True)
class ProjectView:
    """A project, and one of its versions."""

    index: str
    project: str
    version: VersionRow | None
    """The one that is shown; None when there is none at all."""
    is_newest: bool
    newest: str
    about: About
    has_metadata: bool
    """Whether anything but the file names says so."""
    description_html: str | None
    """Safe to show; None: show the text."""
    files: Sequence[FileRow]
    more_files: int
    versions: Sequence[VersionRow]
    more_versions: int
    registered_by: str
    stages: Sequence[str]
    """Those that have the project, in the order in which they count."""
    hidden: Sequence[str]
    """Mirrors that are not asked, for a stage has the name."""
    problem: str
    """Why a mirror below could not be asked."""
