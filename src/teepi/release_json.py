"""devpi's JSON for projects and versions (``projectconfig``, ``versiondata``), of stages and of mirrors. Pure."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from teepi.filenames import version_of_filename
from teepi.versions import rank, version_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from teepi.simple_api import ProjectPage
    from teepi.stages import Release


def projects_versions(releases: Sequence[Release], base: str) -> dict[str, dict[str, Any]]:
    """Return ``versiondata`` by version; ``base`` is the URL of this server with a slash at its end.

    ``releases`` are of several stages, nearest first: what the first has of a version shadows the others.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for release in releases:
        data = version_data(release, base)
        key = release.version.version_key
        if key in found:
            found[key][1].setdefault("+shadowing", []).append(data)
        else:
            found[key] = (release.version.version, data)
    return dict(found.values())


def encoded(versions: Mapping[str, dict[str, Any]]) -> bytes:
    """Return versions as JSON, made one by one: a call for all would hold up every other thread until it is through."""
    pieces = (f"{json.dumps(version)}: {json.dumps(data)}" for version, data in versions.items())
    return "{{{}}}".format(", ".join(pieces)).encode()


def version_data(release: Release, base: str) -> dict[str, Any]:
    """Return the metadata of a version with ``+links`` to its files, results of test runs and documentation."""
    links = []
    for file in release.files:
        href = base + quote(file.path, safe="/+")
        links.append(
            {
                "rel": "releasefile",
                "href": href,
                "hash_spec": f"sha256={file.sha256}",
                "hashes": {"sha256": file.sha256},
                "log": file.log,
            }
        )
        links += [
            {
                "rel": "toxresult",
                "href": f"{href}.toxresult-{result.id}",
                "for_href": href,
                "log": [_entry("upload", result.posted_by, result.posted_at, file.index)],
            }
            for result in release.results
            if result.file_id == file.id
        ]
    version = release.version
    if release.docs is not None:
        name = quote(f"{version.project}-{version.version}.doc.zip", safe="+")
        links.append(
            {
                "rel": "doczip",
                "href": f"{base}{version.index}/{version.project}/{quote(version.version, safe='+')}/+doc/{name}",
                "hash_spec": f"sha256={release.docs.sha256}",
                "log": [_entry("upload", release.docs.uploaded_by, release.docs.uploaded_at, version.index)],
            }
        )
    return {**version.fields, "+links": links}


def _entry(what: str, who: str, when: float, index: str) -> dict[str, Any]:
    return {"what": what, "who": who, "when": list(time.gmtime(when)[:6]), "dst": index}


def mirrored_versions(content: ProjectPage, base: str, key: str | None = None) -> dict[str, dict[str, Any]]:
    """Return ``versiondata`` by version, newest first, of what a page links to; ``base`` leads to its index.

    ``key`` is that of the one version that is wanted.
    """
    found: dict[str, dict[str, Any]] = {}
    spelt: dict[str, str] = {}
    for file, link in zip(content.document["files"], content.links, strict=True):
        parsed = version_of_filename(file["filename"])
        if parsed is None:
            continue
        own_key = version_key(str(parsed))
        if key is not None and own_key != key:
            continue
        version = spelt.setdefault(own_key, str(parsed))
        data = found.setdefault(version, {"name": content.document.get("name", content.project), "version": version})
        if requires := file.get("requires-python"):
            data.setdefault("requires_python", requires)
        if file.get("yanked"):
            data.setdefault("yanked", file["yanked"])
        entry: dict[str, Any] = {"rel": "releasefile", "href": base + link}
        if sha256 := file["hashes"].get("sha256"):
            entry |= {"hash_spec": f"sha256={sha256}", "hashes": {"sha256": sha256}}
        data.setdefault("+links", []).append(entry)
    return {version: found[version] for version in sorted(found, key=rank, reverse=True)}
