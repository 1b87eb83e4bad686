"""The data directory without a server: files and rows together, migrations, what is refused."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from teepi.data import Archive, projects, schema
from teepi.data import blobs as blobs_module
from teepi.data.database import NAME, connect_to_read
from teepi.errors import DataUnavailable, StoreError, Unavailable
from tests.support.data_directory import INDEX, left, prepare, put_index, store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

OTHER = "bob/dev"
CONTENT = b"the same in both"


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    """Give an open data directory with two stages."""
    prepare(tmp_path / "data")
    found = Archive(tmp_path / "data")
    await asyncio.to_thread(found.open, 0)
    await found.database.write(lambda connection: put_index(connection, OTHER))
    yield found
    await found.close()


async def delete(archive: Archive, index: str, filename: str) -> None:
    """Delete a file as a client does."""

    def write(connection: sqlite3.Connection) -> tuple[None, list[str]]:
        file = projects.file_named(connection, index, filename)
        assert file is not None
        projects.delete_files(connection, [file])
        return None, [file.sha256]

    await archive.discard(write)


# -- files and rows ------------------------------------------------------------------------------------


async def test_content_in_two_indexes_lies_once_and_goes_with_the_last_row(archive: Archive) -> None:
    """Deleted from one index it is still there for the other."""
    sha256 = await store(archive, CONTENT, "demo-1.0.tar.gz")
    assert await store(archive, CONTENT, "demo-1.0.tar.gz", OTHER) == sha256
    assert left(archive.root) == [sha256]
    await delete(archive, INDEX, "demo-1.0.tar.gz")
    assert left(archive.root) == [sha256]
    await delete(archive, OTHER, "demo-1.0.tar.gz")
    assert left(archive.root) == []


async def test_content_deleted_and_uploaded_at_once_is_there_when_its_row_is(archive: Archive) -> None:
    """Whichever comes first: never a row without its file."""
    await store(archive, CONTENT, "demo-1.0.tar.gz")
    for _ in range(6):
        await asyncio.gather(
            store(archive, CONTENT, "demo-1.0.tar.gz", OTHER), delete(archive, INDEX, "demo-1.0.tar.gz")
        )
        assert left(archive.root) == [hashlib.sha256(CONTENT).hexdigest()]
        await asyncio.gather(
            delete(archive, OTHER, "demo-1.0.tar.gz"), store(archive, CONTENT, "demo-1.0.tar.gz", INDEX)
        )
        assert left(archive.root) == [hashlib.sha256(CONTENT).hexdigest()]


async def test_content_that_was_cut_is_whole_again_after_another_upload_of_it(archive: Archive) -> None:
    """A damaged file under the name does not stand in the way of the right one."""
    sha256 = await store(archive, CONTENT, "demo-1.0.tar.gz")
    path = archive.blobs.path(sha256)
    path.unlink()
    path.write_bytes(b"cut")
    assert archive.blobs.open(sha256, len(CONTENT)) is None
    await store(archive, CONTENT, "demo-1.0.tar.gz", OTHER)
    assert path.read_bytes() == CONTENT


async def test_row_that_is_refused_leaves_no_file(archive: Archive) -> None:
    """A name that is taken is an error of the database: the file is gone with it."""
    await store(archive, CONTENT, "demo-1.0.tar.gz")
    with pytest.raises(sqlite3.IntegrityError):
        await store(archive, b"another", "demo-1.0.tar.gz")
    assert left(archive.root) == [hashlib.sha256(CONTENT).hexdigest()]


@pytest.mark.parametrize("call", ["rename", "sync_directory"])
async def test_file_that_cannot_be_named_is_refused_and_leaves_neither_row_nor_file(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """EIO at the rename or at the sync behind it; the next upload is taken."""
    await store(archive, b"first", "demo-0.9.tar.gz")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        if call == "rename":
            broken.setattr(Path, "rename", refuse)
        else:
            broken.setattr(blobs_module, "sync_directory", refuse)
        with pytest.raises(Unavailable, match=r"cannot be written \(Input/output error\): nothing was stored"):
            await store(archive, CONTENT, "demo-1.0.tar.gz")
    assert left(archive.root) == [hashlib.sha256(b"first").hexdigest()]
    assert await archive.database.read(lambda c: projects.file_named(c, INDEX, "demo-1.0.tar.gz")) is None
    sha256 = await store(archive, CONTENT, "demo-1.0.tar.gz")
    assert archive.blobs.path(sha256).read_bytes() == CONTENT


async def test_abort_waits_for_the_write_that_runs(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor is not closed under a thread that writes: another file may have the number by then."""
    incoming = archive.blobs.begin()
    order: list[str] = []
    close = incoming.file.close
    monkeypatch.setattr(incoming, "file", _Slow(order, close))
    writing = asyncio.create_task(asyncio.to_thread(incoming.write, b"data"))
    await asyncio.to_thread(incoming.file.begun.wait)  # type: ignore[attr-defined]
    aborting = asyncio.create_task(asyncio.to_thread(incoming.abort))
    await asyncio.sleep(0)
    incoming.file.go_on.set()  # type: ignore[attr-defined]
    await asyncio.gather(writing, aborting)
    assert order == ["written", "closed"]


