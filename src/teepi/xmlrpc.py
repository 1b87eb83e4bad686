"""``pip search``: what it asks, and the answer to it, in XML-RPC. No IO: bytes in, bytes out.

Only the method ``search`` is known. What is found is decided elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.parsers.expat import ExpatError
from xmlrpc import client as xmlrpc

from defusedxml.common import DefusedXmlException
from defusedxml.xmlrpc import DefusedExpatParser

from teepi.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BODY_BYTES: Final = 64 << 10
"""A call larger than this is refused: one of pip's has 500 bytes and its words."""
_FIELDS: Final = ("name", "summary")
_OPERATORS: Final = ("and", "or")
_MALFORMED: Final = -32700  # these two numbers are those of the "Specification for Fault Code Interoperability"
_UNKNOWN_METHOD: Final = -32601
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_NO_VERSION: Final = "0+unknown"  # a version (PEP 440) that nobody has: a newer pip fails on an empty one


class BadCall(BadRequest):
    """The body is no call that is answered; ``code`` is that of the fault."""

    def __init__(self, message: str, code: int = _MALFORMED) -> None:
        """``message`` is one sentence, which pip shows."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class SearchCall:
    """What was asked for."""

    words: list[str]
    """As they were given, each once."""
    operator: str
    """``and`` or ``or``: of fields, as the old servers have it. Here every word has to stand in one of them."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One line of the answer."""

    index: str
    name: str
    summary: str
    version: str
    """Empty where none is known."""


def parse_search(body: bytes) -> SearchCall:
    """Read a ``methodCall``. Raises :class:`BadCall`."""
    if len(body) > BODY_BYTES:
        msg = f"A search takes no more than {BODY_BYTES} bytes."
        raise BadCall(msg)
    values, method = _read(body)
    if method != "search":
        msg = f"The method {method[:100]!r} is not supported here; only 'search' is."
        raise BadCall(msg, _UNKNOWN_METHOD)
    query = values[0] if values else None
    operator = values[1] if len(values) > 1 else "and"
    if not isinstance(query, dict) or operator not in _OPERATORS:
        msg = "A search takes a struct with name or summary, and 'and' or 'or'."
        raise BadCall(msg)
    words = [word for field in _FIELDS for word in _words(query.get(field))]
    return SearchCall(list(dict.fromkeys(words)), operator)


def _read(body: bytes) -> tuple[tuple[Any, ...], str]:
    """Return parameters and method, with no document type, entity or reference to elsewhere let in."""
    values = xmlrpc.Unmarshaller()
    parser = DefusedExpatParser(values, forbid_dtd=True)
    try:
        parser.feed(body)
        parser.close()
        return values.close(), values.getmethodname() or ""
    except DefusedXmlException as error:
        msg = "A search has no document type and no entities; this one was refused."
        raise BadCall(msg) from error
    except (
        ExpatError,
        xmlrpc.Error,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
    ) as error:  # all that the standard library raises for a body that makes no sense
        msg = f"The body is no XML-RPC call ({type(error).__name__})."
        raise BadCall(msg) from error


def _words(value: object) -> Iterator[str]:
    """Yield the words of a field: one string, or several; pip sends what stands on its command line."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield from each.split()


def render_hits(hits: Iterable[Hit]) -> bytes:
    """Return the answer to a search: the best first, each summary behind the name of its index, as devpi has it."""
    found = [
        {
            "name": _text(hit.name),
            "summary": _text(f"[{hit.index}] {hit.summary}".rstrip()),
            "version": _text(hit.version) or _NO_VERSION,
            "_pypi_ordering": place,
        }
        for place, hit in enumerate(hits)
    ]
    return _written((found,))


def render_fault(error: BadCall) -> bytes:
    """Return the answer that says what is wrong."""
    return _written(xmlrpc.Fault(error.code, _text(error.message)))


def _written(value: tuple[Any, ...] | xmlrpc.Fault) -> bytes:
    return xmlrpc.dumps(value, methodresponse=True, encoding="utf-8").encode()


def _text(text: str) -> str:
    """Return ``text`` on one line, without what XML cannot carry."""
    return " ".join(_NOT_IN_XML.sub("", text).split())
