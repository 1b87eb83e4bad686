"""The settings: where they come from, which place wins, and what is said of a wrong one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from distlib.index import DEFAULT_INDEX

from teepi import config
from teepi.config import Settings
from teepi.errors import ConfigError
from teepi.index_settings import IndexSettings

if TYPE_CHECKING:
    from collections.abc import Callable

UPSTREAM = "https://index.example/simple/"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Return an environment with nothing but a home directory."""
    return {"HOME": str(tmp_path)}


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Write a configuration file and return the arguments that name it."""

    def write(content: str) -> dict[str, Any]:
        (tmp_path / "some.toml").write_text(content, encoding="utf-8")
        return {"config": str(tmp_path / "some.toml")}

    return write


def refusal(arguments: dict[str, Any], environ: dict[str, str]) -> str:
    """Return the sentence with which the settings are refused."""
    with pytest.raises(ConfigError) as caught:
        config.load(arguments, environ)
    assert "\n" not in caught.value.message
    assert caught.value.message.endswith(".")
    return caught.value.message


def test_load_nothing_given_uses_defaults(home: dict[str, str], tmp_path: Path) -> None:
    """Without flags, variables and file everything has its documented default."""
    parts = urlsplit(DEFAULT_INDEX)
    assert config.load({}, home) == Settings(
        listen=(("127.0.0.1", 3141),),
        tls_cert=None,
        tls_key=None,
        outside_url=None,
        allowed_hosts=(),
        indexes={"root/pypi": IndexSettings(f"{parts.scheme}://{parts.netloc}/simple/")},
        has_built_in=True,
        cache_dir=tmp_path / ".cache" / "teepi",
        data_dir=tmp_path / ".local" / "share" / "teepi",
        max_size_bytes=None,
        min_free_bytes=5 << 30,
        max_age_unused_days=None,
        scrub=True,
        proxpi_invalidation=False,
        page_ttl_seconds=600.0,
        patience_seconds=2.0,
        offline=False,
        synthesize_metadata=True,
        drain_seconds=5.0,
        log_level="info",
        log_format="text",
        restrict_modify=(),
        insecure_empty_root=False,
        max_upload_bytes=10 << 30,
        access_log=None,
        access_log_format="combined",
    )


def test_load_upstream_given_does_not_look_for_the_default(
    home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library that knows the default upstream is imported only when it is needed."""
    monkeypatch.setitem(__import__("sys").modules, "distlib.index", None)
    assert config.load({"upstream": UPSTREAM}, home).indexes["root/pypi"].upstream == UPSTREAM
    with pytest.raises(ImportError):
        config.load({}, home)


GIVEN: dict[str, tuple[str, str, str, Any]] = {
    # name: text for flag and variable, other text, TOML, the value of the first
    "listen": ("[::1]:80", "localhost:1", '["10.0.0.1:2"]', (("::1", 80),)),
    "tls_cert": ("/a.pem", "/b.pem", '"/c.pem"', Path("/a.pem")),
    "tls_key": ("/a.pem", "/b.pem", '"/c.pem"', Path("/a.pem")),
    "outside_url": ("https://a.example/x/", "http://b.example", '"http://c.example"', "https://a.example/x"),
    "allowed_hosts": ("A.example, *.b.example.", "c.example", '["d.example"]', ("a.example", "*.b.example")),
    "upstream": ("http://a.example/x", "http://b.example/", '"http://c.example/"', "http://a.example/x/"),
    "cache_dir": ("/a/cache", "/b", '"/c"', Path("/a/cache")),
    "data_dir": ("/a/data", "/b", '"/c"', Path("/a/data")),
    "max_size": ("20GiB", "1.5kB", "7", 20 << 30),
    "min_free": ("1GB", "2", '"3MiB"', 10**9),
    "max_age_unused": ("1.5", "2", "3", 1.5),
    "scrub": ("no", "yes", "true", False),
    "proxpi_invalidation": ("yes", "no", "false", True),
    "page_ttl": ("1.5", "2", "3", 1.5),
    "patience": ("0", "0.5", "3", 0.0),
    "offline": ("true", "false", "false", True),
    "synthesize_metadata": ("no", "yes", "true", False),
    "drain": ("0.5", "2", "3", 0.5),
    "restrict_modify": ("root", "root,:authenticated:", '["a", "b"]', ("root",)),
    "insecure_empty_root": ("yes", "no", "false", True),
    "max_upload": ("1GiB", "1.5kB", "7", 1 << 30),
    "log_level": ("DEBUG", "error", '"warning"', "debug"),
    "log_format": ("JSON", "text", '"text"', "json"),
    "access_log": ("/a.log", "-", '"off"', Path("/a.log")),
    "access_log_format": ("JSON", "combined", '"combined"', "json"),
}


