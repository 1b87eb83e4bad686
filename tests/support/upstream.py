"""The scripted upstream: a package index on loopback that counts, holds and misbehaves on demand.

It runs on raw asyncio streams in the test's own event loop. Nothing here depends on time: a test that
wants a slow upstream holds a :class:`Gate`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

from tests.support.exchange import At, Line, LineOver, Request, Resource, Stop, respond
from tests.support.projects import HTML, JSON, Form, Project

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from tests.support.faults import Fault

_CONTENT_ETAG = "of the content"


class Gate:
    """Holds every answer of a path at one place until it is opened."""

    def __init__(self, at: At) -> None:
        """Hold at byte ``at`` of the file, or before the head."""
        self.at = at
        self.reached = asyncio.Event()
        """Set when the first answer stands here with everything before it sent."""
        self.waiting = 0
        """How many answers stand here now."""
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Let all pass, now and later."""
        self._opened.set()

    async def strike(self, _line: Line) -> None:
        """Wait until the gate is open."""
        self.reached.set()
        self.waiting += 1
        try:
            await self._opened.wait()
        finally:
            self.waiting -= 1


class _Connection(asyncio.StreamReaderProtocol):
    """A connection whose conversation is cancelled when the client leaves, by FIN or RST."""

    def __init__(self, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.task: asyncio.Future[None] | None = None
        self.socket: asyncio.BaseTransport | None = None
        self.lost = False
        super().__init__(asyncio.StreamReader(), self._begin)
        self._talk = talk

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.socket = writer.transport
        self.task = asyncio.ensure_future(self._talk(reader, writer))

    def eof_received(self) -> bool:
        super().eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost = True
        if self.task is not None:
            self.task.cancel()


class Upstream:
    """A package index at :attr:`url`; stop and start it again for an outage, the port stays."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Make an empty index that does not listen yet; with ``tls`` it speaks https."""
        self._tls = tls
        self.requests: list[Request] = []
        """Every request so far, in order of arrival."""
        self._resources: dict[str, Resource] = {}
        self._projects: dict[str, Project] = {}
        self._gates: dict[str, list[Gate]] = {}
        self._scripts: dict[str, Iterator[Any]] = {}
        self._connections: list[_Connection] = []
        self._broken: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._port = 0
        self._arrival = asyncio.Event()

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", self._port, backlog=1024, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close listener and connections; raise what went wrong in a conversation, for that is a bug here."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            if connection.socket is not None:
                connection.socket.abort()  # type: ignore[attr-defined] # every transport of a stream has it
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None
        self._connections.clear()
        if self._broken:
            raise self._broken[0]

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``, or the same with https."""
        return f"http{'' if self._tls is None else 's'}://127.0.0.1:{self._port}"

    @property
    def index_url(self) -> str:
        """What ``--upstream`` takes."""
        return self.url + "/simple/"

    @property
    def open_connections(self) -> int:
        """How many connections are open now, idle ones included."""
        return sum(1 for each in self._connections if each.socket is not None and not each.lost)

    def file(
        self,
        path: str,
        content: bytes,
        *,
        etag: str | None = _CONTENT_ETAG,
        last_modified: str | None = "Wed, 01 Jan 2025 00:00:00 GMT",
        content_type: str = "application/octet-stream",
        cache_control: str | None = None,
        headers: Mapping[str, str] | None = None,
        chunked: bool = False,
        length: bool = True,
        accept_ranges: bool = True,
    ) -> None:
        """Put ``content`` under ``path`` (as it stands in a request line), replacing what was there."""
        if etag == _CONTENT_ETAG:
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        more = dict(headers or {}) | ({"Cache-Control": cache_control} if cache_control else {})
        self._resources[path] = Resource(
            content, content_type, etag, last_modified, more, chunked, length, accept_ranges
        )

    def remove(self, path: str) -> None:
        """Answer 404 there from now on."""
        self._resources.pop(path, None)
        self._projects.pop(path, None)

    def project(
        self,
        name: str,
        files: Mapping[str, bytes] | None = None,
        *,
        form: Form = "json",
        metadata: Mapping[str, bytes] | None = None,
        files_at: Upstream | None = None,
        **traits: Any,
    ) -> Project:
        """Make the project ``name`` (normalised): its page at ``/simple/name/``, its files at ``/packages/name/``.

        ``metadata`` gives core metadata by file name, ``files_at`` another host for the files; ``traits``
        are those of :class:`Project`: ``sha256``, ``size``, ``links``, ``extra``, ``page_extra``, …
        """
        host = files_at or self
        project = Project(name, lambda: host.url, host.publish, form, **traits)
        for filename, content in (files or {}).items():
            project.put(filename, content, (metadata or {}).get(filename))
        self._projects[project.page_path] = project
        return project

    def publish(self, path: str, content: bytes | None) -> None:
        """Put a file with ordinary traits (:meth:`file` sets others), or with None remove it."""
        if content is None:
            self.remove(path)
        else:
            self.file(path, content)

    def gate(self, path: str, at: At = "head") -> Gate:
        """Hold all answers of ``path`` there until the gate is opened."""
        gate = Gate(at)
        self._gates.setdefault(path, []).append(gate)
        return gate

    def script(self, path: str, faults: Iterable[Fault | tuple[Fault, ...] | None]) -> None:
        """Let each successive GET of ``path`` suffer the next of ``faults``, then answer honestly.

        A tuple is several faults together, None an honest answer; ``itertools.repeat(fault)`` never ends.
        """
        self._scripts[path] = iter(faults)

    def seen(self, path: str, method: str = "GET") -> list[Request]:
        """Return the requests for ``path``, in order."""
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def count(self, method: str, path: str) -> int:
        """Return how many such requests there were."""
        return len(self.seen(path, method))

    def ranges(self, path: str) -> list[str | None]:
        """Return the Range header of each GET of ``path``, None where there was none."""
        return [request.range for request in self.seen(path)]

    async def arrived(self, path: str, count: int = 1, method: str = "GET") -> Request:
        """Wait until ``count`` such requests have come; return the last of them."""
        while len(requests := self.seen(path, method)) < count:
            self._arrival.clear()
            await self._arrival.wait()
        return requests[count - 1]

    def _accept(self) -> asyncio.Protocol:
        connection = _Connection(self._talk)
        self._connections.append(connection)
        return connection

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = Request.parse(await reader.readuntil(b"\r\n\r\n"))
                self.requests.append(request)
                self._arrival.set()
                try:
                    await self._answer(Line(writer, request))
                finally:
                    request.over.set()
        except (LineOver, ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception as error:  # noqa: BLE001 - told by stop(), where a test sees it
            self._broken.append(error)
        finally:
            writer.close()

    async def _answer(self, line: Line) -> None:
        request = line.request
        script = self._scripts.get(request.path, iter(())) if request.method == "GET" else iter(())
        step = next(script, None)
        faults: tuple[Fault, ...] = step if isinstance(step, tuple) else () if step is None else (step,)
        resource = self._find(request)
        for fault in faults:
            resource = fault.swap(resource) if resource is not None else None
        answer = respond(resource, request)
        for fault in faults:
            fault.alter(answer)
        stops: list[Stop] = [*self._gates.get(request.path, ()), *faults]
        await line.answer(answer, stops)

    def _find(self, request: Request) -> Resource | None:
        accept = request.headers.get("accept", "")
        if request.path == "/simple/" and request.path not in self._resources:
            names = sorted(project.name for project in self._projects.values())
            page = {"meta": {"api-version": "1.0"}, "projects": [{"name": name} for name in names]}
            if JSON in accept:
                return Resource(json.dumps(page).encode(), JSON)
            return Resource("".join(f'<a href="{name}/">{name}</a>\n' for name in names).encode(), HTML)
        if (project := self._projects.get(request.path)) is not None:
            return project.page(accept)
        return self._resources.get(request.path)
