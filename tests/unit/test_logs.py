"""Log lines: the two formats, the request they belong to, the journal."""

from __future__ import annotations

import io
import json
import logging
import os
from typing import TYPE_CHECKING

import pytest

from teepi import logs
from teepi.http_semantics import shown_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger("teepi.test")


@pytest.fixture(autouse=True)
def untouched_root_logger() -> Iterator[None]:
    """Give the root logger its handlers back, and this test a request of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    token = logs.current_request.set("")
    yield
    logs.current_request.reset(token)
    root.handlers[:] = handlers
    root.setLevel(level)


def written(log_format: str = "text", level: str = "info") -> io.StringIO:
    """Log into what is returned."""
    stream = io.StringIO()
    logs.configure(level, log_format, {}, stream)
    return stream


def test_text_line_has_time_level_message_and_the_request() -> None:
    """For people: one line, the id at its end where it disturbs nobody."""
    stream = written()
    log.info("before %d", 1)
    request_id = logs.begin_request(None)
    log.warning("during")
    before, during = stream.getvalue().splitlines()
    assert before.endswith(" INFO before 1")
    assert before[:2] == "20"
    assert during.endswith(f" WARNING during [{request_id}]")


def test_text_line_cannot_be_forged_by_what_is_logged() -> None:
    """A file name from upstream does not begin a line of its own."""
    stream = written()
    log.info("%s was fetched.", "a\n<0>2026 ERROR b\x1b[2J")
    assert stream.getvalue().count("\n") == 1
    assert "a\\x0a<0>2026 ERROR b\\x1b[2J was fetched." in stream.getvalue()


def test_json_line_has_the_same_and_a_traceback_in_one_line() -> None:
    """For programs; bytes that are no UTF-8 (surrogates) do not lose the line."""
    stream = written("json")
    log.info("before %s", "\udcff")
    request_id = logs.begin_request("abc")
    try:
        int("no")
    except ValueError:
        log.exception("during")
    before, during = map(json.loads, stream.getvalue().splitlines())
    assert (before["level"], before["logger"], before["message"]) == ("INFO", "teepi.test", "before \udcff")
    assert "request_id" not in before
    assert (during["level"], during["request_id"], request_id) == ("ERROR", "abc", "abc")
    assert during["exc_info"].endswith("'no'")
    assert during["time"].startswith("20")


def test_level_below_the_one_that_is_set_is_not_written() -> None:
    """``log_level`` holds for all loggers."""
    stream = written(level="warning")
    log.info("quiet")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("log_format", logs.FORMATS)
def test_journal_gets_the_priority_before_each_line(tmp_path: Path, log_format: str) -> None:
    """sd-daemon(3): ``<4>``; the time is the journal's own in text."""
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        logs.configure("info", log_format, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, stream)
        log.warning("careful")
        try:
            int("no")
        except ValueError:
            log.exception("failed")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert lines[0] == "<4>WARNING careful" if log_format == "text" else lines[0].startswith('<4>{"level": "WARNING"')
    assert all(line.startswith("<3>") for line in lines[1:])
    assert len(lines) > 3 if log_format == "text" else len(lines) == 2


@pytest.mark.parametrize("told", ["", "1:2", "nonsense"])
def test_journal_is_only_what_stderr_leads_to(tmp_path: Path, told: str) -> None:
    """The variable is inherited by what is started from a service with its output elsewhere (systemd.exec(5))."""
    with (tmp_path / "file").open("w") as stream:
        assert not logs.is_journal(stream, {"JOURNAL_STREAM": told})
    assert not logs.is_journal(stream, {"JOURNAL_STREAM": told})  # closed
    assert not logs.is_journal(io.StringIO(), {"JOURNAL_STREAM": told})


@pytest.mark.parametrize("given", ["a", "7f3c-1", "A.b_c:/+=-", "x" * 128])
def test_request_id_that_is_sane_is_kept(given: str) -> None:
    """A proxy in front that gives ids finds them in this log."""
    assert logs.begin_request(given) == given


@pytest.mark.parametrize("given", [None, "", "a b", "a\n", "é", "<4>", "x" * 129, "a]"])
def test_request_id_that_is_odd_or_missing_is_made_here(given: str | None) -> None:
    """What could forge a line or fill the log is not taken; each request gets another one."""
    made = {logs.begin_request(given) for _ in range(3)}
    assert len(made) == 3
    assert given not in made


def test_shown_target_has_neither_query_nor_user_info() -> None:
    """Tokens travel in both."""
    assert shown_target("/simple/demo/?token=secret") == "/simple/demo/"
    assert shown_target("http://user:secret@host/simple/?a") == "http://…@host/simple/"
    assert shown_target("http://user:a?b/@c@host/simple/?a") == "http://…@host/simple/"
    assert shown_target("/simple//x@1/?a") == "/simple//…@1/"
    assert len(shown_target("/" + "x" * 9999)) == 200
