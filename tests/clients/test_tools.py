"""Tools that are no installers: pip-compile, pypi-simple, pip's search and twine, which is to be refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.clients.installers import Client
from tests.support.clients import fetch
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.installers import Shop
    from tests.conftest import MakeProcess
    from tests.support.upstream import Upstream

pytestmark = pytest.mark.client

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
READ_PAGE = """
import json, sys
from pypi_simple import PyPISimple

with PyPISimple(sys.argv[1]) as index:
    page = index.get_project_page("teetop")
    package = page.packages[-1]
    print(json.dumps({
        "filename": package.filename, "digests": package.digests, "url": package.url,
        "metadata": index.get_package_metadata(package) if package.has_metadata else None,
    }))
"""


@pytest.mark.parametrize("shop", ["html"], indirect=True)
async def test_pip_compile_with_hashes_pins_what_upstream_has(
    make_process: MakeProcess, shop: Shop, tmp_path: Path
) -> None:
    """Contract 7, 39 and 41. Upstream's hashes without a file fetched for them; two options keep teepi's URL out."""
    client = Client("pip-tools", tmp_path / "home")
    client.fresh()
    teepi = await make_process()
    (client.home / "requirements.in").write_text("teetop\n")
    index = f"{teepi.url}/root/pypi/+simple/"
    options = ["--quiet", "--strip-extras", "--generate-hashes", "--no-header", "--no-annotate"]

    async def compiled(*more: str) -> list[str]:
        await client.run("pip-compile", *options, *more, "requirements.in", PIP_INDEX_URL=index)
        return (client.home / "requirements.txt").read_text().split()

    pins = [
        part
        for pin, digest in zip(("teetop==2.0", "teebase==1.5", "teebuilt==3.0"), shop.digests, strict=True)
        for part in (pin, "\\", f"--hash=sha256:{digest}")
    ]
    pins = pins[3:] + pins[:3]
    assert await compiled() == ["--index-url", index, "--trusted-host", "127.0.0.1", *pins]
    assert await compiled("--no-emit-index-url", "--no-emit-trusted-host") == pins
    assert shop.upstream.count("GET", "/simple/teetop/") == 1
    assert set(shop.fetched()) == {shop.wanted[2]}  # the sdist, whose metadata is to be built; no wheel to hash it


async def test_pypi_simple_reads_a_page_and_its_metadata(make_process: MakeProcess, shop: Shop, tmp_path: Path) -> None:
    """Contract 39. Another parser of both forms sees the file, its digest, our link and the core metadata."""
    client = Client("pypi-simple", tmp_path / "home")
    client.fresh()
    teepi = await make_process()
    said = json.loads(await client.run("python", "-c", READ_PAGE, f"{teepi.url}/root/pypi/+simple/"))
    assert said == {
        "filename": "teetop-2.0-py3-none-any.whl",
        "digests": {"sha256": shop.digests[0]},
        "url": f"{teepi.url}/root/pypi/+http/{shop.upstream.url.removeprefix('http://')}{shop.wanted[0]}",
        "metadata": wheel("teetop", "2.0", requires=["teebase>=1.1", "teebuilt"]).metadata.decode(),
    }
    assert shop.upstream.count("GET", "/simple/teetop/") == 1
    assert shop.upstream.count("GET", shop.wanted[0] + ".metadata") == 1
    assert not shop.fetched()


@pytest.mark.parametrize("name", ["pip-20.3"])
async def test_pip_search_finds_by_one_word_and_by_two(
    make_process: MakeProcess, upstream: Upstream, tmp_path: Path, name: str
) -> None:
    """What is cached has its version and summary, what is only listed is no reason for a newer pip to fail."""
    client = Client(name, tmp_path / "home")
    client.fresh()
    built = wheel("gamma", "1.10", summary="A test package")
    upstream.project("gamma", {built.filename: built.content}, metadata={built.filename: built.metadata})
    listed = {"meta": {"api-version": "1.0"}, "projects": [{"name": "gamma"}, {"name": "gamma-more"}]}
    kind = "application/vnd.pypi.simple.v1+json"
    upstream.file("/simple/", json.dumps(listed).encode(), content_type=kind)
    teepi = await make_process()
    index = f"{teepi.url}/root/pypi"
    for path in ("/", "/gamma/"):
        await fetch(teepi.address, f"/root/pypi/+simple{path}")
    await client.run("pip", "download", "--no-deps", "--index-url", f"{index}/+simple/", "gamma")
    said = await client.run("pip", "search", "--index", index, "gamma", "test")
    assert [line.split() for line in said.splitlines() if "gamma" in line] == [
        ["gamma", "(1.10)", "-", "[root/pypi]", "A", "test", "package"]
    ]
    said = await client.run("pip", "search", "--index", index, "gamma")
    assert "gamma-more (0+unknown)" in said
    code, said = await client.end("pip", "search", "--index", f"{index}/", "nothing")
    assert code == 23, said  # pip's "no match"
    code, said = await client.end("pip", "search", "--index", index.replace("pypi", "none"), "gamma")
    assert "404" in said


_NOT_TAKEN = "POST is not taken here: this URL is for GET; teepi mirrors an index."


@pytest.mark.parametrize(
    ("path", "sentence"),
    [("/root/pypi/", "cannot submit to mirror index root/pypi"), ("/legacy/", _NOT_TAKEN)],
)
async def test_twine_is_refused_and_shown_the_sentence(
    make_process: MakeProcess, upstream: Upstream, tmp_path: Path, path: str, sentence: str
) -> None:
    """Contract 36. An upload to a mirror, or to nothing, is refused; the reason is on the screen as it stands."""
    client = Client("twine", tmp_path / "home")
    client.fresh()
    teepi = await make_process()
    built = wheel("teetop")
    (client.home / built.filename).write_bytes(built.content)
    upload = ["twine", "upload", "--repository-url", teepi.url + path, "-u", "someone", "-p", "secret"]
    code, said = await client.end(*upload, "--non-interactive", "--disable-progress-bar", built.filename)
    assert code == 1
    words = " ".join(_COLOUR.sub("", said).split())  # twine paints, and wraps lines
    assert sentence in words
    assert not upstream.requests
