"""The process: sockets, event loop, signals, drain. The services are made in ``assembly``."""

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
from typing import TYPE_CHECKING, Any, Final

import aiohttp.http_parser
import uvloop

from teepi import __version__, logs, operator_channel
from teepi.access_log import AccessLog
from teepi.assembly import Services, assemble
from teepi.clients.address import server_url
from teepi.download import Registry
from teepi.errors import StoreError, TeepiError
from teepi.indexes import DEFAULT_INDEX
from teepi.limits import Limits
from teepi.live import Live
from teepi.metrics import Metrics
from teepi.origins import shown
from teepi.sizes import said
from teepi.systemd import Notifier, inherited_sockets
from teepi.tls import Certificate
from teepi.web import connection
from teepi.web.access import Accesses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from teepi.config import Settings
    from teepi.web.operator import OperatorHandlers

log = logging.getLogger(__name__)

_BACKLOG: Final = 2048  # six uv installs open 300 connections at once
_HEAD_BYTES: Final = 16384
_CLOSE_SECONDS: Final = 0.5  # aiohttp waits for it twice: for the handlers to end, and for them to be cancelled
_SWITCH_SECONDS: Final = 0.001  # a thread that parses a page lets the event loop in after so long
_DRAIN_POLL_SECONDS: Final = 0.05
_DESCRIPTORS: Final = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of mallopt(3)


class Server:
    """All of teepi on one event loop."""

    def __init__(self, settings: Settings, limits: Limits | None = None, sockets: Sequence[socket.socket] = ()) -> None:
        """Do nothing yet; without ``limits`` they are the real ones, with the patience of ``settings``.

        ``sockets`` listen already and take the place of ``settings.listen``.
        """
        self.live = Live(settings)
        self.limits = limits or Limits(page_patience_seconds=settings.patience_seconds)
        self.metrics = Metrics()
        self.addresses: list[tuple[str, int]] = []
        """Host and port of each listening socket, once started."""
        self.registry = Registry()
        self._services: Services | None = None
        self._undo = contextlib.AsyncExitStack()
        self._http: connection.Server | None = None
        self._operators: connection.Server | None = None
        self._sockets = sockets
        self._listeners: list[asyncio.Server] = []
        self._certificate: Certificate | None = None
        self.access_log: AccessLog | None = None
        """Where answered requests are noted; None when that is off."""

    @property
    def services(self) -> Services:
        """The services, once started."""
        if self._services is None:
            raise RuntimeError("the server has not started")
        return self._services

    async def start(self) -> None:
        """Open cache and sockets and answer.

        Raises :class:`StoreError`, :class:`~teepi.errors.ConfigError` or OSError, leaving nothing open.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop(drain_seconds=0)
            raise

    async def _start(self) -> None:
        settings = self.live.settings
        if settings.tls_cert is not None and settings.tls_key is not None:
            self._certificate = await asyncio.to_thread(Certificate, settings.tls_cert, settings.tls_key)
        if settings.access_log is not None:
            self.access_log = await AccessLog.open(settings.access_log, settings.access_log_format)
            self._undo.push_async_callback(self.access_log.close)
        services = await assemble(
            self.live, self.limits, self.metrics, self.registry, self._undo, lambda: self.connections
        )
        self._services = services
        self._http = connection.Server(
            services.app.handle,
            self.limits,
            services.hot,
            max_line_size=_HEAD_BYTES,
            max_field_size=_HEAD_BYTES,
            access_log=self.access_log,
            access_log_class=Accesses,
        )
        services.hot.access_log = self.access_log
        await self._listen()
        await self._listen_to_operators(services.operator)
        services.start()

    def reload(self, settings: Settings) -> list[str]:
        """Let other settings hold from now on; return the keys of those that changed and need a restart.

        Raises :class:`ConfigError` for what can hold by itself and not beside what clients have made.
        """
        former = self.live.settings
        if self._services is not None:
            self._services.private.accounts.check_settings(settings)
        kept = self.live.change(settings)
        if self._services is not None:
            self._services.reload(former, self.live.settings)
        logging.getLogger().setLevel(self.live.settings.log_level.upper())
        return kept

    async def renew(self) -> None:
        """Open the access log anew and read the certificate anew. Raises ConfigError, keeping the old one."""
        if self.access_log is not None:
            self.access_log.reopen()
        if self._certificate is not None:
            await asyncio.to_thread(self._certificate.renew)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        http = self._http
        if http is None:
            return
        tls: dict[str, Any] = {}
        if self._certificate is not None:
            tls = {
                "ssl": self._certificate.context,
                "ssl_handshake_timeout": self.limits.tls_handshake_seconds,
                # From close() on, what is still to be flushed to a slow client included.
                "ssl_shutdown_timeout": self.limits.client_idle_seconds,
            }
        for inherited in self._sockets:
            self._add_listener(await loop.create_server(http, sock=inherited, backlog=_BACKLOG, **tls))
        for host, port in self.live.settings.listen if not self._sockets else ():
            try:
                listener = await loop.create_server(
                    http,
                    host,
                    port,
                    backlog=_BACKLOG,
                    reuse_address=True,
                    **tls,
                )
            except OSError as error:
                # uvloop's own words repeat the address; a resolver's errors have numbers of their own.
                number = None if isinstance(error, socket.gaierror) else error.errno
                reason = os.strerror(number) if number else error.strerror or error
                msg = f"teepi cannot listen on {host}:{port} ({reason}); choose another with --listen."
                raise StoreError(msg) from error
            self._add_listener(listener)

    async def _listen_to_operators(self, operator: OperatorHandlers) -> None:
        """Answer on the unix socket; without one operators need the token."""
        cache_dir = self.live.settings.cache_dir
        try:
            sock = await asyncio.to_thread(operator_channel.bind, cache_dir)
        except OSError as error:
            log.warning("Operators cannot use a socket in %s: %s.", cache_dir, error.strerror)
            return
        self._operators = connection.Server(operator.over_socket, self.limits, access_log=None)
        self._listeners.append(await asyncio.get_running_loop().create_unix_server(self._operators, sock=sock))
        self._undo.push_async_callback(asyncio.to_thread, operator_channel.unbind, cache_dir)

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
        if self._services is not None:
            self._services.readiness.is_draining = True
        if drain_seconds is None:
            drain_seconds = self.live.settings.drain_seconds
        for listener in self._listeners:
            listener.close()
        if self._operators is not None:
            await self._operators.shutdown(_CLOSE_SECONDS)
        if self._http is not None:
            self._http.pre_shutdown()
            deadline = time.monotonic() + drain_seconds
            while self.connections and time.monotonic() < deadline:  # noqa: ASYNC110 - aiohttp tells nobody
                await asyncio.sleep(_DRAIN_POLL_SECONDS)
            await self._http.shutdown(_CLOSE_SECONDS)
        await self._undo.aclose()


def run(settings: Settings, reread: Callable[[], Settings]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    SIGHUP lets the settings hold that ``reread`` gives; where standard input is a terminal, it is as SIGTERM.
    """
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
    status = f"Serving on {', '.join(_bases(server))}."

    reloading = _reload_at_sighup(server, reread, notifier, status, stop)
    _say_hello(server)
    notifier.ready(status)
    await waiting
    reloading.cancel()
    drain_seconds = server.live.settings.drain_seconds
    notifier.stopping(
        f"Finishing what clients wait for ({server.connections} connected), for up to {drain_seconds:g} s.",
        within_seconds=drain_seconds,
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


def _reload_at_sighup(
    server: Server, reread: Callable[[], Settings], notifier: Notifier, status: str, stop: Callable[[], None]
) -> asyncio.Future[None]:
    """Take SIGHUP over, which ends a process by default; return what reads the settings again each time.

    A terminal that is closed sends it, too, and is not to leave a teepi behind: then it is as SIGTERM.
    """
    hangup = asyncio.Event()

    def hang_up() -> None:
        log.warning("SIGHUP ends teepi, since its standard input is a terminal; started with </dev/null it reloads.")
        stop()

    async def reload() -> None:
        while await hangup.wait():
            hangup.clear()
            notifier.reloading()
            try:
                await _reload(server, reread)
            except Exception:
                log.exception("The settings could not be read again.")
            notifier.ready(status)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up if os.isatty(0) else hangup.set)
    return asyncio.ensure_future(reload())


