"""Index pages as HTML (PEP 503, 592, 629, 658, 708, 714, 740, 792) to and from PEP 691's document.

Knows tags and attributes only: links are neither resolved nor rewritten here, and nothing is decided about files.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any, Final

from selectolax.lexbor import LexborHTMLParser

from teepi.errors import BadPage
from teepi.model import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable

_LAST_HTML_MINOR: Final = 4
"""PEP 691's HTML form is frozen at version 1.4 of the Simple API."""

PRIVATE_PREFIX: Final = "_"
"""PEP 691 leaves keys with this prefix to the server: data attributes that no PEP knows are kept under them."""

# The parser's time grows with the square of the depth of the tree and of the attributes on one tag (32,000 of
# either take 2 s), so a page that is out to hurt is made flat, and tags that no index writes are refused.
_OTHER_TAG: Final = re.compile(rb"</?(?!(?:a|base|br|meta|script|style|title)[\s/>])[a-zA-Z][^\s/>]*+")
_MANY_OTHER_TAGS: Final = 256
_TAG: Final = re.compile(
    rb"""<[a-zA-Z][^\s/>]*+(?:[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s>"'][^\s>]*+))?+)*+"""
)
_MAX_TAG_BYTES: Final = 16 * 1024

_FOR_PEOPLE: Final = re.compile(rb"<(?:form|script|iframe)\b|http-equiv\s*=\s*[\"']?refresh", re.IGNORECASE)
_DATA_ATTRIBUTE: Final = re.compile(r"data-[a-z0-9._-]+")
_FLAGS: Final = {"true": True, "false": False}


def parse_html(body: bytes, url: str) -> tuple[dict[str, Any], str | None]:
    """Read an HTML page into PEP 691's form, and return it with the href of its ``<base>``, if any.

    Each file has the link as the page spells it under ``url``, and no ``filename``. Raises :class:`BadPage`, naming
    ``url``, for a page that is out to hurt.
    """
    flat, others = _OTHER_TAG.subn(b"", body)
    if others > _MANY_OTHER_TAGS:
        body = flat
    if any(tag.end() - tag.start() > _MAX_TAG_BYTES for tag in _TAG.finditer(body)):
        raise BadPage(f"The index page at {url} has an HTML tag of more than {_MAX_TAG_BYTES} bytes.")
    # PEP 503 pages are UTF-8 in practice; one bad byte must not hide a whole project.
    tree = LexborHTMLParser(body.decode("utf-8", "replace"))
    document: dict[str, Any] = {"meta": {"api-version": "1.0"}}
    for node in tree.css("meta[name]"):
        attributes = node.attributes
        _read_meta(document, (attributes["name"] or "").lower(), (attributes.get("content") or "").strip())
    document["files"] = [_read_anchor(node.attributes) for node in tree.css("a[href]")]
    base = tree.css_first("base[href]")
    return document, base.attributes["href"] if base is not None else None


def is_for_people(body: bytes) -> bool:
    """Whether an HTML page in which no file was found looks like a login page or captive portal."""
    says_index = b"pypi:repository-version" in body or b"links for" in body.lower()
    return not says_index and _FOR_PEOPLE.search(body) is not None


def _read_meta(document: dict[str, Any], name: str, content: str) -> None:
    """Put one ``<meta>`` of the index into ``document``."""
    if not content:
        return
    match name:
        case "pypi:repository-version":  # PEP 629
            document["meta"]["api-version"] = content
        case "pypi:tracks":  # PEP 708
            document["meta"].setdefault("tracks", []).append(content)
        case "pypi:alternate-locations":  # PEP 708
            document.setdefault("alternate-locations", []).append(content)
        case "pypi:project-status":  # PEP 792
            document.setdefault("project-status", {})["status"] = content
        case "pypi:project-status-reason":  # PEP 792
            document.setdefault("project-status", {})["reason"] = content


