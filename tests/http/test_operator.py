"""Operators: the socket, the token, and each call on a live server; commands with a server and without."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from teepi import cli, operator_channel
from teepi.operations import Operations
from tests.http.scene import stage, until
from tests.support.clients import RawClient, fetch
from tests.support.wheels import noise

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.conftest import MakeTeepi
    from tests.http.scene import Scene
    from tests.support.clients import Answer
    from tests.support.upstream import Upstream

CONTENT = noise(300_000)
NAME = "demo-1.0-py3-none-any.whl"


async def post(scene: Scene, call: str, body: bytes = b"", token: str | None = None, scheme: str = "Bearer") -> Answer:
    """Make a call over TCP."""
    headers = {"Content-Length": str(len(body))}
    if token is not None:
        headers["Authorization"] = f"{scheme} {token}"
    async with await RawClient.connect(scene.teepi.address) as client:
        await client.send("POST", f"/+operator/{call}", headers)
        await client.send_bytes(body)
        return await client.read_answer()


def token_of(scene: Scene) -> str:
    """Return the token."""
    with ThreadPoolExecutor(1) as thread:  # it blocks, which the event loop must not
        return thread.submit(operator_channel.read_token, scene.teepi.settings.data_dir).result()


def events(answer: Answer) -> list[dict[str, Any]]:
    """Return the lines of an answer."""
    return [json.loads(line) for line in answer.body.splitlines()]


class Shell:
    """Runs ``teepi cache`` on a scene's directories, as from another process."""

    def __init__(self, cache_dir: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Prepare."""
        self._places = ["--cache-dir", str(cache_dir), "--data-dir", str(data_dir), "--max-size", "1TB"]
        self._places += ["--min-free", "0"]
        self._capsys = capsys

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit status, stdout and stderr."""
        self._capsys.readouterr()
        status = await asyncio.to_thread(cli.main, ["cache", *arguments, *self._places])
        out, err = self._capsys.readouterr()
        return status, out, err

    async def json(self, *arguments: str) -> Any:
        """Return what it prints for scripts."""
        status, out, err = await self.run(*arguments, "--json")
        assert status in {0, 1}, err
        return json.loads(out)


@pytest.fixture(params=["live", "direct"])
async def cache(
    request: pytest.FixtureRequest,
    upstream: Upstream,
    make_teepi: MakeTeepi,
    capsys: pytest.CaptureFixture[str],
) -> tuple[Scene, Shell]:
    """Give a cache with one file, on which a server runs, or has run."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    if request.param == "direct":
        await scene.teepi.stop()
    settings = scene.teepi.settings
    return scene, Shell(settings.cache_dir, settings.data_dir, capsys)


# -- who is let in -----------------------------------------------------------------------------------


async def test_operator_call_without_the_token_is_403_also_from_loopback(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """In a build with the host's network every ``setup.py`` is loopback."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    wrong = [(None, ""), ("", "Bearer"), ("wrong", "Bearer"), ("ÿ", "Bearer"), (token_of(scene), "Basic")]
    for token, scheme in wrong:
        answer = await post(scene, "purge", b'{"everything": true}', token, scheme)
        assert answer.status == 403
        assert answer.body.decode().endswith(".\n")
    assert scene.stored == {scene.sha256}


async def test_operator_call_without_a_token_file_is_403(
    upstream: Upstream, make_teepi: MakeTeepi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data directory that cannot be written has no token: nobody is let in by sending none."""
    monkeypatch.setattr(operator_channel, "make_token", lambda _: None)
    scene = await stage(upstream, make_teepi, CONTENT)
    assert (await post(scene, "info", token="")).status == 403


async def test_operator_call_with_the_token_answers_json_lines(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The token is a file that its owner alone can read, kept over a restart."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    path = scene.teepi.settings.data_dir / "operator-token"
    assert path.stat().st_mode & 0o777 == 0o600
    token = token_of(scene)
    [event] = events(await post(scene, "info", token=token))
    assert (event["result"]["files"], event["result"]["file_bytes"]) == (1, len(CONTENT))
    await scene.teepi.stop()
    scene.teepi = await make_teepi()
    assert (await post(scene, "info", token=token)).status == 200


NONSENSE = [
    ("nothing", b"", 404),
    ("info", b"[1]", 400),
    ("info", b"{", 400),
    ("info", b'{"x": 1}', 400),
    ("purge", b"{}", 400),
    ("purge", b'{"names": "x"}', 400),
    ("purge", b'{"names": ["../x"]}', 400),
    ("purge", b'{"older_than_days": -1}', 400),
    ("list", b'{"project": {"a": 1}}', 400),
    ("verify", b'{"bytes_per_second": true}', 400),
    ("pin", b'{"names": ["absent-1.0.tar.gz"]}', 404),
    ("unpin", b'{"names": ["demo"]}', 404),
    ("info", b" " * ((1 << 20) + 1), 400),
    ("info", b"[" * 100_000, 400),
]


async def test_operator_call_that_makes_no_sense_is_refused_in_a_sentence(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Nothing happens."""
    scene = await stage(upstream, make_teepi, CONTENT)
    for call, body, status in NONSENSE:
        answer = await post(scene, call, body, token_of(scene))
        assert (answer.status, answer.body.count(b"\n"), answer.body.endswith(b".\n")) == (status, 1, True), call


async def test_socket_is_its_owners_alone_and_replaces_a_stale_one(
    upstream: Upstream, make_teepi: MakeTeepi, tmp_path: Path
) -> None:
    """What a killed process left does not keep the next one from binding; a clean stop leaves none."""
    (tmp_path / "cache").mkdir()
    (await asyncio.to_thread(operator_channel.bind, tmp_path / "cache")).close()
    assert not await asyncio.to_thread(operator_channel.answers, tmp_path / "cache")
    scene = await stage(upstream, make_teepi, CONTENT)
    path = scene.teepi.settings.cache_dir / "operator.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    assert await asyncio.to_thread(operator_channel.answers, scene.teepi.settings.cache_dir)
    await scene.teepi.stop()
    assert not path.exists()


async def test_socket_in_a_long_path_is_reached(
    upstream: Upstream, make_teepi: MakeTeepi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel takes 108 bytes; a cache directory may be deeper."""
    cache_dir = tmp_path / ("deep" * 40)
    upstream.project("demo", {NAME: CONTENT})
    teepi = await make_teepi(cache_dir=cache_dir)
    found = await Shell(cache_dir, teepi.settings.data_dir, capsys).json("info")
    assert found["server"] is not None


# -- the commands, on a live server and without one ------------------------------------------------


async def test_cache_info_says_size_limit_and_projects(cache: tuple[Scene, Shell]) -> None:
    """For people and for scripts."""
    _, shell = cache
    found = await shell.json("info")
    assert (found["files"], found["file_bytes"]) == (1, len(CONTENT))
    assert found["bytes"] >= len(CONTENT)
    assert found["biggest_projects"] == [{"project": "demo", "bytes": len(CONTENT)}]
    status, out, _ = await shell.run("info")
    assert status == 0
    assert "300 kB" in out


async def test_cache_list_shows_projects_and_files(cache: tuple[Scene, Shell]) -> None:
    """Sorted as asked."""
    scene, shell = cache
    [row] = await shell.json("list", "--sort", "size")
    assert (row["project"], row["files"], row["bytes"], row["pinned"]) == ("demo", 1, len(CONTENT), False)
    [row] = await shell.json("list", "Demo")
    assert (row["file"], row["sha256"]) == (NAME, scene.sha256)
    assert NAME in (await shell.run("list", "demo"))[1]
    assert "Nothing of other" in (await shell.run("list", "other"))[1]


async def test_cache_purge_deletes_what_is_meant(cache: tuple[Scene, Shell]) -> None:
    """Nothing when only asked what would go, then just that; what is not meant stays."""
    scene, shell = cache
    for how in (["other"], ["other-1.0.whl"], ["--older-than", "30d"], ["--index", "no/such"], ["demo", "--dry-run"]):
        found = await shell.json("purge", *how)
        assert found["files"] == ("demo" in how)
        assert scene.stored == {scene.sha256}
    found = await shell.json("purge", "demo")
    assert (found["files"], found["bytes"], found["names"]) == (1, len(CONTENT), [NAME])
    assert scene.stored == set()
    assert (await shell.json("info"))["file_bytes"] == 0


async def test_cache_purge_counts_in_plain_words(cache: tuple[Scene, Shell]) -> None:
    """One is no plural."""
    _, shell = cache
    for how, verb in (["demo", "--dry-run"], "would be"), (["demo"], "was"):
        _, out, _ = await shell.run("purge", *how)
        assert f"\n1 file (300 kB) {verb} deleted.\n1 page {verb} deleted.\n" in out
    assert "0 files (0 bytes) were deleted.\n" in (await shell.run("purge", "demo"))[1]


async def test_cache_purge_of_what_cannot_be_deleted_says_so(
    cache: tuple[Scene, Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, and by exit status 1; it still is there and still is listed."""
    scene, shell = cache
    with monkeypatch.context() as patch:
        unlink = Path.unlink

        def refuse(path: Path, *, missing_ok: bool = False) -> None:
            if path.suffix == ".page" or path.name == scene.sha256:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            unlink(path, missing_ok=missing_ok)

        patch.setattr(Path, "unlink", refuse)
        status, out, err = await shell.run("purge", "demo")
        assert (status, "0 files" in out, "page" in out) == (1, True, False)
        assert f"1 file and 1 page could not be deleted ({NAME}, root/pypi/demo)" in err
        assert (await shell.json("purge", "demo"))["not_deleted"] == {"files": [NAME], "pages": ["root/pypi/demo"]}
    [row] = await shell.json("list")
    assert (row["project"], scene.stored) == ("demo", {scene.sha256})
    status, out, err = await shell.run("purge", "demo")
    assert (status, err, "1 page was deleted." in out) == (0, "", True)


async def test_cache_purge_takes_project_file_age_index_or_everything(
    upstream: Upstream, make_teepi: MakeTeepi, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each way to say it; the file is fetched anew each time."""
    scene = await stage(upstream, make_teepi, CONTENT)
    shell = Shell(scene.teepi.settings.cache_dir, scene.teepi.settings.data_dir, capsys)
    for how in ([NAME], [scene.sha256], ["Demo"], ["--all"], ["--index", "root/pypi"], ["--older-than", "0d"]):
        await scene.cached()
        assert (await shell.json("purge", *how))["files"] == 1, how
        assert scene.stored == set()
    assert scene.gets == 6


async def test_cache_verify_finds_damage_and_says_it_by_exit_status(cache: tuple[Scene, Shell]) -> None:
    """0 when all is sound, 1 when something was not; the second time it is gone."""
    scene, shell = cache
    status, out, _ = await shell.run("verify")
    assert (status, "1 file (300 kB) verified: all sound" in out) == (0, True)
    [path] = (scene.teepi.settings.cache_dir / "v1/files/sha256").glob("*/*")
    path.chmod(0o644)
    path.write_bytes(bytes(len(CONTENT)))
    status, out, _ = await shell.run("verify", "--rate", "1GB")
    assert (status, f"damaged: {NAME} (wrong bytes)" in out) == (1, True)
    assert (await shell.run("verify"))[0] == 0


async def test_cache_pin_keeps_from_purge_by_age_until_it_is_named(cache: tuple[Scene, Shell]) -> None:
    """A pin of a project, and of a file."""
    scene, shell = cache
    for name in ("Demo", NAME, scene.sha256):
        await shell.json("pin", name)
        assert (await shell.json("list", "demo"))[0]["pinned"]
        assert (await shell.json("purge", "--all"))["files"] == 0
        found = await shell.json("unpin", name)
        assert (found["projects"], found["files"]) == ([], [])
    await shell.json("pin", "demo")
    assert (await shell.json("purge", "demo"))["files"] == 1


async def test_cache_pin_survives_a_lost_catalogue(
    upstream: Upstream, make_teepi: MakeTeepi, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pins are a file of their own, and the rebuilt catalogue knows again which project each file is of."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    settings = scene.teepi.settings
    shell = Shell(settings.cache_dir, settings.data_dir, capsys)
    await shell.json("pin", "demo")
    await scene.teepi.stop()
    for path in settings.cache_dir.glob("catalog.sqlite3*"):
        path.unlink()
    scene.teepi = await make_teepi()
    server = scene.teepi.server
    await until(lambda: not server.services.catalog.needs_rebuild)
    [row] = await shell.json("list", "demo")
    assert (row["file"], row["pinned"]) == (NAME, True)


async def test_cache_prune_deletes_leftovers(cache: tuple[Scene, Shell]) -> None:
    """Partials that nobody writes, what was set aside, and names that are none."""
    scene, shell = cache
    layout = scene.teepi.settings.cache_dir / "v1"
    (layout / "damaged/x").write_bytes(b"12")
    (layout / "files/sha256" / scene.sha256[:2] / "stray").write_bytes(b"345")
    (layout / "partial" / ("sha256-" + "0" * 64)).write_bytes(b"6789")
    found = await shell.json("prune", "--dry-run")
    assert (found["leftovers"]["files"], found["leftovers"]["bytes"], found["files"]) == (3, 9, 0)
    found = await shell.json("prune")
    assert (found["leftovers"]["files"], found["leftovers"]["bytes"], found["files"]) == (3, 9, 0)
    assert (await shell.json("prune"))["leftovers"]["files"] == 0
    assert scene.stored == {scene.sha256}


async def test_cache_command_that_makes_no_sense_is_one_sentence(cache: tuple[Scene, Shell]) -> None:
    """Exit status 2, no traceback."""
    _, shell = cache
    for line, said in (
        ("purge", "Say what to purge"),
        ("purge --older-than soon", "write a number of days"),
        ("pin ../x", "no name of a project"),
        ("verify --rate fast", "write a size such as 50GB"),
        ("info --url ftp://me:s3cret@x", "is no address"),
        ("info --url http://[::1", "is no address"),
        ("info --url http://me:s3cret@127.0.0.1:1/", "leave them out"),
    ):
        status, out, err = await shell.run(*line.split())
        assert (status, out, err.count("\n")) == (2, "", 1), line
        assert said in err
        assert "s3cret" not in err


async def test_cache_command_by_url_uses_the_token(
    upstream: Upstream, make_teepi: MakeTeepi, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A server on another cache is asked over HTTP; without its token one sentence says where it is."""
    scene = await stage(upstream, make_teepi, CONTENT)
    settings = scene.teepi.settings
    shell = Shell(tmp_path / "elsewhere", settings.data_dir, capsys)
    assert (await shell.json("info", "--url", scene.teepi.url))["cache_dir"] == str(settings.cache_dir)
    status, _, err = await Shell(tmp_path, tmp_path, capsys).run("info", "--url", scene.teepi.url)
    assert (status, "--data-dir" in err) == (2, True)
    status, _, err = await Shell(tmp_path / "elsewhere", settings.data_dir, capsys).run("info")
    assert (status, "There is no cache" in err) == (2, True)
    (tmp_path / "operator-token").write_text("wrong")
    status, _, err = await Shell(tmp_path, tmp_path, capsys).run("info", "--url", scene.teepi.url)
    assert (status, "for operators" in err, err.count("\n")) == (2, True, 1)


async def test_cache_list_of_many_thousands_comes_whole_from_a_server(
    upstream: Upstream, make_teepi: MakeTeepi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is one line, longer than an HTTP library reads unless told to."""

    async def long(_self: Operations, _arguments: object) -> AsyncGenerator[dict[str, Any]]:
        row = {"files": 1, "bytes": 1, "used_at": 0.0, "pinned": False}
        yield {"result": [row | {"project": f"project-{n}-{'x' * 200}"} for n in range(3000)]}

    monkeypatch.setattr(Operations, "_list", long)
    settings = (await stage(upstream, make_teepi, CONTENT)).teepi.settings
    assert len(await Shell(settings.cache_dir, settings.data_dir, capsys).json("list")) == 3000


# -- on a live server --------------------------------------------------------------------------------


async def test_purge_of_a_file_that_is_being_sent_harms_no_reader(
    upstream: Upstream, make_teepi: MakeTeepi, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reader reads on; the next request fetches anew, and so does the page."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    pages = upstream.count("GET", "/simple/demo/")
    shell = Shell(scene.teepi.settings.cache_dir, scene.teepi.settings.data_dir, capsys)
    async with await scene.connect(receive_buffer_bytes=4096) as client:
        await client.read_head()
        found = await shell.json("purge", "demo")
        assert (found["files"], found["pages"]) == (1, 1)
        assert await client.read(len(CONTENT)) == CONTENT
    assert (await scene.get()).body == CONTENT
    assert scene.gets == 2
    assert (await fetch(scene.teepi.address, "/simple/demo/")).status == 200
    assert upstream.count("GET", "/simple/demo/") == pages + 1


async def test_purges_at_once_count_each_file_as_gone_once(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Else the cache would take itself for smaller than it is, and grow above its limit."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    token = token_of(scene)
    answers = await asyncio.gather(*(post(scene, "purge", b'{"everything": true}', token) for _ in range(4)))
    assert sum(events(answer)[-1]["result"]["files"] for answer in answers) == 1
    assert scene.teepi.server.services.store.space.files == 0


async def test_pins_set_at_once_all_hold(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Each reads and writes the whole of them."""
    scene = await stage(upstream, make_teepi, CONTENT)
    token, names = token_of(scene), [f"p{n}" for n in range(8)]
    await asyncio.gather(*(post(scene, "pin", json.dumps({"names": [name]}).encode(), token) for name in names))
    assert scene.teepi.server.services.store.pins.projects == set(names)
    await asyncio.gather(*(post(scene, "unpin", json.dumps({"names": [name]}).encode(), token) for name in names))
    assert not scene.teepi.server.services.store.pins.projects


async def test_purge_of_everything_leaves_the_pages_of_what_is_pinned(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Without its page a pinned project could not be installed while upstream is away; named, it goes."""
    scene = await stage(upstream, make_teepi, CONTENT)
    token = token_of(scene)
    await post(scene, "pin", b'{"names": ["demo"]}', token)
    for arguments, pages in ((b'{"everything": true}', 0), (b'{"names": ["demo"]}', 1)):
        assert events(await post(scene, "purge", arguments, token))[-1]["result"]["pages"] == pages


async def test_verification_ends_when_its_client_leaves(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """However slowly it was to hash: its threads go, and the descriptors that they hold."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    body = b'{"bytes_per_second": 1}'
    headers = {"Content-Length": str(len(body)), "Authorization": f"Bearer {token_of(scene)}"}
    async with await RawClient.connect(scene.teepi.address) as client:
        await client.send("POST", "/+operator/verify", headers)
        await client.send_bytes(body)
        await until(lambda: _verifying() > 0)
    await until(lambda: _verifying() == 0)
    assert scene.stored == {scene.sha256}


def _verifying() -> int:
    return sum(thread.name.startswith("verifying") for thread in threading.enumerate())


async def test_operator_fetch_brings_files_into_the_cache_without_a_reader(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Progress for each; one that cannot be had fails alone, and what is there is not fetched again."""
    scene = await stage(upstream, make_teepi, CONTENT)
    wanted = json.dumps({"files": [scene.target, "root/pypi/+files/no.example/x-1.0.whl", "x"]}).encode()
    for outcome in ("fetched", "cached"):
        *progress, last = events(await post(scene, "fetch", wanted, token_of(scene)))
        assert [event["done"] for event in progress] == [1, 2, 3]
        outcomes = {each["file"]: each["outcome"] for each in last["result"]}
        assert outcomes.pop(scene.target) == outcome
        assert set(outcomes.values()) == {"failed"}
    assert (scene.gets, scene.stored) == (1, {scene.sha256})


async def test_proxpi_invalidation_is_off_unless_set(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Anyone could have pages fetched over and over."""
    scene = await stage(upstream, make_teepi, CONTENT)
    for target in ("/cache/demo", "/cache/list"):
        assert (await fetch(scene.teepi.address, target, method="DELETE")).status == 405


async def test_proxpi_invalidation_asks_upstream_at_the_next_request(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """The page, or the list; files stay, as with proxpi."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    await scene.teepi.stop()
    scene.teepi = await make_teepi(proxpi_invalidation=True)
    for target, path in (("/cache/Demo", "/simple/demo/"), ("/cache/list", "/simple/")):
        await fetch(scene.teepi.address, path)
        before = upstream.count("GET", path)
        await fetch(scene.teepi.address, path)
        assert upstream.count("GET", path) == before
        answer = await fetch(scene.teepi.address, target, method="DELETE")
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "success", "data": None})
        assert (await fetch(scene.teepi.address, path)).status == 200
        assert upstream.count("GET", path) == before + 1
    assert scene.stored == {scene.sha256}


@pytest.mark.parametrize("name", ["_", "-", ".", "a%20b", "%C5%BF", "x-"])
async def test_proxpi_invalidation_of_what_is_no_project_is_refused(
    make_teepi: MakeTeepi, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A sentence, and no traceback in the log."""
    teepi = await make_teepi(proxpi_invalidation=True)
    answer = await fetch(teepi.address, f"/cache/{name}", method="DELETE")
    assert answer.status == (400 if name == "." else 404)
    assert answer.body.strip().endswith(b".")
    assert "Traceback" not in caplog.text
    assert "failed" not in caplog.text


# -- after a kill ------------------------------------------------------------------------------------


async def test_file_whose_row_was_lost_is_counted_after_a_restart(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Committed just before a kill: the shelf that changed since the mark is looked at, and the file can be evicted."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    await scene.teepi.stop()
    path = scene.teepi.settings.cache_dir / "catalog.sqlite3"
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute("DELETE FROM files").rowcount == 1
    scene.teepi = await make_teepi()
    server = scene.teepi.server
    await until(lambda: server.services.store.space.files == len(CONTENT))
    assert server.services.catalog.totals == (1, len(CONTENT))
    while not (found := await server.services.catalog.files())[0].filename:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert [(each.project, each.filename) for each in found] == [("demo", NAME)]


async def test_shelves_that_have_not_changed_are_not_looked_at(
    upstream: Upstream, make_teepi: MakeTeepi, tmp_path: Path
) -> None:
    """A start does not look through the whole cache."""
    scene = await stage(upstream, make_teepi, CONTENT)
    await scene.cached()
    store = scene.teepi.server.services.store
    assert store is not None
    [shelf] = (tmp_path / "cache/v1/files/sha256").iterdir()
    changed = shelf.stat().st_mtime
    found = [
        await asyncio.to_thread(lambda at=at: list(store.shelves.files(newer_than=at)))  # type: ignore[misc]
        for at in (changed - 1, changed + 1)
    ]
    assert found == [[(scene.sha256, len(CONTENT))], []]
