"""The page for people: what it shows, to whom, and that nothing on it can be turned against them."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from teepi.errors import BadRequest, NotFound, Unavailable
from teepi.history import Sample
from teepi.metrics import Ended
from teepi.overview import Arriving, FoundProject, Overview
from teepi.web.ui import SECURITY, UiHandlers, client_lines
from teepi.web.ui.plot import plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.web_request import BaseRequest

    from teepi.live import Live

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
NOW = 1_800_000_000.0
EMPTY = Overview(
    problems=(), is_offline=False, uptime_seconds=3.0, hits=0, file_requests=0, collapsed=0, sent_bytes=0,
    fetched_bytes=0, upstream_requests=0, cache_files=0, cache_bytes=0, cache_limit_bytes=None, in_flight=(),
    more_in_flight=0, recent=(), samples=(),
)  # fmt: skip
BAD = "<script>alert(1)</script>"


def counted(begin: float, hits: int = 0, misses: int = 0, cached: int = 0, fetched: int = 0, saved: int = 0) -> Sample:
    """Return a sample of the history."""
    return Sample(begin, hits, misses, cached, fetched, saved)


def request(path: str = "/", accept: str = BROWSER, host: str = "box.example:3141") -> BaseRequest:
    """Return what a handler reads of a request."""
    headers = CIMultiDictProxy(CIMultiDict({"Accept": accept, "Host": host}))
    return cast(
        "BaseRequest",
        SimpleNamespace(
            headers=headers, raw_path=path, rel_url=URL(path, encoded=True), scheme="http", method="GET",
            get=lambda _: None,
        ),
    )  # fmt: skip


def handlers(overview: Overview = EMPTY, found: Sequence[FoundProject] = ()) -> UiHandlers:
    """Return the handlers with a fixed overview and search result."""

    async def look() -> Overview:
        return overview

    async def search(asked: BaseRequest, query: str) -> tuple[Sequence[FoundProject], bool]:  # noqa: ARG001
        return found, False

    live = cast("Live", SimpleNamespace(settings=SimpleNamespace(outside_url=None)))
    return UiHandlers(look, search, "root/pypi", live)


async def text_of(answer: Any) -> str:
    """Return the body of an answer."""
    assert isinstance(answer.text, str)
    return answer.text


async def test_home_shows_what_arrives_what_was_saved_and_the_cache_against_its_limit() -> None:
    """The figures that people come for stand on the page as text."""
    overview = replace(
        EMPTY, hits=30, file_requests=40, sent_bytes=48_000_000_000, fetched_bytes=3_000_000_000, cache_files=1234,
        cache_bytes=20_000_000_000, cache_limit_bytes=50_000_000_000,
        in_flight=[Arriving("torch-2.9.0-py3-none-any.whl", 300_000_000, 780_000_000, 12)], more_in_flight=3,
        recent=[Ended("six-1.17.0-py2.py3-none-any.whl", 11_050, 8, 0.21, time.time() - 61)],
        problems=["The cache disk is full."],
    )  # fmt: skip
    text = await text_of(await handlers(overview).home(request()))
    for said in (
        *("45.0 GB", "75 %", "20.0 GB", "of 50.0 GB", "1\u202f234 files", "torch-2.9.0-py3-none-any.whl", "of 780 MB"),
        *("and 3 more", "six-1.17.0-py2.py3-none-any.whl", "210 ms", "1 min ago", "The cache disk is full."),
    ):
        assert said in text
    assert '<progress value="300000000" max="780000000"' in text


async def test_home_gives_client_lines_for_the_host_that_the_visitor_used() -> None:
    """Whoever looks from another machine gets lines that work there."""
    text = await text_of(await handlers().home(request(host="cache.example:8080")))
    assert "export PIP_INDEX_URL=http://cache.example:8080/root/pypi/+simple/ PIP_TRUSTED_HOST=cache.example" in text
    assert "export PIPENV_PYPI_MIRROR=http://cache.example:8080/root/pypi/+simple<" in text


async def test_home_for_other_clients_is_text() -> None:
    """Curl and installers are not sent a page."""
    answer = await handlers().home(request(accept="*/*"))
    assert answer.content_type == "text/plain"
    assert answer.headers["Vary"] == "Accept"
    assert "export UV_DEFAULT_INDEX=http://box.example:3141/root/pypi/+simple/" in await text_of(answer)


@pytest.mark.parametrize(
    ("base", "trusted"),
    [("http://[::1]:3141", "PIP_TRUSTED_HOST=::1"), ("http://a.example", "PIP_TRUSTED_HOST=a.example")],
)
def test_client_lines_trust_the_host_over_plain_http_alone(base: str, trusted: str) -> None:
    """Pip keeps nothing from plain http unless it trusts the host; over https nothing is to be trusted."""
    assert client_lines(base, "root/pypi")[0].line.endswith(trusted)
    assert "TRUSTED" not in client_lines(base.replace("http:", "https:"), "root/pypi")[0].line


async def test_search_lists_projects_and_what_is_cached_of_them() -> None:
    """A name leads to its project, cached or not."""
    found = [
        FoundProject("root/pypi", "torch", 3, 2_100_000_000, time.time() - 7200, "Torch", "2.9.0", "Tensors"),
        FoundProject("root/pypi", "torch-not-here", 0, 0, 0.0),
        FoundProject("admin/dev", "torch-ours", 0, 0, 0.0, is_uploaded=True),
    ]
    text = await text_of(await handlers(found=found).home(request("/?q=torch")))
    assert '<a href="./root/pypi/torch/">Torch</a></td><td>2.9.0</td><td>Tensors</td>' in text
    assert "3 files, 2.1 GB" in text
    assert '<a href="./root/pypi/torch-not-here/">torch-not-here</a></td><td>–</td>' in text
    assert text.count("uploaded</td>") == 1
    assert text.count(" ago</td>") == 1
    assert "No project here has" in await text_of(await handlers().home(request("/?q=torch")))


async def test_pages_escape_everything_and_allow_nothing_inline() -> None:
    """Names from an upstream and words from a visitor are text, under a policy that would stop them otherwise."""
    overview = replace(EMPTY, in_flight=[Arriving(BAD, 1, None, 1)], recent=[Ended(BAD, 1, 1, 1.0, 0.0, BAD)],
                       problems=[BAD])  # fmt: skip
    page = await handlers(overview, [FoundProject("root/pypi", BAD, 1, 1, 0.0, BAD, BAD, BAD)]).home(
        request(f"/?q={BAD}")
    )
    wrong = handlers().error(request(f"/{BAD}"), NotFound(BAD))
    for answer in (page, wrong, await handlers(overview).live(request("/+live"))):
        text = await text_of(answer)
        assert BAD not in text
        assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=|javascript:", text)
        assert {name: answer.headers[name] for name in SECURITY} == SECURITY
    assert "unsafe" not in SECURITY["Content-Security-Policy"]


async def test_wrong_url_explains_how_to_configure_a_client() -> None:
    """A person at a wrong URL learns the right ones, and the page's own files are found from any depth."""
    answer = handlers().error(request("/some/where/"), NotFound("There is nothing at this URL."))
    text = await text_of(answer)
    assert answer.status == 404
    assert "There is nothing at this URL." in text
    assert "export PIP_INDEX_URL=" in text
    assert 'href="../../+static/teepi.css?' in text
    assert "export" not in await text_of(handlers().error(request("/x"), BadRequest("It cannot be read.")))
    assert handlers().error(request("/x"), Unavailable("Try again.")).headers["Retry-After"] == "1"


