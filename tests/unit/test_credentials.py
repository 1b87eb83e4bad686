"""Passwords: what is hashed and what is remembered, who has to wait, and that nobody waits for another's guesses."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from argon2 import PasswordHasher

from teepi import attempts, credentials
from teepi.credentials import Credentials, owasp_hasher
from teepi.errors import BadRequest, TooManyAttempts
from teepi.tasks import TaskScope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
STORED = CHEAP.hash("right")
HERE, THERE = "192.0.2.1", "192.0.2.2"
GATE_SECONDS = 20  # so that a defect ends the thread


class Watched(PasswordHasher):
    """Hashes cheaply, and can be held; knows what it was asked."""

    def __init__(self) -> None:
        """Begin open."""
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self._loop = asyncio.get_running_loop()
        self.began: asyncio.Queue[str] = asyncio.Queue()
        self.passwords: list[str] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def _enter(self, password: str | bytes) -> None:
        text = password if isinstance(password, str) else password.decode()
        self.passwords.append(text)
        self.threads.add(threading.current_thread().name)
        self._loop.call_soon_threadsafe(self.began.put_nowait, text)
        assert self.gate.wait(GATE_SECONDS)

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]  # noqa: A002
        """Verify, once the gate is open."""
        self._enter(password)
        return super().verify(hash, password)

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        """Hash, once the gate is open."""
        self._enter(password)
        return super().hash(password, salt=salt)


class Scene:
    """Credentials with a clock and a hasher that a test holds."""

    def __init__(self) -> None:
        """Begin at 1000 s."""
        self.now = 1000.0
        self.hasher = Watched()
        self.scope = TaskScope()
        self.credentials = Credentials(self.scope, clock=lambda: self.now, hasher=self.hasher)
        self._tasks: list[asyncio.Task[bool]] = []

    @property
    def hashed(self) -> int:
        """How often argon2 ran."""
        return len(self.hasher.passwords)

    async def tries(self, password: str, user: str = "ann", address: str = HERE, stored: str | None = STORED) -> bool:
        """Verify."""
        return await self.credentials.verify(user, stored, password, address)

    async def fails(self, times: int, user: str = "ann", address: str = HERE, stored: str | None = STORED) -> None:
        """Verify a wrong password."""
        for _ in range(times):
            assert not await self.tries("wrong", user, address, stored)

    async def waits(self, user: str = "ann", address: str = HERE, stored: str | None = STORED) -> int:
        """Return for how many seconds the right password is refused."""
        before = self.hashed
        with pytest.raises(TooManyAttempts) as caught:
            await self.tries("right", user, address, stored)
        assert self.hashed == before
        assert caught.value.retry_after_seconds is not None
        return caught.value.retry_after_seconds

    async def begin(self, attempt: Coroutine[None, None, bool]) -> asyncio.Task[bool]:
        """Begin an attempt and let it come as far as it can without a thread."""
        task = asyncio.ensure_future(attempt)
        self._tasks.append(task)
        for _ in range(5):
            await asyncio.sleep(0)
        return task

    async def end(self) -> None:
        """Let everything go."""
        self.hasher.gate.set()
        with suppress(TooManyAttempts):
            await asyncio.gather(*self._tasks)
        await self.scope.aclose()
        self.credentials.close()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """Give a scene, ended after the test."""
    found = Scene()
    yield found
    await found.end()


# -- hashing -----------------------------------------------------------------------------------------


def test_hash_is_argon2id_with_the_parameters_of_owasp() -> None:
    """19 MiB, two passes, one lane, a salt of its own."""
    hasher = owasp_hasher()
    first, second = hasher.hash("x"), hasher.hash("x")
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second


async def test_password_is_verified_in_a_thread_of_its_own(scene: Scene) -> None:
    """Right is right and wrong is wrong, and the event loop does something else meanwhile."""
    stored = await scene.credentials.hash("secret")
    assert await scene.tries("secret", stored=stored)
    assert not await scene.tries("Secret", stored=stored)
    assert all(name.startswith("argon2") for name in scene.hasher.threads)


async def test_password_spelt_in_other_code_points_is_the_same(scene: Scene) -> None:
    """One keyboard writes ü as one code point, another as two (RFC 8265)."""
    stored = await scene.credentials.hash("u\u0308ber")
    assert await scene.tries("\u00fcber", stored=stored)


async def test_password_that_cannot_be_one_is_refused_without_hashing(scene: Scene) -> None:
    """Too long in characters, in bytes, or no text: never right, and not taken as a new one; 4096 bytes are."""
    for password in ("x" * 4097, "ü" * 2049, "\ud800"):
        assert not await scene.tries(password)
        with pytest.raises(BadRequest):
            await scene.credentials.hash(password)
    assert scene.hashed == 0
    assert await scene.tries("x" * 4096, stored=await scene.credentials.hash("x" * 4096))


async def test_unknown_user_costs_one_hash_of_the_same_parameters(scene: Scene) -> None:
    """The time tells nobody who exists; no password is right, the empty one included."""
    for password in ("right", "", "-"):
        assert not await scene.tries(password, stored=None)
    assert scene.hashed == 3
    nobody = credentials._hash_of_nothing(scene.hasher)  # noqa: SLF001 - what is verified for them
    assert len(nobody) == len(STORED)
    assert not scene.credentials.outdated(nobody)


async def test_empty_password_is_right_for_nobody_but_whoever_has_it(scene: Scene) -> None:
    """``""`` stands for it; another password is hashed as everywhere."""
    assert await scene.tries("", "root", stored="")
    assert scene.hashed == 0
    assert not await scene.tries("right", "root", stored="")
    assert not await scene.tries("")
    assert scene.hashed == 2


async def test_damaged_hash_lets_nobody_in_and_is_told(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """With the user's name and what to do."""
    for stored in ("$argon2id$nonsense", "nonsense", STORED.replace("m=8", "m=x")):
        caplog.clear()
        assert not await scene.tries("right", stored=stored)
        assert "ann" in caplog.text
        assert "teepi user passwd" in caplog.text
    assert not scene.credentials.outdated("nonsense")


