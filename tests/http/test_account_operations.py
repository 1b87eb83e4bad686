"""Users and API tokens as operators change them in a running server: by its socket, by its address, and at once."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from teepi import cli, operator_channel
from teepi.directory import Asker
from teepi.errors import NotFound
from tests.support.clients import RawClient, fetch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from teepi.accounts import Accounts
    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.teepi import Teepi

PASSWORD, OTHER = "correct horse", "battery staple"


class Desk:
    """A running teepi with the user admin, whose index admin/dev is for nobody else, and its operator."""

    def __init__(self, teepi: Teepi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Prepare."""
        self.teepi = teepi
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    @property
    def accounts(self) -> Accounts:
        """What the server knows."""
        return self.teepi.server.services.private.accounts

    async def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Return exit status, stdout and stderr of a command."""
        settings = self.teepi.settings
        places = ["--cache-dir", str(settings.cache_dir), "--data-dir", str(settings.data_dir)]
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        self._capsys.readouterr()
        status = await asyncio.to_thread(cli.main, [*arguments[:2], *places, *arguments[2:]])
        out, err = self._capsys.readouterr()
        return status, out, err

    async def done(self, *arguments: str, stdin: str = "") -> str:
        """Return what a command prints that succeeds."""
        status, out, err = await self.run(*arguments, stdin=stdin)
        assert status == 0, err
        return out

    async def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Answer:
        """Send JSON."""
        content = json.dumps(body).encode()
        given = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
        async with await RawClient.connect(self.teepi.address) as client:
            await client.send("POST", path, given)
            await client.send_bytes(content)
            return await client.read_answer()

    async def operate(self, call: str, **arguments: object) -> Answer:
        """Make a call over TCP with the operator's token."""
        token = await asyncio.to_thread(operator_channel.read_token, self.teepi.settings.data_dir)
        return await self.post(f"/+operator/{call}", arguments, {"Authorization": f"Bearer {token}"})

    async def login(self, user: str, password: str) -> str | None:
        """Return the login token; None where the server refuses one."""
        answer = await self.post("/+login", {"user": user, "password": password})
        return json.loads(answer.body)["result"]["password"] if answer.status == 200 else None

    async def reads(self, user: str, secret: str) -> int:
        """Return the status of the private index for these credentials."""
        basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
        headers = {"Accept": "application/json", "Authorization": f"Basic {basic}"}
        return (await fetch(self.teepi.address, "/admin/dev", headers)).status


