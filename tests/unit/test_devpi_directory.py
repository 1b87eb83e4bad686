"""What is read out of a devpi-server's directory, of both its storages, and out of an export."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from teepi.devpi_directory import knows_mirrors, read
from teepi.errors import BadInput
from teepi.imports import bases_first, find_distributions, settings_for

if TYPE_CHECKING:
    from pathlib import Path

FILES = ["a-1.0-py3-none-any.whl", "a-1.0.tar.gz", "a-1.0.doc.zip", "a-1.0.tar.gz.toxresult-20261120221636-0"]


def key(index: str, name: str) -> str:
    """Return where devpi keeps a file whose content is its name."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{index}/+f/{digest[:3]}/{digest[3:16]}/{name}"


def database(path: Path, *, stored: list[str] = []) -> None:  # noqa: B006 - only read
    """Write what devpi's table of keys says of a stage admin/dev and a mirror root/mir; and the files, if any."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE kv (key TEXT PRIMARY KEY, keyname TEXT, serial INTEGER)")
        rows = [("admin/dev/a/1.0/.config", "PROJVERSION"), ("root/mir/.projects", "PROJNAMES")]
        connection.executemany("INSERT INTO kv VALUES (?, ?, 1)", rows)
        connection.execute("CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER, data BLOB)")
        for each in stored:
            content = each.rpartition("/")[2].encode()
            connection.execute("INSERT INTO files VALUES (?, ?, ?)", (each, len(content), content))


@pytest.fixture(params=["files", "database"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give a directory with four files of a stage and one of a mirror."""
    keys = [key("admin/dev", name) for name in FILES] + [key("root/mir", "b-1.0.tar.gz")]
    if request.param == "database":
        database(tmp_path / ".sqlite_db", stored=keys)
        return tmp_path
    database(tmp_path / ".sqlite")
    for each in keys:
        path = tmp_path / "+files" / each
        path.parent.mkdir(parents=True)
        path.write_text(path.name)
    return tmp_path


def test_server_directory_gives_uploads_and_documentation_and_no_mirror(server: Path, tmp_path: Path) -> None:
    """Of both storages; documentation comes last, test results are left out."""
    contents = read(server)
    assert [(file.index, file.filename) for file in contents.files] == [("admin/dev", name) for name in FILES[:3]]
    documentation = contents.files[-1]
    assert (documentation.project, documentation.version) == ("a", "1.0")
    assert contents.left_out == (f"admin/dev: {FILES[3]}",)
    assert list(contents.indexes) == ["admin/dev"]
    assert knows_mirrors(server)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for file in contents.files:
        path = contents.open_path(file, scratch)
        assert (path.name, path.read_text()) == (file.filename, file.filename)


def test_server_directory_with_damaged_bytes_gives_the_others(server: Path, tmp_path: Path) -> None:
    """What is not what devpi stored is not passed on."""
    contents = read(server)
    [broken, *_] = contents.files
    place = key("admin/dev", broken.filename)
    if (server / ".sqlite_db").exists():
        with closing(sqlite3.connect(server / ".sqlite_db")) as connection, connection:
            connection.execute("UPDATE files SET data = ? WHERE path = ?", (b"other", place))
    else:
        (server / "+files" / place).write_text("other")
    with pytest.raises(BadInput, match="damaged"):
        contents.open_path(broken, tmp_path)
    assert contents.open_path(contents.files[1], tmp_path).read_text() == contents.files[1].filename


def test_directory_of_another_database_does_not_know_mirrors(tmp_path: Path) -> None:
    """The files are there; which indexes are mirrors is said elsewhere."""
    path = tmp_path / "+files" / key("root/mir", FILES[0])
    path.parent.mkdir(parents=True)
    path.write_text(FILES[0])
    assert not knows_mirrors(tmp_path)
    assert [file.index for file in read(tmp_path).files] == ["root/mir"]


