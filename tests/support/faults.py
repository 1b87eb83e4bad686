"""What can go wrong with one upstream answer (faults.md 13 to 16), for ``Upstream.script``.

A fault swaps the resource, alters the answer, or strikes at one place of it. Positions are bytes of
the *file*, also in a ranged answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.support.exchange import Answer, At, Line, Resource


class Fault:
    """An honest answer; subclasses misbehave."""

    at: At | None = None

    def swap(self, resource: Resource) -> Resource:
        """Return what is answered from instead of ``resource``."""
        return resource

    def alter(self, answer: Answer) -> None:
        """Change ``answer`` in place before it is sent."""

    async def strike(self, line: Line) -> None:
        """Do what happens at :attr:`at`."""


@dataclass(frozen=True)
class Reset(Fault):
    """RST, after what was sent before has arrived."""

    at: At

    async def strike(self, line: Line) -> None:
        """Reset."""
        await line.reset()


@dataclass(frozen=True)
class EarlyEnd(Fault):
    """FIN in mid-body."""

    at: At

    async def strike(self, line: Line) -> None:
        """End."""
        line.finish()


@dataclass(frozen=True)
class Stall(Fault):
    """Silence on an open connection."""

    at: At

    async def strike(self, line: Line) -> None:
        """Hold until the client leaves."""
        await line.hold()


@dataclass(frozen=True)
class HangBeforeHead(Stall):
    """The request is taken and never answered."""

    at: At = "head"


@dataclass(frozen=True)
class CutChunk(Fault):
    """A chunked body that ends inside a chunk, ten bytes after ``at``."""

    at: At

    def alter(self, answer: Answer) -> None:
        """Send in chunks."""
        answer.length, answer.chunked = None, True

    async def strike(self, line: Line) -> None:
        """Promise a chunk and send little of it."""
        await line.send(b"ffff\r\n" + b"?" * 10)
        line.finish()


@dataclass(frozen=True)
class Trickle(Fault):
    """The body in small steps; the only fault that is a matter of time."""

    bytes_per_step: int
    seconds_per_step: float = 0.02

    def alter(self, answer: Answer) -> None:
        """Slow down."""
        answer.pace = (self.bytes_per_step, self.seconds_per_step)


@dataclass(frozen=True)
class Status(Fault):
    """Another status, with a plain body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"not now\n"

    def alter(self, answer: Answer) -> None:
        """Replace everything."""
        answer.status, answer.headers = self.status, {"Content-Type": "text/plain"} | self.headers
        answer.body, answer.start, answer.length = self.body, 0, len(self.body)
        answer.chunked = answer.close = False


class Redirect(Status):
    """A redirect to any string."""

    def __init__(self, to: str, status: int = 302) -> None:
        """Redirect to ``to``, absolute or relative."""
        super().__init__(status, {"Location": to})


@dataclass(frozen=True)
class WrongBytes(Fault):
    """``count`` bytes from ``at`` on are flipped; size and ETag stay."""

    first: int
    count: int = 1

    def swap(self, resource: Resource) -> Resource:
        """Flip the bytes."""
        content = bytearray(resource.content)
        for position in range(self.first, min(self.first + self.count, len(content))):
            content[position] ^= 0xFF
        return replace(resource, content=bytes(content))


@dataclass(frozen=True)
class Replace(Fault):
    """Another body under the same name and ETag."""

    body: bytes

    def swap(self, resource: Resource) -> Resource:
        """Replace the content."""
        return replace(resource, content=self.body)


@dataclass(frozen=True)
class ChangedEtag(Fault):
    """Another ETag; an If-Range with the old one gets the whole file."""

    etag: str = '"changed"'

    def swap(self, resource: Resource) -> Resource:
        """Replace the ETag."""
        return replace(resource, etag=self.etag)


@dataclass(frozen=True)
class IgnoreRange(Fault):
    """200 and the whole file, whatever range was asked."""

    def swap(self, resource: Resource) -> Resource:
        """Know nothing of ranges."""
        return replace(resource, accept_ranges=False)


@dataclass(frozen=True)
class WrongLength(Fault):
    """Content-Length is ``by`` bytes too large (positive) or too small (negative); the whole body is sent."""

    by: int

    def alter(self, answer: Answer) -> None:
        """Lie about the length."""
        answer.chunked, answer.close = False, True
        answer.length = len(answer.body) + self.by


@dataclass(frozen=True)
class BadContentRange(Fault):
    """206 with a Content-Range that does not fit: ``start`` one byte on, or another ``total``."""

    wrong: Literal["start", "total", "missing"] = "start"

    def alter(self, answer: Answer) -> None:
        """Lie about the range."""
        given = answer.headers.pop("Content-Range", None)
        if given is None or self.wrong == "missing":
            return
        span, total = given.removeprefix("bytes ").split("/")
        first, last = map(int, span.split("-"))
        if self.wrong == "start":
            first, last = first + 1, last + 1
        else:
            total = str(int(total) + 1)
        answer.headers["Content-Range"] = f"bytes {first}-{last}/{total}"


@dataclass(frozen=True)
class Unasked206(Fault):
    """206 with the first half of the file to a request that asked for no range."""

    def alter(self, answer: Answer) -> None:
        """Answer a part."""
        total = len(answer.body)
        answer.body = answer.body[: total // 2]
        answer.status, answer.length, answer.chunked = 206, len(answer.body), False
        answer.headers["Content-Range"] = f"bytes 0-{len(answer.body) - 1}/{total}"
