"""The form of an upload: fields with one value or several, as clients of all ages fill them in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_UNKNOWN: Final = "UNKNOWN"
Claims = Mapping[str, "str | list[str]"]
"""Multipart form fields by name; repeated ones as lists."""


def known(value: str) -> str:
    """Return text without surrounding space, that every encoder takes; empty for distutils' word for nothing."""
    plain = value.encode("utf-8", "replace").decode().replace("\0", "").strip()
    return "" if plain == _UNKNOWN else plain


def text(claims: Claims, field: str) -> str:
    """Return a field's one value, the first of several, or an empty string."""
    value = claims.get(field, "")
    if isinstance(value, list):
        value = value[0] if value else ""
    return known(value)


def texts(claims: Claims, *fields: str) -> list[str]:
    """Return all values of the first of ``fields`` that has any: clients disagree about plurals."""
    for field in fields:
        value = claims.get(field, [])
        values = [known(one) for one in (value if isinstance(value, list) else [value])]
        if any(values):
            return [one for one in values if one]
    return []
