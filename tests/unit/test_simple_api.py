"""Index pages: what is read out of them, what is shown again, and where files live."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from teepi import addresses, filenames
from teepi.errors import BadPage
from teepi.filenames import project_of_filename
from teepi.http_semantics import PageFormat, decode_target
from teepi.model import Digest
from teepi.simple_api import ProjectPage, address_of, parse_page, render
from teepi.simple_html import is_cut

SHA256 = "0123456789abcdef" * 4
OTHER_SHA256 = "fedcba9876543210" * 4
BASE = "../../root/pypi/"
URL = "https://index.example/simple/foo/"
JSON_TYPE = "application/vnd.pypi.simple.v1+json"


def parse(
    body: bytes | str | dict[str, Any], content_type: str | None = None, *, url: str = URL, project: str = "foo"
) -> ProjectPage:
    """Parse a page of project foo; a dict is sent as JSON."""
    if isinstance(body, dict):
        body, content_type = json.dumps(body), content_type or JSON_TYPE
    raw = body.encode() if isinstance(body, str) else body
    return parse_page(raw, content_type=content_type or "text/html", url=url, index="root/pypi", project=project)


def parse_files(*files: Any, version: str = "1.1") -> ProjectPage:
    """Parse a JSON page with these files."""
    return parse({"meta": {"api-version": version}, "name": "foo", "files": list(files)})


def file(filename: Any = "foo-1.0.tar.gz", **changes: Any) -> dict[str, Any]:
    """Return a file as a JSON page has it."""
    return {"filename": filename, "url": f"https://files.example/p/{filename}", "hashes": {}} | changes


def as_json(page: ProjectPage) -> Any:
    """Return what a client reads that asks for JSON."""
    return json.loads(render(page, PageFormat.JSON, BASE))


def as_html(page: ProjectPage) -> str:
    """Return what a client reads that asks for HTML."""
    return render(page, PageFormat.HTML, BASE).decode()


RICH = {
    "meta": {"api-version": "1.4", "_last-serial": 7, "tracks": ["https://other.example/simple/foo/"]},
    "name": "foo",
    "versions": ["1.0"],
    "project-status": {"status": "archived", "reason": "it's <done>"},
    "alternate-locations": ["https://third.example/simple/foo/"],
    "unknown": {"deep": [1, None, 2**70, 0.5]},
    "files": [
        {
            "filename": "foo-1.0-py3-none-any.whl",
            "url": "https://Files.example:443/p/foo-1.0-py3-none-any.whl",
            "hashes": {"md5": "0" * 32, "sha256": SHA256, "future": "x"},
            "requires-python": ">=3.8,<4",
            "yanked": 'says "no" & <b>more</b>',
            "size": 12,
            "upload-time": "2026-01-01T00:00:00.000000Z",
            "core-metadata": {"sha256": OTHER_SHA256},
            "gpg-sig": False,
            "provenance": "https://index.example/integrity/foo",
            "unknown": {"kept": True},
        }
    ],
}


def test_json_page_comes_out_as_it_went_in_but_for_file_urls() -> None:
    """Contract 10, 12. Unknown keys survive at every level; only the URL of a file is rewritten."""
    wanted = json.loads(json.dumps(RICH))
    wanted["files"][0]["url"] = BASE + "+files/files.example/p/foo-1.0-py3-none-any.whl"
    page = parse(RICH)
    assert as_json(page) == wanted
    assert page.document["files"][0]["url"] == RICH["files"][0]["url"]  # type: ignore[index]


def test_json_page_gives_records() -> None:
    """A record says all that is needed to fetch and check the file without the page."""
    (record,) = parse(RICH).files
    assert record.index == "root/pypi"
    assert record.project == "foo"
    assert record.url == "https://Files.example:443/p/foo-1.0-py3-none-any.whl"
    assert record.address == "+files/files.example/p/foo-1.0-py3-none-any.whl"
    assert record.digest == Digest("sha256", SHA256)
    assert record.metadata == Digest("sha256", OTHER_SHA256)
    assert record.size == 12


def test_html_rendering_has_all_that_html_can_carry() -> None:
    """Contract 14, 16. Attributes are escaped, the strongest digest is the fragment, both metadata spellings."""
    html = as_html(parse(RICH))
    assert '<meta name="pypi:repository-version" content="1.4">' in html
    assert '<meta name="pypi:project-status-reason" content="it&#x27;s &lt;done&gt;">' in html
    assert "<title>Links for foo</title>" in html
    assert "<h1>Links for foo</h1>" in html
    assert f'href="{BASE}+files/files.example/p/foo-1.0-py3-none-any.whl#sha256={SHA256}"' in html
    assert 'data-requires-python="&gt;=3.8,&lt;4"' in html
    assert 'data-yanked="says &quot;no&quot; &amp; &lt;b&gt;more&lt;/b&gt;"' in html
    assert f'data-core-metadata="sha256={OTHER_SHA256}" data-dist-info-metadata="sha256={OTHER_SHA256}"' in html
    assert 'data-gpg-sig="false"' in html
    assert 'data-provenance="https://index.example/integrity/foo"' in html
    assert html.encode() == render(parse(RICH), PageFormat.HTML_V1, BASE)


def test_html_version_is_frozen_at_1_4() -> None:
    """The Simple API, version 1.4: HTML does not follow beyond."""
    page = parse_files(version="1.9")
    assert 'content="1.4"' in as_html(page)
    assert as_json(page)["meta"]["api-version"] == "1.9"


HTML = f"""<!DOCTYPE html><html><head><META NAME="pypi:project-status" content="quarantined">
<meta name="pypi:tracks" content="https://other.example/foo/"><title>Links for foo</title></head><body>
<!-- <a href="comment-1.0.zip">x</a> --><script>"<a href='script-1.0.zip'>"</script>
<a href="../../p/foo-1.0.tar.gz#sha256={SHA256}" data-requires-python="&gt;=3.6" data-yanked>foo</a><br/>
<A HREF='/p/a%2Bb/foo-1.1+x.zip#md5={"0" * 32}&amp;egg=foo' data-yanked="a reason" data-gpg-sig=true>foo</A>
<a data-dist-info-metadata="sha256={SHA256}" data-core-metadata="true" href=foo-1.2.zip data-Custom="a&quot;b">foo</a>
<a href="https://cdn.example/foo-1.3.zip" data-upload-time="2026-01-01T00:00:00Z" data-provenance="https://x/">foo</a>
</body></html>"""


def test_html_page_is_read_into_the_json_form() -> None:
    """Contract 12. Relative links, fragments, empty attributes, any case; comments and scripts hold none."""
    page = parse(HTML)
    assert page.document == {
        "meta": {"api-version": "1.0", "tracks": ["https://other.example/foo/"]},
        "name": "foo",
        "project-status": {"status": "quarantined"},
        "files": [
            {
                "filename": "foo-1.0.tar.gz",
                "url": "https://index.example/p/foo-1.0.tar.gz",
                "hashes": {"sha256": SHA256},
                "requires-python": ">=3.6",
                "yanked": True,
            },
            {
                "filename": "foo-1.1+x.zip",
                "url": "https://index.example/p/a%2Bb/foo-1.1+x.zip",
                "hashes": {"md5": "0" * 32},
                "yanked": "a reason",
                "gpg-sig": True,
            },
            {
                "filename": "foo-1.2.zip",
                "url": "https://index.example/simple/foo/foo-1.2.zip",
                "hashes": {},
                "core-metadata": True,
                "_data-custom": 'a"b',
            },
            {
                "filename": "foo-1.3.zip",
                "url": "https://cdn.example/foo-1.3.zip",
                "hashes": {},
                "upload-time": "2026-01-01T00:00:00Z",
                "provenance": "https://x/",
            },
        ],
    }
    assert [record.digest.algorithm if record.digest else None for record in page.files] == [
        "sha256",
        "md5",
        None,
        None,
    ]
    assert [record.metadata for record in page.files] == [False, False, True, False]


def test_html_page_again_as_html_keeps_unknown_data_attributes() -> None:
    """Contract 12. What no PEP knows is rendered back, an empty yanked attribute included."""
    html = as_html(parse(HTML))
    assert 'data-custom="a&quot;b"' in html
    assert 'data-upload-time="2026-01-01T00:00:00Z"' in html
    assert 'data-yanked=""' in html


def test_private_key_that_is_no_attribute_name_is_not_rendered() -> None:
    """An upstream's JSON cannot smuggle markup into HTML by way of a key."""
    page = parse_files(file(**{'_data-x onclick="f()"': "1", "_data-ok": "<", "_data-no": 1, "_other": "x"}))
    assert " onclick" not in as_html(page)
    assert 'data-ok="&lt;"' in as_html(page)
    assert "data-no" not in as_html(page)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://cdn.example/a/", "https://cdn.example/a/foo-1.zip"),
        ("https://cdn.example", "https://cdn.example/foo-1.zip"),
        ("../x/y", "https://index.example/simple/x/foo-1.zip"),
        ("http://[bad", "https://index.example/simple/foo/foo-1.zip"),
        ("https://cdn.example/\x01/", "https://index.example/simple/foo/foo-1.zip"),
    ],
)
def test_html_base_decides_what_links_are_relative_to(base: str, url: str) -> None:
    """The first base counts, itself relative to the page."""
    page = parse(f'<base href="{base}"><base href="https://second.example/"><a href="foo-1.zip">foo</a>')
    assert [record.url for record in page.files] == [url]


