"""Legacy JSON over HTTP: every path, upstream's or made from the page, fresh, stale and gone (contract 7)."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest

from teepi.index_settings import IndexSettings
from teepi.limits import Limits
from tests.http.links import get_page, is_sentence, json_files
from tests.http.scene import CALM
from tests.support.clients import fetch
from tests.support.faults import HangBeforeHead, Replace, Status
from tests.support.teepi import FAST
from tests.support.wheels import sdist, wheel

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.http.clock import Clock
    from tests.support.clients import Answer
    from tests.support.faults import Fault
    from tests.support.projects import Form
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

THEIRS = "/pypi/foo-bar/json"
WHEEL = wheel("foo-bar", "1.0")
SDIST = sdist("foo-bar", "1.0")
NEXT = sdist("foo-bar", "2.0rc1")


@pytest.fixture
async def teepi(upstream: Upstream, clock: Clock, make_teepi: MakeTeepi) -> Teepi:  # noqa: ARG001 - for its effect
    """Start teepi before a project with three files."""
    upstream.project("foo-bar", {d.filename: d.content for d in (WHEEL, SDIST, NEXT)})
    return await make_teepi(Limits())


def document_of(upstream: Upstream, summary: str = "theirs", **more: Any) -> bytes:
    """Return upstream's own document."""
    entry = {
        "filename": WHEEL.filename,
        "url": f"{upstream.url}/packages/foo-bar/{WHEEL.filename}",
        "digests": {"sha256": WHEEL.sha256},
        "packagetype": "bdist_wheel",
    }
    info = {"name": "foo-bar", "version": "1.0", "summary": summary}
    return json.dumps({"info": info, "releases": {"1.0": [entry]}, "urls": [entry]} | more).encode()


def summary(answer: Answer) -> str | None:
    """Return what tells upstream's document from one made of the page."""
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    found: str | None = json.loads(answer.body)["info"]["summary"]
    return found


@pytest.mark.parametrize("name", ["foo-bar", "Foo.Bar"])
@pytest.mark.parametrize(
    "path",
    [
        "/pypi/{}/json", "/root/pypi/+simple/{}/json", "/root/pypi/%2Bsimple/{}/json", "/simple/{}/json",
        "/index/{}/json", "/pypi/simple/{}/json", "/{}/json", "/root/pypi/{}/json", "/simple/pypi/{}/json",
        "/root/pypi/+simple/pypi/{}/json",
    ],
)  # fmt: skip
async def test_legacy_json_of_every_path_is_the_same_document(teepi: Teepi, path: str, name: str) -> None:
    """Contract 7. Wherever a client looks for it, however it spells the name, without a redirect."""
    answer = await fetch(teepi.address, path.format(name), {"Accept": "*/*"})
    expected = await fetch(teepi.address, "/pypi/foo-bar/json")
    assert answer.status == 200
    assert answer.body == expected.body
    assert set(json.loads(answer.body)["releases"]) == {"1.0", "2.0rc1"}


@pytest.mark.parametrize("form", ["json", "html"])
@pytest.mark.parametrize("index", ["/simple/", "/root/pypi/+simple/", "/pypi/simple/", "/index/"])
async def test_legacy_json_gives_pip_tools_the_hash_of_every_link_of_the_page(
    upstream: Upstream, make_teepi: MakeTeepi, index: str, form: Form
) -> None:
    """Contract 7. pip-tools joins the base of its index URL and ``NAME/json``, and compares URLs as pip spells them."""
    upstream.project("foo-bar", {d.filename: d.content for d in (WHEEL, SDIST)}, form=form)
    teepi = await make_teepi(Limits())
    index_url = teepi.url + index
    host = {"Host": teepi.url.removeprefix("http://")}
    page = await fetch(teepi.address, f"{index}foo-bar/", host | {"Accept": "application/vnd.pypi.simple.v1+json"})
    links = [urlsplit(urljoin(f"{index_url}foo-bar/", file["url"])) for file in json_files(page).values()]
    page_links = {link._replace(path=quote(unquote(link.path))).geturl() for link in links}
    base = index_url.removesuffix("simple/") if index_url.endswith("/simple/") else index_url
    target = urljoin(base, "foo-bar/json").removeprefix(teepi.url)
    answer = await fetch(teepi.address, target, host | {"Accept": "*/*", "Accept-Encoding": "gzip, deflate"})
    files = json.loads(answer.body)["releases"]["1.0"]
    hashes = {file["url"]: file["digests"]["sha256"] for file in files}
    assert {file["packagetype"] for file in files} == {"bdist_wheel", "sdist"}
    assert set(hashes) == page_links
    assert set(hashes.values()) == {WHEEL.sha256, SDIST.sha256}


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("index.example:8080", "http://index.example:8080"), ("[::1]:3141", "http://[::1]:3141"),
        ("evil'\"><", None), ("a.example/path", None), ("user@a.example", None),
    ],
)  # fmt: skip
async def test_legacy_json_links_go_by_a_host_header_that_is_a_host(
    teepi: Teepi, host: str, origin: str | None
) -> None:
    """Contract 6 and 7. The one absolute link; what is no host is answered 400 or by where the request arrived."""
    answer = await fetch(teepi.address, THEIRS, {"Host": host})
    if origin is None and answer.status == 400:
        return
    url = json.loads(answer.body)["releases"]["1.0"][0]["url"]
    assert url.startswith(f"{origin or teepi.url}/root/pypi/%2Bhttp/")


