"""The hot path: answers a plain GET for what is cached out of one read, before aiohttp makes a request of it.

It answers only what the ordinary path has answered before, with the same bytes: the whole head must be of headers that
are known not to change the answer. Everything else is left to the ordinary path, on the same connection.
"""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiohttp import HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time

from teepi.codings import choose_coding
from teepi.hot_entries import Answer, Head, InFile
from teepi.http_semantics import choose_page_format, shown_target, wants_fresh
from teepi.logs import make_request_id
from teepi.web.hot_files import Sent, send_file

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aiohttp.web_request import BaseRequest

    from teepi.access_log import AccessLog
    from teepi.codings import Coding
    from teepi.hot_entries import Entry, HotEntries
    from teepi.http_semantics import PageFormat
    from teepi.metrics import Metrics

SEEN: Final = web.RequestKey("seen", int)
"""What :attr:`HotEntries.drops` was before anything was looked up for a request."""

PRIVATE: Final = web.RequestKey("private", bool)
"""Set when not everybody may read what is asked for: neither the hot path nor a shared cache may repeat the answer."""

MOST_FILE_BYTES: Final = 64 << 10
"""A larger file goes by sendfile, without passing through this process."""
_WRITE_BUFFER_BYTES: Final = 1 << 20  # a client that asks and never reads is left to the ordinary path, which waits
_JOINED_BYTES: Final = 16 << 10  # a larger body is not copied behind its head
_BLOCKS_KEPT: Final = 1024
_LONGEST_BLOCK: Final = 4096
_LONGEST_TARGET: Final = 1000  # any number of slashes lead to a page, and each target takes memory
_LONGEST_AGENT: Final = 300  # characters in the access log

