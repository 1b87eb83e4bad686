"""Search over names and summaries: of what was uploaded, what is cached, and what upstream's lists name.

Upstream is never asked. The database (``search_store``) follows what is on the disk when somebody searches: nobody pays
for it before, and what it lost comes back. What takes longer than a moment goes on behind the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from packaging.metadata import parse_email
from packaging.utils import canonicalize_name

from teepi.disk import open_regular
from teepi.errors import TeepiError
from teepi.legacy_json import newest_version
from teepi.project_list import JsonNames
from teepi.search_query import Project, words_of
from teepi.search_store import SearchStore
from teepi.single_flight import SingleFlight
from teepi.tasks import in_executor
from teepi.wheel_metadata import extract

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from teepi.catalog import Catalog
    from teepi.list_forms import ListBody
    from teepi.lists import ProjectLists
    from teepi.model import FileRecord
    from teepi.pages import Pages
    from teepi.space import Candidate
    from teepi.store import PageStore, Store
    from teepi.tasks import TaskScope

_T = TypeVar("_T")
log = logging.getLogger(__name__)

MOST_FOUND: Final = 1000
"""Of one search, however many are asked for."""
_PATIENCE_SECONDS: Final = 1.0  # that a search waits for the database to catch up
_LOOK_AGAIN_SECONDS: Final = 60.0  # after which the disk is looked at again though no file has come or gone
_REST: Final = 10  # between two such looks lies so many times what one takes
_FILES_STEP: Final = 2000
_READ_STEP: Final = 50  # wheels that are looked into between two searches
_PAGES_LOOKED_INTO: Final = 30  # for the versions of one answer
_VERSIONS_SECONDS: Final = 2.0
_HEAD_BYTES: Final = 64 << 10  # of core metadata, whose description may have megabytes
_DESCRIPTIONS_KEPT: Final = 10_000
_LISTS_FROM_BYTES: Final = 1 << 30
"""Where the cache may hold less, upstream's lists are not put in: they take 100 MB."""
_LISTS_FREE_BYTES: Final = 256 << 20

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Cached:
    """What is in the cache of a project."""

    files: int = 0
    size_bytes: int = 0
    used_at: float = 0.0
    """Unix time of the last use of one of them."""


@dataclass(frozen=True, slots=True)
class Found:
    """A project that was found."""

    project: str
    """Normalised name (PEP 503)."""
    name: str
    """As its makers spell it, where that is known."""
    summary: str
    version: str
    """The newest; empty where none is known."""
    index: str
    is_cached: bool
    is_uploaded: bool


@dataclass(slots=True)
class _Files:
    """The files of one project, while they are counted."""

    count: int = 0
    size: int = 0
    used_at: float = 0.0
    telling: Candidate | None = None
    """The one whose core metadata is read: better none that would have to be unpacked, else the one used last."""

    def add(self, file: Candidate) -> None:
        self.count += 1
        self.size += file.size
        self.used_at = max(self.used_at, file.used_at)
        if file.filename.endswith((".whl", ".whl.metadata")) and (
            self.telling is None or _rank(file) > _rank(self.telling)
        ):
            self.telling = file


def _rank(file: Candidate) -> tuple[bool, float]:
    return file.filename.endswith(".metadata"), file.used_at


