"""Upstreams that are not quite what the standards say: mislabelled pages, links of every kind, old escaping."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from teepi.limits import Limits
from tests.http.links import HTML_V1, HtmlPage, file_target, get_page, is_sentence, json_files, links, sha256
from tests.support.clients import fetch
from tests.support.faults import Fault
from tests.support.projects import HTML, JSON
from tests.support.upstream import Upstream
from tests.support.wheels import sdist, wheel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import MakeTeepi
    from tests.support.exchange import Answer
    from tests.support.projects import Form

PAGE = "/simple/demo/"
DEMO = wheel("demo")
OLD = sdist("demo", "0.9")
PATH = f"/p/{DEMO.filename}"


@dataclass(frozen=True)
class Labelled(Fault):
    """Another Content-Type, or none at all."""

    content_type: str | None

    def alter(self, answer: Answer) -> None:
        """Put the wrong label on."""
        del answer.headers["Content-Type"]
        if self.content_type is not None:
            answer.headers["Content-Type"] = self.content_type


@pytest.fixture
async def cdn() -> AsyncIterator[Upstream]:
    """Give a second host for files."""
    server = Upstream()
    await server.start()
    yield server
    await server.stop()


def put_html(upstream: Upstream, body: str, content_type: str = HTML, encoding: str = "utf-8") -> None:
    """Put an HTML page of ``demo`` upstream, word for word."""
    upstream.file(PAGE, body.encode(encoding), content_type=content_type)


@pytest.mark.parametrize(
    "content_type",
    [HTML, HTML_V1, JSON, "application/json", "application/octet-stream", "text/plain; charset=utf-8", "x", "", None],
)
@pytest.mark.parametrize("form", ["json", "html"])
async def test_page_with_any_content_type_upstream_is_read_by_what_it_is(
    upstream: Upstream, make_teepi: MakeTeepi, form: Form, content_type: str | None
) -> None:
    """Contract 8, 12. The label is wrong or missing; page, file and metadata are right, each asked for once."""
    project = upstream.project(
        "demo", {DEMO.filename: DEMO.content}, form=form, metadata={DEMO.filename: DEMO.metadata}
    )
    upstream.script(PAGE, itertools.repeat(Labelled(content_type)))
    teepi = await make_teepi(Limits())
    for accept in (JSON, HTML_V1, HTML):
        answer = await get_page(teepi, accept=accept)
        assert answer.status == 200
        assert answer.headers["content-type"] == accept
    assert json_files(await get_page(teepi))[DEMO.filename]["core-metadata"] == {"sha256": sha256(DEMO.metadata)}
    target = await file_target(teepi, DEMO.filename)
    assert (await fetch(teepi.address, target)).body == DEMO.content
    assert (await fetch(teepi.address, target + ".metadata")).body == DEMO.metadata
    path = project.path(DEMO.filename)
    assert [upstream.count("GET", each) for each in (PAGE, path, path + ".metadata")] == [1, 1, 1]


@pytest.mark.parametrize(
    "body",
    [
        "<html><title>Down for maintenance</title><a href='/status'>status</a></html>",
        "<!DOCTYPE html><html><body></body></html>",
        "",
        "It works!",
        "[]",
    ],
)
async def test_page_labelled_json_that_is_none_and_has_no_files_is_503(
    upstream: Upstream, make_teepi: MakeTeepi, body: str
) -> None:
    """Contract 34. An error page behind the wrong label is no project without files."""
    put_html(upstream, body, JSON)
    teepi = await make_teepi(Limits())
    answer = await get_page(teepi)
    assert answer.status in {502, 503}
    assert is_sentence(answer)


@pytest.mark.parametrize("accept", [JSON, HTML])
async def test_page_with_links_to_several_hosts_leads_to_each(
    upstream: Upstream, cdn: Upstream, make_teepi: MakeTeepi, accept: str
) -> None:
    """Contract 5, 6. Absolute, without scheme, rooted, climbing and bare: each file from its host, once."""
    hosts = {
        "demo-1.zip": (cdn, "/a/demo-1.zip", f"{cdn.url}/a/demo-1.zip"),
        "demo-2.zip": (cdn, "/b/demo-2.zip", f"//{cdn.url.removeprefix('http://')}/b/demo-2.zip"),
        "demo-3.zip": (upstream, "/c/demo-3.zip", "/c/demo-3.zip"),
        "demo-4.zip": (upstream, "/d/demo-4.zip", "../../d/./demo-4.zip"),
        "demo-5.zip": (upstream, "/simple/demo/demo-5.zip", "demo-5.zip"),
        "demo-6.zip": (upstream, "/simple/e/demo-6.zip", "../e/x/../demo-6.zip"),
    }
    for name, (host, path, _) in hosts.items():
        host.file(path, name.encode())
    put_html(upstream, "".join(f'<a href="{link}">{name}</a>\n' for name, (_, _, link) in hosts.items()))
    teepi = await make_teepi(Limits(), index={"allow_private": True})
    targets = links(await get_page(teepi, accept=accept), PAGE)
    assert list(targets) == list(hosts)
    for name, (host, path, _) in hosts.items():
        answers = [await fetch(teepi.address, targets[name]) for _ in range(2)]
        assert [(answer.status, answer.body) for answer in answers] == [(200, name.encode())] * 2
        assert host.count("GET", path) == 1
        assert targets[name].endswith(path)


@pytest.mark.parametrize("form", ["json", "html"])
async def test_page_with_md5_alone_keeps_it_and_the_file_is_checked_by_it(
    upstream: Upstream, make_teepi: MakeTeepi, form: Form
) -> None:
    """Contract 12, 16. The only digest is shown and decides: a file of another one is not served whole."""
    right, wrong = "9a0364b9e99bb480dd25e1f0284c8555", "0" * 32  # of b"content"
    upstream.project(
        "demo",
        {"demo-1.zip": b"content", "demo-2.zip": b"content"},
        form=form,
        size=False,
        extra={"demo-1.zip": {"hashes": {"md5": right}}, "demo-2.zip": {"hashes": {"md5": wrong}}},
    )
    teepi = await make_teepi(Limits())
    page = await get_page(teepi)
    assert {name: file["hashes"] for name, file in json_files(page).items()} == {
        "demo-1.zip": {"md5": right},
        "demo-2.zip": {"md5": wrong},
    }
    anchors = HtmlPage((await get_page(teepi, accept=HTML)).body).anchors
    assert str(anchors["demo-1.zip"]["href"]).endswith(f"#md5={right}")
    targets = links(page, PAGE)
    assert (await fetch(teepi.address, targets["demo-1.zip"])).body == b"content"
    assert (await fetch(teepi.address, targets["demo-2.zip"])).body != b"content"


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("{cdn}/deep/er/", "/deep/er/demo-1.zip"),
        ("{cdn}/deep/er", "/deep/demo-1.zip"),
        ("{cdn}", "/demo-1.zip"),
        (" {cdn}/deep/ ", "/deep/demo-1.zip"),
        ("//{host}/deep/", "/deep/demo-1.zip"),
    ],
)
async def test_page_with_base_is_resolved_by_it_and_shown_without(
    upstream: Upstream, cdn: Upstream, make_teepi: MakeTeepi, base: str, path: str
) -> None:
    """Contract 6. What upstream's <base> means is in our links; ours has none."""
    cdn.file(path, b"content")
    href = base.format(cdn=cdn.url, host=cdn.url.removeprefix("http://"))
    put_html(upstream, f'<head><BASE target=_top HREF="{href}"></head><a href="demo-1.zip">demo-1.zip</a>')
    teepi = await make_teepi(Limits(), index={"allow_private": True})
    answer = await get_page(teepi, accept=HTML)
    assert not HtmlPage(answer.body).has_base
    assert (await fetch(teepi.address, links(answer, PAGE)["demo-1.zip"])).body == b"content"
    assert cdn.count("GET", path) == 1


