"""Targets, negotiation, ranges and validators, decided from headers alone."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teepi.errors import BadRequest, RangeNotSatisfiable
from teepi.http_semantics import (
    PageFormat,
    RangeRequest,
    choose_page_format,
    decode_target,
    if_none_match,
    if_range_allows,
    index_prefix,
    parse_content_range,
    parse_range,
    parse_retry_after,
    strong_etag,
    wants_fresh,
)

JSON, HTML_V1, HTML = PageFormat.JSON, PageFormat.HTML_V1, PageFormat.HTML
V1_JSON = "application/vnd.pypi.simple.v1+json"
V1_HTML = "application/vnd.pypi.simple.v1+html"
INSTALLER = f"{V1_JSON}, {V1_HTML}; q=0.1, text/html; q=0.01"


@pytest.mark.parametrize(
    ("raw", "decoded"),
    [
        ("/", ("/", "")),
        ("/simple/foo/?a=%2F&b", ("/simple/foo/", "a=%2F&b")),
        ("/root/pypi/%2Bf/a%3Db%2Cc", ("/root/pypi/+f/a=b,c", "")),
        ("/a%252Bb", ("/a%2Bb", "")),
        ("/a%zz+b", ("/a%zz+b", "")),
        ("/%C3%A9/\udcc3\udca9", ("/é/é", "")),
        ("/simple//foo/", ("/simple//foo/", "")),
        ("//host.example/x", ("//host.example/x", "")),
        ("http://host.example/x?y", ("/x", "y")),
        ("HTTPS://host.example:1", ("/", "")),
        ("http://host.example?y", ("/", "y")),
        ("/.hidden/a..b/...", ("/.hidden/a..b/...", "")),
    ],
)
def test_decode_target_readable_gives_path_decoded_once(raw: str, decoded: tuple[str, str]) -> None:
    """Contract 2, 4. The path is decoded once, the query not at all, and empty segments stay."""
    assert decode_target(raw) == decoded


@pytest.mark.parametrize(
    "raw",
    [
        *("", "*", "x", "host.example:80", "ftp://h/x", "http:///x"),
        *("/%FF", "/\udcff", "/%ED%A0%80"),
        *("/a%00", "/a\x00", "/%0d%0aX:1", "/%7f", "/%C2%85", "/a%5Cb", "/\\x"),
        *("/..", "/../x", "/a/../b", "/%2e%2e/x", "/a/%2E/b", "/a/.", "/a%2F..%2Fb", "http://h/../x"),
    ],
)
def test_decode_target_hostile_raises_bad_request(raw: str) -> None:
    """What a strict match on the path should never see is refused."""
    with pytest.raises(BadRequest):
        decode_target(raw)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\")), min_size=1))
def test_decode_target_any_quoted_path_comes_back(segments: list[str]) -> None:
    """Quoting and decoding are inverse for every path that is allowed."""
    path = "/" + "/".join(segment for segment in segments if segment not in {".", ".."})
    if not {".", ".."} & set(path.split("/")):
        assert decode_target(quote(path)) == (path, "")


@pytest.mark.parametrize(
    ("raw_path", "prefix"),
    [
        ("/simple/", "../"),
        ("/simple/foo/", "../../"),
        ("/simple//foo/", "../"),
        ("/pypi/simple///foo/", "../"),
        ("http://a.example/simple/foo/", "../../"),
        ("http://a.example/simple//foo/", "../"),
        ("/pypi/simple/foo/", "../../../"),
        ("/root/pypi/+simple/foo/", "../../../../"),
        ("/simple/a%2Fb/", "../../"),
    ],
)
def test_index_prefix_climbs_every_segment_to_the_root(raw_path: str, prefix: str) -> None:
    """Contract 1, 4, 6. Relative links lead to the root from every alias, and never across an empty segment."""
    assert index_prefix(raw_path) == prefix


def test_page_format_content_types_are_exact() -> None:
    """Contract 8. Clients refuse anything else."""
    assert [form.content_type for form in PageFormat] == [V1_JSON, V1_HTML, "text/html"]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, HTML),
        ("", HTML),
        ("*/*", HTML),
        ("text/html", HTML),
        ("text/*", HTML),
        (INSTALLER, JSON),
        (INSTALLER.replace(" ", "").upper(), JSON),
        (V1_HTML, HTML_V1),
        (f"{V1_HTML}, */*", HTML_V1),
        ("application/*", JSON),
        ("application/*, text/html;q=0.5", JSON),
        (f"text/html, {V1_HTML}, {V1_JSON}", JSON),
        (f"{V1_JSON};q=0.5, text/html;q=0.6", HTML),
        (f"{V1_JSON};q=0, */*", HTML),
        ("text/html;q=0, text/*;q=0, */*;q=0.1", JSON),
        ("text/html;q=0.000", None),
        ("*/*;q=0", None),
        ("image/png", None),
        ("application/json", None),
        ("application/vnd.pypi.simple.v2+json", None),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("application/vnd.pypi.simple.latest+html", HTML_V1),
        ("text/html;charset=utf-8;Q=1.000", HTML),
        (f"text/html;q=2, {V1_HTML};q=x, {V1_JSON};q=0.1", JSON),
        ("garbage", HTML),
        ("text/html; q=nonsense", HTML),
        (f"garbage, ;;, text/, {V1_JSON}", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", HTML),
    ],
)
def test_choose_page_format_by_accept(accept: str | None, form: PageFormat | None) -> None:
    """Contract 8, 10. The client's weights decide, then JSON if it is named; None is 406."""
    assert choose_page_format(accept) is form


