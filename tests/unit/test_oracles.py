"""Our pages read by other people's parsers: they find in them what they find in the upstream's own page.

The pages under ``tests/data/simple`` are recorded (HTML) or made by hand (JSON); host names in them are invented.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

import pypi_simple
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simple_repository.parser import parse_html_project_page, parse_json_project_page

from teepi.http_semantics import PageFormat
from teepi.model import Digest
from teepi.simple_api import parse_page, render

if TYPE_CHECKING:
    from collections.abc import Callable

    Facts = dict[str, Any]
    Oracle = Callable[[bytes, bool, str], tuple[Facts, list[Facts]]]

DATA = Path(__file__).parent.parent / "data" / "simple"
RECORDED = sorted(path.name for path in DATA.iterdir())
URL = "https://index.example/simple/demo/"
OURS = "https://teepi.example/simple/demo/"
BASE = "../../root/pypi/"
ROOT = "https://teepi.example/root/pypi/"
ONLY_JSON = frozenset({"size", "upload_time", "versions", "last_serial", "project"})
"""What a page cannot say in HTML, or these parsers do not read there."""


def pypi_simple_reads(body: bytes, is_json: bool, url: str) -> tuple[Facts, list[Facts]]:  # noqa: FBT001
    """Return what pypi-simple finds in a page and in its files."""
    page = (
        pypi_simple.ProjectPage.from_json_data(json.loads(body), url)
        if is_json
        else pypi_simple.ProjectPage.from_html("demo", body, url)
    )
    files = [asdict(package) for package in page.packages]
    for file in files:
        file["yanked_reason"] = file["yanked_reason"] or None  # JSON has True where HTML has an empty attribute
        file["has_metadata"] = bool(file["has_metadata"])  # and False where it has none
        file.pop("version")
        file.pop("project")
    facts = asdict(page)
    facts.pop("packages")
    return facts, files


def simple_repository_reads(body: bytes, is_json: bool, url: str) -> tuple[Facts, list[Facts]]:  # noqa: FBT001
    """Return what simple-repository finds in a page and in its files."""
    text = body.decode()
    page = parse_json_project_page(text) if is_json else parse_html_project_page(text, "demo")
    files = []
    for file in page.files:
        facts = dict(vars(file))
        facts["url"] = urljoin(url, unquote(file.url))  # it quotes the URLs it reads once more
        facts["yanked"] = file.yanked or None
        facts["dist_info_metadata"] = file.dist_info_metadata or None
        private = facts.pop("private_metadata")
        facts["private"] = dict(private.items()) if is_json else None
        files.append(facts)
    private = dict(page.private_metadata.items()) if is_json else None
    return {"versions": page.versions, "private": private, "meta": page.meta if is_json else None}, files


ORACLES = [pypi_simple_reads, simple_repository_reads]


def strongest(hashes: dict[str, str] | bool | None) -> Any:  # noqa: FBT001
    """Return the one digest that HTML has room for."""
    if not isinstance(hashes, dict):
        return hashes
    digest = Digest.strongest(hashes)
    return {digest.algorithm: digest.hex} if digest is not None else {}


def in_html(facts: Facts) -> Facts:
    """Leave only what HTML can say."""
    left = {key: value for key, value in facts.items() if key not in ONLY_JSON | {"private", "meta"}}
    for key in {"digests", "hashes", "metadata_digests", "dist_info_metadata"} & left.keys():
        left[key] = strongest(left[key])
    return left


def upstreams_url(url: str, link: str, raw: str) -> str:
    """Undo our rewriting of ``url`` by what its own words say, where it has them, else say that it was ``raw``."""
    assert url == ROOT + link
    for kind, scheme in (("+files/", "https://"), ("+http/", "http://")):
        if link.startswith(kind):
            return scheme + link.removeprefix(kind)
    return raw


def same(oracle: Oracle, body: bytes, *, form: PageFormat, is_json: bool) -> None:
    """Assert that ``oracle`` finds the same in upstream's page ``body`` and in ours of it."""
    content_type = (PageFormat.JSON if is_json else PageFormat.HTML).content_type
    page = parse_page(body, content_type=content_type, url=URL, index="root/pypi", project="demo")
    into_json = form is PageFormat.JSON
    wanted, wanted_files = oracle(body, is_json, URL)
    found, found_files = oracle(render(page, form, BASE), into_json, OURS)
    for file, link, record in zip(found_files, page.links, page.files, strict=True):
        assert unquote(file["url"].rpartition("/")[2]) == file["filename"]
        file["url"] = upstreams_url(file["url"], link, record.url)
    if not (is_json and into_json):
        wanted, found = in_html(wanted), in_html(found)
        wanted_files, found_files = list(map(in_html, wanted_files)), list(map(in_html, found_files))
        if not is_json:
            # An HTML page without a version is 1.0, and ours says so.
            wanted["repository_version"] = found["repository_version"] = None
    assert found == wanted
    assert found_files == wanted_files


@pytest.mark.parametrize("form", list(PageFormat))
@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("oracle", ORACLES)
def test_recorded_page_reads_as_the_upstreams_own(oracle: Oracle, name: str, form: PageFormat) -> None:
    """Contract 12, 16. File name, URL, digests, Python, yank, size, time, metadata, provenance and status are equal."""
    same(oracle, (DATA / name).read_bytes(), form=form, is_json=name.endswith(".json"))


def hexes(digits: int) -> st.SearchStrategy[str]:
    """Return digests of that length."""
    return st.text("0123456789abcdef", min_size=digits, max_size=digits)


