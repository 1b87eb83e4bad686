"""Settings of one upstream: credentials and headers go to its own origin alone, mirrors take over, proxies are used."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from teepi.index_settings import IndexSettings
from teepi.origins import basic
from tests.http.links import file_target, get_page, is_sentence, links
from tests.http.named import give_names, named
from tests.http.scene import CALM
from tests.support.clients import fetch
from tests.support.faults import EarlyEnd, HangBeforeHead, Redirect, Replace, Reset, Status
from tests.support.projects import JSON
from tests.support.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.support.exchange import Request

NAME = "demo-1.0.tar.gz"
CONTENT = bytes(range(256)) * 2048
PATH = f"/packages/demo/{NAME}"
PAGE = "/simple/demo/"
HEADERS = {"X-Team": "team-secret"}
AUTHORIZATION = basic("user", "pa/ss word")
SECRETS = (b"team-secret", b"pa/ss", b"pa%2Fss", AUTHORIZATION.encode())


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the scripted upstreams names."""
    give_names(monkeypatch)


@pytest.fixture
async def second() -> AsyncIterator[Upstream]:
    """Give another scripted upstream."""
    server = Upstream()
    await server.start()
    yield server
    await server.stop()


def secret_index(upstream: Upstream) -> dict[str, Any]:
    """Return the settings of an index with credentials and an extra header."""
    url = named("index.example", upstream).replace("//", "//user:pa%2Fss%20word@") + "/simple/"
    return {"upstream": url, "headers": HEADERS, "allow_private": True}


def is_told(request: Request) -> bool:
    """Whether a request carries both secrets; it must carry both or none."""
    told = [request.headers.get("authorization") == AUTHORIZATION, request.headers.get("x-team") == HEADERS["X-Team"]]
    assert told[0] == told[1] == ("authorization" in request.headers)
    return told[0]


