"""Legacy JSON documents: made from a page, and upstream's own with our links."""

from __future__ import annotations

import json
from typing import Any

import pytest

from teepi import legacy_json
from teepi.errors import BadPage
from teepi.simple_api import parse_page

BASE = "http://teepi.example/root/pypi/"
A, B, C = "a" * 64, "b" * 64, "c" * 64


def page_of(*files: dict[str, Any], **more: Any) -> Any:
    """Return the page of ``demo`` with ``files``."""
    document = {"meta": {"api-version": "1.1"}, "name": "demo", "files": list(files)} | more
    body = json.dumps(document).encode()
    url = "https://files.example/simple/demo/"
    return parse_page(body, content_type="application/json", url=url, index="root/pypi", project="demo")


def file(filename: str, sha256: str = A, **more: Any) -> dict[str, Any]:
    """Return one entry of a page."""
    return {"filename": filename, "url": f"https://files.example/p/{filename}", "hashes": {"sha256": sha256}} | more


@pytest.mark.parametrize(
    ("filename", "version", "kind", "python"),
    [
        ("demo-1.0-py3-none-any.whl", "1.0", "bdist_wheel", "py3"),
        ("demo-1.0-2-cp311-cp311-linux_x86_64.whl", "1.0", "bdist_wheel", "cp311"),
        ("demo-1.0.tar.gz", "1.0", "sdist", "source"),
        ("Demo-1.0-beta.zip", "1.0-beta", "sdist", "source"),
        ("demo-1.0-py2.7.egg", "1.0", "bdist_egg", "2.7"),
        ("demo-1.0.win-amd64-py2.7.exe", "1.0", "bdist_wininst", "2.7"),
        ("demo-1.0.linux-x86_64.tar.gz", "1.0", "bdist_dumb", "any"),
    ],
)
def test_build_reads_version_and_kind_from_a_file_name(filename: str, version: str, kind: str, python: str) -> None:
    """Contract 7. pip-tools goes by the version's normal form and by ``packagetype``."""
    assert legacy_json.version_of(filename, "demo") == version
    releases = json.loads(legacy_json.build(page_of(file(filename)), BASE))["releases"]
    [[entry]] = releases.values()
    assert (entry["packagetype"], entry["python_version"]) == (kind, python)


def test_version_of_a_name_with_dashes_and_of_another_project() -> None:
    """The whole project name goes; a name of another project has no version here."""
    assert legacy_json.version_of("foo-bar-2-1.0.tar.gz", "foo-bar-2") == "1.0"
    assert legacy_json.version_of("foo_bar-1.0.tar.gz", "foo-bar") == "1.0"
    assert legacy_json.version_of("foo_bar-1.0.tar.gz", "demo") is None
    assert legacy_json.version_of("demo.txt", "demo") is None


def test_build_carries_everything_that_the_page_says_of_a_file() -> None:
    """Contract 7. Every key that clients read, null where the page does not know."""
    told = file(
        "demo-1.0.tar.gz", size=7, yanked="broken", **{"requires-python": ">=3.8",
        "upload-time": "2024-05-06T07:08:09.123456Z"},
    )  # fmt: skip
    told["hashes"]["md5"] = "0" * 32
    document = json.loads(legacy_json.build(page_of(told), BASE))
    [entry] = document["releases"]["1.0"]
    assert entry == {
        "comment_text": "",
        "digests": {"sha256": A, "md5": "0" * 32},
        "downloads": -1,
        "filename": "demo-1.0.tar.gz",
        "has_sig": False,
        "md5_digest": "0" * 32,
        "packagetype": "sdist",
        "python_version": "source",
        "requires_python": ">=3.8",
        "size": 7,
        "upload_time": "2024-05-06T07:08:09",
        "upload_time_iso_8601": "2024-05-06T07:08:09.123456Z",
        "url": BASE + "%2Bfiles/files.example/p/demo-1.0.tar.gz",
        "yanked": True,
        "yanked_reason": "broken",
    }
    assert document["urls"] == [entry]
    assert (document["last_serial"], document["vulnerabilities"]) == (-1, [])
    info = document["info"]
    assert (info["name"], info["version"], info["requires_python"]) == ("demo", "1.0", ">=3.8")
    assert info["summary"] is None
    assert info["requires_dist"] is None
    assert info["yanked"] is True


