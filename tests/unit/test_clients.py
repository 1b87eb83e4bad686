"""``teepi configure``: what it writes into the files of installers, and that undoing gives back every byte."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from teepi import cli, config
from teepi.clients import address, ini, marks, toml
from teepi.clients.change import set_up, take_back
from teepi.clients.known import Surroundings, clients
from teepi.clients.marks import Edit
from teepi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "http://127.0.0.1:3141/root/pypi/+simple/"
OWN = "https://index.example/simple/"
FILES = {
    "pip": "pip/pip.conf",
    "uv": "uv/uv.toml",
    "pdm": "pdm/config.toml",
    "poetry": "project/pyproject.toml",
    "pipenv": "../.profile",
}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty home in which nothing of this machine's settings is seen."""
    named = ("PIP_", "UV_", "PDM_", "POETRY_", "PIPENV_", "XDG_")
    for variable in [name for name in os.environ if name.startswith((*named, config.CONFIG_VARIABLE))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/sh")
    project = tmp_path / ".config" / "project"
    project.mkdir(parents=True)
    monkeypatch.chdir(project)
    return tmp_path


@pytest.fixture
def file(home: Path) -> Callable[[str, str], Path]:
    """Give a function that writes a client's file."""

    def write(name: str, content: str) -> Path:
        path = Path(os.path.normpath(home / ".config" / FILES[name]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
        return path

    return write


@pytest.fixture
def configure(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Give a function that runs the command, which must end well, and returns what it prints."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        status = cli.main(["configure", *arguments])
        out, err = capsys.readouterr()
        assert (status, err) == (0, ""), err
        return out

    return run


ODD = {
    "pip": [
        f"# mine\n[global]\nindex-url = {OWN}\ntimeout = 30\n",
        f"[global]\r\nindex_url={OWN}\r\ntrusted-host =\r\n  a.example\r\n  # why\r\n  b.example\r\n\r\n[a]\r\nx = 1",
        "[install]\nno-compile = yes\n\n[global]",
        f"\n\n; only\n[freeze]\n timeout: 10\n\n[global]\nindex-url :\n   {OWN}\n\n",
        "[global]\nextra-index-url = \n  https://a.example\n\n  https://b.example\n[x]\n",
    ],
    "uv": [
        "# only a comment",
        f'native-tls = true # y\n[[index]]\nurl = "{OWN}"\ndefault = true\n\n# gpu\n[[index]]\nname = "pt"\n\n[pip]\n',
        f'[[index]]\r\nname = "pt"\r\n\r\n[[ "index" ]] # x\r\nurl = "{OWN}"\r\ndefault = true',
        f'index-url = "{OWN}"\n',
        f'[[index]]\nurl = "{OWN}"\ndefault = true\n[[index]]\nurl = "{OWN}b"\ndefault = true\n',
    ],
    "pdm": [
        f'check_update = false\n\n[pypi]\n# mine\nurl = "{OWN}" # here\nverify_ssl = false\n',
        "[pypi]\r\nverify_ssl = true",
        f'pypi.url = "{OWN}"\n[venv]\nin_project = true\n',
        "pypi.verify_ssl = true",
        '[pypi.corp]\nurl = "https://corp.example/"\n',
    ],
    "poetry": [
        '[project]\nname = "app"\nversion = "0"\n\n[tool.poetry]\npackage-mode = false',
        f'[[tool.poetry.source]]\nname = "teepi"\nurl = "{OWN}"\n\n[tool.ruff]\nline-length = 3\n',
        f'[project]\n[[tool.poetry.source]]\r\nname = "corp"\r\nurl = "{OWN}"\r\npriority = "explicit"\r\n',
    ],
    "pipenv": [
        "# ~/.profile\nif true; then\n\tPATH=$HOME/bin:$PATH\nfi",
        f"export PIPENV_PYPI_MIRROR='{OWN}'\numask 022\n",
        "",
    ],
}
CASES = [(name, content) for name, contents in ODD.items() for content in contents]


@pytest.mark.parametrize(("name", "content"), CASES)
def test_configure_changes_its_own_lines_and_undo_gives_back_every_byte(
    file: Callable[[str, str], Path], configure: Callable[..., str], name: str, content: str
) -> None:
    """Comments, order, line ends, a missing newline at the end, a former value: twice set up, once taken back."""
    path = file(name, content)
    path.chmod(0o640)
    shown = configure(name, "--print")
    assert path.read_bytes() == content.encode()
    configure(name)
    text = path.read_bytes().decode()
    client = clients(Surroundings(os.environ, path.parent))[name]
    assert address.is_same_server(client.index(text), URL)
    comments = [line.rstrip() for line in marks.lines_of(content) if line.startswith("# ")]
    assert [line.rstrip() for line in marks.lines_of(text) if line.rstrip() in comments] == comments
    if "\n" not in content.replace("\r\n", ""):
        assert content == "" or ("\n" in text.replace("\r\n", "")) == ("\r\n" not in content)
    assert all(line[1:] in text.replace("\r", "") for line in shown.splitlines() if re.match(r"\+[^+]", line))
    configure(name)
    assert path.read_bytes().decode() == text
    configure(name, "--url", "https://teepi.example/", "--index", "corp/main")
    assert "https://teepi.example/corp/main/+simple" in path.read_text()
    configure(name, "--undo")
    assert path.read_bytes() == content.encode()
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.with_name(path.name + ".before-teepi").read_bytes() == content.encode()
    assert "nothing of teepi's" in configure(name, "--undo")


@pytest.mark.parametrize("name", [name for name in FILES if name != "poetry"])
def test_configure_without_a_file_makes_one_that_undo_removes(
    home: Path, configure: Callable[..., str], name: str
) -> None:
    """Where nothing was, nothing is left; what the owner adds meanwhile stays."""
    path = Path(os.path.normpath(home / ".config" / FILES[name]))
    configure(name)
    made = path.read_bytes()
    configure(name, "--undo")
    assert not path.exists()
    configure(name)
    path.write_bytes(made + b"# mine\n")
    configure(name, "--undo")
    assert path.read_bytes() == b"# mine\n"


LINES = {
    "pip": ["[global]", "[install]", "[a]", f"index-url = {OWN}", "index_url:x", "trusted-host = a b", "  more", "   x",
            "# c", "; c", " # c", "", "x = 1", "  y = 2", "z", "=", "[global", "\f", "a\rb", "\ufeff", "é = ü"],
    "uv": ["[[index]]", "[[ index ]] # c", f'url = "{OWN}"', "default = true", "[pip]", "# c", "", 'x = """', '"""',
           "[a.b]", "default = 1", 'name = "teepi"', "index = []", "\f", "a = [", "]", "a\rb = 1"],
    "pdm": ["[pypi]", "[[pypi]]", f"url = '{OWN}'", "'url' = 1", "pypi.url = 'x'", "pypi . a = 1", "# c", "", 'x = """',
            '"""', "[pypi.corp]", "pypi = {}", "[a]", "[ 'pypi' ]"],
    "poetry": ["[[tool.poetry.source]]", 'name = "teepi"', f'url = "{OWN}"', "[tool.poetry]", "source = []", "", "# c",
               "[tool]", "poetry = {}", "[[tool.poetry]]", 'x = """', '"""', 'priority = "primary"', "tool = 1"],
    "pipenv": ["export PIPENV_PYPI_MIRROR=x", "# c", "", "if", "\tfi", "set -gx PIPENV_PYPI_MIRROR y", "a\rb"],
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
    deadline=None,
    max_examples=40,
)
@given(data=st.data())
def test_configure_of_any_file_is_right_or_refused(
    file: Callable[[str, str], Path], name: str, data: st.DataObject
) -> None:
    """Either every other setting and byte stays and undo restores them, or one sentence and no change."""
    ends = st.sampled_from(["\n", "\n", "\r\n"])
    lines = data.draw(st.lists(st.tuples(st.sampled_from(LINES[name]), ends), max_size=9))
    content = "".join(line + end for line, end in lines)
    content = content if data.draw(st.booleans()) else content.removesuffix("\n")
    path = file(name, content)
    around = Surroundings(os.environ, path.parent)
    client = clients(around)[name]
    try:
        change = set_up(client, around, URL)
    except ConfigError as error:
        assert "nothing was changed" in error.message  # noqa: PT017 - its own words are the fact
        return
    path.write_bytes(change.text.encode())
    assert not set_up(client, around, URL).is_needed
    assume(change.is_needed)
    assert client.read(change.text) == client.changed(client.read(content), client.written(URL))
    assert take_back(client, around, URL).text == content


@given(
    st.lists(st.sampled_from(["a\n", "\n", "b\r\n", "# was: x\n", "\r", "é\n"]), max_size=6).map("".join),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), max_size=3),
    st.booleans(),
)
def test_marks_of_any_edits_are_removed_without_a_trace(
    text: str,
    spans: list[tuple[int, int]],
    is_new_file: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    """Whatever lines give way, they come back."""
    count = len(marks.lines_of(text))
    edits, at = [], 0
    for start, length in sorted(spans):
        begin = min(max(start, at), count)
        edits.append(Edit(begin, min(begin + length, count), ("new",)))
        at = edits[-1].stop + 1
        if at > count:
            break
    marked = marks.insert(text, edits, is_new_file=is_new_file)
    assert marks.remove(marked) == text
    assert marks.has_marks(marked) == bool(edits)
    assert marks.is_new_file(marked) == (is_new_file and bool(edits))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("pip", "index-url = x\n", "cannot be read: File contains no section headers"),
        ("pip", "index-url = https://u:it's s3cret@a.example/\n", "https://…@a.example/"),
        ("pip", "[global]\n[global]\n", "already exists"),
        ("uv", "[[index]\n", "cannot be read"),
        ("uv", "index = []\n", "cannot be changed line by line"),
        ("pdm", "pypi = 3\n", "pypi is no table"),
        ("poetry", "a = 1\na = 2\n", "line 2"),
        ("pip", "# >>> teepi configure >>>\n[global]\n", "has lost its other one"),
    ],
)
def test_configure_of_a_damaged_file_says_one_sentence_and_writes_nothing(
    file: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str], name: str, content: str, said: str
) -> None:
    """Status 2, and not even a backup."""
    path = file(name, content)
    assert cli.main(["configure", name]) == 2
    err = capsys.readouterr().err
    assert str(path) in err
    assert said in err
    assert "s3cret" not in err
    assert err.count("\n") == 1
    assert path.read_text() == content
    assert not list(path.parent.glob("*.before-teepi"))