async def test_legacy_json_link_leads_to_the_file(teepi: Teepi) -> None:
    """Contract 7. Also when nobody has asked for the page before."""
    answer = await fetch(teepi.address, "/pypi/foo-bar/1/json", {"Host": teepi.url.removeprefix("http://")})
    urls = {file["filename"]: file["url"] for file in json.loads(answer.body)["urls"]}
    assert (await fetch(teepi.address, urls[WHEEL.filename].removeprefix(teepi.url))).body == WHEEL.content


async def test_legacy_json_of_a_version_normalises_it_and_404_needs_a_page_without_it(teepi: Teepi) -> None:
    """Contract 7 and 34. 404 for a version that the page lacks and a project that upstream lacks; a sentence each."""
    for spelling in ("2.0rc1", "2.0.RC1", "2.0-c1", "v2rc1"):
        document = json.loads((await fetch(teepi.address, f"/pypi/foo-bar/{spelling}/json")).body)
        assert document["info"]["version"] == "2.0rc1"
        assert [file["filename"] for file in document["urls"]] == [NEXT.filename]
    for target in ("/pypi/foo-bar/3.0/json", "/pypi/none/json", "/pypi/none/1.0/json", "/root/other/none/json"):
        answer = await fetch(teepi.address, target)
        assert answer.status == 404
        assert is_sentence(answer)


async def test_legacy_json_of_a_project_named_simple_is_reached_by_its_version(
    teepi: Teepi, upstream: Upstream
) -> None:
    """``/pypi/simple/`` is an index too; what looks like a version is one."""
    upstream.project("simple", {"simple-1.0.tar.gz": b"x"})
    assert "1.0" in json.loads((await fetch(teepi.address, "/pypi/simple/json")).body)["releases"]
    assert json.loads((await fetch(teepi.address, "/pypi/simple/1.0/json")).body)["info"]["name"] == "simple"
    assert json.loads((await fetch(teepi.address, "/pypi/simple/foo-bar/json")).body)["info"]["name"] == "foo-bar"


