"""What the pages of projects show: metadata of strangers, versions put together, descriptions made safe."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from teepi.data import Registered, StoredFile
from teepi.descriptions import MOST_CHARACTERS, Descriptions, in_process
from teepi.project_facts import Dependency, Environment, Link, about, environments, safe_url
from teepi.project_versions import Owned, VersionFiles, newest, put_together
from teepi.rendering import rendered
from teepi.simple_api import ProjectPage
from teepi.tasks import TaskScope


def test_about_of_hostile_fields_keeps_text_and_drops_what_makes_no_sense() -> None:
    """Types that are none of theirs, lone surrogates, URLs that act: nothing raises, nothing acts."""
    found = about(
        {
            "name": 7, "summary": "two\nlines \ud800", "license": ["MIT"], "classifiers": "One",
            "requires_dist": [{}, "b>"],
            "project_urls": ["Docs, https://d.example/", "Evil, javascript:alert(1)", "https://bare.example/x"],
            "home_page": "data:text/html,x", "author_email": "Jane <jane@x.example>, joe@x.example",
        }
    )  # fmt: skip
    assert (found.name, found.summary, found.licence, found.author) == ("", "two lines ?", "", "Jane")
    assert found.classifiers == ["One"]
    assert found.dependencies == [Dependency("", "", "b>")]
    assert found.links == [Link("Docs", "https://d.example/"), Link("bare.example", "https://bare.example/x")]


def test_dependencies_lead_to_projects_and_are_counted_beyond_a_page() -> None:
    """The name is normalised for its link; extras, versions and markers stay as they are written."""
    found = about({"requires_dist": ["Rich.Text[x]>=1; python_version<'4'", *["a"] * 300]})
    assert found.dependencies[0] == Dependency("rich-text", "Rich.Text", "[x]>=1; python_version<'4'")
    assert (len(found.dependencies), found.more_dependencies) == (300, 1)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://a.example/?q=1", "https://a.example/?q=1"), ("HTTP://a.example", "HTTP://a.example"),
        ("java\nscript:alert(1)", ""), ("//a.example", ""), ("http:", ""), ("https://[", ""),
        ("mailto:a@b.example", ""),
    ],
)  # fmt: skip
def test_only_web_addresses_are_linked(url: str, safe: str) -> None:
    """A page may lead to http and https, and to nothing that a browser runs."""
    assert safe_url(url) == safe


GOOD, WRONG = Environment("py", is_passed=True), Environment("py", is_passed=False)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"testenvs": {"py": {"setup": [{"retcode": "0"}], "test": [{"retcode": 0}]}}}', [GOOD]),
        ('{"testenvs": {"py": {"setup": [{"retcode": "1"}], "test": [{"retcode": 0}]}}}', [WRONG]),
        ('{"testenvs": {"py": {"test": []}}}', [WRONG]),
        ("", None), ("[]", None), ('{"testenvs": 3}', None), ('{"testenvs": {"py": {"test": [1]}}}', None),
    ],
)  # fmt: skip
def test_environments_of_a_test_run_pass_when_every_command_did(content: str, found: list[Environment] | None) -> None:
    """What ran nothing has not passed; what cannot be read is not guessed."""
    assert environments(content) == found


def stored(number: int, filename: str, version: str) -> StoredFile:
    """Return a file of ``admin/dev``."""
    rest: tuple[Any, ...] = ("", "", "", "", None, None, 5.0, "admin", None, [])
    return StoredFile(number, "admin/dev", "demo", version, filename, "ab" * 32, 10, *rest)


def page(*files: dict[str, Any]) -> ProjectPage:
    """Return a mirror's page."""
    entries = [{"hashes": {}, "url": "https://u.example/x", **file} for file in files]
    links = [f"+files/{at}" for at in range(len(files))]
    return ProjectPage("root/pypi", "demo", {"files": entries}, links, links)


def test_versions_of_stage_and_mirror_are_put_together_by_meaning_and_the_first_file_of_a_name_counts() -> None:
    """``1.0`` and ``1.0.0`` are one version; the mirror's copy of an uploaded file is not counted."""
    owned = Owned(
        "admin/dev",
        [Registered("admin/dev", "demo", "1", "1.0.0", "demo", "", 5.0, "admin")],
        [stored(1, "demo-1.0-py3-none-any.whl", "1")],
        frozenset({"1"}),
    )
    mirror = page(
        {"filename": "demo-1.0-py3-none-any.whl"},
        {"filename": "demo-1.0.tar.gz", "size": 7, "upload-time": "2026-01-02T03:04:05Z", "yanked": "bad"},
        {"filename": "demo-2.0rc1.tar.gz", "upload-time": "<script>"},
        {"filename": "readme.txt"},
    )
    found = put_together([owned], ("root/pypi", mirror), {1: "2025-01-01T00:00:00Z"})
    assert [(each.version, each.files, each.size, each.time) for each in found] == [
        ("2.0rc1", 1, 0, ""), ("1.0.0", 2, 17, "2026-01-02T03:04:05Z"),
    ]  # fmt: skip
    assert found[1].has_docs
    assert not found[1].is_yanked
    best = newest(found)
    assert best is not None
    assert best.version == "1.0.0"  # no pre-release where there is something else


