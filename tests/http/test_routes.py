"""Routes: which URL means what, whatever is in it; redirects, methods, hosts, heads (contract 1 to 6, 19, 36, 38)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

import pytest
from yarl import URL

from teepi.limits import Limits
from tests.http.links import HTML_V1, HtmlPage, get_page, is_sentence, json_files, links, raw_links
from tests.support.clients import RawClient, fetch
from tests.support.faults import Status
from tests.support.projects import HTML, JSON
from tests.support.upstream import Upstream
from tests.support.wheels import sdist, wheel

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.teepi import Teepi

ROUTES = ("/simple/", "/root/pypi/+simple/", "/index/", "/pypi/simple/")
DEMO = wheel("demo")
LOCAL = wheel("demo", "1.0+local.1")


@pytest.fixture
async def teepi(upstream: Upstream, make_teepi: MakeTeepi) -> Teepi:
    """Start teepi, with the limits that are real, before a project with two wheels and one's metadata."""
    upstream.project("demo", {d.filename: d.content for d in (DEMO, LOCAL)}, metadata={DEMO.filename: DEMO.metadata})
    upstream.project("foo-bar", {"foo_bar-1.0.tar.gz": sdist("foo-bar").content})
    return await make_teepi(Limits(), index={"allow_private": True})  # one test has files at a second upstream


async def raw(teepi: Teepi, head: bytes) -> Answer:
    """Send a request head byte for byte; what is answered must be a whole answer."""
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(head)
        return await client.read_answer()


# --- page routes


@pytest.mark.parametrize("accept", [JSON, HTML_V1, HTML])
async def test_page_routes_of_the_default_index_give_the_same_page(teepi: Teepi, accept: str) -> None:
    """Contract 1. Four routes, one page: the same files behind the same targets, all attributes alike."""
    pages = {}
    for route in ROUTES:
        answer = await fetch(teepi.address, f"{route}demo/", {"Accept": accept})
        assert (answer.status, answer.headers["content-type"]) == (200, accept)
        attributes = json_files(answer) if accept == JSON else HtmlPage(answer.body).anchors
        stripped = {
            name: {k: v for k, v in attribute.items() if k not in {"url", "href"}}
            for name, attribute in attributes.items()
        }
        pages[route] = (links(answer, f"{route}demo/"), stripped)
    assert len(pages["/simple/"][0]) == 2
    assert all(page == pages["/simple/"] for page in pages.values())


