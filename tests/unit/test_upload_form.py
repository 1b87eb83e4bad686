"""What an upload says of a file."""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING

import pytest

from teepi.upload_form import is_distribution, read_form
from tests.support.wheels import sdist, wheel

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("make", [wheel, sdist])
def test_form_of_a_distribution_has_its_core_metadata_and_digest(make: type, tmp_path: Path) -> None:
    """By the names of devpi's forms; what comes several times is sent several times."""
    made = make("some-thing", "1.5", requires=["a>1", "b"], requires_python=">=3.9")
    path = tmp_path / made.filename
    path.write_bytes(made.content)
    form = read_form(path)
    assert (form.sha256, form.size_bytes) == (made.sha256, len(made.content))
    kind, tag = ("bdist_wheel", "py3") if make is wheel else ("sdist", "source")
    assert set(form.fields) >= {
        (":action", "file_upload"), ("filetype", kind), ("pyversion", tag), ("metadata_version", "2.1"),
        ("name", "some-thing"), ("version", "1.5"), ("requires_python", ">=3.9"),
        ("requires_dist", "a>1"), ("requires_dist", "b"),
    }  # fmt: skip


def test_form_of_a_file_without_core_metadata_says_what_its_name_says(tmp_path: Path) -> None:
    """An old sdist, or one that is damaged: the server judges it."""
    path = tmp_path / "old.thing-1.0.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("old.thing-1.0/setup.py", "")
    for content in (path.read_bytes(), b"PK\3\4 no zip"):
        path.write_bytes(content)
        form = read_form(path)
        assert {("name", "old-thing"), ("version", "1.0"), ("metadata_version", "1.0")} <= set(form.fields)
        assert form.sha256 == hashlib.sha256(content).hexdigest()


def test_form_names_follow_the_forms_where_core_metadata_has_others(tmp_path: Path) -> None:
    """Keywords are one field, links of a project a label and a URL each."""
    made = wheel("demo", "1.0")
    headers = (
        b"Keywords: a,b\nProject-URL: Docs, https://docs.example/\nProvides-Extra: x\nPlatform: any\n\n\xc3\xa4 text\n"
    )
    path = tmp_path / made.filename
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("demo-1.0.dist-info/METADATA", made.metadata + headers)
    assert set(read_form(path).fields) >= {
        ("keywords", "a,b"), ("project_urls", "Docs, https://docs.example/"), ("provides_extras", "x"),
        ("platform", "any"), ("description", "ä text\n"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a-1.0-py3-none-any.whl", True),
        ("a-1.0.tar.gz", True),
        ("Some__Old-1.0-beta.tar.bz2", True),
        ("backup.zip", False),
        ("a-1.0.doc.zip", False),
        ("a-1.0.tar.gz.asc", False),
        ("a-1.0-py3.11.egg", False),
        ("a.whl", False),
    ],
)
def test_is_distribution_tells_wheels_and_sdists_from_other_files(name: str, *, expected: bool) -> None:
    """A folder has other files, too."""
    assert is_distribution(name) is expected
