"""Results of test runs, as ``devpi test`` posts them to a file."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from tests.http.owner import JSON, Owner
from tests.support.clients import fetch
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import MakeTeepi
    from tests.support.teepi import Teepi

MADE = wheel("gamma", "0.1")
TEXT = '{ "testenvs": {"py311": {"test": [{"retcode": 0, "output": "fine ä"}]}},  "toxversion": "4.0" }'


@pytest.fixture
async def teepi(make_teepi: MakeTeepi) -> Teepi:
    """Give a teepi that lets root in."""
    return await make_teepi(insecure_empty_root=True)


@pytest.fixture
async def owner(teepi: Teepi) -> AsyncIterator[Owner]:
    """Give root with the index root/dev."""
    async with Owner(teepi) as owner:
        await owner.index("root/dev")
        yield owner


async def test_result_is_kept_as_it_was_posted_and_listed(owner: Owner, teepi: Teepi) -> None:
    """Byte for byte, at the URL that the answer names, for everybody who may read."""
    path = await owner.upload("root/dev", MADE)
    status, said = await owner.ask("POST", f"/{path}", data=TEXT.encode())
    assert (status, said["type"]) == (200, "toxresultpath")
    assert said["result"].startswith(f"{path}.toxresult-")
    answer = await fetch(teepi.address, "/" + said["result"])
    assert (answer.body.decode(), answer.headers["content-type"]) == (TEXT, "application/json")
    await owner.ask("POST", f"/{path}", data=b"{}")
    file, first, second = await owner.links("root/dev", "gamma", "0.1")
    assert [each["rel"] for each in (file, first, second)] == ["releasefile", "toxresult", "toxresult"]
    assert first["href"] == f"{teepi.url}/{said['result']}"
    assert first["for_href"] == second["for_href"] == file["href"]
    assert (await fetch(teepi.address, f"/{path}.toxresult-99")).status == 404


async def test_result_goes_with_its_file_when_that_is_pushed(owner: Owner) -> None:
    """What it says is the same there."""
    path = await owner.upload("root/dev", MADE)
    await owner.ask("POST", f"/{path}", data=TEXT.encode())
    await owner.index("root/prod")
    assert (await owner.push("root/dev", name="gamma", version="0.1", targetindex="root/prod"))[0] == 200
    _, result = await owner.links("root/prod", "gamma", "0.1")
    assert "/root/prod/" in result["href"]
    status, body, _ = await owner.read("/" + result["href"].partition("://")[2].partition("/")[2])
    assert (status, body.decode()) == (200, TEXT)


@pytest.mark.parametrize("text", [b"", b"{", b"{} {}", b"{'a': 1}", b'{"a": "\xff"}', b"[" * 100_000])
async def test_result_that_is_no_json_is_refused(owner: Owner, text: bytes) -> None:
    """Cut, not UTF-8, or nested without an end; nothing is kept."""
    path = await owner.upload("root/dev", MADE)
    assert await owner.ask("POST", f"/{path}", data=text) == (400, {"message": "Bad request: could not decode json"})
    assert len(await owner.links("root/dev", "gamma", "0.1")) == 1


async def test_result_of_megabytes_is_kept_and_a_larger_one_refused(owner: Owner) -> None:
    """The output of a whole test run is in it."""
    path = await owner.upload("root/dev", MADE)
    large = json.dumps({"output": "x" * (15 << 20)}).encode()
    status, said = await owner.ask("POST", f"/{path}", data=io.BytesIO(large))
    assert status == 200
    assert (await owner.read("/" + said["result"]))[1] == large
    status, said = await owner.ask("POST", f"/{path}", data=io.BytesIO(b"1" * (16 << 20) + b"1"))
    assert status == 413


async def test_result_is_refused_to_whom_the_index_does_not_name(owner: Owner, teepi: Teepi) -> None:
    """The sentence has the words that devpi's client looks for."""
    path = await owner.upload("root/dev", MADE)
    await owner.ask("PATCH", "/root/dev", json=["acl_toxresult_upload=root"])
    async with Owner(teepi, "ann", "pw") as ann:
        await ann.ask("PUT", "/ann", json={"password": "pw"})
        status, said = await ann.ask("POST", f"/{path}", data=TEXT.encode())
        assert status == 403
        assert "no permission to upload tox results" in said["message"]
    assert (await fetch(teepi.address, f"/{path}", JSON, "POST")).status == 403
    assert (await owner.ask("POST", f"/{path}", data=b"{}"))[0] == 200
