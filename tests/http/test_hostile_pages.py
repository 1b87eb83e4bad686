"""Pages and lists of an upstream that is broken, hostile or both: refused in time, or read as far as they can be."""

from __future__ import annotations

import gzip
import itertools
import json
import sys
import zlib
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import pytest

from teepi.limits import Limits
from tests.http.links import HtmlPage, file_target, get_page, is_sentence, json_files, links
from tests.http.named import give_names
from tests.support.clients import fetch
from tests.support.faults import EarlyEnd, Fault, Redirect, Replace, Trickle, WrongLength
from tests.support.projects import HTML, JSON

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.http.clock import Clock
    from tests.support.exchange import Resource
    from tests.support.upstream import Upstream

PAGE = "/simple/demo/"
LIST = "/simple/"
TTL = 600
NAME = "demo-1.0.tar.gz"
SMALL = replace(Limits(), page_bytes=1 << 20, list_bytes=1 << 20)
BLANKS = b" " * (20 << 20)


@dataclass(frozen=True)
class Encoded(Fault):
    """Another body, said to be in a content coding."""

    body: bytes
    coding: str

    def swap(self, resource: Resource) -> Resource:
        """Replace content and coding."""
        return replace(resource, content=self.body, headers={"Content-Encoding": self.coding}, etag=None)


def json_page(*files: dict[str, Any], more: bytes = b"", version: str = "1.0") -> bytes:
    """Return a page; ``more`` is put behind its first key word for word."""
    meta = json.dumps({"api-version": version}).encode()
    return b'{"meta":%b%b,"files":%b}' % (meta, more, json.dumps(files).encode())


def too_large() -> dict[str, Fault]:
    """Return what would fill the memory, by what it is."""
    page = json_page({"filename": NAME, "url": NAME})
    deep = 100_000
    return {
        "plain": Replace(BLANKS[: 2 << 20] + page),
        "gzip": Encoded(gzip.compress(BLANKS + page, 9), "gzip"),
        "deflate": Encoded(zlib.compress(BLANKS + page), "deflate"),
        "zstd": Encoded(zstd.compress(BLANKS + page), "zstd"),
        "deep list": Replace(json_page(more=b',"x":' + b"[" * deep + b"]" * deep)),
        "deep object": Replace(json_page(more=b',"x":' + b'{"a":' * deep + b"1" + b"}" * deep)),
        "long version": Replace(json_page(version="9" * 500_000)),
        "dotted version": Replace(json_page(version="1" + ".1" * 250_000)),
    }


def not_whole() -> dict[str, Fault | tuple[Fault, ...]]:
    """Return what breaks off or does not fit, by what it is."""
    page = json_page({"filename": NAME, "url": NAME})
    return {
        "gzip cut": Encoded(gzip.compress(page)[:-12], "gzip"),
        "gzip and more": Encoded(gzip.compress(page) + b"more", "gzip"),
        "gzip of nothing": Encoded(b"", "gzip"),
        "gzip twice": Encoded(gzip.compress(gzip.compress(page)), "gzip"),
        "no gzip": Encoded(page, "gzip"),
        "gzip not said": Replace(gzip.compress(page)),
        "deflate cut": Encoded(zlib.compress(page)[:-12], "deflate"),
        "zstd cut": Encoded(zstd.compress(page)[:-12], "zstd"),
        "unasked coding": Encoded(page, "br"),
        "too long": WrongLength(10),
        "too short": WrongLength(-10),
    }


def no_json() -> dict[str, Fault]:
    """Return what other parsers may take for JSON."""
    values = (b"NaN", b"Infinity", b"1e999", b"9" * 5000, b'"\\ud800"', b'"\\udc00"', b'"\xff"', b'"\0"', b"'a'", b"01")
    bodies = {ascii(value)[:20]: json_page(more=b',"x":' + value) for value in values}
    page = json_page()
    bodies |= {"NUL": b"\0" * 1000, "UTF-16": page.decode().encode("utf-16"), "comment": page + b"// x"}
    bodies |= {"tail": page + b"}", "two": page + page, "files": b'{"files":{"a":1}}', "meta": b'{"meta":1,"files":[]}'}
    return {name: Replace(body) for name, body in bodies.items()}


