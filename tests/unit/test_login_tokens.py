"""Login tokens: whose they are, and when they end."""

from __future__ import annotations

import pytest

from teepi.login_tokens import LoginTokens

SECRET = b"s" * 32
HASHES = {"ann": "$argon2id$one", "root": ""}


class Clock:
    """Seconds since 1970, as a test wants them."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give a clock."""
    return Clock()


def test_token_names_its_user_also_after_a_restart(clock: Clock) -> None:
    """With the same secret; opaque ASCII that fits into a header and behind ``user:``; an empty password has some."""
    for user, stored in HASHES.items():
        token = LoginTokens(SECRET, clock=clock).issue(user, stored)
        assert LoginTokens(SECRET, clock=clock).user(token, HASHES.get) == user
        assert token.isascii()
        assert token.isprintable()
        assert not set(token) & set(": ")


def test_token_ends_when_its_time_has_passed(clock: Clock) -> None:
    """Ten hours, unless told otherwise."""
    tokens = LoginTokens(SECRET, clock=clock)
    token, short = tokens.issue("ann", HASHES["ann"]), LoginTokens(SECRET, seconds=60, clock=clock)
    brief = short.issue("ann", HASHES["ann"])
    clock.now += 59
    assert tokens.user(brief, HASHES.get) == "ann"
    clock.now += 1
    assert tokens.user(brief, HASHES.get) is None
    clock.now += 36_000 - 61
    assert tokens.user(token, HASHES.get) == "ann"
    clock.now += 1
    assert tokens.user(token, HASHES.get) is None


@pytest.mark.parametrize(("user", "later"), [("ann", "$argon2id$two"), ("root", "$argon2id$two"), ("ann", "")])
def test_token_ends_when_the_password_changes_or_the_user_goes(clock: Clock, user: str, later: str) -> None:
    """Also a first password, and one taken away; another user's password ends nothing."""
    tokens = LoginTokens(SECRET, clock=clock)
    token = tokens.issue(user, HASHES[user])
    assert tokens.user(token, {**HASHES, "bob": later}.get) == user
    assert tokens.user(token, {**HASHES, user: later}.get) is None
    assert tokens.user(token, lambda _: None) is None


def test_token_of_another_secret_or_changed_or_none_at_all_is_nobodys(clock: Clock) -> None:
    """Never an error."""
    tokens = LoginTokens(SECRET, clock=clock)
    token = tokens.issue("ann", HASHES["ann"])
    other = LoginTokens(b"t" * 32, clock=clock).issue("ann", HASHES["ann"])
    for bad in (other, token[:-1], "x" + token, token.upper(), "", ".", "a.b", "ü", "\ud800", "\0", ".eJw." * 100):
        assert tokens.user(bad, HASHES.get) is None


def test_token_shows_nobody_the_hash_of_the_password(clock: Clock) -> None:
    """It is readable; the same password under another secret looks different."""
    one, two = (LoginTokens(secret, clock=clock).issue("root", "") for secret in (SECRET, b"t" * 32))
    assert one.rpartition(".")[0] != two.rpartition(".")[0]
