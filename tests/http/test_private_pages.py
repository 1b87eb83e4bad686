"""Reading private indexes: pages, lists, versions and files; what stages and mirrors give together."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urljoin

import pytest

from teepi.index_settings import IndexSettings
from tests.http.links import is_sentence
from tests.support.faults import EarlyEnd, Status
from tests.support.private import HTML, JSON, PAGE, Owner, form
from tests.support.wheels import sdist, wheel

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.support.faults import Fault
    from tests.support.upstream import Upstream

ALPHA = wheel("alpha", requires_python=">=3.8", summary="A thing")
NEWER = wheel("alpha", "2.0")
MIRRORED = wheel("alpha", "3.0", summary="Of the mirror")
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PIP = {"Accept": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"}


@pytest.fixture
async def owner(upstream: Upstream, second: Upstream, make_teepi: MakeTeepi) -> Owner:
    """Give root, two mirrors, and the stages root/dev over root/base over the mirrors; root/alone has no base."""
    upstream.project("alpha", {MIRRORED.filename: MIRRORED.content}, metadata={MIRRORED.filename: MIRRORED.metadata})
    indexes = {
        "root/pypi": IndexSettings(upstream.index_url),
        "root/extra": IndexSettings(second.index_url, is_trusted=True),
    }
    owner = Owner(await make_teepi(insecure_empty_root=True, indexes=indexes))
    await owner.index("root/base", bases=["root/pypi", "root/extra"])
    await owner.index("root/dev", bases=["root/base"])
    await owner.index("root/alone")
    return owner


def urls(page: dict[str, Any], path: str) -> dict[str, str]:
    """Return where the files of a JSON page are that was read at ``path``."""
    return {file["filename"]: urljoin(path, file["url"]) for file in page["files"]}


# Pages ----------------------------------------------------------------------------------------------


async def test_page_of_uploads_says_all_that_is_known_of_them(owner: Owner) -> None:
    """PEP 691, 700, 714: hashes, size, upload time, versions as they are spelt, and core metadata that is served."""
    built = sdist("alpha", "1.0")
    await owner.put("root/alone", ALPHA, built)
    page = await owner.page("root/alone", "alpha")
    assert (page["name"], page["versions"], page["meta"]["api-version"]) == ("alpha", ["1.0"], "1.3")
    of_wheel, of_sdist = page["files"]
    assert of_wheel["hashes"] == {"sha256": ALPHA.sha256}
    assert of_wheel["size"] == len(ALPHA.content)
    assert of_wheel["requires-python"] == ">=3.8"
    assert of_wheel["yanked"] is False
    assert len(of_wheel["upload-time"]) == len("2026-11-20T22:00:41.123456Z")
    assert "core-metadata" not in of_sdist
    metadata = await owner.get(owner.path("root/alone", ALPHA) + ".metadata")
    assert (metadata.status, metadata.body) == (200, ALPHA.metadata)
    assert metadata.headers["etag"] == '"{}"'.format(of_wheel["core-metadata"]["sha256"])
    same = await owner.get(owner.path("root/alone", ALPHA) + ".metadata", {"If-None-Match": metadata.headers["etag"]})
    assert (same.status, same.body) == (304, b"")
    assert (await owner.get(owner.path("root/alone", built) + ".metadata")).status == 404
    html = (await owner.get("/root/alone/+simple/alpha/", HTML)).body.decode()
    for words in (
        f"#sha256={ALPHA.sha256}", 'data-requires-python="&gt;=3.8"',
        'data-core-metadata="sha256={}"'.format(of_wheel["core-metadata"]["sha256"]),
    ):  # fmt: skip
        assert words in html


async def test_page_has_working_links_with_and_without_simple(owner: Owner) -> None:
    """By Accept alone: JSON for pip and uv, HTML for all else; a browser gets another page where devpi has one."""
    await owner.put("root/dev", ALPHA)
    for below in ("+simple/", "", "+simple//"):
        path = f"/root/dev/{below}alpha/"
        page = await owner.json(path, PIP)
        assert unquote(urls(page, path)[ALPHA.filename]).endswith(owner.path("root/dev", ALPHA))
        assert (await owner.get(urls(page, path)[ALPHA.filename])).body == ALPHA.content
        for accept in ({}, {"Accept": "*/*"}, HTML, *([BROWSER] if below else [])):
            answer = await owner.get(path, accept)
            assert (answer.status, answer.headers["content-type"]) == (200, "text/html")
            assert f">{ALPHA.filename}</a>" in answer.body.decode()
        assert (await owner.get(path, {"Accept": "image/png"})).status == 406
        head = await owner.get(path, PIP, "HEAD")
        assert (head.status, head.body) == (200, b"")


async def test_page_of_a_name_that_is_not_normalised_redirects(owner: Owner) -> None:
    """Relative, below the same prefix, the query kept; a slash that is missing is added."""
    await owner.put("root/dev", wheel("al.pha"))
    for below in ("+simple/", ""):
        for asked in ("Al.Pha/", "AL_PHA/", "al-pha?x=1", "al-pha"):
            answer = await owner.get(f"/root/dev/{below}{asked}", PIP)
            assert answer.status == 301
            target = urljoin(f"/root/dev/{below}{asked}", answer.headers["location"])
            assert target == f"/root/dev/{below}al-pha/" + ("?x=1" if "?" in asked else "")
    assert (await owner.get("/root/dev/+simple/-x-/", PIP)).status == 404


async def test_page_is_new_at_once_after_an_upload_and_a_deletion(owner: Owner) -> None:
    """The ETag changes with it; what has not changed is 304, in each coding by itself."""
    await owner.put("root/dev", ALPHA)
    path = "/root/dev/+simple/alpha/"
    before = await owner.get(path, PAGE)
    assert before.headers["cache-control"] == "no-cache"
    assert before.headers["vary"] == "Accept, Accept-Encoding"
    told = {"If-None-Match": before.headers["etag"]}
    assert (await owner.get(path, {**PAGE, **told})).status == 304
    assert (await owner.get(path, {**HTML, **told})).status == 200
    await owner.put("root/dev", *(wheel("alpha", f"2.{minor}") for minor in range(8)))
    after = await owner.get(path, {**PAGE, **told})
    assert (after.status, len(json.loads(after.body)["files"])) == (200, 9)
    packed = await owner.get(path, {**PAGE, "Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == after.body
    assert packed.headers["etag"] != after.headers["etag"]
    for minor in range(8):
        assert (await owner.ask("DELETE", f"/root/dev/alpha/2.{minor}")).status == 200
    assert (await owner.get(path, {**PAGE, **told})).status == 304


async def test_file_names_with_epochs_and_local_versions_round_trip(owner: Owner) -> None:
    """As clients encode them: ``!``, ``+`` and the ``+f`` before them, each plain or encoded."""
    built = wheel("pkg", "1!2017.4+devpi")
    answer = await owner.upload("root/dev", built)
    assert answer.status == 200, answer.head
    path = "/root/dev/+simple/pkg/"
    page = await owner.page("root/dev", "pkg")
    target = urls(page, path)[built.filename]
    assert "%21" in target
    plain = unquote(target)
    for each in (
        target, plain, plain.replace("+", "%2B"), quote(plain, safe="/"), target.replace("+f", "%2Bf"),
    ):  # fmt: skip
        answer = await owner.get(each)
        assert (answer.status, answer.body) == (200, built.content), each
        assert (await owner.get(each + ".metadata")).body == built.metadata
    assert page["versions"] == ["1!2017.4+devpi"]
    data = (await owner.json("/root/dev/pkg/1%212017.4%2Bdevpi"))["result"]
    assert (await owner.get(data["+links"][0]["href"].removeprefix("http://teepi.example"))).body == built.content
    assert (await owner.ask("DELETE", "/root/dev/pkg/1%212017.4%2Bdevpi")).status == 200
    assert (await owner.get(target)).status == 410


# Resolution -----------------------------------------------------------------------------------------


async def test_stages_merge_and_the_first_wins_by_file_name(owner: Owner) -> None:
    """And hide what mirrors have of that name, whichever of the stages has it; the mirror is not even asked."""
    other = wheel("alpha", summary="Shadowed")
    await owner.put("root/base", other, NEWER)
    await owner.put("root/dev", ALPHA)
    page = await owner.page("root/dev", "alpha")
    found = {file["filename"]: file["hashes"]["sha256"] for file in page["files"]}
    assert found == {ALPHA.filename: ALPHA.sha256, NEWER.filename: NEWER.sha256}
    assert page["versions"] == ["1.0", "2.0"]
    places = urls(page, "/root/dev/+simple/alpha/")
    assert places[NEWER.filename].startswith("/root/base/")
    assert (await owner.get(places[NEWER.filename])).body == NEWER.content
    assert await owner.names("root/base", "alpha") == [other.filename, NEWER.filename]
    await owner.ask("DELETE", "/root/dev/alpha")
    await owner.ask("DELETE", "/root/base/alpha")
    assert await owner.names("root/dev", "alpha") == [MIRRORED.filename]


async def test_project_registered_without_a_file_hides_the_mirrors(owner: Owner, upstream: Upstream) -> None:
    """Nobody else's project takes a name that was registered."""
    fields = [(":action", "submit"), ("name", "alpha"), ("version", "1.0")]
    assert (await owner.post("root/base", form(fields, None))).status == 200
    assert await owner.names("root/dev", "alpha") == []
    assert upstream.count("GET", "/simple/alpha/") == 0


