"""Reads the form of an upload (multipart/form-data, RFC 7578) as it arrives: fields to memory, its file to the disk.

aiohttp's own ``request.post()`` bounds neither; here everything is counted.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from aiohttp import BodyPartReader, HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.multipart import MultipartReader
from aiohttp.web_protocol import RequestPayloadError

from teepi.errors import BadRequest, BadUpload, LengthRequired, TooLarge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from aiohttp.web_request import BaseRequest

    Write = Callable[[bytes], Awaitable[None]]

_T = TypeVar("_T")

_MOST_FIELDS: Final = 3000
"""A distribution with a thousand dependencies and classifiers has so many."""
_MOST_FIELD_BYTES: Final = 16 << 20
"""Of all fields together: a description may be long."""
_LONGEST_NAME: Final = 100
_CHUNK_BYTES: Final = 1 << 20
_NO_FORM: Final = (ValueError, AssertionError, LookupError, HttpProcessingError, RequestPayloadError)
"""What aiohttp raises for what is no multipart."""
FILE_FIELDS: Final = frozenset({"content", "filedata"})


@dataclass(slots=True)
class Form:
    """What arrived."""

    fields: dict[str, str | list[str]] = field(default_factory=dict)
    """By name; of those that came several times all."""
    filename: str | None = None
    """Of the file, None when there was none."""
    count: int = 0
    """Of all parts."""
    field_bytes: int = 0
    """Of all fields together."""

    def one(self, name: str) -> str:
        """Return the first value of a field, empty when it is missing."""
        value = self.fields.get(name, "")
        return value if isinstance(value, str) else value[0]

    def add(self, name: str, value: str) -> None:
        """Add a value."""
        before = self.fields.get(name)
        if before is None:
            self.fields[name] = value
        else:
            self.fields[name] = [*([before] if isinstance(before, str) else before), value]


async def read_form(request: BaseRequest, write: Write, most_bytes: int, idle_seconds: float) -> Form:
    """Read the whole form; the bytes of its one file go to ``write``, ``most_bytes`` of all at most.

    A client that sends nothing for ``idle_seconds`` has given up.
    Raises :class:`BadRequest`, :class:`BadUpload`, :class:`LengthRequired`, :class:`TooLarge`, and what ``write`` does.
    """
    if request.content_length is None:
        raise LengthRequired("An upload says how long it is: send Content-Length.")
    if request.content_length > most_bytes:
        raise TooLarge(
            f"This upload has {request.content_length} bytes; at most {most_bytes} are taken (setting max_upload)."
        )
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        raise BadRequest("An upload is multipart/form-data, as twine sends it.")
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise BadRequest("An upload is sent as it is, without Content-Encoding: its length would say nothing.")
    form = Form()
    try:
        reader = MultipartReader(request.headers, request.content)
        await _let_come(request)
        while (part := await _in_time(reader.next(), idle_seconds)) is not None:
            form.count += 1
            if form.count > _MOST_FIELDS:
                raise BadUpload(f"the form of the upload has more than {_MOST_FIELDS} fields")
            if not isinstance(part, BodyPartReader) or not part.name or len(part.name) > _LONGEST_NAME:
                raise BadUpload("the form of the upload has a part without a name")
            if part.filename is not None and part.name in FILE_FIELDS:
                await _read_file(part, form, write, idle_seconds)
            else:
                await _read_field(part, part.name, form, idle_seconds)
    except _NO_FORM as error:
        raise BadUpload(f"the form of the upload cannot be read ({type(error).__name__})") from error
    return form


async def _let_come(request: BaseRequest) -> None:
    """Tell a client that waits for it to send its body (RFC 9110, 10.1.1)."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # no part of the answer


async def _in_time(work: Coroutine[object, object, _T], idle_seconds: float) -> _T:
    try:
        async with asyncio.timeout(idle_seconds):
            return await work
    except TimeoutError:
        raise BadUpload(f"the upload stopped: nothing came for {idle_seconds:g} seconds") from None


async def _read_file(part: BodyPartReader, form: Form, write: Write, idle_seconds: float) -> None:
    if form.filename is not None:
        raise BadUpload("the form of the upload has more than one file")
    form.filename = part.filename
    while chunk := await _in_time(part.read_chunk(_CHUNK_BYTES), idle_seconds):
        await write(bytes(chunk))


async def _read_field(part: BodyPartReader, name: str, form: Form, idle_seconds: float) -> None:
    text = bytearray()
    while chunk := await _in_time(part.read_chunk(_CHUNK_BYTES), idle_seconds):
        text += chunk
        form.field_bytes += len(chunk)
        if form.field_bytes > _MOST_FIELD_BYTES:
            raise BadUpload(f"the fields of the upload have more than {_MOST_FIELD_BYTES} bytes")
    if part.filename is None:  # a signature beside the file is read and dropped
        form.add(name, text.decode("utf-8", "replace"))
