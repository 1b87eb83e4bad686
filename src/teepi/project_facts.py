"""What the metadata of a version say, as a page for people shows it; all of it was written by strangers. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LONGEST: Final = 2000
"""Characters of a line."""
_LONGEST_LICENCE: Final = 120
_MOST: Final = 300
"""Dependencies, classifiers, links: more are counted."""
_MOST_RUNS: Final = 50


@dataclass(frozen=True, slots=True)
class Dependency:
    """What a version needs."""

    project: str
    """Normalised; empty when it cannot be read."""
    name: str
    rest: str
    """Extras, versions and markers as they are written; all of it when it cannot be read."""


@dataclass(frozen=True, slots=True)
class Link:
    """An URL of a project: http or https, or none."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class About:
    """What metadata say."""

    name: str
    summary: str
    licence: str
    author: str
    maintainer: str
    keywords: str
    requires_python: str
    description: str
    description_type: str
    dependencies: Sequence[Dependency]
    more_dependencies: int
    """So many are not shown."""
    classifiers: Sequence[str]
    links: Sequence[Link]


@dataclass(frozen=True, slots=True)
class Environment:
    """What one environment of a test run did."""

    name: str
    is_passed: bool


def about(fields: Mapping[str, Any]) -> About:
    """Return what ``fields`` say, of an upload's form or of core metadata; nothing where they make no sense."""
    needed = _lines(fields, "requires_dist")
    return About(
        name=_line(fields, "name"),
        summary=_line(fields, "summary"),
        licence=_line(fields, "license_expression") or _named(_line(fields, "license")),
        author=_person(fields, "author"),
        maintainer=_person(fields, "maintainer"),
        keywords=_line(fields, "keywords"),
        requires_python=_line(fields, "requires_python"),
        description=_text(fields.get("description")),
        description_type=_line(fields, "description_content_type"),
        dependencies=[_dependency(text) for text in needed[:_MOST]],
        more_dependencies=max(0, len(needed) - _MOST),
        classifiers=_lines(fields, "classifiers")[:_MOST],
        links=_links(fields)[:_MOST],
    )


def safe_url(url: str) -> str:
    """Return an URL that a page may link to, empty for any other scheme than http and https."""
    url = "".join(url.split())
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme.lower() in {"http", "https"} and parts.netloc else ""


def environments(content: str) -> list[Environment] | None:
    """Return what a test run (``devpi test``) says of its environments, None when that cannot be read.

    One has passed when every command of its set-up and of its tests ended with status 0, and there was one.
    """
    try:
        found = json.loads(content)
        given = found["testenvs"]
        return [Environment(str(name)[:_LONGEST], _is_passed(given[name])) for name in list(given)[:_MOST_RUNS]]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _is_passed(environment: Mapping[str, Any]) -> bool:
    commands: list[Mapping[str, Any]] = [*environment.get("setup", ()), *environment.get("test", ())]
    return bool(environment.get("test")) and all(str(each["retcode"]) == "0" for each in commands)


def _text(value: object) -> str:
    """Return a text; without what no encoder takes."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _line(fields: Mapping[str, Any], key: str) -> str:
    return " ".join(_text(fields.get(key)).split())[:_LONGEST]


def _named(licence: str) -> str:
    """Return the name of a licence, cut where somebody has put the whole text there."""
    return licence if len(licence) <= _LONGEST_LICENCE else f"{licence[:_LONGEST_LICENCE].rpartition(' ')[0]} …"


def _lines(fields: Mapping[str, Any], key: str) -> list[str]:
    value = fields.get(key)
    values: Iterable[object] = value if isinstance(value, (list, tuple)) else [value]
    return [line for each in values if (line := " ".join(_text(each).split())[:_LONGEST])]


def _person(fields: Mapping[str, Any], key: str) -> str:
    """Return a name, else the name in an address: addresses are for programs to collect."""
    name = _line(fields, key)
    if name:
        return name
    addresses = _line(fields, f"{key}_email").split(",")
    return ", ".join(
        shown for each in addresses if (shown := each.partition("<")[0].strip(" \"'")) and "@" not in shown
    )


def _dependency(text: str) -> Dependency:
    try:
        found = Requirement(text)
    except (InvalidRequirement, ValueError, RecursionError):
        return Dependency("", "", text)
    rest = text[len(found.name) :] if text.startswith(found.name) else str(found)[len(found.name) :]
    return Dependency(canonicalize_name(found.name), found.name, rest.strip())


def _links(fields: Mapping[str, Any]) -> list[Link]:
    given = [("Homepage", _line(fields, "home_page")), ("Download", _line(fields, "download_url"))]
    for text in _lines(fields, "project_urls"):
        label, comma, url = text.partition(",")
        given.append((label.strip(), url.strip()) if comma else ("", text))
    found = {}
    for label, url in given:
        safe = safe_url(url)
        if safe and safe not in found:
            found[safe] = Link(label or (urlsplit(safe).hostname or safe), safe)
    return list(found.values())
