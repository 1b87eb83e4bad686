"""``teepi prefetch`` fills the cache as clients would, and says what it could not get."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from teepi import cli
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.support.upstream import Upstream


LOCK = """
lock-version = "1.0"
created-by = "test"
[[packages]]
name = "demo"
version = "1.0"
[[packages.wheels]]
name = "{filename}"
url = "https://files.example/x"
hashes = {{ sha256 = "{sha256}" }}
"""


async def run(*arguments: str) -> int:
    """Run the command beside the event loop that teepi is on."""
    return await asyncio.to_thread(cli.main, ["prefetch", "--json", *arguments])


async def test_prefetch_by_lock_file_leaves_page_file_and_metadata_cached(
    upstream: Upstream, make_teepi: MakeTeepi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Afterwards nothing is asked of upstream; a second run fetches nothing; what is missing is named."""
    made = wheel("demo", "1.0")
    project = upstream.project("demo")
    path = project.put(made.filename, made.content, b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    teepi = await make_teepi()
    lock = tmp_path / "pylock.toml"
    lock.write_text(LOCK.format(filename=made.filename, sha256=made.sha256))
    line = ("-r", str(lock), "--url", teepi.url)
    assert await run(*line) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["fetched"], first["cached"], first["failures"]) == (1, 0, {})
    assert first["bytes"] == len(made.content)
    assert (
        upstream.count("GET", path)
        == upstream.count("GET", path + ".metadata")
        == upstream.count("GET", project.page_path)
        == 1
    )
    assert await run(*line) == 0
    assert json.loads(capsys.readouterr().out)["cached"] == 1
    assert upstream.count("GET", path) == upstream.count("GET", path + ".metadata") == 1
    lock.write_text(lock.read_text().replace(made.sha256, "0" * 64))
    assert await run(*line) == 1
    assert "no such file of demo with that sha256" in json.loads(capsys.readouterr().out)["failures"][made.filename]


async def test_prefetch_resolves_requirements_by_pip_through_teepi(
    upstream: Upstream, make_teepi: MakeTeepi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a requirement depends on is fetched, too; what cannot be resolved is pip's sentence."""
    base, needed = wheel("demo", "1.0", requires=["other>=1"]), wheel("other", "1.5")
    for made, name in ((base, "demo"), (needed, "other")):
        upstream.project(name).put(made.filename, made.content)
    teepi = await make_teepi()
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("demo==1.0\n")
    assert await run("-r", str(requirements), "--url", teepi.url) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["fetched"] + done["cached"] == 2  # resolving looks into wheels as small as these, which is all of them
    assert await run("demo>7", "--url", teepi.url) == 2
    assert "Could not find a version that satisfies the requirement demo>7" in capsys.readouterr().err


async def test_prefetch_wrong_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is wrong, the command says it before anything is asked."""
    (tmp_path / "bad.lock").write_bytes(b"\xff")
    (tmp_path / "latin.txt").write_bytes(b"demo\n# \xe4\n")
    url = "http://127.0.0.1:1"
    for words, said in (
        (["--url", url], "Nothing to fetch"),
        (["-r", str(tmp_path / "none.txt"), "--url", url], "is not there"),
        (["-r", str(tmp_path / "none.lock"), "--url", url], "No such file"),
        (["-r", str(tmp_path / "bad.lock"), "--url", url], "not UTF-8"),
        (["six", "--python", "3", "--url", url], "--python 3 is no version"),
        (["--url", url, "--", "--index-url=x"], "is no requirement"),
        (["-r", str(tmp_path / "latin.txt"), "--url", url], "latin.txt, line 2 is not UTF-8"),
        (
            ["foo @ http://u:s3cret@a.example/demo-1.0-py3-none-any.whl", "--url", url],
            "a.example/demo-1.0-py3-none-any",
        ),
        (["six", "--index", "pypi", "--url", url], "--index 'pypi' is no index; write USER/NAME"),
        (["six", "--url", url], "No teepi answers at http://127.0.0.1:1/ (Con"),
    ):
        assert await run(*words) == 2
        err = capsys.readouterr().err
        assert said in err
        assert "s3cret" not in err
        assert err.count("\n") == 1


async def test_prefetch_of_requirements_tells_a_wrong_index_or_server_from_a_wrong_requirement(
    upstream: Upstream, make_teepi: MakeTeepi, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not there is named, and pip is not asked."""
    teepi = await make_teepi()
    assert await run("demo", "--index", "corp/main", "--url", teepi.url) == 2
    assert "There is no index corp/main here; this teepi serves root/pypi; name one of them" in capsys.readouterr().err
    assert await run("demo", "--url", upstream.url) == 2
    assert f"Something else than teepi answers at {upstream.url}" in capsys.readouterr().err
    assert upstream.count("GET", "/simple/demo/") == 0


async def test_prefetch_of_requirements_asks_teepi_past_any_proxy(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all other commands do; hosts that the environment excepts from the proxy stay excepted."""
    made = wheel("demo", "1.0")
    upstream.project("demo").put(made.filename, made.content)
    teepi = await make_teepi()
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1/")
    monkeypatch.delenv("NO_PROXY", raising=False)
    for others in ("", "other.example", "*"):
        monkeypatch.setenv("no_proxy", others)
        assert await run("demo", "--url", teepi.url) == 0


async def test_prefetch_of_what_pip_cannot_cope_with_says_what_pip_says_last(
    make_teepi: MakeTeepi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No bare "Exception", and no traceback."""
    teepi = await make_teepi()
    (tmp_path / "foo.txt").write_text("foo @ http://u:s3cret@127.0.0.1:1/demo-1.0-py3-none-any.whl\n")
    assert await run("-r", str(tmp_path / "foo.txt"), "--url", teepi.url) == 2
    err = capsys.readouterr().err
    assert "pip gave up (AssertionError: 'foo' != 'demo' for wheel)" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "body", ["{", "[1]", '{"files": 5}', '{"files": [{}]}', '{"files": [{"filename": "x", "url": "http://[::1/x"}]}']
)
async def test_prefetch_from_something_else_than_teepi_is_one_sentence(
    upstream: Upstream, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    """Whatever answers at that address."""
    upstream.file("/root/pypi/+simple/demo/", body.encode())
    lock = tmp_path / "pylock.toml"
    lock.write_text(LOCK.format(filename="demo-1.0-py3-none-any.whl", sha256="0" * 64))
    assert await run("-r", str(lock), "--url", upstream.url) == 1
    [reason] = json.loads(capsys.readouterr().out)["failures"].values()
    assert "is no page of a teepi" in reason
