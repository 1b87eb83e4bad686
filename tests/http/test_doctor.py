"""``teepi doctor``: what each probe says when all is well, and when it is not."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import importlib.metadata
import json
import os
import resource
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import aiohttp.http_parser
import pytest

import teepi.doctor
from teepi import __version__, cli
from teepi.clients.known import Surroundings
from teepi.doctor import Finding, Inquiry, State, examine, network
from teepi.doctor.clients import look_at_clients
from teepi.index_settings import IndexSettings
from tests.support.faults import HangBeforeHead, Status
from tests.support.teepi import settings_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.support.upstream import Upstream

NOWHERE = "http://127.0.0.1:9/"
PAGE = "/simple/pip/"


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests run from the source of another version than the installed one."""
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: ["packaging>=1", "pytest; extra == 'test'"])
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (1024, resource.RLIM_INFINITY))


@pytest.fixture
def inquire(tmp_path: Path, upstream: Upstream) -> Any:
    """Give a function that examines, by default with this test's upstream and an empty home."""

    async def run(server: str = NOWHERE, environ: dict[str, str] | None = None, **settings: Any) -> list[Finding]:
        given = settings_for(tmp_path, upstream.index_url, **settings)
        around = Surroundings({"HOME": str(tmp_path / "home"), **(environ or {})}, tmp_path)
        return await examine(Inquiry(given, server, around))

    return run


def of(findings: list[Finding], what: str) -> list[tuple[State, str]]:
    """Return state and words of the findings about ``what``; each that is no good has a remedy."""
    assert all(each.remedy for each in findings if each.state in {State.DOUBT, State.BAD})
    return [(each.state, each.said) for each in findings if each.what == what]


async def test_doctor_finds_nothing_where_all_is_well(
    make_teepi: MakeTeepi, upstream: Upstream, inquire: Any, tmp_path: Path
) -> None:
    """Server, upstream and its speed, disk, installation; clients that use something else are no fault."""
    upstream.project("pip")
    upstream.script(PAGE, [Status(200, {"Date": formatdate(usegmt=True)})])
    server = await make_teepi()
    found = await inquire(server.url + "/")
    assert {each.state for each in found} == {State.WELL, State.NOTE}
    assert {each.what for each in found if each.state == State.NOTE} == {"pip", "uv", "poetry", "pipenv", "pdm"}
    assert of(found, "server")[0][1].startswith(f"teepi {__version__} answers at {server.url}/ in ")
    assert of(found, "upstream root/pypi")[0][1].startswith(f"{upstream.index_url} answers in ")
    assert of(found, "clock") == [(State.WELL, "Agrees with upstream's")]
    assert of(found, "cache_dir")[0][1].startswith(f"{tmp_path / 'cache'} can be written")
    assert upstream.count("GET", PAGE) == 1


async def test_doctor_server_that_is_not_there_or_another(upstream: Upstream, inquire: Any) -> None:
    """Nothing, something else, another version, and what the server itself knows to be wrong."""
    assert of(await inquire(), "server") == [(State.BAD, f"Nothing answers at {NOWHERE} (Connection refused)")]
    url = upstream.url + "/"
    assert of(await inquire(url), "server") == [(State.BAD, f"Something else than teepi answers at {url}")]
    status = {"version": "0.0.1", "problems": ["The disk is full."]}
    upstream.file("/+status", json.dumps(status).encode())
    assert of(await inquire(url), "server") == [
        (State.DOUBT, f"teepi 0.0.1 answers at {url}, and this is {__version__}"),
        (State.BAD, "The disk is full"),
    ]


@pytest.mark.parametrize(
    ("status", "state", "said"),
    [(401, State.BAD, "answers 401"), (503, State.BAD, "answers 503"), (404, State.NOTE, "has no page of pip")],
)
async def test_doctor_upstream_that_refuses(
    upstream: Upstream, inquire: Any, status: int, state: State, said: str
) -> None:
    """With the status that it gave."""
    upstream.script(PAGE, [Status(status)])
    [(found, words)] = of(await inquire(), "upstream root/pypi")
    assert found == state
    assert said in words