async def _reload(server: Server, reread: Callable[[], Settings]) -> None:
    """Read all settings and the certificate once more; a wrong one changes nothing."""
    try:
        kept = server.reload(reread())
    except TeepiError as error:
        log.error("The settings stay as they were: %s", error.message)  # noqa: TRY400 - one sentence
        return
    try:
        await server.renew()
    except TeepiError as error:
        log.error("The certificate stays as it was: %s", error.message)  # noqa: TRY400
    log.warning("The settings were read again.")
    if kept:
        log.warning("Only a restart brings a new %s.", ", ".join(kept))


def _bases(server: Server) -> list[str]:
    scheme = server.live.settings.scheme
    hosts = ((f"[{host}]" if ":" in host else host, port) for host, port in server.addresses)
    return [f"{scheme}://{host}:{port}" for host, port in hosts]


def _say_hello(server: Server) -> None:
    """Print where teepi listens and the lines to paste."""
    settings = server.live.settings
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
    base = server_url(server.addresses, settings.scheme).removesuffix("/")
    lines += [
        f"cache in {settings.cache_dir}, data in {settings.data_dir}",
        _size_line(server),
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


def _size_line(server: Server) -> str:
    space = server.services.store.space
    free = said(server.live.settings.min_free_bytes)
    return f"the cache holds {said(space.used)} of at most {said(space.limit)}; {free} of its disk stay free"


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
