"""Searches over HTTP: XML-RPC as pip speaks it, JSON, and the page for people."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import xmlrpc.client
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from teepi.index_settings import IndexSettings
from tests.support.clients import RawClient, fetch
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

BROWSER = {"Accept": "text/html,application/xhtml+xml"}
LIST = '{"meta":{"api-version":"1.0"},"projects":[%s]}'


async def post(teepi: Teepi, path: str, body: bytes, content_type: str = "text/xml") -> Answer:
    """Send a body as pip does."""
    async with await RawClient.connect(teepi.address) as client:
        await client.send("POST", path, {"Content-Type": content_type, "Content-Length": str(len(body))})
        await client.send_bytes(body)
        return await client.read_answer()


async def pip_search(teepi: Teepi, path: str, *words: str) -> list[dict[str, Any]]:
    """Search as ``pip search`` does."""
    query = {"name": list(words), "summary": list(words)}
    answer = await post(teepi, path, xmlrpc.client.dumps((query, "or"), "search").encode())
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/xml"
    (hits,), _ = xmlrpc.client.loads(answer.body)
    assert isinstance(hits, list)
    return hits


async def json_search(teepi: Teepi, query: str, more: str = "") -> dict[str, Any]:
    """Search as a program does."""
    answer = await fetch(teepi.address, f"/+search?q={quote(query)}{more}")
    assert answer.status == 200
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


async def until_cached(teepi: Teepi, count: int) -> None:
    """Wait until the catalogue has so many files."""
    while json.loads((await fetch(teepi.address, "/+status")).body)["cache"]["files"] < count:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0)


def publish(upstream: Upstream, *names: str) -> None:
    """Let upstream have a project list."""
    entries = ",".join(json.dumps({"name": name}) for name in names)
    upstream.file("/simple/", (LIST % entries).encode(), content_type="application/vnd.pypi.simple.v1+json")


def put(upstream: Upstream, name: str, summary: str, *versions: str, has_metadata: bool = True) -> list[str]:
    """Let upstream have a project; return the paths of its wheels."""
    built = [wheel(name, version, summary=summary) for version in versions]
    metadata = {each.filename: each.metadata for each in built} if has_metadata else None
    project = upstream.project(name, {each.filename: each.content for each in built}, metadata=metadata)
    return [project.path(each.filename) for each in built]


async def test_search_finds_cached_projects_by_words_of_their_summaries_with_the_newest_version(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Two words, of which one is in the name; the version is the page's newest that is none before a release."""
    paths = put(upstream, "gamma", "A test package", "1.0", "1.10", "2.0rc1")
    put(upstream, "gamma-delta", "Something else", "0.1")
    teepi = await make_teepi()
    await fetch(teepi.address, "/simple/gamma/")
    await fetch(teepi.address, "/simple/gamma-delta/")
    assert (await fetch(teepi.address, paths[0] + ".metadata")).status == 200
    await until_cached(teepi, 1)
    asked = len(upstream.requests)
    hit = {"name": "gamma", "summary": "[root/pypi] A test package", "version": "1.10", "_pypi_ordering": 0}
    for path in ("/root/pypi", "/root/pypi/", "/pypi"):
        assert await pip_search(teepi, path, "gamma", "test") == [hit]
    assert [each["name"] for each in await pip_search(teepi, "/root/pypi", "gamma")] == ["gamma", "gamma-delta"]
    assert await pip_search(teepi, "/root/pypi", "nothing") == []
    assert len(upstream.requests) == asked


