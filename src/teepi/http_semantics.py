"""What HTTP headers and request targets mean: negotiation, ranges, validators, paths.

Everything here is decided from header values alone (RFC 9110, RFC 9112, RFC 3986): no IO, no clock, and no
knowledge of index pages or of files. Whatever a client may send costs time in proportion to its length.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from teepi.errors import BadRequest, RangeNotSatisfiable
from teepi.origins import hide_user_info, hide_user_info_in

# --- Request targets (RFC 9112, 3.2) ---

_ABSOLUTE_FORM: Final = re.compile(r"https?://[^/?#]+", re.IGNORECASE)
_UNSAFE_PATH: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]|(?:^|/)\.\.?(?:/|$)")


def decode_target(raw: str) -> tuple[str, str]:
    """Split a request target into its path, percent-decoded exactly once, and its query, as it was sent.

    Origin form and absolute form (RFC 9112, 3.2.1 and 3.2.2) are read; empty segments stay. Raises
    :class:`BadRequest` for another form, no UTF-8, control characters, backslashes and dot segments.
    """
    if not raw.startswith("/"):
        absolute = _ABSOLUTE_FORM.match(raw)
        if absolute is None:
            raise BadRequest("The request target must be a path that begins with a slash.")
        rest = raw[absolute.end() :]
        raw = rest if rest.startswith("/") else "/" + rest  # RFC 9110, 4.2.3: an empty path is "/"
    path, _, query = raw.partition("?")
    if "%" in path or not path.isascii():
        try:
            # Bytes that are no UTF-8 arrive in a str as surrogates.
            path = unquote_to_bytes(path.encode("utf-8", "surrogateescape")).decode()
        except UnicodeError:
            raise BadRequest("The path of the request is not valid UTF-8.") from None
    if _UNSAFE_PATH.search(path):
        raise BadRequest("The path of the request has a dot segment, a backslash or a control character in it.")
    return path, query


def shown_target(raw_path: str) -> str:
    """Return a request target as it may be logged: without query, user info hidden, and not without end."""
    hidden = hide_user_info_in(raw_path) if raw_path.startswith("/") else hide_user_info(raw_path)
    return hidden.partition("?")[0][:200]


def query_names(raw_path: str) -> frozenset[str]:
    """Return the names in the query of a request target, decoded."""
    return frozenset(name for name, _ in parse_qsl(raw_path.partition("?")[2], keep_blank_values=True))


def index_prefix(raw_path: str) -> str:
    """Return the ``../`` string that leads from the page at ``raw_path`` to the root of this server.

    ``raw_path`` is not decoded (an encoded slash is no segment) and has no query; in absolute form its scheme and
    authority are no segments either. Behind an empty segment it leads no further than there: resolving a reference
    keeps those (RFC 3986, 5.2.4), Python's urljoin drops them, and would climb out of a prefix that a proxy put before.
    """
    absolute = None if raw_path.startswith("/") else _ABSOLUTE_FORM.match(raw_path)
    path = raw_path[absolute.end() :] if absolute is not None else raw_path
    below = path.rpartition("//")[2] if "//" in path else path[1:]
    return "../" * below.count("/")


# --- Negotiation (RFC 9110, 12.5.1; PEP 691) ---


class PageFormat(Enum):
    """The forms of an index page; in the order of preference among those that a client names."""

    JSON = "application/vnd.pypi.simple.v1+json"
    HTML_V1 = "application/vnd.pypi.simple.v1+html"
    HTML = "text/html"

    @property
    def content_type(self) -> str:
        """The exact Content-Type; clients refuse others, so it carries no charset."""
        return self.value


# Media range -> the formats that it covers. PEP 691 defines "latest" for requests only.
_MEDIA_RANGES: Final = {
    "application/vnd.pypi.simple.v1+json": (PageFormat.JSON,),
    "application/vnd.pypi.simple.latest+json": (PageFormat.JSON,),
    "application/vnd.pypi.simple.v1+html": (PageFormat.HTML_V1,),
    "application/vnd.pypi.simple.latest+html": (PageFormat.HTML_V1,),
    "text/html": (PageFormat.HTML,),
    "application/*": (PageFormat.JSON, PageFormat.HTML_V1),
    "text/*": (PageFormat.HTML,),
    "*/*": tuple(PageFormat),
}
_NAMED, _WILDCARD, _ANY = 2, 1, 0  # RFC 9110: the most specific media range that covers a format decides
_NAMED_ORDER: Final = (PageFormat.HTML, PageFormat.HTML_V1, PageFormat.JSON)
# Who names no format may be as old as pipenv, which sends */* and parses HTML.
_WILDCARD_ORDER: Final = (PageFormat.HTML_V1, PageFormat.JSON, PageFormat.HTML)

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_RANGE: Final = re.compile(rf"({_NAME}/{_NAME})[ \t]*(;.*)?")
_WEIGHT: Final = re.compile(r"[qQ][ \t]*=[ \t]*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def choose_page_format(accept: str | None) -> PageFormat | None:
    """Choose the form of a page by the value of Accept; None means that no form is acceptable (406).

    Parts that cannot be read are ignored; with no readable part at all the header counts as absent.
    """
    weights: dict[PageFormat, tuple[int, float]] = {}  # format -> (how specific, weight)
    readable = False
    for part in (accept or "").split(","):
        match = _MEDIA_RANGE.fullmatch(part.strip(" \t"))
        weight = _weight(match[2]) if match is not None else None
        if match is None or weight is None:
            continue
        readable = True
        media_range = match[1].lower()
        specificity = _ANY if media_range == "*/*" else _WILDCARD if media_range.endswith("/*") else _NAMED
        for form in _MEDIA_RANGES.get(media_range, ()):
            weights[form] = max(weights.get(form, (_ANY, 0.0)), (specificity, weight))
    if not readable:
        return PageFormat.HTML

    def preference(form: PageFormat) -> tuple[float, bool, int]:
        specificity, weight = weights[form]
        named = specificity == _NAMED
        return weight, named, (_NAMED_ORDER if named else _WILDCARD_ORDER).index(form)

    acceptable = [form for form, (_, weight) in weights.items() if weight > 0]
    return max(acceptable, key=preference, default=None)


def _weight(parameters: str | None) -> float | None:
    """Return the weight (RFC 9110, 12.4.2) among ``;``-separated parameters, or None when it is malformed."""
    for parameter in (parameters or "").split(";"):
        name = parameter.partition("=")[0].strip(" \t")
        if name in {"q", "Q"}:
            match = _WEIGHT.fullmatch(parameter.strip(" \t"))
            return float(match[1]) if match is not None else None
    return 1.0


# --- Ranges (RFC 9110, 14) ---

# 19 digits hold any 64-bit size; more would only be a way to spend our time on huge integers.
_RANGE: Final = re.compile(r"bytes=[ \t]*(?:([0-9]{1,19})-([0-9]{1,19})?|-([0-9]{1,19}))[ \t]*", re.IGNORECASE)
_CONTENT_RANGE: Final = re.compile(r"bytes +([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """One byte range as asked for: ``a-b``, ``a-`` (no last) or ``-n`` (no first; last is n)."""

    first: int | None
    last: int | None

    @property
    def is_open(self) -> bool:
        """``a-``: everything from an offset on."""
        return self.last is None

    @property
    def header(self) -> str:
        """The value of a Range header that asks for it."""
        first, last = ("" if bound is None else bound for bound in (self.first, self.last))
        return f"bytes={first}-{last}"

    def resolve(self, size: int) -> tuple[int, int]:
        """Return the half-open (start, stop) of this range in a file of ``size`` bytes.

        Raises :class:`RangeNotSatisfiable` when nothing of the file is in it (RFC 9110, 14.1.2).
        """
        if self.first is None:
            start, stop = max(size - (self.last or 0), 0), size
        else:
            start, stop = self.first, size if self.last is None else min(self.last + 1, size)
        if start >= stop:
            raise RangeNotSatisfiable(size)
        return start, stop


def parse_range(header: str | None) -> RangeRequest | None:
    """Read a Range header; None when there is none that we honour, and the answer is then 200 (RFC 9110, 14.2).

    That is so for another unit, several ranges, a last byte before the first, and anything malformed.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None:
        return None
    first, last, suffix = (int(digits) if digits else None for digits in match.groups())
    if first is None:
        return RangeRequest(None, suffix)
    return None if last is not None and last < first else RangeRequest(first, last)


