"""The fields of an upload's form, and other JSON that clients post, as they are kept. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
from packaging.utils import InvalidName, canonicalize_name

from teepi.errors import BadRequest, BadUpload

if TYPE_CHECKING:
    from collections.abc import Mapping

    Claims = Mapping[str, str | list[str]]
    """Fields of an upload's form by name; those that came several times as a list."""

_MOST_ATTESTATIONS_BYTES: Final = 1 << 20
_FIELDS: Final = (
    *("metadata_version", "summary", "home_page", "author", "author_email", "maintainer", "maintainer_email"),
    *("license", "description", "description_content_type", "keywords", "download_url", "requires_python"),
)
_LIST_FIELDS: Final = (
    *("platform", "classifiers", "requires_dist", "provides_dist", "obsoletes_dist", "requires_external"),
    *("project_urls", "provides_extra", "supported_platform"),
)


def fields_of(claims: Claims, name: str, version: str) -> dict[str, Any]:
    """Return the metadata that a form gives, every field that devpi's clients look for in it."""
    fields: dict[str, Any] = {"name": name, "version": version}
    fields |= {key: one(claims, key) or "" for key in _FIELDS}
    for key in _LIST_FIELDS:
        value = claims.get(key, [])
        fields[key] = [value] if isinstance(value, str) else list(value)
    return fields


def named(claims: Claims, *, needs_version: bool = True) -> tuple[str, str]:
    """Return name and version of a form. Raises :class:`BadUpload` where one is missing."""
    name, version = one(claims, "name") or "", one(claims, "version") or ""
    try:
        canonicalize_name(name, validate=True)
    except InvalidName:
        raise BadUpload(f"{name[:100]!r} is not the name of a project") from None
    if needs_version and not version:
        raise BadUpload(f"the version of {name} is missing")
    return name, version


def one(claims: Claims, key: str) -> str | None:
    """Return the first value of a field, None when it is missing."""
    value = claims.get(key)
    return value if value is None or isinstance(value, str) else value[0]


def json_text(content: bytes) -> str:
    """Return the text of what is JSON; nothing is made of it, so that it costs 4 ms for 16 MiB.

    Raises :class:`BadRequest` for anything else.
    """
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
        return content.decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadRequest("Bad request: could not decode json") from None


def attestations(claims: Claims) -> str | None:
    """Return the attestations of an upload (PEP 740). Raises :class:`BadUpload` for what is no list of them."""
    text = one(claims, "attestations")
    if not text:
        return None
    try:
        found = json.loads(text) if len(text) <= _MOST_ATTESTATIONS_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, dict) and "envelope" in each for each in found):
        raise BadUpload("the attestations are no JSON list of attestation objects (PEP 740)")
    return json.dumps(found) if found else None