@pytest.mark.parametrize(
    "link",
    [
        *("", "#sha256=00", "?C=N", "../", "https://h.example", "https://h.example/", "https:///x.zip"),
        *("javascript:f()//x.zip", "data:x/y.zip", "file:///etc/x.zip", "ftp://h.example/x.zip", "mailto:a@b"),
        *("http://[bad/x.zip", "https://h.example:99999/x.zip", "https://good.example\\@h.example/x.zip"),
        *("https://h.example/x&#1;/y.zip", "x&#13;&#10;X: y.zip", "https://h.example/..", "a%2Fb.zip", "a%5Cb.zip"),
    ],
)
def test_html_link_that_is_no_file_is_dropped(link: str) -> None:
    """Other schemes, bare fragments, folders, no host, control characters: none of them is a file."""
    page = parse(f'<a href="{link}">x</a><a href="foo-1.zip">x</a>')
    assert [record.filename for record in page.files] == ["foo-1.zip"]


@pytest.mark.parametrize(
    ("link", "url"),
    [
        (" foo-1.zip\n", "https://index.example/simple/foo/foo-1.zip"),
        ("//cdn.example/foo-1.zip", "https://cdn.example/foo-1.zip"),
        ("../../../../foo-1.zip", "https://index.example/foo-1.zip"),
        ("a/../foo-1.zip", "https://index.example/simple/foo/foo-1.zip"),
        ("https://cdn.example/a/../b/foo-1.zip", "https://cdn.example/a/../b/foo-1.zip"),
        ("https://cdn.example/a b/é/foo-1.zip", "https://cdn.example/a%20b/%C3%A9/foo-1.zip"),
        ("HTTPS://u:p@cdn.example/foo-1.zip", "https://u:p@cdn.example/foo-1.zip"),
        ("https://cdn.example/foo-1.zip?sig=%2F", "https://cdn.example/foo-1.zip?sig=%2F"),
    ],
)
def test_link_is_resolved_and_stays_raw(link: str, url: str) -> None:
    """RFC 3986, 5.2. Only what may not stand in a URL is encoded."""
    assert [record.url for record in parse(f'<a href="{link}">x</a>').files] == [url]
    assert [record.url for record in parse_files(file("foo-1.zip", url=link)).files] == [url]


