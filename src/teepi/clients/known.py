"""The installers: where each keeps its index, and what to write there."""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

from teepi.clients import ini, toml
from teepi.clients.marks import Edit, lines_of
from teepi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = "teepi"
"""Of the index, in clients whose indexes have names."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a client would run."""

    environ: Mapping[str, str]
    directory: Path
    """Absolute."""

    @property
    def home(self) -> Path:
        """The home directory. Raises :class:`ConfigError`."""
        home = Path(self.environ.get("HOME", ""))
        if not home.is_absolute():
            raise ConfigError("HOME is not set, so there is no place for a client's settings; set it.")
        return home

    @property
    def config_home(self) -> Path:
        """``$XDG_CONFIG_HOME``, else ``~/.config``."""
        named = Path(self.environ.get("XDG_CONFIG_HOME", ""))
        return named if named.is_absolute() else self.home / ".config"

    def named(self, variable: str) -> Path | None:
        """Return the file that ``variable`` names, absolute, if any. Raises :class:`ConfigError`."""
        value = self.environ.get(variable, "")
        try:
            return self.directory / Path(value).expanduser() if value else None
        except RuntimeError:
            raise ConfigError(f"{variable}={value} is in an unknown home; write the whole path.") from None


class Client(ABC):
    """One installer. Text that it cannot read raises ValueError with the reason."""

    name: ClassVar[str]
    variables: ClassVar[tuple[str, ...]] = ()
    """Each holds the URL of the index and goes before the file."""
    more_indexes: ClassVar[tuple[str, ...]] = ()
    """Each adds further indexes to the one that is set."""
    what_to_do_next: ClassVar[str] = ""

    @abstractmethod
    def file(self, around: Surroundings) -> Path | None:
        """Return the file to change, None where only a project has one. Raises :class:`ConfigError`."""

    def without_file(self, url: str) -> str:
        """Say what to do where there is no file."""
        return f"{self.name} has no file of settings; set {self.variables[0]}={url}."

    @abstractmethod
    def read(self, text: str) -> Any:  # noqa: ANN401 - as the format has it
        """Return all settings in ``text``."""

    @abstractmethod
    def index(self, text: str) -> str | None:
        """Return the URL of the index that is set in ``text``."""

    @abstractmethod
    def changed(self, content: Any, url: str) -> Any:  # noqa: ANN401 - as the format has it
        """Return what :meth:`read` is to return after :meth:`edits`."""

    @abstractmethod
    def edits(self, text: str, url: str) -> list[Edit]:
        """Return the edits that set the index."""

    def is_set(self, text: str, url: str) -> bool:
        """Whether nothing is left to change, also where the owner wrote it."""
        return self.index(text) == url

    def written(self, url: str) -> str:
        """Return ``url`` as this client wants it."""
        return url


class Pip(Client):
    """``index-url``, and ``trusted-host``, without which pip keeps nothing that came over plain http."""

    name = "pip"
    variables = ("PIP_INDEX_URL",)
    more_indexes = ("PIP_EXTRA_INDEX_URL",)

    def file(self, around: Surroundings) -> Path:
        """Return the file that ``pip config --user set`` edits; the old place only where that alone is in use."""
        named = around.named("PIP_CONFIG_FILE")
        if named is not None:
            return named
        usual, old = around.config_home / "pip" / "pip.conf", around.home / ".pip" / "pip.conf"
        return old if old.exists() and not usual.exists() else usual

    def read(self, text: str) -> dict[str, dict[str, str]]:
        """Return options by section."""
        return ini.read(text)

    def index(self, text: str) -> str | None:
        """Return what ``pip install`` uses."""
        content = self.read(text)
        return content.get("install", {}).get("index-url") or content.get("global", {}).get("index-url")

    def changed(self, content: dict[str, dict[str, str]], url: str) -> dict[str, dict[str, str]]:
        """See :class:`Client`."""
        return content | {"global": content.get("global", {}) | self._options(content, url)}

    def edits(self, text: str, url: str) -> list[Edit]:
        """See :class:`Client`."""
        return ini.set_options(text, "global", self._options(self.read(text), url))

    def is_set(self, text: str, url: str) -> bool:
        """See :class:`Client`."""
        return self.index(text) == url and self.trusts(self.read(text), url)

    @staticmethod
    def trusts(content: dict[str, dict[str, str]], url: str) -> bool:
        """Whether pip takes ``url`` for safe: https, or its host is in ``trusted-host``."""
        parts = urlsplit(url)
        value = content.get("install", {}).get("trusted-host") or content.get("global", {}).get("trusted-host", "")
        return parts.scheme == "https" or bool({parts.netloc, parts.netloc.rpartition(":")[0]} & set(value.split()))

    def _options(self, content: dict[str, dict[str, str]], url: str) -> dict[str, str]:
        options = {"index-url": url}
        if not self.trusts({"global": content.get("global", {})}, url):
            others = content.get("global", {}).get("trusted-host", "").split()
            options["trusted-host"] = " ".join([*others, urlsplit(url).netloc])
        return options