WHITELISTS = [
    (["alpha"], ["alpha"], "intersection", True),
    (["Beta_X", "Alpha"], ["*", "alpha"], "intersection", True),
    (["*"], ["*"], "intersection", True),
    (["alpha"], [], "intersection", False),
    ([], ["alpha"], "intersection", False),
    (["alpha"], [], "union", True),
    ([], ["*"], "union", True),
    (["beta"], [], "union", False),
]


async def test_mirrors_add_to_a_project_on_the_whitelists(owner: Owner) -> None:
    """Put together as the asked index says: on those of all stages, or of one; ``*`` is every project."""
    await owner.put("root/dev", ALPHA)
    for dev, base, inheritance, is_merged in WHITELISTS:
        settings = {"mirror_whitelist": dev, "mirror_whitelist_inheritance": inheritance}
        await owner.ask("PATCH", "/root/dev", {"bases": ["root/base"], **settings})
        await owner.ask("PATCH", "/root/base", {"bases": ["root/pypi"], "mirror_whitelist": base})
        wanted = [ALPHA.filename, MIRRORED.filename] if is_merged else [ALPHA.filename]
        assert await owner.names("root/dev", "alpha") == wanted, (dev, base, inheritance)


async def test_merged_page_keeps_what_the_mirror_says_of_its_files(owner: Owner) -> None:
    """Core metadata and file URLs of the mirror, which work; versions of both; the stage's own file wins."""
    await owner.ask("PATCH", "/root/dev", {"bases": ["root/pypi"], "mirror_whitelist": ["alpha"]})
    own = wheel("alpha", "3.0", summary="Own")
    await owner.put("root/dev", ALPHA)
    of_mirror = (await owner.page("root/pypi", "alpha"))["files"][0]
    path = "/root/dev/+simple/alpha/"
    page = await owner.page("root/dev", "alpha")
    merged = page["files"][1]
    assert {**merged, "url": ""} == {**of_mirror, "url": ""}
    target = urls(page, path)[MIRRORED.filename]
    assert target == urljoin("/root/pypi/+simple/alpha/", of_mirror["url"])
    assert (await owner.get(target)).body == MIRRORED.content
    assert (await owner.get(target + ".metadata")).body == MIRRORED.metadata
    data = (await owner.json("/root/dev/alpha/"))["result"]
    assert sorted(data) == ["1.0", "3.0"]
    assert data["3.0"]["+links"][0]["href"] == f"http://teepi.example{target}"
    await owner.put("root/dev", own)
    [_, found] = (await owner.page("root/dev", "alpha"))["files"]
    assert found["hashes"] == {"sha256": own.sha256}


