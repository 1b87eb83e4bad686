"""What can be said of a user, as devpi's clients give it: checks. No IO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from teepi.errors import BadRequest
from teepi.index_config import custom_data

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXTS: Final = ("email", "title", "description")
_KEYS: Final = frozenset({*_TEXTS, "custom_data"})
_SHOWN: Final = frozenset({"username", "created", "indexes", "password", "current_password"})
"""What a client sends back that it was shown, or that is kept elsewhere."""
_LONGEST: Final = 10_000


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a user besides name and password; None or "" takes back. Raises :class:`BadRequest`."""
    unknown = [key for key in given if key not in _KEYS | _SHOWN]
    if unknown:
        raise BadRequest(f"a user has no {unknown[0][:100]!r}; what can be said of one: {', '.join(sorted(_KEYS))}")
    for key in _TEXTS:
        if not isinstance(given.get(key, ""), (str, type(None))) or len(given.get(key) or "") > _LONGEST:
            raise BadRequest(f"{key} is a text of at most {_LONGEST} characters")
    try:
        custom_data(given.get("custom_data"))
    except ValueError as error:
        raise BadRequest(f"custom_data is too long: {error}") from None
    return {key: given[key] for key in given if key in _KEYS}


def said(former: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a user after a change by what :func:`checked` returned."""
    return {key: value for key, value in {**former, **given}.items() if value not in (None, "")}
