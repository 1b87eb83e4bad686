"""The store: reserve, partial, verify, commit; one undo path."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from teepi import disk
from teepi.errors import StoreError
from teepi.model import Digest, FileKey
from teepi.store import (
    MetadataStore,
    PageStore,
    PartialNotes,
    Store,
    StoredMetadata,
    StoredPage,
    files,
    partial,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"the bytes of a wheel" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = FileKey.of("root/pypi", "https://files.example/a.whl", Digest("sha256", SHA256))
URL_KEY = FileKey.of("root/pypi", "https://files.example/a.whl", None)
NOTES = PartialNotes("https://files.example/a.whl", f"sha256={SHA256}", len(CONTENT), '"v1"', None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Yield a store on an empty directory."""
    store = Store(tmp_path / "cache")
    yield store
    store.close()


def _commit(store: Store, key: FileKey = KEY, last_modified: str | None = None) -> None:
    landing = store.begin(key, NOTES)
    landing.append(CONTENT)
    store.commit(key, landing, SHA256, last_modified=last_modified)
    landing.descriptor.drop()


def _landing(store: Store, part: bytes = CONTENT[:1000]) -> None:
    """Leave a partial as a killed process does."""
    landing = store.begin(KEY, NOTES)
    landing.append(part)
    landing.descriptor.drop()


def test_commit_makes_a_read_only_file_and_leaves_no_partial(store: Store) -> None:
    """A name in files/ is a whole file; nothing stays in partial/."""
    _commit(store, last_modified="Wed, 21 Oct 2015 07:28:00 GMT")
    cached = store.open_cached(KEY, len(CONTENT))
    assert cached is not None
    assert os.pread(cached.file.fd, len(CONTENT) + 1, 0) == CONTENT
    assert os.fstat(cached.file.fd).st_mode & 0o777 == 0o444
    assert cached.last_modified_seconds == 1445412480
    cached.file.drop()
    assert list((store.root / "v1" / "partial").iterdir()) == []


def test_commit_syncs_before_the_rename_and_the_directory_after(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 2: no rename without a sync of the file before and of its directory behind."""
    calls: list[str] = []
    monkeypatch.setattr(files, "sync", lambda _: calls.append("sync"))
    for module in (files, disk):
        monkeypatch.setattr(module, "sync_directory", lambda path: calls.append(f"directory {path.name}"))
    real = type(store.root).rename

    def rename(path: Path, to: Path) -> Path:
        calls.append("rename")
        return real(path, to)

    monkeypatch.setattr(type(store.root), "rename", rename)
    _commit(store)
    assert calls[-4:] == ["directory sha256", "sync", "rename", f"directory {SHA256[:2]}"]


def test_commit_that_fails_to_sync_commits_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 3: after EIO there is no file under the final name."""

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "sync", fail)
    landing = store.begin(KEY, NOTES)
    landing.append(CONTENT)
    with pytest.raises(OSError, match="Input/output"):
        store.commit(KEY, landing, SHA256, last_modified=None)
    landing.descriptor.drop()
    assert store.open_cached(KEY) is None


def test_commit_of_a_key_without_sha256_is_found_by_its_sidecar(store: Store) -> None:
    """A file whose page gives no sha256 is content-addressed all the same."""
    _commit(store, URL_KEY)
    cached = store.open_cached(URL_KEY)
    assert cached is not None
    assert (cached.sha256, cached.etag) == (SHA256, '"v1"')
    cached.file.drop()


def test_cached_file_of_the_wrong_size_is_set_aside(store: Store) -> None:
    """Fault 7: a truncated file is found on opening and fetched anew."""
    _commit(store)
    path = store.root / "v1" / "files" / "sha256" / SHA256[:2] / SHA256
    path.chmod(0o644)
    os.truncate(path, 10)
    assert store.open_cached(KEY, len(CONTENT)) is None
    assert not path.exists()
    assert len(list((store.root / "v1" / "damaged").iterdir())) == 1


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
def test_cached_file_replaced_by_something_else_is_set_aside(store: Store, kind: str) -> None:
    """Fault 7: a directory, a symlink or a pipe under the name is no file."""
    _commit(store)
    path = store.root / "v1" / "files" / "sha256" / SHA256[:2] / SHA256
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to("/etc/hostname")
    else:
        os.mkfifo(path)
    assert store.open_cached(KEY) is None
    assert not path.is_symlink()
    assert not path.exists()


def test_commit_over_a_directory_succeeds(store: Store) -> None:
    """Whatever stands in the way of a right file goes aside."""
    path = store.root / "v1" / "files" / "sha256" / SHA256[:2] / SHA256
    path.mkdir(parents=True)
    (path / "x").touch()
    _commit(store)
    cached = store.open_cached(KEY)
    assert cached is not None
    cached.file.drop()


def test_partial_of_a_killed_process_is_resumed_at_its_length(store: Store) -> None:
    """Fault 1: what was written survives the process."""
    _landing(store)
    found = store.resume(KEY, NOTES.digest)
    assert found is not None
    landing, notes = found
    hasher = hashlib.sha256()
    landing.hash_into(hasher)
    assert (landing.length, notes.total, hasher.digest()) == (
        1000,
        len(CONTENT),
        hashlib.sha256(CONTENT[:1000]).digest(),
    )
    landing.descriptor.drop()


def test_partial_of_another_digest_is_dropped(store: Store) -> None:
    """The index has changed its mind: the prefix is of another file."""
    _landing(store)
    assert store.resume(KEY, "sha256=" + "1" * 64) is None
    assert list((store.root / "v1" / "partial").iterdir()) == []