@pytest.mark.parametrize("faults", [too_large, not_whole, no_json])
async def test_page_that_is_too_large_cut_or_no_json_leaves_the_last_good_one(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock, faults: Any
) -> None:
    """Faults 13 and 14. Bombs, depth, cut codings, wrong lengths, no JSON: a sentence, or the page there was."""
    upstream.project("demo", {NAME: b"x"}, page_etag=False)
    teepi = await make_teepi(SMALL, page_ttl_seconds=TTL)
    good = await get_page(teepi)
    for number, (what, fault) in enumerate(faults().items()):
        clock.advance(TTL + 1)
        upstream.script(PAGE, itertools.repeat(fault))
        stale = await get_page(teepi)
        assert (stale.status, stale.body) == (200, good.body), what
        assert stale.headers["cache-status"] == "teepi; hit; detail=stale", what
        upstream.project(f"cold{number}", {NAME: b"x"}, page_etag=False)
        upstream.script(f"/simple/cold{number}/", itertools.repeat(fault))
        cold = await get_page(teepi, f"cold{number}")
        assert cold.status == 503, what
        assert is_sentence(cold), what
        clock.advance(TTL + 1)
        upstream.script(PAGE, [])
        assert (await get_page(teepi)).headers["cache-status"] == "teepi; fwd=stale", what


