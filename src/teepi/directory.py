"""Users, the indexes they made and who may do what with them: one frozen picture, replaced as a whole. No IO.

An index of the configuration file is known here by its name alone: it is readable by all and read-only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from teepi.errors import BadRequest, DataUnavailable, Forbidden, NotFound, Unauthorized
from teepi.index_config import ANONYMOUS, AUTHENTICATED, IndexConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from teepi.api_tokens import ApiToken

ROOT: Final = "root"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who owns indexes."""

    name: str
    password: str | None = field(repr=False)
    """An argon2 hash; empty for an empty password; None for who cannot log in."""
    created: str
    """ISO 8601, UTC."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """email, title, description, custom_data."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who makes a request."""

    user: str | None = None
    """None: anybody."""
    token: ApiToken | None = None
    """The API token that proved it: then only what that allows."""

    @property
    def said(self) -> str:
        """For a message, and for what is noted of an upload."""
        return self.user or "anonymous"

    @property
    def principals(self) -> frozenset[str]:
        """What an access list may name."""
        return frozenset({ANONYMOUS} if self.user is None else {ANONYMOUS, AUTHENTICATED, self.user})


ANYBODY: Final = Asker()


@dataclass(frozen=True, slots=True)
class Directory:
    """All of it at one moment."""

    users: Mapping[str, User] = field(default_factory=lambda: MappingProxyType({}))
    made: Mapping[str, IndexConfig] = field(default_factory=lambda: MappingProxyType({}))
    """Indexes that clients made, by name."""
    tokens: Mapping[str, ApiToken] = field(default_factory=lambda: MappingProxyType({}))
    """API tokens by their id."""
    configured: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    """The indexes that the settings have, by name, with what they are made of; they come first."""
    unavailable: str | None = None
    """One sentence when it is not known what clients made: then nothing is said not to be there."""

    def require_there(self) -> None:
        """Raise :class:`DataUnavailable` when it is not known what there is."""
        if self.unavailable is not None:
            raise DataUnavailable(self.unavailable)

    def index(self, name: str) -> IndexConfig | None:
        """Return an index that clients made; None when there is none, or the settings have one of that name."""
        return None if name in self.configured else self.made.get(name)

    def require(self, name: str) -> IndexConfig | None:
        """Return :meth:`index`, None for one of the settings. Raises :class:`NotFound`, or :meth:`require_there`."""
        if name not in self.configured and name not in self.made:
            self.require_there()
            raise NotFound(f"The stage {name} could not be found.")
        return self.index(name)

    def require_user(self, name: str) -> User:
        """Return the user. Raises :class:`NotFound`, or :meth:`require_there`."""
        found = self.users.get(name)
        if found is None:
            self.require_there()
            raise NotFound(f"no user {name!r}")
        return found

    def of_user(self, user: str) -> list[str]:
        """Return the names of a user's indexes, sorted; those of the settings too."""
        return sorted({name for name in (*self.made, *self.configured) if name.partition("/")[0] == user})

    def names(self) -> list[str]:
        """Return the names of all indexes, sorted."""
        return sorted({*self.made, *self.configured})

    # -- bases ---------------------------------------------------------------------------------------

    def order(self, name: str) -> list[str]:
        """Return the index and what is below it, in the order in which they are asked: depth first, each once.

        A base that is no more is left out. What one of the settings is made of is its own business.
        """
        return self._below(name, {})

    def missing(self, name: str) -> list[str]:
        """Return the bases of an index, and of those below it, that are no more."""
        configs = [config for each in self.order(name) if (config := self.index(each)) is not None]
        bases = dict.fromkeys(base for config in configs for base in config.bases)
        return [base for base in bases if base not in self.configured and base not in self.made]

    def _below(self, name: str, bases_of_configured: Mapping[str, Sequence[str]]) -> list[str]:
        found: dict[str, None] = {}

        def visit(each: str) -> None:
            if each in found or (each not in self.configured and each not in self.made):
                return
            found[each] = None
            config = self.index(each)
            for base in bases_of_configured.get(each, ()) if config is None else config.bases:
                visit(base)

        visit(name)
        return list(found)

    def check_bases(self, config: IndexConfig) -> None:
        """Raise :class:`BadRequest` when a new base of an index is unknown, or one leads back to it."""
        before = self.made.get(config.name)
        for base in config.bases:
            if before is not None and base in before.bases and base in self.missing(config.name):
                continue  # it was there; what else is changed does not bring it back
            if base not in self.configured and base not in self.made:
                raise BadRequest(f"base index {base[:200]!r} does not exist")
            if base == config.name or config.name in self.order(base):
                raise BadRequest(f"base index {base!r} leads back to {config.name}; bases cannot go in a circle")

    # -- permissions ---------------------------------------------------------------------------------

    def may_read(self, asker: Asker, name: str, now: float) -> bool:
        """Whether ``asker`` may read an index and all that is below it.

        Leaving out a base that he may not read would show him another's project in its place.
        """
        if asker.token is not None and not self._token_reads(asker.token, name, now):
            return self.is_public(name)
        return all(self._may_read(asker, each) for each in self._below(name, self.configured))

    def _token_reads(self, token: ApiToken, name: str, now: float) -> bool:
        """Whether a token may read an index: its own, or one that this is made of, where links of its pages lead."""
        if token.index is not None and name in self._below(token.index, self.configured):
            name = token.index
        return token.allows("read", name, now)

    def _may_read(self, asker: Asker, name: str) -> bool:
        config = self.index(name)
        if config is None or asker.user in {ROOT, config.user}:
            return True
        return not asker.principals.isdisjoint(config.acl_read)

    def is_public(self, name: str) -> bool:
        """Whether everybody may read an index and all that is below it."""
        return all(self._may_read(ANYBODY, each) for each in self._below(name, self.configured))

    def readable(self, asker: Asker, now: float) -> list[str]:
        """Return the names of the indexes that ``asker`` may read."""
        return [name for name in self.names() if self.may_read(asker, name, now)]

    def require_upload(self, asker: Asker, config: IndexConfig, now: float) -> None:
        """Raise :class:`Unauthorized` or :class:`Forbidden` unless ``asker`` may upload and delete."""
        self._require(asker, config.acl_upload, "submit", config.name)
        if asker.token is not None and not asker.token.allows("upload", config.name, now):
            raise Forbidden(f"no permission to submit: this token does not allow uploads to {config.name}")

    def require_toxresult(self, asker: Asker, config: IndexConfig, now: float) -> None:
        """Raise unless ``asker`` may post results of test runs; a token has to allow uploads."""
        if asker.token is not None and not asker.token.allows("upload", config.name, now):
            asker = ANYBODY
        try:
            self._require(asker, config.acl_toxresult_upload, "upload tox results", config.name)
        except Unauthorized as error:  # devpi's clients know 403 alone here
            raise Forbidden(error.message) from None

    @staticmethod
    def _require(asker: Asker, allowed: Iterable[str], to_do: str, name: str) -> None:
        if asker.user == ROOT or not asker.principals.isdisjoint(allowed):
            return
        if asker.user is None:
            raise Unauthorized(f"no permission to {to_do} to {name}: log in with a user and password that are right")
        raise Forbidden(f"no permission to {to_do} to {name} as {asker.user}")

    def require_owner(self, asker: Asker, user: str, to_do: str, restricted: Iterable[str]) -> None:
        """Raise :class:`Forbidden` unless ``asker`` may change what ``user`` has.

        ``restricted`` is the setting ``restrict_modify``: when it names anybody, only they may. Nobody is refused
        as others are, with 403: so it is with devpi, whose clients and their tests know that.
        """
        allowed = set(restricted) or {user}
        if asker.user is not None and asker.token is None and (asker.user == ROOT or asker.principals & allowed):
            return
        raise Forbidden(f"no permission to {to_do}{_why(asker)}")

    def require_new_user(self, asker: Asker, restricted: Iterable[str]) -> None:
        """Raise unless ``asker`` may make a user: anyone may, until ``restrict_modify`` names who."""
        allowed = set(restricted)
        if not allowed:
            return
        if asker.token is not None or (asker.user != ROOT and asker.principals.isdisjoint(allowed)):
            raise Forbidden(f"no permission to create a user: restrict_modify says who may{_why(asker)}")

    def changed(self, **values: Any) -> Directory:  # noqa: ANN401 - as the fields have them
        """Return another picture."""
        return Directory(**{**{name: getattr(self, name) for name in self.__slots__}, **values})


def _why(asker: Asker) -> str:
    """Return what else is to be said to whom a change was refused."""
    if asker.token is not None:
        return "; an API token changes no users and no indexes"
    return "; nobody is logged in" if asker.user is None else ""
