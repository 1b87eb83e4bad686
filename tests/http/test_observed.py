"""Seen from outside: what requests are counted as, and whether teepi says that it is ready."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from teepi import eviction, readiness
from teepi.limits import Limits
from teepi.store import Store
from tests.http.scene import stage, until
from tests.support.clients import fetch
from tests.support.faults import Status
from tests.support.wheels import noise, wheel

if TYPE_CHECKING:
    import pytest

    from tests.conftest import MakeTeepi
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream


_UPSTREAM = "upstream of root/pypi"


async def samples(teepi: Teepi) -> dict[tuple[str, ...], float]:
    """Scrape; return the samples by name and values of labels."""
    answer = await fetch(teepi.address, "/metrics")
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    families = text_string_to_metric_families(answer.body.decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def requests(teepi: Teepi) -> dict[tuple[str, ...], int]:
    """Return the requests by kind, result and status, those for operations left out."""
    found = await samples(teepi)
    return {
        key[1:]: int(value) for key, value in found.items() if key[0] == "teepi_requests_total" and key[1] != "other"
    }


async def ready(teepi: Teepi) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of /readyz."""
    answer = await fetch(teepi.address, "/readyz")
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == (
        "application/json; charset=utf-8",
        "no-store",
    )
    return answer.status, json.loads(answer.body)


# --- /metrics


