"""A disk that refuses an upload, and a client that leaves it (faults 3, 4, 12): all or nothing."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from teepi.data import blobs
from tests.support.clients import RawClient
from tests.support.data_directory import INDEX, form, left, prepare, shown, upload
from tests.support.wheels import sdist

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeTeepi

FILE = sdist("demo", padding=3 << 20)


@pytest.mark.parametrize(
    ("call", "number", "said"),
    [
        ("open", errno.EACCES, "teepi's data directory cannot be written (Permission denied): nothing was stored."),
        ("write", errno.ENOSPC, "The disk of teepi's data directory is full: nothing was stored; make room and"),
        ("sync", errno.EIO, "teepi's data directory cannot be written (Input/output error): nothing was stored."),
        ("sync", errno.EDQUOT, "The disk of teepi's data directory is full: nothing was stored; make room and"),
        ("sync_directory", errno.EIO, "teepi's data directory cannot be written (Input/output error): nothing was"),
    ],
)
async def test_upload_that_the_disk_refuses_is_503_and_leaves_nothing(
    make_teepi: MakeTeepi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, said: str
) -> None:
    """The sentence for the client, one call and no second one on that descriptor; the next upload is taken."""
    await asyncio.to_thread(prepare, tmp_path / "data")
    teepi = await make_teepi()
    calls = 0

    def refuse(*_: object) -> Any:
        nonlocal calls
        calls += 1
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        if call in {"open", "write"}:
            broken.setattr(blobs.Incoming, "__init__" if call == "open" else "write", refuse)
        else:
            broken.setattr(blobs, call, refuse)
        answer = await upload(teepi.address, FILE, "demo")
    assert (answer.status, said in answer.body.decode(), calls) == (503, True, 1)
    assert left(tmp_path / "data") == []
    assert await shown(teepi.address, "demo") == {}
    assert (await upload(teepi.address, FILE, "demo")).status == 200
    assert left(tmp_path / "data") == [FILE.sha256]


async def test_upload_whose_client_leaves_is_gone(
    make_teepi: MakeTeepi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had arrived is removed, in a thread, once nothing writes it any more."""
    await asyncio.to_thread(prepare, tmp_path / "data")
    teepi = await make_teepi()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    abort: Callable[[blobs.Incoming], None] = blobs.Incoming.abort

    def noted(incoming: blobs.Incoming) -> None:
        abort(incoming)
        loop.call_soon_threadsafe(ended.set)

    monkeypatch.setattr(blobs.Incoming, "abort", noted)
    headers, body = form(FILE, "demo")
    client = await RawClient.connect(teepi.address)
    await client.send("POST", f"/{INDEX}/", {"Host": f"127.0.0.1:{teepi.address[1]}", **headers})
    await client.send_bytes(body[: 2 << 20])
    client.abort()
    async with asyncio.timeout(5):
        await ended.wait()
    assert left(tmp_path / "data") == []
    assert await shown(teepi.address, "demo") == {}


async def test_upload_of_one_name_by_two_at_once_is_taken_once(make_teepi: MakeTeepi, tmp_path: Path) -> None:
    """One of two contents wins, whole; the other is 409 and leaves nothing."""
    await asyncio.to_thread(prepare, tmp_path / "data", volatile=False)
    teepi = await make_teepi()
    both = FILE, sdist("demo", padding=1 << 20, seed=1)
    statuses = [
        answer.status for answer in await asyncio.gather(*(upload(teepi.address, each, "demo") for each in both))
    ]
    assert sorted(statuses) == [200, 409]
    assert left(tmp_path / "data") == [both[statuses.index(200)].sha256]
