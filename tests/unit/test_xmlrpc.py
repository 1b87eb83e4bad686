"""The calls of ``pip search``: read from strangers, answered in what XML can carry."""

from __future__ import annotations

import contextlib
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teepi.xmlrpc import BODY_BYTES, BadCall, Hit, parse_search, render_fault, render_hits


def call(*values: Any, method: str = "search") -> bytes:
    """Return a call as the standard library's client writes it."""
    return xmlrpc.client.dumps(values, method).encode()


@pytest.mark.parametrize(
    ("values", "words", "operator"),
    [
        (({"name": ["gamma", "test"], "summary": ["gamma", "test"]}, "or"), ["gamma", "test"], "or"),
        (({"name": "gamma test", "summary": "gamma test"}, "or"), ["gamma", "test"], "or"),
        (({"name": ["gamma"], "summary": ["other"]}, "and"), ["gamma", "other"], "and"),
        (({"name": "gamma", "author": "somebody"},), ["gamma"], "and"),
        (({"summary": [1, None, "gamma"]},), ["gamma"], "and"),
        (({},), [], "and"),
    ],
)
def test_search_as_pip_and_others_send_it_gives_each_word_once(
    values: tuple[Any, ...], words: list[str], operator: str
) -> None:
    """A list of words, or one string; fields that are not searched are left alone."""
    found = parse_search(xmlrpc.client.dumps(values, "search", allow_none=True).encode())
    assert (found.words, found.operator) == (words, operator)


LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 9))


@pytest.mark.parametrize(
    "document_type",
    [
        f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]>',
        '<!DOCTYPE x [<!ENTITY a8 SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE x SYSTEM "http://elsewhere.example/x.dtd">',
        '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://elsewhere.example/x.dtd"> %a;]>',
    ],
)
def test_search_with_entities_or_a_document_type_is_refused(document_type: str) -> None:
    """Fault 18. A billion laughs and a reference to elsewhere end before anything is expanded or opened."""
    body = call({"name": "WORD"}).replace(b"WORD", b"&a8;").replace(b"?>", b"?>" + document_type.encode())
    with pytest.raises(BadCall, match="no entities"):
        parse_search(body)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not xml", b"<methodCall>", b"\xff\xfe", b"<methodResponse><fault><value/></fault></methodResponse>",
        call({"name": "a"}).replace(b"<string>a</string>", b"<int>" + b"9" * 5000 + b"</int>"),
        call({"name": "a"}).replace(b"<string>a</string>", b"<bigdecimal>a</bigdecimal>"),
        call({"name": "a"}).replace(b"<string>a</string>", b"<base64>a</base64>"),
        call("a"), call(), call({"name": "a"}, "xor"), call({"name": "a"}, ["or"]),
        call({"name": "a" * BODY_BYTES}),
    ],
)  # fmt: skip
def test_search_that_cannot_be_read_is_a_fault(body: bytes) -> None:
    """Whatever it is, it has one sentence."""
    with pytest.raises(BadCall) as caught:
        parse_search(body)
    with pytest.raises(xmlrpc.client.Fault) as fault:
        xmlrpc.client.loads(render_fault(caught.value))
    assert fault.value.faultString == caught.value.message


@given(st.binary(max_size=60), st.integers(0, 200))
def test_search_of_any_bytes_is_a_search_or_a_fault(noise: bytes, at: int) -> None:
    """Nothing else is ever raised."""
    body = call({"name": ["gamma"]}, "or")
    for each in (noise, body[:at] + noise + body[at:], body[:at] + noise):
        with contextlib.suppress(BadCall):
            parse_search(each)


def test_other_methods_are_not_supported() -> None:
    """A client that asks for more is told so, by the code that says just that."""
    with pytest.raises(BadCall, match=r"'list_packages' is not supported") as caught:
        parse_search(call(method="list_packages"))
    assert caught.value.code == -32601


def test_hits_are_told_as_devpi_tells_them_without_what_xml_cannot_carry() -> None:
    """The index stands before the summary; a version is always one, since a newer pip fails on an empty string."""
    hits = [
        Hit("admin/dev", "gamma", "<b>test</b>\x00 pkg\ud800 &\n gam\x1bma \U0001f40d", "1.0"),
        Hit("root/pypi", "gamma-2", "", ""),
    ]
    (found,), _ = xmlrpc.client.loads(render_hits(hits))
    assert found == [
        {
            "name": "gamma", "summary": "[admin/dev] <b>test</b> pkg & gamma \U0001f40d", "version": "1.0",
            "_pypi_ordering": 0,
        },
        {"name": "gamma-2", "summary": "[root/pypi]", "version": "0+unknown", "_pypi_ordering": 1},
    ]  # fmt: skip
    assert xmlrpc.client.loads(render_hits([])) == (([],), None)