def export(directory: Path, **changes: Any) -> None:
    """Write an export of one stage with one file and one zip of documentation, and of one mirror."""
    path = directory / "admin" / "dev" / "a" / "1.0" / FILES[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FILES[1])
    (directory / "admin" / "dev" / FILES[2]).write_text(FILES[2])
    entry = {"hash_spec": "sha256=" + hashlib.sha256(FILES[1].encode()).hexdigest()}
    files = [
        {"type": "doczip", "projectname": "a", "version": "1.0", "relpath": f"admin/dev/{FILES[2]}"},
        {
            "type": "releasefile", "projectname": "a", "version": "1.0", "entrymapping": entry,
            "relpath": f"admin/dev/a/1.0/{FILES[1]}", **changes,
        },
        {"type": "toxresult", "projectname": "a", "version": "1.0", "relpath": f"admin/dev/{FILES[3]}"},
    ]  # fmt: skip
    stage = {"type": "stage", "volatile": True, "bases": ["root/mir"], "acl_upload": ["admin", "bob"], "plugin": 1}
    content = {
        "users": {"admin": {"email": "a@b.example", "pwhash": "x"}},
        "indexes": {
            "admin/dev": {"indexconfig": stage, "projects": {}, "files": files},
            "root/mir": {"indexconfig": {"type": "mirror", "mirror_url": "https://index.example/simple/"}},
        },
    }
    (directory / "dataindex.json").write_text(json.dumps(content))


def test_export_gives_files_settings_and_users(tmp_path: Path) -> None:
    """With the digest in full; a mirror has settings alone."""
    export(tmp_path)
    contents = read(tmp_path)
    assert [file.filename for file in contents.files] == [FILES[1], FILES[2]]
    assert contents.open_path(contents.files[0], tmp_path).read_text() == FILES[1]
    assert list(contents.indexes) == ["admin/dev", "root/mir"]
    assert contents.left_out == (f"admin/dev: {FILES[3]}",)
    targets = {"admin/dev": "carol/prod", "root/mir": "root/other"}
    assert bases_first(contents.indexes, targets) == ["root/mir", "admin/dev"]
    assert settings_for("admin/dev", contents, targets) == {
        "type": "stage", "volatile": True, "bases": ["root/other"], "acl_upload": ["carol", "bob"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"relpath": "../a-1.0.tar.gz"}, "outside of it"),
        ({"relpath": 5}, "cannot be read"),
        ({"relpath": None, "type": "releasefile"}, "cannot be read"),
    ],
)
def test_export_that_is_wrong_is_one_sentence(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    """A path that leads out of it above all."""
    export(tmp_path, **changes)
    with pytest.raises(BadInput, match=said):
        read(tmp_path)


def test_directory_that_is_none_of_devpis_says_what_it_lacks(tmp_path: Path) -> None:
    """Also a database that is none."""
    with pytest.raises(BadInput, match="neither"):
        read(tmp_path)
    (tmp_path / ".sqlite_db").write_text("no database, whatever its name says")
    with pytest.raises(BadInput, match="cannot be read"):
        read(tmp_path)


def test_distributions_in_a_folder_are_found_sorted_and_links_do_not_lead_out(tmp_path: Path) -> None:
    """Below DIR, too; a link within it is as good as a file."""
    outside, top = tmp_path / "outside", tmp_path / "top"
    for directory in (outside, top / "sub"):
        directory.mkdir(parents=True)
    (outside / "secret-1.0.tar.gz").touch()
    for name in ("b-1.0.tar.gz", "sub/a-1.0-py3-none-any.whl", "notes.txt"):
        (top / name).touch()
    (top / "c-1.0.tar.gz").symlink_to(top / "b-1.0.tar.gz")
    (top / "d-1.0.tar.gz").symlink_to(outside / "secret-1.0.tar.gz")
    (top / "more").symlink_to(outside, target_is_directory=True)
    found, others = find_distributions(top)
    assert [path.relative_to(top).as_posix() for path in found] == [
        "b-1.0.tar.gz", "c-1.0.tar.gz", "sub/a-1.0-py3-none-any.whl",
    ]  # fmt: skip
    assert others == 2