def test_configure_of_a_file_that_is_not_text_writes_nothing_anywhere(
    file: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The line is named; the other client on the command line is left alone, too."""
    path = file("pip", "")
    path.write_bytes(b"[global]\nx = \xff\n")
    assert cli.main(["configure", "uv", "pip"]) == 2
    assert f"{path}, line 2 is not UTF-8" in capsys.readouterr().err
    assert not (path.parents[1] / "uv").exists()


def test_configure_of_a_read_only_file_is_refused(
    file: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also for root, who could write it."""
    path = file("pip", "[global]\n")
    path.chmod(0o444)
    assert cli.main(["configure", "pip"]) == 2
    assert "is read-only; make it writable first" in capsys.readouterr().err
    assert sorted(each.name for each in path.parent.iterdir()) == ["pip.conf"]


def test_configure_of_what_is_no_file_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``PIP_CONFIG_FILE=/dev/null``, a directory, a pipe that would wait for ever, a link to itself."""
    os.mkfifo(home / "pipe")
    (home / "self").symlink_to(home / "self")
    for place in (os.devnull, home, home / "pipe", home / "self"):
        monkeypatch.setenv("PIP_CONFIG_FILE", str(place))
        assert cli.main(["configure", "pip"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_configure_follows_a_symlink_and_keeps_it(
    home: Path, file: Callable[[str, str], Path], configure: Callable[..., str]
) -> None:
    """A file that lives among somebody's dotfiles is changed there."""
    path = file("pip", "")
    path.unlink()
    (home / "dotfiles").mkdir()
    (home / "dotfiles" / "pip.conf").write_text("[global]\ntimeout = 3\n")
    path.symlink_to("../../dotfiles/pip.conf")
    configure("pip")
    assert path.is_symlink()
    assert URL in (home / "dotfiles" / "pip.conf").read_text()
    configure("pip", "--undo")
    assert (home / "dotfiles" / "pip.conf").read_text() == "[global]\ntimeout = 3\n"


def test_configure_keeps_the_first_backup(file: Callable[[str, str], Path], configure: Callable[..., str]) -> None:
    """One backup, of what was there before teepi; no later run touches it."""
    path = file("pip", "[global]\n")
    path.chmod(0o600)
    configure("pip")
    path.write_text(path.read_text() + "timeout = 3\n")
    configure("pip", "--url", "http://127.0.0.1:9999")
    backup = path.with_name("pip.conf.before-teepi")
    assert backup.read_text() == "[global]\n"
    assert backup.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == ["pip.conf", "pip.conf.before-teepi"]


def test_configure_of_another_file_after_undo_keeps_that_one_too(
    file: Callable[[str, str], Path], configure: Callable[..., str]
) -> None:
    """The sentence names the backup of what was there before; the same content has one backup only."""
    for content, backup in (("timeout = 1", ""), ("timeout = 2", ".2"), ("timeout = 1", ""), ("timeout = 3", ".3")):
        path = file("pip", f"[global]\n{content}\n")
        kept = path.with_name(f"pip.conf.before-teepi{backup}")
        assert f"what was there before is in {kept}.\n" in configure("pip")
        assert kept.read_text() == f"[global]\n{content}\n"
        configure("pip", "--undo")
        assert path.read_text() == f"[global]\n{content}\n"
    assert len(list(file("pip", "").parent.iterdir())) == 4


@pytest.mark.parametrize(
    ("url", "trusted", "written"),
    [
        ("http://127.0.0.1:3141", "", "127.0.0.1:3141"),
        ("http://box.example:3141", "a.example", "a.example box.example:3141"),
        ("http://box.example:3141", "a box.example", None),
        ("http://[::1]:3141", "", "[::1]:3141"),
        ("https://box.example", "a", None),
    ],
)
def test_configure_pip_trusts_the_host_only_where_plain_http_needs_it(
    file: Callable[[str, str], Path], configure: Callable[..., str], url: str, trusted: str, written: str | None
) -> None:
    """Without it pip keeps nothing in its cache, and refuses other machines; the list that is there goes on holding."""
    path = file("pip", f"[global]\ntrusted-host = {trusted}\n" if trusted else "")
    configure("pip", "--url", url)
    content = ini.read(path.read_text())["global"]
    assert content["index-url"] == f"{url}/root/pypi/+simple/"
    assert content.get("trusted-host", "") == (trusted if written is None else written)


def test_configure_adds_what_the_owners_own_line_lacks(
    file: Callable[[str, str], Path], configure: Callable[..., str]
) -> None:
    """A trusted host for an index that is there already; one index of a name, since uv asks all of them."""
    path = file("pip", f"[global]\nindex-url = {URL}\n")
    configure("pip")
    assert ini.read(path.read_text())["global"]["trusted-host"] == "127.0.0.1:3141"
    path = file("uv", f'[[index]]\nname = "teepi"\nurl = "{OWN}"\n')
    configure("uv")
    assert toml.read(path.read_text())["index"] == [{"name": "teepi", "url": URL, "default": True}]


def test_configure_takes_the_address_from_the_settings(
    home: Path, configure: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """All interfaces are reached over loopback; any free port is no address."""
    place = home / ".config" / "uv" / "uv.toml"
    for listen, url in (("0.0.0.0:80", "127.0.0.1:80"), ("[::]:81", "[::1]:81"), ("box.example:82", "box.example:82")):
        configure("uv", "--listen", listen)
        assert toml.read(place.read_text())["index"][0]["url"] == f"http://{url}/root/pypi/+simple/"
    configure("uv", "--url", "https://teepi.example/team/all/+simple")
    assert "https://teepi.example/team/all/+simple/" in place.read_text()
    for wrong in (["--listen", "127.0.0.1:0"], ["--url", "teepi"], ["--url", "http://me:pw@x/"], ["--index", "x"]):
        assert cli.main(["configure", "uv", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_configure_says_what_goes_before_it(
    file: Callable[[str, str], Path], configure: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of this shell, another section: both would make the change look vain."""
    file("pip", "[install]\nindex-url = https://me:s3cret@other.example/\n")
    monkeypatch.setenv("PIP_INDEX_URL", OWN)
    said = configure("pip")
    assert "goes before it: https://…@other.example/" in said
    assert "unset PIP_INDEX_URL" in said
    assert "s3cret" not in configure("pip", "--undo", "--print")


def test_configure_uses_pips_old_place_where_that_is_in_use(home: Path, configure: Callable[..., str]) -> None:
    """``~/.pip/pip.conf``: the new place would put its list of trusted hosts out of force."""
    (home / ".pip").mkdir()
    (home / ".pip" / "pip.conf").write_text("[global]\ntrusted-host = a\n")
    configure("pip")
    assert URL in (home / ".pip" / "pip.conf").read_text()


@pytest.mark.parametrize(
    ("shell", "there", "place", "line"),
    [
        ("/bin/sh", [], ".profile", f"export PIPENV_PYPI_MIRROR={URL[:-1]}"),
        ("/bin/bash", [".profile", ".bash_profile"], ".bash_profile", f"export PIPENV_PYPI_MIRROR={URL[:-1]}"),
        ("/bin/bash", [".profile"], ".profile", f"export PIPENV_PYPI_MIRROR={URL[:-1]}"),
        ("/bin/zsh", [], ".zshenv", f"export PIPENV_PYPI_MIRROR={URL[:-1]}"),
        ("/bin/fish", [], ".config/fish/conf.d/teepi.fish", f"set -gx PIPENV_PYPI_MIRROR {URL[:-1]}"),
    ],
)
def test_configure_pipenv_writes_what_the_login_shell_reads(
    home: Path, configure: Callable[..., str], monkeypatch: pytest.MonkeyPatch,
    shell: str, there: list[str], place: str, line: str,
) -> None:  # fmt: skip
    """A mirror comes to pipenv from the environment alone."""
    monkeypatch.setenv("SHELL", shell)
    for name in there:
        (home / name).touch()
    assert "from the next login on" in configure("pipenv")
    assert line in (home / place).read_text().splitlines()


def test_configure_poetry_outside_a_project_says_what_to_do(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poetry has no index for all projects but by a plugin; the line for that is given."""
    monkeypatch.chdir(home)
    assert cli.main(["configure", "poetry"]) == 2
    assert f"export POETRY_PYPI_MIRROR_URL={URL}" in capsys.readouterr().err


def test_configure_undo_of_a_line_without_marks_says_where_it_is(
    file: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """``pip config set`` drops comments: what is left cannot be told from the owner's and stays."""
    path = file("pip", f"[global]\nindex-url = {URL}\n")
    assert cli.main(["configure", "pip", "--undo"]) == 2
    assert f"{path} leads to teepi" in capsys.readouterr().err


def test_configure_without_a_client_lists_which_use_teepi(
    file: Callable[[str, str], Path], configure: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From files and variables, and a damaged file does not hide the others."""
    file("uv", "[")
    file("pip", "[global]\nindex-url = https://me:s3cret@other.example/\n")
    monkeypatch.setenv("PIPENV_PYPI_MIRROR", "http://localhost:3141/simple")
    configure("pdm")
    rows = {row["client"]: row for row in json.loads(configure("--json"))}
    assert {name: row["uses_teepi"] for name, row in rows.items()} == {
        "pip": False, "uv": False, "poetry": False, "pipenv": True, "pdm": True,
    }  # fmt: skip
    said = configure()
    assert "✓ pipenv  http://localhost:3141/simple (PIPENV_PYPI_MIRROR)" in said
    assert "· pip     https://…@other.example/" in said
    assert "✗ uv" in said
    assert "teepi configure poetry" in said