def test_partial_of_another_boot_is_dropped_unless_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 2: a power cut may have left holes; only what a clean stop synced is good."""
    store = Store(tmp_path)
    _landing(store)
    monkeypatch.setattr(files, "boot_id", lambda: "another boot")
    rebooted = Store(tmp_path)
    assert rebooted.resume(KEY, NOTES.digest) is None
    landing = store.begin(KEY, NOTES)
    landing.append(CONTENT[:700])
    landing.keep()
    landing.append(CONTENT[700:1000])
    landing.descriptor.drop()
    found = rebooted.resume(KEY, NOTES.digest)
    assert found is not None
    assert found[0].length == 700
    found[0].descriptor.drop()
    store.close()
    rebooted.close()


def test_partial_with_unreadable_notes_is_dropped(store: Store) -> None:
    """Damaged notes are no reason to trust or to fail."""
    _landing(store)
    for path in (store.root / "v1" / "partial").glob("*.json"):
        path.write_text("{")
    assert store.resume(KEY, NOTES.digest) is None


def test_partial_with_notes_of_wrong_types_is_dropped(store: Store) -> None:
    """Notes are checked field by field."""
    _landing(store)
    for path in (store.root / "v1" / "partial").glob("*.json"):
        notes = json.loads(path.read_text())
        path.write_text(json.dumps(notes | {"total": "many"}))
    assert store.resume(KEY, NOTES.digest) is None


def test_partial_that_another_process_leads_is_left_alone(store: Store) -> None:
    """The lock on a partial elects one leader."""
    landing = store.begin(KEY, NOTES)
    landing.append(b"x")
    assert store.resume(KEY, NOTES.digest) is None
    assert landing.path.exists()
    landing.descriptor.drop()


def test_begin_uses_a_new_inode(store: Store) -> None:
    """Slow readers of a failed fetch keep reading the old bytes."""
    first = store.begin(KEY, NOTES)
    first.append(b"old")
    second = store.begin(KEY, NOTES)
    second.append(b"new")
    assert os.pread(first.descriptor.fd, 3, 0) == b"old"
    first.descriptor.drop()
    second.descriptor.drop()


def test_partials_that_no_one_touched_for_a_week_are_deleted(store: Store) -> None:
    """Start-up clears what nobody came back for, and nothing else."""
    _landing(store)
    old = store.root / "v1" / "partial" / "sha256-old"
    old.touch()
    week = time.time() - 8 * 86400
    os.utime(old, (week, week))
    assert store.remove_old_partials(7) == 1
    assert store.resume(KEY, NOTES.digest) is not None


def test_lock_while_another_holds_it_is_refused_with_a_sentence(tmp_path: Path) -> None:
    """Fault 8: two processes never share a directory."""
    first = Store(tmp_path)
    first.lock()
    second = Store(tmp_path)
    with pytest.raises(StoreError, match=r"Another teepi uses the cache directory .*--cache-dir"):
        second.lock(wait_seconds=0)
    first.close()
    second.lock(wait_seconds=0)
    second.close()


def test_boot_id_on_linux_is_stable() -> None:
    """The id names this boot."""
    assert partial.boot_id() == partial.boot_id() is not None


PAGE = StoredPage("root/pypi", "demo", "https://i.example/simple/demo/", "text/html", '"e"', None, 5.0, b"<a>\n</a>")


async def test_page_saved_is_loaded_as_it_was(tmp_path: Path) -> None:
    """Pages survive a restart byte for byte."""
    with ThreadPoolExecutor() as executor:
        pages = PageStore(tmp_path / "pages", executor)
        await pages.save(PAGE)
        assert await pages.load("root/pypi", "demo") == PAGE
        assert list(pages.walk()) == [PAGE]
        assert await pages.load("root/pypi", "other") is None


async def test_page_that_is_damaged_is_not_there(tmp_path: Path) -> None:
    """A torn page is fetched anew, never shown."""
    with ThreadPoolExecutor() as executor:
        pages = PageStore(tmp_path / "pages", executor)
        await pages.save(replace(PAGE, body=b"x" * 100))
        (path,) = await asyncio.to_thread(lambda: list(tmp_path.rglob("*.page")))
        os.truncate(path, path.stat().st_size - 1)
        assert await pages.load("root/pypi", "demo") is None


async def test_page_of_a_name_that_is_none_raises(tmp_path: Path) -> None:
    """Fault 17: a request path is never joined to a disk path."""
    with ThreadPoolExecutor() as executor:
        pages = PageStore(tmp_path, executor)
        with pytest.raises(ValueError, match="not a normalised project"):
            await pages.load("root/pypi", "../../etc")


def test_use_of_core_metadata_that_was_not_loaded_is_noted_once_a_day(tmp_path: Path) -> None:
    """Eviction goes by it; when it was read out does not change."""
    wheel = FileKey("sha256:" + "a" * 64)
    with ThreadPoolExecutor(1) as executor:
        store = MetadataStore(tmp_path, executor)
        store.save(wheel, StoredMetadata.of(b"Name: demo"))
        path = store.path(wheel)
        used = []
        for _ in range(2):
            os.utime(path, (1, 2))
            store.note_use(wheel)
            executor.submit(int).result()
            used.append(path.stat().st_atime > 1)
            assert path.stat().st_mtime == 2
    assert used == [True, False]
