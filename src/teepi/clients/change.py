"""What setting up a client, or taking that back, would change in its file."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from teepi.clients import marks, user_file
from teepi.clients.address import is_same_server
from teepi.errors import ConfigError
from teepi.origins import hide_user_info_in

if TYPE_CHECKING:
    from pathlib import Path

    from teepi.clients.known import Client, Surroundings
    from teepi.clients.user_file import UserFile


@dataclass(frozen=True, slots=True)
class Change:
    """Nothing is written before :meth:`apply`."""

    file: UserFile
    text: str
    """What the file is to hold."""
    is_to_go: bool = False
    """Whether the file is removed, since it was made for teepi's lines."""

    @property
    def is_needed(self) -> bool:
        """Whether anything changes."""
        return self.text != self.file.text or self.is_to_go

    def apply(self) -> Path | None:
        """Do it. Return the backup of what was there before, if anything was. Raises :class:`ConfigError`."""
        if self.is_to_go:
            user_file.delete(self.file)
        elif self.is_needed:
            return user_file.write(self.file, self.text, is_ours=marks.has_marks(self.file.text))
        return None

    def diff(self) -> str:
        """Return what changes, as ``diff -u`` has it, user info in URLs hidden."""
        path = str(self.file.path)
        before, after = ([line.rstrip("\r\n") for line in marks.lines_of(text)] for text in (self.file.text, self.text))
        names = (path if self.file.exists else "/dev/null", "/dev/null" if self.is_to_go else path)
        lines = difflib.unified_diff(before, after, *names, lineterm="")
        return "\n".join(map(hide_user_info_in, lines))


def set_up(client: Client, around: Surroundings, url: str) -> Change:
    """Return the change after which ``client`` uses the index at ``url``. Raises :class:`ConfigError`."""
    file = user_file.read(_file(client, around, url))
    url = client.written(url)
    try:
        before = marks.remove(file.text)
        content = client.read(before)
        if client.is_set(before, url):
            text = before
        else:
            is_new = not file.exists or marks.is_new_file(file.text)
            text = marks.insert(before, client.edits(before, url), is_new_file=is_new)
            _require(client, text, client.changed(content, url), file.path)
    except ValueError as error:
        raise ConfigError(f"{file.path} cannot be read: {error}. Correct it first; nothing was changed.") from None
    return Change(file, text)


def _file(client: Client, around: Surroundings, url: str) -> Path:
    path = client.file(around)
    if path is None:
        raise ConfigError(client.without_file(url))
    return path


def _require(client: Client, text: str, wanted: object, path: Path) -> None:
    """Refuse a text that does not mean just what it should: better no change than a wrong one."""
    with contextlib.suppress(ValueError):
        if client.read(text) == wanted:
            return
    raise ConfigError(
        f"{path} is written in a way that cannot be changed line by line; set the index there by hand, "
        "nothing was changed."
    )


def take_back(client: Client, around: Surroundings, url: str) -> Change:
    """Return the change that takes teepi's lines out again. Raises :class:`ConfigError`."""
    file = user_file.read(_file(client, around, url))
    try:
        text = marks.remove(file.text)
        if not marks.has_marks(file.text) and is_same_server(client.index(text), url):
            former = f"; {file.backups[-1]} has what was there before" if file.backups else ""
            raise ConfigError(
                f"{file.path} leads to teepi, but not by a line that 'teepi configure' can still tell from its "
                f"owner's (tools that rewrite the file drop comments): take it out by hand{former}."
            )
    except ValueError as error:
        raise ConfigError(f"{file.path} cannot be read: {error}. Correct it first; nothing was changed.") from None
    return Change(file, text, is_to_go=not text and marks.is_new_file(file.text))
