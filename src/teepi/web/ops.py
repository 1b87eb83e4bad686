"""Handlers for operations: health, status, and a word for those who open the root."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from teepi import __version__
from teepi.web import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web_request import BaseRequest

    from teepi.download import Registry
    from teepi.exposition import Exposition
    from teepi.history import History
    from teepi.live import Live
    from teepi.metrics import Metrics
    from teepi.readiness import Readiness


_SPOKEN: Final = "6.20.3"  # the devpi-server whose protocol was recorded: devpi's clients ask for that name


class OpsHandlers:
    """What operators and monitors ask."""

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        cache_totals: Callable[[], tuple[int, int]],
        problems: Callable[[], list[str]],
        readiness: Readiness,
        exposition: Exposition,
        history: History,
        live: Live,
        uuid: str,
    ) -> None:
        """``cache_totals`` gives (files, bytes) of the cache; ``problems`` the sentences that degrade it.

        ``uuid`` is the data directory's.
        """
        self._live = live
        self._uuid = uuid
        self._readiness = readiness
        self._exposition = exposition
        self._history = history
        self._registry = registry
        self._metrics = metrics
        self._cache_totals = cache_totals
        self._problems = problems
        self._began = time.monotonic()

    async def health(self, request: BaseRequest) -> web.StreamResponse:  # noqa: ARG002 - a handler
        """``/healthz``: the event loop answers."""
        return answers.plain("ok")

    async def ready(self, request: BaseRequest) -> web.StreamResponse:  # noqa: ARG002 - a handler
        """``/readyz``: JSON with what is wrong; 200 when clients get answers all the same, else 503."""
        is_ready, report = await self._readiness.report()
        return web.json_response(report, status=200 if is_ready else 503, headers={"Cache-Control": "no-store"})

    async def status(self, request: BaseRequest) -> web.StreamResponse:
        """``/+status``: JSON with downloads in flight, counters, the last 24 hours, and the cache's size in bytes.

        ``type`` and ``result`` are what devpi's clients read.
        """
        [day] = self._history.series(hours=24, points=1)
        files, size = self._cache_totals()
        downloads: list[dict[str, Any]] = [
            {
                "file": download.public_name,
                "key": download.key.value,
                "state": download.state.value,
                "bytes": download.arrived,
                "total_bytes": download.total,
                "readers": download.readers,
                "in_memory": download.ring is not None,
            }
            for download in self._registry
        ]
        counters = self._metrics.snapshot()
        place = request.get_extra_info("sockname")  # a path for a unix socket
        host, port = place[:2] if isinstance(place, tuple) else (str(place), 0)
        return answers.devpi(
            "status",
            {
                "role": "MASTER",
                "versioninfo": {"teepi": __version__, "devpi-server": _SPOKEN},
                "uuid": self._uuid,
                "host": host,
                "port": port,
                "outside-url": self._live.settings.outside_url,
                "metrics": [[name, "counter", count] for name, count in counters.items()],
            },
            more={
                "version": __version__,
                "uptime_seconds": round(time.monotonic() - self._began, 1),
                "in_flight": downloads,
                "counters": counters,
                "day": {
                    "hits": day.hits,
                    "misses": day.misses,
                    "cached_bytes": day.cached_bytes,
                    "fetched_bytes": day.fetched_bytes,
                    "saved_bytes": day.saved_bytes,
                },
                "cache": {"files": files, "bytes": size},
                "problems": self._problems(),
            },
        )

    async def metrics(self, request: BaseRequest) -> web.StreamResponse:
        """``/metrics``: for Prometheus, in the form that Accept asks for."""
        body, content_type = await self._exposition.render(answers.header(request, "Accept"))
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