async def test_static_files_are_kept_for_good_and_others_are_not_there() -> None:
    """Their query changes with them; no name leads out of their folder."""
    ui = handlers()
    for name, kind in (("teepi.css", "text/css"), ("teepi.js", "text/javascript"), ("teepi.svg", "image/svg+xml")):
        answer = await ui.static(request(), name)
        assert answer.content_type == kind
        assert "immutable" in answer.headers["Cache-Control"]
    for name in ("../__init__.py", "", "teepi.css/"):
        with pytest.raises(NotFound):
            await ui.static(request(), name)


def test_plot_sums_samples_by_quarter_hours_of_the_last_day() -> None:
    """What lies outside the day is left out; columns stand on each other and end inside the picture."""
    samples = [
        counted(NOW - 100, 3, 1, 600, 300, 500),
        counted(NOW - 90, 0, 0, 0, 100, -100),
        counted(NOW - 90_000, 1, 0, 10**12, 0, 10**12),
        counted(NOW + 90_000, 1, 0, 10**12),
    ]
    drawn = plot(samples, NOW)
    [column] = [column for column in drawn.columns if column.cached_bytes]
    assert (column.cached_bytes, column.fetched_bytes, column.hit_ratio) == (600, 400, 0.75)
    assert column.cached_y + column.cached_height == pytest.approx(column.fetched_y, abs=0.2)
    assert drawn.saved_bytes == 400
    assert [mark.label for mark in drawn.grid][:3] == ["0 bytes", "500 bytes", "1.0 kB"]
    assert len(drawn.ratio_lines) == 1
    assert not drawn.is_empty
    assert plot([], NOW).is_empty


@given(
    st.lists(st.builds(counted, st.floats(NOW - 10**5, NOW + 10**4), *[st.integers(0, 10**15)] * 4), max_size=20),
)
def test_plot_stays_inside_its_picture(samples: list[Sample]) -> None:
    """Whatever was counted, no column has a negative height or leaves the picture."""
    for column in plot(samples, NOW).columns:
        assert column.cached_height >= 0
        assert column.fetched_height >= 0
        assert 0 <= column.x <= column.x + column.width <= 660
        assert column.cached_y >= 55