async def test_page_of_a_mirror_through_a_stage_is_the_mirrors_own(owner: Owner) -> None:
    """Its file URLs, so that everybody shares one cached file; its 304 and its encodings."""
    page = await owner.page("root/pypi", "alpha")
    path = "/root/dev/+simple/alpha/"
    answer = await owner.get(path, PAGE)
    through = json.loads(answer.body)
    assert urls(through, path) == urls(page, "/root/pypi/+simple/alpha/")
    assert (await owner.get(urls(through, path)[MIRRORED.filename])).body == MIRRORED.content
    assert (await owner.get(path, {**PAGE, "If-None-Match": answer.headers["etag"]})).status == 304
    packed = await owner.get(path, {**PAGE, "Accept-Encoding": "gzip"})
    assert packed.headers.get("content-encoding") in {None, "gzip"}
    html = (await owner.get("/root/dev/alpha/", HTML)).body.decode()
    assert 'href="../../../root/pypi/' in html


async def test_first_mirror_that_has_a_project_owns_it(owner: Owner, second: Upstream, upstream: Upstream) -> None:
    """The second is asked when the first says 404, and only then; unknown everywhere is 404."""
    second.project("alpha", {"alpha-9.0-py3-none-any.whl": b"x"})
    second.project("beta", {"beta-1.0-py3-none-any.whl": b"y"})
    assert await owner.names("root/dev", "alpha") == [MIRRORED.filename]
    assert second.count("GET", "/simple/alpha/") == 0
    assert await owner.names("root/dev", "beta") == ["beta-1.0-py3-none-any.whl"]
    assert upstream.count("GET", "/simple/beta/") == 1
    for path in ("/root/dev/+simple/gamma/", "/root/dev/gamma/", "/root/alone/alpha/", "/root/nowhere/alpha/"):
        answer = await owner.get(path, PIP)
        assert answer.status == 404
        assert is_sentence(answer)


