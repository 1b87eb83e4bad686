"""What operators call, by name: asynchronous generators of JSON objects, at last ``{"result": …}``.

What each does is in ``operations`` and ``account_operations``; here is how it is found and how arguments are checked.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from teepi.errors import BadRequest, NotFound

Events = AsyncGenerator[dict[str, Any]]
Operation = Callable[[Mapping[str, Any]], Events]
"""From its arguments to its events."""

DATA_DIR: Final = "data_dir"
"""Argument of every call about accounts: the data directory that is meant; left out with a token out of it."""


class Calls:
    """Operations by name."""

    def __init__(self, operations: Mapping[str, Operation]) -> None:
        """Offer ``operations``."""
        self.operations = operations

    def call(self, name: str, arguments: Mapping[str, Any]) -> Events:
        """Return the events of a call. Raises :class:`NotFound` where there is none; others come while it runs."""
        if name not in self.operations:
            raise NotFound(f"There is no operation {name[:100]!r}; there are {', '.join(self.operations)}.")
        return self.operations[name](arguments)


# Arguments: all of these raise BadRequest --------------------------------------------------------------


def known(arguments: Mapping[str, Any], *names: str) -> None:
    """Take no argument but ``names``."""
    for name in arguments:
        if name not in names:
            raise BadRequest(f"There is no argument {name[:100]!r} here; there are {', '.join(names) or 'none'}.")


def texts(arguments: Mapping[str, Any], name: str) -> list[str]:
    """Return a list of strings, empty where it is left out."""
    value = arguments.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadRequest(f"{name} is a list of strings.")
    return value


def text(arguments: Mapping[str, Any], name: str) -> str | None:
    """Return a string, None where it is left out."""
    value = arguments.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} is a string.")
    return value


def number(arguments: Mapping[str, Any], name: str) -> float | None:
    """Return a number, 0 or more, None where it is left out."""
    value = arguments.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise BadRequest(f"{name} is a number, 0 or more.")
    return float(value)