async def test_hash_with_other_parameters_is_outdated(scene: Scene) -> None:
    """So that it can be made anew at the next login."""
    assert not scene.credentials.outdated(STORED)
    assert scene.credentials.outdated(PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash("right"))


# -- what is remembered ------------------------------------------------------------------------------


async def test_verified_password_is_remembered_for_five_minutes(scene: Scene) -> None:
    """From any address; then it is hashed again. A wrong one is never remembered."""
    assert await scene.tries("right")
    scene.now += 299
    assert await scene.tries("right", address=THERE)
    assert scene.hashed == 1
    scene.now += 1
    assert await scene.tries("right")
    assert scene.hashed == 2
    await scene.fails(2)
    assert scene.hashed == 4


async def test_remembered_password_is_dropped_when_the_hash_changes_or_the_user_goes(scene: Scene) -> None:
    """The former password is wrong at once, without anybody telling; another user's is not this one's."""
    assert await scene.tries("right")
    assert not await scene.tries("right", stored=CHEAP.hash("new"))
    assert not await scene.tries("right", stored=None)
    assert scene.hashed == 3
    assert await scene.tries("right", "bob")
    assert scene.hashed == 4


async def test_forget_drops_what_is_remembered_of_one_user(scene: Scene) -> None:
    """Password and failures; others keep theirs."""
    assert await scene.tries("right")
    assert await scene.tries("right", "bob")
    await scene.fails(5, address=THERE)
    scene.credentials.forget("ann")
    assert await scene.tries("right", "bob")
    assert scene.hashed == 7
    assert await scene.tries("right", address=THERE)
    assert scene.hashed == 8


