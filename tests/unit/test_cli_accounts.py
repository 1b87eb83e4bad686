"""``teepi user`` and ``teepi token`` on a data directory that no server uses: what they take, print and refuse."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

from teepi import cli, operator_client
from teepi.cli.tokens import _seconds
from teepi.data.directory_lock import DirectoryLock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PASSWORD = "correct horse"  # noqa: S105
pytestmark = pytest.mark.usefixtures("xdg_home")


class Shell:
    """Runs commands on one data directory."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Use directories below ``directory``."""
        self.data_dir = directory / "data"
        self._cache_dir = directory / "cache"
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def run(self, *arguments: str, stdin: str = "", typed: Sequence[str] | None = None) -> tuple[int, str, str]:
        """Return exit status, stdout and stderr; ``typed`` is what somebody types at a terminal."""
        lines = iter(typed or ())
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            if typed is not None:
                patch.setattr(sys.stdin, "isatty", lambda: True)
                patch.setattr(click.termui, "hidden_prompt_func", lambda _prompt: next(lines))
                patch.setattr(click.termui, "visible_prompt_func", lambda _prompt: next(lines))
            places = ["--data-dir", str(self.data_dir), "--cache-dir", str(self._cache_dir)]
            self._capsys.readouterr()
            status = cli.main([*arguments, *places])
        assert list(lines) == []
        out, err = self._capsys.readouterr()
        return status, out, err

    def json(self, *arguments: str) -> Any:
        """Return what a command prints for scripts."""
        status, out, err = self.run(*arguments, "--json")
        assert status == 0, err
        return json.loads(out)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Give commands on an empty place."""
    monkeypatch.setattr(operator_client, "_LOCK_WAIT_SECONDS", 0.0)
    return Shell(tmp_path, capsys, monkeypatch)


@pytest.fixture
def peopled(shell: Shell) -> Shell:
    """Give commands on a data directory with the user admin."""
    assert shell.run("user", "create", "admin", "--password-stdin", stdin=PASSWORD)[0] == 0
    return shell


def test_user_passwd_root_before_the_first_start_makes_the_data_directory(shell: Shell) -> None:
    """The way to let root log in; the password is typed twice, and again when the two differ."""
    typed = [PASSWORD, "something else", PASSWORD, PASSWORD]
    status, out, err = shell.run("user", "passwd", "root", typed=typed)
    assert (status, "The password of root was set" in out) == (0, True), err
    assert PASSWORD not in out + err
    [root] = shell.json("user", "list")
    assert (root["user"], root["login"]) == ("root", "password")
    assert shell.data_dir.stat().st_mode & 0o777 == 0o700


def test_user_commands_list_create_disable_and_delete(peopled: Shell) -> None:
    """A disabled user has neither password nor tokens; a deleted one is gone when the answer was yes."""
    assert peopled.run("user", "create", "ci", "--email", "\x1b[31mci@team.example", typed=[PASSWORD] * 2)[0] == 0
    peopled.run("token", "create", "--user", "ci", "--read")
    _, out, _ = peopled.run("user", "list")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["admin", "yes"], ["ci", "yes"], ["root", "no"]]
    assert ("\x1b" in out, "?[31mci@team.example" in out) == (False, True)
    status, out, _ = peopled.run("user", "disable", "ci")
    assert (status, out) == (0, "ci cannot log in any more; 1 API token revoked.\n")
    rows = {row["user"]: row for row in peopled.json("user", "list")}
    assert (rows["ci"]["login"], rows["ci"]["tokens"]) == ("none", 0)
    assert rows["ci"]["email"].endswith("ci@team.example")
    assert peopled.run("user", "delete", "ci", typed=["n"])[:2] == (1, "Nothing was deleted.\n")
    assert peopled.run("user", "delete", "ci", typed=["y"])[:2] == (0, "The user ci was deleted.\n")
    assert peopled.run("user", "delete", "admin", "--yes")[0] == 0
    assert [row["user"] for row in peopled.json("user", "list")] == ["root"]


def test_token_create_prints_the_token_alone_and_says_the_rest_beside_it(peopled: Shell) -> None:
    """What it says how to use it does not have the secret a second time; it is nowhere later."""
    status, out, err = peopled.run(
        "token", "create", "--user", "admin", "--upload", "--read", "--description", "nightly", "--expires", "12h"
    )
    token = out.removesuffix("\n")
    assert (status, token.startswith("teepi_"), "\n" in token, token in err) == (0, True, False, False)
    for word in ("twine", "uv publish", "pip install", "http://127.0.0.1:3141/USER/INDEX/"):
        assert word in err
    [row] = peopled.json("token", "list")
    assert (row["user"], row["index"], row["upload"], row["read"]) == ("admin", None, True, True)
    assert row["expires_at"] - row["created_at"] == 12 * 3600
    _, table, _ = peopled.run("token", "list", "--user", "admin")
    assert all(word in table for word in (row["id"], "upload, read", "nightly"))
    assert token.removeprefix(f"teepi_{row['id']}_") not in table + json.dumps(row)
    assert "digest" not in row
    for path in peopled.data_dir.iterdir():
        assert path.is_dir() or token.encode() not in path.read_bytes()


def test_token_revoke_takes_ids_and_tokens_all_or_none(peopled: Shell) -> None:
    """Somebody who found a token pastes it."""
    tokens = [peopled.run("token", "create", "--user", "admin", "--read", "--expires", "never")[1] for _ in range(2)]
    ids = [row["id"] for row in peopled.json("token", "list")]
    assert peopled.run("token", "revoke", ids[0], "nosuch")[0] == 2
    assert len(peopled.json("token", "list")) == 2
    status, out, _ = peopled.run("token", "revoke", ids[0], tokens[1].strip(), ids[0])
    assert (status, out.count("was revoked")) == (0, 2)
    assert peopled.run("token", "list")[1] == "There is no token.\n"
    assert peopled.run("token", "list", "--user", "admin")[1] == "admin has no token.\n"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90d", 90 * 86400.0), ("7", 7 * 86400.0), ("12H", 43200.0), ("Never", None)]
)
def test_token_expires_takes_an_age_or_never(text: str, seconds: float | None) -> None:
    """A bare number is days."""
    parameter = click.Option(["--expires"])
    assert _seconds(click.Context(click.Command("x")), parameter, text) == seconds
    for wrong in ("0d", "-1", "soon", "1.5d", "", "٣d"):
        with pytest.raises(click.BadParameter):
            _seconds(click.Context(click.Command("x")), parameter, wrong)


WRONG = [
    ("user passwd nobody --password-stdin", PASSWORD, "There is no user 'nobody'"),
    ("user passwd admin --password-stdin", "", "password of admin is empty"),
    ("user passwd admin --password-stdin", "seven77\n", "too short"),
    ("user passwd admin --password-stdin", "a\tpassword\n", "control character"),
    ("user passwd administrator --password-stdin", PASSWORD, "There is no user 'administrator'"),
    ("user create administrator --password-stdin", "Administrator", "the name of the user"),
    ("user create admin --password-stdin", PASSWORD, "There is a user 'admin' already"),
    ("user create a/b --password-stdin", PASSWORD, "not the name of a user"),
    ("user create x", PASSWORD, "use --password-stdin"),
    ("user create x secret", PASSWORD, "unexpected extra argument"),
    ("user delete admin", "y", "use --yes"),
    ("user delete root --yes", "", "root cannot be deleted"),
    ("user delete nobody --yes", "", "There is no user 'nobody'"),
    ("user disable nobody", "", "There is no user 'nobody'"),
    ("token create --user nobody --read", "", "There is no user 'nobody'"),
    ("token create --user admin", "", "--upload, --read, or both"),
    ("token create --user admin --read --index no/such", "", "There is no index 'no/such'"),
    ("token create --user admin --upload --index root/pypi", "", "takes no uploads"),
    ("token create --user admin --read --expires soon", "", "90d"),
    ("token list --user nobody", "", "There is no user 'nobody'"),
    ("token revoke nosuch", "", "There is no token 'nosuch'"),
    ("user list --url ftp://x", "", "is no address"),
]


def test_account_command_that_makes_no_sense_is_one_sentence_and_changes_nothing(peopled: Shell) -> None:
    """Exit status 2; no password stands in it."""
    before = peopled.json("user", "list")
    for line, stdin, said in WRONG:
        status, out, err = peopled.run(*line.split(), stdin=stdin)
        assert (status, out, err.count("\n"), said in err) == (2, "", 1, True), (line, err)
        assert stdin.strip() not in err or len(stdin) < 2
    assert (peopled.json("user", "list"), peopled.json("token", "list")) == (before, [])


def test_account_command_typed_for_an_unknown_user_asks_for_no_password(peopled: Shell) -> None:
    """A typing error is found before the password is typed; so is a user that is there already."""
    for line, said in (("user passwd amdin", "no user 'amdin'"), ("user create admin", "is a user 'admin' already")):
        status, _, err = peopled.run(*line.split(), typed=[])
        assert (status, said in err) == (2, True)


def test_account_command_on_a_data_directory_that_cannot_be_used_is_one_sentence(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not there, no directory, read-only; a directory is made for a new account only."""
    for line in ("user list", "user disable root", "token list"):
        status, _, err = shell.run(*line.split())
        assert (status, "There is no data directory" in err, shell.data_dir.exists()) == (2, True, False)
    (tmp_path / "data").write_text("")
    status, _, err = shell.run("user", "passwd", "root", "--password-stdin", stdin=PASSWORD)
    assert (status, "cannot be used (File exists)" in err, err.count("\n")) == (2, True, 1)
    (tmp_path / "data").unlink()

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(DirectoryLock, "take", read_only)
    status, _, err = shell.run("user", "passwd", "root", "--password-stdin", stdin=PASSWORD)
    assert (status, "cannot be used (Read-only file system)" in err, err.count("\n")) == (2, True, 1)


def test_account_command_beside_a_server_without_a_socket_is_one_sentence(peopled: Shell) -> None:
    """Its lock is held, and its cache directory is not the one that was named."""
    lock = DirectoryLock(peopled.data_dir)
    lock.take(0.0)
    status, _, err = peopled.run("user", "list")
    lock.close()
    assert (status, err.count("\n")) == (2, 1)
    assert "but no socket answers" in err
    assert "--cache-dir" in err


def test_user_disable_root_with_an_empty_password_allowed_is_refused(
    peopled: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would open the account instead."""
    peopled.run("user", "passwd", "root", "--password-stdin", stdin=PASSWORD)
    monkeypatch.setenv("TEEPI_INSECURE_EMPTY_ROOT", "true")
    status, _, err = peopled.run("user", "disable", "root")
    assert (status, "insecure_empty_root" in err) == (2, True)
    assert {row["user"]: row["login"] for row in peopled.json("user", "list")}["root"] == "password"