@given(st.text(st.sampled_from("./ab"), min_size=1, max_size=12).filter(lambda link: not link.startswith("//")))
def test_relative_link_resolves_as_urljoin_does(link: str) -> None:
    """The short cut for relative links agrees with the library."""
    page = parse_files(file("x", url=link))
    assume = "//" not in link  # the library drops empty segments, RFC 3986 keeps them
    if page.files and assume:
        assert page.files[0].url == urljoin(URL, link)


@pytest.mark.parametrize(
    ("metas", "links", "version"),
    [
        ("", '<a href="foo-1.zip">', "1.0"),
        ('<meta name="pypi:repository-version" content="1.0">', '<a href="foo-1.zip">', "1.0"),
        ('<meta name="pypi:repository-version" content="1.3">', '<a href="foo-1.zip">', "1.0"),
        ('<meta name="pypi:repository-version" content="1.3">', '<a href="foo-1.zip" data-size="7">', "1.3"),
        ('<meta name="pypi:repository-version" content="1.3">', "<a href=a.zip data-size=7><a href=b.zip>", "1.0"),
    ],
)
def test_html_version_is_not_claimed_beyond_known_sizes(metas: str, links: str, version: str) -> None:
    """Contract 13. Sizes are mandatory from 1.1 on."""
    page = parse(metas + links)
    assert as_json(page)["meta"]["api-version"] == version
    assert f'content="{version}"' in as_html(page)


