"""Index pages of the Simple API 1.4 (PEP 503, 691, 700, 714): read one, render one, name its files.

A page is PEP 691's own JSON document, so that what we do not understand survives. No IO: bytes in, bytes out.
HTML itself is in ``simple_html``, the URLs of files in ``addresses``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import msgspec

from teepi.addresses import address_of, filename_of, hashed_address, is_filename, link_resolver, path_of, plain_address
from teepi.errors import BadPage
from teepi.filenames import has_known_extension, project_of_filename, version_of_filename
from teepi.http_semantics import PageFormat
from teepi.model import DIGEST_PREFERENCE, Digest, FileRecord
from teepi.simple_html import has_more_tags, is_for_people, parse_html, render_html
from teepi.wheel_metadata import wheel_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["ProjectPage", "address_of", "other_addresses", "parse_page", "render", "with_core_metadata"]

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
_LONGEST_LINK: Final = 16 << 10
"""Nobody could ask for a longer one: the head of a request has less room."""
_SHA256: Final = re.compile("[0-9a-f]{64}")
_frame: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list: Final = msgspec.json.Decoder(list[msgspec.Raw])
_json: Final = msgspec.json.Decoder()
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(eq=False)
class ProjectPage:
    """The page of one project as an upstream gave it, and where its files live below our index.

    Records are made when they are asked for: a page has thousands of files, of which few ever are.
    """

    index: str
    """Name of the index, ``user/name``."""
    project: str
    """Normalised project name (PEP 503)."""
    document: dict[str, Any]
    """PEP 691's form; the ``url`` of each file is the absolute raw upstream URL without fragment."""
    addresses: Sequence[str]
    """For each of ``document["files"]`` its :attr:`FileRecord.address`."""
    links: Sequence[str]
    """For each file its encoded path below the index's base."""
    bound_to: str = ""
    """What its records say: see :attr:`FileRecord.bound_to`."""

    @cached_property
    def files(self) -> tuple[FileRecord, ...]:
        """The records of all files, same order and length as ``document["files"]``."""
        return tuple(map(self.record, range(len(self.links))))

    @cached_property
    def odd(self) -> tuple[int, ...]:
        """Places of the files whose names do not lead to this project: nobody finds the page by them."""
        files, project = self.document["files"], self.project
        return tuple(at for at, file in enumerate(files) if project_of_filename(file["filename"]) != project)

    def record(self, at: int) -> FileRecord:
        """Return the record of the file at one place of ``document["files"]``."""
        file = self.document["files"][at]
        metadata = file.get("core-metadata")
        return FileRecord(
            self.index,
            self.project,
            file["filename"],
            file["url"],
            self.addresses[at],
            _digest(file["hashes"]),
            _size(file),
            (_digest(metadata) or True) if isinstance(metadata, dict) else metadata is True,
            bound_to=self.bound_to,
        )

    def named(self, filename: str) -> list[FileRecord]:
        """Return the records of all files of that name (an index may have several)."""
        return [self.record(at) for at in self._places.get(filename, ())]

    def at(self, address: str) -> FileRecord | None:
        """Return the record of the file at ``address``, which ends in the name of the file."""
        places = self._places.get(address.rpartition("/")[2], ())
        return next((self.record(at) for at in places if self.addresses[at] == address), None)

    def at_path(self, path: str) -> list[FileRecord]:
        """Return the records of all files whose upstream URL has the decoded ``path``, on whatever host."""
        records = self.named(path.rpartition("/")[2])
        return [record for record in records if path_of(record.url) == path]

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for at, file in enumerate(self.document["files"]):
            places.setdefault(file["filename"], []).append(at)
        return places

    def with_hashed_addresses(self, places: Iterable[int]) -> ProjectPage:
        """Return the page with :func:`hashed_address` for the files at ``places``."""
        addresses, links = list(self.addresses), list(self.links)
        for at in places:
            addresses[at], links[at] = _hashed_address(self.record(at))
        return replace(self, addresses=addresses, links=links)


