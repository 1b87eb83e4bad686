"""The catalogue: what it remembers, and that no damage to it fails a caller."""
# ruff: noqa: ASYNC240 - a test may touch its own small files between two awaits

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from teepi.catalog import Catalog, tables
from teepi.catalog import catalog as actions
from teepi.model import Digest, FileKey, FileRecord
from teepi.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

ROOT = "root/pypi"
SHA256 = "0123456789abcdef" * 4
OTHER_SHA256 = "fedcba9876543210" * 4


def record(filename: str = "foo-1.0.tar.gz", **changes: Any) -> FileRecord:
    """Return a record as a page of project ``foo`` gives it."""
    return replace(
        FileRecord(
            index=ROOT,
            project="foo",
            filename=filename,
            url=f"https://files.example/packages/a%2Bb/{filename}",
            address=f"+files/files.example/packages/a+b/{filename}",
            digest=Digest("sha256", SHA256),
            size=100,
        ),
        **changes,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database goes; the directory is not there yet."""
    return tmp_path / "cache #1?" / "catalog.sqlite3"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Catalog]:
    """Open the catalogue, as a start of the process does, and close it."""
    opened = Catalog.open(path)
    try:
        yield opened
    finally:
        await opened.close()


async def find(catalog: Catalog, wanted: FileRecord) -> FileRecord | None:
    """Look up what is known at the address of ``wanted``."""
    return await catalog.find(wanted.index, wanted.address)


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, message: str = "database or disk is full") -> Iterator[None]:
    """Make every transaction on a database file fail; those in memory work."""
    whole = transaction

    @contextmanager
    def failing(connection: sqlite3.Connection) -> Iterator[None]:
        if connection.execute("PRAGMA database_list").fetchall()[0][2]:
            raise sqlite3.OperationalError(message)
        with whole(connection):
            yield

    with monkeypatch.context() as patch:
        for module in ("catalog", "tables"):
            patch.setattr(f"teepi.catalog.{module}.transaction", failing)
        yield


class ReadOnlyMount:
    """Opening for writing fails; reading works as on a mount without a place for SQLite's -shm."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in for :func:`tables.open_disk`."""
        self.queries: list[str] = []
        self._open: Callable[[Path, str], sqlite3.Connection] = tables.open_disk
        monkeypatch.setattr(tables, "open_disk", self.open_disk)

    def open_disk(self, path: Path, query: str) -> sqlite3.Connection:
        """Open as such a mount allows."""
        self.queries.append(query)
        if query != "immutable=1":
            raise sqlite3.OperationalError("unable to open database file")
        return self._open(path, query)


def nothing(address: str) -> FileRecord | None:  # noqa: ARG001 - what a page has nowhere
    """Stand for a page without files."""
    return None


# Remembering and finding


async def test_find_after_restart_returns_whole_record(path: Path) -> None:
    """Every field comes back from disk as it was given, core metadata in all its three forms."""
    records = [
        record("foo-1.0.tar.gz", immutable=True),
        record("foo-1.1.tar.gz", digest=Digest("md5", "0" * 32), size=None, metadata=True),
        record("foo-1.2.tar.gz", digest=None, metadata=Digest("sha256", OTHER_SHA256)),
    ]
    async with opened(path) as first:
        await first.remember(records)
    async with opened(path) as second:
        assert [await find(second, known) for known in records] == records


async def test_find_unknown_address_returns_none(path: Path) -> None:
    """What no page has linked to is not known, whatever characters it has."""
    async with opened(path) as catalog:
        for address in ("", "+files/x", "a\0b", "lone \ud800 surrogate", "' OR 1=1 --"):
            assert await catalog.find(ROOT, address) is None
        assert catalog.problem is None


async def test_find_same_address_in_two_indexes_keeps_them_apart(path: Path) -> None:
    """An address is one of an index; nothing leaks from one index into another."""
    private = record(index="corp/main", digest=Digest("sha256", OTHER_SHA256))
    async with opened(path) as catalog:
        await catalog.remember([record(), private])
        assert await find(catalog, record()) == record()
        assert await find(catalog, private) == private
        assert await catalog.find("corp/other", private.address) is None
        assert await catalog.find_by_path("corp/main", "/packages/a+b/foo-1.0.tar.gz") == [private]
        assert await catalog.find_by_digest("corp/main", SHA256[:16], "foo-1.0.tar.gz") is None


async def test_find_by_path_matches_decoded_path_over_all_authorities(path: Path) -> None:
    """The decoded path of the upstream URL finds its files on every host and scheme."""
    mirror = record(url="http://mirror.example/packages/a+b/foo-1.0.tar.gz", address="+http/mirror.example/x")
    async with opened(path) as catalog:
        await catalog.remember([mirror, record(), record("foo-2.0.tar.gz"), record("odd", url="https://[::1/odd")])
        assert await catalog.find_by_path(ROOT, "/packages/a+b/foo-1.0.tar.gz") == [record(), mirror]
        assert await catalog.find_by_path(ROOT, "/packages/a%2Bb/foo-1.0.tar.gz") == []


async def test_find_by_digest_needs_sixteen_hex_and_file_name(path: Path) -> None:
    """Only the first 16 hex of a sha256 together with the file name find a file."""
    async with opened(path) as catalog:
        await catalog.remember([record(), record("foo-2.0.tar.gz", digest=Digest("sha512", SHA256 * 2))])
        assert await catalog.find_by_digest(ROOT, SHA256[:16], "foo-1.0.tar.gz") == record()
        assert await catalog.find_by_digest(ROOT, SHA256[:15], "foo-1.0.tar.gz") is None
        assert await catalog.find_by_digest(ROOT, SHA256[:17], "foo-1.0.tar.gz") is None
        assert await catalog.find_by_digest(ROOT, SHA256[:16], "foo-2.0.tar.gz") is None


async def test_remember_page_without_a_file_keeps_the_file(path: Path) -> None:
    """A file that the page no longer lists stays known: lock files still ask for it."""
    async with opened(path) as catalog:
        await catalog.remember([record("foo-1.0.tar.gz"), record("foo-2.0.tar.gz")])
        await catalog.remember([record("foo-2.0.tar.gz")])
        assert await find(catalog, record("foo-1.0.tar.gz")) is not None


async def test_remember_changed_page_renews_all_look_ups(path: Path) -> None:
    """A changed digest is seen by every look-up at once, the remembered one included."""
    changed = record(digest=Digest("sha256", OTHER_SHA256))
    async with opened(path) as catalog:
        await catalog.remember([record()])
        assert await find(catalog, record()) == record()
        await catalog.remember([changed])
        assert await find(catalog, record()) == changed
        assert await catalog.find_by_digest(ROOT, SHA256[:16], "foo-1.0.tar.gz") is None
        assert await catalog.find_by_digest(ROOT, OTHER_SHA256[:16], "foo-1.0.tar.gz") == changed


async def test_remember_unchanged_page_writes_nothing(path: Path) -> None:
    """Revalidating a page of thousands of files leaves the database alone."""
    async with opened(path) as catalog:
        await catalog.remember([record()])
        log = path.with_name(path.name + "-wal")
        size = log.stat().st_size
        await catalog.remember([record()])
        assert log.stat().st_size == size


async def test_settle_renews_what_is_known_of_the_project_and_adds_the_rest(path: Path) -> None:
    """What the page says now is known of the files that were known; no other file and no other project is touched."""
    old, gone, foreign = record("foo-1.0.tar.gz"), record("foo-2.0.tar.gz"), record("bar-1.0.tar.gz", project="bar")
    new, odd = record("foo-1.0.tar.gz", size=7), record("odd.tar.gz")
    page = {each.address: each for each in (new, odd, replace(foreign, size=9), record("foo-3.0.tar.gz"))}
    async with opened(path) as catalog:
        await catalog.remember([old, gone, foreign])
        assert await catalog.settle(ROOT, "foo", page.get, [odd]) == set()
        assert [await find(catalog, each) for each in (old, gone, foreign, odd)] == [new, gone, foreign, odd]
        assert await find(catalog, record("foo-3.0.tar.gz")) is None


async def test_settle_says_which_addresses_another_project_has(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file may be linked to by both; a file of another URL or digest needs another address. Fault 4."""
    same, other = record("odd.tar.gz", project="bar"), record("odd.zip", project="bar")
    mine = [replace(same, project="foo"), replace(other, project="foo", digest=Digest("sha256", OTHER_SHA256))]
    async with opened(path) as catalog:
        await catalog.remember([same, other])
        assert await catalog.settle(ROOT, "foo", nothing, mine) == {other.address}
        with full_disk(monkeypatch):
            assert await catalog.settle(ROOT, "foo", nothing, mine) == {other.address}
        assert [await find(catalog, each) for each in mine] == [same, other]


async def test_remember_unstorable_record_keeps_the_others(path: Path) -> None:
    """What SQLite cannot hold costs the rest of the page nothing."""
    async with opened(path) as catalog:
        await catalog.remember([record(url="https://x.example/\ud800"), record("big-1", size=2**63), record("foo-3")])
        assert await find(catalog, record("foo-3")) == record("foo-3")
        assert await find(catalog, record("big-1")) is None
        assert catalog.problem is None


async def test_mark_immutable_lasts_while_the_digest_stays(path: Path) -> None:
    """What upstream called immutable stays so over new pages and restarts, until its bytes are others."""
    async with opened(path) as first:
        await first.remember([record()])
        await find(first, record())
        await first.mark_immutable(ROOT, record().address)
        assert await find(first, record()) == record(immutable=True)
        await first.mark_immutable(ROOT, "unknown")
    async with opened(path) as second:
        await second.remember([record(size=101)])
        assert await find(second, record()) == record(size=101, immutable=True)
        await second.remember([record(digest=Digest("sha256", OTHER_SHA256))])
        assert await find(second, record()) == record(digest=Digest("sha256", OTHER_SHA256))


@pytest.mark.parametrize("filename", ["foo_bar-1.0-py3-none-any.whl", "foo-bar-1.0.tar.gz", "Foo.Bar-1.0.zip"])
async def test_remember_address_of_another_project_stays_with_its_own(path: Path, filename: str) -> None:
    """Whichever page comes first, a file belongs to the project it is named after, never to one that links to it."""
    own = record(filename, project="foo-bar")
    foreign = replace(own, project="foo", digest=Digest("sha256", OTHER_SHA256))
    async with opened(path) as catalog:
        await catalog.remember([foreign])
        assert await find(catalog, own) == foreign
        await catalog.remember([own])
        assert await find(catalog, own) == own
        await catalog.remember([foreign])
        assert await find(catalog, own) == own


async def test_remember_file_named_after_neither_project_stays_with_the_first(path: Path) -> None:
    """Two projects that link to an oddly named file do not take it from each other."""
    first, second = record("odd.zip", project="one"), record("odd.zip", project="two")
    async with opened(path) as catalog:
        await catalog.remember([first, second])
        assert await find(catalog, first) == first


async def test_remember_more_than_fits_in_memory_finds_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records in front of the database are bounded, and what falls out is found on disk."""
    monkeypatch.setattr(actions, "RECENT_RECORDS", 2)
    records = [record(f"foo-{number}") for number in range(5)]
    async with opened(path) as known:
        await known.remember(records)
        for _ in range(2):
            assert [await find(known, wanted) for wanted in records] == records
        assert len(known._recent) == 2  # noqa: SLF001 - the bound is not visible otherwise


# Interleavings


async def test_find_overtaken_by_remember_does_not_keep_what_it_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that read before a change and ends after it leaves no old record behind."""
    changed = record(digest=Digest("sha256", OTHER_SHA256))
    has_read, may_return = threading.Event(), threading.Event()
    async with opened(path) as catalog:
        await catalog.remember([record()])
        read = catalog._read  # noqa: SLF001 - the gate stands between reading and returning

        def gated(query: str, values: tuple[str, ...]) -> list[tuple[Any, ...]]:
            rows = read(query, values)
            has_read.set()
            assert may_return.wait(10)
            return rows

        monkeypatch.setattr(catalog, "_read", gated)
        early = asyncio.create_task(find(catalog, record()))
        assert await asyncio.to_thread(has_read.wait, 10)
        await catalog.remember([changed])
        may_return.set()
        assert await early == record()
        assert await find(catalog, record()) == changed


async def test_remember_cancelled_while_writing_still_renews_look_ups(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that goes away in mid-write leaves neither half a page nor an old record in front of the new."""
    changed = record(digest=Digest("sha256", OTHER_SHA256))
    writing, may_write = threading.Event(), threading.Event()
    async with opened(path) as catalog:
        await catalog.remember([record()])
        assert await find(catalog, record()) == record()
        merge = catalog._merge  # noqa: SLF001 - the gate stands before writing

        def gated(*arguments: Any) -> list[FileRecord]:
            writing.set()
            assert may_write.wait(10)
            return merge(*arguments)

        monkeypatch.setattr(catalog, "_merge", gated)
        page = asyncio.create_task(catalog.remember([changed]))
        assert await asyncio.to_thread(writing.wait, 10)
        page.cancel()
        with pytest.raises(asyncio.CancelledError):
            await page
        may_write.set()
        await catalog.flush()  # goes through the same thread, so the write is done
        assert await find(catalog, record()) == changed


async def test_remember_and_find_in_parallel_see_what_was_awaited(path: Path) -> None:
    """After ``await remember`` a look-up gives that record or a newer one, with many at once."""
    async with opened(path) as catalog:

        async def page(number: int) -> int:
            wanted = record(f"foo-{number}")
            for size in range(10):
                await catalog.remember([replace(wanted, size=size), record("foo-shared", size=number)])
                assert await find(catalog, wanted) == replace(wanted, size=size)
                assert await find(catalog, record("foo-shared")) is not None
            return number

        assert await asyncio.gather(*map(page, range(12))) == list(range(12))


# Files, generations, times


async def test_add_and_remove_files_keep_the_totals(path: Path) -> None:
    """Totals count each file once, and are the same after a restart."""
    async with opened(path) as first:
        await first.add_files([("a", 10), ("b", 20), ("a", 10)])
        await first.add_files([("b", 20), ("c", 5)])
        await first.remove_file("b")
        await first.remove_file("never there")
        assert first.totals == (2, 15)
    async with opened(path) as second:
        assert second.totals == (2, 15)


async def test_set_generation_holds_at_once_and_after_restart(path: Path) -> None:
    """A raised generation is seen before the table has it, and survives: it is part of the file's ETag."""
    key = FileKey(f"sha256:{SHA256}")
    async with opened(path) as first:
        written = asyncio.create_task(first.set_generation(key, 2))
        await asyncio.sleep(0)
        assert first.generations == {key.value: 2}
        await written
    async with opened(path) as second:
        assert second.generations == {key.value: 2}


def used_at(path: Path) -> dict[str, float]:
    """Read the times of use from the database."""
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT sha256, used_at FROM files").fetchall())


async def test_core_metadata_is_known_by_project_and_wheel_after_restart(path: Path) -> None:
    """Contract 15. A digest, nothing found, and forgotten again; another project's is not mixed in."""
    async with opened(path) as first:
        await first.learn_core_metadata([("foo", "sha256:a", SHA256)])
        await first.learn_core_metadata([("foo", "sha256:b", "")])
        await first.learn_core_metadata([("foo", "sha256:c", SHA256)])
        await first.learn_core_metadata([("foo", "sha256:c", None)])
        await first.learn_core_metadata([("bar", "sha256:a", OTHER_SHA256)])
    async with opened(path) as second:
        assert await second.core_metadata("foo") == {"sha256:a": SHA256, "sha256:b": ""}
        assert await second.core_metadata("foo", "sha256:b") == {"sha256:b": ""}
        assert await second.core_metadata("foo", "sha256:c") == {}
        assert await second.core_metadata("bar") == {"sha256:a": OTHER_SHA256}


async def test_core_metadata_on_a_full_disk_is_known_and_written_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 7. The overlay is asked first, what it forgot included, and reaches the database."""
    async with opened(path) as first:
        await first.learn_core_metadata([("foo", "sha256:a", SHA256)])
        await first.learn_core_metadata([("foo", "sha256:b", SHA256)])
        with full_disk(monkeypatch):
            await first.learn_core_metadata([("foo", "sha256:a", None)])
            await first.learn_core_metadata([("foo", "sha256:b", OTHER_SHA256)])
            assert await first.core_metadata("foo") == {"sha256:b": OTHER_SHA256}
        await first.flush()
        assert first.problem is None
    async with opened(path) as second:
        assert await second.core_metadata("foo") == {"sha256:b": OTHER_SHA256}


async def test_touch_is_written_by_flush(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A touch costs no write until the flush, which writes all of them."""
    async with opened(path) as known:
        await known.add_files([("a", 1), ("b", 1)])
        before = used_at(path)
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: before["a"] + 50)
            known.touch("a")
        assert used_at(path) == before
        await known.flush()
        assert used_at(path) == before | {"a": before["a"] + 50}


async def test_open_with_times_from_the_future_clamps_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that ran 400 days ahead does not keep a file from eviction when it is right again."""
    async with opened(path) as first:
        with monkeypatch.context() as patch:
            ahead = time.time() + 400 * 86_400
            patch.setattr(time, "time", lambda: ahead)
            await first.add_files([("a", 1)])
        assert used_at(path)["a"] > time.time()
    async with opened(path):
        assert used_at(path)["a"] <= time.time()


async def test_close_twice_does_nothing_more(path: Path) -> None:
    """Closing moves the log into the database, and once more is harmless."""
    catalog = Catalog.open(path)
    await catalog.close()
    await catalog.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# Rebuilding


async def test_needs_rebuild_until_marked(path: Path) -> None:
    """A rebuild that did not come to its end is asked for again at the next start."""
    async with opened(path) as first:
        await first.add_files([("a", 1)])
    async with opened(path) as second:
        before = second.needs_rebuild
        await second.mark_rebuilt()
    async with opened(path) as third:
        assert (first.needs_rebuild, before, second.needs_rebuild, third.needs_rebuild) == (True, True, False, False)


async def rebuilt(path: Path) -> bytes:
    """Leave a finished catalogue with one record on disk and return its bytes."""
    async with opened(path) as catalog:
        await catalog.remember([record()])
        await catalog.mark_rebuilt()
    return path.read_bytes()


async def test_open_after_deletion_begins_anew(path: Path) -> None:
    """A deleted catalogue is an empty one that wants its rebuild, even beside a log that a kill left behind."""
    async with opened(path) as first:
        await first.remember([record()])
        await first.mark_rebuilt()
        log = path.with_name(path.name + "-wal")
        left_behind = log.read_bytes()
    path.unlink()
    log.write_bytes(left_behind)
    async with opened(path) as second:
        assert second.needs_rebuild
        assert second.problem is None
        assert await find(second, record()) is None
        await second.remember([record()])
        assert await find(second, record()) == record()


@pytest.mark.parametrize("kept_bytes", [10, 100, 5000])
async def test_open_truncated_database_sets_it_aside(path: Path, kept_bytes: int) -> None:
    """What is left of a database is kept under another name, and a new one takes its place."""
    whole = await rebuilt(path)
    path.write_bytes(whole[:kept_bytes])
    async with opened(path) as catalog:
        assert catalog.needs_rebuild
        assert catalog.problem is None
        assert await find(catalog, record()) is None
    assert path.with_name("catalog.sqlite3.damaged").read_bytes()[:kept_bytes] == whole[:kept_bytes]


async def test_open_twice_damaged_keeps_one_copy(path: Path) -> None:
    """Damage that comes back does not fill the disk with copies."""
    for content in (b"first damage" * 100, b"second damage" * 100):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        async with opened(path) as catalog:
            assert catalog.needs_rebuild
    assert sorted(file.name for file in path.parent.iterdir()) == ["catalog.sqlite3", "catalog.sqlite3.damaged"]
    assert path.with_name("catalog.sqlite3.damaged").read_bytes().startswith(b"second")


@pytest.mark.parametrize(
    "statement",
    [f"PRAGMA user_version = {tables.SCHEMA + 1}", "PRAGMA user_version = 0", "DROP TABLE meta", "DROP TABLE known"],
)
async def test_open_other_schema_sets_it_aside(path: Path, statement: str) -> None:
    """A newer, an older or a foreign database is not read but rebuilt."""
    await rebuilt(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    async with opened(path) as catalog:
        assert catalog.needs_rebuild
        assert catalog.problem is None
        assert await find(catalog, record()) is None
    assert path.with_name("catalog.sqlite3.damaged").exists()


# Where it cannot be written


async def test_open_read_only_mount_serves_what_it_has(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache on a read-only mount is read as immutable; what is new is kept in memory. Fault 5."""
    await rebuilt(path)
    mount = ReadOnlyMount(monkeypatch)
    async with opened(path) as catalog:
        assert mount.queries[:2] == ["mode=rwc", "mode=ro"]
        assert str(path) in (catalog.problem or "")
        assert not catalog.needs_rebuild
        assert await find(catalog, record()) == record()
        await catalog.remember([record("foo-2.0.tar.gz")])
        await catalog.mark_immutable(ROOT, record().address)
        assert await find(catalog, record()) == record(immutable=True)
        assert await find(catalog, record("foo-2.0.tar.gz")) == record("foo-2.0.tar.gz")
        assert len(await catalog.find_by_path(ROOT, "/packages/a+b/foo-2.0.tar.gz")) == 1
        await catalog.flush()
        assert catalog.problem is not None


@pytest.mark.parametrize("content", [None, b"damage" * 1000])
async def test_open_where_nothing_can_be_used_works_in_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """Neither a missing nor a damaged database on a read-only mount stops anything."""
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    ReadOnlyMount(monkeypatch)
    async with opened(path) as catalog:
        assert catalog.needs_rebuild
        await catalog.remember([record()])
        await catalog.mark_rebuilt()
        assert await find(catalog, record()) == record()
        assert not catalog.needs_rebuild


async def test_open_directory_in_its_place_works_in_memory(path: Path) -> None:
    """A directory under the database's name is reported, not raised."""
    path.mkdir(parents=True)
    async with opened(path) as catalog:
        assert catalog.problem is not None
        await catalog.remember([record()])
        assert await find(catalog, record()) == record()


async def test_write_on_full_disk_keeps_everything_known(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that fills up at run time fails no call, and is said once. Fault 4."""
    key = FileKey(f"sha256:{SHA256}")
    async with opened(path) as catalog:
        await catalog.remember([record(immutable=True)])
        await catalog.add_files([("a", 10), ("b", 20)])
        with full_disk(monkeypatch):
            await catalog.remember([record(size=7), record("foo-2.0.tar.gz")])
            await catalog.set_generation(key, 1)
            await catalog.add_files([("b", 20), ("c", 30)])
            await catalog.remove_file("a")
            catalog.touch("b")
            await catalog.flush()
            assert catalog.problem is not None
            assert "disk is full" in catalog.problem
            assert catalog.totals == (2, 50)
            await catalog.add_files([("a", 10)])
            assert catalog.totals == (3, 60)
            assert await find(catalog, record()) == record(size=7, immutable=True)
            assert await find(catalog, record("foo-2.0.tar.gz")) == record("foo-2.0.tar.gz")
            found = await catalog.find_by_digest(ROOT, SHA256[:16], "foo-2.0.tar.gz")
            assert found == record("foo-2.0.tar.gz")
    assert len([entry for entry in caplog.records if "cannot be written" in entry.message]) == 1


async def test_flush_after_disk_has_space_again_writes_what_was_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came while the disk was full reaches the database, removals and touches included."""
    key = FileKey(f"sha256:{SHA256}")
    async with opened(path) as first:
        await first.remember([record()])
        await first.add_files([("a", 10), ("b", 20)])
        before = used_at(path)
        with full_disk(monkeypatch):
            await first.remember([record(size=7)])
            await first.set_generation(key, 3)
            await first.add_files([("c", 30)])
            await first.remove_file("a")
            await first.mark_rebuilt()
            first.touch("b")
            await first.flush()
        await first.flush()
        assert first.problem is None
        assert used_at(path)["b"] > before["b"]
        assert await find(first, record()) == record(size=7)
        await first.remember([record("foo-2.0.tar.gz")])
    async with opened(path) as second:
        assert second.totals == (2, 50)
        assert second.generations == {key.value: 3}
        assert not second.needs_rebuild
        assert await find(second, record()) == record(size=7)
        assert await find(second, record("foo-2.0.tar.gz")) is not None


async def test_overlay_is_bounded_and_drops_the_oldest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that stays full does not fill the memory."""
    monkeypatch.setattr(actions, "OVERLAY_RECORDS", 3)
    records = [record(f"foo-{number}") for number in range(5)]
    async with opened(path) as known:
        with full_disk(monkeypatch):
            await known.remember(records)
            assert [await find(known, wanted) for wanted in records] == [None, None, *records[2:]]


async def test_damage_at_run_time_is_set_aside_at_the_next_start(path: Path) -> None:
    """A page of the database that turns out damaged fails no call; the next start begins a new one."""
    async with opened(path) as first:
        await first.remember([record(f"foo-{number}") for number in range(500)])
        await first.mark_rebuilt()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * 4096 * 2 + whole[4096 * 3 :])
    async with opened(path) as second:
        # The root of ``known`` may be among the damaged pages; then the damage is already seen at the start.
        for number in range(500):
            await find(second, record(f"foo-{number}"))
        await second.remember([record("foo-new")])
        assert await find(second, record("foo-new")) == record("foo-new")
    async with opened(path) as third:
        assert third.needs_rebuild
        assert third.problem is None
    assert path.with_name("catalog.sqlite3.damaged").exists()


@pytest.mark.parametrize("in_reader", [True, False])
async def test_malformed_at_run_time_falls_to_the_overlay(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_reader: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Whether a look-up or a write finds the damage, callers go on and the file is renamed."""
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    class Malformed:
        """A connection that fails as SQLite does on a damaged page."""

        def __init__(self, connection: sqlite3.Connection | None) -> None:
            self._connection = connection

        def execute(self, *_: object) -> None:
            raise error

        def close(self) -> None:
            if self._connection is not None:
                self._connection.close()

    async with opened(path) as first:
        await first.remember([record()])
        attribute = "_reading" if in_reader else "_disk"
        monkeypatch.setattr(first, attribute, Malformed(getattr(first, attribute)))
        if in_reader:
            assert await find(first, record()) is None
        await first.remember([record("foo-2.0.tar.gz")])
        assert "damaged" in (first.problem or "")
        assert await find(first, record("foo-2.0.tar.gz")) == record("foo-2.0.tar.gz")
        await first.flush()
        assert first.problem is not None
    assert path.with_name("catalog.sqlite3.damaged").exists()
    async with opened(path) as second:
        assert second.needs_rebuild
