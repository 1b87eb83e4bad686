"""Reads the form of an upload (multipart/form-data, RFC 7578) as it arrives: fields to memory, its file to the disk.

aiohttp's own ``request.post()`` bounds neither; here everything is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiohttp import BodyPartReader
from aiohttp.multipart import MultipartReader

from teepi.errors import BadRequest, BadUpload, LengthRequired, TooLarge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web_request import BaseRequest

    Write = Callable[[bytes], Awaitable[None]]

_MOST_FIELDS: Final = 3000
"""A distribution with a thousand dependencies and classifiers has so many."""
_MOST_FIELD_BYTES: Final = 16 << 20
"""Of all fields together: a description may be long."""
_LONGEST_NAME: Final = 100
_CHUNK_BYTES: Final = 1 << 20
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


async def read_form(request: BaseRequest, write: Write, most_bytes: int) -> Form:
    """Read the whole form; the bytes of its one file go to ``write``, ``most_bytes`` of all at most.

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
    form = Form()
    try:
        reader = MultipartReader(request.headers, request.content)
        while (part := await reader.next()) is not None:
            form.count += 1
            if form.count > _MOST_FIELDS:
                raise BadUpload(f"the form of the upload has more than {_MOST_FIELDS} fields")
            if not isinstance(part, BodyPartReader) or not part.name or len(part.name) > _LONGEST_NAME:
                raise BadUpload("the form of the upload has a part without a name")
            if part.filename is not None and part.name in FILE_FIELDS:
                await _read_file(part, form, write)
            else:
                await _read_field(part, part.name, form)
    except (ValueError, AssertionError, LookupError) as error:  # aiohttp's, for what is no multipart
        raise BadUpload(f"the form of the upload cannot be read ({type(error).__name__})") from error
    return form


async def _read_file(part: BodyPartReader, form: Form, write: Write) -> None:
    if form.filename is not None:
        raise BadUpload("the form of the upload has more than one file")
    form.filename = part.filename
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        await write(bytes(chunk))


async def _read_field(part: BodyPartReader, name: str, form: Form) -> None:
    text = bytearray()
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        text += chunk
        form.field_bytes += len(chunk)
        if form.field_bytes > _MOST_FIELD_BYTES:
            raise BadUpload(f"the fields of the upload have more than {_MOST_FIELD_BYTES} bytes")
    if part.filename is None:  # a signature beside the file is read and dropped
        form.add(name, text.decode("utf-8", "replace"))
