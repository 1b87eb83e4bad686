"""What is logged of requests and downloads."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from typing import TYPE_CHECKING

import pytest

from teepi import logs
from tests.http.scene import FILENAME, stage
from tests.support.clients import RawClient, fetch
from tests.support.faults import EarlyEnd, Status
from tests.support.wheels import noise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeTeepi
    from tests.support.upstream import Upstream


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Capture what teepi logs at info and above, with the ids of requests."""
    caplog.set_level(logging.INFO, "teepi")
    caplog.handler.addFilter(logs.name_request)
    yield caplog
    caplog.handler.removeFilter(logs.name_request)


def ids(log: pytest.LogCaptureFixture, word: str) -> set[str | None]:
    """Return the request ids of the lines that hold ``word``."""
    return {getattr(record, "request_id", None) for record in log.records if word in record.getMessage()}


async def test_download_that_completes_is_told_in_one_line(
    upstream: Upstream, make_teepi: MakeTeepi, log: pytest.LogCaptureFixture
) -> None:
    """Name, size, one fetch, clients, seconds, resumes: what people look for in the log of a cache."""
    scene = await stage(upstream, make_teepi, noise(2_300_000))
    upstream.script(scene.path, [EarlyEnd(700_000), EarlyEnd(900_000)])
    await asyncio.gather(*(scene.get() for _ in range(3)))
    await scene.settled()
    await scene.get()  # from the cache: no download of its own
    lines = [message for message in log.messages if "fetch," in message]
    assert len(lines) == 1
    assert re.fullmatch(rf"{FILENAME} 2\.3 MB, 1 fetch, 3 clients, \d+\.\d s, resumed 2 times\.", lines[0]), lines


async def test_lines_of_a_fetch_carry_the_request_that_caused_it(
    upstream: Upstream, make_teepi: MakeTeepi, log: pytest.LogCaptureFixture
) -> None:
    """The id that the client, or the proxy before it, gave; the fetch may outlive the request."""
    scene = await stage(upstream, make_teepi, noise(300_000))
    upstream.script(scene.path, [EarlyEnd(100_000)])
    assert (await scene.get({"X-Request-ID": "ci-job/17"})).status == 200
    await scene.settled()
    assert ids(log, FILENAME) == {"ci-job/17"}


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic c2VjcmV0\x00\r\n\r\n", "Invalid header value char"),
        (b"GET http://user:c2VjcmV0@a/ HTTP/9\r\n\r\n", "Bad status line: Expected dot"),
        (b"GET /?token=c2VjcmV0\x01 HTTP/1.1\r\nHost: a\r\n\r\n", "Invalid char in url query"),
    ],
)
async def test_request_that_cannot_be_read_is_logged_without_its_secrets(
    make_teepi: MakeTeepi, log: pytest.LogCaptureFixture, head: bytes, said: str
) -> None:
    """What was wrong, not the line that it was in."""
    teepi = await make_teepi()
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(head)
        assert (await client.read_answer()).status == 400
    assert [message.partition("127.0.0.1: ")[2] for message in log.messages] == [said]


async def test_error_answer_names_its_request_as_the_log_does(
    upstream: Upstream, make_teepi: MakeTeepi, log: pytest.LogCaptureFixture
) -> None:
    """Whoever complains can say which request it was; what is served right needs no such header."""
    teepi = await make_teepi()
    upstream.project("demo", {})
    upstream.script("/simple/demo/", itertools.repeat(Status(500)))
    answer = await fetch(teepi.address, "/simple/demo/?token=secret", {"X-Request-ID": 'odd "id'})
    assert answer.status == 503
    assert ids(log, "demo") == {answer.headers["x-request-id"]}
    assert "odd" not in answer.headers["x-request-id"]
    assert "secret" not in log.text
    assert "x-request-id" not in (await fetch(teepi.address, "/healthz")).headers
