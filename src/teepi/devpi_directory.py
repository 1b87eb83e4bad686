"""Reads what a devpi-server left on disk: its own directory, or what ``devpi-export`` wrote.

In a server's directory uploaded files lie below ``+files`` as ``USER/INDEX/+f/abc/0123456789abc/NAME``, or, with the
storage ``sqlite_db_files``, under the same paths in the table ``files`` of ``.sqlite_db``. Files of mirrors lie
there, too. The table ``kv`` tells them apart: for a mirror it has no ``USER/INDEX/PROJECT/VERSION/.config``. Users
and the settings of indexes stand there in a form of devpi's own, which is not read; an export has them as JSON.

Nothing is written, and everything here blocks.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from teepi.errors import BadInput
from teepi.upload_form import DOCUMENTATION, is_distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_FILES: Final = "+files"
_EXPORT: Final = "dataindex.json"
_ON_DISK: Final = ".sqlite"
_IN_DATABASE: Final = ".sqlite_db"
_KEY: Final = re.compile(r"(?P<index>[^/]+/[^/]+)/\+f/(?P<a>[^/]+)/(?P<b>[^/]+)/(?P<name>[^/]+)")
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded file."""

    index: str
    """``USER/INDEX`` on devpi."""
    filename: str
    project: str | None
    """Of documentation alone; a distribution's name says it."""
    version: str | None
    place: str
    """Where its bytes are: a path below the directory, or a key of the database."""
    digest: str | None
    """``sha256=…`` in full, or the digits that its path begins with (of its sha256, or its md5 once)."""

    @property
    def is_documentation(self) -> bool:
        """Whether it is a zip of HTML, not a distribution."""
        return self.project is not None


