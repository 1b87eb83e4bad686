"""Uploaded documentation, read out of its zip as browsers ask for it; nothing is unpacked to disk.

The zip was checked when it came. Its directory is read once and kept; a path is looked up there and nowhere else.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from packaging.version import InvalidVersion, Version

from teepi.distributions import content, listed_members
from teepi.errors import BadUpload, NotFound, TooLarge
from teepi.tasks import in_thread
from teepi.versions import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

    from teepi.data import StoredDocs
    from teepi.distributions import Member
    from teepi.stages import Release, Stages

_T = TypeVar("_T")

INDEX: Final = "index.html"
_PAGES: Final = (".html", ".htm")
_MOST_MEMBER_BYTES: Final = 64 << 20
_MOST_MEMBERS: Final = 100_000
"""Of all directories that are kept, some 40 MB; one zip may have as many."""
_ALIASES: Final = frozenset({"latest", "stable"})


@dataclass(frozen=True, slots=True)
class Docs:
    """The documentation of one version."""

    version: str
    """As it was uploaded."""
    zip: StoredDocs

    def etag(self, path: str) -> str:
        """Return the ETag of a member, whether there is one or not."""
        return f'"{hashlib.sha256(f"{self.zip.sha256}/{path}".encode()).hexdigest()[:32]}"'


class Documentation:
    """What was uploaded by ``doc_upload``."""

    def __init__(self, stages: Stages) -> None:
        """Find versions and their zips by ``stages``."""
        self._stages = stages
        self._directories: OrderedDict[str, Mapping[str, Member]] = OrderedDict()

    async def find(self, index: str, project: str, version: str) -> Docs:
        """Return the documentation of a version of ``project`` (normalised), from ``index`` or a stage below it.

        ``latest`` is the newest version that has any, ``stable`` the newest that is no pre-release. Raises
        :class:`NotFound`.
        """
        is_alias = version in _ALIASES
        found = await self._stages.releases(index, project, None if is_alias else version)
        having = [each for each in found if each.docs is not None]
        if version == "stable":
            having = [each for each in having if _is_stable(each)]
        if is_alias:
            having = sorted(having, key=lambda each: rank(each.version.version), reverse=True)
        for each in having:
            if each.docs is not None:
                return Docs(each.version.version, each.docs)
        raise NotFound(f"There is no documentation of {project} {version[:100]} on {index}.")

    async def path(self, docs: Docs, path: str) -> str:
        """Return the path of the member that ``path`` means: a directory's is its index.html.

        It ends with a slash when the directory was named without one. A zip without index.html at its top begins with
        the page that is nearest to it. Raises :class:`NotFound`.
        """
        members = await self._members(docs.zip)
        wanted = path + INDEX if not path or path.endswith("/") else path
        if wanted in members and not members[wanted].is_directory:
            return wanted
        if f"{path}/{INDEX}" in members:
            return f"{path}/"
        pages = [each for each, member in members.items() if each.endswith(_PAGES) and not member.is_directory]
        if not path and pages:
            return min(pages, key=lambda each: (each.count("/"), not each.endswith(f"/{INDEX}"), each))
        raise NotFound(f"The documentation of {docs.zip.project} {docs.version} has no {path[:200] or INDEX}.")

    async def read(self, docs: Docs, path: str) -> bytes:
        """Return the member at ``path``, as :meth:`path` gave it. Raises :class:`TooLarge` and :class:`NotFound`."""
        member = (await self._members(docs.zip))[path]
        if member.size > _MOST_MEMBER_BYTES:
            raise TooLarge(
                f"{path[:200]} has {member.size} bytes; from within documentation at most {_MOST_MEMBER_BYTES} are "
                "served: download the zip."
            )
        return await self._in_file(docs.zip, lambda file: content(file, member, _MOST_MEMBER_BYTES))

    async def _members(self, docs: StoredDocs) -> Mapping[str, Member]:
        known = self._directories.get(docs.sha256)
        if known is None:
            known = await self._in_file(docs, lambda file: listed_members(file, docs.size))
            self._directories[docs.sha256] = known
            while len(self._directories) > 1 and sum(map(len, self._directories.values())) > _MOST_MEMBERS:
                self._directories.popitem(last=False)
        self._directories.move_to_end(docs.sha256)
        return known

    async def _in_file(self, docs: StoredDocs, work: Callable[[BinaryIO], _T]) -> _T:
        """Let ``work`` read the zip in a thread."""
        opened = await self._stages.open(docs)

        def read() -> _T:
            with os.fdopen(os.dup(opened.file.fd), "rb") as file:
                return work(file)

        try:
            return await in_thread(read)
        except BadUpload as error:
            raise NotFound(f"This documentation cannot be read: {error.message}") from error
        finally:
            opened.file.drop()


def _is_stable(release: Release) -> bool:
    try:
        return not Version(release.version.version).is_prerelease
    except InvalidVersion:
        return False