@pytest.mark.parametrize("part", [",", ";", "a/a;", "a/a;q=0.", "*/*,", '"', " \t", "q=0;" * 9, "a" * 99])
def test_hostile_headers_of_ten_kilobytes_cost_little(part: str) -> None:
    """Time is in proportion to length: reading such a header takes milliseconds."""
    header = (part * 10_000)[:10_000]
    begin = time.process_time()
    choose_page_format(header)
    parse_range("bytes=" + header)
    parse_content_range("bytes " + header)
    if_none_match(header, '"x"')
    strong_etag('"' + header)
    assert time.process_time() - begin < 0.25


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-0", RangeRequest(0, 0)),
        ("bytes=5-", RangeRequest(5, None)),
        ("bytes=-10000", RangeRequest(None, 10000)),
        ("Bytes= 2-3 ", RangeRequest(2, 3)),
        (f"bytes={'9' * 19}-", RangeRequest(int("9" * 19), None)),
    ],
)
def test_parse_range_single_is_read(header: str, wanted: RangeRequest) -> None:
    """Contract 24. The three forms of one byte range."""
    assert parse_range(header) == wanted


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "items=0-1", "bytes=3-2", "bytes=0-1\n", "bytes=--1"),
        *(
            "bytes=0-1,5-6",
            "bytes=0-1,",
            "bytes=\u0660-\u0661",
            "bytes=²-",
            "bytes=+1-2",
            "bytes=1_0-",
            f"bytes={'9' * 5000}-",
        ),
    ],
)
def test_parse_range_other_is_ignored(header: str | None) -> None:
    """Contract 24. Several ranges, other units and nonsense are answered with the whole file."""
    assert parse_range(header) is None


