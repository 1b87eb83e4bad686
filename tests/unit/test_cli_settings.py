"""``teepi config``: the file it writes, what it shows and what it finds wrong."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from teepi import cli, config
from tests.support.certificates import make_pair

if TYPE_CHECKING:
    from pathlib import Path

UPSTREAM = "https://index.example/simple/"


@pytest.fixture(autouse=True)
def home(xdg_home: Path) -> Path:
    """Return an empty home; the machine's own settings are shut out."""
    return xdg_home


def test_config_init_writes_a_file_that_sets_nothing_and_names_everything(home: Path) -> None:
    """Every setting stands there commented out, in a file for its owner alone."""
    assert cli.main(["config", "init"]) == 0
    path = home / "teepi" / "teepi.toml"
    text = path.read_text(encoding="utf-8")
    assert tomllib.loads(text) == {}
    assert path.stat().st_mode & 0o777 == 0o600
    for option in config.OPTIONS:
        assert f"\n# {option.name} = " in text


def test_config_init_examples_can_all_be_used(home: Path) -> None:
    """Whoever takes away the comment signs gets a configuration that holds."""
    text = cli_output_of_init(home)
    settings = "\n".join(re.findall(r"^# (\w+ = .*)", text.partition("# An index of its own")[0], re.MULTILINE))
    assert len(tomllib.loads(settings)) == len(config.OPTIONS)
    make_pair(home / "tls")
    (home / "all.toml").write_text(settings.replace("/etc/teepi/", f"{home}/tls/"), encoding="utf-8")
    assert cli.main(["config", "check", "--config", str(home / "all.toml")]) == 0


def cli_output_of_init(home: Path) -> str:
    """Return the file that ``config init`` writes."""
    assert cli.main(["config", "init", "--config", str(home / "new" / "teepi.toml")]) == 0
    return (home / "new" / "teepi.toml").read_text(encoding="utf-8")


def test_config_init_replaces_a_file_only_when_forced_and_keeps_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that somebody wrote is lost."""
    path = home / "teepi.toml"
    path.write_text("offline = true\n")
    assert cli.main(["config", "init", "--config", str(path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert cli.main(["config", "init", "--force", "--config", str(path)]) == 0
    assert (home / "teepi.toml.bak").read_text() == "offline = true\n"
    assert f"{path}.bak" in capsys.readouterr().out


def test_config_init_forced_again_keeps_every_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A later backup gets a number, and is named."""
    path = home / "teepi.toml"
    for content, backup in (("offline = true\n", "bak"), ("offline = false\n", "bak.2"), ("drain = 3\n", "bak.3")):
        path.write_text(content)
        assert cli.main(["config", "init", "--force", "--config", str(path)]) == 0
        assert f"{path}.{backup}" in capsys.readouterr().out
        assert path.with_name(f"teepi.toml.{backup}").read_text() == content
    assert (home / "teepi.toml.bak").read_text() == "offline = true\n"
    assert tomllib.loads(path.read_text()) == {}


def test_config_show_says_where_each_setting_came_from(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flag, variable, file and line, or default."""
    path = home / "some.toml"
    path.write_text(f'# a comment\npage_ttl = 7\nlog_level = "debug"\n\n[index."a/b"]\nupstream = "{UPSTREAM}"\n')
    monkeypatch.setenv("TEEPI_OFFLINE", "1")
    flags = ["--config", str(path), "--log-level", "error", "--upstream", UPSTREAM]
    assert cli.main(["config", "show", "--json", *flags]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["page_ttl"] == {"value": 7.0, "from": f"{path}, line 2"}
    assert shown["offline"] == {"value": True, "from": "TEEPI_OFFLINE"}
    assert shown["log_level"] == {"value": "error", "from": "--log-level"}
    assert shown["listen"] == {"value": ["127.0.0.1:3141"], "from": "default"}
    assert shown['index."a/b"'] == {"value": {"upstream": [UPSTREAM]}, "from": f"{path}, line 5"}
    assert shown['index."root/pypi"']["from"] == "--upstream"
    assert cli.main(["config", "show", *flags]) == 0
    assert re.search(r"^offline +true +TEEPI_OFFLINE$", re.sub(r" +\n", "\n", capsys.readouterr().out), re.MULTILINE)


def test_config_show_has_all_that_an_index_is_set_to(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its key, also what is zero or empty, which is not the default."""
    path = home / "some.toml"
    path.write_text(f'[index."a/b"]\nupstream = "{UPSTREAM}"\npage_ttl = 0\nproxy = ""\n')
    assert cli.main(["config", "show", "--json", "--config", str(path)]) == 0
    value = json.loads(capsys.readouterr().out)['index."a/b"']["value"]
    assert value == {"upstream": [UPSTREAM], "page_ttl": 0.0, "proxy": ""}
    assert cli.main(["config", "show", "--config", str(path)]) == 0
    out = capsys.readouterr().out
    assert "page_ttl = 0.0" in out
    assert 'proxy = ""' in out


def test_config_show_hides_secrets(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No password, token or header value is printed, wherever it was given."""
    path = home / "some.toml"
    path.write_text(
        '[index."a/b"]\nupstream = "https://me:s3cret@index.example/simple/"\nheaders = { X-Token = "s3cret" }\n'
        'proxy = "http://me:s3cret@proxy.example:1/"\n[index."c/d"]\nupstream = "https://c.example/"\n'
        'username = "me"\npassword = "s3cret"\n'
    )
    for more in ([], ["--json"]):
        assert cli.main(["config", "show", "--config", str(path), "--upstream", UPSTREAM, *more]) == 0
    out = capsys.readouterr().out
    assert "s3cret" not in out
    assert "X-Token" in out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("\npage_tll = 3", "line 2: page_tll is no key of teepi; write 'page_ttl'"),
        ("offline = true\npage_ttl = -1", "line 2: page_ttl = -1 cannot be used"),
        ('[index."a/b"]\n\nupstream = "x"', 'line 3: [index."a/b"] upstream = '),
        ('\n[index."a/b"]\n', 'line 2: [index."a/b"] lacks its upstream'),
        ('[index."a/b"]\nbases = ["root/pypi"]\n\n[index.\'a/c\']\n"upstreem" = 1\nbases = []', "line 5: "),
        ("[indx]\n", "line 1: indx is no section of teepi; write 'index'"),
        ("page_ttl = \n", "line 1"),
    ],
)
def test_config_check_names_file_line_key_and_reason(
    home: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    """One sentence leads to the place."""
    path = home / "some.toml"
    path.write_text(content)
    assert cli.main(["config", "check", "--config", str(path)]) == 2
    err = capsys.readouterr().err
    assert str(path) in err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("more", [[], ["--force"]])
def test_config_init_leaves_a_directory_and_an_unknown_home_alone(
    home: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """One sentence each; --force moves files out of the way, never a directory."""
    for place, said in ((str(home), "is a directory"), ("~no-such-user/teepi.toml", "unknown home")):
        assert cli.main(["config", "init", "--config", place, *more]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert home.is_dir()
