"""The counters in the form that Prometheus reads: ``/metrics``.

A collector over plain integers, run when somebody asks, so that counting costs nothing more. The library decides
about the text format and about OpenMetrics. ``docs/metrics.md`` says the same to people; a test compares them.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from teepi import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

    from teepi.metrics import Histogram, Metrics

_COUNTERS: Final = (
    ("resumes", "resumes", "Transfers taken up again in mid-file."),
    ("verification_failures", "mismatches", "Transfers whose bytes were not what the index promised."),
    ("damaged_files", "set_aside", "Cached files that were found damaged and set aside."),
    ("interrupted_downloads", "interrupted", "Transfers that broke and could not be resumed."),
    ("committed_files", "committed", "Files committed to the cache."),
    ("unverified_files", "unverified", "Files committed for which the index gave no digest."),
    ("uncached_downloads", "uncached", "Whole files served that could not be committed."),
    ("short_responses", "short_bodies", "Responses to clients that ended before the last byte."),
    ("hot_answers", "hot_answers", "Requests for pages and small files answered on the hot path."),
)
_EVICTION_COUNTERS: Final = (
    ("evictions", "evicted", "Files evicted to make room, or because nobody used them for long."),
    ("evicted_bytes", "evicted_bytes", "Bytes of evicted files."),
)


@dataclass(frozen=True, slots=True)
class Gauges:
    """What stands at some value now; None is left out."""

    in_flight_downloads: int = 0
    in_flight_readers: int = 0
    open_connections: int = 0
    cache_files: int = 0
    cache_bytes: int = 0
    disk_free_bytes: int | None = None
    catalog_rows: int | None = None
    event_loop_lag_max_seconds: float = 0.0
    problems: int = 0
    circuits_open: Mapping[str, bool] = field(default_factory=dict)
    """By index: whether its upstream is left alone after failures."""


_GAUGES: Final = {
    "in_flight_downloads": "Downloads that are running.",
    "in_flight_readers": "Requests that are being answered from them.",
    "open_connections": "Connections of clients, idle ones included.",
    "cache_files": "Files in the cache.",
    "cache_bytes": "Bytes of the files in the cache.",
    "disk_free_bytes": "Bytes free on the disk of the cache, as far as this user may take them.",
    "catalog_rows": "Links of index pages in the catalogue, at most: rows that were replaced leave gaps.",
    "event_loop_lag_max_seconds": "The most by which the event loop was late within the last minute.",
    "problems": "Sentences under problems in /+status.",
}


class Exposition:
    """Renders :class:`~teepi.metrics.Metrics`."""

    def __init__(self, metrics: Metrics, gauges: Callable[[], Gauges]) -> None:
        """``gauges`` is called on the event loop and must not wait."""
        self._metrics = metrics
        self._gauges = gauges
        # Apart from the threads that touch the disk: when they hang, this is looked at.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)

    async def render(self, accept: str | None) -> tuple[bytes, str]:
        """Return body and Content-Type in the form that the Accept header asks for."""
        gauges = self._gauges()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._render, gauges, accept or "")

    def _render(self, gauges: Gauges, accept: str) -> tuple[bytes, str]:
        from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415 - 60 ms that no start waits
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self._metrics, gauges))
        ProcessCollector(registry=registry)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type


class _Collector:
    """One look at everything, from another thread: dicts are copied in one step before they are walked."""

    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - see above
        from prometheus_client.metrics_core import InfoMetricFamily  # noqa: PLC0415

        metrics, gauges = self._metrics, self._gauges
        yield InfoMetricFamily("teepi_build", "The version that runs.", {"version": __version__})
        requests = CounterMetricFamily("teepi_requests", "Requests of clients.", labels=("kind", "result", "status"))
        for (kind, result, digit), count in list(metrics.requests.items()):
            requests.add_metric((kind, result, f"{digit}xx" if digit else "none"), count)
        yield requests
        sent = CounterMetricFamily("teepi_sent_bytes", "Bytes of files sent to clients.", labels=("source",))
        cached, passed = metrics.cached_bytes, metrics.passed_bytes
        sent.add_metric(("cache",), cached)
        sent.add_metric(("download",), metrics.sent_bytes - cached - passed)
        sent.add_metric(("upstream",), passed)
        yield sent
        yield GaugeMetricFamily(
            "teepi_saved_bytes", "Bytes of files sent less those fetched, since the start.", metrics.saved_bytes
        )
        yield from self._upstream()
        counters = _COUNTERS if metrics.cache_limit_bytes is None else _COUNTERS + _EVICTION_COUNTERS
        for name, attribute, said in counters:
            yield CounterMetricFamily(f"teepi_{name}", said, getattr(metrics, attribute))
        for name, said in _GAUGES.items():
            if (value := getattr(gauges, name)) is not None:
                yield GaugeMetricFamily(f"teepi_{name}", said, value)
        if metrics.cache_limit_bytes is not None:
            yield GaugeMetricFamily(
                "teepi_cache_limit_bytes", "Bytes that the cache may hold.", metrics.cache_limit_bytes
            )
        yield _histogram("event_loop_lag", "Seconds by which the event loop was late, sampled.", {"": metrics.loop_lag})

    def _upstream(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        metrics = self._metrics
        upstreams = list(metrics.upstreams.items())
        answers = CounterMetricFamily(
            "teepi_upstream_requests", "Requests sent to upstream.", labels=("index", "result")
        )
        for index, counters in upstreams:
            for result, count in list(counters.answers.items()):
                answers.add_metric((index, result), count)
        yield answers
        received = CounterMetricFamily(
            "teepi_upstream_received_bytes", "Bytes of bodies received from upstream.", labels=("kind",)
        )
        received.add_metric(("file",), metrics.upstream_file_bytes)
        received.add_metric(("page",), metrics.upstream_page_bytes)
        yield received
        yield _histogram(
            "upstream_first_byte",
            "Seconds from a request to upstream until the head of its answer.",
            {index: counters.first_byte for index, counters in upstreams},
            label="index",
        )
        circuits = GaugeMetricFamily(
            "teepi_upstream_circuit_open", "1 while upstream is left alone after failures.", labels=("index",)
        )
        for index, is_open in self._gauges.circuits_open.items():
            circuits.add_metric((index,), is_open)
        yield circuits


def _histogram(name: str, said: str, histograms: Mapping[str, Histogram], label: str | None = None) -> Metric:
    """Return the histograms, by value of ``label``, as one metric with running totals."""
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415

    family = HistogramMetricFamily(f"teepi_{name}_seconds", said, labels=() if label is None else (label,))
    for value, histogram in histograms.items():
        buckets, running = [], 0
        for bound, count in zip((*map(str, histogram.bounds), "+Inf"), tuple(histogram.counts), strict=True):
            running += count
            buckets.append((bound, float(running)))
        family.add_metric(() if label is None else (value,), buckets, histogram.total)
    return family