async def test_search_finds_what_a_project_list_names_once_it_is_known(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Nobody is asked for the list; when a client has fetched it its names are found, also those of a newer one."""
    publish(upstream, "Zope.Interface", "requests")
    teepi = await make_teepi(page_ttl_seconds=0.0)
    assert await pip_search(teepi, "/root/pypi", "zope") == []
    assert upstream.requests == []
    await fetch(teepi.address, "/simple/")
    assert [hit["name"] for hit in await pip_search(teepi, "/root/pypi", "zope.interface")] == ["zope-interface"]
    publish(upstream, "requests", "zope-event")
    await fetch(teepi.address, "/simple/")
    assert [hit["name"] for hit in await pip_search(teepi, "/root/pypi", "zope")] == ["zope-event"]


async def test_search_finds_summaries_read_out_of_wheels(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """A wheel of which a range was read, and one that is cached."""
    [ranged] = put(upstream, "alpha", "Words of a wheel", "1.0", has_metadata=False)
    [cached] = put(upstream, "beta", "Words of a wheel", "1.0", has_metadata=False)
    teepi = await make_teepi()
    for target in ("/simple/alpha/", "/simple/beta/", ranged + ".metadata", cached):
        assert (await fetch(teepi.address, target)).status == 200
    await until_cached(teepi, 1)
    assert upstream.ranges(ranged) != [None]
    found = await json_search(teepi, "words wheel")
    assert [(hit["name"], hit["cached"]) for hit in found["results"]] == [("beta", True), ("alpha", False)]


async def test_search_as_json_says_what_is_cached_and_whether_there_is_more(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Of one index or of all; a limit cuts, and what is no limit or no index is said."""
    [path] = put(upstream, "gamma", "A test package", "1.0")
    publish(upstream, "gamma", "gamma-more")
    teepi = await make_teepi()
    for each in ("/simple/", "/simple/gamma/", path):
        assert (await fetch(teepi.address, each)).status == 200
    await until_cached(teepi, 1)
    found = await json_search(teepi, "Gamma")
    assert (found["query"], found["cut"]) == ("Gamma", False)
    assert found["results"] == [
        {"name": "gamma", "index": "root/pypi", "project": "gamma", "version": "1.0", "summary": "A test package",
         "cached": True, "uploaded": False},
        {"name": "gamma-more", "index": "root/pypi", "project": "gamma-more", "version": "", "summary": "",
         "cached": False, "uploaded": False},
    ]  # fmt: skip
    cut = await json_search(teepi, "gamma", "&index=root/pypi&limit=1")
    assert ([hit["name"] for hit in cut["results"]], cut["cut"]) == (["gamma"], True)
    assert (await json_search(teepi, ""))["results"] == []
    for query, status in (("limit=0", 400), ("limit=x", 400), ("limit=99999", 400), ("index=no/where", 404)):
        assert (await fetch(teepi.address, f"/+search?q=a&{query}")).status == status
    page = (await fetch(teepi.address, "/?q=gamma", BROWSER)).body.decode()
    assert '<a href="./root/pypi/gamma/">gamma</a>' in page
    assert '<a href="./root/pypi/gamma-more/">gamma-more</a>' in page


async def test_search_of_an_index_made_of_others_looks_into_them(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """The first base that has a project owns it; a search of everything shows both."""
    put(upstream, "gamma", "", "1.0")
    put(second, "gamma", "", "9.0")
    put(second, "gamma-more", "", "3.0")
    indexes = {
        "root/pypi": IndexSettings(upstream.index_url),
        "team/extra": IndexSettings(second.index_url),
        "team/all": IndexSettings(bases=("root/pypi", "team/extra")),
    }
    teepi = await make_teepi(indexes=indexes)
    for index, name in (("team/extra", "gamma"), ("root/pypi", "gamma"), ("team/extra", "gamma-more")):
        assert (await fetch(teepi.address, f"/{index}/+simple/{name}/")).status == 200
    hits = await pip_search(teepi, "/team/all", "gamma")
    assert [(hit["summary"], hit["version"]) for hit in hits] == [("[root/pypi]", "1.0"), ("[team/extra]", "3.0")]
    found = await json_search(teepi, "gamma")
    assert sorted((hit["index"], hit["version"]) for hit in found["results"]) == [
        ("root/pypi", "1.0"), ("team/extra", "3.0"), ("team/extra", "9.0"),
    ]  # fmt: skip


async def test_pip_search_shows_what_is_known_and_few_of_what_is_only_listed(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """However much better the names of the others are; as JSON all are found."""
    put(upstream, "known-of-gamma", "", "1.0")
    publish(upstream, *(f"gamma-{number}" for number in range(110)), "known-of-gamma")
    teepi = await make_teepi()
    await fetch(teepi.address, "/simple/")
    assert (await fetch(teepi.address, "/simple/known-of-gamma/")).status == 200
    hits = await pip_search(teepi, "/root/pypi", "gamma")
    assert [hit["version"] for hit in hits].count("0+unknown") == 20
    assert [(hit["name"], hit["version"]) for hit in hits if hit["version"] != "0+unknown"] == [
        ("known-of-gamma", "1.0")
    ]
    assert len((await json_search(teepi, "gamma", "&limit=500"))["results"]) == 111


async def test_calls_that_are_no_search_are_faults(make_teepi: MakeTeepi) -> None:
    """A sentence that pip shows, with status 200 as XML-RPC has it; another index is 404, JSON a push."""
    teepi = await make_teepi()
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><methodCall><methodName>&b;</methodName></methodCall>'
    for body, words in (
        (b"<no", "no XML-RPC call"),
        (laughs, "no entities"),
        (b" " * 70_000, "no more than 65536 bytes"),
        (xmlrpc.client.dumps((), "list_packages").encode(), "is not supported"),
    ):
        answer = await post(teepi, "/root/pypi", body)
        assert answer.status == 200
        assert f"{words}".encode() in answer.body
        assert b"<fault>" in answer.body
    assert (await post(teepi, "/no/where", b"<no")).status == 404
    assert (await post(teepi, "/root/pypi/", b"{}", "application/json")).status == 400


async def test_search_goes_on_after_its_database_was_destroyed(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """All that was in it is found again after a restart, and it is no part of what must be kept."""
    put(upstream, "gamma", "", "1.0")
    publish(upstream, "gamma", "gamma-more")
    teepi = await make_teepi()
    await fetch(teepi.address, "/simple/")
    await fetch(teepi.address, "/simple/gamma/")
    assert len(await pip_search(teepi, "/root/pypi", "gamma")) == 2
    await teepi.stop()
    path = teepi.settings.cache_dir / "search.sqlite3"
    assert sqlite3.connect(path).execute("SELECT count(*) FROM listed").fetchall() == [(2,)]
    path.write_bytes(b"no database" * 1000)
    again = await teepi.restarted(offline=True)
    assert [hit["version"] for hit in await pip_search(again, "/root/pypi", "gamma")] == ["1.0", "0+unknown"]
    await again.stop()
