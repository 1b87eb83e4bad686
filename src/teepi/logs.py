"""Log lines: text or JSON, each with the request it belongs to, as a terminal, a file or systemd's journal wants them.

A request's id is a context variable: tasks that a request starts inherit it, so that a fetch names the request that
caused it. What is logged is decided where it happens.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS: Final = ("text", "json")
ACCESS_FORMATS: Final = ("combined", "json")
"""Those of ``access_log``, which takes longer to import than settings may."""
STDOUT: Final = "-"
"""In the place of an access log's path."""

current_request: Final = ContextVar("request_id", default="")
"""The id of the request that runs now, empty outside of any."""
_SANE: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")  # whatever else a client sends could forge log lines
_PROCESS: Final = secrets.token_hex(4)
_numbers: Final = count(1)

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
"""A file name from an index page must not begin a line of its own."""
_PRIORITIES: Final = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""syslog(3)'s numbers, as sd-daemon(3) wants them in front of a line."""


def begin_request(given: str | None) -> str:
    """Let what is logged from here on belong to a new request; return its id: ``given`` if that is sane, else made."""
    request_id = given if given is not None and _SANE.fullmatch(given) else make_request_id()
    current_request.set(request_id)
    return request_id


def make_request_id() -> str:
    """Return the id of one more request."""
    return f"{_PROCESS}-{next(_numbers):x}"


def configure(level: str, log_format: str, environ: Mapping[str, str], stream: TextIO | None = None) -> None:
    """Log lines of ``level`` and above on ``stream`` (stderr) in one of :data:`FORMATS`, replacing what was set."""
    stream = stream or sys.stderr
    in_journal = is_journal(stream, environ)
    formatter: logging.Formatter
    if log_format == "json":
        from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415 - 40 ms for those who want it

        names = {"levelname": "level", "name": "logger"}
        formatter = JsonFormatter([*names, "message"], rename_fields=names, timestamp="time")
    else:
        formatter = _Text("%(levelname)s %(message)s" if in_journal else "%(asctime)s %(levelname)s %(message)s")
    handler = logging.StreamHandler(stream)
    handler.addFilter(name_request)
    handler.setFormatter(_Prioritised(formatter) if in_journal else formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether ``stream`` leads to systemd's journal (systemd.exec(5), ``$JOURNAL_STREAM``: device and inode)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def name_request(record: logging.LogRecord) -> bool:
    """Give a record the id of the request that runs now, as a filter of a handler does."""
    if request_id := current_request.get():
        record.request_id = request_id
    return True


class _Text(logging.Formatter):
    """One line for people, the request's id at its end; a traceback follows."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record).translate(_CONTROLS)
        request_id = getattr(record, "request_id", "")
        return f"{line} [{request_id}]" if request_id else line


class _Prioritised(logging.Formatter):
    """What another formatter makes, each line with its priority: the journal takes lines one by one."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, _PRIORITIES[logging.INFO])
        return "\n".join(f"<{priority}>{line}" for line in self._formatter.format(record).splitlines())
