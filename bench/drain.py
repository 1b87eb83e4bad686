"""Clients that take a large body as fast as a server gives it: the kernel drops the bytes, nothing is copied.

A process of its own: ``python -m bench.drain PORT TARGET CLIENTS TIMES`` prints one line of JSON. With one more,
BYTES_PER_SECOND, each client reads no faster than that, with a small buffer, until the process is ended.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time

from bench import heads

_STEP = bytearray(4 << 20)  # never written to: MSG_TRUNC (tcp(7)) drops what it takes
_SLOW_BUFFER_BYTES = 64 * 1024
_TICK_SECONDS = 0.1
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Client:
    """One connection that asks for the same file again and again."""

    def __init__(self, port: int, target: str, times: int, buffer_bytes: int = 0) -> None:
        """Ask for ``target`` for the first time."""
        self._head = heads.head(heads.PIP_FILE, target, port)
        self._left = 0
        self._asked = times
        self.socket = socket.socket()
        if buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)  # noqa: FBT003 - socket's own
        self.received = 0
        self._ask()

    def _ask(self) -> None:
        self._asked -= 1
        self.socket.sendall(self._head)

    def read(self, most: int) -> bool:
        """Take what is there; return whether more is to come. Raises RuntimeError when an answer is no whole 200."""
        if not self._left:
            seen = self.socket.recv(65536, socket.MSG_PEEK)
            end = seen.find(b"\r\n\r\n") + 4
            if end < 4 and seen:
                return True
            length = _LENGTH.search(seen[:end])
            if not seen.startswith(b"HTTP/1.1 200 ") or length is None:
                raise RuntimeError(f"answered {seen[:100]!r}")
            self.socket.recv(end)
            self._left = int(length[1])
            return True
        count = self.socket.recv_into(_STEP, min(self._left, most), socket.MSG_TRUNC)
        if not count:
            raise RuntimeError(f"ended {self._left} bytes early")
        self._left -= count
        self.received += count
        if not self._left:
            if not self._asked:
                return False
            self._ask()
        return True


def drain(port: int, target: str, clients: int, times: int) -> dict[str, float]:
    """Let all take ``target`` so many times each; return bytes and seconds."""
    selector = selectors.DefaultSelector()
    begin = time.monotonic()
    waiting = [Client(port, target, times) for _ in range(clients)]
    for client in waiting:
        selector.register(client.socket, selectors.EVENT_READ, client)
    left = clients
    while left:
        for key, _ in selector.select():
            if not key.data.read(len(_STEP)):
                selector.unregister(key.fileobj)
                left -= 1
    return {"bytes": sum(client.received for client in waiting), "seconds": time.monotonic() - begin}


def dawdle(port: int, target: str, clients: int, bytes_per_second: float) -> None:
    """Let all read slowly for ever; say so when all have connected."""
    slow = [Client(port, target, sys.maxsize, _SLOW_BUFFER_BYTES) for _ in range(clients)]
    print("{}", flush=True)
    while slow:
        time.sleep(_TICK_SECONDS)
        for client in tuple(slow):
            try:
                client.read(int(bytes_per_second * _TICK_SECONDS))
            except BlockingIOError:
                pass
            except (OSError, RuntimeError):  # dropped: that is up to the server
                slow.remove(client)


def main() -> None:
    """Run as the module's docstring says."""
    port, target, clients, times, *rate = sys.argv[1:]
    if rate:
        dawdle(int(port), target, int(clients), float(rate[0]))
    else:
        print(json.dumps(drain(int(port), target, int(clients), int(times))))


if __name__ == "__main__":
    main()
