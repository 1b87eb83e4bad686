"""The access log: one line for each answered request, written in batches by a thread of its own.

It never holds up an answer: on a disk that is full or hangs, lines are dropped, and their number is said. What belongs
into a line is gathered where the request is answered.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
import time
from functools import lru_cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from teepi.errors import ConfigError
from teepi.logs import STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_BATCH: Final = 1000
_EVERY_SECONDS: Final = 1.0
_MOST_WAITING: Final = 50_000  # lines; some 25 MB, and five seconds of all that one process can answer
_WARN_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 2.0  # for the last lines on a slow disk
_HANGS: Final = "its disk does not answer"
_MODE: Final = 0o640  # who may read logs is in a group
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNSAFE: Final = re.compile(rb"[^ !#-\[\]-~]")  # a quote, a backslash, and all that is no printable ASCII


_Note = tuple[float, str, str, int, int, str, str, float, str, str, str, str]
"""When (Unix seconds), and what :meth:`AccessLog.note` was told."""


class AccessLog:
    """Takes notes on the event loop; make it by :meth:`open`."""

    def __init__(self, target: _Target, line: Callable[[_Note], str]) -> None:
        """Write to ``target``, open already, what ``line`` makes of each note."""
        self._loop = asyncio.get_running_loop()
        self._line = line
        self._target = target
        self._waiting: list[_Note] = []
        self._is_writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._written = asyncio.Event()
        self._dropped = 0
        self._reason = _HANGS
        self._warned_at = float("-inf")
        self._work: SimpleQueue[Sequence[_Note] | bool] = SimpleQueue()
        """Batches; True to open the file again, False to end."""
        # A daemon, unlike those of an executor: a disk that hangs must not keep the process from ending.
        threading.Thread(target=self._run, daemon=True, name="access-log").start()

    @classmethod
    async def open(cls, where: Path | str, log_format: str) -> AccessLog:
        """Open the file ``where``, or STDOUT, for lines in one of ``logs.ACCESS_FORMATS``. Raises ConfigError."""
        target = _Target(where)
        try:
            await asyncio.to_thread(target.open)
        except OSError as error:
            raise ConfigError(
                f"access_log: {where} cannot be opened ({error.strerror}); name a file that teepi's user may write."
            ) from None
        return cls(target, _json if log_format == "json" else _combined)

    def note(
        self,
        client: str,
        request: str,
        status: int,
        sent: int,
        referer: str = "",
        agent: str = "",
        seconds: float = 0.0,
        request_id: str = "",
        result: str = "",
        forwarded: str = "",
        user: str = "",
    ) -> None:
        """Note one answered request; half a microsecond. Anything may stand in the texts: it is escaped when written.

        ``request`` is method, target as ``http_semantics.shown_target`` gives it, and version, with a space between;
        ``sent`` the bytes of the body; ``result`` Cache-Status without the cache's name; ``forwarded``
        X-Forwarded-For, which anybody can send. Texts are kept for a second: cut what is long.
        """
        waiting = self._waiting
        count = len(waiting)
        if count >= _MOST_WAITING:
            self._dropped += 1
            return
        at = time.time()
        waiting.append(
            (at, client, request, status, sent, referer, agent, seconds, request_id, result, forwarded, user)
        )
        if count == _BATCH - 1:
            self._flush()
        elif not count:
            self._timer = self._loop.call_later(_EVERY_SECONDS, self._flush)

    def reopen(self) -> None:
        """Open the file again: it may have been renamed. What is noted from here on goes to the new one."""
        self._work.put(True)  # noqa: FBT003 - see _work

    async def close(self) -> None:
        """Write what waits, for two seconds at most."""
        deadline = self._loop.time() + _CLOSE_SECONDS
        while self._waiting or self._is_writing:
            self._flush()
            self._written.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._written.wait()
            except TimeoutError:
                self._dropped += len(self._waiting)
                self._reason = _HANGS
                break
        if self._timer is not None:
            self._timer.cancel()
        self._work.put(False)  # noqa: FBT003 - see _work
        self._warned_at = float("-inf")
        self._warn()

    def _flush(self) -> None:
        """Hand what waits to the thread, unless that is still busy."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_writing:
            self._timer = self._loop.call_later(_EVERY_SECONDS, self._flush)
            self._reason = _HANGS
            self._warn()
        elif self._waiting:
            self._is_writing = True
            self._work.put(self._waiting)
            self._waiting = []

    def _done(self, lost: int, reason: str) -> None:
        """Take note of what the thread has done."""
        self._is_writing = False
        self._written.set()
        if lost:
            self._dropped += lost
            self._reason = reason
        self._warn()
        if len(self._waiting) >= _BATCH:
            self._flush()

    def _warn(self) -> None:
        now = self._loop.time()
        if self._dropped and now - self._warned_at >= _WARN_SECONDS:
            log.warning("%d lines of the access log were dropped: %s.", self._dropped, self._reason)
            self._dropped = 0
            self._warned_at = now

    # -- in the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while (work := self._work.get()) is not False:
            if work is True:
                try:
                    self._target.open()
                except OSError as error:
                    log.warning("The access log goes on in the former file: %s.", error.strerror)
                continue
            lost, reason = 0, ""
            try:
                self._target.write("".join(map(self._line, work)).encode("ascii"))
            except OSError as error:
                lost, reason = len(work), f"it cannot be written ({error.strerror})"
            except Exception as error:
                log.exception("The access log failed.")
                lost, reason = len(work), repr(error)
            try:
                self._loop.call_soon_threadsafe(self._done, lost, reason)
            except RuntimeError:  # the loop is gone
                break
        self._target.close()


