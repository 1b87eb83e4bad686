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
    url = "http://127.0.0.1:1"
    for words, said in (
        (["--url", url], "Nothing to fetch"),
        (["-r", str(tmp_path / "none.txt"), "--url", url], "is not there"),
        (["-r", str(tmp_path / "none.lock"), "--url", url], "No such file"),
        (["-r", str(tmp_path / "bad.lock"), "--url", url], "not UTF-8"),
        (["six", "--python", "3", "--url", url], "--python 3 is no version"),
        (["--url", url, "--", "--index-url=x"], "is no requirement"),
    ):
        assert await run(*words) == 2
        err = capsys.readouterr().err
        assert said in err
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