@pytest.mark.parametrize(
    ("written", "asked", "name"),
    [
        ("demo-1+x!y&amp;z.zip", "/p/demo-1+x!y&z.zip", "demo-1+x!y&z.zip"),
        ("demo-1+x!y&z.zip", "/p/demo-1+x!y&z.zip", "demo-1+x!y&z.zip"),
        ("demo-1%2Bx%21y%26z.zip", "/p/demo-1%2Bx%21y%26z.zip", "demo-1+x!y&z.zip"),
        ("demo-1&#43;x.zip", "/p/demo-1+x.zip", "demo-1+x.zip"),
        ("demo&#x2D;1&period;zip", "/p/demo-1.zip", "demo-1.zip"),
        ("demo-1 x.zip", "/p/demo-1%20x.zip", "demo-1 x.zip"),
        ("demo-1%20x.zip", "/p/demo-1%20x.zip", "demo-1 x.zip"),
        ("demo-1é.zip", "/p/demo-1%C3%A9.zip", "demo-1é.zip"),
        ("demo-1%c3%a9.zip", "/p/demo-1%c3%a9.zip", "demo-1é.zip"),
        ("demo-1%2525.zip", "/p/demo-1%2525.zip", "demo-1%25.zip"),
        ("demo-1'~(x).zip", "/p/demo-1'~(x).zip", "demo-1'~(x).zip"),
    ],
)
@pytest.mark.parametrize("accept", [JSON, HTML])
async def test_page_with_odd_escaping_leads_to_the_file_that_upstream_meant(
    upstream: Upstream, make_teepi: MakeTeepi, written: str, asked: str, name: str, accept: str
) -> None:
    """Contract 2, 16. The name is shown decoded, the link is encoded, and upstream is asked in its own spelling."""
    upstream.file(asked, b"content")
    put_html(upstream, f'<a href="/p/{written}">x</a>')
    teepi = await make_teepi(Limits())
    targets = links(await get_page(teepi, accept=accept), PAGE)
    assert list(targets) == [name]
    answer = await fetch(teepi.address, targets[name])
    assert (answer.status, answer.body) == (200, b"content")
    assert upstream.count("GET", asked) == 1


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        ("; charset=ISO-8859-1", "latin-1"),
        (';charset="windows-1252"', "cp1252"),
        ("; charset=ISO-8859-1", "utf-8"),
        ("; charset=no-such", "utf-8"),
        ("; charset=utf-16", "utf-8"),
        ("", "utf-8"),
    ],
)
async def test_page_in_another_charset_keeps_its_words(
    upstream: Upstream, make_teepi: MakeTeepi, charset: str, encoding: str
) -> None:
    """Contract 12. A reason in the charset that Content-Type names; UTF-8 is known even where the label is wrong."""
    put_html(upstream, '<a href="/p/demo-1.zip" data-yanked="für 1 £">x</a>', HTML + charset, encoding)
    teepi = await make_teepi(Limits())
    assert json_files(await get_page(teepi))["demo-1.zip"]["yanked"] == "für 1 £"


