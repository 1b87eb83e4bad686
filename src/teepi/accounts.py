"""Users, their indexes and tokens: every change, each one transaction and then the new picture.

Who may do what is decided in ``directory``, from the picture alone; how secrets are checked, in ``credentials``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from teepi import api_tokens, user_settings
from teepi.alone import alone
from teepi.api_tokens import ApiToken
from teepi.data import accounts as rows
from teepi.data import projects
from teepi.directory import ROOT, Asker, Directory, User
from teepi.errors import BadRequest, ConfigError, Conflict, Forbidden, NotFound
from teepi.identity import Identity
from teepi.index_config import IndexConfig, built_in, changed, check_index_name, check_user_name, created
from teepi.index_settings import IndexSettings, parse_upstream
from teepi.origins import hide_user_info

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from teepi.config import Settings
    from teepi.credentials import Credentials
    from teepi.data import Archive
    from teepi.live import Live

DEFAULT_INDEX: Final = "root/pypi"
_LONGEST: Final = 10_000


class Accounts:
    """The picture as it is now, and its changes."""

    def __init__(
        self,
        archive: Archive,
        credentials: Credentials,
        live: Live,
        mirrors_changed: Callable[[Mapping[str, IndexSettings]], None],
        forget_upstream: Callable[[str, bool], Awaitable[None]] | None = None,
    ) -> None:
        """Use :meth:`load` before anything else.

        ``mirrors_changed`` is told what mirrors clients have made, whenever an index was changed; ``forget_upstream``
        the name of a mirror whose upstream is another one now, and whether it is a new mirror.
        """
        self.directory = Directory()
        self.alone = asyncio.Lock()
        """Held by whoever changes anything."""
        self._archive = archive
        self._credentials = credentials
        self._live = live
        self._mirrors_changed = mirrors_changed
        self._forget_upstream = forget_upstream
        self.identity = Identity(lambda: self.directory, credentials, live)
        """Who asks."""
        self._stored: set[str] = set()  # indexes, but for the built-in one as it comes
        self._trusts_all = False
        """Whether anyone may be root, so that everybody's mirrors are trusted as root's are."""
        self.uuid = ""
        """Of the data directory."""

    async def load(self) -> None:
        """Read all of it. Raises :class:`Unavailable`."""

        def read(connection: sqlite3.Connection) -> tuple[list[User], list[IndexConfig], list[ApiToken], str, str]:
            return (
                [User(*row) for row in rows.all_users(connection)],
                [
                    IndexConfig(name, config["type"], {key: config[key] for key in config if key != "type"})
                    for name, config in rows.all_indexes(connection)
                ],
                [ApiToken(**row) for row in rows.all_tokens(connection)],
                rows.read_meta(connection, "secret"),
                rows.read_meta(connection, "uuid"),
            )

        users, indexes, tokens, secret, self.uuid = await self._archive.database.read(read)
        self.identity.begin(bytes.fromhex(secret))
        self._stored = {index.name for index in indexes}
        if all(user.name != ROOT for user in users):
            root = User(ROOT, None, _now())
            if self._archive.problem is None:
                await self._archive.database.write(lambda c: rows.put_user(c, ROOT, None, root.created, {}))
            users.append(root)
        self.directory = Directory(made={index.name: index for index in indexes})
        self.check_settings(self._live.settings)
        self._take(
            Directory(
                {user.name: user for user in users},
                {index.name: index for index in indexes},
                {token.id: token for token in tokens},
                unavailable=None if self._archive.missing is None else self._archive.problem,
            )
        )

    def check_settings(self, settings: Settings) -> None:
        """Raise :class:`ConfigError` when an index of ``settings`` would take the place of a private one."""
        for name in sorted(settings.configured_indexes):
            config = self.directory.made.get(name)
            if config is not None and config.is_stage:
                raise ConfigError(
                    f'[index."{name}"]: a private index of that name is in the data directory, and public files must '
                    "not take the place of private ones; choose another name, or delete that index first."
                )

    def settings_changed(self) -> None:
        """Take over the indexes of new settings."""
        self._take(self.directory, has_new_settings=True)

    def _take(self, directory: Directory, *, has_new_settings: bool = False) -> None:
        """Let ``directory`` hold, with the indexes of the settings in it."""
        settings = self._live.settings
        configured = {name: settings.indexes[name].bases for name in settings.configured_indexes}
        made = dict(directory.made)
        if settings.has_built_in and DEFAULT_INDEX not in made:
            made[DEFAULT_INDEX] = IndexConfig(
                DEFAULT_INDEX, "mirror", built_in(settings.indexes[DEFAULT_INDEX].upstream)
            )
        former, self.directory = (
            self.directory,
            directory.changed(
                users=MappingProxyType(dict(directory.users)),
                made=MappingProxyType(made),
                tokens=MappingProxyType(dict(directory.tokens)),
                configured=MappingProxyType(configured),
            ),
        )
        trusts_all, self._trusts_all = self._trusts_all, self.identity.empty_root
        is_same = (former.made, former.configured, trusts_all) == (made, configured, self._trusts_all)
        if is_same and not has_new_settings:
            return  # else whoever makes users would empty the hot path
        self._mirrors_changed(
            {
                name: _mirror(
                    config, is_stored=name in self._stored, is_trusted=self._trusts_all or config.user == ROOT
                )
                for name, config in made.items()
                if not config.is_stage and name not in configured
            }
        )

    def shown(self, name: str) -> dict[str, Any]:
        """Return what ``GET /user/index`` says of an index (devpi's ``indexconfig``)."""
        config = self.directory.require(name)
        if config is not None:
            return config.shown()
        settings = self._live.settings.indexes[name]
        if settings.bases:
            return {"type": "mirror", "volatile": False, "title": f"made of {', '.join(settings.bases)}"}
        upstream = hide_user_info(settings.upstream)
        if name == DEFAULT_INDEX:
            return {"type": "mirror", **built_in(upstream)}
        return {"type": "mirror", "volatile": False, "mirror_url": upstream}

    # -- users ---------------------------------------------------------------------------------------

    async def create_user(self, asker: Asker, name: str, given: Mapping[str, Any]) -> User:
        """Make a user with ``given`` password and what else is said of him.

        Raises :class:`Conflict`, :class:`BadRequest`, or what says that ``asker`` may not.
        """
        self.directory.require_new_user(asker, self._live.settings.restrict_modify)
        return await self.new_user(name, given)

    async def new_user(self, name: str, given: Mapping[str, Any]) -> User:
        """Make a user, as an operator; see :meth:`create_user`."""
        check_user_name(name)
        if name in self.directory.users:
            raise Conflict("user already exists")
        password = self._password(given)
        if not password:
            raise BadRequest("password needs to be set")
        extra = user_settings.said({}, user_settings.checked(given))
        return await self._add_user(User(name, await self._credentials.hash(password), _now(), extra))

    @alone
    async def _add_user(self, user: User) -> User:
        if user.name in self.directory.users:  # time has passed
            raise Conflict("user already exists")
        await self._write_user(user)
        return user

    async def modify_user(self, asker: Asker, name: str, given: Mapping[str, Any]) -> tuple[str, int] | None:
        """Change what is said of a user, or his password: then return a new login token and its seconds."""
        self.directory.require_user(name)
        if asker.token is not None or asker.user != name:  # himself always
            self.directory.require_owner(asker, name, f"modify user {name}", self._live.settings.restrict_modify)
        extra, password = user_settings.checked(given), self._password(given)
        hashed = await self._credentials.hash(password) if password else password
        await self._change_user(name, extra, hashed)
        return None if password is None else self.identity.token_for(name)

    async def set_password(self, name: str, password: str) -> None:
        """Set a user's password, as an operator."""
        self.directory.require_user(name)
        if not password:
            raise BadRequest("password needs to be set")
        await self._change_user(name, {}, await self._credentials.hash(password))

    def _password(self, given: Mapping[str, Any]) -> str | None:
        """Return the new password in what a client gives, None when it gives none. Raises :class:`BadRequest`.

        An empty one is for trying out alone, as root's is.
        """
        password = given.get("password")
        if password is None:
            return None
        if not isinstance(password, str) or not (password or self._live.settings.insecure_empty_root):
            raise BadRequest("password needs to be set")
        return password

    @alone
    async def _change_user(self, name: str, extra: Mapping[str, Any], password: str | None) -> None:
        """Change a user; ``password`` is a hash, None to leave it."""
        before = self.directory.require_user(name)  # time has passed
        new = before.password if password is None else password
        if name == ROOT and not new:
            new = None  # as it was before one was set
        await self._write_user(User(name, new, before.created, user_settings.said(before.extra, extra)))
        if password is not None:
            self._credentials.forget(name)

    async def _write_user(self, user: User) -> None:
        await self._archive.database.write(
            lambda c: rows.put_user(c, user.name, user.password, user.created, user.extra)
        )
        self._take(self.directory.changed(users={**self.directory.users, user.name: user}))

    @alone
    async def disable_user(self, name: str) -> int:
        """Take away password and API tokens of a user, as an operator, in one step; return how many tokens."""
        before = self.directory.require_user(name)
        if name == ROOT and self._live.settings.insecure_empty_root:
            raise Conflict("Without a password root has an empty one here: take insecure_empty_root away first.")
        user = User(name, None, before.created, before.extra)

        def write(connection: sqlite3.Connection) -> int:
            rows.put_user(connection, name, None, user.created, user.extra)
            return rows.delete_tokens(connection, name)

        revoked = await self._archive.database.write(write)
        self._take(
            self.directory.changed(
                users={**self.directory.users, name: user},
                tokens={key: token for key, token in self.directory.tokens.items() if token.user != name},
            )
        )
        self._credentials.forget(name)
        return revoked

    async def delete_user(self, asker: Asker, name: str) -> None:
        """Delete a user with his indexes, none of which may be non-volatile."""
        self.directory.require_user(name)
        self.directory.require_owner(asker, name, f"delete user {name}", self._live.settings.restrict_modify)
        await self.remove_user(name)

    @alone
    async def remove_user(self, name: str) -> None:
        """Delete a user, as an operator; see :meth:`delete_user`."""
        self.directory.require_user(name)
        if name == ROOT:
            raise Forbidden("the user root cannot be deleted")
        kept = [each for each in self.directory.made.values() if each.user == name and not each.is_volatile]
        if kept:
            raise Forbidden(f"user {name!r} has the non-volatile index {kept[0].name}, cannot delete")

        def write(connection: sqlite3.Connection) -> tuple[None, list[str]]:
            indexes = [index for index, _ in rows.all_indexes(connection) if index.partition("/")[0] == name]
            contents = [sha256 for index in indexes for sha256 in projects.contents_of(connection, index)]
            rows.delete_user(connection, name)
            return None, contents

        await self._archive.discard(write)
        self._take(
            self.directory.changed(
                users={key: user for key, user in self.directory.users.items() if key != name},
                made={key: index for key, index in self.directory.made.items() if index.user != name},
                tokens={key: token for key, token in self.directory.tokens.items() if token.user != name},
            )
        )
        self._credentials.forget(name)

    # -- indexes -------------------------------------------------------------------------------------

    @alone
    async def create_index(self, asker: Asker, name: str, given: Mapping[str, Any]) -> IndexConfig:
        """Make an index of a user. Raises as :meth:`create_user` does, and :class:`NotFound` for the user."""
        user, _, index = name.partition("/")
        self.directory.require_user(user)
        check_index_name(index)
        restricted = self._live.settings.restrict_modify
        self.directory.require_owner(asker, user, f"create index {name}", restricted)
        if name in self.directory.configured or name in self.directory.made:
            raise Conflict(f"index {name!r} exists")
        return await self._put_index(created(name, given))

    @alone
    async def modify_index(
        self, asker: Asker, name: str, given: Mapping[str, Any] | Sequence[str], *, error_on_noop: bool = False
    ) -> IndexConfig:
        """Change the settings of an index; one of the configuration file is not to be changed here."""
        former = self._changeable(name)
        self.directory.require_owner(asker, former.user, f"modify index {name}", self._live.settings.restrict_modify)
        wanted = changed(former, given)
        if error_on_noop and wanted.shown() == former.shown():
            raise BadRequest("The requested modifications resulted in no changes")
        return await self._put_index(wanted)

    def _changeable(self, name: str) -> IndexConfig:
        found = self.directory.require(name)
        if found is None:
            raise Conflict(f"{name} is in the configuration file of this teepi: change it there.")
        return found

    async def _put_index(self, config: IndexConfig) -> IndexConfig:
        self.directory.check_bases(config)
        former = self.directory.made.get(config.name)
        await self._archive.database.write(
            lambda c: rows.put_index(c, config.name, {"type": config.kind, **config.values})
        )
        self._stored.add(config.name)
        self._take(self.directory.changed(made={**self.directory.made, config.name: config}))
        url = config.values.get("mirror_url")
        if self._forget_upstream is not None and url != (former and former.values.get("mirror_url")):
            await self._forget_upstream(config.name, former is None)
        return config

    @alone
    async def delete_index(self, asker: Asker, name: str) -> None:
        """Delete a volatile index with all that was uploaded to it."""
        found = self._changeable(name)
        self.directory.require_owner(asker, found.user, f"delete index {name}", self._live.settings.restrict_modify)
        if not found.is_volatile or name == DEFAULT_INDEX:
            raise Forbidden(f"index {name} non-volatile, cannot delete")

        def write(connection: sqlite3.Connection) -> tuple[None, list[str]]:
            contents = projects.contents_of(connection, name)
            rows.delete_index(connection, name)
            return None, contents

        await self._archive.discard(write)
        self._take(self.directory.changed(made={key: each for key, each in self.directory.made.items() if key != name}))

    # -- API tokens ----------------------------------------------------------------------------------

    @alone
    async def create_token(
        self,
        user: str,
        *,
        index: str | None,
        may_upload: bool,
        may_read: bool,
        description: str,
        seconds: float | None,
    ) -> tuple[str, ApiToken]:
        """Make a token of a user, as an operator; its text is told this once."""
        self.directory.require_user(user)
        if index is not None:
            self.directory.require(index)
        if not (may_upload or may_read):
            raise BadRequest("A token that allows nothing is of no use: let it upload, read, or both.")
        new = api_tokens.new()
        while new.id in self.directory.tokens:
            new = api_tokens.new()
        now = time.time()
        until = None if seconds is None else now + seconds
        said = description[:_LONGEST]
        token = ApiToken(new.id, user, said, index, may_upload, may_read, now, until, new.digest)
        await self._archive.database.write(lambda c: rows.put_token(c, asdict(token)))
        self._take(self.directory.changed(tokens={**self.directory.tokens, token.id: token}))
        return new.text, token

    @alone
    async def revoke_token(self, identity: str) -> None:
        """Delete a token. Raises :class:`NotFound`."""
        if not await self._archive.database.write(lambda c: rows.delete_token(c, identity)):
            raise NotFound(f"There is no token {identity[:100]!r}; 'teepi token list' shows them.")
        self._take(
            self.directory.changed(
                tokens={key: token for key, token in self.directory.tokens.items() if key != identity}
            )
        )


def _mirror(config: IndexConfig, *, is_stored: bool, is_trusted: bool) -> IndexSettings:
    """Return how a mirror that a client made is fetched; only one that ``is_trusted`` may be in a private network.

    Those of other users than root share nothing, even where all are trusted.
    """
    expiry = config.values.get("mirror_cache_expiry")
    return IndexSettings(
        parse_upstream(config.values["mirror_url"]),
        page_ttl_seconds=None if expiry is None else float(expiry),
        is_trusted=is_trusted,
        is_bound=is_stored,
        is_shared=config.user == ROOT,
    )


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
