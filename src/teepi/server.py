"""The process: sockets, event loop, signals, drain. It builds the services and hands them to each other."""

from __future__ import annotations

import asyncio
import contextlib
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

from teepi import __version__, maintenance
from teepi.catalog import Catalog
from teepi.download import Registry
from teepi.errors import StoreError
from teepi.files import Files
from teepi.indexes import DEFAULT_INDEX, Indexes
from teepi.legacy import Legacy
from teepi.limits import Limits
from teepi.lists import ProjectLists
from teepi.metadata import CoreMetadata
from teepi.metrics import Metrics
from teepi.pages import Pages
from teepi.store import ListStore, PageStore, Store
from teepi.systemd import Notifier, inherited_sockets
from teepi.tasks import TaskScope
from teepi.upstream import Upstream, shown
from teepi.web import connection
from teepi.web.app import App
from teepi.web.files import FileHandlers
from teepi.web.legacy import LegacyHandlers
from teepi.web.ops import OpsHandlers
from teepi.web.send import Senders
from teepi.web.simple import PageHandlers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from teepi.config import Settings

log = logging.getLogger(__name__)

_BACKLOG: Final = 2048  # six uv installs open 300 connections at once
_HEAD_BYTES: Final = 16384
_CLOSE_SECONDS: Final = 0.5  # aiohttp waits for it twice: for the handlers to end, and for them to be cancelled
_DRAIN_POLL_SECONDS: Final = 0.05
_DESCRIPTORS: Final = 1 << 20


class Server:
    """All of teepi on one event loop."""

    def __init__(self, settings: Settings, limits: Limits | None = None, sockets: Sequence[socket.socket] = ()) -> None:
        """Do nothing yet. ``sockets`` listen already and take the place of ``settings.listen``."""
        self.settings = settings
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.addresses: list[tuple[str, int]] = []
        """Host and port of each listening socket, once started."""
        self.registry = Registry()
        self._undo = contextlib.AsyncExitStack()
        self._http: connection.Server | None = None
        self._sockets = sockets
        self._listeners: list[asyncio.Server] = []

    async def start(self) -> None:
        """Open cache and sockets and answer. Raises :class:`StoreError` or OSError, leaving nothing open."""
        try:
            await self._start()
        except BaseException:
            await self.stop(drain_seconds=0)
            raise

    async def _start(self) -> None:
        settings, limits, undo = self.settings, self.limits, self._undo
        with contextlib.suppress(OSError):  # precious files come later; the place is kept for them
            await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True, mode=0o700)
        store = await asyncio.to_thread(Store, settings.cache_dir)
        undo.push_async_callback(asyncio.to_thread, store.close)  # which waits for its threads
        await asyncio.to_thread(store.lock)
        if store.problem is not None:
            log.warning("%s", store.problem)
        catalog = await asyncio.to_thread(Catalog.open, store.catalog_path)
        undo.push_async_callback(catalog.close)
        upstreams = {}
        for name, index in settings.indexes.items():
            if index.upstream:
                upstreams[name] = Upstream(index, limits, self.metrics)
                undo.push_async_callback(upstreams[name].aclose)
        scope = TaskScope()
        lists = ProjectLists(
            upstreams,
            ListStore(store.lists_path),
            scope,
            limits,
            ttl_seconds=settings.page_ttl_seconds,
            offline=settings.offline,
        )
        undo.callback(lists.close)
        undo.push_async_callback(scope.aclose)
        page_store = PageStore(store.pages_path, store.committing)
        pages = Pages(
            upstreams,
            page_store,
            catalog,
            scope,
            limits,
            self.metrics,
            ttl_seconds=settings.page_ttl_seconds,
            ttls_seconds={
                name: index.page_ttl_seconds
                for name, index in settings.indexes.items()
                if index.page_ttl_seconds is not None
            },
            offline=settings.offline,
            synthesize_metadata=settings.synthesize_metadata,
        )
        legacy = Legacy(
            upstreams,
            PageStore(store.legacy_path, store.committing),
            scope,
            limits,
            ttl_seconds=settings.page_ttl_seconds,
            offline=settings.offline,
        )
        files = Files(store, catalog, self.registry, upstreams, scope, limits, self.metrics, offline=settings.offline)
        files.extraction = core_metadata = CoreMetadata(files, pages, catalog, scope, limits)
        indexes = Indexes(
            settings.indexes,
            pages,
            catalog,
            limits,
            core_metadata=core_metadata if settings.synthesize_metadata else None,
            offline=settings.offline,
        )
        senders = Senders(limits, self.metrics)
        undo.callback(senders.close)

        def problems() -> list[str]:
            return [sentence for sentence in (store.problem, catalog.problem) if sentence]

        app = App(
            PageHandlers(indexes, pages, lists, limits),
            FileHandlers(indexes, files, senders, self.metrics),
            LegacyHandlers(indexes, pages, legacy),
            OpsHandlers(self.registry, self.metrics, lambda: catalog.totals, problems),
        )
        self._http = connection.Server(
            app.handle,
            limits,
            max_line_size=_HEAD_BYTES,
            max_field_size=_HEAD_BYTES,
            access_log=None,
        )
        await self._listen()
        scope.start(maintenance.recover(store, page_store, catalog, limits), name="recovery")
        scope.start(maintenance.flush_forever(catalog), name="flushing access times")

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        http = self._http
        if http is None:
            return
        for inherited in self._sockets:
            self._add_listener(await loop.create_server(http, sock=inherited, backlog=_BACKLOG))
        for host, port in self.settings.listen if not self._sockets else ():
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
            self._add_listener(listener)

    def _add_listener(self, listener: asyncio.Server) -> None:
        self._listeners.append(listener)
        self.addresses += [sock.getsockname()[:2] for sock in listener.sockets]

    @property
    def connections(self) -> int:
        """Number of clients that are connected."""
        return len(self._http.connections) if self._http is not None else 0

    async def stop(self, drain_seconds: float | None = None) -> None:
        """Take no more connections, let running answers end, keep partials, close.

        ``drain_seconds`` (default: the setting) bounds the wait for the answers; up to a second more goes to closing.
        """
        if drain_seconds is None:
            drain_seconds = self.settings.drain_seconds
        for listener in self._listeners:
            listener.close()
        if self._http is not None:
            self._http.pre_shutdown()
            deadline = time.monotonic() + drain_seconds
            while self.connections and time.monotonic() < deadline:  # noqa: ASYNC110 - aiohttp tells nobody
                await asyncio.sleep(_DRAIN_POLL_SECONDS)
            await self._http.shutdown(_CLOSE_SECONDS)
        await self._undo.aclose()


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
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
    notifier = Notifier(os.environ)
    server = Server(settings, sockets=inherited_sockets(os.environ))
    starting = asyncio.ensure_future(server.start())
    waiting = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        waiting.cancel()
        return 0
    await starting
    _say_hello(server)
    notifier.ready(f"Serving on {', '.join(_bases(server))}.")
    await waiting
    notifier.stopping(
        f"Finishing what clients wait for ({server.connections} connected), for up to {settings.drain_seconds:g} s.",
        within_seconds=settings.drain_seconds,
    )
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
    notifier.close()
    return 0


def _bases(server: Server) -> list[str]:
    return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host, port in server.addresses]


def _say_hello(server: Server) -> None:
    """Print where teepi listens and the lines to paste."""
    settings = server.settings
    bases = _bases(server)
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


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