class _Slow:
    def __init__(self, order: list[str], close: Callable[[], None]) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._order, self._close = order, close

    def write(self, data: memoryview) -> int:
        """Write when told so."""
        self.begun.set()
        self.go_on.wait(5)
        self._order.append("written")
        return len(data)

    def close(self) -> None:
        """Note it."""
        self._order.append("closed")
        self._close()


def test_start_removes_what_has_no_row_and_leaves_what_is_not_teepis(tmp_path: Path) -> None:
    """Files without rows and unfinished ones go; other names stay, and hinder nothing."""
    root = tmp_path / "data"
    prepare(root)
    archive = Archive(root)
    archive.open(0)
    sha256 = asyncio.run(store(archive, CONTENT, "demo-1.0.tar.gz"))
    archive.close_now()
    orphan = root / "v1" / "files" / "ab" / ("ab" * 32)
    orphan.parent.mkdir()
    for path in (orphan, root / "v1" / "incoming" / "half", root / "v1" / "files" / "notes", orphan.with_name("other")):
        path.write_bytes(b"x")
    (root / "v1" / "incoming" / "directory").mkdir()
    archive = Archive(root)
    archive.open(0)
    archive.close_now()
    assert left(root) == sorted([sha256, "notes", "other"])


# -- the database --------------------------------------------------------------------------------------


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, pytest.MonkeyPatch]:
    """Give a data directory of schema 1 where this teepi knows one more step."""
    root = tmp_path / "data"
    prepare(root)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS[:1], ("ALTER TABLE users ADD COLUMN seen REAL",)))
    return root, monkeypatch


def version(root: Path) -> int:
    """Return the schema."""
    with closing(connect_to_read(root / NAME)) as connection:
        [found] = connection.execute("PRAGMA user_version").fetchone()
    return int(found)


def test_older_schema_is_brought_up_to_date_with_its_rows(older: tuple[Path, pytest.MonkeyPatch]) -> None:
    """The missing step is taken, what was there stays, and the second start takes none."""
    root, _ = older
    for _ in range(2):
        archive = Archive(root)
        archive.open(0)
        rows = archive.database.read_now(lambda c: c.execute("SELECT name, seen FROM users ORDER BY name").fetchall())
        archive.close_now()
        assert rows == [("admin", None), ("root", None)]
    assert version(root) == 2