class Uv(Client):
    """The default index among ``[[index]]``."""

    name = "uv"
    variables = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")
    more_indexes = ("UV_INDEX", "UV_EXTRA_INDEX_URL")

    def file(self, around: Surroundings) -> Path:
        """Return the user's ``uv.toml``, or what ``UV_CONFIG_FILE`` names."""
        return around.named("UV_CONFIG_FILE") or around.config_home / "uv" / "uv.toml"

    def read(self, text: str) -> dict[str, Any]:
        """Return the tables."""
        return toml.read(text)

    def index(self, text: str) -> str | None:
        """Return the first default index, which is the one that uv asks."""
        content = self.read(text)
        first = next((each for each in _items(content, "index") if each.get("default") is True), content)
        return _text(first.get("url") if first is not content else content.get("index-url"))

    def changed(self, content: dict[str, Any], url: str) -> dict[str, Any]:
        """See :class:`Client`."""
        kept: list[dict[str, Any]] = []
        is_written = False
        for each in _items(content, "index"):
            if not self._gives_way(each):
                kept.append(each)
            elif not is_written:
                kept.append({"name": NAME, "url": url, "default": True})
                is_written = True
        if not is_written:
            kept.append({"name": NAME, "url": url, "default": True})
        return content | {"index": kept}

    def edits(self, text: str, url: str) -> list[Edit]:
        """See :class:`Client`."""
        written = ("[[index]]", f'name = "{NAME}"', f'url = "{url}"', "default = true")
        items = _items(self.read(text), "index")
        spans = [table for table in toml.tables(text) if table.is_item and table.name == "index"]
        edits = [
            Edit(span.start, span.stop, ()) for span, item in zip(spans, items, strict=False) if self._gives_way(item)
        ]
        if not edits:
            return [toml.append(text, *written)]
        return [Edit(edits[0].start, edits[0].stop, written), *edits[1:]]

    @staticmethod
    def _gives_way(item: Mapping[str, Any]) -> bool:
        return item.get("default") is True or item.get("name") == NAME


class Pdm(Client):
    """``pypi.url``."""

    name = "pdm"
    variables = ("PDM_PYPI_URL",)

    def file(self, around: Surroundings) -> Path:
        """Return the user's ``config.toml``, or what ``PDM_CONFIG_FILE`` names."""
        return around.named("PDM_CONFIG_FILE") or around.config_home / "pdm" / "config.toml"

    def read(self, text: str) -> dict[str, Any]:
        """Return the tables."""
        return toml.read(text)

    def index(self, text: str) -> str | None:
        """Return ``pypi.url``."""
        return _text(_table(self.read(text), "pypi").get("url"))

    def changed(self, content: dict[str, Any], url: str) -> dict[str, Any]:
        """See :class:`Client`."""
        return content | {"pypi": _table(content, "pypi") | {"url": url}}

    def edits(self, text: str, url: str) -> list[Edit]:
        """See :class:`Client`."""
        return [toml.set_key(text, "pypi", "url", f'"{url}"')]


