"""The ``[index."user/name"]`` sections: what they give, and each mistake with its sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from teepi import config
from teepi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from teepi.index_settings import IndexSettings

URL = "https://index.example/simple/"
SECRET = "hunter2"  # noqa: S105 - a fixture


def load(tmp_path: Path, section: str, environ: Mapping[str, str] | None = None) -> Mapping[str, IndexSettings]:
    """Return the indexes of a file with ``section`` as ``corp/main``."""
    file = tmp_path / "some.toml"
    file.write_text(f"upstream = '{URL}'\n[index.'corp/main']\n{section}\n", encoding="utf-8")
    return config.load({"config": str(file)}, {"HOME": str(tmp_path)} | dict(environ or {})).indexes


def test_index_section_gives_all_its_keys(tmp_path: Path) -> None:
    """Each key ends up where it is used."""
    index = load(
        tmp_path,
        "upstream = ['https://a.example/simple', 'https://b.example/s/']\npage_ttl = 5\nallow_private = true\n"
        "headers = {X-Team = 'a'}\nproxy = 'http://proxy.example:3128'",
    )["corp/main"]
    assert index.mirrors == ("https://a.example/simple/", "https://b.example/s/")
    assert (index.page_ttl_seconds, index.allow_private, index.proxy) == (5.0, True, "http://proxy.example:3128/")
    assert dict(index.headers) == {"X-Team": "a"}


@pytest.mark.parametrize("key", ["password = 'p/ss'", "password_env = 'CORP_PASSWORD'"])
def test_index_credentials_stand_in_every_url_without_its_own(tmp_path: Path, key: str) -> None:
    """From the file or a variable, encoded; user info of a URL goes first."""
    section = f"upstream = ['https://a.example', 'https://x:y@b.example']\nusername = 'u@v'\n{key}"
    index = load(tmp_path, section, {"CORP_PASSWORD": "p/ss"})["corp/main"]
    assert index.mirrors == ("https://u%40v:p%2Fss@a.example/", "https://x:y@b.example/")
    assert "p%2Fss" not in repr(index)


def test_index_credentials_come_from_netrc_by_host(tmp_path: Path) -> None:
    """For the hosts that it names, unless there are others; its default is for nobody."""
    netrc = tmp_path / ".netrc"
    netrc.write_text(
        "machine a.example login u password p\nmachine c.example login u password p\ndefault login d password d\n"
    )
    netrc.chmod(0o600)
    section = "upstream = ['https://a.example', 'https://b.example', 'https://x:y@c.example']"
    indexes = load(tmp_path, section)
    assert indexes["corp/main"].mirrors == ("https://u:p@a.example/", "https://b.example/", "https://x:y@c.example/")
    assert indexes["root/pypi"].upstream == URL


def test_index_netrc_that_cannot_be_read_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another program's file does not stop teepi; it is said, without what stands in it."""
    (tmp_path / ".netrc").write_text(f"machine a.example login u\nbanana {SECRET}\n")
    assert load(tmp_path, "upstream = 'https://a.example'")["corp/main"].upstream == "https://a.example/"
    assert ".netrc is not used" in caplog.text


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("upstream = []", "write a string, or a list of them"),
        ("upstream = ['https://a.example', 1]", "write a string, or a list of them"),
        ("upstream = ['https://a.example', 'ftp://b.example']", "'ftp://b.example' cannot be used"),
        (f"upstream = '{URL}'\npage_ttl = '5'", "page_ttl = '5' has the wrong type"),
        (f"upstream = '{URL}'\npage_ttl = true", "page_ttl = True has the wrong type"),
        (f"upstream = '{URL}'\npage_ttl = -1", "0 or more"),
        (f"upstream = '{URL}'\nallow_private = 1", "write true or false"),
        (f"upstream = '{URL}'\nheaders = 1", "write a table"),
        (f"upstream = '{URL}'\nheaders = {{Range = 'x'}}", "'Range' cannot be set"),
        (f"upstream = '{URL}'\nheaders = {{'a b' = 'x'}}", "'a b' cannot be set"),
        (f"upstream = '{URL}'\nheaders = {{X-A = \"{SECRET}\\r\\nHost: x\"}}", "the value of X-A"),
        (f"upstream = '{URL}'\nusername = 'u'\nheaders = {{authorization = '{SECRET}'}}", "exclude each other"),
        (f"upstream = '{URL}'\npassword = '{SECRET}'", "password needs a username"),
        (f"upstream = '{URL}'\nusername = 'u'\npassword_env = 'ABSENT'", "variable 'ABSENT' is not set"),
        (f"upstream = '{URL}'\nusername = 'u'\npassword = '{SECRET}'\npassword_env = 'HOME'", "twice"),
        (f"upstream = '{URL}'\nusername = 'u:v'", "no colon"),
        (f"upstream = '{URL}'\nusername = 1", "username has the wrong type"),
        (
            f"upstream = '{URL}'\nca_file = 'absent.pem'",
            "cannot be read (No such file or directory); write",
        ),
        (f"upstream = '{URL}'\nca_file = '~nobody-of-that-name/x.pem'", "cannot be read (Could not determine home"),
        (f"upstream = '{URL}'\nca_file = 'some.toml'", "there is no certificate in /"),
        (f"upstream = '{URL}'\nca_file = 'broken.pem'", "or a broken one; write the path of a PEM file"),
        (f"upstream = '{URL}'\nproxy = 'ftp://u:{SECRET}@proxy.example'", "proxy = 'ftp://…@proxy.example'"),
        (f"upstream = ['ftp://u:{SECRET}/x@a.example']", "cannot be used"),
        (f'upstream = "http://u:it\'s-{SECRET}@a.example/ simple/"', "'http://…@a.example/ simple/' cannot be used"),
        (f"upstream = ['{URL}', 'ftp://u:x@{SECRET}@a.example/']", "'ftp://…@a.example/' cannot be used"),
        (f"upstream = ['{URL}', ['http://u:{SECRET} x@a.example/']]", f"['{URL}', ['http://…@a.example/']] has"),
        (f"upstream = 'http://a.example/?token={SECRET}'", "'http://a.example/?…' cannot be used"),
        (f"upstream = {{url = '{URL}', password = '{SECRET}'}}", "upstream = {…} has the wrong type"),
    ],
)
def test_index_section_with_a_mistake_is_refused_with_a_sentence(tmp_path: Path, section: str, said: str) -> None:
    """What, where and what to do, and never a secret."""
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, section)
    assert said in caught.value.message
    assert caught.value.message.endswith(".")
    assert SECRET not in caught.value.message


