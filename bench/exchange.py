"""One raw keep-alive connection: heads go out as they were recorded, answers come back whole."""

from __future__ import annotations

import gzip
import http.client
import socket
import sys
import time
from dataclasses import dataclass

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    """Names in small letters."""
    body: bytes
    seconds: float
    """From sending the head to the last byte."""

    @property
    def length(self) -> int:
        """Return the bytes of the body as sent."""
        return len(self.body)

    def decoded(self) -> bytes:
        """Return the body without its content coding."""
        coding = self.headers.get("content-encoding", "identity")
        if coding == "zstd":
            return zstd.decompress(self.body)
        return gzip.decompress(self.body) if coding == "gzip" else self.body


class Connection:
    """Connects when it has to; a server may close whenever it likes between two answers."""

    def __init__(self, port: int) -> None:
        """Talk to ``port`` of loopback."""
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, head: bytes) -> Answer:
        """Send a head and return the answer. Raises OSError when there is none, also on a fresh connection."""
        if self._socket is not None:
            try:
                return self._ask(head)
            except (OSError, http.client.HTTPException):
                self.close()
        try:
            return self._ask(head)
        except http.client.HTTPException as error:
            raise OSError(f"no whole answer: {error!r}") from error

    def connect(self) -> socket.socket:
        """Connect unless it is. Raises OSError."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=_TIMEOUT_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def _ask(self, head: bytes) -> Answer:
        here = self.connect()
        begin = time.monotonic()
        here.sendall(head)
        response = http.client.HTTPResponse(here, method=head.split(b" ", 1)[0].decode())
        response.begin()
        body = response.read()
        seconds = time.monotonic() - begin
        headers = {name.lower(): value for name, value in response.getheaders()}
        is_over = response.will_close
        response.close()
        if is_over:
            self.close()
        return Answer(response.status, headers, body, seconds)

    def close(self) -> None:
        """Close; the next question connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
