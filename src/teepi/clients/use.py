"""Which index a client uses as things are, and what said so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from teepi.clients import marks, user_file
from teepi.errors import ConfigError

if TYPE_CHECKING:
    from teepi.clients.known import Client, Surroundings


@dataclass(frozen=True, slots=True)
class Use:
    """Of one client."""

    name: str
    index: str | None
    """URL; None where it is not set."""
    place: str | None
    """The variable or file that has it, or would have it."""
    problem: str | None = None
    """One sentence where the file cannot be read."""
    in_file: str | None = None
    """What the file says, whatever a variable says."""
    text: str = ""
    """Of the file."""
    is_ours: bool = False
    """Whether ``teepi configure`` has written to the file."""


def use_of(client: Client, around: Surroundings) -> Use:
    """Look at variables and file of ``client``. Raises nothing: what cannot be read is the answer's problem."""
    place = problem = index = None
    text = ""
    try:
        path = client.file(around)
        if path is not None:
            place, text = str(path), user_file.read(path).text
            index = client.index(text)
    except ConfigError as error:
        problem = error.message
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}."
    except ValueError as error:
        problem = f"{place} cannot be read: {error}."
    is_ours = marks.has_marks(text)
    for variable in client.variables:
        if value := around.environ.get(variable):
            return Use(client.name, value, variable, problem, index, text, is_ours)
    return Use(client.name, index, place, problem, index, text, is_ours)
