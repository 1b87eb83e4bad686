"""The settings of an index as devpi's clients give and read them: types, checks, changes. No IO.

Values come as text (``volatile=False``, ``bases=root/pypi,team/dev``) or as JSON. How indexes hang together is
``directory``'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from packaging.utils import InvalidName, canonicalize_name

from teepi.errors import BadRequest
from teepi.index_settings import RESERVED_INDEXES, RESERVED_USERS, parse_seconds, parse_upstream
from teepi.origins import hide_user_info

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ANONYMOUS: Final = ":ANONYMOUS:"
AUTHENTICATED: Final = ":AUTHENTICATED:"

_NAME: Final = re.compile(r"[A-Za-z0-9._@-]+")
"""It stands in URLs, headers, access lists and, of a mirror, in the names of files."""
_LONGEST_NAME: Final = 100
_LONGEST_TEXT: Final = 10_000
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


def check_name(name: str, what: str, *, reserved: frozenset[str] = frozenset()) -> str:
    """Return the name of ``what``, a user or an index. Raises :class:`BadRequest` for what can be none."""
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name) or name in {".", ".."}:
        raise BadRequest(
            f"{name[:_LONGEST_NAME]!r} is not the name of {what}: one has at most {_LONGEST_NAME} of a-z, A-Z, 0-9 "
            "and -.@_ in it."
        )
    if name.lower() in reserved:
        raise BadRequest(f"{name!r} is reserved for a path of teepi's own; choose another name for {what}.")
    return name


def check_user_name(name: str) -> str:
    """See :func:`check_name`."""
    return check_name(name, "a user", reserved=RESERVED_USERS | {"__token__"})


def check_index_name(name: str) -> str:
    """See :func:`check_name`; the part behind the slash."""
    return check_name(name, "an index", reserved=RESERVED_INDEXES)


# Values ---------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ValueError("write a text")
    return value


def _switch(value: object) -> bool:
    text = str(value).strip().lower()
    if isinstance(value, bool) or (isinstance(value, str) and text in _TRUE | _FALSE):
        return text in _TRUE
    raise ValueError("write True or False")


def _list(value: object) -> list[str]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError("write a list of names, separated by commas")
    return list(dict.fromkeys(text for item in items if (text := item.strip())))


def _bases(value: object) -> list[str]:
    names = list(dict.fromkeys(name.strip("/") for name in _list(value)))
    for name in names:
        if name.count("/") != 1:
            raise BadRequest(f"invalid base index spec: {name[:200]!r}")
    return names


def _principals(value: object) -> list[str]:
    return list(dict.fromkeys(name.upper() if name.startswith(":") else name for name in _list(value)))


def _projects(value: object) -> list[str]:
    names = _list(value)
    try:
        return list(dict.fromkeys(name if name == "*" else canonicalize_name(name, validate=True) for name in names))
    except InvalidName as error:
        raise ValueError(f"{error}; write names of projects, or *") from None


def _inheritance(value: object) -> str:
    if value != "intersection" and value != "union":  # noqa: PLR1714 - it may be what no set can have
        raise ValueError("write intersection or union")
    return str(value)


def _url(value: object) -> str:
    """Return the URL as it was given: devpi's clients compare it."""
    text = _text(value).strip()
    parse_upstream(text)
    return text


def _link(value: object) -> str:
    """Return what people are led to by a click."""
    text = _text(value)
    if not text.startswith(("http://", "https://")):
        raise ValueError("write a URL that begins with http:// or https://, with {name} for the project")
    return text


def _seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("write a number of seconds, 0 or more")  # noqa: TRY004 - one kind for all
    return int(parse_seconds(value))


def custom_data(value: object) -> Any:  # noqa: ANN401 - JSON
    """Return what clients keep here for themselves. Raises ValueError when it is too much."""
    try:
        size = len(json.dumps(value))
    except RecursionError:
        size = _LONGEST_TEXT + 1
    if size > _LONGEST_TEXT:
        raise ValueError(f"as JSON it may have {_LONGEST_TEXT} characters")
    return value