@pytest.mark.parametrize("fault", [Status(500), Status(403), EarlyEnd(10)])
async def test_mirror_that_fails_is_503_and_never_the_next(
    owner: Owner, upstream: Upstream, second: Upstream, fault: Fault
) -> None:
    """Or whoever disturbs the first could put the second in its place; what stages have is still served."""
    upstream.script("/simple/alpha/", itertools.repeat(fault))
    second.project("alpha", {"alpha-9.0-py3-none-any.whl": b"x"})
    answer = await owner.get("/root/dev/+simple/alpha/", PAGE)
    assert (answer.status, is_sentence(answer)) == (503, True)
    assert second.count("GET", "/simple/alpha/") == 0
    await owner.put("root/dev", ALPHA)
    assert await owner.names("root/dev", "alpha") == [ALPHA.filename]


# Lists ----------------------------------------------------------------------------------------------

LIST = '{"meta":{"api-version":"1.0"},"projects":[%s]}'


def publish(upstream: Upstream, *names: str) -> None:
    """Let upstream have a project list."""
    entries = ",".join(json.dumps({"name": name}) for name in names)
    upstream.file("/simple/", (LIST % entries).encode(), content_type=PAGE["Accept"])


async def listed(owner: Owner, index: str, below: str = "+simple/") -> list[str]:
    """Return the names in the list of an index."""
    return [project["name"] for project in (await owner.json(f"/{index}/{below}", PAGE))["projects"]]


async def test_list_of_a_stage_has_its_own_names_and_its_bases(
    owner: Owner, upstream: Upstream, second: Upstream
) -> None:
    """New at once after an upload and a deletion; each name once; JSON and HTML, at the index URL too."""
    publish(upstream, "Alpha", "requests")
    publish(second, "zope.event")
    assert await listed(owner, "root/alone") == []
    await owner.put("root/base", wheel("beta"))
    await owner.put("root/dev", ALPHA)
    names = ["alpha", "beta", "requests", "zope.event"]
    for below in ("+simple/", ""):
        assert await listed(owner, "root/dev", below) == names
        html = await owner.get(f"/root/dev/{below}", HTML)
        assert html.headers["content-type"] == "text/html"
        for name in names:
            assert f">{name}</a>" in html.body.decode()
    answer = await owner.get("/root/dev/+simple/", PAGE)
    told = {**PAGE, "If-None-Match": answer.headers["etag"]}
    assert (await owner.get("/root/dev/+simple/", told)).status == 304
    await owner.put("root/dev", wheel("gamma"))
    assert (await owner.get("/root/dev/+simple/", told)).status == 200
    assert await listed(owner, "root/dev") == ["alpha", "beta", "gamma", "requests", "zope.event"]
    await owner.ask("DELETE", "/root/dev/gamma")
    assert (await owner.get("/root/dev/+simple/", told)).status == 304
    assert (await owner.get("/root/dev", HTML)).headers["location"] == "dev/"
    packed = await owner.get("/root/dev/+simple/", {**PAGE, "Accept-Encoding": "gzip"})
    assert gzip.decompress(packed.body) == answer.body


