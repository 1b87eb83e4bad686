"""Index pages: negotiated, complete, fresh or stale, asked for once, and there when upstream is not."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from teepi.limits import Limits
from tests.http.links import HTML_V1, HtmlPage, file_target, get_page, is_sentence, json_files, links, sha256
from tests.support.clients import RawClient, fetch
from tests.support.faults import (
    EarlyEnd,
    HangBeforeHead,
    Replace,
    Reset,
    Stall,
    Status,
)
from tests.support.projects import HTML, JSON
from tests.support.teepi import FAST
from tests.support.wheels import noise, sdist, wheel

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.http.clock import Clock
    from tests.support.faults import Fault
    from tests.support.projects import Form, Project
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

PAGE = "/simple/demo/"
TTL = 600.0
DEMO = wheel("demo")
NEXT = wheel("demo", "2.0")
OLD = sdist("demo", "0.9")

PIP = f"{JSON}, {HTML_V1}; q=0.1, {HTML}; q=0.01"
POETRY = f"{JSON}, */*;q=0.1"
PDM = f"{JSON}, {HTML_V1};q=0.1, {HTML};q=0.01"
UV = f"{JSON}, {HTML_V1};q=0.2, {HTML};q=0.01"
PORTAL = b"<html><head><title>Welcome</title></head><body><form action='/login'><input name=u></form></body></html>"


@pytest.fixture
def demo(upstream: Upstream) -> Project:
    """Put a project with one wheel, which has core metadata, upstream."""
    return upstream.project("demo", {DEMO.filename: DEMO.content}, metadata={DEMO.filename: DEMO.metadata})


@pytest.fixture
async def teepi(demo: Project, clock: Clock, make_teepi: MakeTeepi) -> Teepi:  # noqa: ARG001 - for their effects
    """Start teepi before the project ``demo``, with real limits and the test's clock."""
    return await make_teepi(Limits(), page_ttl_seconds=TTL)


def conditions(upstream: Upstream, path: str = PAGE) -> list[str | None]:
    """Return If-None-Match of each request for the page."""
    return [request.headers.get("if-none-match") for request in upstream.seen(path)]


# --- negotiation


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (PIP, JSON),
        (UV, JSON),
        (POETRY, JSON),
        (PDM, JSON),
        (JSON, JSON),
        (HTML_V1, HTML_V1),
        ("*/*", HTML),
        (None, HTML),
        (HTML, HTML),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", HTML),
    ],
)
@pytest.mark.parametrize("form", ["json", "html"])
async def test_page_comes_in_the_form_that_accept_asks_for(
    upstream: Upstream, make_teepi: MakeTeepi, form: Form, accept: str | None, content_type: str
) -> None:
    """Contract 8. By Accept alone, with exactly this Content-Type, whatever form upstream has."""
    upstream.project("demo", {DEMO.filename: DEMO.content}, form=form)
    teepi = await make_teepi(Limits())
    answer = await fetch(teepi.address, PAGE, {} if accept is None else {"Accept": accept})
    assert answer.status == 200
    assert answer.headers["content-type"] == content_type
    names = json_files(answer) if content_type == JSON else HtmlPage(answer.body).anchors
    assert list(names) == [DEMO.filename]