class Search:
    """Answers searches."""

    def __init__(
        self,
        store: Store,
        page_store: PageStore,
        catalog: Catalog,
        pages: Pages,
        lists: ProjectLists,
        scope: TaskScope,
        uploads: Callable[[], Awaitable[Iterable[Project]]] | None = None,
    ) -> None:
        """Open nothing yet. ``uploads`` gives the newest version of each project that was ever uploaded and is there.

        It is asked once, and again when the database was lost; in between :meth:`note` and :meth:`forget` tell.
        """
        self._files = store
        self._page_store = page_store
        self._catalog = catalog
        self._pages = pages
        self._lists = lists
        self._uploads = uploads
        self._store: SearchStore | None = None  # the thread's
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._following = SingleFlight[None](scope)
        self._one_list = asyncio.Lock()
        self._are_uploads_told = False
        self._seen: tuple[int, int] | None = None  # the catalogue's totals at the last look
        self._look_again_at = 0.0  # monotonic seconds
        self._not_before = 0.0
        self._cached: dict[_Key, Cached] = {}
        self._read: set[_Key] = set()
        self._marks: dict[str, str] = {}
        self._described: dict[_Key, bytes] = {}

    async def close(self) -> None:
        """Keep what was learnt and close the database, when nobody asks any more."""
        if self._store is not None:
            await self._keep_descriptions()
            await in_executor(self._thread, self._store.close)
        self._thread.shutdown(wait=False)

    # -- searching -----------------------------------------------------------------------------------

    async def find(
        self, words: Sequence[str], indexes: Sequence[str], limit: int, *, each: bool = False
    ) -> list[Found]:
        """Return up to ``limit`` projects of ``indexes`` that have all ``words`` in name and summary, the best first.

        ``indexes`` are in the order of their resolution: of a project that several have, the first has it, unless
        ``each`` is wanted of.
        """
        wanted = words_of(" ".join(words))
        if not wanted or not indexes:
            return []
        await self._follow(indexes)
        most = min(limit, MOST_FOUND)
        found = await self._on(lambda store: store.find(wanted, indexes, most, each=each))
        return await self._with_versions(found)

    async def cached_projects(self, index: str) -> list[str]:
        """Return the projects of a mirror of which something is cached, sorted."""
        await self._follow([index])
        return sorted(project for each, project in self._cached if each == index)

    async def described(self, index: str, projects: Sequence[str]) -> dict[str, Project]:
        """Return by normalised name what core metadata, or who uploaded them, said of projects of ``index``."""
        return {each.name: each for each in await self._on(lambda store: store.described(index, projects))}

    def cached(self, index: str, project: str) -> Cached:
        """Return what was in the cache of a project when that was last looked at."""
        return self._cached.get((index, project), Cached())

    async def _with_versions(self, found: Sequence[Project]) -> list[Found]:
        """Fill in the newest versions: a page that is here knows, else what was uploaded or core metadata says."""
        until = time.monotonic() + _VERSIONS_SECONDS
        left = _PAGES_LOOKED_INTO
        filled = []
        for hit in found:
            version = hit.version
            # Of a project that is only listed no page is here, or it would be known.
            if not hit.is_uploaded and hit.is_known and left and time.monotonic() < until:
                left -= 1
                version = await self._newest(hit.index, hit.name) or version
            filled.append(Found(hit.name, hit.shown, hit.summary, version, hit.index, hit.is_cached, hit.is_uploaded))
        return filled

    async def _newest(self, index: str, project: str) -> str | None:
        with contextlib.suppress(TeepiError):
            page = await self._pages.stored(index, project)
            if page is not None:
                return await asyncio.to_thread(newest_version, page)
        return None

    # -- what others tell ----------------------------------------------------------------------------

    async def note(self, index: str, project: str, name: str, summary: str, version: str) -> None:
        """Take in an upload to ``project`` (normalised): its name as it is spelt, and the newest version there is."""
        uploaded = Project(index, project, name, summary, version)
        await self._on(lambda store: store.put_uploads([uploaded]))

    async def forget(self, index: str, project: str) -> None:
        """Let go of ``project``, of which nothing is in the private index any more."""
        await self._on(lambda store: store.forget_upload(index, project))

    def note_metadata(self, wheel: FileRecord, content: bytes) -> None:
        """Take in core metadata that was read out of ``wheel``, which may be nowhere here."""
        if len(self._described) < _DESCRIPTIONS_KEPT:
            self._described[wheel.index, wheel.project] = content[:_HEAD_BYTES]

    # -- following -----------------------------------------------------------------------------------

    async def _on(self, work: Callable[[SearchStore], _T]) -> _T:
        def opened() -> _T:
            if self._store is None:
                self._store = SearchStore(self._files.search_path)
            return work(self._store)

        return await asyncio.shield(in_executor(self._thread, opened))

    async def _follow(self, indexes: Sequence[str]) -> None:
        """Bring the database up to date, as far as that goes within a moment."""
        if await self._on(lambda store: store.is_empty):
            self._seen, self._are_uploads_told = None, False
            self._read.clear()
            self._marks.clear()
        await self._keep_descriptions()
        works = []
        now = time.monotonic()
        if now >= self._not_before and (self._seen != self._catalog.totals or now >= self._look_again_at):
            works.append(self._following.join("what is cached", self._look, _PATIENCE_SECONDS))
        works += [
            self._following.join(f"project list of {index}", lambda index=index: self._put_in(index), _PATIENCE_SECONDS)  # type: ignore[misc] # the loop's own
            for index in indexes
        ]
        for result in await asyncio.gather(*works, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, TimeoutError | TeepiError):
                log.warning("What is searched is not up to date: %r.", result)

    async def _look(self) -> None:
        """Look at all that is cached."""
        began, totals = time.monotonic(), self._catalog.totals
        if self._uploads is not None and not self._are_uploads_told:
            uploads = list(await self._uploads())
            await self._on(lambda store: store.put_uploads(uploads, are_all=True))
            self._are_uploads_told = True
        found: dict[_Key, _Files] = {}

        def count(files: Sequence[Candidate]) -> None:
            for file in files:
                if file.project:
                    found.setdefault((file.index, file.project), _Files()).add(file)

        last = ""
        while files := await self._catalog.files(after=(0.0, last), most=_FILES_STEP, by_digest=True):
            last = files[-1].sha256
            await asyncio.to_thread(count, files)
        pages = await asyncio.to_thread(lambda: list(self._page_store.names()))
        here = dict.fromkeys(pages, False) | dict.fromkeys(found, True)
        silent = await self._on(lambda store: store.settle_cached(here))
        self._cached = {key: Cached(each.count, each.size, each.used_at) for key, each in found.items()}
        telling = [(key, file) for key in silent if key not in self._read and (file := found[key].telling) is not None]
        for at in range(0, len(telling), _READ_STEP):
            some = telling[at : at + _READ_STEP]
            self._read.update(key for key, _ in some)
            await self._on(lambda store, some=some: store.describe(self._descriptions(some)))  # type: ignore[misc] # the loop's own
        await self._on(SearchStore.told)
        now = time.monotonic()
        self._seen, self._look_again_at, self._not_before = (
            totals,
            now + _LOOK_AGAIN_SECONDS,
            now + _REST * (now - began),
        )

    async def _keep_descriptions(self) -> None:
        described, self._described = self._described, {}
        if described:

            def keep(store: SearchStore) -> None:
                told = (_told(*key, content) for key, content in described.items())
                store.describe(each for each in told if each is not None)

            await self._on(keep)

    def _descriptions(self, files: Sequence[tuple[_Key, Candidate]]) -> list[Project]:
        """Read core metadata out of cached files (blocking)."""
        told = []
        for (index, project), file in files:
            with contextlib.suppress(OSError, TeepiError):
                described = _told(index, project, self._core_metadata(file))
                if described is not None:
                    told.append(described)
        return told

    def _core_metadata(self, file: Candidate) -> bytes:
        fd = open_regular(self._files.shelves.path(file.sha256))
        try:
            if file.filename.endswith(".metadata"):
                return os.pread(fd, _HEAD_BYTES, 0)
            return extract(file.filename, file.size, lambda start, stop: os.pread(fd, stop - start, start))
        finally:
            os.close(fd)

    async def _put_in(self, index: str) -> None:
        """Put upstream's list in, where there is one that is not there yet."""
        known = await self._lists.known(index)
        if known is None:
            return
        body, mark = known
        try:
            if self._marks.get(index) != mark:
                async with self._one_list:
                    if await self._on(lambda store: store.list_mark(index)) != mark and await self._may_put_in():
                        await self._put_in_names(index, JsonNames(f"of {index}"), body, mark)
                    self._marks[index] = mark  # also when there was no room: not at every search again
        except (OSError, zlib.error) as error:
            log.warning("The project list of %s cannot be searched: %s.", index, error)
        finally:
            body.close()

    async def _may_put_in(self) -> bool:
        """Say whether there is room for the names of a list."""
        space = self._files.space
        if space.limit < _LISTS_FROM_BYTES or not await self._on(lambda store: store.is_lasting):
            return False
        return await asyncio.to_thread(self._files.free_bytes) - space.min_free > _LISTS_FREE_BYTES

    async def _put_in_names(self, index: str, reader: JsonNames, body: ListBody, mark: str) -> None:
        number = await self._on(lambda store: store.begin_list(index))
        if number is None:
            return

        def take(store: SearchStore, piece: bytes) -> bool:
            names = reader.feed(piece) if piece else reader.finish()
            return store.add_names([canonicalize_name(name) for name in names])

        while piece := await body.read():
            if not await self._on(lambda store, piece=piece: take(store, piece)):  # type: ignore[misc] # the loop's own
                return
        await self._on(lambda store: take(store, b""))
        steps = await self._on(lambda store: store.steps_of_list(number, index, mark))
        while await self._on(lambda _: next(steps, None)) is not None:
            pass  # between two steps others search


def _told(index: str, project: str, metadata: bytes) -> Project | None:
    """Return what core metadata says of ``project``; None when it is another's, or cannot be read."""
    raw = parse_email(metadata[:_HEAD_BYTES].replace(b"\r\n", b"\n").partition(b"\n\n")[0])[0]
    name = raw.get("name", "")
    if canonicalize_name(name) != project:
        return None
    return Project(index, project, name, " ".join(raw.get("summary", "").split()), raw.get("version", ""))