def parse_page(
    body: bytes, *, content_type: str, url: str, index: str, project: str, bound_to: str = ""
) -> ProjectPage:
    """Read an upstream's page of ``project``, normalised, that came from ``url`` for the index ``user/name``.

    ``bound_to`` is what the records of its files will say.
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
        places = _read_files(document, link_base=url)
    else:
        if has_more_tags(body, _MOST_FILES):
            raise _too_many(said)
        document, base = parse_html(_as_utf8(body, content_type))
        minor = _check_version(document, said)
        places = _read_files(document, link_base=_resolved_base(url, base), named=False)
        if not any(has_known_extension(file["filename"]) for file in document["files"]) and (
            labelled_json or b"<" not in body or is_for_people(body)
        ):
            raise BadPage(f"The answer of {said} is not an index page but something of another kind, or empty.")
        if minor >= 1:
            _complete_for_1_1(document)
    document.setdefault("name", project)
    return _without_collisions(ProjectPage(index, project, document, *places, bound_to))


def other_addresses(record: FileRecord) -> set[str]:
    """Return where another index may have the same file: an address that two files claim depends on what is known."""
    own, _ = address_of(record.url, record.filename, record.digest)
    hashed, _ = _hashed_address(record)
    return {own, hashed} - {record.address}


def with_core_metadata(page: ProjectPage, known: Mapping[str, str]) -> ProjectPage:
    """Advertise core metadata (PEP 658, 714) for the wheels for which upstream has none.

    ``known`` maps ``FileKey.value`` of wheels to the sha256 of their core metadata, or to ``""`` when a look has found
    none; then nothing is said. A wheel that is not in it has not been looked into: its core metadata has no hash yet.
    """
    files = list(page.document["files"])
    for at, file in enumerate(files):
        if not file.get("core-metadata", False) and wheel_name(file["filename"]) is not None:
            sha256 = known.get(page.record(at).key.value) if known else None
            if sha256 != "":
                files[at] = {**file, "core-metadata": True if sha256 is None else {"sha256": sha256}}
    return replace(page, document={**page.document, "files": files})


def render(page: ProjectPage, form: PageFormat, base: str) -> bytes:
    """Render ``page``; ``base`` is the relative path from the page to the index's base, ``../../root/pypi/``."""
    if form is PageFormat.JSON:
        files = [{**file, "url": base + link} for file, link in zip(page.document["files"], page.links, strict=True)]
        try:
            return msgspec.json.encode({**page.document, "files": files})
        except RecursionError as error:  # a depth that was just read may be just too deep here
            raise BadPage(f"The index page of {page.project} is nested too deeply.") from error
    digests = (_digest(file["hashes"]) for file in page.document["files"])
    hrefs = (
        f"{base}{link}#{digest.algorithm}={digest.hex}" if digest is not None else base + link
        for digest, link in zip(digests, page.links, strict=True)
    )
    return render_html(page.document, page.project, hrefs)


