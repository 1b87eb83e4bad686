"""Project lists on disk: each form compressed in a file of its own, and a head that says which two files are it.

Methods block; callers run them in a thread. What is in a list is not known here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import zlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from teepi.descriptor import Descriptor
from teepi.disk import (
    make_directories,
    memory_file,
    open_regular,
    read_regular,
    replace_file,
    sync,
    sync_directory,
    write_all,
)
from teepi.store.sorting import SortedLines

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_INDEX: Final = re.compile(r"[A-Za-z0-9._@-]+/[A-Za-z0-9._@-]+")
_GENERATION: Final = re.compile(r"[0-9a-f]{16}")
_HEAD: Final = "head"
_GZIP: Final = 31  # zlib's window bits for the gzip format, which has no time in it: equal lists are equal bytes
_LEVEL: Final = 6
_READ_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class ListForm:
    """One form of a list: bytes and sha256 of what it is, and of its compressed file."""

    plain_bytes: int
    plain_sha256: str
    gzip_bytes: int
    gzip_sha256: str


@dataclass(frozen=True, slots=True)
class ListHead:
    """What is known of a list."""

    index: str
    url: str
    """What was asked upstream."""
    etag: str | None
    last_modified: str | None
    fetched_at: float
    """Wall-clock seconds of the last answer, 304 included."""
    generation: str
    """Begins the names of its files; empty for one that is in memory only."""
    forms: dict[str, ListForm]


@dataclass(slots=True)
class StoredList:
    """A list whose files are open; whoever reads takes a hold on the descriptor."""

    head: ListHead
    files: dict[str, Descriptor]

    def close(self) -> None:
        """Let go of the files."""
        for file in self.files.values():
            file.drop()


@dataclass(slots=True)
class _Form:
    fd: int
    compressor: zlib._Compress = field(default_factory=lambda: zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP))
    plain: hashlib._Hash = field(default_factory=hashlib.sha256)
    packed: hashlib._Hash = field(default_factory=hashlib.sha256)
    plain_bytes: int = 0
    gzip_bytes: int = 0

    def add(self, data: bytes) -> None:
        self.plain.update(data)
        self.plain_bytes += len(data)
        self.put(self.compressor.compress(data))

    def put(self, packed: bytes) -> None:
        if packed:
            write_all(self.fd, packed, self.gzip_bytes)
            self.packed.update(packed)
            self.gzip_bytes += len(packed)


class ListWriter:
    """A list that is being written; ends with :meth:`commit` or :meth:`abort`."""

    def __init__(self, index: str, directory: Path | None, names: tuple[str, ...]) -> None:
        """Open a file for each form below ``directory``; None keeps them in memory. Raises OSError."""
        self._index = index
        self._directory = directory
        self._generation = "" if directory is None else secrets.token_hex(8)
        self._forms: dict[str, _Form] = {}
        try:
            if directory is not None:
                make_directories(directory)
            for name in names:
                self._forms[name] = _Form(self._open(name))
        except OSError:
            self.abort()
            raise

    def _open(self, name: str) -> int:
        if self._directory is None:
            return memory_file("teepi list")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(_file(self._directory, self._generation, name), flags, 0o644)

    def add(self, name: str, data: bytes) -> None:
        """Append ``data`` to a form. Raises OSError."""
        self._forms[name].add(data)

    def commit(self, url: str, etag: str | None, last_modified: str | None, fetched_at: float) -> StoredList:
        """Make it the list of its index and return it, open. Raises OSError; :meth:`abort` is due then, too."""
        for form in self._forms.values():
            form.put(form.compressor.flush())
            if self._directory is not None:
                sync(form.fd)
        forms = {
            name: ListForm(form.plain_bytes, form.plain.hexdigest(), form.gzip_bytes, form.packed.hexdigest())
            for name, form in self._forms.items()
        }
        head = ListHead(self._index, url, etag, last_modified, fetched_at, self._generation, forms)
        if self._directory is not None:
            sync_directory(self._directory)
            replace_file(self._directory / _HEAD, _encode(head))
            for path in self._directory.glob("*.gz"):  # of earlier ones; whoever reads them has them open
                if not path.name.startswith(self._generation):
                    with contextlib.suppress(OSError):
                        path.unlink()
        files = {name: Descriptor(form.fd) for name, form in self._forms.items()}
        self._forms.clear()
        return StoredList(head, files)

    def abort(self) -> None:
        """Leave nothing behind; after :meth:`commit` this does nothing."""
        for name, form in self._forms.items():
            os.close(form.fd)
            if self._directory is not None:
                with contextlib.suppress(OSError):
                    _file(self._directory, self._generation, name).unlink()
        self._forms.clear()


class ListStore:
    """The project lists of all indexes."""

    def __init__(self, root: Path) -> None:
        """Keep lists below ``root``."""
        self._root = root

    def _directory(self, index: str) -> Path:
        if not _INDEX.fullmatch(index):
            msg = f"not an index: {index!r}"
            raise ValueError(msg)
        return self._root / index.replace("/", "+")

    def begin(self, index: str, names: tuple[str, ...], *, in_memory: bool = False) -> ListWriter:
        """Begin a list in the forms ``names``. Raises OSError when the disk does not take it."""
        return ListWriter(index, None if in_memory else self._directory(index), names)

    def sort(self, index: str, *, in_memory: bool = False) -> SortedLines:
        """Sort the lines of a list before it is written. Raises OSError when the disk does not take them."""
        return SortedLines(None if in_memory else self._directory(index))

    def renew(self, head: ListHead) -> None:
        """Write a head that says the same files were confirmed later. Raises OSError."""
        if head.generation:
            replace_file(self._directory(head.index) / _HEAD, _encode(head))

    def remove(self, index: str) -> None:
        """Delete the list of an index, as far as that can be done."""
        shutil.rmtree(self._directory(index), ignore_errors=True)

    def load(self, index: str) -> StoredList | None:
        """Return the list of ``index``, verified; None when there is none, or it is damaged."""
        directory = self._directory(index)
        try:
            head = _decode(read_regular(directory / _HEAD))
        except OSError:
            return None
        if head is None:
            log.warning("The stored project list of %s is damaged; it is fetched anew.", index)
            return None
        found = StoredList(head, {})
        try:
            for name, form in head.forms.items():
                fd = open_regular(_file(directory, head.generation, name))
                found.files[name] = Descriptor(fd)
                if _sha256(fd) != form.gzip_sha256:
                    raise OSError  # noqa: TRY301 - as good as none
        except OSError:
            log.warning("The stored project list of %s is damaged; it is fetched anew.", index)
            found.close()
            return None
        return found


def _file(directory: Path, generation: str, name: str) -> Path:
    return directory / f"{generation}.{name}.gz"


def _sha256(fd: int) -> str:
    digest = hashlib.sha256()
    offset = 0
    while data := os.pread(fd, _READ_BYTES, offset):
        digest.update(data)
        offset += len(data)
    return digest.hexdigest()


def _encode(head: ListHead) -> bytes:
    data = json.dumps(asdict(head)).encode()
    return hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def _decode(data: bytes) -> ListHead | None:
    checksum, _, rest = data.partition(b"\n")
    if checksum != hashlib.sha256(rest).hexdigest().encode():
        return None
    try:
        values = json.loads(rest)
        forms = {name: ListForm(**form) for name, form in values.pop("forms").items()}
        head = ListHead(forms=forms, **values)
    except (ValueError, TypeError, LookupError):  # of another version
        return None
    return head if _GENERATION.fullmatch(head.generation) else None
