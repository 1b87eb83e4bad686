"""An index made of others: the first base that has a project owns it, for pages and for files."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest

from teepi.index_settings import IndexSettings
from tests.http.links import is_sentence, json_files, links
from tests.support.clients import fetch
from tests.support.faults import Status
from tests.support.projects import JSON
from tests.support.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.teepi import Teepi

NAME = "demo-1.0-py3-none-any.whl"
FIRST, SECOND = b"of the first" * 50, b"of the second" * 50
META = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"


@pytest.fixture
async def second() -> AsyncIterator[Upstream]:
    """Give the upstream of the second base."""
    server = Upstream()
    await server.start()
    yield server
    await server.stop()


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


async def test_project_list_of_an_index_of_others_says_whom_to_ask(
    make_teepi: MakeTeepi, indexes: dict[str, IndexSettings]
) -> None:
    """Issue 3. Nothing needs it to install; each base has its own."""
    teepi = await make_teepi(indexes=indexes)
    answer = await fetch(teepi.address, "/team/all/+simple/")
    assert (answer.status, is_sentence(answer)) == (404, True)
    assert b"root/pypi, team/extra" in answer.body