def test_every_option_is_tried_in_all_places() -> None:
    """A new setting joins the test of precedence."""
    assert [option.name for option in config.OPTIONS] == list(GIVEN)


@pytest.mark.parametrize("option", config.OPTIONS, ids=lambda option: option.name)
def test_load_option_in_all_places_takes_flag_then_variable_then_file(
    option: config.Option, home: dict[str, str], toml: Callable[[str], dict[str, Any]]
) -> None:
    """Flag, variable and key have one name; the nearest to the command wins."""
    text, other, in_file, value = GIVEN[option.name]
    assert (option.flag, option.variable) == (
        "--" + option.name.replace("_", "-"),
        "TEEPI_" + option.name.upper(),
    )

    def loaded(arguments: dict[str, Any], environ: dict[str, str]) -> Any:
        settings = config.load(arguments, home | environ)
        if option.name == "upstream":
            return settings.indexes["root/pypi"].upstream
        return getattr(settings, next(field.name for field in fields(settings) if field.name.startswith(option.name)))

    with_it = {"tls_cert": 'tls_key = "/k.pem"', "tls_key": 'tls_cert = "/c.pem"'}
    file = toml(f"{option.name} = {in_file}\n{with_it.get(option.name, '')}")
    from_file, from_variable = loaded(file, {}), loaded(file, {option.variable: other})
    assert from_file != value
    assert loaded(file, {option.variable: text}) == value
    assert loaded(file | {option.name: text}, {option.variable: other}) == value
    assert loaded(file | {option.name: None}, {option.variable: other}) == from_variable
    assert loaded(file, {option.variable: " "}) == from_file


def test_load_xdg_directories_are_used_when_absolute(home: dict[str, str], tmp_path: Path) -> None:
    """The XDG variables say where things are; a relative one is ignored, as their specification wants."""
    settings = config.load({}, home | {"XDG_CACHE_HOME": "/xdg/cache", "XDG_DATA_HOME": "relative"})
    assert settings.cache_dir == Path("/xdg/cache/teepi")
    assert settings.data_dir == tmp_path / ".local" / "share" / "teepi"


def test_load_without_home_asks_for_what_it_needs() -> None:
    """In a container without HOME the directories have to be given, and then nothing else is missing."""
    assert "TEEPI_CACHE_DIR" in refusal({"upstream": UPSTREAM, "data_dir": "/data"}, {})
    given = {"upstream": UPSTREAM, "data_dir": "/data", "cache_dir": "/cache"}
    assert config.load(given, {}).cache_dir == Path("/cache")


def test_load_file_in_its_xdg_place_is_read(home: dict[str, str], tmp_path: Path) -> None:
    """The file is found by itself, and TEEPI_CONFIG or --config name another."""
    place = tmp_path / ".config" / "teepi"
    place.mkdir(parents=True)
    (place / "teepi.toml").write_text("page_ttl = 1")
    (tmp_path / "other.toml").write_text("page_ttl = 2")
    other = str(tmp_path / "other.toml")
    assert config.load({}, home).page_ttl_seconds == 1
    assert config.load({}, home | {"TEEPI_CONFIG": other}).page_ttl_seconds == 2
    assert config.load({"config": other}, home).page_ttl_seconds == 2
    assert config.load({"config": str(place / "teepi.toml")}, home | {"TEEPI_CONFIG": other}).page_ttl_seconds == 1


