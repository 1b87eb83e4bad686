"""What an operator may do with the cache: look, purge, prune, pin, verify, fetch.

One service for the running server and for a command that works on the cache directly. Each call is an asynchronous
generator of JSON objects: progress first (``done`` of ``total``), at last ``{"result": …}``.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from packaging.utils import canonicalize_name

from teepi.errors import BadRequest, NotFound, TeepiError, Unavailable
from teepi.eviction import DAY_SECONDS, Evicted
from teepi.model import FileKey
from teepi.operator_calls import Calls, known, number, texts
from teepi.verification import verify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from teepi.catalog import Catalog
    from teepi.eviction import Keeper
    from teepi.files import Files
    from teepi.indexes import Indexes
    from teepi.metrics import Metrics
    from teepi.operator_calls import Events
    from teepi.pages import Pages
    from teepi.space import Candidate
    from teepi.store import DocumentStores, Store

_BATCH: Final = 2000
_BIGGEST: Final = 10
_FETCHES: Final = 4  # at once
_LIVE_BYTES_PER_SECOND: Final = 256 << 20  # of a verification while clients are served, unless told otherwise
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_FILENAME: Final = re.compile(r".+\.(whl|gz|zip|bz2|xz|egg|metadata)")
_ADDRESS: Final = re.compile(r"/?([^/+]+/[^/+]+)/(\+(?:files|http|e)/.+)")


@dataclass(frozen=True, slots=True)
class Running:
    """What only a running server has."""

    indexes: Indexes
    files: Files
    pages: Pages
    metrics: Metrics


class Operations(Calls):
    """On one cache directory."""

    def __init__(
        self, store: Store, catalog: Catalog, keeper: Keeper, stores: DocumentStores, live: Running | None = None
    ) -> None:
        """``live`` is None where no server runs."""
        self._store = store
        self._catalog = catalog
        self._keeper = keeper
        self._stores = stores
        self._live = live
        self._pinning = asyncio.Lock()
        super().__init__(
            {
                "info": self._info,
                "list": self._list,
                "purge": self._purge,
                "prune": self._prune,
                "verify": self._verify,
                "pin": self._pin,
                "unpin": self._unpin,
                "fetch": self._fetch,
            }
        )

    async def _files(self) -> AsyncIterator[Candidate]:
        """Yield every cached file, the least recently used first."""
        await self._catalog.flush()
        after = (-1.0, "")
        while batch := await self._catalog.files(after=after, most=_BATCH):
            for each in batch:
                yield each
            after = (batch[-1].used_at, batch[-1].sha256)

    # -- looking -------------------------------------------------------------------------------------

    async def _info(self, arguments: Mapping[str, Any]) -> Events:
        known(arguments)
        await self._keeper.measure()
        space, pins = self._store.space, self._store.pins
        count, oldest = 0, None
        projects: dict[str, int] = {}
        async for each in self._files():
            count += 1
            oldest = each.used_at if oldest is None else oldest
            projects[each.project] = projects.get(each.project, 0) + each.size
        biggest = sorted(projects.items(), key=lambda item: -item[1])[:_BIGGEST]
        result: dict[str, Any] = {
            "cache_dir": str(self._store.root),
            "bytes": space.used,
            "limit_bytes": space.limit,
            "file_bytes": space.files,
            "partial_bytes": space.reserved,
            "other_bytes": space.other,
            "free_bytes": await asyncio.to_thread(self._store.free_bytes),
            "min_free_bytes": space.min_free,
            "files": count,
            "least_recently_used_at": oldest,
            "biggest_projects": [{"project": name, "bytes": size} for name, size in biggest],
            "pinned": {"projects": sorted(pins.projects), "files": sorted(pins.files.values())},
            "problems": [each for each in (self._store.problem, self._catalog.problem, self._keeper.problem) if each],
            "server": None,
        }
        if self._live is not None:
            metrics = self._live.metrics
            asked = metrics.hits + metrics.misses + metrics.collapsed
            result["server"] = {
                "hits": metrics.hits,
                "asked": asked,
                "hit_ratio": metrics.hits / asked if asked else None,
                "evicted": metrics.evicted,
            }
        yield {"result": result}

    async def _list(self, arguments: Mapping[str, Any]) -> Events:
        known(arguments, "project")
        wanted = _project(arguments["project"]) if arguments.get("project") else None
        pins = self._store.pins
        rows: dict[str, dict[str, Any]] = {}
        async for each in self._files():
            if wanted is not None:
                if each.project == wanted:
                    is_pinned = wanted in pins.projects or each.sha256 in pins.files
                    rows[each.sha256] = {
                        "file": each.filename, "sha256": each.sha256, "bytes": each.size, "used_at": each.used_at,
                        "index": each.index, "pinned": is_pinned,
                    }  # fmt: skip
                continue
            row = rows.setdefault(
                each.project,
                {"project": each.project, "files": 0, "bytes": 0, "pinned": each.project in pins.projects},
            )
            row["files"] += 1
            row["bytes"] += each.size
            row["used_at"] = each.used_at
        yield {"result": list(rows.values())}

    # -- deleting ------------------------------------------------------------------------------------

    async def _purge(self, arguments: Mapping[str, Any]) -> Events:
        known(arguments, "names", "older_than_days", "index", "everything", "dry_run")
        names = texts(arguments, "names")
        days, index = number(arguments, "older_than_days"), arguments.get("index")
        if not names and days is None and not index and arguments.get("everything") is not True:
            raise BadRequest("Say what to purge: names of projects or files, an age, an index, or everything.")
        projects, is_named = self._matcher(names)
        before = None if days is None else self._keeper.now() - days * DAY_SECONDS
        pins = self._store.pins
        victims = [
            each
            async for each in self._files()
            if (before is None or each.used_at < before)
            and (not index or each.index == index)
            # what is pinned goes only when it is named
            and (is_named(each) if names else not (each.project in pins.projects or each.sha256 in pins.files))
        ]
        purged = Evicted()
        kept: list[str] = []
        for done, victim in enumerate(victims):
            if arguments.get("dry_run"):
                purged.add(victim, victim.size)
            elif not await self._keeper.purge(victim, purged):
                kept.append(victim.filename or victim.sha256)
            if done % 16 == 0:
                yield {"done": done, "total": len(victims)}
        pages, kept_pages = 0, list[str]()
        if days is None:
            is_dry = bool(arguments.get("dry_run"))
            pages, kept_pages = await self._purge_pages(projects if names else None, index, is_dry=is_dry)
        yield {"result": {**_of(purged), "pages": pages, "not_deleted": {"files": kept, "pages": kept_pages}}}

    async def _purge_pages(
        self, projects: set[str] | None, index: str | None, *, is_dry: bool
    ) -> tuple[int, list[str]]:
        """Delete the pages of ``projects`` (all that are not pinned when None) of ``index`` (all when None).

        Return how many went, or would, and the index and project of those that cannot be deleted.
        """
        pinned = self._store.pins.projects
        found: set[tuple[str, str]] = set()
        for store in (self._stores.pages, self._stores.legacy):
            found |= {
                (its_index, project)
                for its_index, project in await asyncio.to_thread(list, store.names())
                if (project not in pinned if projects is None else project in projects) and index in (None, its_index)
            }
        kept = []
        for its_index, project in () if is_dry else sorted(found):
            stores = (self._stores.pages, self._stores.legacy)
            if not all([await asyncio.to_thread(store.remove, its_index, project) for store in stores]):
                kept.append(f"{its_index}/{project}")
            elif self._live is not None:
                self._live.pages.forget(its_index, project)
        if not is_dry:
            gone = {project for _, project in found} if projects is None and index else projects
            if not await self._purge_metadata(gone):
                kept.append("core metadata")
        return len(found) - sum("/" in each for each in kept), kept

    async def _purge_metadata(self, projects: set[str] | None) -> bool:
        """Delete what was read out of the wheels of ``projects``, of all when None; say whether nothing is left."""
        metadata = self._stores.metadata
        if projects is None:
            paths = await asyncio.to_thread(list, metadata.documents.paths())
        else:
            wheels = [wheel for project in projects for wheel in await self._catalog.core_metadata(project)]
            paths = [metadata.path(FileKey(wheel)) for wheel in wheels]
        try:
            for path in paths:
                await asyncio.to_thread(metadata.documents.discard, path)
        except OSError:
            return False
        return True

    async def _prune(self, arguments: Mapping[str, Any]) -> Events:
        known(arguments, "dry_run")
        is_dry = bool(arguments.get("dry_run"))
        leftovers = await self._keeper.prune_leftovers(is_dry=is_dry)
        yield {"done": 1, "total": 2}
        evicted = await self._keeper.prune(is_dry=is_dry)
        yield {"result": {**_of(evicted), "leftovers": _of(leftovers)}}

    # -- pinning -------------------------------------------------------------------------------------

    async def _pin(self, arguments: Mapping[str, Any]) -> Events:
        known(arguments, "names")
        names = texts(arguments, "names")
        projects, is_named = self._matcher(names)
        files = {each.sha256: each.filename async for each in self._files() if is_named(each)}
        pins = self._store.pins
        chosen = {sha256: name for sha256, name in files.items() if name in names or sha256 in names}
        missing = [name for name in names if _is_file(name) and name not in {*chosen, *chosen.values()}]
        if missing:
            raise NotFound(f"{missing[0]} is not in the cache, so it cannot be pinned.")
        async with self._pinning:  # two at once would each write what they knew
            await asyncio.to_thread(pins.set, pins.projects | projects, pins.files | chosen)
        yield {"result": {"projects": sorted(pins.projects), "files": sorted(pins.files.values())}}

    async def _unpin(self, arguments: Mapping[str, Any]) -> Events:
        known(arguments, "names")
        names = texts(arguments, "names")
        pins = self._store.pins
        projects = {_project(name) for name in names if not _is_file(name)}
        async with self._pinning:
            files = {sha256: name for sha256, name in pins.files.items() if name not in names and sha256 not in names}
            unknown = projects - pins.projects or {
                name for name in names if _is_file(name) and name not in {*pins.files, *pins.files.values()}
            }
            if unknown:
                raise NotFound(f"{min(unknown)} is not pinned.")
            await asyncio.to_thread(pins.set, pins.projects - projects, files)
        yield {"result": {"projects": sorted(pins.projects), "files": sorted(pins.files.values())}}

    # -- verifying -----------------------------------------------------------------------------------

    async def _verify(self, arguments: Mapping[str, Any]) -> Events:
        known(arguments, "bytes_per_second")
        rate = number(arguments, "bytes_per_second")
        if rate is None and self._live is not None:
            rate = _LIVE_BYTES_PER_SECOND
        total, total_bytes = self._catalog.totals
        done = read = 0
        damaged = []
        names = {each.sha256: each.filename async for each in self._files()} if total < _BATCH * 100 else {}
        async with aclosing(verify(self._store, bytes_per_second=rate or None)) as checks:
            async for each in checks:
                done, read = done + 1, read + each.size
                if each.problem is not None:
                    await self._catalog.remove_file(each.sha256)
                    damaged.append({"sha256": each.sha256, "file": names.get(each.sha256, ""), "problem": each.problem})
                yield {"done": done, "total": max(total, done), "bytes": read, "total_bytes": max(total_bytes, read)}
        yield {"result": {"files": done, "bytes": read, "damaged": damaged}}

    # -- fetching ------------------------------------------------------------------------------------

    async def _fetch(self, arguments: Mapping[str, Any]) -> Events:
        known(arguments, "files")
        addresses = texts(arguments, "files")
        live = self._live
        if live is None:
            raise Unavailable("No teepi runs on this cache directory, and only a running one fetches; start it first.")
        free = asyncio.Semaphore(_FETCHES)

        async def fetch(address: str) -> dict[str, Any]:
            async with free:
                try:
                    outcome = await self._fetch_one(live, address)
                except TeepiError as error:
                    return {"file": address, "outcome": "failed", "message": error.message}
                return {"file": address, "outcome": outcome}

        tasks = [asyncio.ensure_future(fetch(address)) for address in addresses]
        results = []
        try:
            for done in asyncio.as_completed(tasks):
                results.append(await done)
                yield {"done": len(results), "total": len(tasks), **results[-1]}
        finally:
            for task in tasks:
                task.cancel()
        yield {"result": results}

    async def _fetch_one(self, live: Running, address: str) -> str:
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise BadRequest(f"{address[:200]!r} is no file of an index; write root/pypi/+files/HOST/PATH.")
        record = await live.indexes.file(live.indexes.require(found[1]), found[2])
        return await live.files.bring(record)

    # -- names ---------------------------------------------------------------------------------------

    @staticmethod
    def _matcher(names: list[str]) -> tuple[set[str], Callable[[Candidate], bool]]:
        """Return the projects among ``names``, and what says whether a file is meant."""
        files = {name for name in names if _is_file(name)}
        projects = {_project(name) for name in names if not _is_file(name)}

        def is_named(each: Candidate) -> bool:
            return each.project in projects or each.filename in files or each.sha256 in files

        return projects, is_named


def _of(evicted: Evicted) -> dict[str, Any]:
    values = asdict(evicted)
    return {"files": values["files"], "bytes": values["size"], "names": values["names"][:_BATCH]}


def _is_file(name: str) -> bool:
    """Whether a name is that of a file, or its sha256, rather than that of a project."""
    return bool(_SHA256.fullmatch(name) or _FILENAME.fullmatch(name))


def _project(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise BadRequest(f"{name!r} is no name of a project.")
    return canonicalize_name(name)
