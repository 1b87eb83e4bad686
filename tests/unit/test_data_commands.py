"""``teepi data check``, ``backup`` and ``restore``: what they find, write and refuse."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from teepi import cli
from teepi.data import Archive, projects
from teepi.data import backup as backup_module
from teepi.data.database import NAME
from teepi.data.inspection import inspect_directory
from tests.support.data_directory import INDEX, left, prepare, store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTENT = b"an uploaded file"
FILENAME = "demo-1.0.tar.gz"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data directory with one file, closed."""
    found = tmp_path_factory.mktemp("template") / "data"
    prepare(found)
    (found / "operator-token").write_text("token\n")
    (found / "operator-token").chmod(0o600)
    archive = Archive(found)
    archive.open(0)
    asyncio.run(store(archive, CONTENT, FILENAME))
    archive.close_now()
    return found


@pytest.fixture
def root(template: Path, tmp_path: Path, xdg_home: Path) -> Path:  # noqa: ARG001 - no settings of this user
    """Give such a directory of the test's own."""
    return shutil.copytree(template, tmp_path / "data")


def blob(root: Path) -> Path:
    """Return the one file."""
    [path] = (root / "v1" / "files").glob("*/*")
    return path


def run(*arguments: object) -> int:
    """Run ``teepi data`` and return its status."""
    return cli.main(["data", *map(str, arguments)])


def contents(root: Path) -> list[str]:
    """Return all names below ``root`` but the lock."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.name != "lock")


# -- check ---------------------------------------------------------------------------------------------


def test_check_of_a_sound_directory_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, status 0, and nothing has changed; --json has the same."""
    before = contents(root)
    assert run("check", "--data-dir", root) == 0
    assert capsys.readouterr().out == f"{root}: 1 file (16 bytes), schema 1: no problem.\n"
    assert run("check", "--data-dir", root, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "problems": [], "notes": [], "schema": 1, "files": 1, "size": len(CONTENT),
    }  # fmt: skip
    assert [name for name in contents(root) if "-wal" not in name and "-shm" not in name] == before


def damage_byte(root: Path) -> None:
    """Flip a byte."""
    path = blob(root)
    path.chmod(0o644)
    path.write_bytes(b"X" + CONTENT[1:])


def cut(root: Path) -> None:
    """Leave a part."""
    path = blob(root)
    path.chmod(0o644)
    path.write_bytes(CONTENT[:3])


def remove(root: Path) -> None:
    """Take it away."""
    blob(root).unlink()


def replace_by_link(root: Path) -> None:
    """Put a link in its place."""
    path = blob(root)
    path.rename(root / "elsewhere")
    path.symlink_to(root / "elsewhere")


def open_database(root: Path) -> None:
    """Let others read password hashes."""
    (root / NAME).chmod(0o644)


def open_directory(root: Path) -> None:
    """Let others write."""
    root.chmod(0o777)


def orphan_row(root: Path) -> None:
    """Take the row away that another one belongs to."""
    with closing(sqlite3.connect(root / NAME)) as connection:
        connection.execute("DELETE FROM versions")
        connection.commit()


def no_database(root: Path) -> None:
    """Put something else under its name."""
    (root / NAME).write_bytes(b"no database\n" * 500)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damage_byte, f"has wrong bytes ({INDEX}/{FILENAME})"),
        (cut, f"has 3 bytes instead of 16 ({INDEX}/{FILENAME})"),
        (remove, f"is missing ({INDEX}/{FILENAME})"),
        (replace_by_link, "cannot be read (Too many levels of symbolic links)"),
        (open_database, f"{NAME} has secrets that others can read (mode 0644): chmod 600 it"),
        (open_directory, "can be written by others (mode 0777)"),
        (orphan_row, "of files belongs to no row of versions"),
        (no_database, "bring a backup back with 'teepi data restore'"),
    ],
)
def test_check_finds_damage(
    root: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], None], said: str
) -> None:
    """A line that says what and of which file; status 1."""
    harm(root)
    assert run("check", "--data-dir", root) == 1
    line, *_, summary = capsys.readouterr().out.splitlines()
    assert said in line
    assert summary.endswith(": 1 problem.")