@pytest.mark.parametrize("spelling", ["core-metadata", "dist-info-metadata", "data-dist-info-metadata"])
async def test_metadata_in_any_json_spelling_that_clients_read_is_served(
    upstream: Upstream, make_teepi: MakeTeepi, spelling: str
) -> None:
    """Contract 14. Some clients go by the oldest spelling as well, so what it promises is kept, under the new one."""
    upstream.project(
        "demo",
        {DEMO.filename: DEMO.content},
        metadata={DEMO.filename: DEMO.metadata},
        extra={DEMO.filename: {"core-metadata": None, spelling: {"sha256": sha256(DEMO.metadata)}}},
    )
    teepi = await make_teepi(Limits())
    assert json_files(await get_page(teepi))[DEMO.filename]["core-metadata"] == {"sha256": sha256(DEMO.metadata)}
    answer = await fetch(teepi.address, await file_target(teepi, DEMO.filename) + ".metadata")
    assert (answer.status, answer.body) == (200, DEMO.metadata)


@pytest.mark.parametrize("value", ["true", "sha256=x", 1, [], ["sha256"]], ids=str)
@pytest.mark.parametrize("spelling", ["core-metadata", "dist-info-metadata", "data-dist-info-metadata"])
async def test_metadata_advertised_in_no_form_of_the_standard_is_not_advertised(
    upstream: Upstream, make_teepi: MakeTeepi, spelling: str, value: Any
) -> None:
    """Contract 14. A client that takes any truthy value would ask for a .metadata that is not served."""
    upstream.project("demo", {OLD.filename: OLD.content}, extra={OLD.filename: {spelling: value}})
    teepi = await make_teepi(Limits())
    file = json_files(await get_page(teepi))[OLD.filename]
    assert not any(file.get(key) for key in ("core-metadata", "dist-info-metadata", "data-dist-info-metadata"))


@pytest.mark.parametrize(
    ("more", "version", "versions"), [("demo-1.0.tar.gz", "1.1", ["0.9", "1.0"]), ("demo-1.0.exe", "1.0", None)]
)
async def test_page_from_html_that_claims_1_1_has_the_versions_that_1_1_demands(
    upstream: Upstream, make_teepi: MakeTeepi, more: str, version: str, versions: list[str] | None
) -> None:
    """Contract 13. PEP 700: with sizes go versions; they are those of the files, or the claim is dropped."""
    meta = '<meta name="pypi:repository-version" content="1.1">'
    put_html(
        upstream,
        meta + "".join(f'<a href="{name}" data-size="1">x</a>' for name in (DEMO.filename, OLD.filename, more)),
    )
    teepi = await make_teepi(Limits())
    document = json.loads((await get_page(teepi)).body)
    assert (document["meta"]["api-version"], document.get("versions")) == (version, versions)