def parse_content_range(header: str | None) -> tuple[int, int, int | None] | None:
    """Read a Content-Range header (RFC 9110, 14.4) into half-open (start, stop) and the total, None for ``*``.

    None when there is no header, it is malformed, contradicts itself, or states no range (``bytes */N``).
    """
    match = _CONTENT_RANGE.fullmatch(header.strip(" \t")) if header else None
    if match is None:
        return None
    start, stop = int(match[1]), int(match[2]) + 1
    total = None if match[3] == "*" else int(match[3])
    if start >= stop or (total is not None and stop > total):
        return None
    return start, stop, total


# --- Validators (RFC 9110, 8.8 and 13.1) ---

# ASCII only: what lies beyond (obs-text) cannot be sent back byte for byte through a str.
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]*"')
_ENTITY_TAG: Final = re.compile(r'"[^"]*"')


def strong_etag(value: str | None) -> str | None:
    """Return ``value``, quotes included, when it is a strong entity-tag in ASCII (RFC 9110, 8.8.3), else None."""
    value = value.strip(" \t") if value else ""
    return value if _STRONG_ETAG.fullmatch(value) else None


def sendable(value: str | None) -> str | None:
    """Return a validator that may be sent on, else None: upstream's headers hold what ours cannot (RFC 9110, 5.5)."""
    return value if value is not None and value.isascii() and value.isprintable() else None


