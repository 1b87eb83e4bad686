"""Content codings of pages."""

from __future__ import annotations

import gzip
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teepi.codings import Coding, choose_coding, encode, worth_encoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, Coding.IDENTITY),
        ("", Coding.IDENTITY),
        ("identity", Coding.IDENTITY),
        ("gzip, deflate", Coding.GZIP),  # pip
        ("gzip, deflate, br, zstd", Coding.ZSTD),  # uv, poetry
        ("br", Coding.IDENTITY),
        ("*", Coding.ZSTD),
        ("*;q=0", Coding.IDENTITY),
        ("gzip;q=0, *", Coding.ZSTD),
        ("zstd;q=0.5, gzip", Coding.GZIP),
        ("zstd;q=0, gzip;q=0", Coding.IDENTITY),
        ("identity;q=1, gzip;q=0.5", Coding.IDENTITY),
        ("X-GZIP", Coding.GZIP),
        ("gzip;q=nonsense", Coding.IDENTITY),
        ("gzip;q=2", Coding.IDENTITY),
        (";;;,,,gzip", Coding.GZIP),
    ],
)
def test_coding_is_the_best_that_the_client_takes(header: str | None, coding: Coding) -> None:
    """Contract 11. By weight, then zstd before gzip; identity whenever nothing else will do."""
    assert choose_coding(header) is coding


@given(st.text(max_size=60))
def test_coding_of_any_header_is_chosen_without_an_error(header: str) -> None:
    """Fault 17. A client's header cannot be wrong enough to fail."""
    assert isinstance(choose_coding(header), Coding)


@given(st.binary(max_size=5000))
def test_encoded_body_decodes_to_what_it_was_and_is_the_same_each_time(body: bytes) -> None:
    """An ETag names bytes, so the same page must give the same ones."""
    assert gzip.decompress(encode(body, Coding.GZIP)) == zstd.decompress(encode(body, Coding.ZSTD)) == body
    assert encode(body, Coding.GZIP) == encode(body, Coding.GZIP)
    assert encode(body, Coding.IDENTITY) is body


def test_short_body_is_not_worth_encoding() -> None:
    """A coding saves nothing within one packet."""
    assert not worth_encoding(b"x" * 500)
    assert worth_encoding(b"x" * 5000)
