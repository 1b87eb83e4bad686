"""teepi under test: in the test's own process with short limits, or as the real process.

The real process is given the same surroundings everywhere: no proxies, no settings of pip, uv or teepi,
a home of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import teepi
from teepi.config import Settings
from teepi.index_settings import IndexSettings
from teepi.limits import Limits
from teepi.server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_START_SECONDS = 20
_STOP_SECONDS = 20
_LISTENS = re.compile(r"teepi \S+ listens on https?://(?:127\.0\.0\.1|0\.0\.0\.0|localhost):(\d+)")


def scaled(limits: Limits, divisor: float) -> Limits:
    """Return ``limits`` with every time divided; sizes stay."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(limits):
        value = getattr(limits, field.name)
        if field.name.endswith("_seconds"):
            changes[field.name] = (
                tuple(each / divisor for each in value) if isinstance(value, tuple) else value / divisor
            )
    return dataclasses.replace(limits, **changes)


FAST = scaled(Limits(), 20)
"""What tests run with: five seconds of silence are a quarter of a second."""


class Teepi:
    """teepi in this process and event loop."""

    def __init__(self, settings: Settings, limits: Limits = FAST) -> None:
        """Prepare; nothing listens before :meth:`start`."""
        self.settings = settings
        self.limits = limits
        self.server = Server(settings, limits)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.server.addresses[0]
        return host, port

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return "http://{}:{}".format(*self.address)

    async def start(self) -> Self:
        """Listen."""
        await self.server.start()
        return self

    async def stop(self) -> None:
        """Stop as SIGTERM would."""
        await self.server.stop()

    async def restarted(self, **changes: Any) -> Teepi:
        """Stop this one and start another on the same directories with some settings changed."""
        await self.stop()
        return await Teepi(dataclasses.replace(self.settings, **changes), self.limits).start()


def settings_for(directory: Path, upstream: str, *, index: Mapping[str, Any] | None = None, **changes: Any) -> Settings:
    """Return settings with ``upstream`` as ``root/pypi`` and both directories below ``directory``.

    ``index`` has more fields of its IndexSettings: ``allow_private`` where another scripted upstream has the files.
    """
    settings = Settings(
        listen=(("127.0.0.1", 0),),
        tls_cert=None,
        tls_key=None,
        outside_url=None,
        allowed_hosts=("teepi.example",),  # the Host of RawClient
        indexes={"root/pypi": IndexSettings(**({"upstream": upstream} | dict(index or {})))},
        has_built_in=False,
        cache_dir=directory / "cache",
        data_dir=directory / "data",
        max_size_bytes=1 << 40,  # whatever is free on this machine
        min_free_bytes=0,
        max_age_unused_days=None,
        scrub=False,
        proxpi_invalidation=False,
        page_ttl_seconds=600.0,
        patience_seconds=Limits().page_patience_seconds,
        offline=False,
        synthesize_metadata=True,
        drain_seconds=5.0,
        log_level="info",
        log_format="text",
        restrict_modify=(),
        insecure_empty_root=False,
        max_upload_bytes=10 << 30,
        access_log=None,
        access_log_format="combined",
    )
    return dataclasses.replace(settings, **changes)


def scrubbed_environment(home: Path) -> dict[str, str]:
    """Return an environment in which nothing of this machine's or user's settings is seen."""
    source = str(Path(teepi.__file__).parent.parent)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),  # noqa: S108 - the system's own default
        "PYTHONPATH": source,
        "PYTHONUNBUFFERED": "1",
        # uv and pip read these before any variable of theirs.
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "PIP_CONFIG_FILE": os.devnull,
    }