@pytest.mark.parametrize("key", ["core-metadata", "dist-info-metadata"])
@pytest.mark.parametrize(
    ("value", "metadata", "attribute"),
    [
        (True, True, "true"),
        ({"sha256": SHA256}, Digest("sha256", SHA256), f"sha256={SHA256}"),
        ({}, True, "true"),
        (False, False, None),
    ],
)
def test_metadata_of_either_spelling_is_shown_to_all_clients(
    key: str, value: Any, metadata: object, attribute: str | None
) -> None:
    """Contract 14. HTML has both spellings; JSON has the new one alone, for the old one crashes pip 22.3 to 23.1."""
    page = parse_files(file(**{key: value}))
    assert page.files[0].metadata == metadata
    shown = as_json(page)["files"][0]
    assert shown["core-metadata"] == value
    assert "dist-info-metadata" not in shown
    for name in ("data-core-metadata", "data-dist-info-metadata"):
        assert (f'{name}="{attribute}"' in as_html(page)) is (attribute is not None)


def test_metadata_spellings_that_differ_follow_the_new_one() -> None:
    """Contract 14. Only one hash can be that of the bytes we serve (PEP 714 prefers the new key)."""
    page = parse_files(file(**{"core-metadata": True, "dist-info-metadata": {"sha256": SHA256}}))
    assert page.files[0].metadata is True
    assert as_json(page)["files"][0]["core-metadata"] is True


@pytest.mark.parametrize("value", ["", "false", "nonsense", "sha256="])
def test_html_metadata_that_cannot_be_read_is_not_advertised(value: str) -> None:
    """Contract 14. An advertised .metadata that is missing fails a whole install."""
    page = parse(f'<a href="foo-1.zip" data-core-metadata="{value}">')
    assert page.files[0].metadata is False
    assert "data-core-metadata" not in as_html(page)


def test_json_without_metadata_has_neither_key() -> None:
    """Contract 14. Nothing is advertised that upstream does not have."""
    assert "metadata" not in str(as_json(parse_files(file())))


def test_json_url_with_fragment_gives_its_hash() -> None:
    """A fragment in JSON is tolerated; what ``hashes`` says goes first."""
    page = parse_files(
        file(url=f"https://files.example/p/foo-1.0.tar.gz#sha256={SHA256}"),
        file(url=f"https://files.example/q/foo-1.0.tar.gz#sha256={SHA256}", hashes={"sha256": OTHER_SHA256}),
    )
    assert [record.digest for record in page.files] == [Digest("sha256", SHA256), Digest("sha256", OTHER_SHA256)]
    assert all("#" not in shown["url"] for shown in as_json(page)["files"])


def test_json_file_that_is_malformed_is_dropped_alone() -> None:
    """One bad entry does not hide a project."""
    bad: list[Any] = [None, 1, [], {}, {"filename": "x.zip"}, {"url": "x.zip"}, file(filename=1), file(url=None)]
    bad += [file(name) for name in ("", ".", "..", "../x.zip", "a\\b.zip", "a\nb.zip")]
    page = parse_files(*bad, file(hashes=None), file("foo-2.zip", hashes={"sha256": 1}, size=True))
    assert [record.filename for record in page.files] == ["foo-1.0.tar.gz", "foo-2.zip"]
    assert [shown["filename"] for shown in as_json(page)["files"]] == ["foo-1.0.tar.gz", "foo-2.zip"]
    assert [(record.digest, record.size) for record in page.files] == [(None, None), (None, None)]
    assert as_json(page)["files"][0]["hashes"] == {}


@pytest.mark.parametrize("content_type", [JSON_TYPE, "application/json; charset=utf-8", "text/html", ""])
def test_json_is_known_by_type_or_first_byte(content_type: str) -> None:
    """Some upstreams mislabel their JSON."""
    body = b'\xef\xbb\xbf\n{"files": []}'
    page = parse_page(body, content_type=content_type, url=URL, index="a/b", project="foo")
    assert as_json(page) == {"meta": {"api-version": "1.0"}, "name": "foo", "files": []}


