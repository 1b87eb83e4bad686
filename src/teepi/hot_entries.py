"""What the hot path may answer: finished heads, and where the bodies are, by the raw target of a request.

Handlers put in what the ordinary path has just answered; the services that own what it shows take it out. No IO.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_KEPT: Final = 20_000
"""Targets; with their heads they take about a kilobyte each."""


class Head(NamedTuple):
    """The head of an answer, cut where the value of Date goes."""

    before: bytes
    behind: bytes


@dataclass(frozen=True, slots=True)
class InFile:
    """A body that lies in a file: ``size`` bytes from ``offset`` to its end."""

    path: str
    offset: int
    size: int
    sha256: str | None = None
    """In hex: of what is not synced, and so is compared each time."""


@dataclass(slots=True)
class Answer:
    """What a target answers to one wish."""

    etag: bytes
    ok: Head | None = None
    body: bytes | InFile = b""
    not_modified: Head | None = None


class Entry:
    """What is known of one target."""

    __slots__ = ("answers", "expires_at", "kind", "project", "touch")

    def __init__(self, kind: str, project: str, touch: Callable[[], Any]) -> None:
        """``kind`` as the metrics have it; ``touch`` notes the use of what is shown."""
        self.kind = kind
        self.project = project
        self.touch = touch
        self.answers: dict[str, Answer] = {}
        """By wish: the form and coding of a page, empty for a file."""
        self.expires_at = math.inf
        """Monotonic seconds: from then on the ordinary path decides."""


class HotEntries:
    """All targets that may be answered at once; those put in first go first when there are too many."""

    def __init__(self) -> None:
        """Begin empty."""
        self.by_target: OrderedDict[bytes, Entry] = OrderedDict()
        self.drops = 0
        """Grows when anything is taken out: what was looked up before may be out of date."""
        self._of_project: dict[str, set[bytes]] = {}

    def entry(self, target: bytes, kind: str, project: str, touch: Callable[[], Any]) -> Entry:
        """Return the entry of ``target``, a new one if there is none."""
        entry = self.by_target.get(target)
        if entry is None:
            while len(self.by_target) >= _KEPT:
                self.remove(next(iter(self.by_target)))
            entry = self.by_target[target] = Entry(kind, project, touch)
            self._of_project.setdefault(project, set()).add(target)
        entry.touch = touch
        return entry

    def remove(self, target: bytes) -> None:
        """Take out one target, if it is there."""
        entry = self.by_target.pop(target, None)
        if entry is not None:
            siblings = self._of_project[entry.project]
            siblings.discard(target)
            if not siblings:
                del self._of_project[entry.project]

    def drop(self, project: str) -> None:
        """Take out all of a project (normalised), in all indexes: something about it has changed."""
        self.drops += 1
        for target in self._of_project.pop(project, ()):
            del self.by_target[target]

    def clear(self) -> None:
        """Take out everything: the settings have changed."""
        self.drops += 1
        self.by_target.clear()
        self._of_project.clear()
