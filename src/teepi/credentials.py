"""Passwords: hashed and verified off the event loop, remembered for a while, and guessed slowly.

Knows no users and no database: it is handed what is stored. Who has to wait is decided in ``attempts``.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
import time
import unicodedata
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from teepi.attempts import Failures, Lane, Turns, network_of
from teepi.errors import BadRequest
from teepi.single_flight import SingleFlight
from teepi.tasks import in_executor

if TYPE_CHECKING:
    from collections.abc import Callable

    from teepi.tasks import TaskScope

log = logging.getLogger(__name__)

LONGEST_PASSWORD_BYTES: Final = 4096
_THREADS: Final = 2
"""One for whoever guesses, one for everybody else."""
_REMEMBERED_SECONDS: Final = 300.0
_MOST_REMEMBERED: Final = 4096  # under 1 MB
_MOST_OF_LANE: Final = 8
"""Different passwords for one user from one address at the same time: more is guessing."""
_MAKING: Final = Lane("", None)
"""New passwords are hashed one at a time: anyone may create a user, which must not hold up logins."""
_MOST_MAKING: Final = 64


def owasp_hasher() -> PasswordHasher:
    """Return argon2id with 19 MiB, two passes and one lane (OWASP Password Storage): 20–40 ms."""
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)


class Credentials:
    """Makes and verifies hashes of passwords.

    A password is compared as the UTF-8 of its NFC (RFC 8265, 4.2.2): an ü of two code points is that of one.
    """

    def __init__(
        self,
        scope: TaskScope,
        *,
        clock: Callable[[], float] = time.monotonic,
        hasher: PasswordHasher | None = None,
    ) -> None:
        """Verify in ``scope``, which outlives the clients; ``clock`` gives seconds, ``hasher`` the parameters."""
        self._clock = clock
        self._hasher = hasher or owasp_hasher()
        self._nobody = _hash_of_nothing(self._hasher)
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._failures = Failures(clock)
        self._turns = Turns(_THREADS, self._failures.of)
        self._attempts: SingleFlight[bool] = SingleFlight(scope)
        self._hashing: SingleFlight[bool] = SingleFlight(scope)
        self._making: SingleFlight[str] = SingleFlight(scope)
        self._threads = ThreadPoolExecutor(_THREADS, "argon2")

    def close(self) -> None:
        """Hash no more; end ``scope`` before."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Return the argon2id hash of a new password, with its parameters and salt.

        Raises :class:`BadRequest` for one that cannot be taken, :class:`TooManyAttempts` when too many come at once.
        """
        prepared = _prepared(password)
        if prepared is None:
            raise BadRequest(f"A password is text of at most {LONGEST_PASSWORD_BYTES} bytes; choose a shorter one.")
        # Each is a flight of its own: a client that leaves does not give its turn to the next while the thread works.
        return await self._making.join(object(), lambda: self._make(prepared))

    async def verify(self, user: str, stored: str | None, password: str, address: str) -> bool:
        """Say whether ``password`` is the one of the hash ``stored``, sent from ``address`` (literal, IPv4 or IPv6).

        ``stored`` is None for an unknown user or one who cannot log in, which takes the same time, and ``""`` for the
        empty password. Raises :class:`TooManyAttempts` when the lane of ``user`` and ``address`` has failed too often.
        """
        prepared = _prepared(password)
        if prepared is None:
            return False
        if stored == "" == password:
            return True  # no secret is asked for, so that none can be guessed
        key = self._digest(user, stored, prepared)
        if self._is_remembered(key):
            return True
        lane = Lane(network_of(address), None if stored is None else user)
        return await self._attempts.join((lane, key), lambda: self._attempt(lane, key, stored or "", prepared))

    def outdated(self, stored: str) -> bool:
        """Whether ``stored`` was made with other parameters than new hashes are."""
        try:
            return self._hasher.check_needs_rehash(stored)
        except InvalidHashError:
            return False  # nothing that a password could be verified by

    def forget(self, user: str) -> None:
        """Drop what is remembered of ``user``, failures too: for a changed password and a deleted user."""
        for key in [key for key, (name, _) in self._remembered.items() if name == user]:
            del self._remembered[key]
        self._failures.clear_user(user)

    async def _make(self, password: bytes) -> str:
        async with self._turns.turn(_MAKING, _MOST_MAKING):
            return await in_executor(self._threads, self._hasher.hash, password)

    async def _attempt(self, lane: Lane, key: bytes, stored: str, password: bytes) -> bool:
        self._failures.check(lane)
        async with self._turns.turn(lane, _MOST_OF_LANE):
            self._failures.check(lane)  # those before it in the lane have ended
            # From many addresses at once, too, it is hashed once.
            is_right = self._is_remembered(key) or await self._hashing.join(
                key, lambda: in_executor(self._threads, self._matches, lane.user, stored, password)
            )
            if is_right and lane.user is not None:
                self._failures.clear(lane)
                self._remember(key, lane.user)
                return True
            self._failures.add(lane)
            return False

    def _matches(self, user: str | None, stored: str, password: bytes) -> bool:
        """Verify; blocks. Without a usable hash it takes the same time."""
        try:
            return self._hasher.verify(stored or self._nobody, password)
        except VerifyMismatchError:
            return False
        except (InvalidHashError, VerificationError) as error:
            if not stored:
                raise  # no memory
            why = str(error) or "no argon2 hash"
            log.warning("The password of %s cannot be verified (%s): set it with 'teepi user passwd'.", user, why)
            return self._matches(user, "", password)

    # -- what is remembered --------------------------------------------------------------------------

    def _digest(self, user: str, stored: str | None, password: bytes) -> bytes:
        """Return a key that holds for these three alone, and tells nobody the password."""
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in (user.encode("utf-8", "surrogatepass"), b"-" if stored is None else stored.encode(), password):
            digest.update(len(part).to_bytes(8) + part)
        return digest.digest()

    def _is_remembered(self, key: bytes) -> bool:
        _, until = self._remembered.get(key, ("", 0.0))
        return self._clock() < until

    def _remember(self, key: bytes, user: str) -> None:
        self._remembered[key] = user, self._clock() + _REMEMBERED_SECONDS
        self._remembered.move_to_end(key)
        while len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)


def _prepared(password: str) -> bytes | None:
    """Return what is hashed, None for what is no password: too long, or no Unicode text."""
    if len(password) > LONGEST_PASSWORD_BYTES:
        return None  # before any work on it
    try:
        prepared = unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:  # lone surrogates, which JSON can have
        return None
    return prepared if len(prepared) <= LONGEST_PASSWORD_BYTES else None


def _hash_of_nothing(hasher: PasswordHasher) -> str:
    """Return a hash with the same parameters that no password has, without hashing."""

    def some(count: int) -> str:
        return base64.b64encode(secrets.token_bytes(count)).decode().rstrip("=")

    parameters = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${parameters}${some(hasher.salt_len)}${some(hasher.hash_len)}"
