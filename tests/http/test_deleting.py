"""Deleting from private indexes: files, versions, projects; what goes with them and what stays."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

from tests.support.private import JSON, PAGE, Owner, basic, form
from tests.support.wheels import sdist, wheel

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi

ALPHA = wheel("alpha", summary="A thing")
SOURCE = sdist("alpha")
NEWER = wheel("alpha", "2.0")
DOCS = wheel("docs", files={"index.html": b"<h1>docs</h1>"}).content


@pytest.fixture
async def owner(make_teepi: MakeTeepi) -> Owner:
    """Give root, with three files of two versions on root/dev."""
    owner = Owner(await make_teepi(insecure_empty_root=True))
    await owner.index("root/dev")
    await owner.put("root/dev", ALPHA, SOURCE, NEWER)
    return owner


async def message(owner: Owner, path: str) -> tuple[int, str]:
    """Delete what is at ``path``; return the status and what the client is told."""
    answer = await owner.ask("DELETE", path)
    said = json.loads(answer.body)["message"]
    assert answer.head.reason == HTTPStatus(answer.status).phrase  # devpi's client shows it beside the message
    return answer.status, said


async def test_deleted_file_is_410_until_the_same_comes_again(owner: Owner) -> None:
    """Its page, its bytes and its core metadata go with it; another file of that name does not bring it back."""
    path = owner.path("root/dev", ALPHA)
    assert await message(owner, path) == (200, f"file '{ALPHA.filename}' deleted")
    for each in (path, path + ".metadata"):
        answer = await owner.get(each)
        assert (answer.status, answer.body) == (410, f"{ALPHA.filename} was deleted from root/dev.\n".encode())
    assert await owner.names("root/dev", "alpha") == [SOURCE.filename, NEWER.filename]
    assert all(ALPHA.sha256 not in each for each in owner.left)
    assert await message(owner, path) == (410, f"{ALPHA.filename} was deleted from root/dev.")
    other = wheel("alpha", summary="Another")
    await owner.put("root/dev", other)
    assert (await owner.get(path)).status == 410
    await owner.put("root/dev", ALPHA)
    assert (await owner.get(path)).body == ALPHA.content


async def test_version_without_files_goes_unless_it_has_documentation(owner: Owner) -> None:
    """Its last file takes it along, and the last version the project."""
    docs = [(":action", "doc_upload"), ("name", "alpha"), ("version", "1.0")]
    assert (await owner.post("root/dev", form(docs, "alpha.zip", DOCS))).status == 200
    for each in (ALPHA, SOURCE, NEWER):
        assert (await message(owner, owner.path("root/dev", each)))[0] == 200
    assert list((await owner.json("/root/dev/alpha"))["result"]) == ["1.0"]
    assert await owner.names("root/dev", "alpha") == []
    assert len(owner.left) == 1
    assert (await message(owner, "/root/dev/alpha/1.0"))[0] == 200
    assert (await owner.get("/root/dev/alpha", JSON)).status == 404
    assert (await owner.json("/root/dev"))["result"]["projects"] == []
    assert owner.left == []


async def test_deleted_version_goes_with_all_its_files(owner: Owner) -> None:
    """However the version and the name are spelt; the others stay."""
    assert await message(owner, "/root/dev/Alpha/1.0.0") == (200, "project 'alpha' version '1.0.0' deleted")
    assert list((await owner.json("/root/dev/alpha"))["result"]) == ["2.0"]
    assert await owner.names("root/dev", "alpha") == [NEWER.filename]
    assert [(await owner.get(owner.path("root/dev", each))).status for each in (ALPHA, SOURCE, NEWER)] == [
        410,
        410,
        200,
    ]
    assert owner.left == [f"files/{NEWER.sha256[:2]}/{NEWER.sha256}"]


async def test_deleted_project_goes_with_all_its_versions(owner: Owner) -> None:
    """From this index alone: the bytes stay while another has them."""
    await owner.index("root/other")
    await owner.put("root/other", ALPHA)
    assert await message(owner, "/root/dev/alpha/") == (200, "project 'alpha' deleted from stage root/dev")
    assert (await owner.get("/root/dev/+simple/alpha/", PAGE)).status == 404
    assert owner.left == [f"files/{ALPHA.sha256[:2]}/{ALPHA.sha256}"]
    assert (await owner.get(owner.path("root/other", ALPHA))).body == ALPHA.content
    assert (await owner.get(owner.path("root/dev", ALPHA))).status == 410


async def test_delete_from_a_non_volatile_index_takes_force(owner: Owner) -> None:
    """403 with the reason without it; ``devpi remove -f`` sends ``?force``."""
    await owner.ask("PATCH", "/root/dev", ["volatile=False"])
    path = owner.path("root/dev", ALPHA)
    for each, what in ((path, ALPHA.filename), ("/root/dev/alpha/2.0", "alpha 2.0"), ("/root/dev/alpha", "alpha")):
        said = f"{what} is on the non-volatile index root/dev, cannot delete; force does"
        assert await message(owner, each) == (403, said)
    assert len(owner.left) == 3
    for each in (f"{path}?force", "/root/dev/alpha/2.0?force=", "/root/dev/alpha?force=1"):
        assert (await message(owner, each))[0] == 200
    assert owner.left == []


async def test_delete_of_what_is_not_there_is_404(owner: Owner) -> None:
    """Whether the index is volatile or not; nothing can be deleted from a mirror."""
    for settings in ("volatile=True", "volatile=False"):
        await owner.ask("PATCH", "/root/dev", [settings])
        for path, said in (
            ("/root/dev/nope", "There is no project 'nope' on root/dev."),
            ("/root/dev/alpha/9.9", "There is no version 9.9 of project alpha on root/dev."),
            (owner.path("root/dev", wheel("beta")), None),
            ("/root/pypi/alpha", "cannot delete from mirror index root/pypi"),
            ("/root/nowhere/alpha", "The stage root/nowhere could not be found."),
        ):
            status, found = await message(owner, path)
            assert (status, said or found) == (404, found)
    assert len(owner.left) == 3


async def test_delete_without_right_changes_nothing(owner: Owner) -> None:
    """401 for nobody, 403 for somebody who may not upload."""
    await owner.ask("PUT", "/bob", {"password": "secret"})
    for auth, status in (({}, 401), (basic("root", "x"), 401), (basic("bob", "secret"), 403)):
        stranger = Owner(owner.teepi, auth)
        for path in ("/root/dev/alpha", "/root/dev/alpha/1.0", owner.path("root/dev", ALPHA)):
            assert (await message(stranger, path))[0] == status
    assert len(owner.left) == 3


async def test_deletions_survive_a_restart(owner: Owner) -> None:
    """410 is remembered; what was kept is there."""
    await message(owner, "/root/dev/alpha/1.0")
    owner.teepi = again = await owner.teepi.restarted()
    try:
        assert (await owner.get(owner.path("root/dev", ALPHA))).status == 410
        assert (await owner.get(owner.path("root/dev", NEWER))).body == NEWER.content
    finally:
        await again.stop()