async def test_list_of_a_stage_whose_mirror_fails_is_503(owner: Owner, upstream: Upstream) -> None:
    """A list without the mirror's names would say that they are gone; an index that is none has no list."""
    upstream.script("/simple/", itertools.repeat(Status(500)))
    await owner.put("root/dev", ALPHA)
    answer = await owner.get("/root/dev/+simple/", PAGE)
    assert (answer.status, is_sentence(answer)) == (503, True)
    await owner.put("root/alone", ALPHA)
    assert await listed(owner, "root/alone") == ["alpha"]
    assert (await owner.ask("DELETE", "/root/alone")).status == 201
    assert (await owner.get("/root/alone/+simple/", PAGE)).status == 404
    assert (await owner.get("/root/nowhere/+simple/", PAGE)).status == 404
    await owner.index("root/alone")
    assert await listed(owner, "root/alone") == []


async def test_list_of_a_stage_is_for_those_who_may_read_it(owner: Owner) -> None:
    """As every URL below the index."""
    await owner.put("root/alone", ALPHA)
    await owner.ask("PATCH", "/root/alone", {"bases": [], "acl_read": ["root"]})
    for path in ("/root/alone/+simple/", "/root/alone/", "/root/alone/alpha/", owner.path("root/alone", ALPHA)):
        assert (await owner.get(path, PAGE)).status == 401
        assert (await owner.get(path, {**PAGE, **owner.auth})).status == 200
    answer = await owner.get(owner.path("root/alone", ALPHA), owner.auth)
    assert answer.headers["cache-control"] == "private, max-age=365000000, immutable"
    answer = await owner.get("/root/alone/alpha/", {**PAGE, **owner.auth})
    assert answer.headers["cache-control"] == "private, no-cache"


# Files ----------------------------------------------------------------------------------------------