async def test_legacy_json_when_the_page_cannot_be_had_is_503_and_never_404(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 33 and 34. Without a page nobody knows whether there is such a version."""
    upstream.script("/simple/foo-bar/", itertools.repeat(Status(500)))
    for target in (THEIRS, "/pypi/foo-bar/9.9/json"):
        answer = await fetch(teepi.address, target)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"


async def test_legacy_json_of_upstream_is_taken_with_our_links(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 7. Its info, our URLs; asked as JSON, once for many requests; the release has a document of its own."""
    upstream.file(THEIRS, document_of(upstream), content_type="application/json")
    upstream.file("/pypi/foo-bar/1.0/json", document_of(upstream, "of 1.0"), content_type="application/json")
    for _ in range(3):
        answer = await fetch(teepi.address, THEIRS)
        assert summary(answer) == "theirs"
        files = json.loads(answer.body)["releases"]["1.0"]
        assert {file["filename"] for file in files} == {WHEEL.filename, SDIST.filename}
        assert all(file["url"].startswith("http://teepi.example/root/pypi/%2Bhttp/") for file in files)
        assert summary(await fetch(teepi.address, "/pypi/foo-bar/1.0.0/json")) == "of 1.0"
    assert upstream.count("GET", THEIRS) == upstream.count("GET", "/pypi/foo-bar/1.0/json") == 1
    assert upstream.seen(THEIRS)[0].headers["accept"] == "application/json"


@pytest.mark.parametrize("fault", [Status(404), Status(500), Status(200, body=b"<html>welcome</html>")])
async def test_legacy_json_of_upstream_that_fails_is_made_from_the_page_and_not_asked_each_time(
    teepi: Teepi, upstream: Upstream, fault: Status
) -> None:
    """Contract 7. A 404 or failure there is nobody's failure here."""
    upstream.script(THEIRS, itertools.repeat(fault))
    for _ in range(3):
        answer = await fetch(teepi.address, THEIRS)
        assert summary(answer) is None
        assert set(json.loads(answer.body)["releases"]) == {"1.0", "2.0rc1"}
    assert upstream.count("GET", THEIRS) == 1


async def test_legacy_json_of_upstream_that_hangs_costs_its_patience_once(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Contract 33. Those who come while it hangs do not wait anew."""
    upstream.project("foo-bar", {WHEEL.filename: WHEEL.content})
    upstream.script(THEIRS, itertools.repeat(HangBeforeHead()))
    teepi = await make_teepi(FAST)
    for _ in range(3):
        assert summary(await fetch(teepi.address, THEIRS)) is None
    assert upstream.count("GET", THEIRS) == 1


async def test_legacy_json_past_its_time_is_revalidated_and_served_stale_when_upstream_fails(
    teepi: Teepi, upstream: Upstream, clock: Clock
) -> None:
    """Contract 17 and 33. Like pages: conditionally, and what is there is better than less."""
    upstream.file(THEIRS, document_of(upstream), content_type="application/json", etag='"one"')
    assert summary(await fetch(teepi.address, THEIRS)) == "theirs"
    clock.ahead += 601
    assert summary(await fetch(teepi.address, THEIRS)) == "theirs"
    assert [request.headers.get("if-none-match") for request in upstream.seen(THEIRS)] == [None, '"one"']
    assert upstream.seen(THEIRS)[-1].status == 304
    clock.ahead += 601
    upstream.script(THEIRS, [Status(500)])
    assert summary(await fetch(teepi.address, THEIRS)) == "theirs"
    clock.ahead += 601
    upstream.file(THEIRS, document_of(upstream, "new"), content_type="application/json")
    assert summary(await fetch(teepi.address, THEIRS)) == "new"
    clock.ahead += 601
    upstream.remove(THEIRS)
    assert summary(await fetch(teepi.address, THEIRS)) is None
    assert upstream.count("GET", THEIRS) == 5


async def test_legacy_json_survives_a_restart_and_is_there_offline(teepi: Teepi, upstream: Upstream) -> None:
    """Issue 3. Upstream's document from disk; where none was kept, one made of the page."""
    upstream.project("other", {"other-1.0.tar.gz": b"x"})
    upstream.file(THEIRS, document_of(upstream), content_type="application/json")
    assert summary(await fetch(teepi.address, THEIRS)) == "theirs"
    assert (await get_page(teepi, "other")).status == 200
    again = await teepi.restarted(offline=True)
    try:
        await upstream.stop()
        assert summary(await fetch(again.address, THEIRS)) == "theirs"
        assert summary(await fetch(again.address, "/pypi/other/json")) is None
        assert (await fetch(again.address, "/pypi/third/json")).status == 503
    finally:
        await again.stop()


async def test_legacy_json_with_the_etag_of_what_the_client_has_is_304(teepi: Teepi) -> None:
    """Contract 17. An ETag and no-cache; HEAD has no body."""
    answer = await fetch(teepi.address, THEIRS)
    assert answer.headers["cache-control"] == "no-cache"
    again = await fetch(teepi.address, THEIRS, {"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    head = await fetch(teepi.address, THEIRS, method="HEAD")
    assert (head.status, head.headers["etag"]) == (200, answer.headers["etag"])
    other = await fetch(teepi.address, THEIRS, {"Host": "other.example"})
    assert other.headers["etag"] != answer.headers["etag"]


# -- what only core metadata tells -------------------------------------------------------------------

CORE = b"""Metadata-Version: 2.4
Name: foo-bar
Version: 1.0
Summary: ours
Author: A. N. Other
License-Expression: MIT
Keywords: one,two
Classifier: Typing :: Typed
Project-URL: Home, https://home.example/
Requires-Python: >=3.8
Requires-Dist: other>=1
Requires-Dist: more; extra == "all"
Provides-Extra: all
Description-Content-Type: text/plain

All about it.
"""
TOLD = {
    "summary": "ours", "author": "A. N. Other", "license_expression": "MIT", "keywords": "one,two",
    "classifiers": ["Typing :: Typed"], "project_urls": {"Home": "https://home.example/"}, "requires_python": ">=3.8",
    "requires_dist": ["other>=1", 'more; extra == "all"'], "provides_extra": ["all"], "license": None,
    "description": "All about it.\n", "description_content_type": "text/plain", "name": "foo-bar", "version": "1.0",
}  # fmt: skip


def info(answer: Answer) -> dict[str, Any]:
    """Return ``info`` as far as :data:`TOLD` goes."""
    assert answer.status == 200
    return {key: json.loads(answer.body)["info"].get(key) for key in TOLD}


async def test_legacy_json_made_here_says_what_core_metadata_says(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Contract 7. Of the newest version or the one asked for: what poetry resolves by; each is fetched once."""
    names = {version: wheel("foo-bar", version).filename for version in ("1.0", "2.0")}
    project = upstream.project(
        "foo-bar",
        {name: wheel("foo-bar", version).content for version, name in names.items()},
        metadata={
            names["1.0"]: CORE,
            names["2.0"]: b"Metadata-Version: 2.1\nName: foo-bar\nVersion: 2.0\nSummary: newest\n",
        },
    )
    teepi = await make_teepi(Limits())
    for _ in range(2):
        assert info(await fetch(teepi.address, "/pypi/foo-bar/1.0/json")) == TOLD
        newest = info(await fetch(teepi.address, THEIRS))
        assert (newest["summary"], newest["version"], newest["requires_dist"]) == ("newest", "2.0", [])
    for name in names.values():
        assert upstream.count("GET", f"{project.path(name)}.metadata") == 1
        assert upstream.count("GET", project.path(name)) == 0


async def test_legacy_json_made_here_reads_core_metadata_out_of_a_wheel(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Contract 7 and 15. By ranges, as for .metadata, and for an index made of others as well; or not at all."""
    built = wheel("foo-bar", "1.0", requires=["other>=1"], padding=300_000)
    project = upstream.project("foo-bar", {built.filename: built.content}, form="html")
    indexes = {"root/pypi": IndexSettings(upstream.index_url), "team/all": IndexSettings(bases=("root/pypi",))}
    teepi = await make_teepi(Limits(), indexes=indexes, synthesize_metadata=False)
    assert info(await fetch(teepi.address, THEIRS))["requires_dist"] is None
    assert upstream.count("GET", "/simple/foo-bar/") == 1
    assert upstream.count("GET", project.path(built.filename)) == 0
    teepi = await teepi.restarted(synthesize_metadata=True)
    try:
        for target in ("/team/all/foo-bar/json", THEIRS):
            assert info(await fetch(teepi.address, target))["requires_dist"] == ["other>=1"]
    finally:
        await teepi.stop()
    ranges = upstream.ranges(project.path(built.filename))
    assert ranges
    assert None not in ranges


@pytest.mark.parametrize("fault", [Status(404), Status(500), HangBeforeHead(), Replace(b"\xff\x00 no metadata")])
async def test_legacy_json_made_here_goes_without_core_metadata_that_cannot_be_had(
    upstream: Upstream, make_teepi: MakeTeepi, fault: Fault
) -> None:
    """Contract 33. It neither fails nor hangs, and what failed is left alone for a while; offline as well."""
    project = upstream.project("foo-bar", {WHEEL.filename: WHEEL.content}, metadata={WHEEL.filename: CORE})
    path = f"{project.path(WHEEL.filename)}.metadata"
    upstream.script(path, itertools.repeat(fault))
    teepi = await make_teepi(replace(CALM, page_patience_seconds=0.1))
    for _ in range(2):
        answer = await fetch(teepi.address, THEIRS)
        assert info(answer)["summary"] is None
        assert set(json.loads(answer.body)["releases"]) == {"1.0"}
    assert upstream.count("GET", path) == 1
    assert upstream.seen(path)[0].over.is_set() is not isinstance(fault, HangBeforeHead)  # nobody waited for that
    again = await teepi.restarted(offline=True)
    try:
        assert summary(await fetch(again.address, THEIRS)) is None
    finally:
        await again.stop()