async def test_page_that_trickles_is_given_up(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Fault 13. A byte now and then defeats every read time-out: fewer than some in a while is broken as well."""
    teepi = await make_teepi(replace(Limits(), rate_window_seconds=0.1))
    upstream.project("demo", {NAME: b"x"})
    upstream.script(PAGE, itertools.repeat(Trickle(1, 0.01)))
    answer = await get_page(teepi)
    assert answer.status == 503
    assert is_sentence(answer)
    assert b"sends less than" in answer.body


async def test_list_that_is_too_large_is_refused_while_it_comes(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock
) -> None:
    """Fault 14. Bombs of blanks, of names and of one endless name; the last good list stays."""
    teepi = await make_teepi(SMALL, page_ttl_seconds=TTL)
    upstream.file(LIST, b'{"meta":{"api-version":"1.0"},"projects":[{"name":"demo"}]}', content_type=JSON)
    good = await fetch(teepi.address, LIST, {"Accept": JSON})
    begin = b'{"meta":{"api-version":"1.0"},"projects":['
    names = begin + b'{"name":"demo"},' * 200_000 + b'{"name":"demo"}]}'
    for body in (BLANKS, names, begin + b'{"name":"' + b"a" * (2 << 20), b"<a" * (1 << 20)):
        clock.advance(TTL + 1)
        upstream.script(LIST, [Encoded(gzip.compress(body, 1), "gzip")])
        stale = await fetch(teepi.address, LIST, {"Accept": JSON})
        assert (stale.status, stale.body) == (200, good.body)
        assert stale.headers["cache-status"] == "teepi; hit; detail=stale"


async def test_html_page_that_ends_where_nobody_says_so_is_not_taken_for_whole(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 13. Without a length FIN looks like an end; half of the links would look like a page."""
    anchors = "".join(f'<a href="demo-1.{number}.zip">x</a>\n' for number in range(100))
    teepi = await make_teepi(Limits())
    whole = f"<!DOCTYPE html><html><body>{anchors}</body></html>"
    for name, body, cut, count in (
        ("whole", whole, len(whole), 100),
        ("cut", whole, whole.index("demo-1.50") - 9, None),
        ("within", anchors, anchors.index("demo-1.50"), None),
        ("bare", anchors, len(anchors), 100),
    ):
        upstream.file(f"/simple/{name}/", body.encode(), content_type=HTML, length=False)
        upstream.script(f"/simple/{name}/", itertools.repeat(EarlyEnd(cut)))
        answer = await get_page(teepi, name)
        if count is None:
            assert answer.status == 503
            assert is_sentence(answer)
        else:
            assert len(json_files(answer)) == count


async def test_page_whose_validators_cannot_be_sent_is_asked_for_without(
    upstream: Upstream, make_teepi: MakeTeepi, clock: Clock
) -> None:
    """Faults 13 and 14. A page is revalidated and a file is served, whatever ETag and Last-Modified hold."""
    teepi = await make_teepi(Limits(), page_ttl_seconds=TTL)
    for number, odd in enumerate(("\xff", "a\x01b", "a\tb", "x" * 15_000)):
        path = f"/{number}/{NAME}"
        validators = {"ETag": f'"{odd}"', "Last-Modified": odd}
        for where, body in (
            (path, b"content"),
            (PAGE, json_page({"filename": NAME, "url": path})),
            (LIST, b'{"meta":{},"projects":[{"name":"demo"}]}'),
        ):
            upstream.file(where, body, content_type=JSON, etag=None, last_modified=None, headers=validators)
        for target in (PAGE, LIST, PAGE, LIST):
            clock.advance(TTL + 1)
            answer = await fetch(teepi.address, target, {"Accept": JSON})
            assert answer.status == 200, ascii(odd)
            assert "detail=stale" not in answer.headers["cache-status"], ascii(odd)
        target = await file_target(teepi, NAME)
        for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-2"}), ("GET", {})):
            assert (await fetch(teepi.address, target, headers, method)).status in {200, 206}, ascii(odd)


ODD_LINKS = (
    "file:///etc/passwd", "javascript:alert(1)", "data:,x", "ftp://h.example/x.whl", "https:///x.whl",
    "https://[::1/x.whl", "https://h.example:99999/x.whl", "https://h.example:0/x.whl", "https://a\\@h.example/x.whl",
    "#x", "", "https://h.example", f"https://{'h' * 5000}/x.whl", "x\0.whl", "x\n.whl", 5, None, ["x"], {"a": "x"},
)  # fmt: skip
ODD_NAMES = ('"><script>alert(1)</script>', "a/b.whl", "a\\b.whl", "..", ".", "", "a\nb", "a\0b", "\u202ea", 5, None)
KEPT: dict[str, dict[str, Any]] = {
    "md5.zip": {"hashes": {"md5": "0" * 32}},
    "hashes.zip": {"hashes": {"sha256": 5, "md5": [1], "sha512": None}},
    "nohash.zip": {"hashes": [1]},
    "user.zip": {"url": "https://user:secret@h.example/user.zip"},
    "idn.zip": {"url": "https://b\u00fccher.example/idn.zip"},
    "port.zip": {"url": "https://h.example:/port.zip"},
    "scheme.zip": {"url": "//h.example/scheme.zip"},
    "climbs.zip": {"url": "https://h.example/%2e%2e/../climbs.zip"},
    "nul.zip": {"url": "https://h.example/%00/nul.zip"},
    "query.zip": {"url": "https://h.example/query.zip?a='\"><script>"},
    "quotes'&quot;.zip": {"url": "https://h.example/x"},
    "yank.zip": {"yanked": '\0"><script>', "requires-python": [1], "core-metadata": {}, "size": -1},
    f"demo-{'1' * 5000}.tar.gz": {"size": 1},
    f"demo-{'1' * 5000}-py3-none-any.whl": {"size": 1},
    f"demo-{'1.' * 5000}0.tar.gz": {"size": 1},
}


async def test_page_with_odd_files_among_good_ones_shows_the_good_ones(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 14. No script, no scheme but http(s), no password, no file of ours: what cannot be a file is left out."""
    files: list[dict[str, Any]] = [{"filename": "x.whl", "url": link} for link in ODD_LINKS]
    files += [{"filename": name, "url": "https://h.example/x.whl"} for name in ODD_NAMES]
    files += [{"filename": name, "url": f"/p/{name}"} | more for name, more in KEPT.items()]
    good = {"filename": NAME, "url": "/p/" + NAME}
    body = json_page(*files, good, more=b',"files":5,"name":{"a":[1]},"project-status":{"status":5,"reason":[1]}')
    upstream.file(PAGE, body, content_type=JSON)
    anchors = "".join(f'<a href="{escape(str(file["url"]))}" data-size="1">x</a>\n' for file in [*files, good])
    meta = '<meta name="pypi:repository-version" content="1.1">'
    upstream.file("/simple/other/", (meta + anchors).encode(), content_type=HTML)
    upstream.file("/p/" + NAME, b"content")
    teepi = await make_teepi(Limits())
    page = await get_page(teepi)
    assert list(json_files(page)) == [*KEPT, NAME]
    html = await get_page(teepi, accept=HTML)
    assert list(HtmlPage(html.body).anchors) == [*KEPT, NAME]
    assert set(links(html, PAGE)) == set(links(page, PAGE))
    other = await get_page(teepi, "other")
    assert NAME in json_files(other)
    for answer in (page, html, other, await get_page(teepi, "other", HTML)):
        assert b"<script" not in answer.body or answer is page  # JSON needs no escaping
        assert b"secret" not in answer.body
        assert b"/etc/passwd" not in answer.body
    assert (await fetch(teepi.address, links(page, PAGE)[NAME])).body == b"content"
    assert {request.path for request in upstream.requests} == {PAGE, "/simple/other/", "/p/" + NAME}


async def test_page_with_two_files_of_one_name_gives_each_its_own(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Fault 14. Which one a client takes is its choice; that it gets the one it took is ours."""
    contents = [b"one", b"two"]
    for number, content in enumerate(contents):
        upstream.file(f"/{number}/{NAME}", content)
    urls = [f"/{number}/{NAME}" for number in range(2)]
    upstream.file(PAGE, json_page(*({"filename": NAME, "url": url} for url in urls)), content_type=JSON)
    teepi = await make_teepi(Limits())
    found = [file["url"].removeprefix("../..") for file in json.loads((await get_page(teepi)).body)["files"]]
    assert [(await fetch(teepi.address, target)).body for target in found] == contents


async def test_page_of_any_depth_is_answered_or_refused_with_a_sentence(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 14. Also where reading it just succeeds and writing it just does not."""
    teepi = await make_teepi(Limits())
    for depth in range(850, 1010):
        upstream.file(f"/simple/d{depth}/", json_page(more=b',"x":' + b"[" * depth + b"]" * depth), content_type=JSON)
        answer = await get_page(teepi, f"d{depth}")
        assert answer.status in {200, 502, 503}, answer.body
        assert answer.status == 200 or is_sentence(answer)


# --- redirects of pages and lists

REDIRECTS = (
    "file:///etc/passwd", "ftp://127.0.0.1/", "javascript:1", "data:,x", "//", "http://", "http://[", "http://\xff/",
    "http://a:99999/", "http://a:b/", "http://b\xfccher.example/", "?", "#", "", "\xff", "http://%00/", "http://a..b/",
    "http://user:secret@[::ffff:127.0.0.1]:1/", f"http://{'a' * 300}.example/", f"http://{'1' * 5000}/",
    "http://127.0.0.1:1/", "http://mapped.example/", "http://localhost/",
)  # fmt: skip


async def test_page_and_list_that_redirect_anywhere_odd_are_503_with_a_sentence(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Fault 16. Loops, other schemes, private addresses, what is no URL; nothing of a password is repeated."""
    give_names(monkeypatch)
    teepi = await make_teepi(Limits(), page_ttl_seconds=0)
    for number, to in enumerate(REDIRECTS):
        path = f"/simple/demo{number}/"
        upstream.file(path, b"")
        upstream.script(path, itertools.repeat(Redirect(to)))
        clock.advance(300)  # so that no breaker is open
        answer = await get_page(teepi, f"demo{number}")
        assert answer.status == 503, to
        assert is_sentence(answer), to
        assert b"secret" not in answer.body
        assert b"is asked again" not in answer.body, to
        assert 1 <= upstream.count("GET", path) <= 11, to


async def test_page_and_list_follow_ten_redirects_and_no_more(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Fault 16. As files do; the links are relative to where the page was in the end."""
    teepi = await make_teepi(Limits())
    for path, accept in ((PAGE, JSON), (LIST, JSON)):
        body = json_page({"filename": NAME, "url": NAME}) if path == PAGE else b'{"meta":{},"projects":[{"name":"a"}]}'
        upstream.file(path, body, content_type=JSON)
        upstream.script(path, [Redirect(path)] * 11)
        assert (await fetch(teepi.address, path, {"Accept": accept})).status == 503
        assert upstream.count("GET", path) == 11