async def test_page_routes_share_one_request_upstream(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 1. The aliases are one page, not four."""
    for route in ROUTES:
        assert (await fetch(teepi.address, f"{route}demo/")).status == 200
    assert upstream.count("GET", "/simple/demo/") == 1


@pytest.mark.parametrize("before", ["", "/cache", "/a/b"])
@pytest.mark.parametrize("route", ["/simple//", "/root/pypi/+simple//", "/index///", "/pypi/simple//", "/simple/"])
async def test_page_behind_an_empty_segment_is_answered_directly(teepi: Teepi, route: str, before: str) -> None:
    """Contract 4 and 6. pipenv with a mirror URL that ends with a slash: 200, with links that lead to the files.

    Also behind a path prefix: RFC 3986 keeps empty segments, Python's urljoin drops them.
    """
    answer = await fetch(teepi.address, f"{route}demo/", {"Accept": JSON})
    assert answer.status == 200
    link = raw_links(answer)[DEMO.filename]
    url = f"http://teepi.example{before}{route}demo/"
    for resolved in (urljoin(url, link), str(URL(url).join(URL(link, encoded=True)))):
        target = resolved.removeprefix(f"http://teepi.example{before}")
        assert target.startswith("/")
        assert (await fetch(teepi.address, target)).body == DEMO.content
        assert (await fetch(teepi.address, f"{target}.metadata")).body == DEMO.metadata


async def test_page_target_percent_encoded_is_decoded_once(teepi: Teepi) -> None:
    """Contract 2. %2B, %64 and even %2F in front of a name are what they mean, exactly once."""
    assert (await fetch(teepi.address, "/root/pypi/%2Bsimple/%64emo/")).status == 200
    answer = await fetch(teepi.address, "/simple%2Fdemo%2F", {"Accept": JSON})
    assert answer.status == 200
    target = links(answer, "/simple%2Fdemo%2F")[DEMO.filename]
    assert (await fetch(teepi.address, target)).body == DEMO.content
    assert (await fetch(teepi.address, "/simple/%2564emo/")).status == 404


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/simple/Foo.Bar", "/simple/foo-bar/"),
        ("/simple/foo-bar", "/simple/foo-bar/"),
        ("/simple/Foo__bar/", "/simple/foo-bar/"),
        ("/simple//Foo.Bar/", "/simple//foo-bar/"),
        ("/pypi/simple/FOO-BAR", "/pypi/simple/foo-bar/"),
        ("/index/foo.bar/", "/index/foo-bar/"),
        ("/root/pypi/+simple/Foo.Bar/", "/root/pypi/+simple/foo-bar/"),
        ("/root/pypi/%2Bsimple/foo-bar", "/root/pypi/%2Bsimple/foo-bar/"),
        ("/simple", "/simple/"),
        ("/pypi/simple", "/pypi/simple/"),
        ("/root/pypi/+simple", "/root/pypi/+simple/"),
    ],
)
async def test_page_under_another_spelling_redirects_relatively(teepi: Teepi, target: str, location: str) -> None:
    """Contract 3 and 38. To the normalised name with its slash, below the same prefix, the query kept."""
    for query in ("", "?a=b&c=%2F"):
        answer = await fetch(teepi.address, target + query)
        assert answer.status in {301, 308}
        given = answer.headers["location"]
        assert not given.startswith("/")
        assert not urlsplit(given).netloc
        collapsed = urljoin(target.replace("//", "/") + query, given)  # as the library would
        assert collapsed == location.replace("//", "/") + query


async def test_page_redirect_asks_nothing_upstream(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 3. What is only a spelling is decided here."""
    await fetch(teepi.address, "/simple/Foo.Bar")
    assert not upstream.requests


@pytest.mark.parametrize("target", ["/simple/-demo/", "/simple/demo-/", "/simple/de mo/", "/simple/%C3%A4/"])
async def test_page_of_what_is_no_name_is_404_and_asked_nowhere(teepi: Teepi, upstream: Upstream, target: str) -> None:
    """Contract 36. A name that no project can have ends here, with a sentence."""
    answer = await fetch(teepi.address, target.replace(" ", "%20"))
    assert answer.status == 404
    assert is_sentence(answer)
    assert not upstream.requests


async def test_page_of_an_unknown_index_is_404_with_a_sentence(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 36. The sentence says which indexes there are."""
    for target in ("/root/other/+simple/demo/", "/root/other/+simple/", "/root/other/+files/x.example/demo-1.0.tar.gz"):
        answer = await fetch(teepi.address, target)
        assert answer.status == 404
        assert is_sentence(answer)
        assert b"root/pypi" in answer.body
    assert not upstream.requests


# --- links


@pytest.mark.parametrize("accept", [JSON, HTML])
async def test_page_through_any_host_is_byte_for_byte_the_same(teepi: Teepi, accept: str) -> None:
    """Contract 6. Relative links and no <base>: host names, ports and proxies in front do not show."""
    hosts = ("127.0.0.1:3141", "localhost", "cache.example:80", "[::1]:3141")
    answers = [
        await get_page(teepi, accept=accept, Host=host, **{"X-Forwarded-Host": "evil.example"}) for host in hosts
    ]
    assert len({answer.body for answer in answers}) == 1
    assert len({answer.headers["etag"] for answer in answers}) == 1
    assert all(link.startswith("../") for link in raw_links(answers[0]).values())
    assert accept == JSON or not HtmlPage(answers[0].body).has_base


@pytest.mark.parametrize("route", ROUTES)
async def test_page_behind_a_path_prefix_has_links_that_keep_the_prefix(teepi: Teepi, route: str) -> None:
    """Contract 6. A reverse proxy that serves teepi below /a/b/ needs no setting."""
    answer = await fetch(teepi.address, f"{route}demo/", {"Accept": JSON})
    for target in links(answer, f"/a/b{route}demo/").values():
        assert target.startswith("/a/b/root/pypi/+")
        assert (await fetch(teepi.address, target.removeprefix("/a/b"))).status == 200


async def test_page_asked_in_absolute_form_has_the_same_links(teepi: Teepi) -> None:
    """RFC 9112, 3.2.2. Scheme and authority of the target are no folders to climb out of."""
    plain = await get_page(teepi)
    absolute = await fetch(teepi.address, "http://teepi.example/simple/demo/", {"Accept": JSON})
    assert absolute.body == plain.body


async def test_file_link_keeps_the_upstreams_own_path(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 5. A lock file made through teepi becomes upstream's by replacing a prefix."""
    host = upstream.url.removeprefix("http://")
    for accept in (JSON, HTML):
        found = links(await get_page(teepi, accept=accept), "/simple/demo/")
        for name, target in found.items():
            assert target == f"/root/pypi/+http/{host}/packages/demo/{name}"


async def test_file_link_is_answered_without_a_redirect(teepi: Teepi) -> None:
    """Contract 5. Also with .metadata behind it (uv fetches a wheel twice when redirected)."""
    target = links(await get_page(teepi), "/simple/demo/")[DEMO.filename]
    answer = await fetch(teepi.address, target)
    assert (answer.status, answer.body) == (200, DEMO.content)
    answer = await fetch(teepi.address, target + ".metadata")
    assert (answer.status, answer.body) == (200, DEMO.metadata)


async def test_file_target_percent_encoded_as_pip_does_is_the_same_file(teepi: Teepi, upstream: Upstream) -> None:
    """Contract 2. %2B, %3D, %2C and every other spelling lead to one file, fetched once at upstream's own spelling."""
    path = f"/packages/a=b,c/{LOCAL.filename.replace('+', '%2B')}"
    upstream.file(path, LOCAL.content)
    upstream.project("local", {LOCAL.filename: LOCAL.content}, extra={LOCAL.filename: {"url": upstream.url + path}})
    target = links(await get_page(teepi, "local"), "/simple/local/")[LOCAL.filename]
    assert target.endswith(path)
    decoded = target.replace("%2B", "+")
    spellings = (target, decoded, quote(decoded, safe="/"), quote(decoded, safe=""), decoded.replace("p", "%70"))
    for spelling in spellings:
        answer = await fetch(teepi.address, spelling if spelling.startswith("/") else "/" + spelling[3:])
        assert (answer.status, answer.body) == (200, LOCAL.content), spelling
    assert [request.target for request in upstream.seen(path)] == [path]
    assert (await fetch(teepi.address, target.replace("%2B", "%252B"))).status == 404


# --- project list


async def test_project_list_over_http_1_0_is_whole(teepi: Teepi) -> None:
    """A reverse proxy may speak HTTP/1.0, which knows no chunks."""
    answer = await raw(teepi, b"GET /simple/ HTTP/1.0\r\n\r\n")
    assert answer.status == 200
    assert answer.complete
    assert "transfer-encoding" not in answer.headers
    assert b"foo-bar" in answer.body


@pytest.mark.parametrize(("status", "answered"), [(404, 404), (403, 503), (429, 503), (500, 503), (504, 503)])
async def test_project_list_that_upstream_refuses_is_an_error_of_ours(
    teepi: Teepi, upstream: Upstream, status: int, answered: int
) -> None:
    """Contract 35. What upstream thinks of teepi is not passed on to the client."""
    upstream.script("/simple/", [Status(status)])
    answer = await fetch(teepi.address, "/simple/")
    assert answer.status == answered
    assert is_sentence(answer)


def at(upstream: Upstream) -> tuple[str, int]:
    """Return where ``upstream`` listens."""
    host, port = upstream.url.removeprefix("http://").split(":")
    return host, int(port)


# --- aliases of files


@pytest.mark.parametrize("suffix", ["", ".metadata"])
async def test_packages_alias_of_a_file_on_a_page_not_seen_yet_looks_once(
    teepi: Teepi, upstream: Upstream, suffix: str
) -> None:
    """Design 5. The layout that lock-file rewriting expects works cold: one look at the page of the file's project."""
    target = f"/packages/demo/{DEMO.filename}{suffix}"
    answer = await fetch(teepi.address, target)
    assert (answer.status, answer.body) == (200, DEMO.metadata if suffix else DEMO.content)
    assert [request.path for request in upstream.requests] == ["/simple/demo/", target]


async def test_packages_alias_that_no_page_links_to_is_404_after_one_look(teepi: Teepi, upstream: Upstream) -> None:
    """Design 5. Upstream has such a file, but it was never linked to, hence never asked for."""
    path = "/packages/demo/demo-9.9.tar.gz"
    upstream.file(path, b"not for you")
    for _ in range(3):
        answer = await fetch(teepi.address, path)
        assert answer.status == 404
        assert is_sentence(answer)
    assert [request.path for request in upstream.requests] == ["/simple/demo/"]


async def test_packages_alias_of_two_hosts_is_404_and_says_how_to_choose(teepi: Teepi, upstream: Upstream) -> None:
    """Design 5. With one path on two hosts neither is right; each is right under its own host."""
    path = f"/packages/demo/{DEMO.filename}"
    second = Upstream()
    await second.start()
    try:
        second.file(path, LOCAL.content)
        files = [
            {
                "filename": DEMO.filename,
                "url": host.url + path,
                "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
            }
            for host, content in ((upstream, DEMO.content), (second, LOCAL.content))
        ]
        upstream.project("demo", {DEMO.filename: DEMO.content}, page_extra={"files": files})
        answer = await fetch(teepi.address, path)
        assert answer.status == 404
        assert is_sentence(answer)
        assert b"/root/pypi/+files/" in answer.body
        for host, content in ((upstream, DEMO.content), (second, LOCAL.content)):
            target = f"/root/pypi/+http/{host.url.removeprefix('http://')}{path}"
            assert (await fetch(teepi.address, target)).body == content
    finally:
        await second.stop()


@pytest.mark.parametrize("plus", ["+f", "%2Bf"])
async def test_digest_url_gives_the_file_and_its_metadata(teepi: Teepi, plus: str) -> None:
    """Contract 2, design 5. devpi's file URL, by sha256 prefix and name; cold as well; immutable by its digest."""
    target = f"/root/pypi/{plus}/{DEMO.sha256[:3]}/{DEMO.sha256[3:16]}/{DEMO.filename}"
    answer = await fetch(teepi.address, target)
    assert (answer.status, answer.body) == (200, DEMO.content)
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["etag"] == f'"{DEMO.sha256}"'
    answer = await fetch(teepi.address, target + ".metadata")
    assert (answer.status, answer.body) == (200, DEMO.metadata)


async def test_digest_url_with_another_digest_or_name_is_404(teepi: Teepi, upstream: Upstream) -> None:
    """Design 5. Digest and name must both be those of one file."""
    other = "0" * 16
    for digest, name in ((other, DEMO.filename), (DEMO.sha256, "demo-2.0.tar.gz"), (DEMO.sha256, LOCAL.filename)):
        answer = await fetch(teepi.address, f"/root/pypi/+f/{digest[:3]}/{digest[3:16]}/{quote(name)}")
        assert answer.status == 404
        assert is_sentence(answer)
    assert not [request for request in upstream.requests if request.path != "/simple/demo/"]


@pytest.mark.parametrize("name", ["demo", "Demo"])
@pytest.mark.parametrize("suffix", ["", ".metadata"])
async def test_proxpi_url_gives_the_file_and_its_metadata(
    teepi: Teepi, upstream: Upstream, name: str, suffix: str
) -> None:
    """Issue 3. ``/index/NAME/FILE``, cold, after one look at the page, without a redirect."""
    answer = await fetch(teepi.address, f"/index/{name}/{DEMO.filename}{suffix}")
    assert (answer.status, answer.body) == (200, DEMO.metadata if suffix else DEMO.content)
    asked = ["/simple/demo/", f"/packages/demo/{DEMO.filename}{suffix}"]
    assert [request.path for request in upstream.requests] == asked
    encoded = quote(LOCAL.filename, safe="")
    assert (await fetch(teepi.address, f"/index/{name}/{encoded}")).body == LOCAL.content


@pytest.mark.parametrize(
    "filename", ["demo-9.9.tar.gz", "foo_bar-1.0.tar.gz", "readme", "demo-9.9-py3-none-any.whl.metadata"]
)
async def test_proxpi_url_of_what_the_page_lacks_is_404_after_one_look(
    teepi: Teepi, upstream: Upstream, filename: str
) -> None:
    """Issue 3. A file of another project is none of this one; upstream is never asked for a guess."""
    for _ in range(3):
        answer = await fetch(teepi.address, f"/index/demo/{quote(filename)}")
        assert answer.status == 404
        assert is_sentence(answer)
    assert [request.path for request in upstream.requests] == ["/simple/demo/"]
    assert (await fetch(teepi.address, "/index/none/none-1.0.tar.gz")).status == 404


async def test_proxpi_url_works_offline_for_what_is_cached(teepi: Teepi) -> None:
    """Issue 3. Also after a restart; what is not known is 503 there."""
    target = f"/index/demo/{DEMO.filename}"
    assert (await fetch(teepi.address, target)).status == 200
    again = await teepi.restarted(offline=True)
    try:
        assert (await fetch(again.address, target)).body == DEMO.content
        assert (await fetch(again.address, "/index/demo/demo-9.9.tar.gz")).status == 503
        assert (await fetch(again.address, "/index/none/none-1.0.tar.gz")).status == 503
    finally:
        await again.stop()


# --- what must not get through (faults.md 17)

_UNREADABLE_TARGETS = [
    b"/simple/../../etc/passwd",
    b"/simple/%2e%2e/%2e%2e/etc/passwd",
    b"/simple/.%2E/demo/",
    b"/simple/./demo/",
    b"/root/pypi/+files/../../../etc/passwd",
    b"/root/pypi/+files/files.example/%2e%2e/demo-1.0.tar.gz",
    b"/packages/..%2fdemo-1.0.tar.gz",
    b"/packages/..%5cdemo-1.0.tar.gz",
    b"/simple/de%5cmo/",
    b"/\\evil.example/simple/demo",
    b"/simple/demo\\",
    b"/simple/demo%00/",
    b"/packages/demo-1.0.tar.gz%00.metadata",
    b"/simple/demo%0d%0aSet-Cookie:%20a=b",
    b"/simple/Demo%0aLocation:%20http:%2f%2fevil.example/",
    b"/simple/%ff/",
    b"/simple/demo%C2%85/",
    b"/simple/\xff/",
    b"/simple/Demo?\xff",
    b"/simple/Demo\x01",
    b"/simple/Demo?" + b"q" * 20_000,
    b"ftp://teepi.example/simple/demo/",
    b"teepi.example:80",
    b"simple/demo/",
    b"*",
]


@pytest.mark.parametrize("target", _UNREADABLE_TARGETS, ids=lambda target: ascii(target[:60])[2:-1])
async def test_target_that_is_unsafe_or_unreadable_is_400(teepi: Teepi, upstream: Upstream, target: bytes) -> None:
    """Fault 17, contract 19. A sentence, the end of the connection, and nothing asked upstream."""
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(b"GET " + target + b" HTTP/1.1\r\nHost: teepi.example\r\n\r\n")
        answer = await client.read_answer()
        assert await client.read_to_end() == (b"", "fin")
    assert answer.status == 400
    assert is_sentence(answer)
    assert "location" not in answer.headers
    assert "set-cookie" not in answer.headers
    assert not upstream.requests


_ODD_TARGETS = [
    b"//evil.example/",
    b"//evil.example/simple/demo",
    b"///evil.example",
    b"//simple/demo/",
    b"/simple/foo%2fbar/",
    b"/simple/http:%2f%2fevil.example",
    b"/simple/http://evil.example/",
    b"/%2f%2fevil.example/%2fsimple",
    b"/simple/demo#//evil.example",
    b"/simple/%252e%252e/",
    b"/simple/" + b"a" * 10_000 + b"/",
    b"/simple/" + b"A" * 10_000,
    b"/packages/" + b"a" * 10_000 + b"-1.0.tar.gz",
    b"/packages/" + b"a/" * 5_000,
    b"/root/pypi/+files/" + b"a" * 10_000,
    b"/root/pypi/+f/000/0000000000000/",
    b"/root/pypi/+e/",
    b"/http://evil.example/",
    b"http://evil.example//evil.example/",
]


@pytest.mark.parametrize("target", _ODD_TARGETS, ids=lambda target: ascii(target[:60])[2:-1])
async def test_target_that_means_nothing_here_is_404(teepi: Teepi, upstream: Upstream, target: bytes) -> None:
    """Fault 17. Readable, but nothing of ours: no redirect, a short sentence, nothing asked upstream."""
    answer = await raw(teepi, b"GET " + target + b" HTTP/1.1\r\nHost: teepi.example\r\n\r\n")
    assert answer.status == 404
    assert is_sentence(answer)
    assert "location" not in answer.headers
    assert not upstream.requests


@pytest.mark.parametrize(
    "target",
    [
        b"/simple//evil.example",
        b"/simple//evil.example/",
        b"/simple/evil.example?//x/%0d%0aSet-Cookie:a=b",
        b"/simple/Demo?http://evil.example",
        b"/simple?//evil.example",
        b"http://evil.example/simple/Demo",
        b"http://evil.example/simple?x",
    ],
)
async def test_redirect_never_leaves_the_host_or_splits_the_head(teepi: Teepi, target: bytes) -> None:
    """Fault 17, contract 38. Wherever a redirect leads, it is relative and on one line."""
    answer = await raw(teepi, b"GET " + target + b" HTTP/1.1\r\nHost: teepi.example\r\n\r\n")
    assert answer.status == 301
    location = urlsplit(answer.headers["location"])
    assert (location.scheme, location.netloc) == ("", "")
    assert not location.path.startswith("/")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "path", ["//files.example/demo-1.0.tar.gz", "/files.example//demo-1.0.tar.gz", "/files.example/simple/demo/"]
)
async def test_file_target_that_no_page_links_to_is_never_asked_upstream(
    teepi: Teepi, upstream: Upstream, path: str
) -> None:
    """Fault 17. teepi is no open proxy: of a host only what a page has linked to is asked, never a URL made up."""
    for kind in ("+files", "+http", "+e"):
        answer = await fetch(teepi.address, f"/root/pypi/{kind}{path}")
        assert answer.status == 404
        assert is_sentence(answer)
    assert {request.path for request in upstream.requests} <= {"/simple/demo/"}


# --- Host

_ODD_HOSTS = [
    b"Host:\r\n",
    b"Host: \xff\r\n",
    b"Host: <script>alert(1)</script>\r\n",
    b"Host: $(reboot)\r\n",
    b"Host: evil.example@x/..\r\n",
    b"Host: [::1\r\n",
    b"Host: " + b"h" * 5000 + b"\r\n",
]


@pytest.mark.parametrize("host", _ODD_HOSTS, ids=lambda host: ascii(host[:30])[2:-1])
async def test_host_that_is_odd_changes_nothing_and_is_not_repeated(teepi: Teepi, host: bytes) -> None:
    """Fault 17. Pages and redirects do not depend on it; the lines to paste name the address instead."""
    page = await raw(teepi, b"GET /simple/demo/ HTTP/1.1\r\n" + host + b"\r\n")
    assert page.body == (await fetch(teepi.address, "/simple/demo/")).body
    redirect = await raw(teepi, b"GET /simple/Demo HTTP/1.1\r\n" + host + b"\r\n")
    assert redirect.headers["location"] == "demo/"
    root = await raw(teepi, b"GET / HTTP/1.1\r\n" + host + b"\r\n")
    assert root.status == 200
    assert b"PIP_INDEX_URL=%b/root/pypi/+simple/ " % teepi.url.encode() in root.body


@pytest.mark.parametrize("hosts", [b"", b"Host: a.example\r\nHost: b.example\r\n", b"Host: a\x00b\r\n"])
async def test_host_missing_twice_or_broken_is_400(teepi: Teepi, hosts: bytes) -> None:
    """Fault 17. RFC 9112, 3.2 demands exactly one of HTTP/1.1 clients."""
    answer = await raw(teepi, b"GET /simple/demo/ HTTP/1.1\r\n" + hosts + b"\r\n")
    assert answer.status == 400
    assert is_sentence(answer)


async def test_host_missing_over_http_1_0_is_served(teepi: Teepi) -> None:
    """HTTP/1.0 knows no Host, and nobody is asked for the name of this machine."""
    page = await raw(teepi, b"GET /simple/demo/ HTTP/1.0\r\n\r\n")
    assert page.status == 200
    assert page.body == (await fetch(teepi.address, "/simple/demo/")).body
    root = await raw(teepi, b"GET / HTTP/1.0\r\n\r\n")
    assert teepi.url.encode() in root.body


async def test_root_names_the_host_that_was_asked(teepi: Teepi) -> None:
    """The lines to paste work where they are read: in a container, or under another name."""
    for host in ("cache.example:8080", "[::1]:3141", "localhost"):
        assert f"http://{host}/root/pypi/+simple/".encode() in (await fetch(teepi.address, "/", {"Host": host})).body


# --- methods


@pytest.mark.parametrize(
    "target", ["/simple/demo/", "/simple/", "/simple/Demo", "/packages/x", "/healthz", "/", "/+nowhere"]
)
async def test_method_that_is_not_taken_is_405_with_allow_and_a_sentence(
    teepi: Teepi, upstream: Upstream, target: str
) -> None:
    """Contract 36. Also where nothing is; twine shows the reason phrase alone; the body is no next request."""
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        async with await RawClient.connect(teepi.address) as client:
            body = b"GET /+status HTTP/1.1\r\nHost: x\r\n\r\n"
            head = f"{method} {target} HTTP/1.1\r\nHost: teepi.example\r\nContent-Length: {len(body)}\r\n\r\n"
            await client.send_bytes(head.encode() + body)
            answer = await client.read_answer()
            assert answer.status == 405
            assert is_sentence(answer)
            assert answer.head.reason == answer.body.decode().strip()
            assert answer.headers["allow"] == "GET, HEAD"
            assert (await client.get("/healthz")).body == b"ok\n"
    assert not upstream.requests


async def test_error_of_every_status_is_a_sentence_that_nobody_stores(
    teepi: Teepi, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract 19 and 36. Whatever goes wrong, a defect of teepi included, whose words go to the log alone."""
    target = links(await get_page(teepi), "/simple/demo/")[DEMO.filename]
    upstream.script("/simple/broken/", [Status(500)])
    upstream.file("/simple/broken/", b"")
    cases: list[tuple[int, str, str, dict[str, str]]] = [
        (400, "GET", "/simple/%00/", {}),
        (404, "GET", "/simple/none/", {}),
        (404, "GET", "/nowhere", {}),
        (404, "HEAD", "/nowhere", {}),
        (405, "PUT", "/simple/demo/", {}),
        (406, "GET", "/simple/demo/", {"Accept": "image/png"}),
        (416, "GET", target, {"Range": "bytes=99999999-"}),
        (503, "GET", "/simple/broken/", {}),
        (500, "GET", "/+status", {}),
    ]
    monkeypatch.setattr("teepi.web.ops.OpsHandlers.status", None)
    for status, method, path, headers in cases:
        answer = await fetch(teepi.address, path, headers, method)
        assert answer.status == status, path
        assert answer.headers["cache-control"] == "no-store", path
        assert method == "HEAD" or is_sentence(answer), path


@pytest.mark.parametrize("line", [b"BREW /simple/demo/ HTTP/1.1", b"CONNECT evil.example:443 HTTP/1.1", b"GET"])
async def test_request_line_that_is_none_of_http_1_is_400(teepi: Teepi, line: bytes) -> None:
    """Contract 19 and 36. Also what the HTTP parser refuses is told in a sentence that nobody stores."""
    answer = await raw(teepi, line + b"\r\nHost: teepi.example\r\n\r\n")
    assert answer.status == 400
    assert is_sentence(answer)


@pytest.mark.parametrize("target", ["/simple/demo/", "/simple/", "/simple/Demo", "/nowhere"])
async def test_head_is_answered_as_get_without_the_body(teepi: Teepi, target: str) -> None:
    """RFC 9110, 9.3.2. Status and headers are those of GET, and the connection goes on."""
    async with await RawClient.connect(teepi.address) as client:
        expected = await client.get(target)
        answer = await client.get(target, method="HEAD")
        volatile = {"date", "cache-status", "transfer-encoding", "x-request-id"}
        assert answer.status == expected.status
        assert {k: v for k, v in answer.headers.items() if k not in volatile} == {
            k: v for k, v in expected.headers.items() if k not in volatile
        }
        assert (await client.get("/healthz")).body == b"ok\n"


# --- heads and connections


async def test_head_of_8_kib_passes(teepi: Teepi) -> None:
    """Contract 38. In one header, in many, and in the target."""
    padding = "x" * 8192
    many = {f"X-Padding-{number}": "y" * 80 for number in range(90)}
    assert (await fetch(teepi.address, "/simple/demo/", {"X-Padding": padding})).status == 200
    assert (await fetch(teepi.address, "/simple/demo/", many)).status == 200
    assert (await fetch(teepi.address, f"/simple/demo/?{padding}")).status == 200


async def test_connection_carries_93_requests_without_a_user_agent(teepi: Teepi) -> None:
    """Contract 38. pip's serial requests: pages, redirects, 404s and files on one connection."""
    async with await RawClient.connect(teepi.address) as client:
        target = links(await client.get("/simple/demo/"), "/simple/demo/")[DEMO.filename]
        for number in range(92):
            wanted, status = (("/simple/demo/", 200), ("/simple/Demo", 301), ("/nowhere", 404), (target, 200))[
                number % 4
            ]
            answer = await client.get(wanted)
            assert (answer.status, answer.complete) == (status, True)
            assert answer.headers.get("connection", "keep-alive") == "keep-alive"


async def test_connection_may_idle_75_seconds(teepi: Teepi) -> None:
    """Contract 38. The timer that an idle connection gets is set far enough ahead."""
    async with await RawClient.connect(teepi.address) as client:
        await client.get("/healthz")
        http = teepi.server._http  # noqa: SLF001 - waiting for it would take 75 s
        assert http is not None
        [connection] = http.connections
        assert connection._keepalive_timeout >= 75  # noqa: SLF001 - the same
