"""What an operator may do with users and API tokens: list, create, set a password, disable, delete, revoke.

One service for the running server and for a command that works on the data directory directly, as ``operations`` is
for the cache. No permission is asked here: whoever reaches this is let in already. Passwords come in arguments, which
nobody logs, and no answer has one.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from teepi.clients.address import server_url
from teepi.directory import ROOT, Asker, User
from teepi.errors import BadRequest, ConfigError, Conflict, Forbidden, NotFound, TeepiError
from teepi.index_config import check_user_name
from teepi.operator_calls import DATA_DIR, Calls, known, number, text, texts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from teepi.accounts import Accounts
    from teepi.api_tokens import ApiToken
    from teepi.config import Settings
    from teepi.live import Live
    from teepi.operator_calls import Events, Operation

    Work = Callable[[Mapping[str, Any]], Awaitable[Any]]

_SHORTEST: Final = 8
"""Characters of a password, as NIST SP 800-63B has it. Through devpi's clients users may choose shorter ones."""


class AccountOperations(Calls):
    """On one data directory."""

    def __init__(self, accounts: Accounts, live: Live) -> None:
        """``accounts`` are loaded."""
        self._accounts = accounts
        self._live = live
        super().__init__(
            {
                "user-list": self._one(self._list_users),
                "user-create": self._one(self._create_user),
                "user-password": self._one(self._set_password),
                "user-disable": self._one(self._disable_user),
                "user-delete": self._one(self._delete_user),
                "token-list": self._one(self._list_tokens),
                "token-create": self._one(self._create_token),
                "token-revoke": self._one(self._revoke_tokens),
            }
        )

    def _one(self, work: Work) -> Operation:
        """Return ``work``, which has no progress, as an operation on the data directory that is meant."""

        async def operation(arguments: Mapping[str, Any]) -> Events:
            given = dict(arguments)
            meant, own = text(given, DATA_DIR), self._live.settings.data_dir
            given.pop(DATA_DIR, None)
            if meant is not None and not await asyncio.to_thread(_is_same, str(own), meant):
                raise Conflict(
                    f"The teepi on this cache directory has its data in {own}, not in {meant}: name both directories "
                    "of one server with --cache-dir and --data-dir."
                )
            yield {"result": await work(given)}

        return operation

    # -- users ---------------------------------------------------------------------------------------

    def _user(self, name: str | None) -> User:
        found = self._accounts.directory.users.get(name or "")
        if found is None:
            raise NotFound(f"There is no user {(name or '')[:100]!r}; 'teepi user list' shows them.")
        return found

    def _shown(self, user: User) -> dict[str, Any]:
        directory = self._accounts.directory
        is_empty = user.password == "" or (user.name == ROOT and self._accounts.identity.empty_root)
        return {
            "user": user.name,
            "email": user.extra.get("email") or "",
            "login": "empty password" if is_empty else "none" if user.password is None else "password",
            "created": user.created,
            "indexes": [name for name in directory.of_user(user.name) if name not in directory.configured],
            "tokens": sum(token.user == user.name for token in directory.tokens.values()),
        }

    async def _list_users(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        known(arguments)
        return [self._shown(user) for _, user in sorted(self._accounts.directory.users.items())]

    async def _create_user(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        known(arguments, "name", "password", "email")
        name, email = check_user_name(text(arguments, "name") or ""), text(arguments, "email")
        if name in self._accounts.directory.users:
            raise Conflict(f"There is a user {name!r} already; 'teepi user passwd {name}' sets another password.")
        extra = {} if email is None else {"email": email}
        user = await self._accounts.new_user(name, {**extra, "password": _password(arguments, name)})
        return self._shown(user)

    async def _set_password(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        known(arguments, "name", "password")
        name = self._user(text(arguments, "name")).name
        await self._accounts.set_password(name, _password(arguments, name))
        return self._shown(self._user(name))

    async def _disable_user(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        known(arguments, "name")
        name = self._user(text(arguments, "name")).name
        revoked = await self._accounts.disable_user(name)
        return {**self._shown(self._user(name)), "revoked": revoked}

    async def _delete_user(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        known(arguments, "name")
        user = self._user(text(arguments, "name"))
        if user.name == ROOT:
            raise Forbidden("root cannot be deleted; 'teepi user disable root' keeps it from logging in.")
        kept = [each.name for each in self._accounts.directory.made.values() if each.user == user.name]
        kept = [name for name in sorted(kept) if not self._accounts.directory.made[name].is_volatile]
        if kept:
            raise Forbidden(
                f"{user.name} has the index {kept[0]}, which is not volatile, so that its files are not deleted by "
                f"mistake: run 'devpi index {kept[0]} volatile=True' first."
            )
        shown = self._shown(user)
        await self._accounts.remove_user(user.name)
        return shown

    # -- tokens --------------------------------------------------------------------------------------

    async def _list_tokens(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        known(arguments, "user")
        user = text(arguments, "user")
        if user is not None:
            self._user(user)
        tokens = sorted(self._accounts.directory.tokens.values(), key=lambda token: (token.user, token.created_at))
        return [_told(token) for token in tokens if user in {None, token.user}]

    async def _create_token(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        known(arguments, "user", "index", "upload", "read", "expires_seconds", "description")
        user = self._user(text(arguments, "user")).name
        index, seconds = text(arguments, "index"), number(arguments, "expires_seconds")
        may_upload, may_read = arguments.get("upload") is True, arguments.get("read") is True
        if not (may_upload or may_read):
            raise BadRequest("A token that allows nothing is of no use: say --upload, --read, or both.")
        if seconds == 0:
            raise BadRequest("The token would be of no use from the beginning; let it expire later.")
        if index is not None:
            self._check_index(index, may_upload=may_upload)
        secret, token = await self._accounts.create_token(
            user,
            index=index,
            may_upload=may_upload,
            may_read=may_read,
            description=text(arguments, "description") or "",
            seconds=seconds,
        )
        return {**_told(token), "token": secret, "url": _url(self._live.settings), "warnings": self._doubts(token)}

    def _check_index(self, index: str, *, may_upload: bool) -> None:
        directory = self._accounts.directory
        if index not in directory.names():
            raise NotFound(f"There is no index {index[:200]!r}; write USER/INDEX, as in admin/dev.")
        config = directory.index(index)
        if may_upload and (config is None or not config.is_stage):
            raise BadRequest(f"{index} takes no uploads, for it is a mirror or stands in the configuration file.")

    def _doubts(self, token: ApiToken) -> list[str]:
        """Return what the token seems to allow and its user may not do."""
        if token.index is None:
            return []
        directory, asker, now = self._accounts.directory, Asker(token.user), time.time()
        found, config = [], directory.index(token.index)
        if token.may_upload and config is not None:
            try:
                directory.require_upload(asker, config, now)
            except TeepiError:
                found.append(f"{token.user} may not upload to {token.index} (see its acl_upload), nor may this token.")
        if token.may_read and not directory.may_read(asker, token.index, now):
            found.append(f"{token.user} may not read {token.index} (see its acl_read), nor may this token.")
        return found

    async def _revoke_tokens(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Delete all tokens that are named, or none when one of them is unknown."""
        known(arguments, "ids")
        identities = list(dict.fromkeys(texts(arguments, "ids")))
        tokens = self._accounts.directory.tokens
        for identity in identities:
            if identity not in tokens:
                raise NotFound(f"There is no token {identity[:20]!r}; 'teepi token list' shows them.")
        found = [_told(tokens[identity]) for identity in identities]
        for identity in identities:
            await self._accounts.revoke_token(identity)
        return found


def _is_same(one: str, other: str) -> bool:
    """Whether two paths lead to one directory; blocks."""
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):
        return False


def _password(arguments: Mapping[str, Any], user: str) -> str:
    """Return the new password of ``user``. Raises :class:`BadRequest`, never with the password in it."""
    password = text(arguments, "password") or ""
    if not password:
        raise BadRequest(f"The new password of {user} is empty; choose one of at least {_SHORTEST} characters.")
    if any(each < " " or each == "\x7f" for each in password):
        raise BadRequest("The new password has a control character, which no client can send; choose another.")
    if len(password) < _SHORTEST:
        raise BadRequest(f"The new password of {user} is too short; choose one of at least {_SHORTEST} characters.")
    if password.casefold() == user.casefold():
        raise BadRequest("The new password is the name of the user, which is guessed first; choose another.")
    return password


def _told(token: ApiToken) -> dict[str, Any]:
    """Return what may be said of a token: not its digest."""
    return {
        "id": token.id,
        "user": token.user,
        "index": token.index,
        "upload": token.may_upload,
        "read": token.may_read,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "is_expired": token.expires_at is not None and token.expires_at <= time.time(),
        "description": token.description,
    }


def _url(settings: Settings) -> str | None:
    """Return where clients find the server, ``/`` at its end; None when only the kernel knows its port."""
    try:
        return (settings.outside_url or server_url(settings.listen, settings.scheme)).rstrip("/") + "/"
    except ConfigError:
        return None
