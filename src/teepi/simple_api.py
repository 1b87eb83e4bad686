"""Index pages of the Simple API 1.4 (PEP 503, 691, 700, 714): read one, render one, name its files.

A page is PEP 691's own JSON document, so that what we do not understand survives. No IO: bytes in, bytes out.
HTML itself is in ``simple_html``, the URLs of files in ``addresses``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import msgspec
from packaging.utils import (
    InvalidName,
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from teepi.addresses import address_of, filename_of, hashed_address, is_filename, link_resolver
from teepi.errors import BadPage
from teepi.http_semantics import PageFormat
from teepi.model import DIGEST_PREFERENCE, Digest, FileRecord
from teepi.simple_html import has_more_tags, is_for_people, parse_html, render_html
from teepi.wheel_metadata import wheel_name

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ProjectPage", "address_of", "parse_page", "project_of_filename", "render", "with_core_metadata"]

_API_VERSION: Final = re.compile(r"1(?:\.([0-9]{1,4}))?(?:\.[0-9]{1,9}){0,9}")
_CHARSET: Final = re.compile(
    # Tables of single bytes alone: others take time that is out of proportion (punycode), or are no text.
    r";\s*charset\s*=\s*\"?((?:iso-8859-|windows-|cp|koi8-|latin-?)[0-9ru]{1,4})\b",
    re.IGNORECASE,
)
_MOST_FILES: Final = 100_000
"""Of one page: a hundred times what large projects have, and 2 s of work. Links beyond are refused before parsing."""
_MOST_CONTAINERS: Final = 5 * _MOST_FILES
"""Objects and lists in a JSON page: a file has up to four, and each costs fifty times its bytes."""
_MOST_VALUES: Final = 40 * _MOST_FILES
"""Of a JSON page: a file has up to twenty."""
_SHA256: Final = re.compile("[0-9a-f]{64}")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ProjectPage:
    """The page of one project as an upstream gave it, and what we made of its files."""

    project: str
    """Normalised project name (PEP 503)."""
    document: dict[str, Any]
    """PEP 691's form; the ``url`` of each file is the absolute raw upstream URL without fragment."""
    files: tuple[FileRecord, ...]
    """Same order and length as ``document["files"]``."""
    links: tuple[str, ...]
    """For each file its encoded path below the index's base."""


def parse_page(body: bytes, *, content_type: str, url: str, index: str, project: str) -> ProjectPage:
    """Read an upstream's page of ``project``, normalised, that came from ``url`` for the index ``user/name``.

    JSON or HTML is told by the first byte, else by ``content_type``. A single file that is malformed is dropped.
    Raises :class:`BadPage` when the whole cannot be an index page of version 1 of the API.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK).strip()
    said = url.partition("?")[0]  # a query may be a secret
    media_type = content_type.partition(";")[0].strip().lower()
    labelled_json = media_type.endswith(("+json", "/json"))
    if body.startswith(b"{") or (labelled_json and not body.startswith(b"<")):
        document = _decode_json(body, said)
        _check_version(document, said)
        pairs = _read_files(document, link_base=url, index=index, project=project)
    else:
        if has_more_tags(body, _MOST_FILES):
            raise _too_many(said)
        document, base = parse_html(_as_utf8(body, content_type))
        minor = _check_version(document, said)
        link_base = _resolved_base(url, base)
        pairs = _read_files(document, link_base=link_base, index=index, project=project, named=False)
        if not any(_EXTENSION.search(record.filename) for record, _ in pairs) and (
            labelled_json or b"<" not in body or is_for_people(body)
        ):
            raise BadPage(f"The answer of {said} is not an index page but something of another kind, or empty.")
        if minor >= 1:
            _complete_for_1_1(document, [record for record, _ in pairs])
    document.setdefault("name", project)
    records, links = zip(*_without_collisions(pairs), strict=True) if pairs else ((), ())
    return ProjectPage(project, document, records, links)


def with_core_metadata(page: ProjectPage, known: Mapping[str, str]) -> ProjectPage:
    """Advertise core metadata (PEP 658, 714) for the wheels for which upstream has none.

    ``known`` maps ``FileKey.value`` of wheels to the sha256 of their core metadata, or to ``""`` when a look has found
    none; then nothing is said. A wheel that is not in it has not been looked into: its core metadata has no hash yet.
    """
    files = []
    for file, record in zip(page.document["files"], page.files, strict=True):
        if record.metadata is False and wheel_name(record.filename) is not None:
            sha256 = known.get(record.key.value) if known else None
            if sha256 != "":
                files.append({**file, "core-metadata": True if sha256 is None else {"sha256": sha256}})
                continue
        files.append(file)
    return replace(page, document={**page.document, "files": files})


def render(page: ProjectPage, form: PageFormat, base: str) -> bytes:
    """Render ``page``; ``base`` is the relative path from the page to the index's base, ``../../root/pypi/``."""
    if form is PageFormat.JSON:
        files = [{**file, "url": base + link} for file, link in zip(page.document["files"], page.links, strict=True)]
        try:
            return msgspec.json.encode({**page.document, "files": files})
        except RecursionError as error:  # a depth that was just read may be just too deep here
            raise BadPage(f"The index page of {page.project} is nested too deeply.") from error
    hrefs = (
        f"{base}{link}#{record.digest.algorithm}={record.digest.hex}" if record.digest is not None else base + link
        for record, link in zip(page.files, page.links, strict=True)
    )
    return render_html(page.document, page.project, hrefs)


