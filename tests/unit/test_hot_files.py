"""Files on the hot path: what the socket does not take is left to the transport, and nothing is sent of a wrong one."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from teepi.hot_entries import InFile
from teepi.web.hot_files import Sent, send_file
from tests.support.wheels import noise

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
CONTENT = noise(60_000)


class Transport:
    """A transport over one end of a pair of sockets, which remembers what it is given."""

    def __init__(self, sock: socket.socket, waiting: int = 0) -> None:
        """Stand before ``sock`` with ``waiting`` bytes in the buffer."""
        self.sock = sock
        self.waiting = waiting
        self.given = b""
        self.is_aborted = False

    def get_extra_info(self, name: str) -> socket.socket | None:
        """Return the socket."""
        return self.sock if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        """Return what waits."""
        return self.waiting

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        """Take bytes."""
        self.given += b"".join(pieces)

    def abort(self) -> None:
        """End."""
        self.is_aborted = True


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give two connected sockets; the first takes little and does not wait."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        theirs.connect(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
    yield ours, theirs
    ours.close()
    theirs.close()


def file(directory: Path, prefix: bytes = b"") -> InFile:
    """Write the content behind ``prefix``."""
    path = directory / "file"
    path.write_bytes(prefix + CONTENT)
    return InFile(str(path), len(prefix), len(CONTENT))


def send(transport: Transport, place: InFile) -> Sent:
    """Call what is tested."""
    return send_file(cast("asyncio.Transport", cast("Any", transport)), HEAD, place)


def taken(sock: socket.socket) -> bytes:
    """Return what has come."""
    sock.setblocking(False)  # noqa: FBT003
    data = b""
    try:
        while piece := sock.recv(1 << 20):
            data += piece
    except BlockingIOError:
        pass
    return data


@pytest.mark.parametrize("prefix", [b"", b"a line of JSON\n"])
def test_what_the_socket_does_not_take_goes_to_the_transport(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], prefix: bytes
) -> None:
    """Head and file are whole and in order, from wherever in the file the body begins; nothing is left open."""
    ours, theirs = pair
    place = file(tmp_path, prefix)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    transport = Transport(ours)
    assert send(transport, place) is Sent.YES
    came = taken(theirs)
    assert 0 < len(came) < len(HEAD + CONTENT)
    assert came + transport.given == HEAD + CONTENT
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert ours.fileno() >= 0


def test_full_socket_takes_nothing_and_the_transport_all(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Also what waits in the transport goes first."""
    ours, theirs = pair
    place = file(tmp_path)
    with suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 4096)
    for waiting in (0, 7):
        transport = Transport(ours, waiting)
        assert send(transport, place) is Sent.YES
        assert transport.given == HEAD + CONTENT
    assert taken(theirs).strip(b"x") == b""


def test_client_that_has_gone_ends_the_connection(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    """No error leaves."""
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    transport = Transport(ours)
    assert send(transport, file(tmp_path)) is Sent.YES
    assert transport.is_aborted
    assert not transport.given


def test_bytes_of_another_digest_are_not_sent(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    """Of what is not synced: a power cut may leave anything."""
    ours, theirs = pair
    place = file(tmp_path)
    for sha256, sent in ((hashlib.sha256(CONTENT).hexdigest(), Sent.YES), ("0" * 64, Sent.GONE)):
        transport = Transport(ours)
        assert send(transport, replace(place, sha256=sha256)) is sent
        assert transport.given == (HEAD + CONTENT if sent is Sent.YES else b"")
    assert taken(theirs) == b""


@pytest.mark.parametrize("change", ["gone", "longer", "shorter", "link", "directory", "fifo"])
def test_file_that_is_not_what_it_was_is_not_sent(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], change: str
) -> None:
    """Not one byte of head or body: the ordinary path answers."""
    ours, theirs = pair
    place = file(tmp_path)
    path = tmp_path / "file"
    if change in {"longer", "shorter"}:
        path.write_bytes(CONTENT + b"x" if change == "longer" else CONTENT[:-1])
    else:
        path.rename(tmp_path / "other")
    if change == "link":
        path.symlink_to(tmp_path / "other")
    elif change == "directory":
        path.mkdir()
    elif change == "fifo":
        os.mkfifo(path)
    transport = Transport(ours)
    assert send(transport, place) is Sent.GONE
    assert (taken(theirs), transport.given) == (b"", b"")
