"""The services of a process, made and handed to each other. Sockets and signals are ``server``'s job."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from teepi import maintenance, operator_channel
from teepi.account_operations import AccountOperations
from teepi.catalog import Catalog
from teepi.errors import NoCoreMetadata
from teepi.eviction import Keeper
from teepi.exposition import Exposition, Gauges
from teepi.files import Files
from teepi.history import History
from teepi.hot_entries import HotEntries
from teepi.index_settings import IndexSettings
from teepi.indexes import Indexes
from teepi.legacy import Legacy
from teepi.lists import ProjectLists
from teepi.loop_lag import LoopLag
from teepi.metadata import METADATA, CoreMetadata
from teepi.operations import Operations, Running
from teepi.operator_calls import Calls
from teepi.overview import Overviews
from teepi.pages import Pages
from teepi.private import PrivateIndexes
from teepi.readiness import DISK_EVERY_SECONDS, ROWS_EVERY_SECONDS, Probe, Readiness
from teepi.search import Search
from teepi.store import DiskState, DocumentStores, ListStore, Store
from teepi.tasks import TaskScope, in_executor
from teepi.upstream import Upstream
from teepi.verification import scrub_forever
from teepi.web.app import App
from teepi.web.files import FileHandlers
from teepi.web.hot import HotPath
from teepi.web.legacy import LegacyHandlers
from teepi.web.operator import OperatorHandlers
from teepi.web.ops import OpsHandlers
from teepi.web.send import Senders
from teepi.web.simple import PageHandlers

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping, Sequence

    from aiohttp.web_request import BaseRequest

    from teepi.config import Settings
    from teepi.download import Registry
    from teepi.limits import Limits
    from teepi.live import Live
    from teepi.metrics import Metrics
    from teepi.model import FileRecord
    from teepi.overview import FoundProject

log = logging.getLogger(__name__)


class Upstreams:
    """The upstreams of all indexes, as the settings have them."""

    def __init__(self, indexes: Mapping[str, IndexSettings], limits: Limits, metrics: Metrics) -> None:
        """Open no connection yet."""
        self.by_index: dict[str, Upstream] = {}
        """The same object always: services look into it."""
        self._limits = limits
        self._metrics = metrics
        self._all: list[Upstream] = []
        self.change({}, indexes)

    def change(self, former: Mapping[str, IndexSettings], now: Mapping[str, IndexSettings]) -> None:
        """Put others in the place of those whose settings changed; the transfers of these go on to their end."""
        for name in {**former, **now}:
            index = now.get(name) or IndexSettings()
            if index == former.get(name):
                continue
            self.by_index.pop(name, None)
            if index.upstream:
                self.by_index[name] = Upstream(index, self._limits, self._metrics, name=name)
                self._all.append(self.by_index[name])

    async def aclose(self) -> None:
        """Close all connections, also those of former settings."""
        for upstream in self._all:
            await upstream.aclose()


@dataclass(frozen=True, slots=True)
class Services:
    """What a running process needs to hold of them."""

    app: App
    hot: HotPath
    operator: OperatorHandlers
    operations: Operations
    keeper: Keeper
    store: Store
    catalog: Catalog
    pages: Pages
    upstreams: Upstreams
    readiness: Readiness
    history: History
    private: PrivateIndexes
    start: Callable[[], None]
    """Starts what runs behind the requests."""

    def reload(self, former: Settings, now: Settings) -> None:
        """Take over what changed between two settings and is not looked up at each request."""
        self.private.accounts.settings_changed()
        self.hot.entries.clear()
        if former.synthesize_metadata != now.synthesize_metadata:
            self.pages.forget_variants()


async def _forget_upstream(pages: Pages, lists: ProjectLists, index: str, is_new: bool) -> None:  # noqa: FBT001
    await pages.forget_upstream(index, is_new=is_new)
    if is_new:
        await lists.forget(index)


async def assemble(  # noqa: PLR0915 - one line for each service
    live: Live,
    limits: Limits,
    metrics: Metrics,
    registry: Registry,
    undo: contextlib.AsyncExitStack,
    open_connections: Callable[[], int],
) -> Services:
    """Open cache and catalogue and make all services; ``undo`` closes them. Raises :class:`StoreError` or OSError."""
    settings = live.settings
    store = await asyncio.to_thread(Store, settings.cache_dir)
    undo.push_async_callback(asyncio.to_thread, store.close)  # which waits for its threads
    await asyncio.to_thread(store.lock)
    if store.problem is not None:
        log.warning("%s", store.problem)
    catalog = await asyncio.to_thread(Catalog.open, store.catalog_path)
    undo.push_async_callback(catalog.close)
    connected = Upstreams(live.indexes, limits, metrics)
    undo.push_async_callback(connected.aclose)
    upstreams, scope = connected.by_index, TaskScope()
    lists = ProjectLists(
        *(upstreams, ListStore(store.lists_path), scope, limits, live),
        mirrors_of=lambda index: private.stages.mirrors(index),  # noqa: PLW0108 - it is made further down
        names_of=lambda index: private.stages.names(index),  # noqa: PLW0108 - as it
    )
    undo.callback(lists.close)
    undo.push_async_callback(scope.aclose)
    stores = DocumentStores.of(store)
    max_age_days = None if settings.offline else settings.max_age_unused_days
    keeper = Keeper(store, catalog, stores, scope, metrics, max_age_days=max_age_days)
    await keeper.begin(settings.max_size_bytes, settings.min_free_bytes)
    metrics.cache_limit_bytes = store.space.limit
    entries = HotEntries()
    hot = HotPath(entries, metrics)
    pages = Pages(upstreams, stores.pages, catalog, scope, limits, metrics, live, entries)
    undo.callback(pages.close)
    loop = asyncio.get_running_loop()
    keeper.documents.gone = lambda index, project: loop.call_soon_threadsafe(pages.forget, index, project)
    files = Files(store, catalog, registry, upstreams, scope, limits, metrics, live, entries)
    core_metadata = CoreMetadata(files, pages, catalog, stores.metadata, scope, limits)
    indexes = Indexes(live, pages, catalog, limits, core_metadata)

    async def read_metadata(wheel: FileRecord) -> bytes:
        if not (wheel.metadata or live.synthesize_metadata):
            raise NoCoreMetadata(f"Upstream has no core metadata of {wheel.filename}.")
        return await core_metadata.read(await indexes.file(wheel.index, wheel.address + METADATA))

    served = live.indexes

    def mirrors_changed(mirrors: Mapping[str, IndexSettings]) -> None:
        nonlocal served
        live.made(mirrors)
        connected.change(served, live.indexes)
        pages.reread({name for name, index in served.items() if live.bound_to(name) != index.bound_to})
        served = live.indexes
        entries.clear()

    private = await PrivateIndexes.open(
        live,
        scope,
        undo,
        indexes,
        pages,
        mirrors_changed,
        partial(_forget_upstream, pages, lists),
        lambda index, project: scope.start(private.tell(search, index, project), name=f"search of {project}"),
    )
    legacy = Legacy(upstreams, stores.legacy, scope, limits, live, read_metadata)
    search = Search(store, stores.pages, catalog, pages, lists, scope, private.searchable)
    undo.push_async_callback(search.close)
    core_metadata.read_out = search.note_metadata

    async def search_page(request: BaseRequest, index: str | None, words: str) -> tuple[Sequence[FoundProject], bool]:
        return await overviews.search(words, await private.permitted(request, index), each=index is None)

    senders = Senders(limits, metrics)
    undo.callback(senders.close)

    def problems() -> list[str]:
        found = store.problem, catalog.problem, keeper.problem, private.problem()
        return [sentence for sentence in found if sentence]

    history = History(metrics, store)
    await history.load()
    undo.push_async_callback(history.save)
    disk: Probe[DiskState] = Probe(
        scope,
        lambda: in_executor(store.probing, store.probe, limits.low_space_bytes),
        every_seconds=DISK_EVERY_SECONDS,
        name="probing the disk",
    )
    rows = Probe(scope, catalog.rows, every_seconds=ROWS_EVERY_SECONDS, name="counting rows")
    readiness = Readiness(
        scope,
        disk,
        upstreams,
        catalogue_problem=lambda: catalog.problem,
        cache_problem=lambda: keeper.problem,
        data_problem=private.problem,
        circuit_wait_seconds=pages.circuit_wait_seconds,
        offline=lambda: live.offline,
    )
    lag = LoopLag(metrics.loop_lag)

    def gauges() -> Gauges:
        disk.refresh()  # for the next look: nothing waits here
        rows.refresh()
        files_cached, bytes_cached = catalog.totals
        return Gauges(
            in_flight_downloads=len(list(registry)),
            in_flight_readers=sum(download.readers for download in registry),
            open_connections=open_connections(),
            cache_files=files_cached,
            cache_bytes=bytes_cached,
            disk_free_bytes=None if disk.latest is None else disk.latest.free_bytes,
            catalog_rows=rows.latest,
            event_loop_lag_max_seconds=lag.max_seconds,
            problems=len(problems()),
            circuits_open={index: pages.circuit_wait_seconds(index) > 0 for index in upstreams},
        )

    exposition = Exposition(metrics, gauges)
    undo.callback(exposition.close)
    overviews = Overviews(live, registry, metrics, catalog, problems, history.series, search)
    operations = Operations(store, catalog, keeper, stores, Running(indexes, files, pages, metrics))
    account_operations = AccountOperations(private.accounts, live)
    operator = OperatorHandlers(
        Calls({**operations.operations, **account_operations.operations}),
        pages,
        lists,
        await asyncio.to_thread(operator_channel.make_token, settings.data_dir),
    )
    ui = await private.people(limits, store, search, search_page, overviews.now, read_metadata, core_metadata)
    app = App(
        PageHandlers(indexes, pages, lists, limits, hot),
        FileHandlers(indexes, files, core_metadata, senders, metrics, hot),
        LegacyHandlers(indexes, pages, legacy, live),
        OpsHandlers(
            registry,
            metrics,
            lambda: catalog.totals,
            problems,
            readiness,
            exposition,
            history,
            live,
            private.accounts.uuid,
        ),
        ui,
        operator,
        private.handlers(files, senders, limits, search),
        metrics,
        live,
        proxpi_invalidation=settings.proxpi_invalidation,
    )

    def start() -> None:
        scope.start(maintenance.recover(store, stores.pages, catalog, limits, keeper, live.bound_to), name="recovery")
        scope.start(keeper.run_forever(), name="keeping the cache below its limits")
        if settings.scrub:
            scope.start(scrub_forever(store, catalog), name="hashing cached files again")
        scope.start(maintenance.flush_forever(catalog), name="flushing access times")
        scope.start(history.keep_forever(), name="sampling hits and bytes")
        scope.start(lag.sample_forever(), name="sampling the event loop")

    return Services(
        app, hot, operator, operations, keeper, store, catalog, pages, connected, readiness, history, private, start
    )