_LINE: Final = re.compile(r"([A-Za-z-]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_CONDITIONS: Final = (b"\nIf-None-Match: ", b"\nif-none-match: ")


def wish_key(form: PageFormat, coding: Coding) -> str:
    """Return what stands for a form of a page in a coding."""
    return f"{form.name}+{coding.name}"


class Wish(NamedTuple):
    """What the header lines of a GET ask for."""

    key: str
    """As :func:`wish_key` gives it."""
    agent: str
    """User-Agent."""


def read_wish(block: bytes) -> Wish | None:
    """Return what the header lines of a GET ask for; None when the ordinary path must read them.

    ``block`` ends with the empty line. Allowed are, once each and in plain writing: Host, User-Agent, Accept,
    Accept-Encoding, ``Connection: keep-alive`` and a Cache-Control that does not ask for a fresh answer.
    """
    if len(block) > _LONGEST_BLOCK or block[-4:] != b"\r\n\r\n" or not block.isascii():
        return None
    fields: dict[str, str] = {}
    for line in block[:-4].decode("ascii").split("\r\n"):
        match = _LINE.fullmatch(line)
        if match is None or match[1].lower() in fields:
            return None
        fields[match[1].lower()] = match[2]
    host, accept, encoding = fields.pop("host", ""), fields.pop("accept", None), fields.pop("accept-encoding", None)
    agent = fields.pop("user-agent", "")
    if fields.pop("connection", "keep-alive").lower() != "keep-alive" or not _HOST.fullmatch(host):
        return None
    if wants_fresh(fields.pop("cache-control", None)) or fields:
        return None
    if accept is not None and "application/xhtml+xml" in accept:  # a browser: another page has the same URL
        return None
    form = choose_page_format(accept)
    return None if form is None else Wish(wish_key(form, choose_coding(encoding)), agent)


class HotPath:
    """Answers out of :class:`HotEntries`, and takes note of what the ordinary path answers."""

    def __init__(self, entries: HotEntries, metrics: Metrics) -> None:
        """Begin with what is in ``entries``."""
        self.entries = entries
        self._by_target = entries.by_target
        self._metrics = metrics
        self.access_log: AccessLog | None = None
        self._wishes: dict[bytes, Wish] = {}
        self._second = -1
        self._date = b""

    def answer(self, data: bytes, transport: asyncio.Transport) -> bool:
        """Write the answer when ``data`` is exactly one head of a GET that can be answered; say whether it was."""
        found = self._find(data)
        if found is None or transport.get_write_buffer_size() > _WRITE_BUFFER_BYTES:
            return False
        entry, answer, wish, condition = found
        is_whole = condition is None
        head = answer.ok if is_whole else answer.not_modified if condition == answer.etag else None
        if head is None:
            return False
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, rfc822_formatted_time().encode()
        said = b"".join((head.before, self._date, head.behind))
        body = answer.body if is_whole else b""
        if isinstance(body, InFile):
            sent = send_file(transport, said, body)
            if sent is Sent.GONE:
                self.entries.remove(data[4 : data.find(b" HTTP/1.1")])
            if sent is not Sent.YES:
                return False
            size = body.size
        else:
            size = len(body)
            if size < _JOINED_BYTES:
                transport.write(said + body)
            else:
                transport.writelines((said, body))
        self._count(entry, size, is_whole=is_whole)
        if self.access_log is not None:
            self._log(self.access_log, data, transport, 200 if is_whole else 304, size, wish)
        return True

    def _log(
        self, access_log: AccessLog, data: bytes, transport: asyncio.Transport, status: int, size: int, wish: Wish
    ) -> None:
        target = shown_target(data[4 : data.find(b" HTTP/1.1")].decode("ascii"))
        client = (transport.get_extra_info("peername") or ("",))[0]
        agent = wish.agent[:_LONGEST_AGENT]
        access_log.note(client, f"GET {target} HTTP/1.1", status, size, "", agent, 0.0, make_request_id(), "hit")

    def _find(self, data: bytes) -> tuple[Entry, Answer, Wish, bytes | None] | None:
        """Return what answers one GET head, with its wish and the value of If-None-Match; None when nothing may."""
        end = data.find(b"\r\n")
        if data[:4] != b"GET " or data[end - 9 : end] != b" HTTP/1.1":
            return None
        entry = self._by_target.get(data[4 : end - 9])
        if entry is None or time.monotonic() >= entry.expires_at:
            return None
        block = data[end + 2 :]
        condition = None
        wish = self._wishes.get(block)
        if wish is None:
            block, condition = _without_condition(block)
            wish = self._wishes.get(block) or self._read(block)
        if wish is None:
            return None
        answer = entry.answers.get(wish.key if entry.kind == "page" else "")
        return None if answer is None else (entry, answer, wish, condition)

    def _count(self, entry: Entry, size: int, *, is_whole: bool) -> None:
        """Count as the ordinary path does."""
        metrics = self._metrics
        metrics.hot_answers += 1
        entry.touch()
        if entry.kind == "page":
            metrics.page_hits += 1
        elif is_whole:
            metrics.hits += 1
            metrics.sent_bytes += size
            metrics.cached_bytes += size
        metrics.count_request(entry.kind, "hit", 200 if is_whole else 304)

    def _read(self, block: bytes) -> Wish | None:
        """Read header lines as :func:`read_wish` does; of those that were allowed the result is remembered."""
        wish = read_wish(block)
        if wish is not None:
            if len(self._wishes) >= _BLOCKS_KEPT:
                self._wishes.clear()
            self._wishes[block] = wish
        return wish

    # -- what the ordinary path answers --------------------------------------------------------------

    def record(
        self,
        request: BaseRequest,
        response: web.StreamResponse,
        project: str,
        touch: Callable[[], Any],
        *,
        kind: str,
        wish: str = "",
        body: bytes | InFile = b"",
        expires_at: float = math.inf,
    ) -> None:
        """Take note of an answer whose head has been sent, 200 or 304 to its ETag alone, that stays right.

        ``project`` is whose change takes it out; ``expires_at`` in monotonic seconds; ``wish`` is empty but for pages.
        """
        target, etag = request.raw_path, response.headers.get("ETag")
        if (
            request.get(PRIVATE)
            or "X-Devpi-Api-Version" in response.headers  # for devpi's clients alone
            or request.get(SEEN) != self.entries.drops
            or request.method != "GET"
            or request.version != HttpVersion11
        ):
            return
        if expires_at <= time.monotonic() or len(target) > _LONGEST_TARGET:
            return
        if etag is None or not target.startswith("/") or not target.isascii() or "?" in target or "#" in target:
            return
        head = _head(response)
        if head is None:
            return
        entry = self.entries.entry(target.encode("ascii"), kind, project, touch)
        entry.expires_at = expires_at
        answer = entry.answers.get(wish)
        if answer is None or answer.etag != etag.encode():
            answer = entry.answers[wish] = Answer(etag.encode())
        if response.status == web.HTTPOk.status_code:
            answer.ok, answer.body = head, body
        elif response.status == web.HTTPNotModified.status_code and request.headers.get("If-None-Match") == etag:
            answer.not_modified = head


def _without_condition(block: bytes) -> tuple[bytes, bytes | None]:
    """Take If-None-Match out of header lines, and return its value, when it is written as clients write it."""
    if block.find(b"\r\n\r\n") != len(block) - 4:  # what is behind the empty line is no header
        return block, None
    for name in _CONDITIONS:
        at = block.find(name)
        if at >= 0:
            stop = block.find(b"\r\n", at + 1)
            return block[: at + 1] + block[stop + 2 :], block[at + len(name) : stop]
    return block, None


def _head(response: web.StreamResponse) -> Head | None:
    """Return the head of a prepared response; None when it says something of this connection alone."""
    headers = response.headers
    if "Connection" in headers or "Transfer-Encoding" in headers or "Date" not in headers:
        return None
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in headers.items())]
    before, _, behind = "\r\n".join([*lines, "", ""]).partition(f"\r\nDate: {headers['Date']}\r\n")
    return Head(f"{before}\r\nDate: ".encode(), f"\r\n{behind}".encode())