@pytest.mark.parametrize(
    ("files", "latest"),
    [
        (["demo-1.9.tar.gz", "demo-1.10.tar.gz", "demo-2.0rc1.tar.gz"], "1.10"),
        (["demo-1.0a1.tar.gz", "demo-1.0a2.tar.gz"], "1.0a2"),
        (["demo-1.0.tar.gz", "!demo-2.0.tar.gz"], "1.0"),
        (["demo-0.1-odd-thing.tar.gz", "demo-1.0.tar.gz"], "1.0"),
        ([], None),
    ],
)
def test_build_says_the_newest_version_that_installers_would_choose(files: list[str], latest: str | None) -> None:
    """By PEP 440, not by spelling; pre-releases and yanked ones (here marked with !) only where there is no other."""
    page = page_of(*(file(name.removeprefix("!"), yanked=name.startswith("!")) for name in files))
    assert json.loads(legacy_json.build(page, BASE))["info"]["version"] == latest


def test_build_of_one_version_describes_that_one() -> None:
    """Contract 7. ``info`` and ``urls`` are those of the version, however the client spells it."""
    page = page_of(file("demo-1.0.tar.gz"), file("demo-2.0.tar.gz", B), versions=["1.0", "2.0"])
    for spelling in ("1.0", "1.0.0", "v1", "1"):
        known = legacy_json.find_version(page, spelling)
        assert known == "1.0"
        document = json.loads(legacy_json.build(page, BASE, known))
        assert document["info"]["version"] == "1.0"
        assert [entry["filename"] for entry in document["urls"]] == ["demo-1.0.tar.gz"]
        assert list(document["releases"]) == ["1.0", "2.0"]
    assert legacy_json.find_version(page, "3.0") is None
    assert legacy_json.find_version(page, "not a version") is None
    assert legacy_json.find_version(page, "1" * 5000) is None


def test_adopt_rewrites_what_the_page_knows_and_keeps_the_rest() -> None:
    """Contract 7. By URL, or by name and digest; unknown keys and a file that the page lacks stay as they are."""
    page = page_of(file("demo-1.0.tar.gz"), file("demo-1.0-py3-none-any.whl", B))
    theirs: dict[str, Any] = {
        "info": {"version": "1.0", "summary": "text", "odd": 1},
        "releases": {
            "1.0": [
                {
                    "filename": "demo-1.0.tar.gz",
                    "url": "https://files.example/p/demo-1.0.tar.gz",
                    "digests": {"x": "1"},
                },
                {"filename": "demo-1.0-py3-none-any.whl", "url": "https://cdn.example/w", "digests": {"sha256": B}},
            ],
            "0.9": [{"filename": "demo-0.9.tar.gz", "url": "https://files.example/gone", "digests": {"sha256": C}}],
        },
        "urls": [],
        "odd": [1],
    }
    document = json.loads(legacy_json.adopt(json.dumps(theirs).encode(), page, BASE))
    sdist, wheel = document["releases"]["1.0"]
    assert sdist["url"] == BASE + "%2Bfiles/files.example/p/demo-1.0.tar.gz"
    assert sdist["digests"] == {"x": "1", "sha256": A}
    assert wheel["url"] == BASE + "%2Bfiles/files.example/p/demo-1.0-py3-none-any.whl"
    assert document["releases"]["0.9"] == theirs["releases"]["0.9"]
    assert [entry["filename"] for entry in document["urls"]] == ["demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"]
    assert (document["odd"], document["info"]) == ([1], theirs["info"])


def test_adopt_adds_files_that_the_page_has_and_the_document_lacks() -> None:
    """Contract 7. With a document older than the page, pip-tools would lock too few hashes."""
    page = page_of(file("demo-1.0.tar.gz"), file("demo-1.0-py3-none-any.whl", B), file("demo-2.0.tar.gz", C))
    old = {
        "info": {"version": "1.0"},
        "releases": {"1.0.0": [{"filename": "demo-1.0.tar.gz", "url": "https://files.example/p/demo-1.0.tar.gz"}]},
    }
    releases = json.loads(legacy_json.adopt(json.dumps(old).encode(), page, BASE))["releases"]
    assert {version: [entry["filename"] for entry in files] for version, files in releases.items()} == {
        "1.0.0": ["demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"],
        "2.0": ["demo-2.0.tar.gz"],
    }


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"[]", b"{}", b'{"info": 1}', b'{"info": {}, "releases": []}', b'{"info": {}, "releases": {"1": 2}}',
        b'{"info": {}, "releases": {"1": [3]}}', b'{"info": {}, "urls": {}}', b"\xff", b"[" * 100_000,
    ],
)  # fmt: skip
def test_adopt_of_what_is_no_such_document_is_refused(body: bytes) -> None:
    """Fault 16. Whatever upstream sends there, it ends in the one error that leads to the page."""
    with pytest.raises(BadPage):
        legacy_json.adopt(body, page_of(file("demo-1.0.tar.gz")), BASE)