TEXT = st.text("ab <>&\"'=;#%é\u2028,.", min_size=1, max_size=12).filter(lambda text: text == text.strip())
SEGMENT = st.text("ab1+!&~'%<>\"é =", min_size=1, max_size=6).filter(lambda text: text == text.strip())
NAMES = st.builds(
    lambda odd, end: f"demo-1.{odd}{end}", SEGMENT, st.sampled_from([".tar.gz", ".zip", "-py3-none-any.whl"])
)
HASHES = st.fixed_dictionaries({}, optional={"sha256": hexes(64), "md5": hexes(32), "sha512": hexes(128)})
FOLDERS = st.sampled_from(
    ["https://files.example/p/%2B/", "http://cdn.example:8080/~a/b!/", "https://h.example//x/", "../../p/", "/p/", ""]
)
FILES = st.fixed_dictionaries(
    {"filename": NAMES, "hashes": HASHES, "size": st.integers(0, 2**53), "folder": FOLDERS},
    optional={
        "requires-python": TEXT,
        "yanked": st.booleans() | TEXT,
        "core-metadata": st.booleans() | st.builds(lambda value: {"sha256": value}, hexes(64)),
        "gpg-sig": st.booleans(),
        "provenance": st.builds("https://index.example/{}".format, st.text("ab/-", max_size=6)),
        "upload-time": st.datetimes().map(lambda time: time.replace(year=2024).strftime("%Y-%m-%dT%H:%M:%S.%fZ")),
        "_private": TEXT,
    },
)
PAGES = st.fixed_dictionaries(
    {
        "meta": st.fixed_dictionaries(
            {"api-version": st.sampled_from(["1.0", "1.1", "1.4"])}, optional={"tracks": st.lists(TEXT, max_size=2)}
        ),
        "name": st.just("demo"),
        "versions": st.lists(st.sampled_from(["1.0", "2.0"]), unique=True),
        "files": st.lists(FILES, max_size=4),
    },
    optional={
        "project-status": st.fixed_dictionaries(
            {"status": st.sampled_from(["active", "archived", "quarantined", "deprecated"])}, optional={"reason": TEXT}
        ),
        "alternate-locations": st.lists(TEXT, max_size=2),
    },
)


def with_urls(page: Facts) -> Facts:
    """Return ``page`` with a URL for each file that ends in its name, sparsely escaped as many indexes do."""
    keep = {"%": "%25", " ": "%20", "é": "%C3%A9", "#": "%23", '"': "%22", "<": "%3C", ">": "%3E"}
    files = []
    for file in page["files"]:
        entry = {key: value for key, value in file.items() if key != "folder"}
        tail = "".join(keep.get(character, character) for character in file["filename"])
        files.append(entry | {"url": file["folder"] + tail})
    return page | {"files": files}


STYLES = st.sampled_from(
    [
        '<{tag} {name}="{value}">',
        "<{tag} {name}='{value}' >",
        '<{tag}\n\t{name} = "{value}"\n>',
        '<{tag} class=file rel="internal" {name}="{value}" data-odd>',
        "<{TAG} {NAME}='{value}'>",
    ]
)
"""Ways to write a start tag: with one attribute, whose place all of them take."""


def tag_of(style: str, tag: str, attributes: Facts) -> str:
    """Write a start tag in ``style`` with the fewest escapes that HTML allows; None is an attribute without value."""
    head, one, end = re.split(r"(\{(?:name|NAME)\}.*\{value\}[\"'])", style)
    written = [
        one.format(name=name, NAME=name.upper(), value=escape(value)) if value is not None else name
        for name, value in attributes.items()
    ]
    return head.format(tag=tag, TAG=tag.upper()) + " ".join(written) + end


def html_of(page: Facts, style: str) -> bytes:
    """Write ``page`` as an HTML index would."""
    lines = ["<!DOCTYPE html>"]
    metas = [("tracks", each) for each in page["meta"].get("tracks", [])]
    metas += [("alternate-locations", each) for each in page.get("alternate-locations", [])]
    status = page.get("project-status", {})
    metas += [("project-status", status["status"])] if status else []
    metas += [("project-status-reason", status["reason"])] if "reason" in status else []
    lines += [tag_of(style, "meta", {"name": f"pypi:{name}", "content": content}) for name, content in metas]
    for file in page["files"]:
        fragment = "".join(f"#{name}={value}" for name, value in strongest(file["hashes"]).items())
        attributes: Facts = {"href": file["url"] + fragment}
        for key, value in file.items():
            if key in {"requires-python", "provenance"}:
                attributes[f"data-{key}"] = value
            elif key == "gpg-sig":
                attributes["data-gpg-sig"] = str(value).lower()
            elif key == "yanked" and value is not False:
                attributes["data-yanked"] = None if value is True else value
            elif key == "core-metadata" and value is not False:
                attributes["data-core-metadata"] = "true" if value is True else f"sha256={value['sha256']}"
        lines.append(tag_of(style, "a", attributes) + escape(file["filename"]) + "</a>")
    return "\n".join(lines).encode()


@settings(max_examples=60, deadline=None)
@given(page=PAGES.map(with_urls), form=st.sampled_from(PageFormat), oracle=st.sampled_from(ORACLES))
def test_generated_json_page_reads_as_the_upstreams_own(page: Facts, form: PageFormat, oracle: Oracle) -> None:
    """Contract 12, 16. Whatever stands in names, URLs and texts."""
    same(oracle, json.dumps(page).encode(), form=form, is_json=True)


@settings(max_examples=60, deadline=None)
@given(page=PAGES.map(with_urls), style=STYLES, form=st.sampled_from(PageFormat), oracle=st.sampled_from(ORACLES))
def test_generated_html_page_reads_as_the_upstreams_own(
    page: Facts, style: str, form: PageFormat, oracle: Oracle
) -> None:
    """Contract 12, 16. From HTML in whatever style, too."""
    same(oracle, html_of(page, style), form=form, is_json=False)