def _read_anchor(attributes: dict[str, str | None]) -> dict[str, Any]:
    """Turn the attributes of one ``<a>`` into a file of PEP 691."""
    file: dict[str, Any] = {"url": attributes["href"] or "", "hashes": {}}
    for name, optional in attributes.items():
        if not name.startswith("data-"):
            continue
        value = optional or ""
        match name:
            case "data-requires-python" | "data-provenance" | "data-upload-time":  # PEP 503, 740, 700
                if value:
                    file[name.removeprefix("data-")] = value
            case "data-yanked":  # PEP 592: the attribute is what counts, its value is the reason
                file["yanked"] = value or True
            case "data-core-metadata" | "data-dist-info-metadata":  # PEP 714 and 658
                # What cannot be read is not advertised: a missing .metadata fails a whole install.
                algorithm, _, digest = value.partition("=")
                if value in _FLAGS:
                    file[name.removeprefix("data-")] = _FLAGS[value]
                elif Digest.strongest({algorithm: digest}) is not None:
                    file[name.removeprefix("data-")] = {algorithm: digest}
            case "data-gpg-sig" if value in _FLAGS:  # PEP 503
                file["gpg-sig"] = _FLAGS[value]
            case "data-size" if re.fullmatch("[0-9]{1,18}", value):
                file["size"] = int(value)
            case _:
                file[PRIVATE_PREFIX + name] = value
    return file


def render_html(document: dict[str, Any], project: str, links: Iterable[str]) -> bytes:
    """Render ``document`` as HTML; ``links`` holds each file's href, fragment included."""
    minor = int(document["meta"]["api-version"].partition(".")[2].partition(".")[0] or 0)
    metas = [("pypi:repository-version", f"1.{min(minor, _LAST_HTML_MINOR)}")]
    metas += [("pypi:tracks", content) for content in _strings(document["meta"].get("tracks"))]
    metas += [("pypi:alternate-locations", content) for content in _strings(document.get("alternate-locations"))]
    status = document.get("project-status")
    if isinstance(status, dict):
        metas += [("pypi:project-status", content) for content in _strings([status.get("status")])]
        metas += [("pypi:project-status-reason", content) for content in _strings([status.get("reason")])]
    title = escape(f"Links for {project}")
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        *(f'<meta name="{name}" content="{_escape(content)}">' for name, content in metas),
        f"<title>{title}</title>",
        "</head>",
        "<body>",
        f"<h1>{title}</h1>",
        *map(_anchor, document["files"], links),
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines).encode()


def _anchor(file: dict[str, Any], link: str) -> str:
    """Render one file of PEP 691 as an ``<a>``."""
    attributes = ""
    for key, value in file.items():
        match key:
            case "filename" | "url" | "hashes":
                continue
            case "requires-python" | "provenance" | "upload-time" if isinstance(value, str) and value:
                text = value
            case "yanked" if value:
                text = value if isinstance(value, str) else ""
            case "core-metadata" | "dist-info-metadata" if value is True or isinstance(value, dict):
                digest = Digest.strongest(value) if isinstance(value, dict) else None
                text = f"{digest.algorithm}={digest.hex}" if digest is not None else "true"
            case "gpg-sig" if isinstance(value, bool):
                text = "true" if value else "false"
            case "size" if isinstance(value, int):
                text = str(value)
            case _:
                if not isinstance(value, str) or not _DATA_ATTRIBUTE.fullmatch(key, len(PRIVATE_PREFIX)):
                    continue
                attributes += f' {key.removeprefix(PRIVATE_PREFIX)}="{_escape(value)}"'
                continue
        attributes += f' data-{key}="{_escape(text)}"'
    return f'<a href="{escape(link)}"{attributes}>{escape(file["filename"])}</a><br>'


def _escape(text: str) -> str:
    """Escape ``text`` for an attribute; a parser would turn a bare carriage return into a line feed."""
    return escape(text).replace("\r", "&#13;")


def _strings(values: object) -> list[str]:
    """Return the strings that are not empty in what should be a list of strings."""
    return [value for value in values if isinstance(value, str) and value] if isinstance(values, list) else []
