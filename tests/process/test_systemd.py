"""teepi as systemd's service: it says when it is ready, alive and stopping, and takes over sockets that listen."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.process.tools import WITHHELD, begin
from tests.support.clients import RawClient, fetch
from tests.support.teepi import DidNotStart

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.process.conftest import Publish
    from tests.support.teepi import TeepiProcess
    from tests.support.upstream import Upstream

MIB = 1024 * 1024

ACTIVATE = """
import os, sys
count = int(sys.argv[1])
for number in range(count):
    os.dup2(int(sys.argv[2 + number]), 3 + number, inheritable=True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": "teepi.socket:second"}
command = sys.argv[2 + count:]
os.execvp(command[0], command)
"""
"""What the service manager does between fork and exec (sd_listen_fds(3))."""


class Manager:
    """Listens as the service manager does."""

    def __init__(self, address: str) -> None:
        """Bind to ``address`` as it stands in ``NOTIFY_SOCKET``."""
        self.environment = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature

    async def __aenter__(self) -> Self:
        """Return this."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Listen no more."""
        self._socket.close()

    async def hear(self) -> dict[str, str]:
        """Return the next message."""
        async with asyncio.timeout(20):
            message = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        return dict(line.split("=", 1) for line in message.decode().splitlines())


async def activated(make_process: MakeProcess, *sockets: socket.socket, **options: Any) -> TeepiProcess:
    """Start teepi with ``sockets`` as descriptors 3, 4 and so on."""
    numbers = [str(sock.fileno()) for sock in sockets]
    prefix = [sys.executable, "-c", ACTIVATE, str(len(sockets)), *numbers]
    return await make_process(prefix=prefix, descriptors=[sock.fileno() for sock in sockets], **options)


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_notify_says_ready_once_it_answers_and_stopping_at_the_end(
    make_process: MakeProcess, tmp_path: Path, kind: str
) -> None:
    """READY with an address that answers, STOPPING with the time that the end may take; nothing else unasked."""
    address = f"@teepi-test-{tmp_path.name}" if kind == "abstract" else str(tmp_path / "notify")
    async with Manager(address) as manager:
        starting = asyncio.create_task(make_process(environment=manager.environment))
        said = await manager.hear()
        assert said.pop("READY") == "1"
        found = re.fullmatch(r"Serving on http://127\.0\.0\.1:(\d+)\.", said.pop("STATUS"))
        assert found is not None
        assert (await fetch(("127.0.0.1", int(found[1])), "/healthz")).status == 200
        assert said == {}
        assert await (await starting).terminate() == 0
        assert await manager.hear() == {
            "STOPPING": "1",
            "STATUS": "Finishing what clients wait for (0 connected), for up to 5 s.",
            "EXTEND_TIMEOUT_USEC": "20000000",
        }


async def test_notify_beats_for_the_watchdog_until_the_drain_is_over(
    make_process: MakeProcess, publish: Publish, upstream: Upstream, tmp_path: Path
) -> None:
    """WATCHDOG=1 comes again and again, also while a client is waited for: a drain is no hang."""
    file = publish(MIB)
    upstream.gate(file.path, MIB // 2)
    async with Manager(str(tmp_path / "notify")) as manager:
        environment = manager.environment | {"WATCHDOG_USEC": "100000"}
        teepi = await make_process(environment=environment, arguments=["--drain", "1"])
        assert "READY" in await manager.hear()
        for _ in range(3):
            assert await manager.hear() == {"WATCHDOG": "1"}
        client, _ = await begin(teepi, file.link, MIB // 2 - WITHHELD)
        async with client:
            teepi.signal(signal.SIGTERM)
            while "STOPPING" not in (said := await manager.hear()):
                assert said == {"WATCHDOG": "1"}
            assert said["STATUS"] == "Finishing what clients wait for (1 connected), for up to 1 s."
            for _ in range(3):
                assert await manager.hear() == {"WATCHDOG": "1"}
            assert await teepi.wait() == 0


async def test_notify_with_nobody_listening_does_not_stop_the_service(
    make_process: MakeProcess, tmp_path: Path
) -> None:
    """A manager that went away, or an address of another kind, is no reason to fail."""
    for address in (str(tmp_path / "absent"), "vsock:2:1234"):
        teepi = await make_process(environment={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "50000"})
        assert (await fetch(teepi.address, "/healthz")).status == 200
        assert await teepi.terminate() == 0
        assert teepi.stderr == ""


async def test_watchdog_of_another_process_is_not_beaten(make_process: MakeProcess, tmp_path: Path) -> None:
    """WATCHDOG_PID names who is watched; a variable that was inherited by chance means nothing."""
    async with Manager(str(tmp_path / "notify")) as manager:
        environment = manager.environment | {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
        teepi = await make_process(environment=environment)
        assert "READY" in await manager.hear()
        assert (await fetch(teepi.address, "/healthz")).status == 200
        assert await teepi.terminate() == 0
        assert "STOPPING" in await manager.hear()


async def test_sockets_inherited_take_the_place_of_listen(make_process: MakeProcess) -> None:
    """Both sockets answer, and nothing else is listened on."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        teepi = await activated(make_process, one, other)
        for sock in (one, other):
            assert (await fetch(sock.getsockname(), "/healthz")).status == 200
        assert re.findall(r"listens on http://127\.0\.0\.1:(\d+)", teepi.stdout) == [
            str(sock.getsockname()[1]) for sock in (one, other)
        ]
        assert await teepi.terminate() == 0


async def test_restart_with_an_inherited_socket_refuses_nobody(make_process: MakeProcess) -> None:
    """Who connects between two processes waits in the socket's queue, and the next process answers."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        teepi = await activated(make_process, sock)
        assert (await fetch(sock.getsockname(), "/healthz")).status == 200
        assert await teepi.terminate() == 0
        async with await RawClient.connect(sock.getsockname()) as client:
            await client.send("GET", "/healthz")
            await activated(make_process, sock)
            assert (await client.read_answer()).status == 200


async def test_sockets_meant_for_a_parent_are_left_alone(make_process: MakeProcess) -> None:
    """LISTEN_PID names who is meant."""
    teepi = await make_process(environment={"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert (await fetch(teepi.address, "/healthz")).status == 200


async def test_socket_of_another_kind_is_refused_in_one_sentence(make_process: MakeProcess, tmp_path: Path) -> None:
    """A unix or datagram socket, or a file: the descriptor, its name and the remedy, exit status 2."""
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "unix"))
    unix.listen()
    for sock in (unix, socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()):
        with sock, pytest.raises(DidNotStart) as caught:
            await activated(make_process, sock)
        assert caught.value.exit_code == 2
        assert caught.value.stderr == (
            "teepi: The service manager passed descriptor 3 (teepi.socket), which is no listening TCP socket; "
            "write ListenStream=HOST:PORT in the socket unit.\n"
        )
