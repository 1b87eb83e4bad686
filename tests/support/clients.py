"""A raw HTTP client that shows what is on the wire: exact bytes, and whether a connection ended by FIN or RST.

It reads from its socket only when it is asked to, so a client that does not read really does not.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
End = Literal["fin", "rst"]


@dataclass(frozen=True)
class Head:
    """Status line and headers of an answer."""

    status: int
    reason: str
    headers: dict[str, str]
    """Lower-case names; several of one name are joined with a comma."""
    raw: bytes

    @property
    def length(self) -> int | None:
        """Content-Length in bytes."""
        value = self.headers.get("content-length")
        return None if value is None else int(value)


@dataclass(frozen=True)
class Answer:
    """A whole answer, or what came of it."""

    head: Head
    body: bytes
    """De-chunked, else as it came."""
    end: End | None
    """How the connection ended within the body; None when the answer is complete."""

    @property
    def status(self) -> int:
        """Status code."""
        return self.head.status

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the head."""
        return self.head.headers

    @property
    def complete(self) -> bool:
        """Whether the framing says that this is all."""
        return self.end is None


class ConnectionEnd(Exception):
    """The server ended the connection where more was asked for."""

    def __init__(self, end: End, read: bytes) -> None:
        """``read``: what had come since the last complete read."""
        super().__init__(f"{end} after {len(read)} bytes")
        self.end = end
        self.read = read


class RawClient:
    """One connection. Use ``async with await RawClient.connect(address)``."""

    def __init__(self, sock: socket.socket) -> None:
        """Speak on ``sock``, connected and not blocking."""
        self._socket = sock
        self._buffer = bytearray()
        self.patience_seconds: float | None = None
        """Without a byte for so long, reading raises TimeoutError."""

    @classmethod
    async def connect(cls, address: tuple[str, int], *, receive_buffer_bytes: int | None = None) -> Self:
        """Connect; a small ``receive_buffer_bytes`` makes a client that does not read felt early."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    async def send(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, *, version: str = "HTTP/1.1"
    ) -> None:
        """Send a request head; ``target`` goes as it is, Host is ``teepi.example`` unless given."""
        given = dict(headers or {})
        if not any(name.lower() == "host" for name in given):
            given = {"Host": "teepi.example"} | given
        lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        await self.send_bytes("\r\n".join(lines).encode("latin-1"))

    async def send_bytes(self, data: bytes) -> None:
        """Send anything."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def read_head(self) -> Head:
        """Read an answer's head; ConnectionEnd when the connection ends before or inside it."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            await self._more()
        raw = self._take(end + 4)
        first, *lines = raw.decode("latin-1")[:-4].split("\r\n")
        _, status, reason = (first + " ").split(" ", 2)
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            key = name.lower()
            headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
        return Head(int(status), reason.strip(), headers, raw)

    async def read(self, count: int) -> bytes:
        """Read exactly ``count`` bytes; ConnectionEnd, with what came, when there are fewer."""
        while len(self._buffer) < count:
            await self._more()
        return self._take(count)

    async def read_to_end(self) -> tuple[bytes, End]:
        """Read until the connection ends; return the bytes and how it ended."""
        while True:
            try:
                await self._more()
            except ConnectionEnd as over:
                return over.read, over.end

    async def read_answer(self, method: str = "GET") -> Answer:
        """Read one whole answer (to a request of ``method``), or as much of it as comes."""
        head = await self.read_head()
        if method == "HEAD" or head.status in {204, 304} or head.status < 200:
            return Answer(head, b"", None)
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            return await self._read_chunked(head)
        if head.length is None:
            body, end = await self.read_to_end()
            return Answer(head, body, None if end == "fin" else end)
        try:
            return Answer(head, await self.read(head.length), None)
        except ConnectionEnd as over:
            return Answer(head, over.read, over.end)

    async def get(self, target: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        """Send a request and read its answer."""
        await self.send(method, target, headers)
        return await self.read_answer(method)

    def half_close(self) -> None:
        """Send FIN and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Leave with RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Leave (with FIN, unless something unread lies in the socket)."""
        self._socket.close()

    async def _read_chunked(self, head: Head) -> Answer:
        body = bytearray()
        try:
            while True:
                size = int(await self._read_line(), 16)
                if not size:
                    break
                body += await self.read(size)
                await self.read(2)
            while await self._read_line():
                pass  # trailers
        except ConnectionEnd as over:
            return Answer(head, bytes(body), over.end)
        return Answer(head, bytes(body), None)

    async def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            await self._more()
        return self._take(end + 2)[:-2]

    async def _more(self) -> None:
        end: End = "fin"
        try:
            async with asyncio.timeout(self.patience_seconds):
                data = await asyncio.get_running_loop().sock_recv(self._socket, 256 * 1024)
        except ConnectionResetError:
            data, end = b"", "rst"
        if not data:
            raise ConnectionEnd(end, self._take(len(self._buffer)))
        self._buffer += data

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


class TlsClient(RawClient):
    """The same over TLS; here ``fin`` is close_notify, and a connection that ends without it is cut off: ``rst``."""

    def __init__(self, sock: socket.socket) -> None:
        """See :class:`RawClient`; use :meth:`connect_tls`."""
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(self._incoming, self._outgoing, server_hostname="-")
        """The connection as OpenSSL has it."""

    @classmethod
    async def connect_tls(
        cls, address: tuple[str, int], trust: ssl.SSLContext, *, receive_buffer_bytes: int | None = None
    ) -> Self:
        """Connect and shake hands; the certificate has to be one for the address."""
        client = await cls.connect(address, receive_buffer_bytes=receive_buffer_bytes)
        try:
            await client.shake_hands(trust, address[0])
        except BaseException:
            client.close()
            raise
        return client

    async def shake_hands(self, trust: ssl.SSLContext, host: str) -> None:
        """Begin TLS with the server ``host``."""
        self.tls = trust.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        await self._step(self.tls.do_handshake)

    @property
    def certificate(self) -> bytes:
        """What the server showed, in DER form."""
        shown = self.tls.getpeercert(binary_form=True)
        assert shown is not None
        return shown

    async def send_bytes(self, data: bytes) -> None:
        """Send anything."""
        await self._step(lambda: self.tls.write(data))

    async def _more(self) -> None:
        try:
            data = await self._step(lambda: self.tls.read(256 * 1024))
        except (ssl.SSLError, ConnectionResetError):
            raise ConnectionEnd("rst", self._take(len(self._buffer))) from None
        if not data:
            raise ConnectionEnd("fin", self._take(len(self._buffer)))
        self._buffer += data

    async def _step(self, step: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                await loop.sock_sendall(self._socket, self._outgoing.read())
                if data := await loop.sock_recv(self._socket, 256 * 1024):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                await loop.sock_sendall(self._socket, self._outgoing.read())
                return done


async def fetch(
    address: tuple[str, int], target: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> Answer:
    """Make one request on a connection of its own."""
    async with await RawClient.connect(address) as client:
        return await client.get(target, headers, method)