class Poetry(Client):
    """A primary source of the project; poetry has no index for all projects."""

    name = "poetry"
    variables = ("POETRY_PYPI_MIRROR_URL",)
    what_to_do_next = "A poetry.lock that is there names the former source: 'poetry lock' brings it in line."

    def file(self, around: Surroundings) -> Path | None:
        """Return the ``pyproject.toml`` of this directory or of one above it."""
        for directory in (around.directory, *around.directory.parents):
            if (directory / "pyproject.toml").is_file():
                return directory / "pyproject.toml"
        return None

    def without_file(self, url: str) -> str:
        """See :class:`Client`."""
        return (
            "Poetry sets its index per project, and there is no pyproject.toml here or above: run this in a project; "
            "or, for every project, 'poetry self add poetry-plugin-pypi-mirror' and "
            f"'export {self.variables[0]}={url}'."
        )

    def read(self, text: str) -> dict[str, Any]:
        """Return the tables."""
        return toml.read(text)

    def index(self, text: str) -> str | None:
        """Return the first primary source."""
        sources = _sources(self.read(text))
        return next((_text(each.get("url")) for each in sources if each.get("priority", "primary") == "primary"), None)

    def changed(self, content: dict[str, Any], url: str) -> dict[str, Any]:
        """See :class:`Client`."""
        tool = _table(content, "tool")
        poetry = _table(tool, "poetry")
        ours = {"name": NAME, "url": url, "priority": "primary"}
        sources = [ours if each.get("name") == NAME else each for each in _sources(content)]
        sources = sources if ours in sources else [*sources, ours]
        return content | {"tool": tool | {"poetry": poetry | {"source": sources}}}

    def edits(self, text: str, url: str) -> list[Edit]:
        """See :class:`Client`."""
        written = ("[[tool.poetry.source]]", f'name = "{NAME}"', f'url = "{url}"', 'priority = "primary"')
        spans = [table for table in toml.tables(text) if table.is_item and table.name == "tool.poetry.source"]
        for span, item in zip(spans, _sources(self.read(text)), strict=False):
            if item.get("name") == NAME:
                return [Edit(span.start, span.stop, written)]
        return [toml.append(text, *written)]


class Pipenv(Client):
    """``PIPENV_PYPI_MIRROR``: a variable is the only place for every project, so a login shell is to set it."""

    name = "pipenv"
    variables = ("PIPENV_PYPI_MIRROR",)
    what_to_do_next = "It holds in shells from the next login on."
    _SET: Final = re.compile(r"[ \t]*(?:export[ \t]+|set[ \t]+-\S+[ \t]+)?PIPENV_PYPI_MIRROR(?:=|[ \t]+)(\S+)")

    def __init__(self, *, is_fish: bool = False) -> None:
        """``is_fish``: write what fish reads, not what other shells do."""
        self._is_fish = is_fish

    def file(self, around: Surroundings) -> Path:
        """Return the file that the login shell reads, also when it is not interactive."""
        shell = Path(around.environ.get("SHELL", "")).name
        if shell == "fish":
            return around.config_home / "fish" / "conf.d" / "teepi.fish"
        if shell == "zsh":
            return (around.named("ZDOTDIR") or around.home) / ".zshenv"
        if shell == "bash":  # it reads the first of these only
            for name in (".bash_profile", ".bash_login"):
                if (around.home / name).exists():
                    return around.home / name
        return around.home / ".profile"

    def read(self, text: str) -> list[str]:
        """Return what the variable is set to, in order; nothing else is understood."""
        found = [self._SET.match(line) for line in lines_of(text)]
        return [each[1].strip("'\"") for each in found if each]

    def index(self, text: str) -> str | None:
        """Return what it is set to at last."""
        return next(reversed(self.read(text)), None)

    def changed(self, content: list[str], url: str) -> list[str]:
        """See :class:`Client`."""
        return [*content, url]

    def edits(self, text: str, url: str) -> list[Edit]:
        """See :class:`Client`."""
        return [toml.append(text, self.line(url))]

    def line(self, url: str) -> str:
        """Return the line that sets it in a shell."""
        start = "set -gx PIPENV_PYPI_MIRROR " if self._is_fish else "export PIPENV_PYPI_MIRROR="
        return start + shlex.quote(url)

    def written(self, url: str) -> str:
        """Return ``url`` without the slash at its end, which pipenv would double."""
        return url.rstrip("/")


def clients(around: Surroundings) -> dict[str, Client]:
    """Return all installers by name."""
    is_fish = Path(around.environ.get("SHELL", "")).name == "fish"
    return {each.name: each for each in (Pip(), Uv(), Poetry(), Pipenv(is_fish=is_fish), Pdm())}


def _table(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"{key} is no table")  # noqa: TRY004 - as every other flaw of the file
    return found


def _items(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = content.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{key} is no array of tables")
    return found


def _sources(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _items(_table(_table(content, "tool"), "poetry"), "source")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