_COMMON: Final[dict[str, Callable[[object], Any]]] = {
    "title": _text,
    "description": _text,
    "custom_data": custom_data,
    "acl_read": _principals,
}
_STAGE: Final[dict[str, Callable[[object], Any]]] = {
    "volatile": _switch,
    "bases": _bases,
    "acl_upload": _principals,
    "acl_toxresult_upload": _principals,
    "mirror_whitelist": _projects,
    "mirror_whitelist_inheritance": _inheritance,
    **_COMMON,
}
_MIRROR: Final[dict[str, Callable[[object], Any]]] = {
    "volatile": _switch,
    "mirror_url": _url,
    "mirror_cache_expiry": _seconds,
    "mirror_web_url_fmt": _link,
    **_COMMON,
}
_KINDS: Final = {"stage": _STAGE, "mirror": _MIRROR}


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """The settings of one index that clients made."""

    name: str
    """``user/index``."""
    kind: str
    """``stage`` (uploads) or ``mirror`` (of an upstream)."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """By key, checked."""

    @property
    def user(self) -> str:
        """Whose it is."""
        return self.name.partition("/")[0]

    @property
    def is_stage(self) -> bool:
        """Whether it takes uploads."""
        return self.kind == "stage"

    @property
    def is_volatile(self) -> bool:
        """Whether what was uploaded may be overwritten and deleted."""
        return bool(self.values.get("volatile", True))

    @property
    def bases(self) -> tuple[str, ...]:
        """Names of the indexes below."""
        return tuple(self.values.get("bases", ()))

    @property
    def acl_read(self) -> tuple[str, ...]:
        """Who may read."""
        return tuple(self.values.get("acl_read", (ANONYMOUS,)))

    @property
    def acl_upload(self) -> tuple[str, ...]:
        """Who may upload and delete."""
        return tuple(self.values.get("acl_upload", (self.user,)))

    @property
    def acl_toxresult_upload(self) -> tuple[str, ...]:
        """Who may post what a test run said."""
        return tuple(self.values.get("acl_toxresult_upload", (ANONYMOUS,)))

    @property
    def whitelist(self) -> frozenset[str]:
        """Projects, or ``*``, that mirrors below may add to though a stage has them."""
        return frozenset(self.values.get("mirror_whitelist", ()))

    def shown(self) -> dict[str, Any]:
        """Return what ``GET /user/index`` says (devpi's ``indexconfig``): defaults filled in, passwords hidden."""
        if not self.is_stage:
            url = hide_user_info(self.values["mirror_url"])
            rest = {key: value for key, value in self.values.items() if key not in {"volatile", "mirror_url"}}
            return {"type": "mirror", "volatile": self.is_volatile, "mirror_url": url, **rest}
        return {
            "type": "stage",
            "volatile": self.is_volatile,
            "bases": list(self.bases),
            "acl_upload": list(self.acl_upload),
            "acl_toxresult_upload": list(self.acl_toxresult_upload),
            "mirror_whitelist": list(self.values.get("mirror_whitelist", ())),
            "mirror_whitelist_inheritance": self.values.get("mirror_whitelist_inheritance", "intersection"),
            **{key: self.values[key] for key in _COMMON if key in self.values},
        }


def created(name: str, given: Mapping[str, Any]) -> IndexConfig:
    """Return a new index with the settings of a client's ``PUT``. Raises :class:`BadRequest`."""
    kind = given.get("type", "stage")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadRequest(f"{str(kind)[:100]!r} is no type of an index; write stage or mirror.")
    values = _checked(kind, {key: value for key, value in given.items() if key not in {"type", "projects"}})
    if kind == "mirror" and "mirror_url" not in values:
        raise BadRequest("A mirror needs a mirror_url: the root of the upstream's Simple API.")
    return IndexConfig(name, kind, values)


def changed(former: IndexConfig, given: Mapping[str, Any] | Sequence[str]) -> IndexConfig:
    """Return an index with the changes of a client's ``PATCH``: settings, or a list of ``key=value`` and the like.

    ``key+=value`` adds to a list, ``key-=value`` takes out of it, ``key-=`` forgets the key. Raises
    :class:`BadRequest`.
    """
    kind = former.kind
    values = dict(former.values)
    if isinstance(given, (list, tuple)):
        for step in given:
            _apply(former, values, step)
        return IndexConfig(former.name, kind, values)
    if not isinstance(given, Mapping):
        raise BadRequest("Changes of an index are an object of settings, or a list of key=value.")
    if given.get("type", kind) != kind:
        raise BadRequest(f"The index {former.name} is a {kind} and stays one: 'type' cannot be changed.")
    wanted = {key: value for key, value in given.items() if key not in {"type", "projects"}}
    # A client that sends all back which it was shown has the password hidden in it.
    if kind == "mirror" and wanted.get("mirror_url") == former.shown().get("mirror_url"):
        del wanted["mirror_url"]
    values.update(_checked(kind, wanted))
    return IndexConfig(former.name, kind, values)


def _checked(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    parsers = _KINDS[kind]
    unknown = [f"{key}={value}" for key, value in given.items() if key not in parsers]
    if unknown:
        raise BadRequest(f"indexconfig got unexpected keyword arguments: {', '.join(unknown)[:300]}")
    return {key: _parsed(kind, key, value) for key, value in given.items()}


def _parsed(kind: str, key: str, value: object) -> Any:  # noqa: ANN401 - as the key has it
    if key not in _KINDS[kind]:
        raise BadRequest(f"indexconfig got unexpected keyword arguments: {key[:100]}={str(value)[:100]}")
    try:
        return _KINDS[kind][key](value)
    except ValueError as error:
        raise BadRequest(f"{key} = {hide_user_info(str(value))[:100]!r} cannot be used: {error}.") from None


def _apply(former: IndexConfig, values: dict[str, Any], step: object) -> None:
    """Apply ``key=value``, ``key+=value`` or ``key-=value`` to ``values``."""
    match = re.fullmatch(r"([A-Za-z_]+)([+-]?=)(.*)", step, re.DOTALL) if isinstance(step, str) else None
    if match is None:
        raise BadRequest(f"{str(step)[:100]!r} is no change of an index; write key=value, key+=value or key-=value.")
    key, operator, text = match.groups()
    kind = former.kind
    if key == "type":
        if operator != "=" or text != kind:
            raise BadRequest(f"The index {former.name} is a {kind} and stays one: 'type' cannot be changed.")
        return
    if operator == "=":
        values[key] = _parsed(kind, key, text)
        return
    if key not in _KINDS[kind]:
        raise BadRequest(f"indexconfig got unexpected keyword arguments: {key[:100]}={text[:100]}")
    if operator == "-=" and not text:
        if key == "mirror_url":
            raise BadRequest("A mirror needs its mirror_url; give it another one.")
        values.pop(key, None)
        return
    now = IndexConfig(former.name, kind, values).shown().get(key, [])
    parsed = _parsed(kind, key, text)
    if not isinstance(parsed, list):
        raise BadRequest(f"{key} is no list: {operator} has no meaning for it; write {key}=VALUE.")
    missing = [item for item in parsed if item not in now]
    if operator == "-=" and missing:
        raise BadRequest(f"The {key!r} setting doesn't have value {missing[0][:200]!r}")
    values[key] = (
        list(dict.fromkeys([*now, *parsed])) if operator == "+=" else [item for item in now if item not in parsed]
    )


def built_in(upstream: str) -> dict[str, Any]:
    """Return the settings of the built-in mirror as devpi's clients know them."""
    root = upstream.removesuffix("/").rpartition("/")[0]
    return {
        "volatile": False,
        "title": "PyPI",
        "mirror_url": upstream,
        "mirror_web_url_fmt": f"{root}/project/{{name}}/",
    }
