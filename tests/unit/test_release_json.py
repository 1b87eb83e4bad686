"""devpi's JSON of projects and versions, and pages of uploads: what is made of rows and of pages, without either."""

from __future__ import annotations

import json
from typing import Any

import pytest

from teepi.data import StoredDocs, StoredFile, StoredResult, StoredVersion
from teepi.errors import NotFound
from teepi.http_semantics import PageFormat
from teepi.release_json import mirrored_versions, projects_versions, version_data
from teepi.simple_api import ProjectPage, parse_page
from teepi.stages import Release, has_provenance, provenance, render_page, upload_time
from teepi.versions import version_key

BASE = "http://teepi.example/"
SHA256 = "f025ad52317b0f92" + "0" * 48
WHEN = 1_700_000_000.25
STAMP = [2023, 11, 14, 22, 13, 20]


def stored(index: str = "admin/dev", version: str = "0.1", **more: Any) -> StoredFile:
    """Return a file of gamma."""
    fields: dict[str, Any] = {
        "id": 7,
        "index": index,
        "project": "gamma",
        "version_key": version_key(version),
        "filename": f"gamma-{version}-py3-none-any.whl",
        "sha256": SHA256,
        "size": 3,
        "md5": "",
        "blake2b": "",
        "filetype": "bdist_wheel",
        "pyversion": "py3",
        "requires_python": None,
        "metadata_sha256": None,
        "uploaded_at": WHEN,
        "uploaded_by": "admin",
        "attestations": None,
        "log": [{"what": "upload", "who": "admin", "when": STAMP, "dst": index}],
    }
    return StoredFile(**{**fields, **more})


def release(index: str = "admin/dev", version: str = "0.1", *, has_docs: bool = False, results: int = 0) -> Release:
    """Return a version of gamma with one file."""
    key = version_key(version)
    fields = {"name": "Gamma", "version": version, "summary": index}
    return Release(
        StoredVersion(index, "gamma", key, version, fields, WHEN, "admin"),
        [stored(index, version)],
        StoredDocs(index, "gamma", key, SHA256, 5, WHEN, "bob") if has_docs else None,
        [StoredResult(number, 7, WHEN, "carol", "{}") for number in range(1, results + 1)]
        + [StoredResult(99, 8, WHEN, "carol", "{}")],
    )


def page(*files: dict[str, Any], name: str = "gamma") -> ProjectPage:
    """Return a mirror's page."""
    body = json.dumps({"meta": {"api-version": "1.1"}, "name": name, "files": files}).encode()
    url = "https://index.example/simple/gamma/"
    return parse_page(body, content_type="application/json", url=url, index="root/pypi", project="gamma")


def file(filename: str, **more: Any) -> dict[str, Any]:
    """Return an entry of such a page."""
    return {"filename": filename, "url": f"https://files.example/{filename}", "hashes": {"sha256": SHA256}, **more}


def test_version_data_has_metadata_and_links_to_all_that_belongs_to_it() -> None:
    """Files, results of test runs of these files alone, documentation; absolute, with hash and log."""
    data = version_data(release(version="1!0.1+x", has_docs=True, results=2), BASE)
    assert (data["name"], data["version"], data["summary"]) == ("Gamma", "1!0.1+x", "admin/dev")
    href = f"{BASE}admin/dev/+f/f02/5ad52317b0f92/gamma-1%210.1+x-py3-none-any.whl"
    of_file, first, second, docs = data["+links"]
    assert of_file == {
        "rel": "releasefile",
        "href": href,
        "hash_spec": f"sha256={SHA256}",
        "hashes": {"sha256": SHA256},
        "log": [{"what": "upload", "who": "admin", "when": STAMP, "dst": "admin/dev"}],
    }
    assert first == {
        "rel": "toxresult",
        "href": f"{href}.toxresult-1",
        "for_href": href,
        "log": [{"what": "upload", "who": "carol", "when": STAMP, "dst": "admin/dev"}],
    }
    assert second["href"] == f"{href}.toxresult-2"
    assert (docs["rel"], docs["hash_spec"], docs["log"][0]["who"]) == ("doczip", f"sha256={SHA256}", "bob")


def test_versions_of_several_stages_shadow_each_other_by_version_however_spelt() -> None:
    """The nearest stands under its own spelling, the others in its list, nearest first."""
    releases = [release("a/dev", "1.0"), release("b/dev", "1.0.0"), release("b/dev", "2"), release("c/dev", "1")]
    found = projects_versions(releases, BASE)
    assert list(found) == ["1.0", "2"]
    assert [each["summary"] for each in found["1.0"]["+shadowing"]] == ["b/dev", "c/dev"]
    assert "+shadowing" not in found["2"]
    assert projects_versions([], BASE) == {}


def test_versions_of_a_mirror_are_those_of_its_files_newest_first() -> None:
    """One spelling for all files of a version; what is no distribution is left out; no hash, no hash_spec."""
    found = mirrored_versions(
        page(
            file("gamma-1.9-py3-none-any.whl", **{"requires-python": ">=3.7"}),
            file("gamma-1.10.tar.gz", yanked="broken"),
            file("gamma-1.10.0-py3-none-any.whl", hashes={}),
            file("gamma-2.0rc1.tar.gz"),
            file("notes.txt"),
        ),
        f"{BASE}root/pypi/",
    )
    assert list(found) == ["2.0rc1", "1.10", "1.9"]
    assert found["1.9"]["requires_python"] == ">=3.7"
    assert found["1.10"]["yanked"] == "broken"
    with_hash, without = found["1.10"]["+links"]
    assert with_hash["hash_spec"] == f"sha256={SHA256}"
    assert set(without) == {"rel", "href"}
    assert with_hash["href"].startswith(f"{BASE}root/pypi/+")
    assert set(found["2.0rc1"]) == {"name", "version", "+links"}


def test_upload_time_has_microseconds_and_is_utc() -> None:
    """As PEP 700 wants it, leading zeros kept."""
    assert upload_time(WHEN) == "2023-11-14T22:13:20.250000Z"
    assert upload_time(1_700_000_000.000_041) == "2023-11-14T22:13:20.000041Z"


def test_rendered_page_makes_provenance_of_uploads_absolute_and_leaves_upstreams() -> None:
    """PEP 740 wants a whole URL; links to files stay relative."""
    ours = {**file("gamma-1.0.tar.gz"), "provenance": "\0admin/dev/x.provenance"}
    theirs = {**file("gamma-2.0.tar.gz"), "provenance": "https://index.example/p"}
    document = {"meta": {"api-version": "1.3"}, "name": "gamma", "files": [ours, theirs]}
    content = ProjectPage("admin/dev", "gamma", document, ["a", "b"], ["a", "b"])
    shown = json.loads(render_page(content, PageFormat.JSON, "../../", BASE))["files"]
    assert [each["provenance"] for each in shown] == [f"{BASE}admin/dev/x.provenance", "https://index.example/p"]
    assert [each["url"] for each in shown] == ["../../a", "../../b"]
    assert has_provenance(content)
    assert not has_provenance(page(theirs))


def test_provenance_says_who_uploaded_what_attestations() -> None:
    """A file without any has none."""
    bundle = provenance(stored(attestations='[{"envelope": {}}]'))["attestation_bundles"][0]
    assert bundle["publisher"] == {"kind": "teepi", "claims": {"user": "admin", "index": "admin/dev"}}
    assert bundle["attestations"] == [{"envelope": {}}]
    with pytest.raises(NotFound, match="without attestations"):
        provenance(stored())
