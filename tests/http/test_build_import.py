"""``teepi build`` and ``teepi import`` speak devpi's protocol to an index and say what came of each file."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import TestServer

from teepi import cli
from teepi.index_client import Account, Refused, connect
from tests.support.stage import PASSWORD, Stage
from tests.support.wheels import sdist, wheel
from tests.unit.test_devpi_directory import FILES, export

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FAILING = """
import os
import zipfile


def prepare_metadata_for_build_wheel(directory, config_settings=None):
    with zipfile.ZipFile(WHEEL) as archive:
        archive.extractall(directory)
    return next(pathlib.Path(directory).glob("*.dist-info")).name


def build_wheel(directory, config_settings=None, metadata_directory=None):
    raise RuntimeError("no compiler here")
"""
CURIOUS = """
import os

if any("s3cret" in value for value in os.environ.values()):
    raise RuntimeError("the password is " + str(dict(os.environ)))
if not os.environ["PIP_INDEX_URL"].endswith("/admin/dev/+simple/") or "PIP_EXTRA_INDEX_URL" in os.environ:
    raise RuntimeError("another index")
"""


@pytest.fixture
def stage() -> Stage:
    """Give a scripted private index."""
    return Stage()


@pytest.fixture
async def url(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Give its address; DEVPI_PASSWORD has the password."""
    monkeypatch.setenv("DEVPI_PASSWORD", PASSWORD)
    monkeypatch.delenv("DEVPI_USER", raising=False)
    server = TestServer(stage.app())
    await server.start_server()
    yield str(server.make_url("/"))
    await server.close()


async def run(*arguments: str) -> int:
    """Run the command beside the event loop that the index is on."""
    return await asyncio.to_thread(cli.main, list(arguments))


