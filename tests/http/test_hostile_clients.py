"""Requests that no installer sends: whatever stands in headers and paths, the answer is a page or a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from teepi.limits import Limits
from teepi.web import answers
from tests.http.links import HTML_V1, is_sentence
from tests.support.clients import RawClient
from tests.support.projects import HTML, JSON
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

PAGE = "/simple/demo/"
DEMO = wheel("demo")

ACCEPTS = {
    "*/*;q=nan": HTML, "*/*;q=-1": HTML, "*/*;q=1e999": HTML, "text/html;q=2": HTML, "text/html;q=": HTML,
    ";;;q=,,,": HTML, "text/html;q=0.0000001": HTML, f"{JSON};q=0, */*": HTML,
    f"{JSON};q=0.000, {HTML_V1};q=0.001": HTML_V1,
    "x" * 8000: HTML, "text/html;" + "q=1;" * 1500: HTML, JSON + ";q=1" + ";a=b" * 1500: JSON,
    "\xff, " + JSON: JSON, JSON + "," * 8000: JSON, "a/b," * 2000 + JSON: JSON,
    "a/b;q=1e999, c/d": None, "a/b," * 2000: None, f"{JSON};q=0, text/html;q=0, {HTML_V1};q=0, */*;q=0": None,
}  # fmt: skip
OTHERS = {
    "Accept-Encoding": ("gzip;q=nan", "gzip;q=1e-400", "," * 8000, "*;q=0, identity;q=0", "\xff", "zstd;" * 2000),
    "If-None-Match": ('"' * 8000, "W/" * 4000, "\xff", '""', 'W/"', ", " * 4000),
    "If-Modified-Since": ("\xff", "Thu, 99 Foo 99999999 99:99:99 GMT"),
    "Cache-Control": ("," * 8000, "no-cache=" * 800, "max-age=" + "9" * 8000),
    "Range": ("bytes=" + "0-," * 2000, "bytes=" + "9" * 8000 + "-", "bytes=\xb2-"),
    "If-Range": ("\xff", '"' * 8000),
}
LONG = "1" * 5000
PATHS = (
    f"/pypi/demo/{LONG}/json", f"/pypi/demo/1.0rc{LONG}/json", f"/pypi/demo/{'1.' * 2500}/json", "/pypi/demo/%FF/json",
    f"/pypi/{'a' * 5000}/json", "/pypi/demo/1%2F0/json", "/pypi/demo/..%00/json", f"/packages/demo-{LONG}.tar.gz",
    f"/packages/demo-{'1' * 230}.tar.gz", f"/packages/{'-1' * 100}.tar.gz", f"/packages/demo-{LONG}-py3-none-any.whl",
    f"/root/pypi/+f/abc/0123456789abc/{'%41' * 2000}", f"/index/demo/{'%20' * 2000}", "/simple/demo/%3Fx",
    "/simple/demo;x/",
    "/root/pypi/+e/0000000000000000/%22%3e%3cscript%3e-1.0.tar.gz", "/simple/demo%20/", "/simple/demo/index.html",
    "/simple/%D9%A1/", "/root/pypi/+http/%5B%3A%3A1%5D:80/demo-1.0.tar.gz", "/root/pypi/+files/h:0/demo-1.0.tar.gz",
)  # fmt: skip


@pytest.fixture
async def teepi(upstream: Upstream, make_teepi: MakeTeepi) -> Teepi:
    """Start teepi before one project."""
    upstream.project("demo", {DEMO.filename: DEMO.content})
    return await make_teepi(Limits())


async def test_accept_header_of_any_kind_gives_a_form_or_406(teepi: Teepi) -> None:
    """Contract 8 and 10, fault 17. What cannot be read counts as absent; what excludes everything is told so."""
    async with await RawClient.connect(teepi.address) as client:
        for accept, content_type in ACCEPTS.items():
            answer = await client.get(PAGE, {"Accept": accept})
            if content_type is None:
                assert answer.status == 406, accept[:60]
                assert is_sentence(answer)
            else:
                assert (answer.status, answer.headers["content-type"]) == (200, content_type), accept[:60]


async def test_other_headers_of_any_kind_leave_the_page_as_it_is(teepi: Teepi, upstream: Upstream) -> None:
    """Fault 17. Codings, conditions, ranges and wishes that nobody can read are none."""
    async with await RawClient.connect(teepi.address) as client:
        expected = await client.get(PAGE)
        for name, values in OTHERS.items():
            for value in values:
                answer = await client.get(PAGE, {name: value})
                assert (answer.status, answer.body) == (200, expected.body), (name, value[:60])
    assert upstream.count("GET", PAGE) == 1


def test_redirect_is_escaped_whatever_its_target_is() -> None:
    """Fault 17. Names are checked before; should one slip through, no second header and no other host comes of it."""
    answer = answers.redirect("a b\r\nSet-Cookie: c=d\\é//", "q=%0d")
    assert answer.headers["location"] == "a%20b%0D%0ASet-Cookie%3A%20c%3Dd%5C%C3%A9//?q=%0d"


async def test_path_that_no_client_asks_for_is_a_sentence(teepi: Teepi, caplog: pytest.LogCaptureFixture) -> None:
    """Contract 7, 34 and 36, fault 17. Numbers, names and escapes beyond all measure are 400 or 404, and no defect."""
    for path in PATHS:
        async with await RawClient.connect(teepi.address) as client:
            answer = await client.get(path)
        assert answer.status in {400, 404}, path[:60]
        assert is_sentence(answer), path[:60]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