@given(
    size=st.integers(0, 12),
    first=st.none() | st.integers(0, 14),
    last=st.none() | st.integers(0, 14),
)
def test_range_agrees_with_brute_force(size: int, first: int | None, last: int | None) -> None:
    """RFC 9110, 14.1.2: the range holds exactly the offsets that satisfy its definition."""
    text = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    wanted = parse_range(text)
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        assert wanted is None
        return
    assert wanted is not None
    assert wanted.is_open == (first is not None and last is None)
    if first is None:
        offsets = [offset for offset in range(size) if size - offset <= (last or 0)]
    else:
        offsets = [offset for offset in range(size) if offset >= first and (last is None or offset <= last)]
    if offsets:
        start, stop = wanted.resolve(size)
        assert list(range(start, stop)) == offsets
    else:
        with pytest.raises(RangeNotSatisfiable) as raised:
            wanted.resolve(size)
        assert raised.value.size == size


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ("bytes 0-0/1", (0, 1, 1)),
        (" bytes 5-9/10 ", (5, 10, 10)),
        ("bytes 5-9/*", (5, 10, None)),
        *(
            (bad, None)
            for bad in (None, "", "bytes */10", "bytes 9-5/10", "bytes 9-8/10", "bytes 0-10/10", "items 0-1/2")
        ),
        *(
            (bad, None)
            for bad in ("bytes=0-1/2", "bytes 0-1", "bytes 0-1/2,", "bytes \u0660-1/2", f"bytes 0-{'9' * 99}/*")
        ),
    ],
)
def test_parse_content_range_gives_half_open_range(header: str | None, parsed: tuple[int, int, int | None]) -> None:
    """Only a range that is consistent in itself may be written into a partial."""
    assert parse_content_range(header) == parsed


@pytest.mark.parametrize(
    ("value", "etag"),
    [
        ('"abc"', '"abc"'),
        (' "a,b" ', '"a,b"'),
        ('""', '""'),
        *((bad, None) for bad in (None, "", "abc", 'W/"abc"', '"', '"a', '"a"b"', '"a b"', '"a\n"', '"é"', "*")),
    ],
)
def test_strong_etag_keeps_only_strong_entity_tags(value: str | None, etag: str | None) -> None:
    """RFC 9110, 8.8.3."""
    assert strong_etag(value) == etag


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        *((good, True) for good in ('"a"', 'W/"a"', " * ", '"x", "a"', '"x",W/"a" ,"y"')),
        *((bad, False) for bad in (None, "", "a", '"b"', '"A"', '"x, "a"', '"*"')),
    ],
)
@pytest.mark.parametrize("etag", ['"a"', 'W/"a"'])
def test_if_none_match_compares_weakly(header: str | None, matches: bool, etag: str) -> None:  # noqa: FBT001
    """Contract 17. A list or a star, with W/ left aside."""
    assert if_none_match(header, etag) is matches


DATE = "Tue, 03 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("header", "etag", "last_modified", "allows"),
    [
        (None, None, None, True),
        ('"a"', '"a"', None, True),
        ('"b"', '"a"', DATE, False),
        ('W/"a"', 'W/"a"', None, False),
        ('"a"', None, DATE, False),
        ('"a", "b"', '"a"', None, False),
        (DATE, None, DATE, True),
        (DATE.replace("10:", "11:"), '"a"', DATE, False),
        (DATE, '"a"', None, False),
        ("", None, "", False),
        ("nonsense", '"a"', DATE, False),
    ],
)
def test_if_range_allows_only_an_identical_validator(
    header: str | None,
    etag: str | None,
    last_modified: str | None,
    allows: bool,  # noqa: FBT001
) -> None:
    """Contract 26. Another or a weak validator means the full body."""
    assert if_range_allows(header, etag, last_modified) is allows


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1" * 5000, 111111111.0),
        ("-5", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:01:40", 40.0),
    ],
)
def test_retry_after_is_read_in_both_spellings(value: str | None, seconds: float | None) -> None:
    """Fault 15. Seconds or a date; what cannot be read asks for nothing."""
    assert parse_retry_after(value, now=60.0) == seconds


@pytest.mark.parametrize(
    ("value", "fresh"), [(None, False), ("max-age=0", False), ("no-cache", True), ("max-age=0 , No-Cache", True)]
)
def test_wants_fresh_only_by_no_cache(value: str | None, fresh: bool) -> None:  # noqa: FBT001 - a parameter
    """Contract 20. pip always sends max-age=0 and means nothing by it."""
    assert wants_fresh(value) is fresh
