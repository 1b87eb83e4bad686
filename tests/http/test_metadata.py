"""Core metadata for which upstream has nothing, read out of the wheel: by ranges, from the cache, from the whole."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import zipfile
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from teepi.limits import Limits
from teepi.store import MetadataStore, Store
from teepi.wheel_metadata import TAIL_BYTES
from tests.http.links import HtmlPage, file_target, get_page, is_sentence, json_files, sha256
from tests.http.scene import Held, until
from tests.support.clients import fetch
from tests.support.faults import EarlyEnd, Stall, Status, WrongBytes
from tests.support.projects import HTML
from tests.support.wheels import noise, sdist, wheel

if TYPE_CHECKING:
    from teepi.store.partial import Partial
    from tests.conftest import MakeTeepi
    from tests.http.clock import Clock
    from tests.support.clients import Answer
    from tests.support.faults import Fault
    from tests.support.projects import Form, Project
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

BUILT = wheel("demo", "1.0", requires=["other>=1"], padding=400_000)
SOURCE = sdist("demo", "1.0")
LIMITS = replace(Limits(), learning_seconds=0.0, page_hashes_seconds=0.0)
"""The real ones, but pages say at once what was learnt."""
EGG = "demo-1.0-py3.12.egg"
BARE = "demo-2.0-py3-none-any.whl"


def without_metadata() -> bytes:
    """Return a zip that is no wheel of anybody."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("demo/__init__.py", noise(200_000))
    return buffer.getvalue()


@pytest.fixture(params=["json", "html"])
def demo(request: pytest.FixtureRequest, upstream: Upstream) -> Project:
    """Publish a project whose upstream knows nothing of core metadata; as HTML it has no sizes either."""
    form: Form = request.param
    files = {BUILT.filename: BUILT.content, SOURCE.filename: SOURCE.content, EGG: b"egg"}
    return upstream.project("demo", files, form=form)


@pytest.fixture
async def teepi(make_teepi: MakeTeepi, demo: Project) -> Teepi:
    """Start teepi before it; the tests say what they change."""
    assert demo.files
    return await make_teepi(LIMITS)


async def metadata(teepi: Teepi, filename: str = BUILT.filename, method: str = "GET", **headers: str) -> Answer:
    """Ask for the core metadata of a file of the page."""
    return await fetch(teepi.address, await file_target(teepi, filename) + ".metadata", headers, method)


async def advertised(teepi: Teepi, filename: str = BUILT.filename) -> object:
    """Return what the page says of a file's core metadata, the same in both forms."""
    said = json_files(await get_page(teepi))[filename].get("core-metadata")
    anchor = HtmlPage((await get_page(teepi, accept=HTML)).body).anchors[filename]
    as_text = {None: None, True: "true"}[said] if not isinstance(said, dict) else f"sha256={said['sha256']}"
    assert anchor.get("data-core-metadata") == anchor.get("data-dist-info-metadata") == as_text
    return said


async def says(teepi: Teepi, expected: object, filename: str = BUILT.filename) -> None:
    """Wait until the page says so: the catalogue is told behind the answer."""
    while json_files(await get_page(teepi))[filename].get("core-metadata") != expected:
        pass
    assert await advertised(teepi, filename) == expected