async def test_memory_for_passwords_and_failures_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go."""
    monkeypatch.setattr(credentials, "_MOST_REMEMBERED", 2)
    monkeypatch.setattr(attempts, "_MOST_LANES", 2)
    for user in ("a", "b", "c"):
        assert await scene.tries("right", user)
        await scene.fails(1, user)
    assert len(scene.credentials._remembered) == 2  # noqa: SLF001 - nothing else shows it
    assert len(scene.credentials._failures) == 2  # noqa: SLF001
    before = scene.hashed
    assert await scene.tries("right", "c")
    assert scene.hashed == before
    assert await scene.tries("right", "a")
    assert scene.hashed == before + 1


# -- who has to wait ---------------------------------------------------------------------------------


async def test_failures_in_a_row_make_the_next_try_wait_longer_each_time(scene: Scene) -> None:
    """Five are free, then 1, 2, 4 … 60 s; refused before any hashing, and a refusal is no failure."""
    await scene.fails(5)
    for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
        assert await scene.waits() == seconds
        scene.now += seconds - 0.5
        assert await scene.waits() == 1
        scene.now += 0.5
        await scene.fails(1)


async def test_success_clears_the_failures(scene: Scene) -> None:
    """Five more are free."""
    await scene.fails(5)
    scene.now += 1
    assert await scene.tries("right")
    await scene.fails(5)
    assert not await scene.tries("wrong", "bob")


async def test_failures_are_forgotten_after_a_quarter_of_an_hour(scene: Scene) -> None:
    """Somebody who comes back has five free tries again."""
    await scene.fails(5)
    scene.now += 899
    await scene.fails(1)
    assert await scene.waits() == 2
    scene.now += 900
    await scene.fails(5)


async def test_remembered_password_is_never_limited(scene: Scene) -> None:
    """Builds go on while somebody guesses at the same address."""
    assert await scene.tries("right")
    await scene.fails(5)
    assert await scene.tries("right")


async def test_failures_at_one_address_lock_out_no_other_and_no_other_user(scene: Scene) -> None:
    """Guessing keeps nobody from logging in elsewhere, not the guessed user either."""
    await scene.fails(5)
    assert await scene.waits() == 1
    assert await scene.tries("right", address=THERE)
    assert await scene.tries("right", "bob")


async def test_unknown_users_of_one_address_share_their_failures(scene: Scene) -> None:
    """Made-up names burn no more CPU than one name; the names that exist are not held up."""
    for number in range(5):
        await scene.fails(1, f"nobody{number}", stored=None)
    assert await scene.waits("other", stored=None) == 1
    assert await scene.tries("right")


async def test_addresses_of_one_ipv6_network_share_their_failures(scene: Scene) -> None:
    """One machine has 2**64 of them; an IPv4 address in IPv6 is that IPv4 address."""
    for number in range(5):
        await scene.fails(1, address=f"2001:db8::{number}")
    assert await scene.waits(address="2001:db8::ffff") == 1
    await scene.fails(1, address="2001:db8:0:1::1")
    await scene.fails(5, address=f"::ffff:{HERE}")
    assert await scene.waits() == 1


# -- many at once ------------------------------------------------------------------------------------


async def test_forty_logins_with_one_right_password_hash_once(scene: Scene) -> None:
    """Builds that begin together, from one address or from forty."""
    assert all(await asyncio.gather(*(scene.tries("right") for _ in range(40))))
    assert scene.hashed == 1
    assert all(await asyncio.gather(*(scene.tries("right", "bob", f"192.0.2.{number}") for number in range(40))))
    assert scene.hashed == 2


async def test_client_that_leaves_does_not_end_the_work_for_the_others(scene: Scene) -> None:
    """Its hash goes on, and is remembered."""
    scene.hasher.gate.clear()
    first = await scene.begin(scene.tries("right"))
    second = await scene.begin(scene.tries("right"))
    await scene.hasher.began.get()
    scene._tasks.remove(first)  # noqa: SLF001 - it is given up
    first.cancel()
    scene.hasher.gate.set()
    assert await second
    assert scene.hashed == 1


async def test_brute_force_on_one_user_delays_others_by_one_hash(scene: Scene) -> None:
    """Guesses of a lane are hashed one at a time: another address goes at once, another user there goes next."""
    await scene.fails(1)
    scene.hasher.gate.clear()
    guesses = [await scene.begin(scene.tries(f"guess{number}")) for number in range(4)]
    elsewhere = await scene.begin(scene.tries("right", "eve", THERE))
    near = await scene.begin(scene.tries("right", "bob"))
    assert {await scene.hasher.began.get() for _ in range(3)} == {"wrong", "guess0", "right"}
    assert scene.hashed == 3
    scene.hasher.gate.set()
    assert await elsewhere
    assert await near
    assert not any(await asyncio.gather(*guesses))
    assert scene.hasher.passwords[3:] == ["right", "guess1", "guess2", "guess3"]


async def test_guesses_that_wait_are_refused_once_those_before_them_have_failed(scene: Scene) -> None:
    """Sent all at once they are no better off than one by one."""
    await scene.fails(4)
    scene.hasher.gate.clear()
    guesses = [await scene.begin(scene.tries(f"guess{number}")) for number in range(4)]
    scene.hasher.gate.set()
    results = await asyncio.gather(*guesses, return_exceptions=True)
    assert [type(result) for result in results] == [bool, *[TooManyAttempts] * 3]
    scene._tasks.clear()  # noqa: SLF001 - they have been looked at
    assert scene.hashed == 5


async def test_lane_that_has_to_wait_is_refused_without_queueing(scene: Scene) -> None:
    """At once, however busy its address is."""
    await scene.fails(5)
    scene.hasher.gate.clear()
    await scene.begin(scene.tries("right", "bob"))
    assert await asyncio.wait_for(scene.waits(), GATE_SECONDS / 4) == 1


async def test_queue_of_a_lane_is_bounded(scene: Scene) -> None:
    """One is hashed, eight wait, the next is 429 at once; another user at the address is taken."""
    scene.hasher.gate.clear()
    for number in range(9):
        assert not (await scene.begin(scene.tries(f"guess{number}"))).done()
    with pytest.raises(TooManyAttempts):
        await scene.tries("guess9")
    assert not (await scene.begin(scene.tries("right", "bob"))).done()


async def test_queue_of_an_address_is_bounded_and_turns_away_who_failed_most(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guessing at many users leaves room for one who logs in."""
    monkeypatch.setattr(attempts, "_MOST_AT_ADDRESS", 2)
    await scene.fails(1, "bob")
    await scene.fails(2, "cal")
    scene.hasher.gate.clear()
    await scene.begin(scene.tries("guess", "abe"))
    await scene.begin(scene.tries("guess", "bob"))
    worst = await scene.begin(scene.tries("guess", "cal"))
    login = await scene.begin(scene.tries("right"))
    with pytest.raises(TooManyAttempts):
        await worst
    scene._tasks.remove(worst)  # noqa: SLF001 - it has been looked at
    scene.hasher.gate.set()
    assert await login


async def test_new_passwords_are_hashed_one_at_a_time_and_hold_up_no_login(scene: Scene) -> None:
    """Anyone may create users, as many as they like."""
    scene.hasher.gate.clear()
    made = [asyncio.ensure_future(scene.credentials.hash(f"new{number}")) for number in range(3)]
    login = await scene.begin(scene.tries("right"))
    assert {await scene.hasher.began.get() for _ in range(2)} == {"new0", "right"}
    scene.hasher.gate.set()
    assert await login
    assert len({*await asyncio.gather(*made)}) == 3


async def test_stop_ends_attempts_that_wait(scene: Scene) -> None:
    """Nothing hangs, and whoever waits is told."""
    scene.hasher.gate.clear()
    waiting = [asyncio.ensure_future(scene.tries(f"guess{number}")) for number in range(3)]
    await scene.hasher.began.get()
    scene.hasher.gate.set()
    await scene.scope.aclose()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result).__name__ for result in results[1:]} == {"Unavailable"}