class _Target:
    """A file to append to, or stdout. All methods block."""

    def __init__(self, where: Path | str) -> None:
        self._where = where
        self._fd = -1
        self._is_torn = False

    def open(self) -> None:
        """Open, and then let go of what was open; raises OSError and keeps that."""
        if self._where == STDOUT:
            fd = os.dup(1) if self._fd < 0 else self._fd
        else:
            # Not blocking: a pipe that nobody reads is an error, and not a start that never ends.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            fd = os.open(self._where, flags, _MODE)
            os.set_blocking(fd, True)
        if fd != self._fd:
            self.close()
            self._fd = fd

    def write(self, lines: bytes) -> None:
        """Append whole lines. Raises OSError; what may be left of a line is ended before the next."""
        rest = memoryview(b"\n" + lines if self._is_torn else lines)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
                self._is_torn = bool(rest)
        except OSError:
            self._is_torn = True
            raise

    def close(self) -> None:
        """Close it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._is_torn = False


def _combined(note: _Note) -> str:
    """Make a line as Apache and nginx do: no text in it can hold a quote or a control character."""
    at, client, request, status, sent, referer, agent, _, _, _, _, user = note
    who = f"{_escaped(client)} - {_escaped(user).replace(' ', '_')} [{_local(int(at))}]"
    return f'{who} "{_escaped(request)}" {status} {sent} "{_escaped(referer)}" "{_escaped(agent)}"\n'


@lru_cache(maxsize=1)
def _local(second: int) -> str:
    """Return ``10/Oct/2026:13:55:36 +0200``, whatever the locale."""
    at = time.localtime(second)
    hours, rest = divmod(abs(at.tm_gmtoff), 3600)
    zone = f"{'-' if at.tm_gmtoff < 0 else '+'}{hours:02}{rest // 60:02}"
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:{clock} {zone}"


@lru_cache(maxsize=4096)  # a third of the cost of a line: clients, user agents and targets come again
def _escaped(text: str) -> str:
    if not text:
        return "-"
    raw = text.encode("utf-8", "surrogateescape")
    return _UNSAFE.sub(lambda found: b"\\x%02X" % found[0][0], raw).decode("ascii")


def _json(note: _Note) -> str:
    at, client, request, status, sent, referer, agent, seconds, request_id, result, forwarded, user = note
    method, _, rest = request.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    texts = (
        ("client", client),
        ("user", user),
        ("method", method),
        ("target", target),
        ("protocol", protocol),
        ("request_id", request_id),
        ("cache", result),
        ("referer", referer),
        ("user_agent", agent),
        ("forwarded_for", forwarded),
    )
    said = "".join([f', "{name}": {_quoted(value)}' for name, value in texts if value])
    when = f"{_utc(int(at))}.{int(at * 1000) % 1000:03}Z"
    spent = round(1000 * seconds, 3)
    return f'{{"time": "{when}", "status": {status}, "bytes": {sent}, "duration_ms": {spent:.15g}{said}}}\n'


@lru_cache(maxsize=1)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


_quoted: Final = lru_cache(maxsize=4096)(json.dumps)  # in ASCII, so that nothing ends a line
