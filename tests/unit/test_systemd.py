"""The messages to a service manager."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from teepi.systemd import Notifier

if TYPE_CHECKING:
    from pathlib import Path


def test_reloading_tells_when_it_began(tmp_path: Path) -> None:
    """Type=notify-reload wants the monotonic time beside RELOADING (sd_notify(3)), and READY afterwards."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        before = time.monotonic_ns() // 1000
        notifier.reloading()
        notifier.ready("Settings read again.")
        notifier.close()
        notifier.ready("unheard")
        first, microseconds = manager.recv(4096).decode().splitlines()
        assert first == "RELOADING=1"
        assert before <= int(microseconds.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        assert manager.recv(4096) == b"READY=1\nSTATUS=Settings read again."
        manager.setblocking(False)  # noqa: FBT003 - the standard library's signature
        try:
            manager.recv(4096)
        except BlockingIOError:
            return
        raise AssertionError


def test_watchdog_time_that_is_no_number_is_none() -> None:
    """Nothing in the environment may keep a service from starting."""
    for value in ("", "0", "soon", "-5"):
        assert Notifier({"WATCHDOG_USEC": value}).watchdog_seconds is None
    assert Notifier({"WATCHDOG_USEC": "30000000"}).watchdog_seconds == 30
