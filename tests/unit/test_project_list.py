"""Project lists in pieces: whatever the cuts, the same names, and no more in memory than a piece."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from teepi.codings import Coding, takes
from teepi.errors import BadPage
from teepi.project_list import (
    HTML_HEAD,
    HtmlNames,
    JsonNames,
    first_spellings,
    html_of,
    json_of,
    lines_of,
    names_of,
)
from teepi.store import SortedLines

if TYPE_CHECKING:
    from pathlib import Path

    from teepi.project_list import Names

NASTY = (
    '{"meta": {"note": "\\"projects\\": [", "api-version": "1.4"}, "projects": ['
    '{"name": "a", "_last-serial": 1}, {"x": {"y": {}}, "name": "b"} ,\n '
    '{"name": "c", "z": "}, {\\"name\\": \\"no\\"}"},'
    '{"z": ["}"], "name": "d\\u002de"}, {"nameless": true}, {"name": 5}], "tail": {"more": {"t": 1}, "u": [{}, {}]}}'
)


def names(reader: Names, data: bytes, step: int) -> list[str]:
    """Feed ``data`` in steps."""
    found = [name for at in range(0, len(data), step) for name in reader.feed(data[at : at + step])]
    return found + reader.finish()


@given(st.integers(1, 500))
def test_json_names_are_the_same_however_the_list_is_cut(step: int) -> None:
    """Contract 10. Braces in strings, nested objects, odd projects and keys before and behind."""
    assert names(JsonNames("here"), NASTY.encode(), step) == ["a", "b", "c", "d-e"]
    assert names(JsonNames("here"), b"\xef\xbb\xbf" + NASTY.encode(), step)[0] == "a"


@given(st.integers(1, 300))
def test_html_names_are_the_same_however_the_list_is_cut(step: int) -> None:
    """Text decides, else the end of the href; what is no name is left out."""
    body = (
        b'<!DOCTYPE html><html><body><a href="/simple/foo-bar/">Foo.Bar</a><br>\n<A class="x" HREF="b/"><b>b</b></A>'
        b"<a href='../c%2Dd/'>see here</a><a href=e/>e</a><a>&amp;</a><a href='?q'>? ?</a></body></html>"
    )
    assert names(HtmlNames("here"), body, step) == ["Foo.Bar", "b", "c-d", "e"]


def test_json_names_of_a_large_list_keep_little_in_memory() -> None:
    """Issue 3. What has been read is let go."""
    reader = JsonNames("here")
    found = reader.feed(b'{"meta":{"api-version":"1.0"},"projects":[')
    for number in range(200):
        found += reader.feed(b"".join(b'{"name":"p%d-%d"},' % (number, at) for at in range(1000)))
        assert len(reader._rest) < 100  # noqa: SLF001 - the memory in question
    found += reader.feed(b'{"name":"last"}]}') + reader.finish()
    assert len(found) == 200_001


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", NASTY.encode()[:-1], b'{"projects": {}}', b'{"projects": [{"name": "a"}',
        b'{"projects": [1]}', b'{"meta": [], "projects": []}', b'{"meta": {"api-version": "2.0"}, "projects": []}',
        b'{"projects": [{"name": "a"}, \xff]}', b"{" + b'"a":[' * 50_000,
    ],
)  # fmt: skip
def test_json_names_of_what_is_no_whole_list_are_refused(body: bytes) -> None:
    """Fault 16. A list that breaks off, or is none, is never kept."""
    with pytest.raises(BadPage):
        names(JsonNames("here"), body, 50)


@pytest.mark.parametrize("lead", [b"", b'{"projects": [{"name": "a"}, {"name": "'])
def test_json_names_without_end_are_refused_before_they_fill_the_memory(lead: bytes) -> None:
    """Fault 17. One project of endless length, or none at all."""
    reader = JsonNames("here")
    reader.feed(lead)
    for _ in range(15):
        reader.feed(b"x" * 65536)
    with pytest.raises(BadPage):
        reader.feed(b"x" * 131072)


def test_html_names_of_what_is_no_list_are_refused() -> None:
    """Fault 16. A captive portal is no list; an empty list is one."""
    for body in (b"", b"plain", b"<html><title>Login</title><form action='/login'><input name=u></form></html>"):
        with pytest.raises(BadPage):
            names(HtmlNames("here"), body, 10)
    assert names(HtmlNames("here"), HTML_HEAD, 10) == []


def test_html_names_of_tags_without_end_cost_time_in_proportion() -> None:
    """Fault 17. The test's own time-out is the measure."""
    reader = HtmlNames("here")
    for _ in range(4):
        assert reader.feed(b"<a>" * 20_000) == []


def test_names_of_tells_json_by_its_type_or_first_byte() -> None:
    """Some upstreams send JSON under a wrong type."""
    assert names_of("application/vnd.pypi.simple.v1+json; charset=utf-8", b"", "")[1]
    assert names_of("text/html", b"\xef\xbb\xbf \n{", "")[1]
    assert not names_of("text/html", b"<html>", "")[1]


def test_rendered_names_are_escaped_by_leaving_out_what_is_no_name() -> None:
    """Contract 12. Links are relative and normalised, the text as upstream has it."""
    odd = ["Foo.Bar", "<script>", "a b", "", "x/y", '"', "b"]
    assert html_of(odd) == b'<a href="foo-bar/">Foo.Bar</a><br/>\n<a href="b/">b</a><br/>\n'
    text = '{"projects":[' + json_of(odd, first=True).decode() + json_of(["c"], first=False).decode() + "]}"
    assert json.loads(text) == {"projects": [{"name": name} for name in ("Foo.Bar", "b", "c")]}


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        (None, False), ("", False), ("gzip, deflate", True), ("identity", False), ("*", True), ("gzip;q=0", False),
        ("GZIP;Q=0.5", True), ("*;q=0", False), ("zstd, gzip;q=0, *", False), ("x-gzip", True), ("gzip;q=x", False),
    ],
)  # fmt: skip
def test_takes_gzip_by_accept_encoding(header: str | None, taken: bool) -> None:  # noqa: FBT001 - a parameter
    """Contract 11."""
    assert takes(header, Coding.GZIP) is taken


@given(st.lists(st.lists(st.sampled_from(["a", "A", "a-b", "A_b", "a.B", "b", "-", "a0"]), max_size=9), max_size=9))
def test_first_spellings_of_sorted_lines_are_those_that_came_first(parts: list[list[str]]) -> None:
    """Issue 3. Each project once, in order, however the names came in; what is no name is left out."""
    lines, count = SortedLines(None), 0
    expected: dict[str, str] = {}
    for part in parts:
        lines.add(lines_of(part, count))
        count += len(part)
        for name in part:
            if name != "-":
                expected.setdefault(canonicalize_name(name), name)
    assert list(first_spellings(lines)) == [expected[project] for project in sorted(expected)]
    lines.close()


def test_sorted_lines_come_whole_from_runs_longer_than_one_read(tmp_path: Path) -> None:
    """Lines lie across the ends of reads; the file has no name that could be left behind."""
    lines = SortedLines(tmp_path / "lists")
    wanted = [b"%06d %s\n" % (number, b"x" * (number % 97)) for number in range(6000)]
    for start in range(3):
        lines.add(wanted[start::3][::-1])
    assert list(lines) == wanted
    assert list((tmp_path / "lists").iterdir()) == []
    lines.close()