def conditions(etag: str | None, last_modified: str | None) -> dict[str, str]:
    """Return the headers that ask for something unless it still has these validators (RFC 9110, 13.1)."""
    headers = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    return {name: value for name, value in headers.items() if value is not None}


def if_none_match(header: str | None, etag: str) -> bool:
    """Whether If-None-Match names ``etag``, compared weakly, or is ``*`` (RFC 9110, 13.1.2): the answer is 304."""
    if header is None:
        return False
    return header.strip(" \t") == "*" or etag.removeprefix("W/") in _ENTITY_TAG.findall(header)


def if_range_allows(header: str | None, etag: str | None, last_modified: str | None) -> bool:
    """Whether If-Range lets a range be answered (RFC 9110, 13.1.5), given the validators of what we have.

    An entity-tag is compared strongly, a date must be exactly ours; without the header the answer is yes.
    """
    if header is None:
        return True
    header = header.strip(" \t")
    if header.startswith(('"', "W/")):
        return strong_etag(header) is not None and header == etag
    return bool(header) and header == last_modified


# --- Times ---

_DELAY_DIGITS: Final = 9  # thirty years; the caller has a limit of its own


def parse_retry_after(value: str | None, *, now: float | None = None) -> float | None:
    """Return the seconds that Retry-After asks for, in either spelling (RFC 9110, 10.2.3); None when unreadable.

    ``now`` is wall-clock seconds, by default the present. A date that has passed asks for nothing: 0.
    """
    text = (value or "").strip(" \t")
    if text.isascii() and text.isdigit():
        return float(text[:_DELAY_DIGITS])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - (time.time() if now is None else now))


def wants_fresh(cache_control: str | None) -> bool:
    """Whether a request's Cache-Control has ``no-cache`` (uv --refresh); ``max-age=0`` is pip's habit, no wish."""
    directives = (directive.strip(" \t").lower() for directive in (cache_control or "").split(","))
    return "no-cache" in directives
