"""An index made of others: the first base that has a project owns it, for pages and for files."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from typing import TYPE_CHECKING

import pytest

from teepi.index_settings import IndexSettings
from tests.http.links import HtmlPage, is_sentence, json_files, links
from tests.support.clients import fetch
from tests.support.faults import EarlyEnd, Status
from tests.support.projects import HTML, JSON

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.faults import Fault
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

NAME = "demo-1.0-py3-none-any.whl"
FIRST, SECOND = b"of the first" * 50, b"of the second" * 50
META = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"


@pytest.fixture
def indexes(upstream: Upstream, second: Upstream) -> dict[str, IndexSettings]:
    """Give two mirrors, an index made of both that merges one project, and one made of that."""
    return {
        "root/pypi": IndexSettings(upstream.index_url),
        "team/extra": IndexSettings(second.index_url, headers={"X-Team": "extra"}),
        "team/all": IndexSettings(bases=("root/pypi", "team/extra"), merge=frozenset({"shared"})),
        "team/top": IndexSettings(bases=("team/all",)),
    }


async def page(teepi: Teepi, index: str = "team/all", project: str = "demo") -> Answer:
    """Fetch a page of ``index``."""
    return await fetch(teepi.address, f"/{index}/+simple/{project}/", {"Accept": JSON})


async def target(teepi: Teepi, index: str = "team/all", project: str = "demo", name: str = NAME) -> str:
    """Return the target of a file."""
    return links(await page(teepi, index, project), f"/{index}/+simple/{project}/")[name]


def address(upstream: Upstream, index: str = "team/all", name: str = NAME) -> str:
    """Return the target of a file of ``upstream`` below ``index``, whoever links to it."""
    return f"/{index}/+http/{upstream.url.removeprefix('http://')}/packages/demo/{name}"


@pytest.mark.parametrize("index", ["team/all", "team/top"])
async def test_base_that_comes_first_owns_the_project(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings], index: str
) -> None:
    """Issue 3. Its page alone is shown, its files alone are served, and the second base is never asked."""
    upstream.project("demo", {NAME: FIRST}, metadata={NAME: META})
    second.project("demo", {NAME: SECOND, "demo-9.0-py3-none-any.whl": SECOND}, metadata={NAME: META})
    teepi = await make_teepi(indexes=indexes)
    found = await target(teepi, index)
    assert found == address(upstream, index)
    assert (await fetch(teepi.address, found)).body == FIRST
    assert (await fetch(teepi.address, found + ".metadata")).body == META
    for wrong in (address(second, index), address(second, index, "demo-9.0-py3-none-any.whl")):
        for tail in ("", ".metadata"):
            assert (await fetch(teepi.address, wrong + tail)).status == 404
    assert second.requests == []


async def test_base_that_does_not_own_serves_no_file_even_when_its_own_page_is_known(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings]
) -> None:
    """Issue 3. The decision is that of the index asked: what a base links to for itself counts for itself."""
    upstream.project("demo", {NAME: FIRST})
    second.project("demo", {NAME: SECOND})
    teepi = await make_teepi(indexes=indexes)
    assert (await fetch(teepi.address, await target(teepi, "team/extra"))).body == SECOND
    assert (await fetch(teepi.address, address(second))).status == 404
    digest = json_files(await page(teepi, "team/extra"))[NAME]["hashes"]["sha256"]
    for index, status in (("team/extra", 200), ("team/all", 404)):
        by_digest = f"/{index}/+f/{digest[:3]}/{digest[3:16]}/{NAME}"
        assert (await fetch(teepi.address, by_digest)).status == status


async def test_base_that_comes_later_owns_what_the_first_has_not(
    second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings]
) -> None:
    """Issue 3. Asked with the settings of that base, also for a file URL that comes before any page."""
    second.project("demo", {NAME: SECOND}, metadata={NAME: META})
    teepi = await make_teepi(indexes=indexes)
    assert (await fetch(teepi.address, address(second))).body == SECOND
    assert (await fetch(teepi.address, await target(teepi) + ".metadata")).body == META
    assert {request.headers.get("x-team") for request in second.requests} == {"extra"}
    assert (await page(teepi, project="none")).status == 404


@pytest.mark.parametrize("project", ["demo", "shared"])
async def test_base_that_fails_is_503_and_the_next_is_not_asked(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings], project: str
) -> None:
    """Contract 34. Or whoever disturbs the first base could put the second one in its place."""
    second.project(project, {NAME: SECOND})
    upstream.script(f"/simple/{project}/", itertools.repeat(Status(500)))
    teepi = await make_teepi(indexes=indexes)
    unknown = address(second).replace("/demo/", f"/{project}/")
    answers = [await page(teepi, project=project)]
    if project == "demo":
        answers += [await fetch(teepi.address, unknown), await fetch(teepi.address, unknown + ".metadata")]
    for answer in answers:
        assert answer.status == 503
        assert is_sentence(answer)
    assert second.requests == []


async def test_merged_project_has_the_files_of_all_bases(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings]
) -> None:
    """Issue 3. Of one name the first base's; no claim that one of them cannot keep; each is fetched from its own."""
    both, ours, theirs = (f"shared-{number}.0-py3-none-any.whl" for number in (1, 2, 3))
    upstream.project("shared", {both: FIRST, ours: b"ours"})
    second.project("shared", {both: SECOND, theirs: b"theirs"}, form="html", size=False, links="relative")
    teepi = await make_teepi(indexes=indexes)
    answer = await page(teepi, project="shared")
    document = json.loads(answer.body)
    assert document["meta"]["api-version"] == "1.0"
    assert [file["filename"] for file in document["files"]] == [both, ours, theirs]
    for name, content in ((both, FIRST), (ours, b"ours"), (theirs, b"theirs")):
        assert (await fetch(teepi.address, await target(teepi, project="shared", name=name))).body == content
    assert [request.headers.get("x-team") for request in upstream.requests] == [None] * 3
    second.script("/simple/shared/", itertools.repeat(Status(500)))
    assert (await page(teepi, project="shared")).body == answer.body