class DidNotStart(Exception):
    """The process ended, or said nothing, before it listened."""

    def __init__(self, exit_code: int | None, stdout: str, stderr: str) -> None:
        """Remember how it ended (None: it had to be killed) and all it said."""
        super().__init__(f"exit code {exit_code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr


class TeepiProcess:
    """``teepi serve`` as a real process."""

    def __init__(
        self,
        directory: Path,
        upstream: str,
        *,
        arguments: Sequence[str] = (),
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        log_level: str = "info",
        descriptors: Sequence[int] = (),
        listen: str = "127.0.0.1:0",
    ) -> None:
        """Prepare; directories lie below ``directory`` unless ``arguments`` say otherwise.

        ``prefix`` is a command that runs what follows it: ``strace -f …``, ``prlimit …``, ``unshare …``.
        ``descriptors`` are inherited.
        """
        self.directory = directory
        self._descriptors = descriptors
        self.cache_dir = directory / "cache"
        self.stdout = ""
        self.stderr = ""
        self.address = ("127.0.0.1", 0)
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._listening = asyncio.Event()
        self._spoke = asyncio.Event()
        self._environment = scrubbed_environment(directory) | dict(environment or {})
        self._command = [*prefix, sys.executable, "-m", "teepi", "serve", "--listen", listen]
        self._command += ["--upstream", upstream, "--cache-dir", str(self.cache_dir)]
        self._command += ["--data-dir", str(directory / "data"), "--log-level", log_level]
        # Whatever is free on this machine; the last of a flag holds.
        self._command += ["--max-size", "1TiB", "--min-free", "0", *arguments]

    async def start(self) -> Self:
        """Start and wait until it says where it listens; raise :exc:`DidNotStart` if it ends before."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd=self.directory,
            pass_fds=self._descriptors,
        )
        self._readers = [
            asyncio.create_task(self._collect(self._process.stdout, "stdout")),
            asyncio.create_task(self._collect(self._process.stderr, "stderr")),
        ]
        listening = asyncio.create_task(self._listening.wait())
        ended = asyncio.create_task(self._process.wait())
        await asyncio.wait({listening, ended}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        failed = not listening.done()
        listening.cancel()
        ended.cancel()
        if failed:
            exit_code = self._process.returncode
            await self.end()
            raise DidNotStart(exit_code, self.stdout, self.stderr)
        return self

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return "http://{}:{}".format(*self.address)

    @property
    def pid(self) -> int:
        """Id of teepi's own process, below whatever prefix started it."""
        serving = [pid for pid in self._family() if b"\0teepi\0serve\0" in _command_line(pid)]
        return serving[-1]

    def rss_bytes(self) -> int:
        """Return the resident memory of teepi's own process in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def kill9(self) -> None:
        """Kill teepi without any warning and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        await self._wait()

    async def terminate(self) -> int:
        """Send SIGTERM; return the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return await self._wait()

    def signal(self, number: signal.Signals) -> None:
        """Send any signal to teepi."""
        os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait until it ends by itself; return the exit code."""
        return await self._wait()

    async def said(self, words: str) -> None:
        """Wait until ``words`` have come on stderr."""
        async with asyncio.timeout(_START_SECONDS):
            while words not in self.stderr:
                self._spoke.clear()
                await self._spoke.wait()

    async def end(self) -> None:
        """Kill what is left of it, and whatever the prefix started, each by its id."""
        if self._process is None:
            return
        for pid in reversed(self._family()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        await self._wait()

    async def _wait(self) -> int:
        assert self._process is not None
        code = await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        await asyncio.gather(*self._readers)
        return code

    def _family(self) -> list[int]:
        """Return the ids of the started process and all below it, parents first."""
        if self._process is None or self._process.returncode is not None:
            return []
        family = [self._process.pid]
        for pid in family:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    family += map(int, children.read_text(encoding="ascii").split())
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return family

    async def _collect(self, stream: asyncio.StreamReader | None, name: str) -> None:
        assert stream is not None
        while line := await stream.readline():
            text = line.decode(errors="replace")
            setattr(self, name, getattr(self, name) + text)
            self._spoke.set()
            if name == "stdout" and (found := _LISTENS.search(text)):
                self.address = ("127.0.0.1", int(found[1]))
                self._listening.set()


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