async def test_credentials_and_headers_go_to_pages_files_and_heads_of_the_own_origin(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Issue 3. Pages, files, ranges, HEAD and the project list of a private upstream need them."""
    upstream.project("demo", {NAME: CONTENT}, links="rooted", size=False)
    teepi = await make_teepi(index=secret_index(upstream))
    target = await file_target(teepi, NAME)
    for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-3"}), ("GET", {})):
        assert (await fetch(teepi.address, target, headers, method)).status in {200, 206}
    assert (await fetch(teepi.address, "/simple/")).status == 200
    assert len(upstream.requests) == 5
    assert all(map(is_told, upstream.requests))


async def test_credentials_and_headers_never_go_to_another_origin(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 16. Another port, another name at the same place, by a link or by a redirect: told nothing."""
    upstream.project("demo", {NAME: CONTENT}, files_at=second)
    alias = "/packages/alias/alias-1.0.tar.gz"
    upstream.project("alias", {"alias-1.0.tar.gz": b"alias"}, extra={
        "alias-1.0.tar.gz": {"url": named("other.example", upstream) + alias}
    })  # fmt: skip
    upstream.project("moved", {"moved-1.0.tar.gz": b"moved"}, links="rooted")
    moved = "/packages/moved/moved-1.0.tar.gz"
    second.file(moved, b"moved")
    upstream.script(moved, [Redirect(named("index.example", second) + moved)])
    teepi = await make_teepi(index=secret_index(upstream))
    for project in ("demo", "alias", "moved"):
        name = f"{project}-1.0.tar.gz"
        assert (await fetch(teepi.address, await file_target(teepi, name, project))).status == 200
    assert {request.path: is_told(request) for request in upstream.requests} == {
        PAGE: True,
        "/simple/alias/": True,
        "/simple/moved/": True,
        alias: False,
        moved: True,
    }
    assert [request.path for request in second.requests] == [PATH, moved]
    assert not any(map(is_told, second.requests))


async def test_credentials_come_back_after_a_redirect_through_another_origin(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 16. Each hop is judged by its own origin; user info in a redirect is not believed."""
    upstream.project("demo", {NAME: CONTENT})
    upstream.script(PAGE, [Redirect(named("other.example", second).replace("//", "//x:y@") + "/hop")])
    second.script("/hop", [Redirect(named("index.example", upstream) + PAGE)])
    second.file("/hop", b"")
    teepi = await make_teepi(index=secret_index(upstream))
    assert (await get_page(teepi)).status == 200
    assert [is_told(request) for request in (*upstream.requests, *second.requests)] == [True, True, False]


async def test_user_info_of_a_link_goes_no_further_than_its_own_hop(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 16. What a page's link carries is for that link's host, not for where it redirects."""
    link = named("other.example", upstream).replace("//", "//a:b@") + PATH
    upstream.project("demo", {NAME: CONTENT}, extra={NAME: {"url": link}})
    upstream.script(PATH, [Redirect(named("other.example", second) + PATH)])
    second.file(PATH, CONTENT)
    teepi = await make_teepi(index={"allow_private": True})
    assert (await fetch(teepi.address, await file_target(teepi, NAME))).body == CONTENT
    assert upstream.seen(PATH)[0].headers["authorization"] == basic("a", "b")
    assert "authorization" not in second.seen(PATH)[0].headers


async def test_credentials_are_in_no_error_log_or_file(
    upstream: Upstream, make_teepi: MakeTeepi, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 3. Whatever fails says where and why, and never with what."""
    caplog.set_level(logging.DEBUG)
    upstream.project("demo", {NAME: CONTENT}, links="rooted")
    teepi = await make_teepi(index=secret_index(upstream))
    target = await file_target(teepi, NAME)
    upstream.script(PATH, itertools.repeat(Status(403)))
    upstream.script("/simple/none/", [Status(500)])
    upstream.script("/simple/loop/", itertools.repeat(Redirect("/simple/loop/")))
    answers = [await fetch(teepi.address, target)]
    answers += [await get_page(teepi, name) for name in ("none", "loop", "absent")]
    await upstream.stop()
    answers += [await fetch(teepi.address, target), await get_page(teepi, "other")]
    assert [answer.status for answer in answers] == [503, 503, 503, 404, 503, 503]
    assert all(map(is_sentence, answers))
    said = b"\n".join(answer.body for answer in answers) + caplog.text.encode()
    kept = b"\n".join(path.read_bytes() for path in teepi.settings.cache_dir.rglob("*") if path.is_file())
    assert not [secret for secret in SECRETS if secret in said + kept + repr(teepi.settings).encode()]


# -- mirrors -----------------------------------------------------------------------------------------


def mirrored(upstream: Upstream, second: Upstream) -> dict[str, Any]:
    """Return the settings of an index with two mirrors."""
    return {"more_mirrors": (second.index_url,), "upstream": upstream.index_url}


@pytest.mark.parametrize("failure", [Status(500), Status(503), Reset("head"), HangBeforeHead()])
async def test_page_of_a_mirror_that_fails_comes_from_the_next(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, failure: Any
) -> None:
    """Issue 3. The first that answers is enough, and the others are not asked."""
    for host in (upstream, second):
        host.project("demo", {NAME: CONTENT})
    upstream.script(PAGE, itertools.repeat(failure))
    teepi = await make_teepi(index=mirrored(upstream, second))
    assert (await get_page(teepi)).status == 200
    assert second.count("GET", PAGE) == 1


async def test_page_is_revalidated_at_another_mirror_without_the_validators_of_the_first(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Issue 3. While the first answers the next is not asked; the ETag of one means nothing to another."""
    for host in (upstream, second):
        host.project("demo", {NAME: CONTENT})
    teepi = await make_teepi(index=mirrored(upstream, second), page_ttl_seconds=0)
    for _ in range(2):
        assert (await get_page(teepi)).status == 200
    assert second.requests == []
    assert "if-none-match" in upstream.requests[1].headers
    upstream.script(PAGE, itertools.repeat(Status(500)))
    for _ in range(2):
        answer = await get_page(teepi)
        assert (answer.status, "stale;" in answer.headers["cache-status"]) == (200, False)
    assert ["if-none-match" in request.headers for request in second.seen(PAGE)] == [False, True]


async def test_page_is_404_only_when_every_mirror_says_so(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Contract 34. One mirror that lags or fails makes no project vanish."""
    second.project("demo", {NAME: CONTENT})
    teepi = await make_teepi(index=mirrored(upstream, second))
    assert (await get_page(teepi)).status == 200
    assert (await get_page(teepi, "none")).status == 404
    second.script("/simple/half/", itertools.repeat(Status(500)))
    assert (await get_page(teepi, "half")).status == 503
    upstream.script("/simple/other/", itertools.repeat(Status(500)))
    assert (await get_page(teepi, "other")).status == 503


async def test_file_goes_on_from_another_mirror_in_mid_file(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Contract 30. With a digest, what broke off at one mirror is completed from the same path of the next."""
    for host in (upstream, second):
        host.project("demo", {NAME: CONTENT})
    teepi = await make_teepi(CALM, index=mirrored(upstream, second))
    target = await file_target(teepi, NAME)
    upstream.script(PATH, [EarlyEnd(100_000), *[Status(404)] * 9])
    assert (await fetch(teepi.address, target)).body == CONTENT
    assert second.ranges(PATH) == ["bytes=100000-"]


async def test_file_whose_mirror_is_gone_comes_whole_from_another(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Issue 3. The page is cached, its host is away: the next mirror has the same path."""
    for host in (upstream, second):
        host.project("demo", {NAME: CONTENT})
    teepi = await make_teepi(index=mirrored(upstream, second))
    target = await file_target(teepi, NAME)
    await upstream.stop()
    assert (await fetch(teepi.address, target)).body == CONTENT


async def test_file_without_a_digest_is_asked_of_its_own_url_only(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 13. Nothing would tell whether another mirror's bytes are the same."""
    for host in (upstream, second):
        host.project("demo", {NAME: CONTENT}, sha256=False)
    teepi = await make_teepi(index=mirrored(upstream, second))
    target = await file_target(teepi, NAME)
    await upstream.stop()
    assert (await fetch(teepi.address, target)).status == 503
    assert second.requests == []


async def test_file_wrong_at_another_mirror_completes_for_nobody(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Contract 32. A mirror is believed no more than the first one: the digest decides."""
    for host in (upstream, second):
        host.project("demo", {NAME: CONTENT})
    second.script(PATH, [Replace(b"x" * len(CONTENT))])
    upstream.script(PATH, [Status(500)])
    teepi = await make_teepi(index=mirrored(upstream, second))
    target = await file_target(teepi, NAME)
    assert not (await fetch(teepi.address, target)).complete
    answer = await fetch(teepi.address, target)
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(CONTENT).digest()


@pytest.mark.parametrize("failure", [Status(404), Status(500), HangBeforeHead()])
async def test_range_of_a_mirror_that_fails_comes_from_the_next(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, failure: Any
) -> None:
    """Contract 24 and 25. Each is asked once, for that range alone; a mirror that answers is enough."""
    for host in (upstream, second):
        host.project("demo", {NAME: CONTENT})
    teepi = await make_teepi(index=mirrored(upstream, second))
    target = await file_target(teepi, NAME)
    for asked in ("bytes=5-9", "bytes=-7"):
        answer = await fetch(teepi.address, target, {"Range": asked})
        assert (answer.status, second.requests) == (206, [])
    upstream.script(PATH, [failure])
    answer = await fetch(teepi.address, target, {"Range": "bytes=100-199"})
    assert (answer.status, answer.body) == (206, CONTENT[100:200])
    assert upstream.ranges(PATH) == ["bytes=5-9", "bytes=-7", "bytes=100-199"]
    assert second.ranges(PATH) == ["bytes=100-199"]


async def test_head_of_a_file_whose_mirror_is_gone_is_asked_of_the_next(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Contract 22. Of a file whose size no page tells; 404 only when every mirror says so."""
    for host in (upstream, second):
        host.project("demo", {NAME: CONTENT}, size=False)
    teepi = await make_teepi(index=mirrored(upstream, second))
    target = await file_target(teepi, NAME)
    assert (await fetch(teepi.address, target, method="HEAD")).status == 200
    assert (upstream.count("HEAD", PATH), second.count("HEAD", PATH)) == (1, 0)
    upstream.remove(PATH)
    answer = await fetch(teepi.address, target, method="HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(CONTENT)))
    assert (upstream.count("HEAD", PATH), second.count("HEAD", PATH)) == (2, 1)
    second.remove(PATH)
    assert (await fetch(teepi.address, target, method="HEAD")).status == 404
    await upstream.stop()
    assert (await fetch(teepi.address, target, method="HEAD")).status == 503


async def test_range_and_head_without_a_digest_are_asked_of_their_own_url_only(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Fault 13. Parts of two files would make one that nobody published."""
    for host in (upstream, second):
        host.project("demo", {NAME: CONTENT}, sha256=False, size=False)
    teepi = await make_teepi(index=mirrored(upstream, second))
    target = await file_target(teepi, NAME)
    await upstream.stop()
    assert (await fetch(teepi.address, target, method="HEAD")).status == 503
    assert (await fetch(teepi.address, target, {"Range": "bytes=0-9"})).status == 503
    assert second.requests == []


_LIST = "/simple/"


@pytest.mark.parametrize(
    "failure", [Status(404), Status(500), HangBeforeHead(), EarlyEnd(20), Status(200, body=b"<form><input></form>")]
)
async def test_project_list_of_a_mirror_that_fails_comes_whole_from_the_next(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, failure: Any
) -> None:
    """Issue 3. Also when the first breaks off in the middle: nothing of it is in the answer."""
    upstream.project("early", {NAME: CONTENT})
    second.project("late", {NAME: CONTENT})
    upstream.script(_LIST, [failure])
    teepi = await make_teepi(index=mirrored(upstream, second))
    answer = await fetch(teepi.address, _LIST, {"Accept": JSON})
    assert [project["name"] for project in json.loads(answer.body)["projects"]] == ["late"]
    assert (upstream.count("GET", _LIST), second.count("GET", _LIST)) == (1, 1)


async def test_project_list_is_revalidated_with_the_validators_of_its_own_mirror(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi
) -> None:
    """Issue 3. The first is asked first again, without the other's ETag; the list survives a restart."""
    for host in (upstream, second):
        host.file(_LIST, b'{"meta":{"api-version":"1.0"},"projects":[{"name":"demo"}]}', content_type=JSON)
    upstream.script(_LIST, [Status(500), Status(500)])
    teepi = await make_teepi(index=mirrored(upstream, second), page_ttl_seconds=0)
    for _ in range(3):
        assert (await fetch(teepi.address, _LIST, {"Accept": JSON})).status == 200
    assert ["if-none-match" in request.headers for request in upstream.seen(_LIST)] == [False, False, False]
    assert [request.status for request in second.seen(_LIST)] == [200, 304]
    again = await teepi.restarted()
    try:
        assert (await fetch(again.address, _LIST, {"Accept": JSON})).status == 200
    finally:
        await again.stop()
    assert [request.status for request in upstream.seen(_LIST)] == [500, 500, 200, 304]


# -- the rest ----------------------------------------------------------------------------------------


async def test_page_ttl_of_an_index_goes_before_the_general_one(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Issue 3. A nightly index may be asked more often than the rest."""
    upstream.project("demo", {NAME: CONTENT})
    indexes = {
        "root/pypi": IndexSettings(upstream.index_url, page_ttl_seconds=0.0),
        "corp/main": IndexSettings(upstream.index_url),
    }
    teepi = await make_teepi(indexes=indexes)
    for target, count in (("/simple/demo/", 3), ("/corp/main/+simple/demo/", 1)):
        before = upstream.count("GET", PAGE)
        for _ in range(3):
            assert (await fetch(teepi.address, target)).status == 200
        assert upstream.count("GET", PAGE) - before == count


async def test_proxy_of_an_index_goes_before_the_environment(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 3. ``second`` is a proxy here: it sees absolute URLs, and the password meant for it alone."""
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    upstream.project("demo", {NAME: CONTENT})
    page = "http://unresolvable.example/simple/demo/"
    second.file(page, b'{"meta": {"api-version": "1.0"}, "name": "demo", "files": []}', content_type="application/json")
    proxy = second.url.replace("//", "//user:pw@")
    cases: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("a", "http://127.0.0.1:9/", {"upstream": "http://unresolvable.example/simple/", "proxy": proxy}),
        ("b", proxy, {"upstream": "http://unresolvable.example/simple/"}),
        ("c", "http://127.0.0.1:9/", {"upstream": upstream.index_url, "proxy": ""}),
    )
    for name, variable, index in cases:
        monkeypatch.setenv("http_proxy", variable)
        teepi = await make_teepi(indexes={"root/pypi": IndexSettings(), f"corp/{name}": IndexSettings(**index)})
        assert (await fetch(teepi.address, f"/corp/{name}/+simple/demo/")).status == 200
        await teepi.stop()
    assert [request.headers.get("proxy-authorization") for request in second.seen(page)] == [basic("user", "pw")] * 2
    assert upstream.count("GET", PAGE) == 1


@pytest.fixture
async def signed(tmp_path: Path) -> AsyncIterator[Upstream]:
    """Give an upstream that speaks https, with ``right.pem`` of its authority and ``wrong.pem`` of another."""
    context, authority = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "right.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "wrong.pem")
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = Upstream(context)
    await server.start()
    yield server
    await server.stop()


async def test_upstream_signed_by_an_own_authority_is_reached_with_its_ca_file_only(
    signed: Upstream, make_teepi: MakeTeepi, tmp_path: Path
) -> None:
    """Issue 3. Pages and files; without the file, or with another authority's, one sentence that names the remedy."""
    signed.project("demo", {NAME: CONTENT})
    files = {"right": tmp_path / "right.pem", "wrong": tmp_path / "wrong.pem", "none": None}
    indexes = {f"corp/{name}": IndexSettings(signed.index_url, ca_file=file) for name, file in files.items()}
    teepi = await make_teepi(indexes=indexes)
    target = "/corp/right/+simple/demo/"
    page = await fetch(teepi.address, target, {"Accept": JSON})
    assert (await fetch(teepi.address, links(page, target)[NAME])).body == CONTENT
    requests = len(signed.requests)
    for name in ("wrong", "none"):
        answer = await fetch(teepi.address, f"/corp/{name}/+simple/demo/")
        assert (answer.status, is_sentence(answer)) == (503, True)
        assert b"its certificate is not trusted (" in answer.body
        assert b"name that by ca_file" in answer.body
    assert len(signed.requests) == requests


async def test_netrc_is_never_asked_for_hosts_that_upstream_names(
    upstream: Upstream, second: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Fault 16. A page cannot make teepi tell a host the password that the operator keeps for it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password pw\ndefault login user password pw\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    upstream.project("demo", {NAME: CONTENT}, files_at=second)
    teepi = await make_teepi(index={"allow_private": True})
    assert (await fetch(teepi.address, await file_target(teepi, NAME))).status == 200
    assert not [request for request in (*upstream.requests, *second.requests) if "authorization" in request.headers]