@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"[]", b"{}", b'{"files": {}}', b'{"files": null}', b'{"meta": 1, "files": []}', b"\xff", b"<a>"),
        *(b'{"meta": {"api-version": "2.0"}, "files": []}', b'{"meta": {"api-version": 1.0}, "files": []}'),
        *(b'{"meta": {"api-version": "1.x"}, "files": []}', b'{"files": [NaN]}', b'{"files": ["\\ud800"]}', b""),
        *(b'{"files": ["\xff"]}', b'{"files": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"files": []} x'),
    ],
)
def test_json_that_is_no_page_raises_bad_page(body: bytes) -> None:
    """A wrong frame, another major version, or no JSON at all is never cached as good."""
    with pytest.raises(BadPage, match=r"index\.example"):
        parse(body, JSON_TYPE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b'<meta name="pypi:repository-version" content="2.0"><a href="foo-1.zip">x</a>',
        b'<html><title>Log in</title><form action="/login"></form><a href="/terms.html">Terms</a></html>',
        b'<meta http-equiv="refresh" content="0; url=https://portal.example/">',
    ],
)
def test_html_that_is_no_page_raises_bad_page(body: bytes) -> None:
    """A captive portal's page or an empty answer is never cached as good."""
    with pytest.raises(BadPage, match=r"index\.example"):
        parse(body)


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><html><body></body></html>",
        b"<title>root/dev: Links for foo</title><form action='refresh'></form>",
        b'<meta name="pypi:repository-version" content="1.0"><script></script>',
    ],
)
def test_html_page_without_files_is_a_page(body: bytes) -> None:
    """A project may have no files."""
    page = parse(body)
    assert page.files == ()
    assert page.links == []
    assert as_json(page)["files"] == []


@pytest.mark.parametrize(
    "body",
    [
        "<div>" * 300_000,
        "<a href=x.zip><b>" * 3_000,
        "<a href=x.zip " + " ".join(f"x{n}" for n in range(200_000)) + ">",
        "<script><a b='</script><a c=\">'>\" " + " ".join(f"x{n}" for n in range(200_000)) + ">",
        "<!--" * 200_000,
        "<script>" * 100_000,
        '<a href="' * 99_999,
        "<a " * 99_999,
        "<a =" * 99_999,
        ("<a href=x.zip " + " ".join(f"x{n}" for n in range(2000)) + ">") * 1000,
        '<meta name="pypi:repository-version" content="1' + ".1" * 8000 + '"><a href=x.zip>',
    ],
    ids=range(11),
)
def test_html_that_is_out_to_hurt_costs_little(body: str) -> None:
    """Depth, attributes, comments and open quotes cost time in proportion to length only (the parser alone: hours)."""
    begin = time.process_time()
    with suppress(BadPage):
        parse(body)
    assert time.process_time() - begin < 1.5


MANY = 100_001


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<a href=x>" * MANY, "text/html"),
        (b"<META x>" * MANY, "text/html"),
        (b'{"files":[' + b"{}," * MANY * 5 + b"{}]}", JSON_TYPE),
        (b'{"files":[],"x":[' + b"[]," * MANY * 5 + b"[]]}", JSON_TYPE),
        (b'{"files":[' + b"1," * MANY * 40 + b"1]}", JSON_TYPE),
    ],
    ids=["links", "metas", "files", "lists", "numbers"],
)
def test_page_of_too_many_links_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch, body: bytes, content_type: str
) -> None:
    """Fault 14. A million links are half a minute and gigabytes; nothing of them is made."""
    monkeypatch.setattr("teepi.simple_api.msgspec.json", None)
    monkeypatch.setattr("teepi.simple_html.LexborHTMLParser", None)
    with pytest.raises(BadPage, match=r"index\.example.* more than 100000 files"):
        parse(body, content_type)


def test_page_of_more_files_than_any_project_has_is_refused() -> None:
    """Fault 14. However short each of them is."""
    body = b'{"files":[' + b'{"url":"x","filename":"x"},' * (MANY - 1)
    with pytest.raises(BadPage, match="more than 100000 files"):
        parse(body + b"{}]}", JSON_TYPE)


