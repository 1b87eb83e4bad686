"""What a login gives in the place of the password: a signed token that nobody has to store.

It holds until it expires, the password changes or the user goes, whichever is first. Does no IO.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any, Final

from itsdangerous import BadData, URLSafeSerializer

if TYPE_CHECKING:
    from collections.abc import Callable

_LOGIN_SECONDS: Final = 36_000
"""Ten hours: devpi's clients are told so and ask for the password again."""


class LoginTokens:
    """Issues login tokens, and knows its own again."""

    def __init__(self, secret: bytes, *, seconds: int = _LOGIN_SECONDS, clock: Callable[[], float] = time.time) -> None:
        """Sign with ``secret``, 32 random bytes that outlive a restart; ``clock`` gives seconds since 1970."""
        self.seconds = seconds
        """So long a token holds."""
        self._clock = clock
        self._secret = secret
        # Its defaults are SHA-1's, which nobody wants to explain.
        self._serializer = URLSafeSerializer(
            secret, salt=b"teepi.login", signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"}
        )

    def issue(self, user: str, stored_hash: str) -> str:
        """Return a token for ``user``, ASCII without ``:``; ``stored_hash`` is the password's, ``""`` if empty."""
        return self._serializer.dumps([user, self._digest(stored_hash), int(self._clock()) + self.seconds])

    def user(self, token: str, stored_hash_of: Callable[[str], str | None]) -> str | None:
        """Return whose token this is, None for all that is none or holds no more; never raises.

        ``stored_hash_of`` gives the present hash of a user's password, None when there is no such user.
        """
        try:
            user, digest, until = _three(self._serializer.loads(token.encode("ascii")))
        except (BadData, UnicodeEncodeError):
            return None
        stored = stored_hash_of(user) if self._clock() < until else None
        return user if stored is not None and hmac.compare_digest(digest, self._digest(stored)) else None

    def is_ours(self, token: str) -> bool:
        """Whether this was once issued here: then it is no guess at a password, though it may hold no more."""
        try:
            _three(self._serializer.loads(token.encode("ascii")))
        except (BadData, UnicodeEncodeError):
            return False
        return True

    def _digest(self, stored_hash: str) -> str:
        """Return what binds a token to a password; keyed, for whoever has the token can read it."""
        return hashlib.blake2b(stored_hash.encode(), key=self._secret[:64], digest_size=16).hexdigest()


def _three(signed: Any) -> tuple[str, str, int]:  # noqa: ANN401 - it is what issue() signed
    user, digest, until = signed
    return user, digest, until
