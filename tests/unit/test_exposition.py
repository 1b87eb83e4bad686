"""What /metrics says, and that docs/metrics.md says the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from teepi.exposition import Exposition, Gauges
from teepi.loop_lag import LoopLag
from teepi.metrics import Histogram, Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture
def metrics() -> Metrics:
    """Give counters of which none is at 0."""
    metrics = Metrics(sent_bytes=100, cached_bytes=60, passed_bytes=10, upstream_bytes=70, upstream_page_bytes=25)
    metrics.cache_limit_bytes = 10**9
    metrics.count_request("file", "hit", 206)
    metrics.count_request("file", "hit", 200)
    metrics.count_request("page", "client_left", 0)
    metrics.of_upstream("root/pypi").answered(200, 0.05)
    metrics.of_upstream("root/pypi").failed("timeout")
    metrics.loop_lag.observe(0.002)
    return metrics


@pytest.fixture
async def exposition(metrics: Metrics) -> AsyncIterator[Exposition]:
    """Give the counters' exposition."""
    gauges = Gauges(disk_free_bytes=5, catalog_rows=7, circuits_open={"root/pypi": True})
    exposition = Exposition(metrics, lambda: gauges)
    yield exposition
    exposition.close()


async def values(exposition: Exposition) -> dict[tuple[str, ...], float]:
    """Return the samples by name and values of labels."""
    body, _ = await exposition.render(None)
    families = read_text(body.decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def test_metrics_and_their_document_name_the_same_ones(exposition: Exposition) -> None:
    """Name, type and labels of each; a metric without documentation does not exist, and none is made up."""
    body, _ = await exposition.render(None)
    exposed = {}
    for family in read_text(body.decode()):
        name = family.name + "_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        exposed[name] = (family.type, labels)
        assert family.documentation.endswith(".")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", DOCUMENT, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows}
    assert documented == exposed


async def test_metrics_named_in_examples_are_there(exposition: Exposition) -> None:
    """An alert on a metric that is not there never fires."""
    body, _ = await exposition.render(None)
    names = {sample.name for family in read_text(body.decode()) for sample in family.samples}
    assert set(re.findall(r"\b(?:teepi|process)_\w+", DOCUMENT)) <= names | {"teepi_event_loop_lag_seconds"} | {
        "teepi_upstream_first_byte_seconds"
    }


async def test_values_are_those_that_were_counted(exposition: Exposition) -> None:
    """Bytes by where they came from add up; statuses come by class."""
    found = await values(exposition)
    assert found["teepi_requests_total", "file", "hit", "2xx"] == 2
    assert found["teepi_requests_total", "page", "client_left", "none"] == 1
    assert [found["teepi_sent_bytes_total", s] for s in ("cache", "download", "upstream")] == [60, 30, 10]
    assert [found["teepi_upstream_received_bytes_total", kind] for kind in ("file", "page")] == [45, 25]
    assert found["teepi_saved_bytes",] == 55
    assert found["teepi_upstream_first_byte_seconds_bucket", "root/pypi", "0.025"] == 0
    assert found["teepi_upstream_first_byte_seconds_bucket", "root/pypi", "0.05"] == 1
    assert found["teepi_upstream_first_byte_seconds_count", "root/pypi"] == 1
    assert found["teepi_upstream_requests_total", "root/pypi", "timeout"] == 1
    assert found["teepi_upstream_circuit_open", "root/pypi"] == 1
    assert found["teepi_disk_free_bytes",] == 5


async def test_what_is_not_known_is_left_out(metrics: Metrics) -> None:
    """No limit, no evictions; a disk that has not been asked yet is not empty."""
    metrics.cache_limit_bytes = None
    exposition = Exposition(metrics, Gauges)
    found = {name for name, *_ in await values(exposition)}
    exposition.close()
    absent = {"teepi_cache_limit_bytes", "teepi_evictions_total", "teepi_evicted_bytes_total", "teepi_disk_free_bytes"}
    assert not found & (absent | {"teepi_catalog_rows"})
    assert "teepi_cache_bytes" in found


async def test_openmetrics_is_given_to_those_who_ask(exposition: Exposition) -> None:
    """The library negotiates; both forms are read by its own parsers."""
    body, content_type = await exposition.render("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert "teepi_requests" in {family.name for family in read_openmetrics(body.decode())}  # type: ignore[no-untyped-call] # the library's
    _, content_type = await exposition.render("text/html")
    assert content_type.startswith("text/plain; version=0.0.4")


def test_histogram_counts_a_value_on_its_bound_below_it() -> None:
    """Prometheus: ``le`` is less or equal."""
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 2.1):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([1, 2, 1], 6.6)


def test_loop_lag_forgets_what_is_older_than_a_minute() -> None:
    """Two samples a second."""
    lag = LoopLag(Metrics().loop_lag)
    assert lag.max_seconds == 0
    lag.note(0.7)
    for _ in range(119):
        lag.note(0.1)
    assert lag.max_seconds == 0.7
    lag.note(0.1)
    assert lag.max_seconds == 0.1
