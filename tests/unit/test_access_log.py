"""The access log by itself: its two formats, its batches, and disks that are full or hang."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
import time
from typing import TYPE_CHECKING

import pytest

from teepi import access_log
from teepi.access_log import AccessLog
from teepi.errors import ConfigError
from teepi.logs import ACCESS_FORMATS

if TYPE_CHECKING:
    from pathlib import Path

LINE = "GET /simple/demo/ HTTP/1.1"


async def written(path: Path, count: int) -> list[str]:
    """Wait until ``count`` lines are in ``path``; return them."""
    while not path.exists() or len(lines := path.read_text("ascii").splitlines()) < count:  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.002)
    return lines


def note_many(log: AccessLog, count: int, line: str = LINE) -> None:
    """Note requests that differ in nothing."""
    for _ in range(count):
        log.note("127.0.0.1", line, 200, 5)


async def test_combined_line_is_as_apache_and_nginx_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the zone of this machine, months in English, and a dash for what there is not."""
    monkeypatch.setenv("TZ", "XXX-05:30")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: 971211336.5)
    log = await AccessLog.open(tmp_path / "log", "combined")
    log.note("::1", LINE, 200, 2326, "http://a.example/", 'pip/26.0 {"ci":null}', user="some one")
    log.note("10.0.0.1", LINE, 304, 0)
    await log.close()
    monkeypatch.undo()
    time.tzset()
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first == (
        '::1 - some_one [11/Oct/2000:02:25:36 +0530] "GET /simple/demo/ HTTP/1.1" 200 2326 '
        r'"http://a.example/" "pip/26.0 {\x22ci\x22:null}"'
    )
    assert second == '10.0.0.1 - - [11/Oct/2000:02:25:36 +0530] "GET /simple/demo/ HTTP/1.1" 304 0 "-" "-"'


async def test_json_line_has_duration_request_id_and_what_the_cache_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In UTC; what is empty is left out."""
    monkeypatch.setattr(time, "time", lambda: 971211336.5)
    log = await AccessLog.open(tmp_path / "log", "json")
    log.note("::1", LINE, 200, 5, "", "uv/1", 0.0123456, "ci/17", "hit", "10.1.1.1")
    await log.close()
    assert json.loads((tmp_path / "log").read_text()) == {
        "time": "2000-10-10T20:55:36.500Z",
        "client": "::1",
        "method": "GET",
        "target": "/simple/demo/",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "duration_ms": 12.346,
        "request_id": "ci/17",
        "cache": "hit",
        "user_agent": "uv/1",
        "forwarded_for": "10.1.1.1",
    }


@pytest.mark.parametrize("log_format", ACCESS_FORMATS)
async def test_nothing_in_a_request_begins_a_line_of_its_own_or_ends_a_field(tmp_path: Path, log_format: str) -> None:
    """Every byte there is, and characters that some readers take for the end of a line."""
    evil = "".join(map(chr, range(256))) + '\u2028\u2029\x85\ufeff" 200 5 "-" "x\udcff'
    log = await AccessLog.open(tmp_path / "log", log_format)
    log.note(evil, f"GET /{evil} HTTP/1.1", 200, 5, evil, evil, 0.0, evil, evil, evil, evil)
    log.note("127.0.0.1", LINE, 200, 5)
    await log.close()
    raw = (tmp_path / "log").read_bytes()
    assert raw.count(b"\n") == 2
    assert re.fullmatch(rb"[ -~\n]+", raw)
    first = raw.decode().splitlines()[0]
    if log_format == "json":
        assert json.loads(first)["user_agent"] == evil
    else:
        assert re.fullmatch(r'[^"]+ "[^"]+" 200 5 "[^"]+" "[^"]+"', first)


async def test_thousand_lines_are_written_at_once_and_fewer_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one write each, whole lines only."""
    sizes: list[int] = []
    write = os.write

    def counted(fd: int, data: memoryview) -> int:
        sizes.append(bytes(data).count(b"\n"))
        return write(fd, data)

    monkeypatch.setattr(os, "write", counted)
    log = await AccessLog.open(tmp_path / "log", "combined")
    began = time.monotonic()
    note_many(log, 999)
    await asyncio.sleep(0)
    assert not sizes
    note_many(log, 1)
    await written(tmp_path / "log", 1000)
    assert time.monotonic() - began < 0.9
    note_many(log, 3)
    await written(tmp_path / "log", 1003)
    assert time.monotonic() - began > 0.9
    assert sizes == [1000, 3]
    await log.close()