@pytest.mark.parametrize(
    ("body", "cut"),
    [
        (b"<!DOCTYPE html><html><a href=x>x</a></html>", False), (b"<a href=x>x</a>\n", False), (b"", False),
        (b"<!DOCTYPE html><HTML><a href=x>x</a>\n", True), (b"<body>", True), (b"<a href=x>x</a><a hr", True),
        (b'{"files":[{"requires-python":"<4"}]}', False), (b' {"files":[{"yanked":"<html>"}]}', False),
    ],
)  # fmt: skip
def test_html_that_ends_too_early_is_seen_by_its_tags(body: bytes, *, cut: bool) -> None:
    """Fault 13. HTML 5 lets a page leave out all of these tags, but not the second half alone."""
    assert is_cut(body) is cut


def test_origin_of_endless_length_is_no_link() -> None:
    """Fault 14. What is remembered of origins is bounded in bytes as well as in number."""
    page = parse(f'<a href="https://{"h" * 5000}/x.zip">x</a><a href="https://u:{"p" * 500}@h.example/y.zip">y</a>')
    assert [record.filename for record in page.files] == ["y.zip"]


def test_html_with_bad_utf8_keeps_its_files() -> None:
    """One bad byte does not hide a project."""
    page = parse(b'<a href="foo-1.zip" data-yanked="\xff">\xff</a><a href="foo-2.zip">x</a>')
    assert [record.filename for record in page.files] == ["foo-1.zip", "foo-2.zip"]


@pytest.mark.parametrize(
    ("url", "address", "link"),
    [
        ("https://Host.example/p/a%2Bb.whl", "+files/host.example/p/a+b.whl", "+files/host.example/p/a%2Bb.whl"),
        ("https://h.example/p/a+b.whl", "+files/h.example/p/a+b.whl", "+files/h.example/p/a+b.whl"),
        ("https://h.example/%7Eu/a&b!.whl", "+files/h.example/~u/a&b!.whl", "+files/h.example/%7Eu/a&b!.whl"),
        ("https://h.example/é/a%zz.whl", None, None),
        ("http://h.example:80/a.whl", "+http/h.example/a.whl", "+http/h.example/a.whl"),
        ("https://h.example:443/a.whl", "+files/h.example/a.whl", "+files/h.example/a.whl"),
        ("http://h.example:443/a.whl", "+http/h.example:443/a.whl", "+http/h.example:443/a.whl"),
        ("https://u:p@h.example:08080/a.whl", "+files/h.example:8080/a.whl", "+files/h.example:8080/a.whl"),
        ("https://[2001:DB8::1]:8/a.whl", "+files/[2001:db8::1]:8/a.whl", "+files/%5B2001:db8::1%5D:8/a.whl"),
        ("https://h.example/.b/a..b/a.whl", "+files/h.example/.b/a..b/a.whl", "+files/h.example/.b/a..b/a.whl"),
    ],
)
def test_address_of_plain_url_keeps_the_path(url: str, address: str | None, link: str | None) -> None:
    """Contract 5. The upstream's own path is the tail, byte for byte in the link."""
    filename = decode_target(urlsplit(url).path)[0].rpartition("/")[2]
    found = address_of(url, filename, Digest("sha256", SHA256))
    if address is None:
        assert found[0].startswith("+f/")
    else:
        assert found == (address, link)


@pytest.mark.parametrize(
    "url",
    [
        *("https://h.example/a.whl?", "https://h.example/a.whl?sig=1", "https://h.example/get?f=/a.whl"),
        *("https://h.example/x/../a.whl", "https://h.example/x/%2e%2e/a.whl", "https://h.example/./a.whl"),
        *("https://h.example//a.whl", "https://h.example/x%2F/a.whl", "https://h.example/x%00/a.whl"),
        *("https://h.example/x\\y/a.whl", "https://h.example/x%5Cy/a.whl", "https://h.example/%FF/a.whl"),
        *(
            "https://h.example/other.whl",
            "https://../a.whl",
            "https://h.example:99999x/a.whl",
            "https://h_é.example/a.whl",
        ),
        *("https://h.example/x\x01/a.whl", "https://h.example/x#/a.whl", "ftp://h.example/a.whl"),
    ],
)
def test_address_of_awkward_url_is_hashed(url: str) -> None:
    """Contract 5. What a request for it could not say safely goes by digest, else by the raw URL."""
    folder = f"+f/{SHA256[:3]}/{SHA256[3:16]}/"
    assert address_of(url, "a.whl", Digest("sha256", SHA256)) == (folder + "a.whl", folder + "a.whl")
    assert address_of(url, "a.whl", Digest("md5", "0" * 32))[0].startswith("+e/")
    address, link = address_of(url, "a+é b.whl", None)
    assert address.startswith("+e/")
    assert address.endswith("/a+é b.whl")
    assert len(address.split("/")[1]) == 16
    assert link.endswith("/a%2B%C3%A9%20b.whl")