def test_older_schema_whose_upgrade_fails_stays_as_it_was(older: tuple[Path, pytest.MonkeyPatch]) -> None:
    """Not half of it: the step before the one that fails is taken back, too."""
    root, monkeypatch = older
    steps = (*schema.MIGRATIONS, ("CREATE TABLE more (a)", "INSERT INTO absent VALUES (1)"))
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    with pytest.raises(StoreError, match="no such table: absent"):
        Archive(root).open(0)
    assert version(root) == 1
    with closing(connect_to_read(root / NAME)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = [row[1] for row in connection.execute("PRAGMA table_info (users)")]
    assert "more" not in tables
    assert "seen" not in columns


def test_newer_schema_is_refused_and_not_touched(tmp_path: Path) -> None:
    """One sentence with both numbers; the bytes stay, and the lock is given up."""
    root = tmp_path / "data"
    prepare(root)
    with closing(sqlite3.connect(root / NAME)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("PRAGMA journal_mode = DELETE")  # as a later teepi may have it
    before = (root / NAME).read_bytes()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"is of a newer teepi \(schema 99; this one knows 1\): nothing was touch"):
            Archive(root).open(0)
    assert (root / NAME).read_bytes() == before


@pytest.mark.parametrize("harm", ["garbage", "cut"])
def test_damaged_database_is_refused_and_never_set_aside(tmp_path: Path, harm: str) -> None:
    """Unlike a cache, it is not begun anew."""
    root = tmp_path / "data"
    prepare(root)
    whole = (root / NAME).read_bytes()
    damaged = b"this is no database\n" * 1000 if harm == "garbage" else whole[: len(whole) // 2]
    (root / NAME).write_bytes(damaged)
    with pytest.raises(StoreError, match=r"teepi data restore|cannot be read"):
        Archive(root).open(0)
    assert (root / NAME).read_bytes() == damaged
    assert sorted(path.name for path in root.iterdir() if "-" not in path.name) == ["lock", NAME, "v1"]


@pytest.mark.parametrize("harm", ["gone", "empty"])
def test_files_without_their_database_are_refused_and_kept(tmp_path: Path, harm: str) -> None:
    """A database that is lost must not make all that was uploaded look like leftovers."""
    root = tmp_path / "data"
    prepare(root)
    archive = Archive(root)
    archive.open(0)
    sha256 = asyncio.run(store(archive, CONTENT, "demo-1.0.tar.gz"))
    archive.close_now()
    (root / NAME).unlink()
    if harm == "empty":
        (root / NAME).touch()
    for _ in range(2):
        with pytest.raises(StoreError, match="no database that knows them: nothing was touched"):
            Archive(root).open(0)
    assert left(root) == [sha256]


# -- a directory that cannot be written ----------------------------------------------------------------


async def test_directory_that_cannot_be_made_is_as_if_empty_and_takes_nothing(tmp_path: Path) -> None:
    """A file in the way: there can be no private indexes, so a mirror goes on without."""
    (tmp_path / "taken").write_bytes(b"a file")
    for root in (tmp_path / "taken", tmp_path / "taken" / "data"):
        archive = Archive(root)
        await asyncio.to_thread(archive.open, 0)
        assert archive.missing is not None
        assert archive.problem is not None
        assert f"The data directory {root} cannot be made or written" in archive.problem
        assert await archive.database.read(projects.contents) == {}
        with pytest.raises(DataUnavailable, match="takes no upload"):
            await archive.database.write(put_index)
        await archive.close()


async def test_directory_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was uploaded is there for readers; a write is refused with the sentence."""
    root = tmp_path / "data"
    prepare(root)

    def refuse(*_: object) -> bool:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("teepi.data.archive.DirectoryLock.take", refuse)
    archive = Archive(root)
    await asyncio.to_thread(archive.open, 0)
    assert archive.missing is None
    rows = await archive.database.read(lambda c: c.execute("SELECT name FROM indexes").fetchall())
    assert rows == [(INDEX,)]
    with pytest.raises(DataUnavailable, match=r"cannot be written \(Read-only file system\): private indexes can be"):
        await archive.database.write(put_index)
    await archive.close()


def test_directory_that_cannot_be_looked_into_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold private indexes: serving the public ones in their place would be wrong."""

    def refuse(*_: object) -> bool:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("teepi.data.archive.DirectoryLock.take", refuse)
    monkeypatch.setattr("teepi.data.archive.is_begun", refuse)
    with pytest.raises(StoreError, match=r"cannot be used \(Permission denied\): it may hold private indexes"):
        Archive(tmp_path / "data").open(0)


def test_older_schema_that_cannot_be_upgraded_is_refused(
    older: tuple[Path, pytest.MonkeyPatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows cannot be read as they are."""
    root, _ = older
    monkeypatch.setattr("teepi.data.archive.DirectoryLock.take", lambda *_: False)
    monkeypatch.setattr("teepi.data.database.MIGRATIONS", schema.MIGRATIONS)
    with pytest.raises(StoreError, match="of an older teepi and cannot be upgraded where it cannot be written"):
        Archive(root).open(0)


# -- the lock ------------------------------------------------------------------------------------------


def test_lock_of_another_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """And given up by who was refused."""
    root = tmp_path / "data"
    prepare(root)
    with (root / "lock").open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=f"Another teepi uses the data directory {root}: stop it"):
            Archive(root).open(0)
    archive = Archive(root)
    archive.open(0)
    archive.close_now()


async def test_close_ends_the_wait_for_the_lock_at_once(tmp_path: Path) -> None:
    """Whoever stops a teepi that waits does not wait for it."""
    root = tmp_path / "data"
    prepare(root)
    archive = Archive(root)
    with (root / "lock").open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        opening = asyncio.create_task(asyncio.to_thread(archive.open, 60))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await archive.close()
        with pytest.raises(StoreError):
            await opening