async def test_full_disk_costs_lines_and_is_said_with_their_number(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and not again within a minute; at the end what else was lost."""
    monkeypatch.setattr(access_log, "_BATCH", 10)
    log = await AccessLog.open("/dev/full", "combined")
    for _ in range(5):
        note_many(log, 10)
        while log._is_writing:  # noqa: ASYNC110, SLF001 - it tells nobody
            await asyncio.sleep(0.001)
    await log.close()
    assert caplog.messages == [
        "10 lines of the access log were dropped: it cannot be written (No space left on device).",
        "40 lines of the access log were dropped: it cannot be written (No space left on device).",
    ]


async def test_line_that_a_full_disk_tore_is_ended_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once there is room again each line is whole."""
    write, is_full = os.write, [True]

    def short(fd: int, data: memoryview) -> int:
        if not is_full[0]:
            return write(fd, data)
        if len(data) < 30:
            raise OSError(28, "No space left on device")
        return write(fd, data[: len(data) - 20])

    monkeypatch.setattr(access_log, "_BATCH", 1)
    log = await AccessLog.open(tmp_path / "log", "combined")
    monkeypatch.setattr(os, "write", short)
    note_many(log, 1)
    while log._is_writing:  # noqa: ASYNC110, SLF001
        await asyncio.sleep(0.001)
    is_full[0] = False
    note_many(log, 1)
    await log.close()
    torn, whole = (tmp_path / "log").read_text().splitlines()
    assert not torn.endswith('"-"')
    assert whole.endswith(f'"{LINE}" 200 5 "-" "-"')


async def test_disk_that_hangs_costs_lines_and_no_more_memory_than_there_is_for_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither notes nor the end wait for it; what did wait is written once it answers."""
    gate = threading.Event()
    write = os.write

    def hang(fd: int, data: memoryview) -> int:
        gate.wait()
        return write(fd, data)

    for name, value in (("_BATCH", 10), ("_MOST_WAITING", 25), ("_EVERY_SECONDS", 0.02), ("_CLOSE_SECONDS", 0.05)):
        monkeypatch.setattr(access_log, name, value)
    monkeypatch.setattr(os, "write", hang)
    log = await AccessLog.open(tmp_path / "log", "combined")
    note_many(log, 10 + 25 + 7)
    while not caplog.messages:  # noqa: ASYNC110 - a timer says it
        await asyncio.sleep(0.002)
    assert caplog.messages == ["7 lines of the access log were dropped: its disk does not answer."]
    began = time.monotonic()
    await log.close()
    assert time.monotonic() - began < 1
    assert caplog.messages[1:] == ["25 lines of the access log were dropped: its disk does not answer."]
    gate.set()
    assert len(await written(tmp_path / "log", 10)) == 10


async def test_renamed_file_is_opened_anew_and_where_it_cannot_be_the_former_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As logrotate wants it; its group may read it."""
    path = tmp_path / "logs" / "access.log"
    path.parent.mkdir()
    former = os.umask(0)
    log = await AccessLog.open(path, "combined")
    os.umask(former)
    assert path.stat().st_mode & 0o777 == 0o640
    note_many(log, 1000, "GET /1 HTTP/1.1")
    await written(path, 1000)
    path.rename(tmp_path / "old")
    log.reopen()
    note_many(log, 1000, "GET /2 HTTP/1.1")
    assert all(" /2 " in line for line in await written(path, 1000))
    path.parent.rename(tmp_path / "away")
    log.reopen()
    note_many(log, 1, "GET /3 HTTP/1.1")
    await log.close()
    assert " /3 " in (tmp_path / "away" / "access.log").read_text().splitlines()[-1]
    assert len((tmp_path / "old").read_text().splitlines()) == 1000
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "The access log goes on in the former file: No such file or directory.")
    ]


async def test_file_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    """A directory, one that is not there, and a pipe that nobody reads, which would otherwise hold up the start."""
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "no" / "log", "No such file or directory"),
        (tmp_path / "pipe", "No such device or address"),
    ):
        with pytest.raises(ConfigError) as caught:
            await AccessLog.open(path, "combined")
        assert caught.value.message == (
            f"access_log: {path} cannot be opened ({reason}); name a file that teepi's user may write."
        )