def test_load_relative_directory_in_file_is_below_the_file(
    home: dict[str, str], toml: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file means the same wherever teepi is started; a flag is relative to where one stands."""
    monkeypatch.chdir("/")
    assert config.load(toml('cache_dir = "cache"'), home).cache_dir == tmp_path / "cache"
    assert config.load({"cache_dir": "cache"}, home).cache_dir == Path("/cache")


@pytest.mark.parametrize(
    ("given", "listen"),
    [
        ("127.0.0.1:0", (("127.0.0.1", 0),)),
        ("[::1]:3141,localhost:80", (("::1", 3141), ("localhost", 80))),
        (" a:1  b:2 ,\tc:65535 ", (("a", 1), ("b", 2), ("c", 65535))),
        (["a:1", "b:2", "a:1"], (("a", 1), ("b", 2))),
    ],
)
def test_load_listen_takes_several_addresses(
    home: dict[str, str], given: object, listen: tuple[tuple[str, int], ...]
) -> None:
    """Addresses are repeated, or separated by commas or blanks; brackets are no part of the host."""
    assert config.load({"listen": given}, home).listen == listen


@pytest.mark.parametrize(
    "given", ["3141", ":3141", "host", "host:", "host:http", "host:65536", "host:٣", "::1:80", "[x]:1", "a b:1", ","]
)
def test_load_listen_wrong_is_refused(home: dict[str, str], given: str) -> None:
    """What is no HOST:PORT is named with the flag and the value."""
    assert refusal({"listen": [given]}, home).startswith(f"--listen = ['{given}'] cannot be used: ")


@pytest.mark.parametrize(
    ("given", "upstream"),
    [
        ("https://index.example", "https://index.example/"),
        ("HTTPS://index.example/simple", "https://index.example/simple/"),
        ("http://[::1]:8080/root//", "http://[::1]:8080/root/"),
    ],
)
def test_load_upstream_gets_its_final_slash(home: dict[str, str], given: str, upstream: str) -> None:
    """Projects are joined to the upstream, so it always ends in one slash."""
    assert config.load({"upstream": given}, home).indexes["root/pypi"].upstream == upstream


@pytest.mark.parametrize(
    "given",
    [
        "index.example/simple/",
        "ftp://index.example/",
        "file:///srv/index",
        "https:///simple/",
        "https://index.example/?a=b",
        "https://index.example/?",
        "https://index.example/#top",
        "https://index.example:99999/",
        "https://[::1/",
        "https://index.example\\@other.example/",
        "https://index.example/a b",
        "https://index.example/\x00",
        "https:",
    ],
)
def test_load_upstream_wrong_is_refused(home: dict[str, str], given: str) -> None:
    """Only an absolute http or https URL without query and fragment is an upstream."""
    assert "TEEPI_UPSTREAM" in refusal({}, home | {"TEEPI_UPSTREAM": given})


def test_load_upstream_with_password_wrong_does_not_show_it(home: dict[str, str]) -> None:
    """A message ends in logs, where a password has no place."""
    assert "secret" not in refusal({"upstream": "ftp://user:secret@index.example/"}, home)


@pytest.mark.parametrize(
    "given",
    [
        *("a.example:80", "https://a.example", "*", "*.", ".a.example", "a..example", "a.*.example", "a.example/x"),
        *("[::1]", "ä.example"),
    ],
)
def test_load_allowed_hosts_wrong_are_refused(home: dict[str, str], given: str) -> None:
    """Names alone: ports do not matter, and nothing allows every name."""
    assert "TEEPI_ALLOWED_HOSTS" in refusal({}, home | {"TEEPI_ALLOWED_HOSTS": given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://a.example", "https://a.example"),
        ("http://[::1]:3141/", "http://[::1]:3141"),
        (" https://A.example:8443/sub/b-c// ", "https://A.example:8443/sub/b-c"),
    ],
)
def test_load_outside_url_loses_its_final_slash(home: dict[str, str], given: str, expected: str) -> None:
    """Paths that begin with one are put behind it."""
    assert config.load({"outside_url": given}, home).outside_url == expected


@pytest.mark.parametrize(
    "given",
    [
        *("a.example", "//a.example", "ftp://a.example", "https://", "https://a.example:0", "https://a.example:65536"),
        *("https://u:p@a.example/", "https://a.example/?x", "https://a.example/#x", "https://a.example/$(x)"),
        *("https://a.example//x", "https://[1:2]/", "https://a b.example/"),
    ],
)
def test_load_outside_url_wrong_is_refused(home: dict[str, str], given: str) -> None:
    """It is absolute, http or https, and may be pasted into a shell."""
    assert "TEEPI_OUTSIDE_URL" in refusal({}, home | {"TEEPI_OUTSIDE_URL": given})


@pytest.mark.parametrize("given", ["-1", "nan", "inf", "1e999", "ten", "", "10s"])
@pytest.mark.parametrize("name", ["page_ttl", "patience"])
def test_load_seconds_wrong_are_refused(home: dict[str, str], given: str, name: str) -> None:
    """Seconds are finite and not negative."""
    assert refusal({name: given}, home).startswith(f"--{name.replace('_', '-')} = '{given}' cannot be used: ")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("offline", "maybe"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("cache_dir", " "),
        ("data_dir", "a\0b"),
        ("cache_dir", "~nobody0/x"),
    ],
)
def test_load_other_value_wrong_is_refused(home: dict[str, str], name: str, given: str) -> None:
    """Every value is checked at the start, not when it is first used."""
    assert "cannot be used" in refusal({name: given}, home)


@pytest.mark.parametrize(
    ("variable", "hint"), [("TEEPI_PAGETTL", "TEEPI_PAGE_TTL"), ("TEEPI_CONFIGURATION", "TEEPI_CONFIG")]
)
def test_load_unknown_variable_is_refused_with_the_nearest(home: dict[str, str], variable: str, hint: str) -> None:
    """A mistyped variable does not silently do nothing."""
    sentence = refusal({}, home | {variable: "1"})
    assert variable in sentence
    assert f"'{hint}'" in sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("page-ttl = 3", "line 1: page-ttl is no key of teepi; write 'page_ttl'"),
        ("[indexes.x]", "line 1: indexes is no section of teepi; write 'index'"),
        ("zzz = 1", "write one of listen, tls_cert,"),
        ("config = 'x'", "line 1: config is no key of teepi"),
        ("page_ttl = '3'", "page_ttl = '3' has the wrong type; write a whole number or a number"),
        ("page_ttl = true", "has the wrong type"),
        ("page_ttl = -1", "page_ttl = -1 cannot be used"),
        ("offline = 1", "write true or false"),
        ("listen = [3141]", "every address is a string"),
        ("listen = []", "it names no address"),
        ("upstream = ['x']", "write a string"),
        ("page_ttl = 2024-01-01", "has the wrong type"),
        ("a = 1\nb = ?", "line 2"),
        ("index = 1", "index is a section"),
        ("[index.root]\nupstream = 'http://a.example/'", 'an index is named "user/name"'),
        ("[index.'root/pypi/x']\nupstream = 'http://a.example/'", 'an index is named "user/name"'),
        ("[index.'Root/pypi']\nupstream = 'http://a.example/'", "lower-case"),
        ("[index.'simple/main']\nupstream = 'http://a.example/'", "'simple' is reserved"),
        ("[index.'corp/json']\nupstream = 'http://a.example/'", "'json' is reserved"),
        ("[index.'+corp/main']\nupstream = 'http://a.example/'", "lower-case"),
        ("[index.'corp/main']", "lacks its upstream"),
        ("index = {'corp/main' = 'x'}", "lacks its upstream"),
        ("[index.'corp/main']\nupstream = 'gopher://a.example/'", '[index."corp/main"] upstream'),
        ("[index.'corp/main']\nupstream = 'http://a.example/'\nup_stream = 1", "write 'upstream'"),
        ("upstream = 'http://a.example/'\n[index.'root/pypi']\nupstream = 'http://a.example/'", "twice"),
    ],
)
def test_load_file_wrong_is_refused_by_name(
    home: dict[str, str], toml: Callable[[str], dict[str, Any]], content: str, said: str
) -> None:
    """A wrong file is named with what is wrong in it and what to write instead."""
    arguments = toml(content)
    sentence = refusal(arguments, home)
    assert arguments["config"] in sentence
    assert said in sentence


def test_load_file_unreadable_is_refused(home: dict[str, str], tmp_path: Path) -> None:
    """A file that was named and cannot be read stops the start."""
    assert "No such file" in refusal({"config": str(tmp_path / "absent.toml")}, home)
    assert "Is a directory" in refusal({"config": str(tmp_path)}, home)
    (tmp_path / "latin.toml").write_bytes(b"# fine\n# caf\xe9\n")
    assert "line 2: this is not UTF-8" in refusal({"config": str(tmp_path / "latin.toml")}, home)


def test_load_named_indexes_have_an_upstream_each(home: dict[str, str], toml: Callable[[str], dict[str, Any]]) -> None:
    """Other indexes stand beside root/pypi, which comes first and keeps what was set for it."""
    arguments = toml(
        "[index.'corp/main']\nupstream = 'https://corp.example/simple'\n"
        "[index.'root/pypi']\nupstream = 'https://index.example/simple'\n"
    )
    indexes = config.load(arguments, home).indexes
    assert list(indexes) == ["root/pypi", "corp/main"]
    assert indexes["corp/main"].upstream == "https://corp.example/simple/"
    assert indexes["root/pypi"].upstream == UPSTREAM
    indexes = config.load(arguments, home | {"TEEPI_UPSTREAM": "http://b.example/"}).indexes
    assert indexes["root/pypi"].upstream == "http://b.example/"


def test_settings_are_frozen(home: dict[str, str]) -> None:
    """Nobody changes a setting of the running process."""
    settings = config.load({"upstream": UPSTREAM}, home)
    with pytest.raises(AttributeError):
        settings.offline = True  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.indexes["x/y"] = IndexSettings(UPSTREAM)  # type: ignore[index]