async def test_page_without_metadata_advertises_that_of_wheels_without_a_hash(
    teepi: Teepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 15. Wheels alone, in both forms; no wheel is looked into for a page."""
    assert await advertised(teepi) is True
    for name in (SOURCE.filename, EGG):
        assert await advertised(teepi, name) is None
        answer = await metadata(teepi, name)
        assert answer.status == 404
        assert is_sentence(answer)
    assert {request.path for request in upstream.requests} == {demo.page_path}


async def test_metadata_out_of_a_remote_wheel_is_read_by_ranges(
    teepi: Teepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 15, 18. The wheel's end alone is asked for; strong ETag, Last-Modified, length, like any file."""
    answer = await metadata(teepi)
    assert (answer.status, answer.body) == (200, BUILT.metadata)
    assert answer.headers["etag"] == f'"{sha256(BUILT.metadata)}"'
    assert answer.headers["content-length"] == str(len(BUILT.metadata))
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "last-modified" in answer.headers
    total = len(BUILT.content)
    tail = f"bytes=-{TAIL_BYTES}" if demo.form == "html" else f"bytes={total - TAIL_BYTES}-{total - 1}"
    assert upstream.ranges(demo.path(BUILT.filename)) == [tail]
    assert upstream.count("HEAD", demo.path(BUILT.filename)) == 0
    assert upstream.count("GET", demo.path(BUILT.filename) + ".metadata") == 0


async def test_metadata_once_read_is_advertised_with_its_own_hash_and_cached(
    teepi: Teepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 14, 15. Its own digest, not the wheel's, under a new ETag of the page; the bytes answer it."""
    before = await get_page(teepi)
    assert (await metadata(teepi)).status == 200
    await says(teepi, {"sha256": sha256(BUILT.metadata)})
    assert (await get_page(teepi)).headers["etag"] != before.headers["etag"]
    asked = len(upstream.requests)
    again = await metadata(teepi)
    assert (again.body, again.headers["cache-status"]) == (BUILT.metadata, "teepi; hit")
    assert again.headers["etag"] == f'"{sha256(BUILT.metadata)}"'
    part = await metadata(teepi, Range="bytes=-5")
    assert (part.status, part.body) == (206, BUILT.metadata[-5:])
    assert (await metadata(teepi, **{"If-None-Match": again.headers["etag"]})).status == 304
    assert len(upstream.requests) == asked
    assert demo.files


async def test_metadata_asked_for_by_twenty_at_once_is_read_once(
    teepi: Teepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 15, 27. One range upstream, twenty whole answers."""
    target = await file_target(teepi, BUILT.filename) + ".metadata"
    gate = upstream.gate(demo.path(BUILT.filename))
    asking = [asyncio.create_task(fetch(teepi.address, target)) for _ in range(20)]
    await gate.reached.wait()
    http = teepi.server._http  # noqa: SLF001 - knows who is connected
    await until(lambda: http is not None and len(http.connections) == 20)
    gate.open()
    assert [answer.body for answer in await asyncio.gather(*asking)] == [BUILT.metadata] * 20
    assert upstream.count("GET", demo.path(BUILT.filename)) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_metadata_range_or_head_on_a_miss_asks_upstream_for_no_metadata(
    teepi: Teepi, demo: Project, upstream: Upstream, method: str
) -> None:
    """Contract 22, 24. There is nothing to pass on: the metadata is read out first."""
    answer = await metadata(teepi, BUILT.filename, method, **({"Range": "bytes=0-3"} if method == "GET" else {}))
    expected = (206, BUILT.metadata[:4]) if method == "GET" else (200, b"")
    assert (answer.status, answer.body) == expected
    assert answer.headers["content-length"] == str(len(BUILT.metadata) if method == "HEAD" else 4)
    assert not upstream.seen(demo.path(BUILT.filename) + ".metadata", method)


async def test_metadata_survives_a_restart_and_works_offline(teepi: Teepi, demo: Project, upstream: Upstream) -> None:
    """Contract 15, design 3. Digest and bytes are on disk."""
    assert (await metadata(teepi)).status == 200
    await says(teepi, {"sha256": sha256(BUILT.metadata)})
    asked = len(upstream.requests)
    offline = await teepi.restarted(offline=True)
    try:
        assert await advertised(offline) == {"sha256": sha256(BUILT.metadata)}
        assert (await metadata(offline)).body == BUILT.metadata
        assert len(upstream.requests) == asked
        other = await fetch(offline.address, f"{await file_target(offline, SOURCE.filename)}.metadata")
        assert other.status == 503
    finally:
        await offline.stop()
    assert demo.files


async def test_metadata_after_the_catalogue_was_lost_is_known_again_once_asked_for(
    teepi: Teepi, demo: Project, upstream: Upstream
) -> None:
    """Design 4. The catalogue is an index over what is on disk; without it the page says less, nothing wrong."""
    assert (await metadata(teepi)).status == 200
    await says(teepi, {"sha256": sha256(BUILT.metadata)})
    await teepi.stop()
    for path in teepi.settings.cache_dir.glob("catalog.sqlite3*"):
        path.unlink()
    again = await teepi.restarted(offline=True)
    try:
        assert await advertised(again) is True
        assert (await metadata(again)).body == BUILT.metadata
        await says(again, {"sha256": sha256(BUILT.metadata)})
    finally:
        await again.stop()
    assert upstream.count("GET", demo.path(BUILT.filename)) == 1


@pytest.mark.parametrize("offline", [False, True])
async def test_metadata_of_a_cached_wheel_asks_upstream_nothing(
    teepi: Teepi, demo: Project, upstream: Upstream, *, offline: bool
) -> None:
    """Contract 15. The wheel on disk is looked into, also offline."""
    target = await file_target(teepi, BUILT.filename)
    assert (await fetch(teepi.address, target)).body == BUILT.content
    await until(lambda: not list(teepi.server.registry))
    asked = len(upstream.requests)
    other = await teepi.restarted(offline=offline)
    try:
        assert (await fetch(other.address, target + ".metadata")).body == BUILT.metadata
    finally:
        await other.stop()
    assert len(upstream.requests) == asked
    assert demo.files


async def test_metadata_behind_an_upstream_without_ranges_caches_the_wheel(
    teepi: Teepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 15. It is fetched whole, once for all who ask, and is in the cache then."""
    path = demo.path(BUILT.filename)
    upstream.file(path, BUILT.content, accept_ranges=False)
    target = await file_target(teepi, BUILT.filename)
    answers = await asyncio.gather(*[fetch(teepi.address, target + ".metadata") for _ in range(5)])
    assert [answer.body for answer in answers] == [BUILT.metadata] * 5
    first, second = upstream.ranges(path)
    assert first is not None
    assert second is None
    await until(lambda: not list(teepi.server.registry))
    assert (await fetch(teepi.address, target)).headers["cache-status"] == "teepi; hit"


@pytest.mark.parametrize("fault", [Status(403), Status(501), WrongBytes(len(BUILT.content) - 22, 22)])
async def test_metadata_behind_odd_answers_to_ranges_comes_from_the_whole(
    teepi: Teepi, demo: Project, upstream: Upstream, fault: Status | WrongBytes
) -> None:
    """Contract 15. A refused range and one of wrong bytes: the whole wheel decides."""
    upstream.script(demo.path(BUILT.filename), [fault])
    assert (await metadata(teepi)).body == BUILT.metadata
    *ranges, whole = upstream.ranges(demo.path(BUILT.filename))
    assert None not in ranges
    assert whole is None


async def test_metadata_that_cannot_be_had_now_is_503_and_stays_advertised(
    teepi: Teepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 14, 33. Another time it can: never 404, which would be for good."""
    path = demo.path(BUILT.filename)
    for status in (500, 403):
        upstream.script(path, repeat(Status(status)))
        answer = await metadata(teepi)
        assert answer.status == 503
        assert is_sentence(answer)
        assert await advertised(teepi) is True
    upstream.script(path, [])
    assert (await metadata(teepi)).body == BUILT.metadata


@pytest.mark.parametrize("content", [without_metadata(), noise(150_000)])
async def test_metadata_that_a_wheel_has_not_is_404_and_no_longer_advertised(
    teepi: Teepi, demo: Project, upstream: Upstream, content: bytes
) -> None:
    """Contract 14, 15. Found out once and remembered; what is no zip is fetched whole before it is said."""
    demo.put(BARE, content)
    assert await advertised(teepi, BARE) is True
    target = await file_target(teepi, BARE) + ".metadata"
    answer = await fetch(teepi.address, target)
    assert answer.status == 404
    assert is_sentence(answer)
    await says(teepi, None, BARE)
    assert (None in upstream.ranges(demo.path(BARE))) == (content[:2] != b"PK")
    asked = len(upstream.requests)
    assert (await fetch(teepi.address, target)).status == 404
    assert len(upstream.requests) == asked
    assert await advertised(teepi) is True
    again = await teepi.restarted()
    try:
        assert await advertised(again, BARE) is None
        assert (await fetch(again.address, target)).status == 404
    finally:
        await again.stop()


async def test_metadata_of_a_wheel_that_is_arriving_does_not_wait_for_it(
    teepi: Teepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 15, 25. A large wheel on its way holds up no resolver."""
    path = demo.path(BUILT.filename)
    gate = Held(100_000)
    upstream.script(path, [gate])
    target = await file_target(teepi, BUILT.filename)
    arriving = asyncio.create_task(fetch(teepi.address, target))
    await gate.gate.reached.wait()
    assert (await fetch(teepi.address, target + ".metadata")).body == BUILT.metadata
    assert not str(upstream.ranges(path)[1]).endswith("-")  # the range, not the wheel's resume after a silence
    gate.open()
    assert (await arriving).body == BUILT.content


async def test_metadata_without_room_on_the_disk_is_served_and_not_kept(
    teepi: Teepi, demo: Project, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3. Nobody's request fails because caching does; where only the whole wheel would do, it is 503."""

    def begin(*_: object) -> Partial:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Store, "begin", begin)
    monkeypatch.setattr(MetadataStore, "save", begin)
    for _ in range(2):
        assert (await metadata(teepi)).body == BUILT.metadata
    assert await advertised(teepi) is True
    upstream.file(demo.path(BUILT.filename), BUILT.content, accept_ranges=False)
    answer = await metadata(teepi)
    assert answer.status == 503
    assert is_sentence(answer)
    assert "no room on the disk" in answer.body.decode()
    assert await advertised(teepi) is True


@pytest.mark.parametrize("fault", [Stall(len(BUILT.content) - 10_000), EarlyEnd(len(BUILT.content) - 10_000)])
async def test_metadata_whose_range_breaks_off_is_503_and_then_served(
    make_teepi: MakeTeepi, demo: Project, upstream: Upstream, fault: Fault
) -> None:
    """Contract 33. Silence and an early end are no reason to fetch the whole, and no verdict."""
    teepi = await make_teepi()
    upstream.script(demo.path(BUILT.filename), [fault])
    answer = await metadata(teepi)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert (await metadata(teepi)).body == BUILT.metadata
    assert None not in upstream.ranges(demo.path(BUILT.filename))


async def test_metadata_of_a_wheel_that_upstream_has_no_more_is_404_but_not_for_good(
    teepi: Teepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 34. Upstream said 404 for the wheel, which says nothing of what is in it."""
    upstream.remove(demo.path(BUILT.filename))
    assert (await metadata(teepi)).status == 404
    assert await advertised(teepi) is True
    upstream.file(demo.path(BUILT.filename), BUILT.content)
    assert (await metadata(teepi)).body == BUILT.metadata


async def test_metadata_switched_off_is_neither_advertised_nor_read(
    make_teepi: MakeTeepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 14. As upstream has it, so it is."""
    teepi = await make_teepi(LIMITS, synthesize_metadata=False)
    assert await advertised(teepi) is None
    assert (await metadata(teepi)).status == 404
    assert {request.path for request in upstream.requests} == {demo.page_path}


async def test_metadata_of_one_wheel_in_two_indexes_is_read_once(make_teepi: MakeTeepi, upstream: Upstream) -> None:
    """Contract 15. The wheel's digest is what it hangs on; every page of the project says the hash."""
    from teepi.index_settings import IndexSettings  # noqa: PLC0415 - settings of the one test

    project = upstream.project("demo", {BUILT.filename: BUILT.content})
    both = {name: IndexSettings(upstream.index_url) for name in ("root/pypi", "other/one")}
    teepi = await make_teepi(LIMITS, indexes=both)
    other = f"/other/one/+http/{upstream.url.removeprefix('http://')}{project.path(BUILT.filename)}.metadata"
    page = "/other/one/+simple/demo/"
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    assert json_files(await fetch(teepi.address, page, accept))[BUILT.filename]["core-metadata"] is True
    assert (await metadata(teepi)).body == BUILT.metadata
    await says(teepi, {"sha256": sha256(BUILT.metadata)})
    said = json.loads((await fetch(teepi.address, page, accept)).body)["files"][0]["core-metadata"]
    assert said == {"sha256": sha256(BUILT.metadata)}
    assert (await fetch(teepi.address, other)).body == BUILT.metadata
    assert upstream.count("GET", project.path(BUILT.filename)) == 1


async def test_metadata_that_changed_under_a_url_without_digest_is_served_anew(
    make_teepi: MakeTeepi, upstream: Upstream
) -> None:
    """Contract 14. The cache was emptied and the nightly wheel is another: the old hash is taken back."""
    project = upstream.project("demo", {BUILT.filename: BUILT.content}, sha256=False, size=False)
    teepi = await make_teepi(LIMITS)
    assert (await metadata(teepi)).body == BUILT.metadata
    await says(teepi, {"sha256": sha256(BUILT.metadata)})
    for path in (teepi.settings.cache_dir / "v1/metadata").glob("*/*"):
        path.unlink()
    newer = wheel("demo", "1.0", requires=["another"])
    project.put(BUILT.filename, newer.content)
    assert (await metadata(teepi)).status == 503
    await says(teepi, True)  # noqa: FBT003 - as it stands in the page
    assert (await metadata(teepi)).body == newer.metadata
    await says(teepi, {"sha256": sha256(newer.metadata)})


async def test_pages_say_new_hashes_once_a_minute(
    make_teepi: MakeTeepi, demo: Project, upstream: Upstream, clock: Clock
) -> None:
    """Contract 14, 15. A page is not made anew for each of thousands; that there is none it says at once."""
    demo.put(BARE, without_metadata())
    teepi = await make_teepi(replace(Limits(), learning_seconds=0.0))
    assert await advertised(teepi) is True
    before = (await get_page(teepi)).headers["etag"]
    assert (await metadata(teepi)).status == 200
    await until(lambda: not any("core metadata" in task.get_name() for task in asyncio.all_tasks()))
    assert (await get_page(teepi)).headers["etag"] == before
    clock.advance(Limits().page_hashes_seconds)
    assert await advertised(teepi) == {"sha256": sha256(BUILT.metadata)}
    assert (await metadata(teepi, BARE)).status == 404
    await says(teepi, None, BARE)
    assert upstream.count("GET", demo.page_path) == 1


async def test_metadata_learnt_just_before_a_stop_is_in_the_catalogue(
    make_teepi: MakeTeepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 15. What is gathered for one transaction is written before the end."""
    teepi = await make_teepi(replace(Limits(), learning_seconds=60.0))
    assert (await metadata(teepi)).status == 200
    again = await teepi.restarted(offline=True)
    try:
        assert await advertised(again) == {"sha256": sha256(BUILT.metadata)}
    finally:
        await again.stop()
    assert upstream.count("GET", demo.path(BUILT.filename)) == 1


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"0" * 700])
async def test_metadata_damaged_on_disk_is_read_out_again(
    teepi: Teepi, demo: Project, upstream: Upstream, damage: bytes
) -> None:
    """Design 3. It is not synced: after a power cut its digest tells."""
    assert (await metadata(teepi)).status == 200
    [path] = (teepi.settings.cache_dir / "v1/metadata").glob("*/*")
    whole = path.read_bytes()
    path.write_bytes(whole[: -len(damage)] + damage if len(damage) > 2 else damage)
    for outcome in ("fwd=uri-miss; stored", "hit"):
        answer = await metadata(teepi)
        assert (answer.body, answer.headers["cache-status"]) == (BUILT.metadata, f"teepi; {outcome}")
    assert path.read_bytes() == whole
    assert upstream.count("GET", demo.path(BUILT.filename)) == 2


async def test_metadata_missing_in_one_damaged_range_is_looked_for_again(
    teepi: Teepi, demo: Project, upstream: Upstream
) -> None:
    """Contract 14. Nothing guards a range: that a wheel has none is believed when it is read twice."""
    name_in_directory = BUILT.content.rindex(b"dist-info/METADATA")
    upstream.script(demo.path(BUILT.filename), [WrongBytes(name_in_directory + len("dist-info/"), 1)])
    assert (await metadata(teepi)).body == BUILT.metadata
    assert len(upstream.ranges(demo.path(BUILT.filename))) == 2
    assert None not in upstream.ranges(demo.path(BUILT.filename))


async def test_origin_without_ranges_is_soon_asked_for_none(make_teepi: MakeTeepi, upstream: Upstream) -> None:
    """Contract 15. Each range in vain costs a connection, and the whole comes all the same."""
    wheels = [wheel("demo", f"1.{number}") for number in range(5)]
    project = upstream.project("demo", {each.filename: each.content for each in wheels})
    for each in wheels:
        upstream.file(project.path(each.filename), each.content, accept_ranges=False)
    teepi = await make_teepi(LIMITS)
    for each in wheels:
        assert (await metadata(teepi, each.filename)).body == each.metadata
    asked = [upstream.ranges(project.path(each.filename)) for each in wheels]
    assert [len(each) for each in asked] == [2, 2, 2, 1, 1]
    assert all(each[-1] is None for each in asked)


async def test_pages_do_not_wait_behind_ranges_of_wheels(make_teepi: MakeTeepi, upstream: Upstream) -> None:
    """Contract 28. A resolver's thousands wait for each other, in turn, and hold up nothing else."""
    wheels = [wheel("demo", f"1.{number}", padding=50_000) for number in range(20)]
    project = upstream.project("demo", {each.filename: each.content for each in wheels})
    upstream.project("other", {BUILT.filename: BUILT.content})
    gates = [upstream.gate(project.path(each.filename)) for each in wheels]
    teepi = await make_teepi(replace(LIMITS, metadata_ranges=2))
    targets = [await file_target(teepi, each.filename) + ".metadata" for each in wheels]
    asking = [asyncio.create_task(fetch(teepi.address, target)) for target in targets]
    await until(lambda: sum(gate.waiting for gate in gates) == 2)
    assert (await fetch(teepi.address, "/simple/other/")).status == 200
    assert sum(gate.waiting for gate in gates) == 2
    for gate in gates:
        gate.open()
    assert [answer.body for answer in await asyncio.gather(*asking)] == [each.metadata for each in wheels]