def test_newest_version_is_none_that_was_withdrawn() -> None:
    """A version of which all files were withdrawn comes after all others."""
    mirror = page({"filename": "demo-3.tar.gz", "yanked": True}, {"filename": "demo-2.dev1.tar.gz"})
    found = put_together([], ("root/pypi", mirror), {})
    assert [(each.version, each.is_yanked) for each in found] == [("3", True), ("2.dev1", False)]
    assert newest(found) is found[1]
    assert newest(list[VersionFiles]()) is None


HOSTILE = """# Title <script>alert(1)</script>

[run](javascript:alert(1)) [here](/+manage/delete) [far](https://x.example/) ![pixel](https://spy.example/p.png)

<h1 class="problem" id="live" onclick="alert(1)">big</h1><form action="/+session"><input name="user"></form>
<img src=x onerror=alert(1) alt="<b>"><iframe src="https://x.example"></iframe><style>*{display:none}</style>
"""


RST = """Title
=====

.. class:: problem

`run <javascript:alert(1)>`_ `far <https://x.example/>`_

.. image:: https://spy.example/p.png
   :alt: picture
"""


@pytest.mark.parametrize(("text", "kind", "alt"), [(HOSTILE, "text/markdown", "pixel"), (RST, "text/x-rst", "picture")])
def test_description_loses_all_that_acts_loads_or_looks_like_ours(text: str, kind: str, alt: str) -> None:
    """Scripts, handlers, forms, frames, styles, pictures, ids and classes; headings go below those of the page."""
    html = rendered(text, kind)
    assert html is not None
    assert alt in html
    for bad in ("<script", "<img", "<form", "<input", "<iframe", "<style", "class=", " id=", "<h1", "<h2"):
        assert bad not in html
    for bad in ("javascript:", "onclick", "onerror", "spy.example", "+manage"):
        assert bad not in html
    assert 'href="https://x.example/" rel="nofollow noopener noreferrer"' in html
    assert "<h3>" in html


def test_description_that_reads_files_of_this_machine_is_not_rendered() -> None:
    """Directives of reStructuredText that include files are an error, and the text is shown as it is."""
    assert rendered(".. include:: /etc/passwd\n", "text/x-rst") is None
    assert rendered(".. raw:: html\n   :file: /etc/passwd\n", "text/x-rst") is None


async def test_description_that_is_long_plain_or_waits_for_others_is_shown_as_text() -> None:
    """What was rendered is kept; two who look at once render it once, and a third description does not queue."""
    gate = asyncio.Event()
    begun: list[str] = []

    async def slow(text: str, kind: str) -> str | None:
        begun.append(f"{kind} {text}")
        await gate.wait()
        return text.upper()

    scope = TaskScope()
    service = Descriptions(scope, slow)
    assert await service.html("x" * (MOST_CHARACTERS + 1), "text/markdown") is None
    assert await service.html("plain *text*", "text/plain") is None
    asked = [
        asyncio.ensure_future(service.html(text, "text/markdown; charset=UTF-8")) for text in ("one", "one", "two")
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await service.html("three", "text/markdown") is None
    gate.set()
    assert await asyncio.gather(*asked) == ["ONE", "ONE", "TWO"]
    assert await service.html("one", "text/markdown; variant=GFM") == "ONE"
    assert begun == ["text/markdown one", "text/markdown two"]
    await scope.aclose()


async def test_description_that_takes_for_ever_is_given_up() -> None:
    """Quotes inside each other, two hundred thousand deep, keep the parser busy for minutes."""
    async with asyncio.timeout(4):
        assert await in_process(">" * MOST_CHARACTERS, "text/markdown", seconds=0.3) is None
    assert await in_process("Some *words*", "text/markdown") == "<p>Some <em>words</em></p>\n"
    assert await in_process(".. include:: /etc/passwd", "text/x-rst") is None


def test_licence_that_is_a_whole_text_is_cut_to_its_beginning() -> None:
    """The page says which it is, not all that it says."""
    assert about({"license": "MIT"}).licence == "MIT"
    assert about({"license": "Copyright 2008 Somebody. Redistribution " + "and use " * 100}).licence.endswith(
        "and use …"
    )
    assert len(about({"license": "word " * 100}).licence) <= 122