async def test_page_accept_that_cannot_be_met_is_406(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 10. With a sentence that names the forms; upstream is not asked."""
    answer = await get_page(teepi, accept="image/png")
    assert answer.status == 406
    assert is_sentence(answer)
    assert JSON.encode() in answer.body
    assert not upstream.requests


async def test_page_is_asked_for_as_json_first(teepi: Teepi, upstream: Upstream) -> None:
    """Design 6. Whatever the client takes, upstream is asked for the form that loses nothing."""
    await get_page(teepi, accept=HTML)
    accept = upstream.seen(PAGE)[0].headers["accept"]
    assert accept.startswith(JSON)
    assert HTML in accept


# --- nothing lost

ATTRIBUTES: dict[str, Any] = {
    "requires-python": '>=3.9,<4 & "odd"',
    "yanked": 'broken <on> Mondays & "Tuesdays"',
    "size": len(DEMO.content),
    "upload-time": "2025-01-01T00:00:00.000000Z",
    "gpg-sig": False,
    "provenance": "https://files.example/demo.provenance?x=1&y=2",
    "_custom": {"deep": [1, None, "ä"]},
    "later-key": "kept",
}
PAGE_ATTRIBUTES: dict[str, Any] = {
    "meta": {"api-version": "1.4", "_last-serial": 42, "project-status": "kept"},
    "versions": ["1.0", "0.9"],
    "project-status": {"status": "archived", "reason": "moved <on>"},
    "alternate-locations": ["https://other.example/simple/demo/"],
    "unknown-key": {"a": 1.5},
}


def rich(upstream: Upstream, form: Form) -> Project:
    """Put a project upstream that has everything a page can tell of a file."""
    hashes = {"sha256": DEMO.sha256, "md5": "0" * 32, "blake2b_x": "later"}
    return upstream.project(
        "demo",
        {DEMO.filename: DEMO.content, OLD.filename: OLD.content},
        form=form,
        metadata={DEMO.filename: DEMO.metadata},
        extra={DEMO.filename: ATTRIBUTES | {"hashes": hashes}, OLD.filename: {"yanked": True}},
        page_extra=PAGE_ATTRIBUTES,
    )


async def test_page_json_to_json_loses_nothing(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Contract 12, issue 2. Every key of page and files, known or not, comes through; only the URLs differ."""
    project = rich(upstream, "json")
    teepi = await make_teepi(Limits())
    received = json.loads((await get_page(teepi)).body)
    expected = json.loads(project.page(JSON).content)
    for file in (*received["files"], *expected["files"]):
        file.pop("url")
    assert received == expected


async def test_page_json_to_html_has_all_that_html_can_say(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Contract 12 and 16. Escaped, with the strongest hash behind the link and an empty yanked attribute."""
    rich(upstream, "json")
    teepi = await make_teepi(Limits())
    page = HtmlPage((await get_page(teepi, accept=HTML)).body)
    first, second = page.anchors[DEMO.filename], page.anchors[OLD.filename]
    for key in ("requires-python", "yanked", "upload-time", "provenance"):
        assert first[f"data-{key}"] == ATTRIBUTES[key]
    assert first["data-gpg-sig"] == "false"
    assert first["data-core-metadata"] == first["data-dist-info-metadata"] == f"sha256={sha256(DEMO.metadata)}"
    assert str(first["href"]).endswith(f"#sha256={DEMO.sha256}")
    assert second["data-yanked"] == ""
    assert "data-core-metadata" not in second
    assert page.metas["pypi:repository-version"] == "1.4"
    assert page.metas["pypi:project-status"] == "archived"
    assert page.metas["pypi:project-status-reason"] == "moved <on>"


async def test_page_html_to_json_has_all_that_html_said(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Contract 12. What is read out of HTML is what a JSON index would have told."""
    rich(upstream, "html")
    teepi = await make_teepi(Limits())
    files = json_files(await get_page(teepi))
    file = files[DEMO.filename]
    assert file["requires-python"] == ATTRIBUTES["requires-python"]
    assert file["yanked"] == ATTRIBUTES["yanked"]
    assert file["hashes"] == {"sha256": DEMO.sha256}
    assert file["core-metadata"] == {"sha256": sha256(DEMO.metadata)}
    assert files[OLD.filename]["yanked"] is True
    assert "core-metadata" not in files[OLD.filename]


async def test_page_html_to_html_keeps_every_data_attribute(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Contract 12. Attributes that no PEP knows come through as well."""
    project = rich(upstream, "html")
    body = project.page(HTML).content.replace(b"<a ", b'<a data-odd="x &amp; y" ')
    upstream.remove(PAGE)
    upstream.file(PAGE, body, content_type=HTML)
    teepi = await make_teepi(Limits())
    received, expected = HtmlPage((await get_page(teepi, accept=HTML)).body), HtmlPage(body)
    for name, attributes in expected.anchors.items():
        wanted = {key: value for key, value in attributes.items() if key != "href"}
        assert {key: value for key, value in received.anchors[name].items() if key != "href"} == wanted
        assert str(attributes["href"]).partition("#")[2] == str(received.anchors[name]["href"]).partition("#")[2]


@pytest.mark.parametrize("link", ["absolute", "rooted", "relative"])
@pytest.mark.parametrize("form", ["json", "html"])
async def test_page_link_of_every_kind_leads_to_the_file(
    upstream: Upstream, make_teepi: MakeTeepi, form: Form, link: Any
) -> None:
    """Contract 5. Upstream's own links may be absolute, rooted or relative."""
    upstream.project("demo", {DEMO.filename: DEMO.content}, form=form, links=link)
    teepi = await make_teepi(Limits())
    answer = await fetch(teepi.address, await file_target(teepi, DEMO.filename))
    assert (answer.status, answer.body) == (200, DEMO.content)


@pytest.mark.parametrize(
    ("attribute", "version"), [("", "1.0"), ('data-size="7"', "1.4")], ids=["without-sizes", "with-sizes"]
)
async def test_page_from_html_claims_no_version_that_needs_sizes_it_lacks(
    upstream: Upstream, make_teepi: MakeTeepi, attribute: str, version: str
) -> None:
    """Contract 13. Size is mandatory from 1.1 on, so what upstream's HTML claims holds only with all sizes."""
    meta = '<meta name="pypi:repository-version" content="1.4">'
    page = f'<!DOCTYPE html><html><head>{meta}</head><body><a href="demo-1.0.tar.gz" {attribute}>x</a></body></html>'
    upstream.file(PAGE, page.encode(), content_type=HTML)
    teepi = await make_teepi(Limits())
    assert json.loads((await get_page(teepi)).body)["meta"]["api-version"] == version
    assert HtmlPage((await get_page(teepi, accept=HTML)).body).metas["pypi:repository-version"] == version


async def test_page_from_json_keeps_the_version_that_upstream_claims(teepi: Teepi, demo: Project, clock: Clock) -> None:
    """Contract 13. Never higher: a project without sizes stays at 1.0."""
    for size, version in ((True, "1.1"), (False, "1.0")):
        demo.size = size
        assert json.loads((await get_page(teepi)).body)["meta"]["api-version"] == version
        clock.advance(TTL + 1)


# --- core metadata


@pytest.mark.parametrize("form", ["json", "html"])
async def test_metadata_is_served_with_the_advertised_bytes_and_only_then(
    upstream: Upstream, make_teepi: MakeTeepi, form: Form
) -> None:
    """Contract 14. Where none is synthesized: advertised exactly when it answers those bytes; else 404, unasked."""
    plain = {OLD.filename: OLD.content, NEXT.filename: NEXT.content}
    project = upstream.project(
        "demo",
        {DEMO.filename: DEMO.content} | plain,
        metadata={DEMO.filename: DEMO.metadata},
        form=form,
        extra={NEXT.filename: {"core-metadata": False}} if form == "json" else {},
    )
    for name in plain:
        upstream.file(project.path(name) + ".metadata", b"unadvertised")
    teepi = await make_teepi(Limits(), synthesize_metadata=False)
    page = await get_page(teepi)
    targets = links(page, PAGE)
    for name, file in json_files(page).items():
        answer = await fetch(teepi.address, targets[name] + ".metadata")
        if file.get("core-metadata"):
            assert (answer.status, sha256(answer.body)) == (200, file["core-metadata"]["sha256"])
            assert "content-encoding" not in answer.headers
        else:
            assert answer.status == 404
            assert is_sentence(answer)
            assert not upstream.seen(project.path(name) + ".metadata")
    assert {name for name, file in json_files(page).items() if file.get("core-metadata")} == {DEMO.filename}
    anchors = HtmlPage((await get_page(teepi, accept=HTML)).body).anchors
    assert {name for name, anchor in anchors.items() if "data-core-metadata" in anchor} == {DEMO.filename}


@pytest.mark.parametrize("key", ["core-metadata", "dist-info-metadata"])
async def test_metadata_in_either_spelling_is_advertised_as_clients_read_it(
    upstream: Upstream, make_teepi: MakeTeepi, key: str
) -> None:
    """Contract 14. Both spellings as data attributes; JSON has the new one alone, for the old one crashes some pips."""
    value = {"sha256": sha256(DEMO.metadata)}
    project = upstream.project("demo", {DEMO.filename: DEMO.content}, extra={DEMO.filename: {key: value}})
    upstream.file(project.path(DEMO.filename) + ".metadata", DEMO.metadata)
    teepi = await make_teepi(Limits())
    page = await get_page(teepi)
    file = json_files(page)[DEMO.filename]
    assert (file["core-metadata"], file.get("dist-info-metadata")) == (value, None)
    anchor = HtmlPage((await get_page(teepi, accept=HTML)).body).anchors[DEMO.filename]
    assert anchor["data-core-metadata"] == anchor["data-dist-info-metadata"] == f"sha256={value['sha256']}"
    assert (await fetch(teepi.address, links(page, PAGE)[DEMO.filename] + ".metadata")).body == DEMO.metadata


async def test_metadata_of_another_hash_is_refused(teepi: Teepi, demo: Project, upstream: Upstream) -> None:
    """Contract 14 and 32. Not one byte of it is served, and the right one is once upstream has it."""
    path = demo.path(DEMO.filename) + ".metadata"
    upstream.file(path, DEMO.metadata.replace(b"1.0", b"6.6"))
    target = await file_target(teepi, DEMO.filename) + ".metadata"
    answer = await fetch(teepi.address, target)
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert is_sentence(answer)
    upstream.file(path, DEMO.metadata)
    assert (await fetch(teepi.address, target)).body == DEMO.metadata


# --- headers


@pytest.mark.parametrize("accept", [JSON, HTML_V1, HTML])
async def test_page_headers_make_clients_revalidate(teepi: Teepi, demo: Project, accept: str) -> None:
    """Contract 9 and 17. A strong ETag, no-cache, Vary, a length; neither Last-Modified nor a copied max-age."""
    demo.page_headers = {"Cache-Control": "max-age=600, public", "Set-Cookie": "a=b", "Link": "</x>; rel=y", "Age": "9"}
    headers = (await get_page(teepi, accept=accept)).headers
    assert not {"set-cookie", "link", "age"} & headers.keys()
    assert headers["etag"].startswith('"')
    assert headers["cache-control"] == "no-cache"
    assert headers["vary"] == "Accept, Accept-Encoding"
    assert int(headers["content-length"]) > 0
    assert "last-modified" not in headers
    assert "transfer-encoding" not in headers


async def test_page_etag_tells_forms_and_contents_apart(teepi: Teepi, demo: Project, clock: Clock) -> None:
    """Contract 9 and 17. One per form; the same as long as the page is, also for the other form's client."""
    etags = {accept: (await get_page(teepi, accept=accept)).headers["etag"] for accept in (JSON, HTML_V1, HTML)}
    assert len(set(etags.values())) == 3
    clock.advance(TTL + 1)
    assert (await get_page(teepi)).headers["etag"] == etags[JSON]
    demo.put(NEXT.filename, NEXT.content)
    clock.advance(TTL + 1)
    assert (await get_page(teepi)).headers["etag"] != etags[JSON]


@pytest.mark.parametrize("spelling", ["{}", "W/{}", '"other", {}', "*"])
@pytest.mark.parametrize("accept", [JSON, HTML])
async def test_page_with_the_clients_etag_is_304_without_a_body(teepi: Teepi, accept: str, spelling: str) -> None:
    """Contract 17. With the headers that a 200 would have, and the connection goes on."""
    async with await RawClient.connect(teepi.address) as client:
        full = await client.get(PAGE, {"Accept": accept})
        condition = {"Accept": accept, "If-None-Match": spelling.format(full.headers["etag"])}
        for method in ("GET", "HEAD"):
            answer = await client.get(PAGE, condition, method)
            assert (answer.status, answer.body) == (304, b"")
            for name in ("etag", "cache-control", "vary"):
                assert answer.headers[name] == full.headers[name]
        assert (await client.get(PAGE, {"Accept": accept})).body == full.body


async def test_page_with_another_forms_etag_is_200(teepi: Teepi) -> None:
    """Contract 9. The HTML that a client has says nothing about the JSON that it asks for."""
    etag = (await get_page(teepi, accept=HTML)).headers["etag"]
    assert (await get_page(teepi, **{"If-None-Match": etag})).status == 200


# --- fresh, stale, revalidated


async def test_page_cache_status_tells_how_it_was_come_by(
    teepi: Teepi, upstream: Upstream, demo: Project, clock: Clock
) -> None:
    """Contract 21. Miss, hit, revalidated, stale; a 304 says it, too."""
    status = [(await get_page(teepi)).headers["cache-status"] for _ in range(2)]
    assert status == ["teepi; fwd=uri-miss; stored", "teepi; hit"]
    answer = await get_page(teepi, **{"If-None-Match": (await get_page(teepi)).headers["etag"]})
    assert answer.headers["cache-status"] == "teepi; hit"
    clock.advance(TTL + 1)
    assert (await get_page(teepi)).headers["cache-status"] == "teepi; fwd=stale"
    clock.advance(TTL + 1)
    upstream.script(demo.page_path, [Status(500)])
    assert (await get_page(teepi)).headers["cache-status"] == "teepi; hit; detail=stale"


async def test_page_is_fresh_for_page_ttl_and_no_longer(teepi: Teepi, upstream: Upstream, clock: Clock) -> None:
    """Issue 2. Up to page_ttl nothing is asked, then once."""
    await get_page(teepi)
    clock.advance(TTL - 5)
    await get_page(teepi)
    assert upstream.count("GET", PAGE) == 1
    clock.advance(10)
    await get_page(teepi)
    await get_page(teepi)
    assert upstream.count("GET", PAGE) == 2


async def test_page_revalidation_is_conditional_and_a_304_renews_it(
    teepi: Teepi, upstream: Upstream, clock: Clock
) -> None:
    """RFC 9111, 4.3. Upstream's own validators are sent back; its 304 makes the page fresh for another page_ttl."""
    first = await get_page(teepi)
    clock.advance(TTL + 1)
    second = await get_page(teepi)
    assert second.body == first.body
    assert conditions(upstream)[0] is None
    assert conditions(upstream)[1] is not None
    assert [request.status for request in upstream.seen(PAGE)] == [200, 304]
    clock.advance(TTL - 5)
    assert (await get_page(teepi)).headers["cache-status"] == "teepi; hit"


async def test_page_that_changed_upstream_is_shown_after_page_ttl(
    teepi: Teepi, upstream: Upstream, demo: Project, clock: Clock
) -> None:
    """Issue 2. A new file appears with the next revalidation, in every form, and can be had."""
    await get_page(teepi, accept=HTML)
    demo.put(NEXT.filename, NEXT.content)
    clock.advance(TTL + 1)
    assert NEXT.filename in HtmlPage((await get_page(teepi, accept=HTML)).body).anchors
    target = await file_target(teepi, NEXT.filename)
    assert (await fetch(teepi.address, target)).body == NEXT.content
    assert upstream.count("GET", PAGE) == 2


async def test_page_age_survives_a_restart(
    teepi: Teepi, upstream: Upstream, clock: Clock, make_teepi: MakeTeepi
) -> None:
    """Issue 2. What was fresh is fresh; what is stale is revalidated with the validators that were kept."""
    await get_page(teepi)
    await teepi.stop()
    clock.advance(TTL - 5)
    again = await make_teepi(Limits(), page_ttl_seconds=TTL)
    assert (await get_page(again)).headers["cache-status"] == "teepi; hit"
    clock.advance(10)
    assert (await get_page(again)).headers["cache-status"] == "teepi; fwd=stale"
    assert [request.status for request in upstream.seen(PAGE)] == [200, 304]


async def test_page_stored_by_a_clock_that_ran_ahead_is_not_fresh_for_ever(
    teepi: Teepi, upstream: Upstream, clock: Clock, make_teepi: MakeTeepi
) -> None:
    """Fault 9. A stored time from the future counts as now."""
    clock.wall_ahead = 400 * 86400
    await get_page(teepi)
    await teepi.stop()
    clock.wall_ahead = 0
    again = await make_teepi(Limits(), page_ttl_seconds=TTL)
    await get_page(again)
    clock.advance(TTL + 1)
    await get_page(again)
    assert upstream.count("GET", PAGE) == 2


# --- single-flight


@pytest.mark.parametrize("state", ["cold", "stale"])
async def test_page_asked_by_64_clients_is_asked_once_upstream(
    teepi: Teepi, upstream: Upstream, clock: Clock, state: str
) -> None:
    """Contract 21 and 27, issue 2. All wait for one answer and get the same page; those who joined are told so."""
    if state == "stale":
        await get_page(teepi)
        clock.advance(TTL + 1)
    before = upstream.count("GET", PAGE)
    gate = upstream.gate(PAGE)
    clients = [await RawClient.connect(teepi.address) for _ in range(64)]
    try:
        for client in clients:
            await client.send("GET", PAGE, {"Accept": JSON})
        await gate.reached.wait()
        for _ in range(3):  # teepi reads what came before this
            assert (await fetch(teepi.address, "/healthz")).status == 200
        gate.open()
        answers = await asyncio.gather(*(client.read_answer() for client in clients))
    finally:
        for client in clients:
            client.close()
    assert upstream.count("GET", PAGE) == before + 1
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    told = [answer.headers["cache-status"] for answer in answers]
    asked = "teepi; fwd=uri-miss; stored" if state == "cold" else "teepi; fwd=stale"
    assert told.count(asked) == 1
    assert told.count("teepi; fwd=uri-miss; collapsed") > 32
    assert set(told) <= {asked, "teepi; fwd=uri-miss; collapsed", "teepi; hit"}


async def test_page_asked_for_by_a_client_that_left_is_fetched_all_the_same(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 29. The fetch belongs to no client: the next one finds the page."""
    gate = upstream.gate(PAGE)
    async with await RawClient.connect(teepi.address) as client:
        await client.send("GET", PAGE)
        await gate.reached.wait()
        client.abort()
    gate.open()
    assert (await get_page(teepi)).status == 200
    assert upstream.count("GET", PAGE) == 1


# --- upstream fails

_FAILURES: list[Fault] = [
    *(Status(status) for status in (401, 403, 429, 500, 502, 503, 504)),
    Status(304, body=b""),
    Status(206),
    Reset("head"),
    Reset(20),
    EarlyEnd(20),
    HangBeforeHead(),
    Stall(20),
    Replace(PORTAL),
    Replace(b"We will be back soon."),
    Replace(b'{"files": ['),
    Replace(b'{"files": {}}'),
    Replace(b'{"meta": {"api-version": "2.0"}, "files": []}'),
    Replace(b"[]"),
    Replace(b""),
]


def _name(fault: Fault) -> str:
    return type(fault).__name__ + str(getattr(fault, "status", getattr(fault, "body", getattr(fault, "at", ""))))[:24]


@pytest.mark.parametrize("fault", _FAILURES, ids=_name)
@pytest.mark.parametrize("form", ["json", "html"])
async def test_page_that_upstream_cannot_confirm_is_served_stale(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock, fault: Fault, form: Form
) -> None:
    """Contract 33, faults 13 to 15. The last good page, said to be stale, and the good one again afterwards."""
    demo = upstream.project("demo", {DEMO.filename: DEMO.content}, form=form, page_etag=False)
    teepi = await make_teepi(FAST, page_ttl_seconds=TTL)
    good = await get_page(teepi)
    clock.advance(TTL + 1)
    upstream.script(PAGE, itertools.repeat(fault))  # a client may itself try a reused connection twice
    stale = await get_page(teepi)
    assert (stale.status, stale.body) == (200, good.body)
    assert stale.headers["cache-status"] == "teepi; hit; detail=stale"
    await upstream.seen(PAGE)[-1].over.wait()  # a hung upstream is left in the end
    upstream.script(PAGE, [])
    demo.put(NEXT.filename, NEXT.content)
    while (answer := await get_page(teepi)).headers["cache-status"] == stale.headers["cache-status"]:
        pass  # joined the end of the failing one
    assert NEXT.filename in json_files(answer)


@pytest.mark.parametrize("fault", _FAILURES, ids=_name)
async def test_page_that_cannot_be_had_is_503_and_never_404(
    upstream: Upstream, make_teepi: MakeTeepi, fault: Fault
) -> None:
    """Contract 33 to 35. Not 404, which means "no such project", nor what upstream answered to teepi."""
    upstream.project("demo", {DEMO.filename: DEMO.content}, page_etag=False)
    upstream.script(PAGE, itertools.repeat(fault))
    teepi = await make_teepi(FAST)
    answer = await get_page(teepi)
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert is_sentence(answer)
    assert (await fetch(teepi.address, f"/packages/demo/{DEMO.filename}")).status == 503


async def test_page_of_an_upstream_that_is_gone_is_stale_or_503(teepi: Teepi, upstream: Upstream, clock: Clock) -> None:
    """Contract 33 and 34. A refused connection is no 404 either."""
    good = await get_page(teepi)
    clock.advance(TTL + 1)
    await upstream.stop()
    stale = await get_page(teepi)
    assert (stale.status, stale.body) == (200, good.body)
    answer = await get_page(teepi, "other")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert is_sentence(answer)


async def test_page_revalidation_slower_than_patience_goes_on_behind(
    demo: Project, clock: Clock, upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Contract 33. The stale page at once; what upstream says later is what the next client gets, unasked again."""
    limits = replace(Limits(), page_patience_seconds=0.02)
    teepi = await make_teepi(limits, page_ttl_seconds=TTL)
    good = await get_page(teepi)
    clock.advance(TTL + 1)
    demo.put(NEXT.filename, NEXT.content)
    gate = upstream.gate(PAGE)
    for _ in range(2):
        stale = await get_page(teepi)
        assert stale.body == good.body
        assert stale.headers["cache-status"] == "teepi; hit; detail=stale"
    gate.open()
    while NEXT.filename not in json_files(await get_page(teepi)):
        pass
    assert upstream.count("GET", PAGE) == 2


async def test_page_cold_and_hanging_is_503_in_time_while_the_fetch_goes_on(
    demo: Project,  # noqa: ARG001 - for its effect
    upstream: Upstream,
    make_teepi: MakeTeepi,
) -> None:
    """Contract 33. Retry-After: 1 before pip gives up; the next try finds the page without another request."""
    assert Limits().cold_answer_seconds <= 12
    teepi = await make_teepi(replace(Limits(), cold_answer_seconds=0.05))
    gate = upstream.gate(PAGE)
    for _ in range(2):
        answer = await get_page(teepi)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert is_sentence(answer)
    gate.open()
    while (answer := await get_page(teepi)).status == 503:
        pass
    assert answer.status == 200
    assert upstream.count("GET", PAGE) == 1


async def test_page_that_is_wrong_is_not_stored(
    teepi: Teepi, upstream: Upstream, demo: Project, clock: Clock, make_teepi: MakeTeepi
) -> None:
    """Fault 14. What cannot be read as an index page never takes the place of one that could, nor on disk."""
    demo.page_etag = False
    await get_page(teepi)
    clock.advance(TTL + 1)
    upstream.script(PAGE, itertools.repeat(Replace(PORTAL)))
    await get_page(teepi)
    await teepi.stop()
    offline = await make_teepi(Limits(), offline=True)
    assert DEMO.filename in json_files(await get_page(offline))


# --- 404


@pytest.mark.parametrize("status", [404, 410])
async def test_project_unknown_upstream_is_404_and_remembered_briefly(
    teepi: Teepi, upstream: Upstream, clock: Clock, status: int
) -> None:
    """Contract 34. Two requests, one look; a minute later upstream is asked again, and may have changed its mind."""
    if status == 410:
        upstream.project("later", {})
        upstream.script("/simple/later/", [Status(410)])
    for _ in range(3):
        answer = await get_page(teepi, "later")
        assert answer.status == 404
        assert is_sentence(answer)
    assert upstream.count("GET", "/simple/later/") == 1
    upstream.project("later", {"later-1.0.tar.gz": b"x"})
    clock.advance(60)
    assert (await get_page(teepi, "later")).status == 200


async def test_project_that_appears_is_not_taken_for_absent_again(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock
) -> None:
    """Contract 34. Upstream's newer answer ends the memory of its 404, also where pages are fresh for a second only."""
    teepi = await make_teepi(Limits(), page_ttl_seconds=1)
    assert (await get_page(teepi)).status == 404
    upstream.project("demo", {DEMO.filename: DEMO.content})
    clock.advance(6)  # less than a 404 is remembered, but enough to look again for a file
    assert (await fetch(teepi.address, f"/packages/demo/{DEMO.filename}")).status == 200
    clock.advance(2)
    assert (await get_page(teepi)).status == 200


async def test_project_removed_upstream_keeps_its_cached_files(
    teepi: Teepi, upstream: Upstream, demo: Project, clock: Clock
) -> None:
    """Fault 15. A 404 that comes and goes: the page is 404 meanwhile, files by URL stay, then all is as before."""
    good = await get_page(teepi)
    target = await file_target(teepi, DEMO.filename)
    assert (await fetch(teepi.address, target)).status == 200
    clock.advance(TTL + 1)
    upstream.script(PAGE, [Status(404)])
    assert (await get_page(teepi)).status == 404
    for suffix, content in (("", DEMO.content), (".metadata", DEMO.metadata)):
        answer = await fetch(teepi.address, target + suffix)
        assert (answer.status, answer.body) == (200, content)
    assert upstream.count("GET", demo.path(DEMO.filename)) == 1
    clock.advance(60)
    again = await get_page(teepi)
    assert (again.status, again.body) == (200, good.body)
    assert [request.status for request in upstream.seen(PAGE)] == [200, 404, 304]


async def test_project_removed_upstream_is_still_there_offline(
    teepi: Teepi, upstream: Upstream, clock: Clock, make_teepi: MakeTeepi
) -> None:
    """Fault 15. The 404 deletes nothing on disk."""
    target = await file_target(teepi, DEMO.filename)
    await fetch(teepi.address, target)
    clock.advance(TTL + 1)
    upstream.script(PAGE, [Status(404)])
    assert (await get_page(teepi)).status == 404
    await teepi.stop()
    offline = await make_teepi(Limits(), offline=True)
    assert DEMO.filename in json_files(await get_page(offline))
    assert (await fetch(offline.address, target)).body == DEMO.content


# --- offline, restart


async def test_offline_serves_what_is_cached_and_asks_nothing(
    teepi: Teepi, upstream: Upstream, clock: Clock, make_teepi: MakeTeepi
) -> None:
    """Design 3. However old: page, file and metadata from disk; freshness is ignored."""
    good = await get_page(teepi)
    target = await file_target(teepi, DEMO.filename)
    for suffix in ("", ".metadata"):
        await fetch(teepi.address, target + suffix)
    await teepi.stop()
    clock.advance(400 * 86400)
    before = len(upstream.requests)
    offline = await make_teepi(Limits(), offline=True)
    page = await get_page(offline)
    assert (page.status, page.body, page.headers["cache-status"]) == (200, good.body, "teepi; hit")
    assert (await fetch(offline.address, target)).body == DEMO.content
    assert (await fetch(offline.address, target + ".metadata")).body == DEMO.metadata
    assert (await fetch(offline.address, f"/packages/demo/{DEMO.filename}")).body == DEMO.content
    assert len(upstream.requests) == before


@pytest.mark.parametrize(
    "target",
    [
        "/simple/other/",
        "/simple/",
        f"/packages/demo/{DEMO.filename}",
        "/packages/demo/no-known-name",
        "/root/pypi/+files/files.example/demo-1.0.tar.gz",
        f"/root/pypi/+f/{DEMO.sha256[:3]}/{DEMO.sha256[3:16]}/{DEMO.filename}",
    ],
)
async def test_offline_and_unknown_is_503_without_retry_after(
    demo: Project,  # noqa: ARG001 - for its effect
    upstream: Upstream,
    make_teepi: MakeTeepi,
    target: str,
) -> None:
    """Contract 34. Never 404, for upstream has not said so; no Retry-After, for it will not help."""
    offline = await make_teepi(Limits(), offline=True)
    answer = await fetch(offline.address, target)
    assert answer.status == 503
    assert "retry-after" not in answer.headers
    assert is_sentence(answer)
    assert b"offline" in answer.body
    assert not upstream.requests


async def test_restart_with_the_upstream_gone_keeps_pages_and_file_urls(
    teepi: Teepi, upstream: Upstream, demo: Project, clock: Clock, make_teepi: MakeTeepi
) -> None:
    """Issue 2. A file URL resolves without its page: what is cached is served, what is not is 503 and not 404."""
    demo.put(NEXT.filename, NEXT.content)
    good = await get_page(teepi)
    cached, uncached = [await file_target(teepi, name) for name in (DEMO.filename, NEXT.filename)]
    await fetch(teepi.address, cached)
    await teepi.stop()
    await upstream.stop()
    clock.advance(TTL + 1)
    again = await make_teepi(FAST, page_ttl_seconds=TTL)
    assert (await fetch(again.address, cached)).body == DEMO.content  # before its page
    answer = await fetch(again.address, uncached)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    page = await get_page(again)
    assert (page.status, page.body) == (200, good.body)
    assert page.headers["cache-status"] == "teepi; hit; detail=stale"


# --- files that no page has linked to yet


async def test_file_url_unknown_looks_at_its_projects_page_once_then_404(
    teepi: Teepi, upstream: Upstream, clock: Clock
) -> None:
    """Issue 2. Upstream has the file, but no page links to it: it is never asked for."""
    host = upstream.url.removeprefix("http://")
    upstream.file("/packages/demo/demo-6.6.tar.gz", b"not linked to")
    target = f"/root/pypi/+http/{host}/packages/demo/demo-6.6.tar.gz"
    for suffix in ("", ".metadata", ""):
        answer = await fetch(teepi.address, target + suffix)
        assert answer.status == 404
        assert is_sentence(answer)
    assert [request.path for request in upstream.requests] == [PAGE]
    clock.advance(10)
    assert (await fetch(teepi.address, target)).status == 404
    assert [request.path for request in upstream.requests] == [PAGE, PAGE]


async def test_file_url_of_another_host_is_never_asked(teepi: Teepi, upstream: Upstream, demo: Project) -> None:
    """Issue 2. The right path and name below another authority or scheme is another URL."""
    await get_page(teepi)
    host = upstream.url.removeprefix("http://")
    for place in (f"+files/{host}", "+http/evil.example", f"+http/x@{host}", "+files/127.0.0.1:1"):
        answer = await fetch(teepi.address, f"/root/pypi/{place}{demo.path(DEMO.filename)}")
        assert answer.status == 404
    assert {request.path for request in upstream.requests} == {PAGE}


async def test_file_url_newer_than_the_page_is_found_by_one_look(
    teepi: Teepi, upstream: Upstream, demo: Project, clock: Clock
) -> None:
    """Design 4. uv asks for the URLs of a lock file directly, also while an older page is still fresh."""
    target = await file_target(teepi, DEMO.filename)
    demo.put(NEXT.filename, NEXT.content)
    clock.advance(10)
    answer = await fetch(teepi.address, target.replace(DEMO.filename, NEXT.filename))
    assert (answer.status, answer.body) == (200, NEXT.content)
    assert upstream.count("GET", PAGE) == 2
    assert NEXT.filename in json_files(await get_page(teepi))


async def test_file_url_unknown_asked_by_32_clients_is_one_look(teepi: Teepi, upstream: Upstream) -> None:
    """Issue 2. The look is single-flight like every page, and so is the file behind it."""
    gate = upstream.gate(PAGE)
    target = f"/packages/demo/{DEMO.filename}"
    asking = [asyncio.create_task(fetch(teepi.address, target)) for _ in range(32)]
    await gate.reached.wait()
    assert (await fetch(teepi.address, "/healthz")).status == 200
    gate.open()
    answers = await asyncio.gather(*asking)
    assert {(answer.status, answer.body) for answer in answers} == {(200, DEMO.content)}
    assert upstream.count("GET", PAGE) == upstream.count("GET", target) == 1


async def test_file_url_unknown_while_upstream_fails_is_503_and_not_404(
    teepi: Teepi, upstream: Upstream, clock: Clock
) -> None:
    """Contract 34. An old page cannot say that there is no newer file."""
    target = await file_target(teepi, DEMO.filename)
    clock.advance(10)
    upstream.script(PAGE, [Status(500)])
    wanted = target.replace(DEMO.filename, NEXT.filename)
    answer = await fetch(teepi.address, wanted)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert is_sentence(answer)
    assert (await fetch(teepi.address, wanted)).status == 404


async def test_file_url_of_a_project_unknown_upstream_is_404(teepi: Teepi, upstream: Upstream) -> None:
    """Issue 2. The look ends at upstream's 404, which is remembered."""
    for _ in range(2):
        answer = await fetch(teepi.address, "/packages/x/nothing-1.0.tar.gz")
        assert answer.status == 404
        assert is_sentence(answer)
    assert [request.path for request in upstream.requests] == ["/simple/nothing/"]


# --- links with a query


@pytest.mark.parametrize(("with_digest", "kind"), [(True, "+f"), (False, "+e")])
async def test_link_with_a_query_is_served_without_it_and_asked_with_it(
    upstream: Upstream, make_teepi: MakeTeepi, kind: str, *, with_digest: bool
) -> None:
    """Design 5. A signed link goes by digest or by a hash of its URL; its secret is not shown to clients."""
    path = f"/packages/demo/{DEMO.filename}"
    url = f"{upstream.url}{path}?token=secret&x=%2F"
    upstream.project(
        "demo",
        {DEMO.filename: DEMO.content},
        sha256=with_digest,
        metadata={DEMO.filename: DEMO.metadata},
        extra={DEMO.filename: {"url": url}},
    )
    teepi = await make_teepi(Limits())
    page = await get_page(teepi)
    assert b"secret" not in page.body
    target = links(page, PAGE)[DEMO.filename]
    assert target.startswith(f"/root/pypi/{kind}/")
    assert target.endswith("/" + DEMO.filename)
    assert (await fetch(teepi.address, target)).body == DEMO.content
    assert (await fetch(teepi.address, target + ".metadata")).body == DEMO.metadata
    asked = [request.target for request in upstream.requests if request.path != PAGE]
    assert asked == [f"{path}?token=secret&x=%2F", f"{path}.metadata?token=secret&x=%2F"]
    unsigned = f"/root/pypi/+http/{upstream.url.removeprefix('http://')}{path}"
    assert (await fetch(teepi.address, unsigned)).status == 404


async def test_query_of_a_request_is_no_part_of_the_file(teepi: Teepi, upstream: Upstream, demo: Project) -> None:
    """House rule. A client's query neither misses the cache nor reaches upstream."""
    target = await file_target(teepi, DEMO.filename)
    for query in ("", "?a=1", "?b=%2F..%2F"):
        assert (await fetch(teepi.address, target + query)).body == DEMO.content
        assert (await get_page(teepi)).status == 200
        assert (await fetch(teepi.address, PAGE + query)).status == 200
    assert [request.target for request in upstream.requests] == [PAGE, demo.path(DEMO.filename)]


# --- Cache-Status of files, HEAD


async def test_file_cache_status_tells_miss_hit_and_collapsed(teepi: Teepi, upstream: Upstream, demo: Project) -> None:
    """Contract 21. On GET and HEAD, for the file and its metadata."""
    content = noise(200_000)
    path = demo.put("demo-3.0.tar.gz", content)
    target = await file_target(teepi, "demo-3.0.tar.gz")
    gate = upstream.gate(path, 100_000)
    async with await RawClient.connect(teepi.address) as first, await RawClient.connect(teepi.address) as second:
        await first.send("GET", target)
        head = await first.read_head()
        assert head.headers["cache-status"] == "teepi; fwd=uri-miss; stored"
        await second.send("GET", target)
        assert (await second.read_head()).headers["cache-status"] == "teepi; fwd=uri-miss; collapsed"
        head = (await fetch(teepi.address, target, method="HEAD")).head
        assert head.headers["cache-status"] == "teepi; fwd=uri-miss; collapsed"
        gate.open()
        assert await first.read(len(content)) == await second.read(len(content)) == content
    assert hashlib.sha256(content).hexdigest() in (await fetch(teepi.address, target)).headers["etag"]
    while (answer := await fetch(teepi.address, target)).headers["cache-status"] != "teepi; hit":
        assert answer.body == content  # the commit is still on its way
    assert (await fetch(teepi.address, target, method="HEAD")).headers["cache-status"] == "teepi; hit"
    same = await fetch(teepi.address, target, {"If-None-Match": answer.headers["etag"]})
    assert (same.status, same.headers["cache-status"]) == (304, "teepi; hit")
    for suffix, headers in (("", {"Range": "bytes=0-3"}), (".metadata", {})):
        other = await file_target(teepi, DEMO.filename) + suffix
        assert (await fetch(teepi.address, other, headers)).headers["cache-status"].startswith("teepi; fwd=uri-miss")