def _decode_json(body: bytes, url: str) -> dict[str, Any]:
    """Decode a JSON page and make sure of its frame.

    File by file: one call for all of a large page would hold up every other thread until it is through.
    """
    if body.count(b"{") + body.count(b"[") > _MOST_CONTAINERS or body.count(b",") > _MOST_VALUES:
        raise _too_many(url)
    try:
        parts = _frame.decode(body)
        files = [_json.decode(file) for file in _list.decode(parts.pop("files", b"null"))]
        document = {key: _json.decode(part) for key, part in parts.items()} | {"files": files}
    except msgspec.ValidationError as error:
        raise BadPage(f"The JSON at {url} is not an index page: it has no list of files.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadPage(f"The index page at {url} is not valid JSON: {error}.") from error
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


def _complete_for_1_1(document: dict[str, Any]) -> None:
    """Give a page from HTML the versions that PEP 700 demands from 1.1 on, or take its claim of 1.1 back.

    Every file must have a size, and installers rely on it.
    """
    versions = {version_of_filename(file["filename"]) for file in document["files"]}
    known = [version for version in versions if version is not None]
    if len(known) == len(versions) and all(_size(file) is not None for file in document["files"]):
        document["versions"] = [str(version) for version in sorted(known)]
    else:
        document["meta"]["api-version"] = "1.0"


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


def _read_files(document: dict[str, Any], *, link_base: str, named: bool = True) -> tuple[list[str], list[str]]:
    """Complete ``document["files"]`` in place, drop the malformed, and return the addresses and links of the rest.

    ``named``: the files say their names themselves (JSON); otherwise the URL's last segment is the name (HTML).
    """
    resolve = link_resolver(link_base)
    kept: list[dict[str, Any]] = []
    addresses: list[str] = []
    links: list[str] = []
    for file in document["files"]:
        link = file.get("url") if isinstance(file, dict) else None
        if not isinstance(link, str) or len(link) > _LONGEST_LINK:
            continue
        address = plain_address(link)
        resolved = (link, "") if address is not None else resolve(link)
        if resolved is None:
            continue
        url, fragment = resolved
        filename = file.get("filename") if named else filename_of(url)
        if not isinstance(filename, str) or not is_filename(filename):
            continue
        if address is None:
            file["url"] = url
        if not named:
            file["filename"] = filename
        _settle_hashes(file, fragment)
        _settle_metadata(file)
        if address is not None and address.endswith("/" + filename):
            link = address
        else:
            address, link = address_of(url, filename, _digest(file["hashes"]))
        kept.append(file)
        addresses.append(address)
        links.append(link)
    document["files"] = kept
    return addresses, links


def _settle_hashes(file: dict[str, Any], fragment: str) -> None:
    """Leave the digests that the entry of ``file`` and the fragment of its link give (PEP 503)."""
    hashes = file.get("hashes")
    if not isinstance(hashes, dict):
        hashes = file["hashes"] = {}
    if fragment:
        for part in fragment.split("&"):
            algorithm, _, value = part.partition("=")
            if algorithm in DIGEST_PREFERENCE and value:
                hashes.setdefault(algorithm, value)


def _settle_metadata(file: dict[str, Any]) -> None:
    """Leave one answer to whether ``file`` has core metadata, whatever spellings the page has."""
    # PEP 714: the new spelling decides. The old one is for HTML alone: in JSON it crashes pip 22.3 to 23.1.
    # The third is in no PEP; large indexes send it and uv reads it.
    spelt = (file.get("core-metadata"), file.pop("dist-info-metadata", None), file.pop("data-dist-info-metadata", None))
    for metadata in spelt:
        if isinstance(metadata, (dict, bool)):
            file["core-metadata"] = metadata
            return
    file.pop("core-metadata", None)  # pip takes any truthy value for a promise


def _hashed_address(record: FileRecord) -> tuple[str, str]:
    digest = record.digest
    # As a page may spell it: one URL with a weak digest and without one are two records.
    spelt = record.url if digest is None else f"{record.url}#{digest.algorithm}={digest.hex}"
    return hashed_address(spelt, record.filename, digest)


def _size(file: dict[str, Any]) -> int | None:
    """Return the size of ``file`` in bytes (PEP 700), None when the page does not say one."""
    size = file.get("size")
    return size if type(size) is int and size >= 0 else None


def _digest(hashes: dict[str, Any]) -> Digest | None:
    """Return the digest that decides; the usual one is found at half the price of looking for the strongest."""
    sha256 = hashes.get("sha256")
    if isinstance(sha256, str) and _SHA256.fullmatch(sha256):
        return Digest("sha256", sha256)
    return Digest.strongest(hashes)


def _without_collisions(page: ProjectPage) -> ProjectPage:
    """Give all those files a hashed address that share one while their URL or digest differs."""
    if len(set(page.addresses)) == len(page.addresses):
        return page
    wanted: defaultdict[str, set[tuple[str, Digest | None]]] = defaultdict(set)
    for record in page.files:
        wanted[record.address].add((record.url, record.digest))
    return page.with_hashed_addresses(at for at, address in enumerate(page.addresses) if len(wanted[address]) > 1)
