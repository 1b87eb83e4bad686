"""``teepi.toml``: read it, and say on which line a key stands. What the keys mean is said elsewhere."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from teepi.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file as it was read."""

    path: Path
    text: str
    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> ConfigFile:
        """Read and parse (TOML 1.0). Raises :class:`ConfigError` naming file, line and reason."""
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise ConfigError(f"The configuration file {path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{path}, line {line}: this is not UTF-8; save the file in that encoding.") from None
        try:
            return cls(path, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"The configuration file {path} is not TOML: {error}.") from None
        except RecursionError:
            raise ConfigError(f"The configuration file {path} is nested too deeply.") from None

    def at(self, key: str) -> str:
        """Return where the top-level ``key`` stands, for a message."""
        return f"{self.place(key)}: {key}"

    def place(self, key: str, section: tuple[str, ...] = ()) -> str:
        """Return file and line of ``key`` in ``section``; ``""`` is the section's header."""
        line = self._line(section, key)
        return f"{self.path}, line {line}" if line else str(self.path)

    def section(self, *path: str) -> Section:
        """Return the section ``[path.to.it]``."""
        return Section(self, path)

    def _line(self, section: tuple[str, ...], key: str) -> int | None:
        """Return the line of ``key``, else of the section's header; None where it is spelt in another way."""
        header = None
        current: tuple[str, ...] = ()
        spelt = re.compile(rf"""\s*(["']?){re.escape(key)}\1\s*[=.]""")
        for number, line in enumerate(self.text.splitlines(), 1):
            if line.lstrip().startswith("["):
                current = _header(line)
                if current == section or (not section and current[:1] == (key,)):
                    header = header or number
            elif key and current == section and spelt.match(line):
                return number
        return header


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a configuration file; as text: where it stands, for a message."""

    file: ConfigFile
    path: tuple[str, ...]

    def __str__(self) -> str:
        """Return file, line and header."""
        return f"{self.place}: {self._header}"

    @property
    def place(self) -> str:
        """File and line of the header."""
        return self.file.place("", self.path)

    def at(self, key: str) -> str:
        """Return where ``key`` of this section stands."""
        return f"{self.file.place(key, self.path)}: {self._header} {key}"

    @property
    def _header(self) -> str:
        first, *rest = self.path
        return "[" + ".".join([first, *(f'"{name}"' for name in rest)]) + "]"


def _header(line: str) -> tuple[str, ...]:
    """Return the path of a section's header, empty where the line is none (an array over several lines)."""
    try:
        section: Any = tomllib.loads(line)
    except (tomllib.TOMLDecodeError, RecursionError):
        return ()
    path: list[str] = []
    while isinstance(section, dict) and section:
        [(name, section)] = section.items()
        path.append(name)
    return tuple(path)
