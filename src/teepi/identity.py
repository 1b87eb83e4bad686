"""Who asks: passwords, login tokens and API tokens, against the picture of the users. Nothing is changed here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from teepi import api_tokens
from teepi.directory import ANYBODY, ROOT, Asker, Directory
from teepi.errors import Unauthorized
from teepi.login_tokens import LoginTokens
from teepi.principals import Given

if TYPE_CHECKING:
    from collections.abc import Callable

    from teepi.credentials import Credentials
    from teepi.live import Live


_LONGEST_SECONDS: Final = 365 * 86400


class Identity:
    """Finds out who makes a request."""

    def __init__(self, directory: Callable[[], Directory], credentials: Credentials, live: Live) -> None:
        """Ask ``directory`` for the picture as it is; use :meth:`begin` before anything else."""
        self._directory = directory
        self._credentials = credentials
        self._live = live
        self._logins: LoginTokens | None = None

    def begin(self, secret: bytes) -> None:
        """Sign login tokens with ``secret``, which the data directory keeps."""
        self._logins = LoginTokens(secret)

    @property
    def empty_root(self) -> bool:
        """Whether root logs in with an empty password, since none was set and the settings allow it."""
        root = self._directory().users.get(ROOT)
        return self._live.settings.insecure_empty_root and (root is None or root.password is None)

    async def asker(self, given: Given | None, address: str) -> Asker:
        """Return who makes a request with these credentials from ``address``; wrong ones are those of nobody.

        Raises :class:`TooManyAttempts`.
        """
        if given is None:
            return ANYBODY
        identity = api_tokens.id_of(given.secret)
        if identity is not None:
            return self._by_token(given, identity)
        if self._logins is not None and self._logins.is_ours(given.secret):
            is_right = self._logins.user(given.secret, self._hash_of) == given.user
            return Asker(given.user) if is_right else ANYBODY
        return Asker(given.user) if await self._is_password(given.user, given.secret, address) else ANYBODY

    def logged_in(self, token: str) -> Asker:
        """Return whose login token this is: a browser sends it alone. One that holds no more is nobody's."""
        user = None if self._logins is None else self._logins.user(token, self._hash_of)
        return ANYBODY if user is None else Asker(user)

    def _by_token(self, given: Given, identity: str) -> Asker:
        token = self._directory().tokens.get(identity)
        if token is None or given.user not in {token.user, "__token__", ""}:
            return ANYBODY
        return Asker(token.user, token) if token.is_text(given.secret) and token.holds(time.time()) else ANYBODY

    def _hash_of(self, name: str) -> str | None:
        """Return the password hash of a user who may log in."""
        if name == ROOT and self.empty_root:
            return ""
        user = self._directory().users.get(name)
        if user is None or (user.password == "" and not self._live.settings.insecure_empty_root):
            return None
        return user.password

    async def _is_password(self, name: str, password: str, address: str) -> bool:
        stored = self._hash_of(name)
        if stored == "":
            return password == ""
        return await self._credentials.verify(name, stored, password, address)

    async def login(self, name: str, password: str, address: str) -> tuple[str, int]:
        """Return a login token and the seconds that it is valid. Raises :class:`Unauthorized`."""
        self._directory().require_there()
        if api_tokens.id_of(password) is not None:  # it is what it gives: devpi's clients can use nothing else
            asker = await self.asker(Given(name, password), address)
            if asker.token is None or asker.user != name:
                raise Unauthorized(f"user {name[:100]!r} could not be authenticated")
            left = _LONGEST_SECONDS if asker.token.expires_at is None else int(asker.token.expires_at - time.time())
            return password, max(1, left)
        if not await self._is_password(name, password, address):
            hint = ""
            if name == ROOT and self._hash_of(ROOT) is None:
                hint = ": root has no password yet; run 'teepi user passwd root' on the machine of the server"
            raise Unauthorized(f"user {name[:100]!r} could not be authenticated{hint}")
        return self.token_for(name)

    def token_for(self, name: str) -> tuple[str, int]:
        """Return a login token for a user who has just proved to be that one, and the seconds that it is valid."""
        if self._logins is None:
            raise RuntimeError("accounts are used before they are loaded")
        return self._logins.issue(name, self._hash_of(name) or ""), int(self._logins.seconds)
