"""The settings as they hold at this moment: services ask here at each request, and a reload replaces them."""

from __future__ import annotations

from dataclasses import fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from teepi.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from teepi.config import Settings
    from teepi.index_settings import IndexSettings


class Live:
    """Settings that may change while the process runs."""

    def __init__(self, settings: Settings) -> None:
        """Begin with ``settings``."""
        self.settings = settings
        self.is_public: Callable[[str], bool] = lambda _: True
        """Whether everybody may read an index; whoever knows the users puts a better answer here."""
        self._made: Mapping[str, IndexSettings] = {}
        self._indexes: Mapping[str, IndexSettings] = settings.indexes

    @property
    def offline(self) -> bool:
        """Never ask upstream."""
        return self.settings.offline

    @property
    def synthesize_metadata(self) -> bool:
        """Read core metadata out of wheels where upstream has none."""
        return self.settings.synthesize_metadata

    @property
    def indexes(self) -> Mapping[str, IndexSettings]:
        """All mirrors, and indexes made of them by the settings, by name."""
        return self._indexes

    def made(self, mirrors: Mapping[str, IndexSettings]) -> None:
        """Have these mirrors, too, which clients have made; what the settings say of a name comes first."""
        self._made = mirrors
        configured = {name: self.settings.indexes[name] for name in self.settings.configured_indexes}
        self._indexes = MappingProxyType({**self.settings.indexes, **mirrors, **configured})

    def bound_to(self, index: str) -> str:
        """Return :attr:`IndexSettings.bound_to` of ``index``; one that was deleted meanwhile shares nothing."""
        settings = self._indexes.get(index)
        return "nothing" if settings is None else settings.bound_to

    def page_ttl_seconds(self, index: str) -> float:
        """So long a page of ``index`` is served without asking upstream."""
        own = self._indexes[index].page_ttl_seconds if index in self._indexes else None
        return self.settings.page_ttl_seconds if own is None else own

    def change(self, wanted: Settings) -> list[str]:
        """Let ``wanted`` hold from now on, but for what needs a restart: return the keys of those settings."""
        fixed = {option.name: _field(wanted, option.name) for option in OPTIONS if not option.reloads}
        kept = [key for key, name in fixed.items() if getattr(wanted, name) != getattr(self.settings, name)]
        self.settings = replace(wanted, **{name: getattr(self.settings, name) for name in fixed.values()})
        self.made(self._made)
        return kept


def _field(settings: Settings, option: str) -> str:
    """Return the field that has the option's value; a unit may stand behind its name."""
    names = [field.name for field in fields(settings)]
    return next(name for name in names if name == option or name.startswith(f"{option}_"))
