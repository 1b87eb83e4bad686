"""A text file that belongs to the user: read whole, replaced whole, backed up; no backup is ever overwritten."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from teepi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST_BYTES: Final = 1 << 20
_BACKUP: Final = ".before-teepi"


@dataclass(frozen=True, slots=True)
class UserFile:
    """What was read. ``path`` may be a symbolic link; what it leads to is read and written."""

    path: Path
    text: str
    status: os.stat_result | None
    """None when there is no such file."""

    @property
    def exists(self) -> bool:
        """Whether there was one."""
        return self.status is not None

    @property
    def backups(self) -> list[Path]:
        """What has the file as it was before teepi wrote to it, the oldest first."""
        return list(takewhile(os.path.lexists, self._backup_names()))

    def keep(self, *, is_ours: bool) -> Path | None:
        """Return the backup of this file, made unless there is one already; None where there is no file.

        ``is_ours`` says that teepi has written to it: the newest backup is from before that. Raises OSError.
        """
        if self.status is None:
            return None
        there = self.backups
        if is_ours and there:
            return there[-1]
        for path in there:
            with contextlib.suppress(ConfigError):
                if read(path).text == self.text:
                    return path
        for path in self._backup_names():
            with contextlib.suppress(FileExistsError):
                _create(path, self.text, self.status)
                return path
        raise AssertionError("there is always another name")

    def _backup_names(self) -> Iterator[Path]:
        real = _real(self.path)
        return numbered(real.with_name(real.name + _BACKUP))


def read(path: Path) -> UserFile:
    """Read ``path``; a missing file is an empty one. Raises :class:`ConfigError` in one sentence."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ConfigError(f"{path} is no ordinary file, so there is no setting in it to change.")
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        return UserFile(path, "", None)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); nothing was changed.") from None
    if len(data) > _LARGEST_BYTES:
        raise ConfigError(f"{path} is larger than any such file should be; nothing was changed.")
    try:
        return UserFile(path, data.decode(), status)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line} is not UTF-8; correct it first, nothing was changed.") from None


def numbered(path: Path) -> Iterator[Path]:
    """Yield ``path``, and then ``path.2``, ``path.3`` … without end."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.name}.{number}")


def set_aside(path: Path, suffix: str) -> Path:
    """Rename ``path`` to the first free name with ``suffix``, and return that. Raises OSError."""
    for backup in numbered(path.with_name(path.name + suffix)):
        with contextlib.suppress(FileExistsError):
            backup.touch(exist_ok=False)  # nobody else takes this name
            path.replace(backup)
            return backup
    raise AssertionError("there is always another name")


def write(file: UserFile, text: str, *, is_ours: bool) -> Path | None:
    """Put ``text`` in the place of ``file``, with its owner and permissions, all or nothing.

    Return its backup (see :meth:`UserFile.keep`). Raises :class:`ConfigError` in one sentence, and the file is as it
    was.
    """
    real = _real(file.path)
    if file.status is not None and not (os.access(real, os.W_OK) and file.status.st_mode & 0o222):
        raise ConfigError(f"{file.path} is read-only; make it writable first (chmod u+w), nothing was changed.")
    temporary = real.with_name(f".{real.name}.{secrets.token_hex(4)}")
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        backup = file.keep(is_ours=is_ours)
        _create(temporary, text, file.status)
        temporary.replace(real)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConfigError(f"{file.path} cannot be written ({error.strerror}); nothing was changed.") from None
    return backup


def delete(file: UserFile) -> None:
    """Remove a file that teepi made. Raises :class:`ConfigError`."""
    try:
        _real(file.path).unlink()
    except OSError as error:
        raise ConfigError(f"{file.path} cannot be removed ({error.strerror}).") from None


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _create(path: Path, text: str, like: os.stat_result | None) -> None:
    """Write a new file, durable, with owner and permissions of ``like``; where it is there already, raise."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if like is None else 0o600)
    with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
        if like is not None:
            with contextlib.suppress(PermissionError):  # somebody else's file: only root may keep the owner
                os.fchown(fd, like.st_uid, like.st_gid)
            os.fchmod(fd, stat.S_IMODE(like.st_mode))
        file.write(text)
        file.flush()
        os.fsync(fd)