@dataclass(frozen=True, slots=True)
class Contents:
    """What was found."""

    directory: Path
    is_export: bool
    files: tuple[StoredFile, ...]
    """In the order of their indexes and names."""
    indexes: Mapping[str, Mapping[str, Any]]
    """Settings by name; empty ones where they cannot be read. Of an export mirrors, too."""
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What an export says of them."""
    left_out: tuple[str, ...] = ()
    """What is neither a wheel, an sdist nor documentation."""

    def open_path(self, file: StoredFile, directory: Path) -> Path:
        """Return the path of a file with the name that it has; one from a database is written into ``directory``.

        Raises :class:`BadInput` when it is not there or its bytes are not those that devpi stored.
        """
        path = self.directory / file.place
        if not self.is_export and (self.directory / _IN_DATABASE).exists():
            path = _from_database(self.directory / _IN_DATABASE, file, directory)
        try:
            _check_digest(path, file)
        except OSError as error:
            raise BadInput(f"it is not in {self.directory} ({error.strerror})") from None
        return path


def read(directory: Path) -> Contents:
    """Return what is in ``directory``. Raises :class:`BadInput`, one sentence."""
    if (directory / _EXPORT).is_file():
        return _read_export(directory)
    if (directory / _IN_DATABASE).is_file():
        stored = _keys(directory / _IN_DATABASE, "SELECT path FROM files")
        return _read_server(directory, stored, "", _stages(directory / _IN_DATABASE).__contains__)
    if (directory / _ON_DISK).is_file() or (directory / _FILES).is_dir():
        keys = (path.relative_to(directory / _FILES).as_posix() for path in _walk(directory / _FILES))
        database = directory / _ON_DISK
        is_stage = _stages(database).__contains__ if database.is_file() else lambda _index: True
        return _read_server(directory, keys, f"{_FILES}/", is_stage)
    raise BadInput(
        f"{directory} is no directory of a devpi-server (it has neither {_ON_DISK} nor {_FILES}) and none that "
        f"devpi-export wrote (it has no {_EXPORT})."
    )


def knows_mirrors(directory: Path) -> bool:
    """Whether a directory says which indexes are mirrors; one of a server with another database does not."""
    return any((directory / name).is_file() for name in (_EXPORT, _IN_DATABASE, _ON_DISK))


def _read_server(directory: Path, keys: Iterable[str], below: str, is_stage: Callable[[str], bool]) -> Contents:
    files, left_out = [], []
    for key in sorted(keys):
        found = _KEY.fullmatch(key)
        if found is None or not is_stage(found["index"]):
            continue  # below +e, or a mirror's
        name = found["name"]
        project = version = None
        if name.endswith(DOCUMENTATION):
            project, _, version = name.removesuffix(DOCUMENTATION).rpartition("-")
        elif not is_distribution(name):
            left_out.append(f"{found['index']}: {name}")
            continue
        files.append(StoredFile(found["index"], name, project, version, below + key, found["a"] + found["b"]))
    files.sort(key=lambda file: (file.index, file.is_documentation, file.filename))
    indexes: dict[str, dict[str, Any]] = {file.index: {} for file in files}
    return Contents(directory, is_export=False, files=tuple(files), indexes=indexes, left_out=tuple(left_out))


def _read_export(directory: Path) -> Contents:
    try:
        content = json.loads((directory / _EXPORT).read_text(encoding="utf-8"))
        indexes = {name: dict(index["indexconfig"]) for name, index in content["indexes"].items()}
        users = {name: dict(user) for name, user in content["users"].items()}
        files, left_out = [], []
        for name, index in sorted(content["indexes"].items()):
            if indexes[name].get("type", "stage") != "stage":
                continue
            for each in index.get("files", ()):
                filename = Path(each["relpath"]).name
                is_documentation = each["type"] == "doczip"
                if not is_documentation and not (each["type"] == "releasefile" and is_distribution(filename)):
                    left_out.append(f"{name}: {filename}")
                    continue
                if not (directory / each["relpath"]).resolve().is_relative_to(directory.resolve()):
                    raise BadInput(f"{directory / _EXPORT} names a file outside of it, {each['relpath']!r}.")
                digest = each.get("entrymapping", {}).get("hash_spec")
                project, version = (each["projectname"], each["version"]) if is_documentation else (None, None)
                files.append(StoredFile(name, filename, project, version, each["relpath"], digest))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"{directory / _EXPORT} cannot be read ({type(error).__name__}: {error}).") from None
    files.sort(key=lambda file: (file.index, file.is_documentation, file.filename))
    return Contents(
        directory, is_export=True, files=tuple(files), indexes=indexes, users=users, left_out=tuple(left_out)
    )


def _walk(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def _keys(database: Path, query: str) -> list[str]:
    try:
        with closing(_connect(database)) as connection:
            return [row[0] for row in connection.execute(query)]
    except sqlite3.Error as error:
        raise BadInput(f"{database} cannot be read ({error}); stop devpi-server, or use devpi-export.") from None


def _stages(database: Path) -> frozenset[str]:
    """Return the indexes that are no mirrors and have a project."""
    keys = _keys(database, "SELECT key FROM kv WHERE keyname = 'PROJVERSION'")
    return frozenset("/".join(key.split("/")[:2]) for key in keys)


def _from_database(database: Path, file: StoredFile, directory: Path) -> Path:
    path = directory / file.filename
    try:
        with closing(_connect(database)) as connection:
            row = connection.execute("SELECT rowid FROM files WHERE path = ?", (file.place,)).fetchone()
            if row is None:
                raise BadInput(f"it is not in {database}")
            with connection.blobopen("files", "data", row[0], readonly=True) as blob, path.open("wb") as copy:
                while chunk := blob.read(_CHUNK):
                    copy.write(chunk)
    except sqlite3.Error as error:
        raise BadInput(f"{database} cannot be read ({error})") from None
    return path


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)


def _check_digest(path: Path, file: StoredFile) -> None:
    """Raise :class:`BadInput` for damaged bytes, OSError when there are none."""
    if file.digest is None:
        return
    algorithm, _, wanted = file.digest.rpartition("=")
    for name in [algorithm] if algorithm else ["sha256", "md5"]:
        with path.open("rb") as content:
            if hashlib.file_digest(content, lambda name=name: _new(name)).hexdigest().startswith(wanted):  # type: ignore[misc]
                return
    raise BadInput("it is damaged: its bytes are not those that devpi stored")


def _new(algorithm: str) -> Any:  # noqa: ANN401 - hashlib's objects have no public type
    return hashlib.new(algorithm, usedforsecurity=False)