async def test_page_of_an_index_of_others_follows_its_bases(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings]
) -> None:
    """Issue 3. A new file appears, and a project that the first base gets is its own from then on."""
    project = second.project("demo", {NAME: SECOND})
    teepi = await make_teepi(indexes=indexes, page_ttl_seconds=0)
    before = await page(teepi)
    assert (await page(teepi)).headers["etag"] == before.headers["etag"]
    project.put("demo-2.0-py3-none-any.whl", b"new")
    assert list(json_files(await page(teepi))) == [NAME, "demo-2.0-py3-none-any.whl"]
    upstream.project("other", {"other-1.0.tar.gz": b"x"})
    second.project("other", {"other-9.0.tar.gz": b"y"})
    assert list(json_files(await page(teepi, project="other"))) == ["other-1.0.tar.gz"]


async def test_index_of_others_works_offline_after_a_restart(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings]
) -> None:
    """Contract 34. What was decided is kept: also where the owner is not the first base."""
    second.project("demo", {NAME: SECOND})
    teepi = await make_teepi(indexes=indexes)
    found = await target(teepi, "team/top")
    assert (await fetch(teepi.address, found)).body == SECOND
    await teepi.stop()
    for host in (upstream, second):
        await host.stop()
    again = await make_teepi(indexes=indexes, offline=True)
    assert await target(again, "team/top") == found
    assert (await fetch(again.address, found)).body == SECOND
    assert (await page(again, project="none")).status == 503
    await again.stop()
    gone = await make_teepi(indexes=indexes)
    assert (await page(gone)).status == 503  # nobody says now that the first base still has not got it
    assert (await fetch(gone.address, found)).body == SECOND


async def test_file_whose_address_only_the_base_knows_to_be_claimed_twice_is_served(
    upstream: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings]
) -> None:
    """Contract 5. The base has seen both projects that link to it, the index made of it one: their links differ."""
    name = "common-1.zip"
    url = upstream.project("one", {name: FIRST}).url(name)
    upstream.project("two", {name: FIRST}, extra={name: {"url": url, "hashes": {}}})
    teepi = await make_teepi(indexes=indexes)
    for project in ("one", "two"):
        assert (await page(teepi, "root/pypi", project)).status == 200
    found = await target(teepi, "team/all", "two", name)
    assert found != (await target(teepi, "root/pypi", "two", name)).replace("root/pypi", "team/all")
    assert (await fetch(teepi.address, found)).body == FIRST


# -- the project list --------------------------------------------------------------------------------

LIST = "/simple/"


def publish(upstream: Upstream, *names: str) -> None:
    """Let ``upstream`` have a list of ``names``."""
    projects = [{"name": name} for name in names]
    content = json.dumps({"meta": {"api-version": "1.0"}, "projects": projects}).encode()
    upstream.file(LIST, content, content_type=JSON)


async def project_list(teepi: Teepi, index: str = "team/all", accept: str = JSON, **headers: str) -> Answer:
    """Fetch the list of ``index``."""
    return await fetch(teepi.address, f"/{index}/+simple/", {"Accept": accept} | headers)


def listed(answer: Answer) -> list[str]:
    """Return the names of a whole list in JSON."""
    assert (answer.status, answer.complete) == (200, True)
    return [project["name"] for project in json.loads(answer.body)["projects"]]


