"""The database that is searched: what is found, in which order, and that nothing that happens to it fails a search."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teepi.search_query import Project, words_of
from teepi.search_store import SearchStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

INDEXES = ["admin/dev", "root/pypi"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SearchStore]:
    """Give an empty database."""
    opened = SearchStore(tmp_path / "search.sqlite3")
    yield opened
    opened.close()


def put_list(store: SearchStore, index: str, names: Sequence[str], mark: str) -> None:
    """Put a project list in."""
    number = store.begin_list(index)
    assert number is not None
    assert store.add_names(names)
    for _ in store.steps_of_list(number, index, mark):
        pass


def found(store: SearchStore, query: str, indexes: Sequence[str] = INDEXES, most: int = 100) -> list[str]:
    """Return index and name of what is found."""
    return [f"{hit.index}:{hit.name}" for hit in store.find(words_of(query), indexes, most)]


def names(store: SearchStore, query: str, most: int = 100) -> list[str]:
    """Return the names of what is found."""
    return [hit.name for hit in store.find(words_of(query), INDEXES, most)]


def upload(name: str, summary: str = "", index: str = "admin/dev") -> Project:
    """Return what an upload tells."""
    return Project(index, name, name.title(), summary, "1.0")


def test_exact_name_goes_before_begin_before_part_before_summary(store: SearchStore) -> None:
    """What is here goes before what is only listed; a word is found in the middle of a name, too."""
    listed = ["gamma-x", "my-gamma", "gammaray", "delta", "gamma-xylophone"]
    put_list(store, "root/pypi", listed, "1")
    store.put_uploads([upload("gamma", "x"), upload("the-gamma"), upload("tool", "for gamma rays"), upload("gamma-zz")])
    assert names(store, "gamma") == [
        "gamma", "gamma-zz", "gamma-x", "gammaray", "gamma-xylophone", "the-gamma", "my-gamma", "tool",
    ]  # fmt: skip
    assert names(store, "gamma", most=2) == ["gamma", "gamma-zz"]


def test_several_words_must_all_be_there_in_name_or_summary(store: SearchStore) -> None:
    """Two words of which one stands in each; short ones count as well."""
    store.put_uploads([upload("gamma", "A test package"), upload("gamma-lib", "of no use"), upload("test", "uv")])
    put_list(store, "root/pypi", ["gamma-test", "test-gamma-uv", "gamma-other"], "1")
    assert names(store, "gamma test") == ["gamma-test", "test-gamma-uv", "gamma"]
    assert names(store, "GAMMA_test.uv") == ["test-gamma-uv"]
    assert names(store, "uv") == ["test"]
    assert names(store, "a te") == ["gamma"]
    assert names(store, "ga") == ["gamma", "gamma-lib", "gamma-test", "gamma-other"]


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "*",
        "-",
        "^gamma",
        'gamma" OR "delta',
        "NEAR(gamma delta)",
        "name : gamma -",
        "gamma AND NOT",
        "'; DROP",
        "\x00",
    ],
)
def test_characters_that_fts_has_a_meaning_for_have_none(store: SearchStore, query: str) -> None:
    """Fault 18. They part words and are no error."""
    store.put_uploads([upload("gamma"), upload("near-and", "gamma delta")])
    expected = {"^gamma": ["gamma", "near-and"], "NEAR(gamma delta)": ["near-and"]}
    assert names(store, query) == expected.get(query, [])
    assert store.problem is None


@given(st.text(max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_query_is_answered(store: SearchStore, query: str) -> None:
    """Nothing that a person may type makes SQLite complain."""
    store.find(words_of(query), INDEXES, 10)
    assert store.problem is None


def test_first_index_that_has_a_project_owns_it(store: SearchStore) -> None:
    """A name in a private index hides the mirror's, also where only the mirror's summary has the word."""
    store.put_uploads([upload("gamma", "ours")])
    store.describe([Project("root/pypi", "gamma", "gamma", "theirs", "9.9")])
    put_list(store, "root/pypi", ["gamma", "gamma-more"], "1")
    assert found(store, "gamma") == ["admin/dev:gamma", "root/pypi:gamma-more"]
    assert found(store, "theirs") == []
    assert found(store, "theirs", ["root/pypi"]) == ["root/pypi:gamma"]
    assert found(store, "gamma", INDEXES[::-1]) == ["root/pypi:gamma", "root/pypi:gamma-more"]
    assert found(store, "ours", ["root/pypi"]) == []
    each = store.find(["gamma"], INDEXES, 10, each=True)
    assert [hit.index for hit in each if hit.name == "gamma"] == INDEXES


def test_uploads_come_change_and_go(store: SearchStore) -> None:
    """The words of an earlier summary lead nowhere."""
    store.put_uploads([upload("gamma", "first words"), upload("delta")])
    store.put_uploads([upload("gamma", "second words")])
    assert names(store, "first") == []
    assert names(store, "second words") == ["gamma"]
    store.put_uploads([upload("delta"), upload("eta")], are_all=True)
    assert names(store, "gamma") == []
    store.forget_upload("admin/dev", "delta")
    assert names(store, "delta") == []
    assert names(store, "eta") == ["eta"]


def test_what_is_cached_is_described_once_and_leaves_with_its_files(store: SearchStore) -> None:
    """A page alone is enough to be found; what has files and no description is named."""
    cached = {("root/pypi", "alpha"): True, ("root/pypi", "beta"): False}
    assert store.settle_cached(cached) == [("root/pypi", "alpha")]
    store.describe([Project("root/pypi", "alpha", "Alpha", "Some words", "1.0")])
    assert store.settle_cached(cached) == []
    [hit] = store.find(["words"], INDEXES, 10)
    assert hit == Project("root/pypi", "alpha", "Alpha", "Some words", "1.0", is_cached=True, is_known=True)
    store.settle_cached({("root/pypi", "alpha"): False})
    assert names(store, "beta") == []
    assert not store.find(["words"], INDEXES, 10)[0].is_cached


def test_list_that_changes_adds_and_removes_names(store: SearchStore) -> None:
    """Only the newest list counts, each index has its own, and its mark stands for all of it."""
    put_list(store, "root/pypi", ["alpha-one", "alpha-two"], "1")
    put_list(store, "admin/dev", ["alpha-one"], "7")
    put_list(store, "root/pypi", ["alpha-two", "alpha-three"], "2")
    assert store.list_mark("root/pypi") == "2"
    assert found(store, "alpha", ["root/pypi"]) == ["root/pypi:alpha-two", "root/pypi:alpha-three"]
    assert found(store, "one") == ["admin/dev:alpha-one"]


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """It is told only what is new."""
    path = tmp_path / "search.sqlite3"
    first = SearchStore(path)
    assert first.is_empty
    put_list(first, "root/pypi", ["alpha"], "1")
    first.close()
    second = SearchStore(path)
    assert not second.is_empty
    assert second.list_mark("root/pypi") == "1"
    assert names(second, "alpha") == ["alpha"]
    second.close()


@pytest.mark.parametrize("harm", ["noise", "schema", "tables"])
def test_database_that_cannot_be_read_is_made_anew(tmp_path: Path, harm: str) -> None:
    """It can be thrown away at any time: nothing is in it that is not elsewhere."""
    path = tmp_path / "search.sqlite3"
    SearchStore(path).close()
    if harm == "noise":
        path.write_bytes(b"no database" * 1000)
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99" if harm == "schema" else "DROP TABLE listed_words")
        connection.close()
    store = SearchStore(path)
    assert store.is_empty
    store.put_uploads([upload("gamma")])
    assert names(store, "gamma") == ["gamma"]
    assert (store.problem, store.is_lasting) == (None, True)
    store.close()


def test_database_that_is_damaged_while_it_is_open_is_made_anew(tmp_path: Path) -> None:
    """The search that meets it finds nothing; the next one is told to fill it."""
    path = tmp_path / "search.sqlite3"
    store = SearchStore(path)
    store.put_uploads([upload(f"gamma-{number}", "words " * 50) for number in range(500)])
    store.told()
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(size - 8192))
    store = SearchStore(path)
    assert names(store, "gamma words") == []
    assert store.is_empty
    store.put_uploads([upload("gamma")])
    assert names(store, "gamma") == ["gamma"]
    store.close()


def test_disk_that_takes_nothing_leaves_what_is_there_to_be_searched(
    store: SearchStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 13. One sentence in the log, and a list that did not get in whole is not taken for one that has."""
    store.put_uploads([upload("gamma")])
    store._connection.execute("PRAGMA query_only = 1")  # noqa: SLF001 - what a read-only disk does
    store.put_uploads([upload("delta")])
    store.put_uploads([upload("eta")])
    assert store.begin_list("root/pypi") is None
    assert names(store, "gamma") == ["gamma"]
    assert len(caplog.records) == 1
    assert "cannot be written" in str(store.problem)
    store._connection.execute("PRAGMA query_only = 0")  # noqa: SLF001
    number = store.begin_list("root/pypi")
    assert number is not None
    assert store.problem is None
    assert store.add_names(["alpha"])
    store._connection.execute("PRAGMA query_only = 1")  # noqa: SLF001
    assert not list(store.steps_of_list(number, "root/pypi", "1"))
    store._connection.execute("PRAGMA query_only = 0")  # noqa: SLF001
    assert store.list_mark("root/pypi") is None


def test_directory_that_cannot_be_written_is_searched_in_memory(tmp_path: Path) -> None:
    """What is told while teepi runs is found."""
    (tmp_path / "file").write_text("in the way")
    store = SearchStore(tmp_path / "file" / "search.sqlite3")
    assert not store.is_lasting
    store.put_uploads([upload("gamma")])
    assert names(store, "gamma") == ["gamma"]
    store.close()
