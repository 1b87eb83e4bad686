"""The catalogue's part about committed files: the order of use, names, and what holds while the disk is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teepi.catalog import files as file_table
from tests.unit.test_catalog import full_disk, opened, record

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class _Time:
    """Stands for the ``time`` module: each look is a second later."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        self.now += 1
        return self.now


async def test_files_come_by_use_in_pages_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Least recently used first; the next page begins behind the last one seen, ties by digest."""
    monkeypatch.setattr(file_table, "time", _Time())
    async with opened(tmp_path / "catalog.sqlite3") as catalog:
        await catalog.add_files([("d", 4), ("c", 3)])
        await catalog.add_files([("b", 2)])
        await catalog.add_files([("a", 1)])
        catalog.touch("c")
        assert catalog.was_touched("c")
        await catalog.flush()
        assert not catalog.was_touched("c")
        for most in (1, 2, 3, 10):
            seen: list[str] = []
            after = (-1.0, "")
            while batch := await catalog.files(after=after, most=most):
                assert len(batch) <= most
                seen += [each.sha256 for each in batch]
                after = (batch[-1].used_at, batch[-1].sha256)
            assert seen == ["d", "b", "a", "c"]
        by_digest = [each.sha256 for each in await catalog.files(after=(0.0, "a"), by_digest=True)]
        assert by_digest == ["b", "c", "d"]


async def test_file_keeps_its_first_name_over_a_restart(tmp_path: Path) -> None:
    """A name is given when the file is committed, or found later for one that has none."""
    path = tmp_path / "catalog.sqlite3"
    async with opened(path) as catalog:
        await catalog.add_files([("a", 1)], of=record())
        await catalog.add_files([("b", 1)])
        await catalog.name_files([("a", ("x/y", "other", "other-1.0.whl")), ("b", ("x/y", "late", "late-1.0.whl"))])
    async with opened(path) as catalog:
        names = {each.sha256: (each.project, each.filename) for each in await catalog.files()}
    assert names == {"a": (record().project, record().filename), "b": ("late", "late-1.0.whl")}


async def test_files_on_a_full_disk_are_those_that_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was added and removed in memory joins what is on disk."""
    async with opened(tmp_path / "catalog.sqlite3") as catalog:
        await catalog.add_files([("a", 1), ("b", 2)])
        with full_disk(monkeypatch):
            await catalog.add_files([("c", 3)])
            await catalog.remove_file("a")
            await catalog.note("word", "new")
            assert {each.sha256 for each in await catalog.files()} == {"b", "c"}
            assert await catalog.noted("word") == "new"
            assert await catalog.noted("other") is None