@pytest.mark.parametrize("index", ["team/all", "team/top"])
async def test_project_list_of_an_index_of_others_has_the_names_of_all_bases(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings], index: str
) -> None:
    """Contract 8, 9, 11 and 17. Each once, as the first base spells it; each base is asked once, whatever the form."""
    publish(upstream, "other", "Foo.Bar", "demo")
    publish(second, "foo-bar", "zeta", "Demo", "Alpha", "alpha")
    teepi = await make_teepi(indexes=indexes)
    answer = await project_list(teepi, index)
    assert listed(answer) == ["Alpha", "demo", "Foo.Bar", "other", "zeta"]
    assert answer.headers["content-type"] == JSON
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["cache-status"] == "teepi; fwd=uri-miss; stored"
    packed = await project_list(teepi, index, **{"Accept-Encoding": "gzip"})
    assert gzip.decompress(packed.body) == answer.body
    as_html = await project_list(teepi, index, HTML)
    anchors = HtmlPage(as_html.body).anchors
    assert [anchors[name]["href"] for name in listed(answer)] == ["alpha/", "demo/", "foo-bar/", "other/", "zeta/"]
    again = await project_list(teepi, index, **{"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body, again.headers["cache-status"]) == (304, b"", "teepi; hit")
    assert len({each.headers["etag"] for each in (answer, packed, as_html)}) == 3
    assert upstream.count("GET", LIST) == second.count("GET", LIST) == 1


async def test_project_list_of_an_index_of_others_follows_its_bases(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings]
) -> None:
    """Contract 17. Asked conditionally; made again only when a base has another list."""
    publish(upstream, "demo")
    publish(second, "other")
    teepi = await make_teepi(indexes=indexes, page_ttl_seconds=0)
    answer = await project_list(teepi)
    same = await project_list(teepi)
    assert (same.headers["etag"], same.headers["cache-status"]) == (answer.headers["etag"], "teepi; fwd=stale")
    assert [request.status for request in (*upstream.seen(LIST), *second.seen(LIST))] == [200, 304, 200, 304]
    publish(second, "other", "newer")
    assert listed(await project_list(teepi)) == ["demo", "newer", "other"]
    assert len(list((teepi.settings.cache_dir / "v1/lists").rglob("*.gz"))) == 6


@pytest.mark.parametrize("fault", [Status(500), Status(404), EarlyEnd(20)])
async def test_project_list_of_an_index_of_others_is_never_a_part_of_it(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings], fault: Fault
) -> None:
    """Contract 33 and 34. 503 while a base has none to give; then whole, and stale when one fails."""
    publish(upstream, "demo")
    publish(second, "other")
    second.script(LIST, itertools.repeat(fault))
    teepi = await make_teepi(indexes=indexes, page_ttl_seconds=0)
    answer = await project_list(teepi)
    assert (answer.status, is_sentence(answer)) == (503, True)
    assert answer.headers["retry-after"] == "1"
    second.script(LIST, [])
    assert listed(await project_list(teepi)) == ["demo", "other"]
    publish(second, "other", "never")
    second.script(LIST, itertools.repeat(fault))
    stale = await project_list(teepi)
    assert listed(stale) == ["demo", "other"]
    assert stale.headers["cache-status"] == "teepi; hit; detail=stale"


async def test_project_list_of_an_index_of_others_asked_by_many_is_made_once(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings]
) -> None:
    """Contract 21. Single-flight for the whole of it."""
    publish(upstream, "demo")
    publish(second, "other")
    gate = second.gate(LIST)
    teepi = await make_teepi(indexes=indexes)
    asking = [asyncio.create_task(project_list(teepi)) for _ in range(8)]
    await gate.reached.wait()
    gate.open()
    answers = [await task for task in asking]
    assert [listed(answer) for answer in answers] == [["demo", "other"]] * 8
    assert [answer.headers["cache-status"].endswith("collapsed") for answer in answers].count(True) == 7
    assert upstream.count("GET", LIST) == second.count("GET", LIST) == 1


async def test_project_list_of_an_index_of_others_is_there_after_a_restart_and_offline(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings]
) -> None:
    """Issue 3. From disk; other bases make another list, never the one stored before."""
    publish(upstream, "demo")
    publish(second, "other")
    teepi = await make_teepi(indexes=indexes)
    assert listed(await project_list(teepi)) == ["demo", "other"]
    teepi = await teepi.restarted(offline=True)
    assert listed(await project_list(teepi)) == ["demo", "other"]
    assert listed(await project_list(teepi, "team/top")) == ["demo", "other"]
    fewer = indexes | {"team/all": IndexSettings(bases=("team/extra",))}
    teepi = await teepi.restarted(indexes=fewer)
    assert listed(await project_list(teepi)) == ["other"]
    unknown = indexes | {
        "team/new": IndexSettings("http://127.0.0.1:9/"),
        "team/all": IndexSettings(bases=("team/new",)),
    }
    teepi = await teepi.restarted(indexes=unknown)
    answer = await project_list(teepi)
    assert (answer.status, "retry-after" in answer.headers) == (503, False)
    await teepi.stop()


async def test_project_list_of_an_index_of_others_is_served_while_the_disk_does_not_take_it(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, indexes: dict[str, IndexSettings], tmp_path: Path
) -> None:
    """Fault 1. Sorted and kept in memory, whole, and the bases are asked no more often for it."""
    publish(upstream, "demo")
    publish(second, "other")
    teepi = await make_teepi(indexes=indexes)
    (tmp_path / "cache" / "v1" / "lists").write_text("in the way")  # as good as a read-only disk
    for _ in range(2):
        assert listed(await project_list(teepi)) == ["demo", "other"]
    assert upstream.count("GET", LIST) == second.count("GET", LIST) == 1