@given(
    host=st.sampled_from(["h.example", "H.example:8080", "[::1]", "..", "u@h.example", "h\xe9"]),
    path=st.text(st.sampled_from("ab.%+~&;=@:!/\\25eEfF é"), max_size=16),
    filename=st.text(st.sampled_from("ab.+&%é "), min_size=1, max_size=4).filter(lambda name: name.strip(".")),
)
def test_link_decodes_to_its_address_for_any_url(host: str, path: str, filename: str) -> None:
    """Contract 2, 6. Whatever link we give out, the request for it is accepted and means this address."""
    address, link = address_of(f"https://{host}/{path}", filename, None)
    assert decode_target("/root/pypi/" + link) == ("/root/pypi/" + address, "")
    assert "//" not in address
    assert link.isascii()


def test_files_that_collide_after_decoding_get_hashed_addresses() -> None:
    """Design 5. Two raw URLs never share an address, whatever their order; one URL twice does."""
    clash = [file("a+b.zip", url="https://h.example/a%2Bb.zip"), file("a+b.zip", url="https://h.example/a+b.zip")]
    users = [file("c.zip", url="https://u@h.example/c.zip"), file("c.zip", url="https://h.example/c.zip")]
    twice = [file("d.zip", url="https://h.example/d.zip")] * 2
    disagree = [
        file("e.zip", url="https://h.example/e.zip", hashes={"sha256": hex_}) for hex_ in (SHA256, OTHER_SHA256)
    ]
    page = parse_files(*clash, *users, *twice, *disagree)
    kinds = [record.address.partition("/")[0] for record in page.files]
    assert kinds == ["+e"] * 4 + ["+files"] * 2 + ["+f"] * 2
    assert len({record.address for record in page.files}) == 7
    assert [link.partition("/")[0] for link in page.links] == kinds
    backwards = parse_files(*reversed(clash))
    assert {record.address for record in backwards.files} == {record.address for record in page.files[:2]}


def test_files_of_one_url_with_and_without_a_weak_digest_have_two_addresses() -> None:
    """Design 5. Else the catalogue would keep one of the two records, perhaps the one that nothing is checked by."""
    url = "https://h.example/d.zip"
    page = parse_files(file("d.zip", url=url), file("d.zip", url=url, hashes={"md5": "0" * 32}))
    assert len({record.address for record in page.files}) == 2


def test_html_name_is_the_files_own_even_where_the_url_has_another() -> None:
    """HTML and pip go by the last segment of a link, so that is always the file's name."""
    page = parse_files(
        file("foo-1.zip", url="https://h.example/download/42"), file("a+b!&c.zip", url="https://h.example/7")
    )
    assert [link.rpartition("/")[2] for link in page.links] == ["foo-1.zip", "a%2Bb%21%26c.zip"]
    assert ">a+b!&amp;c.zip</a>" in as_html(page)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)
WORD = st.text(st.sampled_from("ab1.+!&<>'\"_-% "), min_size=1, max_size=8).filter(lambda word: word not in {".", ".."})
DIGESTS = st.sampled_from([SHA256, OTHER_SHA256])
FILES = st.fixed_dictionaries(
    {"filename": WORD, "hashes": st.just({}) | st.builds(lambda digest: {"sha256": digest}, DIGESTS)},
    optional={
        "requires-python": TEXT,
        "yanked": st.just(True) | TEXT,  # noqa: FBT003
        "core-metadata": st.just(True) | st.builds(lambda digest: {"sha256": digest}, DIGESTS),  # noqa: FBT003
        "gpg-sig": st.booleans(),
        "provenance": TEXT,
        "upload-time": TEXT,
        "size": st.integers(0, 10**18 - 1),
        "_data-x.y-z": TEXT,
    },
)