def test_check_that_is_quick_hashes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped byte is not seen, a missing file is."""
    damage_byte(root)
    assert run("check", "--quick", "--data-dir", root) == 0
    assert "not hashed: no problem." in capsys.readouterr().out
    remove(root)
    assert run("check", "--quick", "--data-dir", root) == 1


def test_check_tells_of_what_is_no_damage(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Leftovers of an upload, names of others and a readable directory are notes; status 0."""
    (root / "v1" / "incoming" / "half").write_bytes(b"x")
    (root / "notes.txt").write_bytes(b"x")
    (root / "v1" / "files" / "zz").write_bytes(b"x")
    root.chmod(0o755)
    assert run("check", "--data-dir", root) == 0
    said = capsys.readouterr().out
    assert "1 file without a row" in said
    assert "notes.txt is not teepi's" in said
    assert "v1/files/zz is not teepi's" in said
    assert "can be read by others (mode 0755)" in said


def test_check_beside_a_server_takes_what_it_deletes_for_no_damage(root: Path) -> None:
    """The lock is held, and a file goes between the rows and the look at it."""
    archive = Archive(root)
    archive.open(0)

    def delete(_done: int, _total: int) -> None:
        def write(connection: sqlite3.Connection) -> tuple[None, list[str]]:
            file = projects.file_named(connection, INDEX, FILENAME)
            assert file is not None
            projects.delete_files(connection, [file])
            return None, [file.sha256]

        asyncio.run(archive.discard(write))

    path = blob(root)
    path.rename(path.with_suffix(".away"))  # missing when it is looked at, and then its row is gone
    report = inspect_directory(root, progress=delete)
    archive.close_now()
    assert report.problems == []


def test_check_where_nothing_is_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and one sentence, and the directory is not made."""
    assert run("check", "--data-dir", tmp_path / "absent") == 2
    assert "There is no data directory" in capsys.readouterr().err
    assert not (tmp_path / "absent").exists()


# -- backup and restore --------------------------------------------------------------------------------


def test_backup_restores_the_same_directory(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows, files, token and secret; nobody else can read the file; a server may run while it is made."""
    archive = Archive(root)
    archive.open(0)
    assert run("backup", tmp_path / "all.tar", "--data-dir", root) == 0
    secret = archive.database.read_now(lambda c: c.execute("SELECT * FROM meta ORDER BY name").fetchall())
    archive.close_now()
    assert "all.tar: 1 file, " in capsys.readouterr().out
    assert (tmp_path / "all.tar").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.tar", "data"]
    new = tmp_path / "new" / "data"
    assert run("restore", tmp_path / "all.tar", "--data-dir", new) == 0
    assert capsys.readouterr().out == f"{new}: 1 file (16 bytes), schema 1 restored from {tmp_path / 'all.tar'}.\n"
    assert run("check", "--data-dir", new) == 0
    assert contents(new) == [name for name in contents(root) if "-wal" not in name and "-shm" not in name]
    assert (new / "operator-token").read_text() == "token\n"
    assert [(new / name).stat().st_mode & 0o777 for name in ("", NAME, "operator-token")] == [0o700, 0o600, 0o600]
    archive = Archive(new)
    archive.open(0)
    assert archive.database.read_now(lambda c: c.execute("SELECT * FROM meta ORDER BY name").fetchall()) == secret
    archive.close_now()
    assert len(left(new)) == 1


