"""Sends a small cached file at once: head and body go into the socket by two system calls, past this process's memory.

Only what the kernel has in memory and takes whole is sent so; what it does not take is left to the transport.
"""

from __future__ import annotations

import hashlib
import os
import socket
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from teepi.page_cache import is_in_memory

if TYPE_CHECKING:
    import asyncio

    from teepi.hot_entries import InFile

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MORE: Final = getattr(socket, "MSG_MORE", 0)  # else the head would go as a packet of its own


class Sent(Enum):
    """What became of a file."""

    YES = auto()
    LATER = auto()
    """It would have to be waited for."""
    GONE = auto()
    """It is not what it was."""


def send_file(transport: asyncio.Transport, head: bytes, place: InFile) -> Sent:
    """Send ``head`` and the file in ``place``, or nothing at all."""
    try:
        fd = os.open(place.path, _FLAGS)
    except OSError:
        return Sent.GONE
    try:
        if os.lseek(fd, 0, os.SEEK_END) != place.offset + place.size:
            return Sent.GONE
        if is_in_memory(fd, place.offset + place.size - 1) is False:
            return Sent.LATER
        if place.sha256 is not None:
            body = os.pread(fd, place.size, place.offset)
            if hashlib.sha256(body).hexdigest() != place.sha256:
                return Sent.GONE
            transport.writelines((head, body))
        elif transport.get_write_buffer_size() or transport.get_extra_info("sslcontext") is not None:
            transport.writelines((head, os.pread(fd, place.size, place.offset)))
        else:
            _send(transport, head, fd, place)
    except OSError:  # a FIFO, or a disk that fails
        return Sent.GONE
    finally:
        os.close(fd)
    return Sent.YES


def _send(transport: asyncio.Transport, head: bytes, fd: int, place: InFile) -> None:
    """Send by the socket itself, which is empty-handed: the transport has nothing to write."""
    there = transport.get_extra_info("socket")
    # A second object for the same descriptor, of the plain type and made without a system call; uvloop's cannot send.
    sock = socket.SocketType(there.family, socket.SOCK_STREAM, 0, fileno=there.fileno())
    written = sent = 0
    try:
        written = sock.send(head, _MORE)
        if written == len(head):
            sent = os.sendfile(sock.fileno(), fd, place.offset, place.size)
    except BlockingIOError:
        pass
    except OSError:  # the client has gone
        transport.abort()
        return
    finally:
        sock.detach()
    if written < len(head) or sent < place.size:
        transport.writelines((head[written:], os.pread(fd, place.size - sent, place.offset + sent)))