async def test_doctor_upstream_that_cannot_be_asked(
    upstream: Upstream, inquire: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Silent, slow, gone, and each mirror by itself; offline it is not asked; no password is shown."""
    upstream.project("pip")
    monkeypatch.setattr(network, "_UPSTREAM_SECONDS", 0.1)
    upstream.script(PAGE, [HangBeforeHead()])
    assert of(await inquire(), "upstream root/pypi") == [
        (State.BAD, f"{upstream.index_url} cannot be reached (no answer in time)")
    ]
    monkeypatch.setattr(network, "_UPSTREAM_SECONDS", 5)
    monkeypatch.setattr(network, "_SLOW_SECONDS", 0)
    index = IndexSettings(upstream.index_url, ("http://me:s3cret@127.0.0.1:9/",))
    assert [state for state, _ in of(await inquire(indexes={"a/b": index}), "upstream a/b")] == [
        State.DOUBT,
        State.BAD,
    ]
    assert "s3cret" not in str(await inquire(indexes={"a/b": index}))
    requests = len(upstream.requests)
    assert of(await inquire(offline=True), "upstream") == [(State.NOTE, "Not asked, since the settings say offline")]
    assert len(upstream.requests) == requests
    assert not (tmp_path / "cache").exists()


async def test_doctor_asks_upstream_through_the_proxy_of_the_settings(upstream: Upstream, inquire: Any) -> None:
    """What serves is what is measured."""
    upstream.file("http://index.example/simple/pip/", b"")
    index = IndexSettings("http://index.example/simple/", proxy=upstream.url)
    [(state, _)] = of(await inquire(indexes={"a/b": index}), "upstream a/b")
    assert state == State.WELL
    assert [request.target for request in upstream.requests] == ["http://index.example/simple/pip/"]


@pytest.mark.parametrize(
    ("seconds", "age", "said"),
    [(-290, 0, None), (-420, 0, "7 minutes ahead of"), (420, 0, "7 minutes behind"), (-3600, 3600, None)],
)
async def test_doctor_compares_the_clock_with_upstreams(
    upstream: Upstream, inquire: Any, seconds: int, age: int, said: str | None
) -> None:
    """More than five minutes is a finding; an answer that a cache kept is as old as it says."""
    upstream.script(PAGE, [Status(200, {"Date": formatdate(time.time() + seconds, usegmt=True), "Age": str(age)})])
    [(state, words)] = of(await inquire(), "clock")
    assert (state, words) == (
        (State.WELL, "Agrees with upstream's") if said is None else (State.BAD, f"{said} upstream's")
    )


async def test_doctor_disk_that_is_no_good(inquire: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room, inodes, rights, locks, and something in the way."""
    cache = tmp_path / "cache"
    assert of(await inquire(), "cache_dir")[0][1].startswith(f"{cache} will be made")
    cache.mkdir()
    cache.chmod(0o777)
    assert of(await inquire(), "cache_dir") == [(State.DOUBT, f"Everybody on this machine can write to {cache}")]
    cache.chmod(0o755)

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", no_locks)
        assert of(await inquire(), "cache_dir") == [
            (State.BAD, f"{cache} cannot be used (its file system has no locks)")
        ]
    space = os.statvfs(cache)
    for free, inodes, expected in (
        (2 << 30, 1, [(State.DOUBT, f"{cache} has 2.0 GiB left")]),
        (1 << 20, 1, [(State.BAD, f"{cache} has 0.0 GiB left")]),
        (9 << 30, 0, [(State.BAD, f"The file system of {cache} has no inode left")]),
    ):
        values = list(space)
        values[1], values[4], values[5], values[7] = 1, free, 1, inodes
        with monkeypatch.context() as patched:
            patched.setattr(os, "statvfs", lambda _path, values=values: os.statvfs_result(values))
            assert of(await inquire(), "cache_dir") == expected
    cache.rmdir()
    cache.touch()
    assert of(await inquire(), "cache_dir") == [(State.BAD, f"{cache} is no directory")]


async def test_doctor_packages_that_do_not_fit(inquire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each conflict is named; extras and markers of other systems ask for nothing; a checkout is not compared."""
    wanted = ["packaging<1", "not-there>=1", "other; sys_platform == 'none'", "more; extra == 'test'", "a b"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: wanted)
    [(state, said)] = of(await inquire(), "packages")
    version = importlib.metadata.version("packaging")
    assert state == State.BAD
    assert said == (
        f"packaging is {version}, and teepi wants <1; not-there is missing; teepi's own metadata is damaged (a b)"
    )
    monkeypatch.setattr(importlib.metadata, "requires", _not_installed)
    assert of(await inquire(), "packages")[0][0] == State.NOTE


def _not_installed(_name: str) -> list[str]:
    raise importlib.metadata.PackageNotFoundError


async def test_doctor_python_parser_and_few_descriptors(inquire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both work, and both make teepi slow or refuse clients."""
    monkeypatch.setattr(aiohttp.http_parser, "HttpRequestParser", aiohttp.http_parser.HttpRequestParserPy)
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (1024, 1024))
    found = await inquire()
    assert of(found, "C parser")[0][0] == State.BAD
    assert of(found, "uvloop") == [(State.WELL, "It can be imported")]
    assert of(found, "descriptors") == [(State.DOUBT, "A process may open no more than 1024 files and connections")]


INDEX = f"{NOWHERE}root/pypi/+simple/"
ELSEWHERE = "https://me:s3cret@other.example/"
ODD = "https://me:it's s3cret@a.example/"


@pytest.mark.parametrize(
    ("conf", "environ", "expected"),
    [
        (f"index-url = {INDEX}\ntrusted-host = 127.0.0.1", {}, [(State.WELL, "It uses teepi, as ")]),
        (f"index-url = {INDEX}", {}, [(State.WELL, "It uses"), (State.DOUBT, "trusted-host lacks teepi's, so that")]),
        (f"index-url = {INDEX}", {"PIP_TRUSTED_HOST": "127.0.0.1:9"}, [(State.WELL, "It uses teepi, as ")]),
        ("", {"PIP_INDEX_URL": INDEX, "PIP_TRUSTED_HOST": "127.0.0.1"}, [(State.WELL, "It uses teepi, as PIP_INDEX")]),
        (
            f"index-url = {INDEX}\ntrusted-host = 127.0.0.1\nextra-index-url = {ELSEWHERE}",
            {"PIP_EXTRA_INDEX_URL": "https://more.example/ https://other.example/"},
            [
                (State.WELL, "It uses teepi, as "),
                (State.DOUBT, "PIP_EXTRA_INDEX_URL adds https://more.example/, https://other.example/, where"),
                (State.DOUBT, "[global] extra-index-url adds https://…@other.example/, where anybody's"),
            ],
        ),
        (
            f"index-url = {INDEX}",
            {"PIP_INDEX_URL": ELSEWHERE},
            [(State.DOUBT, "PIP_INDEX_URL is https://…@other.example/ and goes before what its file says")],
        ),
        (
            f"index-url = {INDEX}\ntrusted-host = 127.0.0.1\nextra-index-url = {ODD}\n  https://b.example/",
            {},
            [
                (State.WELL, "It uses teepi, as "),
                (State.DOUBT, "[global] extra-index-url adds https://…@a.example/, https://b.example/, where"),
            ],
        ),
        (f"index-url = {ELSEWHERE}", {}, [(State.NOTE, "It uses https://…@other.example/, as ")]),
        ("# >>> teepi configure >>>\nindex-url = https://a/\n# <<< teepi configure <<<",
         {}, [(State.DOUBT, "It was set up for teepi and is led to https://a/ by ")]),
        ("", {"PIP_CONFIG_FILE": "~nobody-of-that-name/x"}, [(State.BAD, "PIP_CONFIG_FILE=~nobody-of-that-name/x is")]),
        ("[", {}, [(State.BAD, "")]),
    ],
)  # fmt: skip
async def test_doctor_judges_pips_settings(
    inquire: Any, tmp_path: Path, conf: str, environ: dict[str, str], expected: list[tuple[State, str]]
) -> None:
    """File and variables, what goes before what, trusted hosts, further indexes, nothing readable; no password."""
    path = tmp_path / "home" / ".config" / "pip" / "pip.conf"
    path.parent.mkdir(parents=True)
    path.write_text(f"[global]\n{conf}\n")
    found = of(await inquire(environ=environ), "pip")
    assert [state for state, _ in found] == [state for state, _ in expected]
    assert all(said.startswith(start) for (_, said), (_, start) in zip(found, expected, strict=True)), found
    assert "s3cret" not in str(found)


async def test_doctor_pip_refuses_a_machine_that_it_does_not_trust(tmp_path: Path) -> None:
    """On loopback it only keeps nothing."""
    around = Surroundings({"HOME": str(tmp_path), "PIP_INDEX_URL": "http://box.example:1/simple/"}, tmp_path)
    found = await look_at_clients(Inquiry(None, "http://box.example:1/", around))
    assert of(found, "pip")[1] == (State.BAD, "trusted-host lacks teepi's, so that pip refuses plain http to it")


async def test_doctor_survives_its_probes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that breaks and one that never ends are findings, and the others go on."""

    async def breaks(_inquiry: Inquiry) -> list[Finding]:
        raise RuntimeError("odd")

    async def hangs(_inquiry: Inquiry) -> list[Finding]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(teepi.doctor, "_PROBES", (("a", breaks), ("b", hangs), *teepi.doctor._PROBES[-1:]))  # noqa: SLF001
    found = await examine(Inquiry(None, NOWHERE, Surroundings({}, tmp_path)), probe_seconds=0.05)
    assert of(found, "a") == [(State.BAD, "This could not be looked at (RuntimeError: odd)")]
    assert of(found, "b") == [(State.BAD, "No answer within 0.05 s")]
    assert of(found, "descriptors")[0][0] == State.WELL


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, xdg_home: Path) -> list[Inquiry]:  # noqa: ARG001 - it shuts settings out
    """Put an examination in place that finds one note, and give what it was asked."""
    asked: list[Inquiry] = []

    async def examine(inquiry: Inquiry) -> list[Finding]:
        asked.append(inquiry)
        return [Finding(State.NOTE, "pip", "It does not use teepi", "To let it: teepi configure pip.")]

    monkeypatch.setattr(teepi.doctor, "examine", examine)
    return asked


def test_doctor_command_says_lines_json_and_a_status(
    told: list[Inquiry], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """0 where all is well; plain lines where there is no terminal, however long."""
    assert cli.main(["doctor", "--listen", "0.0.0.0:81", "--upstream", NOWHERE]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "✓ config  No file, variables and flags can be used.",
        "· pip     It does not use teepi. To let it: teepi configure pip.",
    ]
    assert told[0].server == "http://127.0.0.1:81/"
    assert cli.main(["doctor", "--json", "--url", "http://x/a/b/+simple/", "--upstream", NOWHERE]) == 0
    assert json.loads(capsys.readouterr().out)[1] == {
        "what": "pip", "state": "note", "said": "It does not use teepi", "remedy": "To let it: teepi configure pip.",
    }  # fmt: skip
    assert told[1].server == "http://x/"
    path = tmp_path / "wrong.toml"
    path.write_text("page_tll = 3")
    assert cli.main(["doctor", "--config", str(path)]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"✗ config  {path}, line 1: page_tll is no key of teepi; write 'page_ttl'")
    assert told[2].settings is None
    assert cli.main(["doctor", "--url", "teepi"]) == 2
    assert cli.main(["doctor", "--page-ttl"]) == 2


@pytest.mark.parametrize(
    ("url", "root"),
    [("http://a/", "http://a/"), ("http://a/simple/", "http://a/"), ("http://a/p/root/pypi/+simple/", "http://a/p/")],
)
def test_doctor_finds_the_server_of_an_index(told: list[Inquiry], url: str, root: str) -> None:
    """``--url`` may be what clients were given."""
    cli.main(["doctor", "--url", url, "--upstream", NOWHERE])
    assert told[0].server == root