def _decode_json(body: bytes, url: str) -> dict[str, Any]:
    """Decode a JSON page and make sure of its frame."""
    if body.count(b"{") + body.count(b"[") > _MOST_CONTAINERS or body.count(b",") > _MOST_VALUES:
        raise _too_many(url)
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadPage(f"The index page at {url} is not valid JSON: {error}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("files"), list):
        raise BadPage(f"The JSON at {url} is not an index page: it has no list of files.")
    if len(document["files"]) > _MOST_FILES:
        raise _too_many(url)
    meta = document.setdefault("meta", {})
    if not isinstance(meta, dict):
        raise BadPage(f"The JSON at {url} is not an index page: its meta is not an object.")
    meta.setdefault("api-version", "1.0")
    return document


def _too_many(url: str) -> BadPage:
    return BadPage(f"The index page at {url} lists more than {_MOST_FILES} files and is refused.")


def _check_version(document: dict[str, Any], url: str) -> int:
    """Return the minor version of the API that the page claims; another major one is refused (PEP 629)."""
    version = document["meta"]["api-version"]
    match = _API_VERSION.fullmatch(version) if isinstance(version, str) else None
    if match is None:
        raise BadPage(
            f"The index page at {url} has version {repr(version)[:40]} of the Simple API; teepi reads version 1 only."
        )
    return int(match[1] or 0)


def _complete_for_1_1(document: dict[str, Any], records: list[FileRecord]) -> None:
    """Give a page from HTML the versions that PEP 700 demands from 1.1 on, or take its claim of 1.1 back.

    Every file must have a size, and installers rely on it.
    """
    versions = {_version_of_filename(record.filename) for record in records}
    known = [version for version in versions if version is not None]
    if len(known) == len(versions) and all(record.size is not None for record in records):
        document["versions"] = [str(version) for version in sorted(known)]
    else:
        document["meta"]["api-version"] = "1.0"


def _version_of_filename(filename: str) -> Version | None:
    """Return the version of a wheel or an sdist, or None for what is neither."""
    try:
        return parse_wheel_filename(filename)[1] if filename.endswith(".whl") else parse_sdist_filename(filename)[1]
    except ValueError:  # also of a number with more digits than Python reads
        return None


def _as_utf8(body: bytes, content_type: str) -> bytes:
    """Return an HTML page in UTF-8, which nearly all are in; else the charset of its Content-Type is believed."""
    match = _CHARSET.search(content_type)
    if match is None or body.isascii():
        return body
    try:
        body.decode()
    except UnicodeDecodeError:
        with suppress(LookupError):
            return body.decode(match[1], "replace").encode()
    return body


def _resolved_base(url: str, base: str | None) -> str:
    """Return what the links of an HTML page are relative to, given the href of its ``<base>``."""
    if base is None or not (base.isascii() and base.isprintable()):
        return url
    try:
        return urljoin(url, base.strip())
    except ValueError:
        return url


def _read_files(
    document: dict[str, Any], *, link_base: str, index: str, project: str, named: bool = True
) -> list[tuple[FileRecord, str]]:
    """Complete ``document["files"]`` in place, drop the malformed, and return record and link of each.

    ``named``: the files say their names themselves (JSON); otherwise the URL's last segment is the name (HTML).
    """
    resolve = link_resolver(link_base)
    kept: list[dict[str, Any]] = []
    pairs: list[tuple[FileRecord, str]] = []
    for file in document["files"]:
        link = file.get("url") if isinstance(file, dict) else None
        resolved = resolve(link) if isinstance(link, str) else None
        if resolved is None:
            continue
        url, fragment = resolved
        filename = file.get("filename") if named else filename_of(url)
        if not isinstance(filename, str) or not is_filename(filename):
            continue
        file["filename"], file["url"] = filename, url
        hashes = file.get("hashes")
        if not isinstance(hashes, dict):
            hashes = file["hashes"] = {}
        if fragment:
            for part in fragment.split("&"):
                algorithm, _, value = part.partition("=")
                if algorithm in DIGEST_PREFERENCE and value:
                    hashes.setdefault(algorithm, value)
        metadata = _settle_metadata(file)
        size = file.get("size")
        digest = _digest(hashes)
        address, link = address_of(url, filename, digest)
        record = FileRecord(
            index=index,
            project=project,
            filename=filename,
            url=url,
            address=address,
            digest=digest,
            size=size if type(size) is int and size >= 0 else None,
            metadata=(_digest(metadata) or True) if isinstance(metadata, dict) else metadata is True,
        )
        kept.append(file)
        pairs.append((record, link))
    document["files"] = kept
    return pairs


def _settle_metadata(file: dict[str, Any]) -> dict[str, Any] | bool | None:
    """Leave one answer to whether ``file`` has core metadata, in every spelling that clients read, and return it."""
    # PEP 714: the new spelling decides. The old one is for HTML alone: in JSON it crashes pip 22.3 to 23.1.
    # The third is in no PEP; large indexes send it and uv reads it.
    spelt = (file.get("core-metadata"), file.pop("dist-info-metadata", None), file.pop("data-dist-info-metadata", None))
    for metadata in spelt:
        if isinstance(metadata, (dict, bool)):
            file["core-metadata"] = metadata
            return metadata
    file.pop("core-metadata", None)  # pip takes any truthy value for a promise
    return None


def _digest(hashes: dict[str, Any]) -> Digest | None:
    """Return the digest that decides; the usual one is found at half the price of looking for the strongest."""
    sha256 = hashes.get("sha256")
    if isinstance(sha256, str) and _SHA256.fullmatch(sha256):
        return Digest("sha256", sha256)
    return Digest.strongest(hashes)


def _without_collisions(pairs: list[tuple[FileRecord, str]]) -> list[tuple[FileRecord, str]]:
    """Give all those files a hashed address that share one while their URL or digest differs."""
    if len({record.address for record, _ in pairs}) == len(pairs):
        return pairs
    wanted: defaultdict[str, set[tuple[str, Digest | None]]] = defaultdict(set)
    for record, _ in pairs:
        wanted[record.address].add((record.url, record.digest))
    unambiguous = []
    for record, link in pairs:
        if len(wanted[record.address]) > 1:
            digest = record.digest
            # As a page may spell it: one URL with a weak digest and without one are two records.
            spelt = record.url if digest is None else f"{record.url}#{digest.algorithm}={digest.hex}"
            address, hashed_link = hashed_address(spelt, record.filename, digest)
            unambiguous.append((replace(record, address=address), hashed_link))
        else:
            unambiguous.append((record, link))
    return unambiguous


_EXTENSION: Final = re.compile(r"\.(?:whl|egg|exe|msi|zip|tar|tgz|tbz|tar\.(?:gz|bz2|xz|Z|zst))$")
_INSTALLER: Final = re.compile(r"(.+)-[^-]+\.(?:win32|win-amd64|win-arm32|win-arm64|win-ia64)(?:-py[0-9.]+)?")
_MAX_FILENAME: Final = 255
"""Longer than any file system takes; the fallback below tries every dash."""


def project_of_filename(filename: str) -> str | None:
    """Return the normalised project of a wheel, sdist, egg or Windows installer, or None for other names.

    The name of its ``.metadata`` or ``.asc`` will do as well.
    """
    if filename.endswith((".metadata", ".asc")):
        filename = filename.rpartition(".")[0]
    extension = _EXTENSION.search(filename)
    if extension is None or len(filename) > _MAX_FILENAME:
        return None
    stem = filename[: extension.start()]
    name: str | None
    try:
        match extension[0]:
            case ".whl":
                name = _wheel_project(filename)
            case ".egg":  # dashes in a name are underscores there: name-version-pyX.Y[-platform]
                name = stem.partition("-")[0] if "-" in stem else None
            case ".exe" | ".msi":
                match = _INSTALLER.fullmatch(stem)
                name = match[1] if match is not None else None
            case _:
                name = _sdist_project(filename, stem)
        return canonicalize_name(name, validate=True) if name else None
    except InvalidName:
        return None


def _wheel_project(filename: str) -> str | None:
    """Return the project of a wheel; of old ones with a version that is none, too."""
    try:
        return parse_wheel_filename(filename)[0]
    except InvalidWheelFilename:
        name, *rest = filename.split("-")
        return name if len(rest) in {4, 5} else None  # version, perhaps a build tag, and three tags


def _sdist_project(filename: str, stem: str) -> str | None:
    """Return the project of an sdist; of old ones with dashes in the version, too (``foo-bar-1.0-beta``)."""
    try:
        return parse_sdist_filename(filename)[0]
    except InvalidSdistFilename:
        pass
    dashes = [position for position, character in enumerate(stem) if character == "-"]
    for dash in dashes:
        try:
            Version(stem[dash + 1 :])
        except InvalidVersion:
            continue
        return stem[:dash]
    # A binary archive (foo-1.0.linux-x86_64) or no version at all: the last dash before a digit.
    numbered = [dash for dash in dashes if stem[dash + 1 : dash + 2].isdecimal()]
    return stem[: numbered[-1]] if numbered else None