def test_index_made_of_others_names_them(tmp_path: Path) -> None:
    """In order; the names of projects that are merged are normalised."""
    index = load(tmp_path, "bases = ['root/pypi', 'team/extra']\nmerge = ['Foo.Bar']\n" + EXTRA)["corp/main"]
    assert index.bases == ("root/pypi", "team/extra")
    assert index.merge == {"foo-bar"}
    assert not index.mirrors


EXTRA = "[index.'team/extra']\nupstream = 'https://a.example'\n"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("bases = []", "bases is empty"),
        ("bases = 'root/pypi'", "write a list of names"),
        ("bases = ['root/pypi', 1]", "write a list of names"),
        ("bases = ['root/pypi', 'root/pypi']", "names an index twice"),
        ("bases = ['root/pypy']", "there is no index 'root/pypy'; write 'root/pypi'"),
        ("bases = ['corp/main']", "in a circle (corp/main → corp/main)"),
        ("bases = ['team/a']\n[index.'team/a']\nbases = ['root/pypi', 'corp/main']", "corp/main → team/a → corp/main"),
        ("bases = ['root/pypi']\nmerge = ['-']", "not the name of a project"),
        ("bases = ['root/pypi']\nmerge = 'x'", "merge = 'x' has the wrong type"),
        (f"bases = ['root/pypi']\nupstream = '{URL}'", "upstream and bases exclude each other"),
        ("bases = ['root/pypi']\npage_ttl = 5", "page_ttl and bases exclude each other"),
        (f"upstream = '{URL}'\nmerge = ['x']", "merge and upstream exclude each other"),
    ],
)
def test_index_made_of_others_with_a_mistake_is_refused(tmp_path: Path, section: str, said: str) -> None:
    """Unknown bases and circles stop the start."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, section)
    assert said in caught.value.message