def test_backup_never_overwrites_unless_told(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--force replaces it as a whole."""
    target = tmp_path / "all.tar"
    target.write_bytes(b"precious")
    assert run("backup", target, "--data-dir", root) == 2
    assert "is there already" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert run("backup", target, "--force", "--data-dir", root) == 0
    assert tarfile.is_tarfile(target)


def test_backup_replaces_no_device_and_no_link_whatever_it_is_told(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``/dev/full`` once became a file."""
    (tmp_path / "real").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        assert run("backup", tmp_path / name, "--force", "--data-dir", root) == 2
        assert "is no plain file" in capsys.readouterr().err
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"precious"


@pytest.mark.parametrize("harm", [damage_byte, remove])
def test_backup_of_damage_is_refused_and_leaves_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], None]
) -> None:
    """One that could not be restored is none."""
    harm(root)
    assert run("backup", tmp_path / "all.tar", "--data-dir", root) == 2
    assert f"({INDEX}/{FILENAME}) is missing or damaged" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_backup_begins_anew_when_a_file_is_deleted_meanwhile(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one moment with files of another are no backup."""
    archive = Archive(root)
    archive.open(0)
    copy = backup_module.copy_database
    attempts = 0

    def copy_and_delete(path: Path, target: Path) -> object:
        nonlocal attempts
        attempts += 1
        found = copy(path, target)
        if attempts == 1:
            sha256 = blob(root).name
            archive.database.write_now(lambda connection: connection.execute("DELETE FROM files"))
            archive.blobs.remove(sha256)
        return found

    monkeypatch.setattr(backup_module, "copy_database", copy_and_delete)
    written = backup_module.back_up(root, tmp_path / "all.tar")
    archive.close_now()
    assert (attempts, written.files) == (2, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.tar", "data"]


@pytest.fixture
def saved(root: Path, tmp_path: Path) -> Path:
    """Give a backup of :func:`root`."""
    backup_module.back_up(root, tmp_path / "all.tar")
    return tmp_path / "all.tar"


def test_restore_into_what_is_not_empty_needs_force_and_deletes_nothing(
    root: Path, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was there is moved aside, and it is said where."""
    before = contents(root)
    assert run("restore", saved, "--data-dir", root) == 2
    assert f"The data directory {root} is not empty" in capsys.readouterr().err
    assert contents(root) == before
    assert run("restore", saved, "--force", "--data-dir", root) == 0
    [aside] = root.glob("before-restore-*")
    assert f"What was there is in {aside} now" in capsys.readouterr().out
    assert (aside / "v1" / "files").is_dir()
    assert run("check", "--data-dir", aside) == 0
    assert run("check", "--data-dir", root) == 0


def test_restore_beside_a_server_is_refused(root: Path, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever has the lock keeps the directory."""
    with (root / "lock").open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert run("restore", saved, "--force", "--data-dir", root) == 2
    assert "Another teepi uses the data directory" in capsys.readouterr().err


def rewritten(saved: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    """Write the backup anew with other members."""
    with tarfile.open(saved) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    with tarfile.open(saved, "w") as tar:
        for name, data in change(members).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if data == b"link":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(member, io.BytesIO(data))


def newer(members: dict[str, bytes]) -> dict[str, bytes]:
    """Let it be of a later teepi: the schema is four bytes at offset 60 of the file."""
    database = members[NAME]
    return {**members, NAME: database[:60] + (99).to_bytes(4, "big") + database[64:]}


def without_file(members: dict[str, bytes]) -> dict[str, bytes]:
    """Leave the uploaded file out."""
    return {name: data for name, data in members.items() if not name.startswith("v1/")}


def wrong_bytes(members: dict[str, bytes]) -> dict[str, bytes]:
    """Let the file have others."""
    return {name: b"X" + data[1:] if name.startswith("v1/") else data for name, data in members.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda members: {**members, "../outside": b"x"}, "it has '../outside'"),
        (lambda members: {**members, "/outside": b"x"}, "it has '/outside'"),
        (lambda members: {**members, f"v1/files/aa/{'b' * 64}": b"x"}, "This is no backup of a data directory"),
        (lambda members: {**members, "operator-token": b"link"}, "it has 'operator-token'"),
        (lambda members: {name: data for name, data in members.items() if name != NAME}, "it has no database"),
        (newer, "is of a newer teepi (schema 99; this one knows 1)"),
        (without_file, f"is missing ({INDEX}/{FILENAME})"),
        (wrong_bytes, "is damaged in the backup"),
        (lambda members: {**members, NAME: b"no database\n" * 500}, "in the backup"),
    ],
)
def test_restore_of_what_is_no_sound_backup_changes_nothing(
    root: Path,
    saved: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
    said: str,
) -> None:
    """All of it is looked at before anything moves; status 2 and one sentence."""
    rewritten(saved, change)
    before = contents(root)
    assert run("restore", saved, "--force", "--data-dir", root) == 2
    assert said in capsys.readouterr().err
    assert contents(root) == before


@pytest.mark.parametrize("kept", [0, 700, 30_000])
def test_restore_of_a_part_of_a_backup_changes_nothing(
    root: Path, saved: Path, capsys: pytest.CaptureFixture[str], kept: int
) -> None:
    """A copy that broke off is noticed wherever it did."""
    saved.write_bytes(saved.read_bytes()[:kept])
    before = contents(root)
    assert run("restore", saved, "--force", "--data-dir", root) == 2
    assert str(saved) in capsys.readouterr().err
    assert contents(root) == before


def test_restore_that_was_killed_half_way_is_refused_by_the_next_start(root: Path, saved: Path) -> None:
    """Without its database the directory must not be begun anew; another restore mends it."""
    (root / "restoring-1").mkdir()
    (root / NAME).rename(root / "restoring-1" / NAME)
    with pytest.raises(Exception, match="did not come to its end: run 'teepi data restore' again"):
        Archive(root).open(0)
    assert run("restore", saved, "--force", "--data-dir", root) == 0
    assert not (root / "restoring-1").exists()
    archive = Archive(root)
    archive.open(0)
    archive.close_now()
    assert run("check", "--data-dir", root) == 0
