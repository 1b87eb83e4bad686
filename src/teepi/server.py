"""The process: sockets, event loop, signals, drain. It builds the services and hands them to each other."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

import aiohttp.http_parser
import uvloop

from teepi import __version__, logs, maintenance
from teepi.catalog import Catalog
from teepi.download import Registry
from teepi.errors import StoreError, TeepiError
from teepi.exposition import Exposition, Gauges
from teepi.files import Files
from teepi.history import History
from teepi.index_settings import IndexSettings
from teepi.indexes import DEFAULT_INDEX, Indexes
from teepi.legacy import Legacy
from teepi.limits import Limits
from teepi.lists import ProjectLists
from teepi.live import Live
from teepi.loop_lag import LoopLag
from teepi.metadata import CoreMetadata
from teepi.metrics import Metrics
from teepi.origins import shown
from teepi.overview import Overviews
from teepi.pages import Pages
from teepi.readiness import DISK_EVERY_SECONDS, ROWS_EVERY_SECONDS, Probe, Readiness
from teepi.store import DiskState, ListStore, MetadataStore, PageStore, Store
from teepi.tasks import TaskScope, in_executor
from teepi.upstream import Upstream
from teepi.web import connection
from teepi.web.app import App
from teepi.web.files import FileHandlers
from teepi.web.legacy import LegacyHandlers
from teepi.web.ops import OpsHandlers
from teepi.web.send import Senders
from teepi.web.simple import PageHandlers
from teepi.web.ui import UiHandlers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from teepi.config import Settings

log = logging.getLogger(__name__)

_BACKLOG: Final = 2048  # six uv installs open 300 connections at once
_KEEPALIVE_SECONDS: Final = 90.0  # installers idle up to 75 s between requests
_HEAD_BYTES: Final = 16384
DRAIN_SECONDS: Final = 5.0  # podman kills 10 s after SIGTERM
_CLOSE_SECONDS: Final = 0.5
_SWITCH_SECONDS: Final = 0.001  # a thread that parses a page lets the event loop in after so long
_DRAIN_POLL_SECONDS: Final = 0.05
_DESCRIPTORS: Final = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of mallopt(3)


class Server:
    """All of teepi on one event loop."""

    def __init__(self, settings: Settings, limits: Limits | None = None) -> None:
        """Do nothing yet; without ``limits`` they are the real ones, with the patience of ``settings``."""
        self.live = Live(settings)
        self.limits = limits or Limits(page_patience_seconds=settings.patience_seconds)
        self.metrics = Metrics()
        self.addresses: list[tuple[str, int]] = []
        """Host and port of each listening socket, once started."""
        self.registry = Registry()
        self.readiness: Readiness | None = None
        self.history: History | None = None
        self._undo = contextlib.AsyncExitStack()
        self._upstreams: dict[str, Upstream] = {}
        self._connected: list[Upstream] = []
        self._pages: Pages | None = None
        self._http: connection.Server | None = None
        self._listeners: list[asyncio.Server] = []

    async def start(self) -> None:
        """Open cache and sockets and answer. Raises :class:`StoreError` or OSError, leaving nothing open."""
        try:
            await self._start()
        except BaseException:
            await self.stop(drain_seconds=0)
            raise

    async def _start(self) -> None:
        live, limits, undo = self.live, self.limits, self._undo
        settings = live.settings
        with contextlib.suppress(OSError):  # precious files come later; the place is kept for them
            settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = await asyncio.to_thread(Store, settings.cache_dir)
        undo.callback(store.close)
        await asyncio.to_thread(store.lock)
        if store.problem is not None:
            log.warning("%s", store.problem)
        catalog = await asyncio.to_thread(Catalog.open, store.catalog_path)
        undo.push_async_callback(catalog.close)
        upstreams = self._upstreams
        undo.push_async_callback(self._disconnect)
        for name, index in settings.indexes.items():
            self._connect(name, index)
        scope = TaskScope()
        lists = ProjectLists(
            upstreams,
            ListStore(store.lists_path),
            scope,
            limits,
            live,
        )
        undo.callback(lists.close)
        undo.push_async_callback(scope.aclose)
        page_store = PageStore(store.pages_path, store.committing)
        pages = self._pages = Pages(upstreams, page_store, catalog, scope, limits, self.metrics, live)
        undo.callback(pages.close)
        legacy = Legacy(
            upstreams,
            PageStore(store.legacy_path, store.committing),
            scope,
            limits,
            live,
        )
        files = Files(store, catalog, self.registry, upstreams, scope, limits, self.metrics, live)
        metadata_store = MetadataStore(store.metadata_path, store.landing)
        core_metadata = CoreMetadata(files, pages, catalog, metadata_store, scope, limits)
        indexes = Indexes(live, pages, catalog, limits, core_metadata)
        senders = Senders(limits, self.metrics)
        undo.callback(senders.close)

        def problems() -> list[str]:
            return [sentence for sentence in (store.problem, catalog.problem) if sentence]

        self.history = history = History(self.metrics, store)
        await history.load()
        undo.push_async_callback(history.save)
        readiness, exposition = self._observe(store, catalog, pages, upstreams, scope, problems)
        overviews = Overviews(live, self.registry, self.metrics, catalog, problems, history.series)
        app = App(
            PageHandlers(indexes, pages, lists, limits),
            FileHandlers(indexes, files, core_metadata, senders, self.metrics),
            LegacyHandlers(indexes, pages, legacy),
            OpsHandlers(self.registry, self.metrics, lambda: catalog.totals, problems, readiness, exposition, history),
            UiHandlers(overviews.now, overviews.search, DEFAULT_INDEX),
            self.metrics,
        )
        self._http = connection.Server(
            app.handle,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            max_line_size=_HEAD_BYTES,
            max_field_size=_HEAD_BYTES,
            access_log=None,
        )
        await self._listen()
        scope.start(maintenance.recover(store, page_store, catalog, limits), name="recovery")
        scope.start(maintenance.flush_forever(catalog), name="flushing access times")
        scope.start(history.keep_forever(), name="sampling hits and bytes")

    def _connect(self, name: str, index: IndexSettings) -> None:
        """Make the upstream of an index, in the place of a former one; that one's transfers go on to their end."""
        if index.upstream:
            self._upstreams[name] = Upstream(index, self.limits, self.metrics, name=name)
            self._connected.append(self._upstreams[name])
        else:
            self._upstreams.pop(name, None)

    async def _disconnect(self) -> None:
        for upstream in self._connected:
            await upstream.aclose()

    def reload(self, settings: Settings) -> list[str]:
        """Let other settings hold from now on; return the names of those that changed and need a restart."""
        former = self.live.settings
        kept = self.live.change(settings)
        now = self.live.settings
        for name in {**former.indexes, **now.indexes}:
            if former.indexes.get(name) != now.indexes.get(name):
                self._connect(name, now.indexes.get(name) or IndexSettings())
        if self._pages is not None and former.synthesize_metadata != now.synthesize_metadata:
            self._pages.forget_variants()
        logging.getLogger().setLevel(now.log_level.upper())
        return kept

    def _observe(
        self,
        store: Store,
        catalog: Catalog,
        pages: Pages,
        upstreams: Mapping[str, Upstream],
        scope: TaskScope,
        problems: Callable[[], list[str]],
    ) -> tuple[Readiness, Exposition]:
        """Put together what is seen from outside."""
        disk: Probe[DiskState] = Probe(
            scope,
            lambda: in_executor(store.probing, store.probe, self.limits.low_space_bytes),
            every_seconds=DISK_EVERY_SECONDS,
            name="probing the disk",
        )
        rows = Probe(scope, catalog.rows, every_seconds=ROWS_EVERY_SECONDS, name="counting rows")
        self.readiness = Readiness(
            scope,
            disk,
            upstreams,
            catalogue_problem=lambda: catalog.problem,
            circuit_wait_seconds=pages.circuit_wait_seconds,
            offline=lambda: self.live.offline,
        )
        lag = LoopLag(self.metrics.loop_lag)

        def gauges() -> Gauges:
            disk.refresh()  # for the next look: nothing waits here
            rows.refresh()
            downloads = list(self.registry)
            files_cached, bytes_cached = catalog.totals
            return Gauges(
                in_flight_downloads=len(downloads),
                in_flight_readers=sum(download.readers for download in downloads),
                open_connections=0 if self._http is None else len(self._http.connections),
                cache_files=files_cached,
                cache_bytes=bytes_cached,
                disk_free_bytes=None if disk.latest is None else disk.latest.free_bytes,
                catalog_rows=rows.latest,
                event_loop_lag_max_seconds=lag.max_seconds,
                problems=len(problems()),
                circuits_open={index: pages.circuit_wait_seconds(index) > 0 for index in upstreams},
            )

        exposition = Exposition(self.metrics, gauges)
        self._undo.callback(exposition.close)
        scope.start(lag.sample_forever(), name="sampling the event loop")
        return self.readiness, exposition

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        http = self._http
        if http is None:
            return
        for host, port in self.live.settings.listen:
            try:
                listener = await loop.create_server(
                    http,
                    host,
                    port,
                    backlog=_BACKLOG,
                    reuse_address=True,
                )
            except OSError as error:
                # uvloop's own words repeat the address; a resolver's errors have numbers of their own.
                number = None if isinstance(error, socket.gaierror) else error.errno
                reason = os.strerror(number) if number else error.strerror or error
                msg = f"teepi cannot listen on {host}:{port} ({reason}); choose another with --listen."
                raise StoreError(msg) from error
            self._listeners.append(listener)
            self.addresses += [sock.getsockname()[:2] for sock in listener.sockets]

    async def stop(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Take no more connections, let running answers end for ``drain_seconds``, keep partials, close."""
        if self.readiness is not None:
            self.readiness.is_draining = True
        for listener in self._listeners:
            listener.close()
        if self._http is not None:
            self._http.pre_shutdown()
            deadline = time.monotonic() + drain_seconds
            while self._http.connections and time.monotonic() < deadline:  # noqa: ASYNC110 - aiohttp tells nobody
                await asyncio.sleep(_DRAIN_POLL_SECONDS)
            await self._http.shutdown(_CLOSE_SECONDS)
        await self._undo.aclose()


def run(settings: Settings, reread: Callable[[], Settings]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status. SIGHUP lets the settings hold that ``reread`` gives."""
    logs.configure(settings.log_level, settings.log_format, os.environ)
    sys.setswitchinterval(_SWITCH_SECONDS)
    _give_memory_back()
    return uvloop.run(_serve(settings, reread))


async def _serve(settings: Settings, reread: Callable[[], Settings]) -> int:
    _raise_descriptor_limit()
    if not aiohttp.http_parser.HttpRequestParser.__module__.endswith("_http_parser"):
        log.warning("aiohttp runs without its C parser: teepi is slow. Reinstall aiohttp from a wheel.")
    stopping = asyncio.Event()
    again = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            again.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    server = Server(settings)
    starting = asyncio.ensure_future(server.start())
    waiting = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        waiting.cancel()
        return 0
    await starting
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, server, reread)
    _say_hello(server)
    await waiting
    ending = asyncio.ensure_future(server.stop())
    hurried = asyncio.ensure_future(again.wait())
    await asyncio.wait({ending, hurried}, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not ending.done():  # a second signal: no more draining
        ending.cancel()
        await asyncio.wait({ending})
        await server.stop(drain_seconds=0)
    else:
        await ending
    return 0


def _reload(server: Server, reread: Callable[[], Settings]) -> None:
    """Read all settings once more; a wrong one changes nothing."""
    try:
        kept = server.reload(reread())
    except TeepiError as error:
        log.error("The settings stay as they were: %s", error.message)  # noqa: TRY400 - one sentence
        return
    log.warning("The settings were read again.")
    if kept:
        log.warning("Only a restart brings a new %s.", ", ".join(kept))


def _say_hello(server: Server) -> None:
    """Print where teepi listens and the lines to paste."""
    settings = server.live.settings
    bases = [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host, port in server.addresses]
    lines = [f"teepi {__version__} listens on {base}" for base in bases]
    if settings.offline:
        lines.append("offline: nothing is asked of any upstream")
    lines += [
        f"{name} mirrors {', else '.join(map(shown, index.mirrors))}"
        if index.mirrors
        else f"{name} is made of {', '.join(index.bases)}"
        for name, index in settings.indexes.items()
    ]
    base = bases[0]
    lines += [
        f"cache in {settings.cache_dir}, data in {settings.data_dir}",
        "",
        f"  pip     pip install --index-url {base}/{DEFAULT_INDEX}/+simple/ PROJECT",
        f"  uv      UV_DEFAULT_INDEX={base}/{DEFAULT_INDEX}/+simple/ uv pip install PROJECT",
        f"  pipenv  PIPENV_PYPI_MIRROR={base}/simple pipenv install PROJECT",
        f"  poetry  poetry source add --priority=primary teepi {base}/{DEFAULT_INDEX}/+simple/",
    ]
    print("\n".join(lines), flush=True)  # noqa: T201 - what `teepi serve` says


def _give_memory_back() -> None:
    """Let glibc return what large pages took: by default its threads keep a heap each, and freed memory in all of them.

    270 pages of large projects left 370 MB resident without this, and leave 250 MB with it.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, 128 << 10), (_M_TRIM_THRESHOLD, 1 << 20)):
            mallopt(option, value)


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
