"""Uploads many files: what ``teepi import`` does, printing aside.

Each file comes to one end, which :class:`Tally` counts; none keeps another from being sent.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from teepi.errors import BadInput, TeepiError
from teepi.filenames import project_of_filename
from teepi.index_client import Refused
from teepi.upload_form import is_distribution, read_form

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from teepi.devpi_directory import Contents
    from teepi.index_client import IndexClient, OwnFile

AT_A_TIME: Final = 4
# Of an index's settings those that every server of this protocol takes; plugins of devpi have others.
_SETTINGS: Final = (
    *("type", "volatile", "bases", "title", "acl_upload", "acl_toxresult_upload"),
    *("mirror_whitelist", "mirror_whitelist_inheritance"),
    *("mirror_url", "mirror_web_url_fmt", "mirror_cache_expiry"),
)
_ACCESS: Final = {"acl_upload", "acl_toxresult_upload"}
_USER_VALUES: Final = ("email", "title", "description")


@dataclass(frozen=True, slots=True)
class Item:
    """One file to be sent."""

    index: str
    filename: str
    path: Callable[[Path], Path]
    """Gives the file's path, and may use the directory that it is given; it blocks, and may raise a TeepiError."""
    project: str | None = None
    """Of documentation alone, as is the version."""
    version: str | None = None

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.index}: {self.filename}"


@dataclass(slots=True)
class Tally:
    """What came of it."""

    uploaded: int = 0
    there: int = 0
    """The very same was there already."""
    conflicts: dict[str, str] = field(default_factory=dict)
    """By name: other content is there under that name."""
    refused: dict[str, str] = field(default_factory=dict)
    """Reasons by name."""
    size_bytes: int = 0
    """Sent."""

    @property
    def is_whole(self) -> bool:
        """Whether all files are there now."""
        return not self.conflicts and not self.refused


def find_distributions(directory: Path) -> tuple[list[Path], int]:
    """Return the wheels and sdists below ``directory``, sorted, and how many other files there are.

    A link is followed to a file below ``directory``, and nowhere else. Raises :class:`BadInput`.
    """
    if not directory.is_dir():
        raise BadInput(f"{directory} is no directory.")
    top = directory.resolve()
    found, others = [], 0
    for parent, _, names in os.walk(top):
        for name in names:
            path = Path(parent, name)
            if is_distribution(name) and path.is_file() and path.resolve().is_relative_to(top):
                found.append(path)
            else:
                others += 1
    return sorted(found), others


async def send_all(client: IndexClient, items: Sequence[Item], done: Callable[[Item], None]) -> Tally:
    """Send all, and call ``done`` after each; documentation after the versions that it is of."""
    sending = _Sending(client)
    for batch in ([each for each in items if each.project is None], [each for each in items if each.project]):
        waiting = iter(batch)

        async def work(waiting: Iterable[Item] = waiting) -> None:
            for item in waiting:
                await sending.send(item)
                done(item)

        await asyncio.gather(*(work() for _ in range(min(AT_A_TIME, len(batch)))))
    return sending.tally


class _Sending:
    def __init__(self, client: IndexClient) -> None:
        self.tally = Tally()
        self._client = client
        self._own: dict[tuple[str, str], asyncio.Future[list[OwnFile]]] = {}

    async def send(self, item: Item) -> None:
        """Send one file; what goes wrong is noted."""
        try:
            with tempfile.TemporaryDirectory(prefix="teepi-import-") as directory:
                path = await asyncio.to_thread(item.path, Path(directory))
                if item.project is None:
                    is_new = await self._send_distribution(item, path)
                else:
                    fields = [(":action", "doc_upload"), ("name", item.project), ("version", item.version or "")]
                    is_new = await self._client.upload(item.index, fields, path, f"{item.project}.zip")
                if is_new:
                    self.tally.uploaded += 1
                    self.tally.size_bytes += (await asyncio.to_thread(path.stat)).st_size
                else:
                    self.tally.there += 1
        except Refused as refused:
            where = self.tally.conflicts if refused.is_conflict else self.tally.refused
            where[item.name] = refused.message
        except TeepiError as error:
            self.tally.refused[item.name] = error.message
        except OSError as error:
            self.tally.refused[item.name] = f"it cannot be read ({error.strerror})"

    async def _send_distribution(self, item: Item, path: Path) -> bool:
        form = await asyncio.to_thread(read_form, path)
        key = item.index, project_of_filename(item.filename) or item.filename
        if key not in self._own:
            self._own[key] = asyncio.ensure_future(self._client.own_files(*key))
        if any(own.filename == item.filename and own.sha256 == form.sha256 for own in await self._own[key]):
            return False
        fields = (*form.fields, ("sha256_digest", form.sha256))
        return await self._client.upload(item.index, fields, path, item.filename)


# Users and indexes ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Made:
    """What was made for the files."""

    users: list[str] = field(default_factory=list)
    """With a password that nobody knows."""
    indexes: list[str] = field(default_factory=list)


def settings_for(index: str, contents: Contents, targets: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a new index for what was ``index`` on devpi.

    Where they cannot be read: not volatile, above root/pypi. Bases and the owner are named as they are here.
    """
    said = contents.indexes.get(index, {})
    if not said:
        return {"type": "stage", "volatile": False, "bases": ["root/pypi"]}
    settings = {key: said[key] for key in _SETTINGS if key in said}
    if "bases" in settings:
        settings["bases"] = [targets.get(base, base) for base in settings["bases"]]
    before, after = index.partition("/")[0], targets[index].partition("/")[0]
    for key in _ACCESS & set(settings):
        settings[key] = [after if name == before else name for name in settings[key]]
    return settings


def bases_first(indexes: Mapping[str, Mapping[str, Any]], chosen: Iterable[str]) -> list[str]:
    """Return ``chosen`` so that an index comes after its bases."""
    among = sorted(chosen)
    graph = {name: [base for base in indexes.get(name, {}).get("bases", ()) if base in among] for name in among}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError:
        return among  # the server says what is wrong with that


async def make_missing(client: IndexClient, contents: Contents, targets: Mapping[str, str]) -> Made:
    """Make the users and indexes that are not there. Raises :class:`Refused`."""
    made = Made()
    for source in bases_first(contents.indexes, targets):
        target = targets[source]
        user = target.partition("/")[0]
        if await client.settings(target) is not None:
            continue
        if not await client.has_user(user):
            said = contents.users.get(source.partition("/")[0], {})
            values = {key: str(said[key]) for key in _USER_VALUES if said.get(key)}
            await client.create_user(user, {**values, "password": secrets.token_urlsafe(32)})
            made.users.append(user)
        await client.create_index(target, settings_for(source, contents, targets))
        made.indexes.append(target)
    return made


@asynccontextmanager
async def upload_right(client: IndexClient, indexes: Iterable[str], user: str) -> AsyncIterator[None]:
    """Let ``user`` upload to ``indexes`` for a while; who could before can afterwards. Raises :class:`Refused`."""
    given: list[str] = []
    try:
        for index in indexes:
            settings = await client.settings(index)
            allowed = settings.get("acl_upload", ()) if settings is not None else ()
            if not {user, ":ANONYMOUS:", ":AUTHENTICATED:"} & set(allowed):
                await client.change_index(index, [f"acl_upload+={user}"])
                given.append(index)
        yield
    finally:
        for index in given:
            await client.change_index(index, [f"acl_upload-={user}"])