@settings(max_examples=150, deadline=None)
@given(files=st.lists(FILES, max_size=4), status=TEXT, form=st.sampled_from([PageFormat.HTML, PageFormat.HTML_V1]))
def test_json_to_html_and_back_keeps_what_html_can_carry(
    files: list[dict[str, Any]], status: str, form: PageFormat
) -> None:
    """Contract 12, 16. Nothing that has an attribute is lost or changed by escaping."""
    for number, entry in enumerate(files):
        entry["url"] = f"https://files.example/{number}"
    document = {"meta": {"api-version": "1.0"}, "name": "foo", "files": files, "project-status": {"status": status}}
    page = parse(document)
    body = render(page, form, "https://teepi.example/root/pypi/")
    again = parse(body, form.content_type)
    for before, link, after in zip(page.document["files"], page.links, again.document["files"], strict=True):
        assert after == before | {"url": "https://teepi.example/root/pypi/" + link}
    assert again.document.get("project-status", {"status": ""})["status"] == status.strip()


@pytest.mark.parametrize(
    ("filename", "project"),
    [
        ("Foo.Bar-1.0-py3-none-any.whl", "foo-bar"),
        ("foo_bar-1.0-1-py3-none-any.whl.metadata", "foo-bar"),
        ("foo-not.a.version-py3-none-any.whl", "foo"),
        ("Foo_Bar-1.0.tar.gz.asc", "foo-bar"),
        ("foo-2-1.0.zip", "foo-2"),
        ("foo-bar-1.0-beta.tar.gz", "foo-bar"),
        ("my-3d-lib-1.0-beta.tar.bz2", "my-3d-lib"),
        ("foo-1-a-1-post-1-dev-1.tgz", "foo"),
        ("foo-1.0+1-2-3-4-5-6-7-8-9.tgz", "foo"),
        ("foo-1.0.linux-x86_64.tar.gz", "foo"),
        ("foo-1.0.tgz", "foo"),
        ("foo_bar-1.0-py3.8-linux-x86_64.egg", "foo-bar"),
        ("foo-bar-1.0.win-amd64-py3.4.exe", "foo-bar"),
        ("foo-1.0.win32.msi", "foo"),
        *((name, None) for name in ("", "foo", "foo.zip", "foo.whl", "foo-1.0.txt", "setup.exe", "-1.0.zip", ".whl")),
        *((name, None) for name in ("a" * 300 + "-1.0.zip", "!-1.0.zip", "foo-bar.tar.gz", "foo.egg", "-.egg")),
    ],
)
def test_project_of_filename_finds_the_normalised_project(filename: str, project: str | None) -> None:
    """PEP 427, 503, 625 and what came before them."""
    assert project_of_filename(filename) == project


def test_project_of_filename_costs_no_more_the_more_dashes_a_name_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 14. A page of 100,000 such names took half a minute, in which no other page was read."""
    tried: list[str] = []

    def version(text: str) -> Version:
        tried.append(text)
        return Version(text)

    monkeypatch.setattr(filenames, "Version", version)
    assert project_of_filename("foo" + "-a" * 120 + ".tar.gz") is None
    assert len(tried) < 10


def test_link_is_encoded_at_once_however_many_of_its_characters_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 14. Character by character a page of such links took a minute."""
    quoted: list[str] = []

    def count(text: str, safe: str) -> str:
        quoted.append(text)
        return quote(text, safe=safe)

    monkeypatch.setattr(addresses, "quote", count)
    found = addresses.link_resolver(URL)("/p/" + "é" * 100 + " ~%41\ud800?#f")
    assert found == ("https://index.example/p/" + "%C3%A9" * 100 + "%20~%41%3F?", "f")
    assert len(quoted) == 1


@pytest.mark.parametrize("form", ["json", "html"])
def test_link_that_is_longer_than_a_request_may_be_is_dropped(form: str) -> None:
    """Fault 14. Nobody could ask for it, and one of 60 MB held the interpreter's lock for seconds."""
    urls = [f"https://files.example/{'%41' * count}/foo-{count}.tar.gz" for count in (9000, 2000)]
    entries = [file(f"foo-{count}.tar.gz", url=url) for count, url in zip((9000, 2000), urls, strict=True)]
    page = parse_files(*entries) if form == "json" else parse("".join(f'<a href="{url}">x</a>' for url in urls))
    assert [record.filename for record in page.files] == ["foo-2000.tar.gz"]
