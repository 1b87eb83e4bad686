"""Fills a cache directory of teepi, while no teepi runs on it, with as many files as a busy year brings.

Through teepi's own classes: what they write is what a start finds. Files may be rows alone: a start looks at no file.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import TYPE_CHECKING

from teepi.addresses import address_of
from teepi.catalog import tables
from teepi.model import Digest, FileRecord
from teepi.store import Store
from teepi.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INDEX = "root/pypi"
FILE_BYTES = 4096
_FILES_EACH = 100


def content(number: int) -> bytes:
    """Return the bytes of a file."""
    return number.to_bytes(8, "big") * (FILE_BYTES // 8)


def target(number: int, origin_port: int) -> str:
    """Return what is asked of teepi for a file."""
    url, filename = _url(number, origin_port)
    return f"/{INDEX}/{address_of(url, filename, None)[1]}"


def fill(cache: Path, count: int, origin_port: int, *, are_real: bool) -> None:
    """Add ``count`` files to the catalogue in ``cache``, which teepi has made; when ``are_real`` to the store too."""
    store = Store(cache)
    with contextlib.closing(store), contextlib.closing(tables.open_disk(store.catalog_path, "mode=rwc")) as database:
        # The digests come in no order: without room for the whole, each row would be written to many pages on disk.
        database.execute("PRAGMA cache_size = -1000000")
        database.execute("PRAGMA synchronous = OFF")
        now = time.time()
        with transaction(database):
            for number, record in enumerate(_records(count, origin_port)):
                assert record.digest is not None
                sha256 = record.digest.hex
                if are_real:
                    path = store.shelves.path(sha256)
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(content(number))
                    path.chmod(0o444)
                database.execute(tables.PUT_KNOWN, tables.row_of(record))
                database.execute(
                    tables.PUT_FILE, (sha256, FILE_BYTES, now, now, INDEX, record.project, record.filename)
                )


def _records(count: int, origin_port: int) -> Iterator[FileRecord]:
    for number in range(count):
        url, filename = _url(number, origin_port)
        digest = Digest("sha256", hashlib.sha256(content(number)).hexdigest())
        yield FileRecord(
            index=INDEX,
            project=f"stock-{number // _FILES_EACH}",
            filename=filename,
            url=url,
            address=address_of(url, filename, digest)[0],
            digest=digest,
            size=FILE_BYTES,
        )


def _url(number: int, origin_port: int) -> tuple[str, str]:
    project, version = divmod(number, _FILES_EACH)
    filename = f"stock_{project}-{version}.0-py3-none-any.whl"
    return f"http://127.0.0.1:{origin_port}/files/stock-{project}/{filename}", filename