async def test_requests_are_counted_by_kind_result_and_status(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """What Cache-Status tells the client is what is counted; an error by its class."""
    scene = await stage(upstream, make_teepi, noise(300_000))
    gate = upstream.gate(scene.path)
    waiting = [asyncio.create_task(scene.get()) for _ in range(3)]
    download = await scene.download()
    await until(lambda: download.readers == 3)
    during = await samples(scene.teepi)
    gate.open()
    await asyncio.gather(*waiting)
    await scene.settled()
    await scene.get()
    await scene.get({"If-None-Match": f'"{scene.sha256}"'})
    for target in ("/simple/demo/", "/simple/absent/", "/simple/", "/pypi/demo/json", "/root/pypi/+files/no.example/x"):
        await fetch(scene.teepi.address, target)
    assert (during["teepi_in_flight_downloads",], during["teepi_in_flight_readers",]) == (1, 3)
    assert during["teepi_open_connections",] >= 4
    assert await requests(scene.teepi) == {
        ("page", "miss", "2xx"): 1,
        ("page", "hit", "2xx"): 1,
        ("page", "not_found", "4xx"): 1,
        ("file", "miss", "2xx"): 1,
        ("file", "collapsed", "2xx"): 2,
        ("file", "hit", "2xx"): 1,
        ("file", "hit", "3xx"): 1,
        ("file", "not_found", "4xx"): 1,
        ("list", "miss", "2xx"): 1,
        ("legacy", "hit", "2xx"): 1,
    }


async def test_bytes_are_counted_where_they_came_from(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Four clients, one fetch: three files saved."""
    scene = await stage(upstream, make_teepi, noise(300_000))
    await scene.cached()
    for _ in range(3):
        await scene.get()
    found = await samples(scene.teepi)
    assert found["teepi_sent_bytes_total", "cache"] == 900_000
    assert found["teepi_sent_bytes_total", "download"] == 300_000
    assert found["teepi_upstream_received_bytes_total", "file"] == 300_000
    assert found["teepi_saved_bytes",] == 900_000
    assert found["teepi_upstream_requests_total", "root/pypi", "2xx"] == 2
    assert found["teepi_upstream_first_byte_seconds_count", "root/pypi"] == 2
    assert (found["teepi_cache_files",], found["teepi_cache_bytes",]) == (1, 300_000)


async def test_core_metadata_is_a_kind_of_its_own(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A resolver asks for hundreds: they would hide the files."""
    made = wheel("demo")
    upstream.project("demo", {made.filename: made.content}, metadata={made.filename: made.metadata})
    teepi = await make_teepi()
    await fetch(teepi.address, "/simple/demo/")
    await fetch(teepi.address, f"/index/demo/{made.filename}.metadata")
    assert (await requests(teepi))["metadata", "miss", "2xx"] == 1


async def test_scrape_later_knows_the_disk_and_the_catalogue(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """They are asked behind the first scrape, which does not wait for them."""
    scene = await stage(upstream, make_teepi, noise(1000))
    await scene.get()
    await scene.settled()
    found: dict[tuple[str, ...], float] = {}
    while ("teepi_disk_free_bytes",) not in found or ("teepi_catalog_rows",) not in found:
        found = await samples(scene.teepi)
    assert found["teepi_disk_free_bytes",] > 0
    assert found["teepi_catalog_rows",] == 1


async def test_labels_hold_nothing_that_clients_send(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Else anyone could fill the monitor's memory, and secrets of URLs would be in it."""
    upstream.project("demo", {})
    teepi = await make_teepi()
    before = await samples(teepi)
    for target in (
        "/simple/secret-name/?token=secret",
        "/secret/index/+simple/x/",
        "/secret",
        "/secret/secret/+f/secret",
    ):
        await fetch(teepi.address, target, {"X-Request-ID": "secret", "Host": "secret.example"})
    answer = await fetch(teepi.address, "/metrics")
    assert b"secret" not in answer.body
    assert len(await samples(teepi)) <= len(before) + 16


async def test_status_tells_the_last_day_over_a_restart(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Counters begin anew with each process; what a cache is good for is seen over days."""
    scene = await stage(upstream, make_teepi, noise(300_000))
    await scene.cached()
    await scene.get()
    await scene.teepi.stop()
    found = json.loads((await fetch((await make_teepi()).address, "/+status")).body)
    assert found["counters"]["hits"] == 0
    assert (found["day"]["hits"], found["day"]["misses"]) == (1, 1)
    assert (found["day"]["cached_bytes"], found["day"]["saved_bytes"]) == (300_000, 300_000)


# --- /readyz


async def test_ready_asks_an_idle_upstream_once(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """One HEAD for any number of questions."""
    teepi = await make_teepi(Limits())
    reports = await asyncio.gather(*(ready(teepi) for _ in range(5)))
    assert (
        reports
        == [
            (
                200,
                {
                    "status": "ok",
                    "problems": [],
                    "checks": dict.fromkeys(("disk", "cache", "catalogue", "data", _UPSTREAM)),
                },
            )
        ]
        * 5
    )
    assert [(request.method, request.path) for request in upstream.requests] == [("HEAD", "/simple/")]


async def test_ready_does_not_ask_an_upstream_that_answers_clients(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Also 404 is an answer."""
    teepi = await make_teepi(Limits())
    await fetch(teepi.address, "/simple/absent/")
    assert (await ready(teepi))[1]["status"] == "ok"
    assert upstream.count("HEAD", "/simple/") == 0


async def test_ready_with_the_upstream_down_is_degraded_until_it_answers(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """What is cached is served, so clients are not sent away; the next answer ends it."""
    upstream.project("demo", {})
    teepi = await make_teepi(Limits())
    await upstream.stop()
    status, report = await ready(teepi)
    assert (status, report["status"]) == (200, "degraded")
    assert report["problems"] == [report["checks"][_UPSTREAM]]
    assert report["problems"][0].startswith(f"{upstream.index_url} cannot be reached: ")
    assert (await ready(teepi))[1] == report
    assert teepi.server.metrics.upstreams["root/pypi"].answers == {"unreachable": 1}  # not asked for each question
    await upstream.start()
    assert (await fetch(teepi.address, "/simple/demo/")).status == 200
    assert (await ready(teepi))[1]["status"] == "ok"


async def test_ready_tells_when_an_upstream_that_fails_is_left_alone(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The circuit's state, without a request of its own."""
    teepi = await make_teepi(Limits())
    for name in ("a", "b", "c"):
        upstream.project(name, {})
        upstream.script(f"/simple/{name}/", [Status(503)])
        assert (await fetch(teepi.address, f"/simple/{name}/")).status == 503
    _, report = await ready(teepi)
    assert report["status"] == "degraded"
    assert re.fullmatch(
        r"The upstream of root/pypi fails again and again; it is asked again in \d+ s\.", report["checks"][_UPSTREAM]
    )
    assert upstream.count("HEAD", "/simple/") == 0
    assert (await samples(teepi))["teepi_upstream_circuit_open", "root/pypi"] == 1


async def test_ready_offline_is_ok_and_asks_nothing(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """It was wanted."""
    teepi = await make_teepi(offline=True)
    assert (await ready(teepi))[1] == {
        "status": "ok", "problems": [], "checks": {"disk": None, "cache": None, "catalogue": None, "data": None}
    }  # fmt: skip
    assert upstream.requests == []


async def test_ready_with_a_disk_that_takes_nothing_is_degraded(make_teepi: MakeTeepi) -> None:
    """Files are passed through: clients have their answers."""
    teepi = await make_teepi(Limits())
    (teepi.settings.cache_dir / "v1" / "partial").rmdir()
    status, report = await ready(teepi)
    assert (status, report["status"]) == (200, "degraded")
    assert report["problems"] == [
        f"The cache directory {teepi.settings.cache_dir} cannot be written (No such file or directory)."
    ]


async def test_ready_with_something_else_where_files_belong_is_degraded(make_teepi: MakeTeepi) -> None:
    """Partials land, and nothing can be committed."""
    teepi = await make_teepi(Limits())
    files = teepi.settings.cache_dir / "v1" / "files" / "sha256"
    files.rmdir()
    files.touch()
    _, report = await ready(teepi)
    assert report["checks"]["disk"] == f"{files} is no directory that teepi can write: nothing new is cached."


async def test_ready_with_a_limit_that_leaves_no_room_is_degraded(make_teepi: MakeTeepi) -> None:
    """What the log says once, scripts can ask for."""
    teepi = await make_teepi(Limits(), min_free_bytes=1 << 60)
    await until(lambda: teepi.server.services.readiness.cache_problem() is not None)
    _, report = await ready(teepi)
    assert report["status"] == "degraded"
    assert report["checks"]["cache"].startswith(f"Nothing new can be cached in {teepi.settings.cache_dir}: ")


async def test_ready_with_a_cache_that_somebody_emptied_says_so_and_files_are_kept_again(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next download makes the directories anew; only a restart counts what is there."""
    monkeypatch.setattr(eviction, "_TICK_SECONDS", 0.01)
    scene = await stage(upstream, make_teepi, b"x" * 1000)
    await scene.cached()
    for path in scene.teepi.settings.cache_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    await scene.cached()
    assert scene.stored == {scene.sha256}
    assert scene.gets == 2
    await until(lambda: scene.teepi.server.services.readiness.cache_problem() is not None)
    _, report = await ready(scene.teepi)
    assert "was emptied or replaced while teepi runs: restart it" in report["checks"]["cache"]


async def test_ready_with_neither_disk_nor_upstream_is_unavailable(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Nothing is left to answer from."""
    teepi = await make_teepi(Limits())
    (teepi.settings.cache_dir / "v1" / "partial").rmdir()
    await upstream.stop()
    status, report = await ready(teepi)
    assert (status, report["status"], len(report["problems"])) == (503, "unavailable", 2)


async def test_ready_with_little_space_says_how_much(make_teepi: MakeTeepi) -> None:
    """A number, so that one knows how urgent it is."""
    teepi = await make_teepi(replace(Limits(), low_space_bytes=1 << 62))
    _, report = await ready(teepi)
    assert re.fullmatch(r"The disk of the cache directory \S+ has only \d+ MiB free\.", report["checks"]["disk"])


async def test_ready_does_not_hang_with_the_disk(make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead network mount: said after a moment, and everything else goes on."""
    hanging = threading.Event()
    monkeypatch.setattr(Store, "probe", lambda *_: hanging.wait())
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.05)
    teepi = await make_teepi(offline=True)
    try:
        async with asyncio.timeout(2):
            _, report = await ready(teepi)
        assert report["problems"] == ["The disk of the cache does not answer."]
        assert (await fetch(teepi.address, "/healthz")).body == b"ok\n"
        assert ("teepi_disk_free_bytes",) not in await samples(teepi)
    finally:
        hanging.set()


async def test_ready_while_draining_is_503(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """SIGTERM: whoever distributes requests sends them elsewhere."""
    scene = await stage(upstream, make_teepi, noise(300_000))
    gate = upstream.gate(scene.path)
    client = asyncio.create_task(scene.get())
    await scene.download()
    stopping = asyncio.create_task(scene.teepi.stop())
    await until(lambda: scene.teepi.server.services.readiness.is_draining)
    is_ready, report = await scene.teepi.server.services.readiness.report()
    assert (is_ready, report["status"]) == (False, "draining")
    assert report["problems"] == ["teepi is stopping and takes no more requests."]
    gate.open()
    assert (await client).body == scene.content
    await stopping
