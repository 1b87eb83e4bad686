"""The legacy JSON document of a project: made from its index page, or upstream's own with our links in it.

Only documents in and out: no IO, no clock. What is fetched and when is decided in ``legacy``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import msgspec
from packaging.metadata import parse_email
from packaging.utils import canonicalize_name
from packaging.version import Version

from teepi.errors import BadPage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from teepi.model import FileRecord
    from teepi.simple_api import ProjectPage

_EXTENSION: Final = re.compile(r"\.(whl|egg|exe|msi|rpm|deb|zip|tar|tgz|tbz|tar\.(?:gz|bz2|xz|Z|zst))$")
_PLATFORM: Final = re.compile(r"[.-](?:win32|win-amd64|win-arm32|win-arm64|win-ia64|linux-|macosx-).*")
_EGG_TAG: Final = re.compile(r"-py([0-9][0-9.]*)(?:-.+)?$")
_BUILT: Final = {"whl": "bdist_wheel", "egg": "bdist_egg", "exe": "bdist_wininst", "msi": "bdist_msi",
                 "rpm": "bdist_rpm", "deb": "bdist_dumb"}  # fmt: skip
_KEPT_BY_PIP: Final = re.compile("(@|%2F)", re.IGNORECASE)
_WHEEL_PARTS: Final = 5  # name, version, three tags; a build tag may stand between
# What only a release's own metadata tells; null says that it is not known here.
_UNKNOWN: Final = (
    "author", "author_email", "bugtrack_url", "description", "description_content_type", "docs_url", "download_url",
    "home_page", "keywords", "license", "maintainer", "maintainer_email", "package_url", "platform", "project_url",
    "project_urls", "release_url", "requires_dist", "summary",
)  # fmt: skip

# Core metadata fields that info has under the same name and in the same form.
_FROM_METADATA: Final = (
    "author", "author_email", "classifiers", "description", "description_content_type", "download_url", "home_page",
    "license", "license_expression", "license_files", "maintainer", "maintainer_email", "project_urls",
    "provides_extra", "requires_python", "summary",
)  # fmt: skip


def same_version(one: str, other: str) -> bool:
    """Whether two spellings mean one version (PEP 440: ``1.0`` is ``1.0.0``; others must be the same string)."""
    return _version_key(one) == _version_key(other)


def find_version(page: ProjectPage, version: str) -> str | None:
    """Return the spelling under which ``page`` has ``version``, or None when it has no such version."""
    return next((known for known in _releases(page) if same_version(known, version)), None)


def newest_version(page: ProjectPage) -> str | None:
    """Return the newest version that installers would choose, or None for a page without any."""
    return _latest(page, _releases(page))


def wheel_of(page: ProjectPage, version: str | None = None) -> FileRecord | None:
    """Return the wheel whose core metadata tells most of ``version``, by default the newest; None where none is.

    One whose core metadata upstream has goes before one that would have to be looked into.
    """
    releases = _releases(page)
    chosen = version if version is not None else _latest(page, releases)
    wheels = [page.files[at] for at in releases.get(chosen or "", []) if page.files[at].filename.endswith(".whl")]
    return next((wheel for wheel in wheels if wheel.metadata), wheels[0] if wheels else None)


def build(page: ProjectPage, base: str, version: str | None = None, metadata: bytes | None = None) -> bytes:
    """Return the document of ``page``; with ``version`` (as :func:`find_version` gives it) that of one release.

    ``base`` is the absolute URL of the index, with its ``/``, to which the links of the page are relative;
    ``metadata`` is what the wheel of :func:`wheel_of` has, when it can be had.
    """
    places = _releases(page)
    chosen = version if version is not None else _latest(page, places)
    releases = {known: [_entry(page, at, base) for at in at_all] for known, at_all in places.items()}
    files = releases.get(chosen or "", [])
    told = {} if metadata is None else _told(metadata)
    info: dict[str, Any] = dict.fromkeys(_UNKNOWN) | {"classifiers": []} | told
    name = page.document.get("name")
    info |= {
        "name": name if isinstance(name, str) else page.project,
        "requires_python": next(
            (file["requires_python"] for file in files if file["requires_python"]), told.get("requires_python")
        ),
        "version": chosen,
        "yanked": bool(files) and all(file["yanked"] for file in files),
        "yanked_reason": next((file["yanked_reason"] for file in files if file["yanked_reason"]), None),
    }
    return _encode({"info": info, "last_serial": -1, "releases": releases, "urls": files, "vulnerabilities": []})


def _told(metadata: bytes) -> dict[str, Any]:
    """Return what core metadata says, under the keys of ``info``; what cannot be read is left out."""
    raw: Mapping[str, Any] = dict(parse_email(metadata)[0])
    told = {key: raw[key] for key in _FROM_METADATA if key in raw}
    for key, given in (("keywords", "keywords"), ("platform", "platforms")):
        if given in raw:
            told[key] = ",".join(raw[given])
    return told | {"requires_dist": raw.get("requires_dist", [])}  # none is an answer, too; null says not known


def adopt(body: bytes, page: ProjectPage, base: str, version: str | None = None) -> bytes:
    """Return upstream's document with our link and the page's digests for every file that ``page`` knows.

    A file that the page has and the document lacks is added: installers that take hashes from here need all of
    them. Arguments are those of :func:`build`. Raises :class:`BadPage` when it is no such document.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadPage(f"Upstream's legacy JSON of {page.project} is not valid JSON: {error}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("info"), dict):
        raise BadPage(f"Upstream's legacy JSON of {page.project} has no info.")
    releases, urls = document.setdefault("releases", {}), document.setdefault("urls", [])
    lists = [urls, *releases.values()] if isinstance(releases, dict) else [None]
    if not all(isinstance(files, list) and all(isinstance(file, dict) for file in files) for files in lists):
        raise BadPage(f"Upstream's legacy JSON of {page.project} has releases that are no lists of files.")
    places = {record.url: at for at, record in enumerate(page.files)}
    digests = {(record.filename, record.digest): at for at, record in enumerate(page.files) if record.digest}
    names = {(filename, digest.algorithm, digest.hex): at for (filename, digest), at in digests.items()}
    for file in (file for files in lists for file in files or ()):
        at = _place(file, places, names)
        if at is not None:
            file["url"] = base + _as_pip_spells(page.links[at])
            given = file.get("digests")
            file["digests"] = (given if isinstance(given, dict) else {}) | _hashes(page, at)
    spellings = {_version_key(known): known for known in releases}
    chosen = version if version is not None else document["info"].get("version")
    for known, mine in _releases(page).items():
        theirs = releases.setdefault(spellings.get(_version_key(known), known), [])
        _complete(theirs, page, mine, base)
        if isinstance(chosen, str) and same_version(chosen, known):
            _complete(urls, page, mine, base)
    return _encode(document)


def _encode(document: dict[str, Any]) -> bytes:
    return msgspec.json.encode(document)


def _complete(files: list[dict[str, Any]], page: ProjectPage, places: list[int], base: str) -> None:
    there = {file.get("filename") for file in files}
    files += [_entry(page, at, base) for at in places if page.files[at].filename not in there]


def _place(file: dict[str, Any], places: Mapping[str, int], names: Mapping[tuple[str, str, str], int]) -> int | None:
    """Return which file of the page this is: by its URL, or by its name and a digest."""
    url, filename, digests = file.get("url"), file.get("filename"), file.get("digests")
    if isinstance(url, str) and (at := places.get(url.partition("#")[0])) is not None:
        return at
    if not isinstance(filename, str) or not isinstance(digests, dict):
        return None
    found = (names.get((filename, algorithm, str(value).lower())) for algorithm, value in digests.items())
    return next((at for at in found if at is not None), None)


def _version_key(version: str) -> Version | str:
    try:
        return Version(version)
    except ValueError:  # also for a number with more digits than Python reads
        return version


def _releases(page: ProjectPage) -> dict[str, list[int]]:
    """Return the positions of the page's files by version, oldest first; the page's own ``versions`` (PEP 700) too."""
    given = page.document.get("versions")
    spellings = {_version_key(v): v for v in given if isinstance(v, str)} if isinstance(given, list) else {}
    found: dict[Version | str, list[int]] = {key: [] for key in spellings}
    for at, record in enumerate(page.files):
        version = version_of(record.filename, page.project)
        if version is not None:
            found.setdefault(_version_key(version), []).append(at)
    ordered = sorted(found, key=_age)
    return {spellings.get(key, str(key)): found[key] for key in ordered}


def _age(key: Version | str) -> tuple[bool, Any]:
    return isinstance(key, Version), key


def _latest(page: ProjectPage, releases: Mapping[str, list[int]]) -> str | None:
    """Return the newest version that installers would choose: neither yanked nor a pre-release where there is one."""

    def rank(version: str) -> tuple[bool, bool, bool, bool]:
        key, places = _version_key(version), releases[version]
        has_offer = any(not _is_yanked(page, at) for at in places)
        return has_offer, isinstance(key, Version) and not key.is_prerelease, isinstance(key, Version), bool(places)

    # The last of the best: they come oldest first.
    return max(reversed(list(releases)), key=rank, default=None)


def version_of(filename: str, project: str) -> str | None:
    """Return the version in the name of a file of ``project``, or None for what is no distribution of it."""
    extension = _EXTENSION.search(filename)
    if extension is None:
        return None
    stem = filename[: extension.start()]
    if extension[1] in {"whl", "egg"}:  # dashes in a name are underscores there
        parts = stem.split("-")
        return parts[1] if len(parts) > 1 and parts[1] else None
    version = next((rest for name, rest in _cuts(stem) if canonicalize_name(name) == project), None)
    return _PLATFORM.sub("", version) or None if version else None


def _cuts(stem: str) -> Iterator[tuple[str, str]]:
    return ((stem[:at], stem[at + 1 :]) for at, character in enumerate(stem) if character in "-_")


def _kind(filename: str) -> tuple[str, str]:
    """Return ``packagetype`` and ``python_version``."""
    extension = _EXTENSION.search(filename)
    if extension is None:
        return "sdist", "source"
    stem = filename[: extension.start()]
    kind = _BUILT.get(extension[1])
    if kind is None:
        return ("bdist_dumb", "any") if _PLATFORM.search(stem) else ("sdist", "source")
    parts = stem.split("-")
    if kind == "bdist_wheel":
        return kind, parts[-3] if len(parts) >= _WHEEL_PARTS else "any"
    tag = _EGG_TAG.search(stem)
    return kind, tag[1] if tag is not None else "any"


def _hashes(page: ProjectPage, at: int) -> dict[str, str]:
    given = page.document["files"][at].get("hashes") or {}
    return {algorithm: value for algorithm, value in given.items() if isinstance(value, str)}


def _is_yanked(page: ProjectPage, at: int) -> bool:
    yanked = page.document["files"][at].get("yanked", False)
    return yanked is not False and yanked is not None


def _entry(page: ProjectPage, at: int, base: str) -> dict[str, Any]:
    file, record = page.document["files"][at], page.files[at]
    digests = _hashes(page, at)
    yanked = file.get("yanked", False)
    uploaded = file.get("upload-time")
    kind, python = _kind(record.filename)
    return {
        "comment_text": "",
        "digests": digests,
        "downloads": -1,
        "filename": record.filename,
        "has_sig": False,
        "md5_digest": digests.get("md5"),
        "packagetype": kind,
        "python_version": python,
        "requires_python": file.get("requires-python"),
        "size": record.size,
        "upload_time": uploaded[:19] if isinstance(uploaded, str) else None,  # to the second, without a zone
        "upload_time_iso_8601": uploaded if isinstance(uploaded, str) else None,
        "url": base + _as_pip_spells(page.links[at]),
        "yanked": _is_yanked(page, at),
        "yanked_reason": yanked if isinstance(yanked, str) and yanked else None,
    }


def _as_pip_spells(link: str) -> str:
    """Return ``link`` as pip makes it of the page's: pip-tools looks its candidates up by that string.

    All that pip deems unsafe is percent-encoded, the ``+`` of ``+files`` and the ``:`` of a port too.
    """
    parts = _KEPT_BY_PIP.split(link)
    parts[::2] = [quote(unquote(part)) for part in parts[::2]]
    parts[1::2] = [kept.upper() for kept in parts[1::2]]
    return "".join(parts)
