"""Uploaded documentation: its pages out of the zip, in a browser's sandbox, and the zip itself."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import pytest

from teepi import documentation
from tests.http.owner import Owner
from tests.support.clients import fetch
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import MakeTeepi
    from tests.support.teepi import Teepi

PAGES = {
    "api/index.html": b"<p>api</p>",
    "_static/script.js": b"alert(1)" * 1000,
    "_static/style.css": b"p {}",
    "LICENSE": b"free",
    "data.tar.gz": b"\x1f\x8b",
    "a b/\xe4.html".encode().decode("latin-1"): b"odd",
}


@pytest.fixture
async def teepi(make_teepi: MakeTeepi) -> Teepi:
    """Give a teepi that lets root in."""
    return await make_teepi(insecure_empty_root=True)


@pytest.fixture
async def owner(teepi: Teepi) -> AsyncIterator[Owner]:
    """Give root with the index root/dev, which has documentation of gamma 0.1."""
    async with Owner(teepi) as owner:
        await owner.index("root/dev")
        await owner.docs("root/dev", "gamma", "0.1", PAGES)
        yield owner


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("", b"<h1>start</h1>", "text/html"),
        ("index.html", b"<h1>start</h1>", "text/html"),
        ("api/", b"<p>api</p>", "text/html"),
        ("_static/script.js", b"alert(1)" * 1000, "text/javascript"),
        ("_static/style.css", b"p {}", "text/css"),
        ("LICENSE", b"free", "application/octet-stream"),
        ("data.tar.gz", b"\x1f\x8b", "application/octet-stream"),
        ("a%20b/%C3%83%C2%A4.html", b"odd", "text/html"),
    ],
)
async def test_docs_member_is_served_in_a_sandbox(owner: Owner, path: str, body: bytes, kind: str) -> None:
    """Typed by its name, never guessed; a script in it is of no origin, so that it can neither read nor write here."""
    status, found, headers = await owner.read(f"/root/dev/gamma/0.1/+d/{path}")
    assert (status, found, headers["Content-Type"]) == (200, body, kind)
    policy = headers["Content-Security-Policy"].split("; ")
    assert policy[0] == "sandbox allow-scripts allow-popups"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers
    etag = headers["ETag"]
    again, nothing, _ = await owner.read(f"/root/dev/gamma/0.1/+d/{path}", {"If-None-Match": etag})
    assert (again, nothing) == (304, b"")
    other = {**PAGES, "index.html": b"new"}
    await owner.docs("root/dev", "gamma", "0.1", other)
    assert (await owner.read(f"/root/dev/gamma/0.1/+d/{path}", {"If-None-Match": etag}))[0] == 200


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("gamma/0.1/+d", 301, "+d/"),
        ("gamma/0.1/+d/api?a=1", 301, "api/?a=1"),
        ("gamma/0.1/+doc/index.html", 301, "../+d/index.html"),
        ("gamma/0.1/+doc/api/index.html", 301, "../../+d/api/index.html"),
        ("gamma/0.1/+d/nope.html", 404, None),
        ("gamma/0.1/+d/_static/", 404, None),
        ("gamma/0.1/+d/_static", 404, None),
        ("gamma/0.1/+d/..%2F..%2Fetc%2Fpasswd", 400, None),
        ("gamma/0.1/+d//index.html", 404, None),
        ("gamma/0.2/+d/", 404, None),
        ("delta/latest/+d/", 404, None),
        ("gamma/0.1/+doc/other.doc.zip", 404, None),
    ],
)
async def test_docs_path_that_is_no_member_redirects_or_is_not_found(
    owner: Owner, path: str, status: int, location: str | None
) -> None:
    """A directory wants its slash; devpi-web's own path leads to ours; a look-up leads nowhere else."""
    answered, _, headers = await owner.read(f"/root/dev/{path}")
    assert (answered, headers.get("Location")) == (status, location)


async def test_docs_without_an_index_at_the_top_begin_with_the_nearest_page(owner: Owner) -> None:
    """As a zip of a build directory has it."""
    pages = {"about.txt": b"", "html/a.html": b"a", "html/index.html": b"start", "html/deep/index.html": b"deep"}
    await owner.docs("root/dev", "gamma", "0.1", pages)
    status, _, headers = await owner.read("/root/dev/gamma/0.1/+d/")
    assert (status, headers["Location"]) == (301, "html/index.html")
    assert (await owner.read("/root/dev/gamma/0.1/+d/html/"))[1] == b"start"


async def test_docs_latest_and_stable_are_the_newest_with_documentation(owner: Owner) -> None:
    """Of all stages that an index is made of; a version without any does not count, nor a pre-release as stable."""
    await owner.index("root/top", bases="root/dev")
    for version in ("0.9", "0.10", "1.0rc1"):
        await owner.docs("root/dev", "gamma", version, {"index.html": version.encode()})
    await owner.upload("root/dev", wheel("gamma", "2.0"))
    await owner.docs("root/top", "gamma", "0.9", {"index.html": b"ours"})
    for index in ("root/dev", "root/top"):
        assert (await owner.read(f"/{index}/gamma/latest/+d/"))[1] == b"1.0rc1"
        assert (await owner.read(f"/{index}/Gamma/stable/+d/"))[1] == b"0.10"
    assert (await owner.read("/root/top/gamma/0.9.0/+d/"))[1] == b"ours"


async def test_docs_zip_is_served_where_the_version_links_to_it(owner: Owner) -> None:
    """Whole or a range of it."""
    content = await owner.docs("root/dev", "gamma", "0.1", {"more.html": b"more"})
    [link] = await owner.links("root/dev", "gamma", "0.1")
    assert (link["rel"], link["href"].rpartition("/")[2]) == ("doczip", "gamma-0.1.doc.zip")
    path = "/" + link["href"].partition("://")[2].partition("/")[2]
    status, body, headers = await owner.read(path)
    assert (status, body, headers["Content-Type"]) == (200, content, "application/zip")
    assert headers["Cache-Control"] == "no-cache"
    assert "more.html" in zipfile.ZipFile(io.BytesIO(body)).namelist()
    assert (await owner.read(path, {"Range": "bytes=0-3"}))[:2] == (206, content[:4])


async def test_docs_of_a_protected_index_are_for_its_readers(owner: Owner, teepi: Teepi) -> None:
    """Pages and zip alike, and no shared cache keeps them."""
    await owner.ask("PATCH", "/root/dev", json=["acl_read=root"])
    for path in ("/root/dev/gamma/0.1/+d/", "/root/dev/gamma/0.1/+doc/gamma-0.1.doc.zip"):
        assert (await fetch(teepi.address, path)).status == 401
        status, _, headers = await owner.read(path)
        assert (status, headers["Cache-Control"]) == (200, "private, no-cache")


async def test_docs_member_above_the_limit_is_refused(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zip has it still."""
    monkeypatch.setattr(documentation, "_MOST_MEMBER_BYTES", 100)
    assert (await owner.read("/root/dev/gamma/0.1/+d/_static/script.js"))[0] == 413
    assert (await owner.read("/root/dev/gamma/0.1/+d/"))[0] == 200


async def test_docs_directories_that_are_many_are_read_again(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of them in memory is bounded; the one in use always is."""
    monkeypatch.setattr(documentation, "_MOST_MEMBERS", 1)
    await owner.docs("root/dev", "gamma", "0.2", {"index.html": b"second"})
    for _ in range(2):
        assert (await owner.read("/root/dev/gamma/0.1/+d/"))[1] == b"<h1>start</h1>"
        assert (await owner.read("/root/dev/gamma/0.2/+d/"))[1] == b"second"