@pytest.fixture
async def desk(make_teepi: MakeTeepi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Give a running teepi and its operator."""
    found = Desk(await make_teepi(), capsys, monkeypatch)
    await found.done("user", "create", "admin", "--password-stdin", stdin=PASSWORD)
    await found.accounts.create_index(Asker("admin"), "admin/dev", {"acl_read": ["admin"], "bases": []})
    return found


async def test_user_passwd_holds_in_the_running_server_at_once(desk: Desk) -> None:
    """The old password, though it is remembered, and the login that it gave are refused from then on."""
    login = await desk.login("admin", PASSWORD)
    assert login is not None
    assert await desk.reads("admin", login) == 200
    await desk.done("user", "passwd", "admin", "--password-stdin", stdin=OTHER)
    assert await desk.login("admin", PASSWORD) is None
    assert await desk.reads("admin", login) == 401
    assert await desk.login("admin", OTHER) is not None


async def test_user_passwd_root_lets_root_log_in(desk: Desk) -> None:
    """Before, nobody can; it survives a restart."""
    assert await desk.login("root", "") is None
    await desk.done("user", "passwd", "root", "--password-stdin", stdin=PASSWORD)
    assert await desk.login("root", PASSWORD) is not None
    await desk.teepi.stop()
    rows = {row["user"]: row["login"] for row in json.loads(await desk.done("user", "list", "--json"))}
    assert rows == {"admin": "password", "root": "password"}


async def test_user_disable_ends_logins_and_tokens_at_once(desk: Desk) -> None:
    """Whatever was given out is worth nothing; a new password brings the user back, and no token."""
    login = await desk.login("admin", PASSWORD)
    token = (await desk.done("token", "create", "--user", "admin", "--read")).strip()
    assert login is not None
    assert [await desk.reads("admin", each) for each in (login, token)] == [200, 200]
    await desk.done("user", "disable", "admin")
    assert [await desk.reads("admin", each) for each in (login, token, PASSWORD)] == [401, 401, 401]
    assert await desk.login("admin", PASSWORD) is None
    await desk.done("user", "passwd", "admin", "--password-stdin", stdin=OTHER)
    assert [await desk.reads("admin", each) for each in (login, token, OTHER)] == [401, 401, 200]


async def test_user_delete_spares_whoever_has_an_index_that_is_not_volatile(desk: Desk) -> None:
    """With a volatile one all goes, tokens too."""
    admin = Asker("admin")
    await desk.accounts.modify_index(admin, "admin/dev", {"volatile": False})
    status, _, err = await desk.run("user", "delete", "admin", "--yes")
    assert (status, "devpi index admin/dev volatile=True" in err, err.count("\n")) == (2, True, 1)
    await desk.accounts.modify_index(admin, "admin/dev", {"volatile": True})
    await desk.done("token", "create", "--user", "admin", "--read")
    assert await desk.done("user", "delete", "admin", "--yes") == "The user admin was deleted with admin/dev.\n"
    assert (desk.accounts.directory.tokens, set(desk.accounts.directory.users)) == ({}, {"root"})


async def test_token_opens_its_index_until_it_is_revoked(desk: Desk) -> None:
    """As the user or as ``__token__``; only to read where it is for that, and with its user's rights at most."""
    address = f"http://127.0.0.1:{desk.teepi.address[1]}"
    line = ("token", "create", "--user", "admin", "--index", "admin/dev", "--read", "--url", address)
    _, out, err = await desk.run(*line)
    token = out.strip()
    assert f"__token__:$TOKEN@127.0.0.1:{desk.teepi.address[1]}/admin/dev/+simple/" in err
    assert "twine" not in err
    assert [await desk.reads(user, token) for user in ("admin", "__token__", "root")] == [200, 200, 401]
    await desk.done("user", "create", "ci", "--password-stdin", stdin=PASSWORD)
    _, out, err = await desk.run("token", "create", "--user", "ci", "--index", "/admin/dev/", "--read", "--upload")
    assert (err.count("nor may this token"), await desk.reads("ci", out.strip())) == (2, 403)
    await desk.done("token", "revoke", token)
    assert await desk.reads("__token__", token) == 401


async def test_account_command_for_another_data_directory_than_the_servers_changes_nothing(desk: Desk) -> None:
    """The socket is found by the cache directory; the accounts are in the data directory."""
    other = desk.teepi.settings.data_dir.parent / "other"
    status, _, err = await desk.run(
        "user", "passwd", "admin", "--password-stdin", "--data-dir", str(other), stdin=OTHER
    )
    assert (status, f"not in {other}" in err, err.count("\n")) == (2, True, 1)
    assert await desk.login("admin", PASSWORD) is not None
    link = other.with_name("link")
    await asyncio.to_thread(link.symlink_to, desk.teepi.settings.data_dir)
    assert (await desk.run("user", "list", "--data-dir", str(link)))[0] == 0


NONSENSE: list[tuple[str, dict[str, Any], int]] = [
    ("user-nothing", {}, 404),
    ("user-list", {"x": 1}, 400),
    ("user-list", {"data_dir": 1}, 400),
    ("user-list", {"data_dir": "/no\0such"}, 409),
    ("user-create", {}, 400),
    ("user-create", {"name": "x", "password": 12345678}, 400),
    ("user-create", {"name": "x", "password": "\ud800" * 9}, 400),
    ("user-create", {"name": "x", "password": "x" * 5000}, 400),
    ("user-create", {"name": "x", "password": OTHER, "email": 1}, 400),
    ("user-create", {"name": "admin", "password": OTHER}, 409),
    ("user-password", {"name": "x", "password": OTHER}, 404),
    ("user-password", {"name": "admin"}, 400),
    ("user-disable", {}, 404),
    ("user-delete", {"name": "root"}, 403),
    ("token-create", {"user": "admin"}, 400),
    ("token-create", {"user": "admin", "read": 1}, 400),
    ("token-create", {"user": "admin", "read": True, "expires_seconds": 0}, 400),
    ("token-create", {"user": "admin", "read": True, "expires_seconds": float("inf")}, 400),
    ("token-create", {"user": "admin", "read": True, "index": "admin"}, 404),
    ("token-create", {"user": "admin", "upload": True, "index": "root/pypi"}, 400),
    ("token-revoke", {"ids": "x"}, 400),
    ("token-revoke", {"ids": ["x"]}, 404),
]


async def test_account_call_that_makes_no_sense_is_refused_in_a_sentence(desk: Desk) -> None:
    """Nothing happens; without the operator's token nothing at all is said."""
    before = desk.accounts.directory
    for call, arguments, status in NONSENSE:
        answer = await desk.operate(call, **arguments)
        said = (answer.status, answer.body.count(b"\n"), answer.body.endswith(b".\n"))
        assert said == (status, 1, True), (call, arguments, answer.body)
    assert (await desk.post("/+operator/user-password", {"name": "root", "password": OTHER})).status == 403
    assert desk.accounts.directory is before


async def test_passwords_and_tokens_of_operators_are_in_no_log(
    desk: Desk, make_teepi: MakeTeepi, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the access log nor in that of the server, however much that says."""
    await desk.teepi.stop()
    log = desk.teepi.settings.data_dir.parent / "access.log"
    desk.teepi = await make_teepi(access_log=log)
    caplog.set_level(logging.DEBUG)
    url = f"http://127.0.0.1:{desk.teepi.address[1]}"
    await desk.done("user", "passwd", "admin", "--password-stdin", "--url", url, stdin=OTHER)
    await desk.run("user", "create", "admin", "--password-stdin", "--url", url, stdin=OTHER)
    token = (await desk.done("token", "create", "--user", "admin", "--read", "--url", url)).strip()
    await desk.done("token", "revoke", token, "--url", url)
    await desk.teepi.stop()
    written = await asyncio.to_thread(log.read_text)
    assert "/+operator/user-password" in written
    for secret in (OTHER, token):
        assert secret not in written + caplog.text


async def test_user_who_is_just_being_deleted_is_not_brought_back(desk: Desk) -> None:
    """By a change that began before: it fails, and gives nobody a token."""
    accounts = desk.accounts

    async def token() -> None:
        await accounts.create_token("admin", index=None, may_upload=False, may_read=True, description="", seconds=None)

    outcomes = await asyncio.gather(
        accounts.remove_user("admin"), accounts.disable_user("admin"), token(), return_exceptions=True
    )
    assert [type(each) for each in outcomes] == [type(None), NotFound, NotFound]
    await accounts.load()
    assert (set(accounts.directory.users), accounts.directory.tokens) == ({"root"}, {})