async def test_build_makes_what_has_no_wheel_once_and_says_why_the_rest_failed(
    stage: Stage, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is in no build's environment, no other index beside this one; the second run builds nothing."""
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://127.0.0.1:1/")
    needy = sdist("needy", "1.0", requires=["ready"], backend=CURIOUS)
    bad = sdist("bad", "2.0", backend=FAILING)
    stage.base = {each.filename: each for each in (needy, bad, wheel("ready", "1.5"))}
    line = ("build", "--index", "admin/dev", "--url", url, "--json", "--logs", str(tmp_path / "logs"))
    (tmp_path / "requirements.txt").write_text("needy==1.0\n")
    assert await run(*line, "-r", str(tmp_path / "requirements.txt"), "bad==2.0") == 1
    out, err = capsys.readouterr()
    results = {each["project"]: each for each in json.loads(out)}
    assert {name: each["result"] for name, each in results.items()} == {
        "needy": "built", "bad": "failed", "ready": "has a wheel",
    }  # fmt: skip
    assert results["bad"]["reason"] == "RuntimeError: no compiler here"
    [log] = (tmp_path / "logs").iterdir()
    assert log.name == "bad-2.0-py{}.{}.log".format(*sys.version_info)
    assert PASSWORD not in out + err
    [upload] = stage.uploads
    assert (upload.index, upload.filename) == ("admin/dev", "needy-1.0-py3-none-any.whl")
    assert upload.content == wheel("needy", "1.0", requires=["ready"]).content
    assert {("name", "needy"), ("version", "1.0"), ("filetype", "bdist_wheel"), ("requires_dist", "ready")} <= set(
        upload.fields
    )
    del stage.base[needy.filename]  # as a real index hides it, now that there is a file of the project
    assert await run(*line, "needy==1.0") == 0
    assert {each["project"]: each["result"] for each in json.loads(capsys.readouterr().out)} == {
        "needy": "exists", "ready": "has a wheel",
    }  # fmt: skip
    assert len(stage.uploads) == 1


async def test_build_of_all_copies_wheels_and_takes_a_conflict_for_there(
    stage: Stage, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a base has is copied as it is; where somebody was quicker nothing is to be done."""
    made, other = wheel("ready", "1.5"), wheel("other", "1.0")
    stage.base = {each.filename: each for each in (made, other)}
    line = ("build", "ready", "other", "--all", "--index", "admin/dev", "--url", url)
    assert await run(*line, "--dry-run") == 0
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "Would be: 2 copied.", "other 1.0: would be copied", "ready 1.5: would be copied",
    ]  # fmt: skip
    assert stage.uploads == []
    stage.refusals = {
        made.filename: (409, "already exists in non-volatile index"),
        other.filename: (400, "no good"),
    }
    assert await run(*line) == 1
    out, err = capsys.readouterr()
    assert out == "1 in the index already, 1 failed.\n"
    assert f"other 1.0 failed: {other.filename} was refused: no good (400)." in err
    stage.refusals = {}
    assert await run(*line) == 0
    assert stage.files["admin/dev", made.filename] == made.content


async def test_build_through_an_index_that_is_not_for_everybody_lets_pip_log_in(
    stage: Stage, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resolving and what a build needs; the password in no environment and nothing that is said, its file goes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    needy = sdist("needy", "1.0", requires=["ready"], backend=CURIOUS)
    stage.base = {each.filename: each for each in (needy, wheel("ready", "1.5"))}
    stage.closed = {"admin/dev"}
    line = ("build", "needy", "--index", "admin/dev", "--url", url)
    assert await run(*line) == 0
    out, err = capsys.readouterr()
    assert "1 built, 1 with a wheel in a base." in out
    assert PASSWORD not in out + err
    assert [upload.filename for upload in stage.uploads] == ["needy-1.0-py3-none-any.whl"]
    assert not os.listdir(tmp_path)  # noqa: PTH208
    monkeypatch.delenv("DEVPI_PASSWORD")
    assert await run(*line, "--dry-run") == 2
    assert "The index admin/dev is not for everybody: set DEVPI_PASSWORD, or" in capsys.readouterr().err
    monkeypatch.setenv("DEVPI_PASSWORD", "wr0ng")
    assert await run(*line) == 2
    assert "is not for everybody: not for the user 'admin' with this password." in capsys.readouterr().err


async def test_files_with_epochs_and_local_versions_are_sent_under_their_names(
    stage: Stage, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither ``!`` nor ``+`` is encoded; a name that would end its header is sent nowhere."""
    made = [wheel("epochal", "1!2.0"), wheel("x", "1.0+local.1")]
    for each in made:
        (tmp_path / each.filename).write_bytes(each.content)
    line = ("import", "dir", str(tmp_path), "--index", "admin/dev", "--url", url)
    assert await run(*line) == 0
    assert sorted(upload.filename for upload in stage.uploads) == [
        "epochal-1!2.0-py3-none-any.whl", "x-1.0+local.1-py3-none-any.whl",
    ]  # fmt: skip
    capsys.readouterr()
    async with connect(url, None, Account("admin", PASSWORD), 1) as client:
        for name in ('a"b-1.0.tar.gz', "a\r\nX-B: c-1.0.tar.gz", "a\\-1.0.tar.gz", "a\udcff-1.0.tar.gz"):
            with pytest.raises(Refused, match="is no file name of a distribution"):
                await client.upload("admin/dev", (), tmp_path / made[0].filename, name)
    assert len(stage.uploads) == 2


async def test_import_of_a_folder_says_what_came_of_each_file(
    stage: Stage, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """New, the same, another of that name, refused: each is counted, the last two end with status 1."""
    made = [wheel("one"), wheel("two"), wheel("three"), sdist("four")]
    for each in made:
        (tmp_path / each.filename).write_bytes(each.content)
    (tmp_path / "notes.txt").touch()
    stage.files["admin/dev", made[1].filename] = made[1].content
    stage.refusals = {
        made[2].filename: (409, "three-1.0-py3-none-any.whl already exists in non-volatile index"),
        made[3].filename: (400, "no such classifier"),
    }
    line = ("import", "dir", str(tmp_path), "--index", "admin/dev", "--url", url)
    assert await run(*line) == 1
    out, err = capsys.readouterr()
    assert out == "1 file uploaded (0.0 MB), 1 there already, 1 conflict, 1 refused, 1 other file left out.\n"
    assert "admin/dev: three-1.0-py3-none-any.whl: another file has that name" in err
    assert "admin/dev: four-1.0.tar.gz: no such classifier (400)" in err
    assert PASSWORD not in out + err
    assert stage.files["admin/dev", made[0].filename] == made[0].content
    sent = {upload.filename: dict(upload.fields) for upload in stage.uploads}
    assert sorted(sent) == sorted(each.filename for each in made if each is not made[1])
    assert sent[made[0].filename]["sha256_digest"] == made[0].sha256
    stage.refusals = {}
    assert await run(*line) == 0
    assert await run(*line, "--json") == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["there"] == 4


async def test_import_from_devpi_makes_what_is_missing_and_gives_the_right_back(
    stage: Stage, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Users with a password that nobody sees, indexes with their settings; root may upload for that while only."""
    export(tmp_path)
    line = ("import", "devpi", str(tmp_path), "--index", "admin/dev=carol/prod", "--url", url)
    assert await run(*line) == 2
    assert "There is no index carol/prod" in capsys.readouterr().err
    assert await run(*line, "--create") == 0
    out = capsys.readouterr().out
    password = stage.users["carol"].pop("password")
    assert len(password) > 40
    assert password not in out
    assert stage.users["carol"] == {"email": "a@b.example"}
    assert stage.indexes["carol/prod"] == {
        "type": "stage", "volatile": True, "bases": ["root/mir"], "acl_upload": ["carol", "bob"],
    }  # fmt: skip
    assert stage.changes[-2:] == [
        ("PATCH", "carol/prod", ["acl_upload+=root"]), ("PATCH", "carol/prod", ["acl_upload-=root"]),
    ]  # fmt: skip
    assert [(upload.filename, dict(upload.fields)[":action"]) for upload in stage.uploads] == [
        (FILES[1], "file_upload"), ("a.zip", "doc_upload"),
    ]  # fmt: skip
    assert "made the user carol" in out
    assert "2 files uploaded" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "--index", "admin/dev"], "Nothing to build"),
        (["build", "x", "--index", "admin"], "--index 'admin' is no index"),
        (["build", "x", "--index", "../dev"], "--index '../dev' is no index"),
        (["build", "x", "--index", "no/pe"], "There is no index no/pe"),
        (["build", "x", "--index", "root/pypi"], "root/pypi is a mirror"),
        (["build", "x", "--index", "admin/dev", "--from", "no/pe"], "There is no index no/pe"),
        (["build", "x", "--index", "admin/dev", "--python", "nope"], "--python nope is no Python"),
        (["build", "--index", "admin/dev", "--", "-x"], "'-x' is no requirement"),
        (["build", "-r", "nope.txt", "--index", "admin/dev"], "nope.txt is not there"),
        (["build", "x", "--index", "admin/dev", "--password-env", "NOPE"], "NOPE, which is not set"),
        (["build", "x", "--index", "admin/dev", "--password-env", "WRONG"], "the password of the user 'admin'"),
        (["build", "x", "--index", "admin/dev", "--password-env", "A", "--password-stdin"], "exclude each other"),
        (["import", "dir", "nope", "--index", "admin/dev"], "nope is no directory"),
        (["import", "dir", ".", "--index", "admin/dev"], "no wheel and no sdist in ."),
        (["import", "devpi", "."], ". is no directory of a devpi-server"),
    ],
)
async def test_build_and_import_wrong_input_is_one_sentence(
    words: list[str],
    said: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And nothing was built or sent; no password stands in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WRONG", "wr0ng")
    separator = words.index("--") if "--" in words else len(words)
    assert await run(*words[:separator], "--url", url, *words[separator:]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert "wr0ng" not in err


async def test_build_where_nobody_answers_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """It names the address."""
    assert await run("build", "x", "--index", "admin/dev", "--url", "http://127.0.0.1:1") == 2
    assert "No teepi answers at http://127.0.0.1:1/ (Connection refused)" in capsys.readouterr().err
