"""Index pages as HTML (PEP 503, 592, 629, 658, 708, 714, 740, 792) to and from PEP 691's document.

Knows tags and attributes only: links are neither resolved nor rewritten here, and nothing is decided about files.
"""

from __future__ import annotations

import re
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from selectolax.lexbor import LexborHTMLParser

from teepi.model import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LAST_HTML_MINOR: Final = 4
"""PEP 691's HTML form is frozen at version 1.4 of the Simple API."""

PRIVATE_PREFIX: Final = "_"
"""PEP 691 leaves keys with this prefix to the server: data attributes that no PEP knows are kept under them."""

# The parser's time grows with the square of the depth of the tree and of the attributes on one tag (32,000 of
# either take 2 s). It is therefore given only the tags that can matter, each with a bounded number of attributes,
# and so a flat tree.
_TAG: Final = re.compile(
    rb"""
    <(?: !--.*?(?:-->|\Z)
       | ((?i:script|style))\b.*?(?:</(?i:\1)|\Z)
       | ((?i:a|base|meta)(?=[ \t\r\n\f/])
          (?: [ \t\r\n\f/]*+ [^ \t\r\n\f/>][^ \t\r\n\f/>=]*+                 # attribute name
              (?: [ \t\r\n\f]*+ = [ \t\r\n\f]*+
                  (?: "[^"]*+" | '[^']*+' | [^ \t\r\n\f>"'][^ \t\r\n\f>]*+ ) )?+  # its value
          ){0,64}+ ) )                                                       # more would cost their square
    """,
    re.VERBOSE | re.DOTALL,
)
_TAG_BEGIN: Final = re.compile(rb"<(?:a|base|meta)[ \t\r\n\f/]", re.IGNORECASE)

_FRONT_BYTES: Final = 4096
_DOCUMENT_BEGIN: Final = re.compile(rb"<(?:html|body)\b", re.IGNORECASE)
_DOCUMENT_END: Final = re.compile(rb"</(?:html|body)\b", re.IGNORECASE)
_FOR_PEOPLE: Final = re.compile(rb"<(?:form|script|iframe)\b|http-equiv\s*=\s*[\"']?refresh", re.IGNORECASE)


def parse_html(body: bytes) -> tuple[dict[str, Any], str | None]:
    """Read an HTML page into PEP 691's form, and return it with the href of its ``<base>``, if any.

    Each file has the link as the page spells it under ``url``, and no ``filename``.
    """
    tags = [tag for match in _TAG.finditer(body) if (tag := match[2])]
    # PEP 503 pages are UTF-8 in practice; one bad byte must not hide a whole project.
    tree = LexborHTMLParser(b"".join(b"<%b></a>" % tag for tag in tags).decode("utf-8", "replace"))
    document: dict[str, Any] = {"meta": {"api-version": "1.0"}}
    for node in tree.css("meta[name]"):
        attributes = node.attributes
        _read_meta(document, (attributes["name"] or "").lower(), (attributes.get("content") or "").strip())
    document["files"] = [_read_anchor(node.attributes) for node in tree.css("a[href]")]
    base = tree.css_first("base[href]")
    return document, base.attributes["href"] if base is not None else None


def has_more_tags(body: bytes, most: int) -> bool:
    """Whether an HTML page has more than ``most`` tags that :func:`parse_html` would read; it is not parsed."""
    return next(islice(_TAG_BEGIN.finditer(body), most, None), None) is not None


def is_cut(body: bytes) -> bool:
    """Whether ``body`` is an HTML page that ends within a tag, or begins its document and does not end it."""
    if not body.lstrip().startswith(b"<"):
        return False  # JSON tells by itself
    begins = _DOCUMENT_BEGIN.search(body, 0, _FRONT_BYTES) is not None
    return body.rfind(b"<") > body.rfind(b">") or (begins and _DOCUMENT_END.search(body) is None)


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
    for name, value in attributes.items():
        known = _READERS.get(name)
        if known is not None:
            key, read = known
            meaning = read(value or "")
            if meaning is not None:
                file[key] = meaning
        elif name.startswith("data-"):
            file[PRIVATE_PREFIX + name] = value or ""
    return file


def _read_metadata(value: str) -> dict[str, str] | bool | None:
    """Read PEP 658's value. What cannot be read is not advertised: a missing .metadata fails a whole install."""
    algorithm, _, digest = value.partition("=")
    return {algorithm: digest} if algorithm and digest else _FLAGS.get(value)


_FLAGS: Final = {"true": True, "false": False}
# Attribute -> key, and what its value means as JSON; None drops it.
_READERS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "data-requires-python": ("requires-python", lambda value: value or None),  # PEP 503
    "data-yanked": ("yanked", lambda value: value or True),  # PEP 592: the attribute counts, its value is the reason
    "data-core-metadata": ("core-metadata", _read_metadata),  # PEP 714
    "data-dist-info-metadata": ("dist-info-metadata", _read_metadata),  # PEP 658
    "data-gpg-sig": ("gpg-sig", _FLAGS.get),  # PEP 503
    "data-provenance": ("provenance", lambda value: value or None),  # PEP 740
    # In no PEP, but written by some indexes, and meant as in JSON (PEP 700):
    "data-upload-time": ("upload-time", lambda value: value or None),
    "data-size": ("size", lambda value: int(value) if re.fullmatch("[0-9]{1,18}", value) else None),
}


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
        known = _WRITERS.get(key)
        if known is not None:
            attributes += known(key, value)
        elif key[0:1] == PRIVATE_PREFIX and isinstance(value, str) and _PRIVATE_ATTRIBUTE.fullmatch(key):
            attributes += _write_text(key.removeprefix(PRIVATE_PREFIX + "data-"), value)
    return f'<a href="{escape(link)}"{attributes}>{escape(file["filename"])}</a><br>'


def _write_text(key: str, value: object) -> str:
    return f' data-{key}="{_escape(value)}"' if isinstance(value, str) else ""


def _write_yanked(_: str, value: object) -> str:
    reason = _escape(value) if isinstance(value, str) else ""
    return f' data-yanked="{reason}"' if value else ""


def _write_metadata(_: str, value: object) -> str:
    """Write both spellings (PEP 714); the page has both keys or none, so one of them is enough to go by."""
    text = "true"
    if isinstance(value, dict):
        digest = Digest.strongest(value)
        text = f"{digest.algorithm}={digest.hex}" if digest is not None else text
    elif value is not True:
        return ""
    return f' data-core-metadata="{text}" data-dist-info-metadata="{text}"'


def _write_flag(key: str, value: object) -> str:
    return f' data-{key}="{str(value).lower()}"' if isinstance(value, bool) else ""


def _write_size(key: str, value: object) -> str:
    return f' data-{key}="{value}"' if type(value) is int else ""


_PRIVATE_ATTRIBUTE: Final = re.compile(PRIVATE_PREFIX + "data-[a-z0-9._-]+")
_WRITERS: Final[dict[str, Callable[[str, object], str]]] = {
    "requires-python": _write_text,
    "yanked": _write_yanked,
    "core-metadata": _write_metadata,
    "gpg-sig": _write_flag,
    "provenance": _write_text,
    "upload-time": _write_text,
    "size": _write_size,
}


def _escape(text: str) -> str:
    """Escape ``text`` for an attribute; a parser would turn a bare carriage return into a line feed."""
    return escape(text).replace("\r", "&#13;")


def _strings(values: object) -> list[str]:
    """Return the strings that are not empty in what should be a list of strings."""
    return [value for value in values if isinstance(value, str) and value] if isinstance(values, list) else []