async def test_file_answers_conditions_and_ranges(owner: Owner) -> None:
    """Contract 18, 22, 24, 26 for what was uploaded: as for a cached file."""
    await owner.put("root/dev", ALPHA)
    path, content, size = owner.path("root/dev", ALPHA), ALPHA.content, len(ALPHA.content)
    whole = await owner.get(path)
    etag = f'"{ALPHA.sha256}"'
    assert whole.body == content
    assert {key: whole.headers[key] for key in ("content-type", "content-length", "etag", "accept-ranges")} == {
        "content-type": "application/octet-stream", "content-length": str(size), "etag": etag, "accept-ranges": "bytes",
    }  # fmt: skip
    assert whole.headers["cache-control"] == "max-age=365000000, immutable, public"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["last-modified"].endswith("GMT")
    assert whole.headers["cache-status"] == "teepi; hit"
    head = await owner.get(path, method="HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(size), b"")
    assert (await owner.get(path, {"If-None-Match": etag})).status == 304
    for wanted, start, stop in (("0-9", 0, 10), ("10-", 10, size), ("-5", size - 5, size), ("0-999999", 0, size)):
        part = await owner.get(path, {"Range": f"bytes={wanted}", "If-Range": etag})
        assert (part.status, part.body) == (206, content[start:stop])
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    assert (await owner.get(path, {"Range": "bytes=0-9", "If-Range": '"other"'})).body == content
    past = await owner.get(path, {"Range": f"bytes={size}-"})
    assert (past.status, past.headers["content-range"]) == (416, f"bytes */{size}")


async def test_file_says_its_facts_as_json(owner: Owner) -> None:
    """As devpi does (releasefilemeta), where the version is spelt as uploaded."""
    await owner.put("root/dev", ALPHA)
    path = owner.path("root/dev", ALPHA)
    found = await owner.json(path)
    assert found["type"] == "releasefilemeta"
    facts = found["result"]
    assert (facts["url"], facts["hash_spec"]) == (f"http://teepi.example{path}", f"sha256={ALPHA.sha256}")
    assert (facts["project"], facts["version"], facts["size"]) == ("alpha", "1.0", len(ALPHA.content))


async def test_file_that_is_not_there_is_404_and_of_another_digest_too(owner: Owner) -> None:
    """A digest in the URL is part of the name; neither is a file of a base one of the stage."""
    await owner.put("root/dev", ALPHA)
    path = owner.path("root/dev", ALPHA)
    for wrong in (path.replace("alpha", "beta"), path.replace(ALPHA.sha256[:3], "000"), path.replace("/dev", "/base")):
        answer = await owner.get(wrong)
        assert (answer.status, is_sentence(answer)) == (404, True)
    assert (await owner.get(path + ".provenance")).status == 404


async def test_file_whose_bytes_are_lost_is_a_sentence(owner: Owner, caplog: pytest.LogCaptureFixture) -> None:
    """No 404, which installers take for "no such file", and no traceback; the same upload brings it back."""
    path = owner.teepi.settings.data_dir / "v1" / "files" / ALPHA.sha256[:2] / ALPHA.sha256
    for damage in ("missing", "cut", "directory"):
        await owner.put("root/dev", ALPHA)
        assert (await owner.get(owner.path("root/dev", ALPHA))).body == ALPHA.content
        path.unlink()
        if damage == "cut":
            path.write_bytes(ALPHA.content[:-1])
        elif damage == "directory":
            path.mkdir()
        answer = await owner.get(owner.path("root/dev", ALPHA))
        assert answer.status in {500, 503}
        assert is_sentence(answer)
    assert "Traceback" not in caplog.text


# devpi's and the legacy JSON ------------------------------------------------------------------------


async def test_versions_as_json_of_stage_mirror_and_stage_over_mirror(owner: Owner) -> None:
    """As projectconfig and versiondata; what a base stage has of a version is shadowed; ignore_bases leaves all out."""
    shadowed = wheel("alpha", summary="Shadowed")
    through = await owner.json("/root/dev/alpha/")
    assert list(through["result"]) == ["3.0"]
    [link] = through["result"]["3.0"]["+links"]
    assert link["hashes"] == {"sha256": MIRRORED.sha256}
    assert (await owner.get(link["href"].removeprefix("http://teepi.example"))).body == MIRRORED.content
    assert through == await owner.json("/root/pypi/alpha")
    await owner.put("root/base", shadowed, NEWER)
    await owner.put("root/dev", ALPHA)
    found = await owner.json("/root/dev/alpha")
    assert found["type"] == "projectconfig"
    assert sorted(found["result"]) == ["1.0", "2.0"]
    data = found["result"]["1.0"]
    assert (data["name"], data["version"], data["summary"], data["author"], data["classifiers"]) == (
        "alpha", "1.0", "A thing", "", [],
    )  # fmt: skip
    [link] = data["+links"]
    assert link["href"] == f"http://teepi.example{owner.path('root/dev', ALPHA)}"
    assert link["rel"] == "releasefile"
    assert link["hash_spec"] == f"sha256={ALPHA.sha256}"
    [below] = data["+shadowing"]
    assert (below["summary"], "+shadowing" in below) == ("Shadowed", False)
    alone = await owner.json("/root/dev/alpha/?ignore_bases=")
    assert list(alone["result"]) == ["1.0"]
    assert "+shadowing" not in alone["result"]["1.0"]
    one = await owner.json("/root/dev/alpha/1.0.0")
    assert (one["type"], one["result"]) == ("versiondata", data)


async def test_reading_a_page_or_a_version_does_not_read_other_versions(owner: Owner) -> None:
    """However many there are: metadata of another that no JSON is harms only the JSON of all."""
    await owner.put("root/base", ALPHA)
    await owner.put("root/dev", ALPHA, NEWER)
    before = [await owner.json(path) for path in ("/root/dev/alpha/1.0", "/root/dev/alpha/1.0/json")]

    def damage() -> None:
        [path] = owner.teepi.settings.data_dir.rglob("teepi.sqlite3")
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE versions SET fields = 'x' WHERE version = '2.0'")

    await asyncio.to_thread(damage)
    assert [await owner.json(path) for path in ("/root/dev/alpha/1.0", "/root/dev/alpha/1.0/json")] == before
    assert before[0]["result"]["+shadowing"]
    assert await owner.names("root/dev", "alpha") == [ALPHA.filename, NEWER.filename]
    assert (await owner.get("/root/dev/alpha/9.9", JSON)).status == 404
    assert (await owner.get("/root/dev/alpha/2.0", JSON)).status == 500


async def test_version_of_a_mirror_through_a_stage_is_there_only_where_it_is_on_the_page(owner: Owner) -> None:
    """A project of a stage hides it unless the whitelist has the project; one's own version goes before it."""
    through = (await owner.json("/root/dev/alpha/3.0"))["result"]
    assert through["+links"][0]["hashes"] == {"sha256": MIRRORED.sha256}
    await owner.put("root/base", ALPHA)
    assert (await owner.get("/root/dev/alpha/3.0", JSON)).status == 404
    assert (await owner.get("/root/dev/alpha/3.0?ignore_bases=", JSON)).status == 404
    for index in ("root/dev", "root/base"):
        await owner.ask("PATCH", f"/{index}", {"mirror_whitelist": ["alpha"]})
    assert (await owner.json("/root/dev/alpha/3.0.0"))["result"] == through
    own = wheel("alpha", "3.0", summary="Own")
    await owner.put("root/base", own)
    found = (await owner.json("/root/dev/alpha/3.0"))["result"]
    assert (found["summary"], len(found["+links"])) == ("Own", 1)


async def test_page_that_was_made_before_is_made_anew_when_anything_it_hangs_on_changes(
    owner: Owner, upstream: Upstream
) -> None:
    """A base that comes or goes, and a mirror that may add and has the project since."""
    await owner.put("root/base", NEWER)
    await owner.put("root/dev", ALPHA, wheel("beta"))
    for bases, names in (
        (["root/base"], [ALPHA.filename, NEWER.filename]),
        ([], [ALPHA.filename]),
        (["root/base"], [ALPHA.filename, NEWER.filename]),
    ):
        await owner.ask("PATCH", "/root/dev", {"bases": bases})
        for _ in range(2):
            assert await owner.names("root/dev", "alpha") == names
    await owner.ask("PATCH", "/root/dev", {"bases": ["root/pypi"], "mirror_whitelist": ["beta"]})
    assert await owner.names("root/dev", "beta") == [wheel("beta").filename]
    newer = wheel("beta", "2.0")
    upstream.project("beta", {newer.filename: newer.content})
    assert (await owner.ask("POST", "/root/pypi/+simple/beta/refresh")).status == 302
    assert await owner.names("root/dev", "beta") == [wheel("beta").filename, newer.filename]


async def test_versions_that_are_not_there_are_404_with_devpis_words(owner: Owner) -> None:
    """devpi-builder looks for the status, its users read the message."""
    await owner.put("root/dev", ALPHA)
    for path, message in (
        ("/root/dev/nope", "no project 'nope'"),
        ("/root/dev/nope/1.0", "no project 'nope'"),
        ("/root/pypi/nope", "no project 'nope'"),
        ("/root/dev/alpha/9.9", "The version 9.9 of project alpha does not exist."),
        ("/root/base/alpha/?ignore_bases=", "no project 'alpha'"),
        ("/root/nowhere/alpha", None),
    ):
        answer = await owner.get(path, JSON)
        assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
        if message is not None:
            assert json.loads(answer.body) == {"message": message}


async def test_legacy_json_of_stages_and_mirrors_below_them(owner: Owner) -> None:
    """What pip-tools and others ask beside an index: releases with digests, one version, absolute links."""
    await owner.put("root/alone", ALPHA, NEWER)
    for path in ("/root/alone/alpha/json", "/root/alone/+simple/alpha/json", "/root/alone/pypi/alpha/json"):
        found = await owner.json(path)
        assert sorted(found["releases"]) == ["1.0", "2.0"]
        [file] = found["releases"]["1.0"]
        assert unquote(file["url"]) == f"http://teepi.example{owner.path('root/alone', ALPHA)}"
        assert file["digests"]["sha256"] == ALPHA.sha256
        assert found["info"]["version"] == "2.0"
    for path in ("/root/alone/alpha/1.0/json", "/root/alone/pypi/alpha/1.0.0/json"):
        found = await owner.json(path)
        assert (found["info"]["version"], found["info"]["summary"]) == ("1.0", "A thing")
    assert (await owner.get("/root/alone/alpha/9.9/json")).status == 404
    assert (await owner.get("/root/alone/nope/json")).status == 404
    through = await owner.json("/root/dev/alpha/json")
    assert list(through["releases"]) == ["3.0"]
