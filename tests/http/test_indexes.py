"""Indexes that clients make: creating, changing, deleting and showing them, mirrors, and who may read them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest

from teepi.errors import ConfigError
from teepi.index_settings import IndexSettings
from tests.http.devpi import Devpi, basic, fresh
from tests.http.named import give_names, named
from tests.http.scene import until
from tests.support.clients import fetch
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from tests.conftest import MakeTeepi
    from tests.support.upstream import Upstream

STAGE = {
    "type": "stage", "volatile": True, "bases": [], "acl_upload": ["ann"], "acl_toxresult_upload": [":ANONYMOUS:"],
    "mirror_whitelist": [], "mirror_whitelist_inheritance": "intersection",
}  # fmt: skip
WHEEL = "demo-1.0-py3-none-any.whl"
LIST_TYPE = "application/vnd.pypi.simple.v1+json"


async def people(make_teepi: MakeTeepi, **settings: Any) -> tuple[Devpi, Devpi, Devpi, Devpi]:
    """Start a fresh teepi; return the sessions of nobody, root, and the users ann and bob."""
    nobody, root = await fresh(make_teepi, **settings)
    return nobody, root, await nobody.user("ann"), await nobody.user("bob")


def paths_of(page: dict[str, Any], at: str) -> list[str]:
    """Return where the links of a page (JSON) at ``at`` lead."""
    return [urljoin(at, file["url"]) for file in page["files"]]


async def page_of(session: Devpi, index: str, project: str = "demo") -> tuple[int, list[str]]:
    """Return the status of an installer's page, and where its links lead."""
    path = f"/{index}/+simple/{project}/"
    answer = await session.fetch(path, {"Accept": LIST_TYPE})
    return answer.status, paths_of(json.loads(answer.body), path) if answer.status == 200 else []


# --- making, changing, deleting


async def test_index_is_made_with_devpis_defaults_and_shown(make_teepi: MakeTeepi) -> None:
    """200 with exactly seven keys; with its projects, or without when the query says so."""
    nobody, _, ann, _ = await people(make_teepi)
    reply = await ann.call("PUT", "/ann/dev", {})
    assert (reply.status, reply.json) == (200, {"type": "indexconfig", "result": STAGE})
    for path in ("/ann/dev", "/ann/dev/"):
        assert (await nobody.call("GET", path)).json == {"type": "indexconfig", "result": {**STAGE, "projects": []}}
    for query in ("?no_projects=", "?no_projects", "?no_projects=1"):
        assert await nobody.get(f"/ann/dev{query}") == STAGE
    assert (await nobody.get("/ann"))["indexes"] == {"dev": STAGE}
    assert (await nobody.get("/"))["ann"]["indexes"] == {"dev": STAGE}
    await ann.put("/ann/slash/", {"bases": "/ann/dev,root/pypi", "volatile": "False", "acl_upload": "ann,:anonymous:"})
    assert await nobody.get("/ann/slash?no_projects=") == {
        **STAGE, "bases": ["ann/dev", "root/pypi"], "volatile": False, "acl_upload": ["ann", ":ANONYMOUS:"],
    }  # fmt: skip


async def test_index_that_cannot_be_made_is_refused_in_devpis_words(make_teepi: MakeTeepi) -> None:
    """The reason phrase stays as it is: clients show both."""
    nobody, _, ann, bob = await people(make_teepi)
    await ann.put("/ann/dev")
    for who, path, body, status, words in (
        (ann, "/ann/dev", {}, 409, "index 'ann/dev' exists"),
        (bob, "/ann/new", {}, 403, "no permission to create index ann/new"),
        (nobody, "/ann/new", {}, 403, "no permission to create index ann/new; nobody is logged in"),
        (ann, "/nope/new", {}, 404, "no user 'nope'"),
        (ann, "/ann/new", {"bases": "no/pe"}, 400, "base index 'no/pe' does not exist"),
        (ann, "/ann/new", {"bases": "pe"}, 400, "invalid base index spec: 'pe'"),
        (ann, "/ann/new", {"bases": "ann/new"}, 400, "base index 'ann/new' does not exist"),
        (ann, "/ann/new", {"foo": 1}, 400, "indexconfig got unexpected keyword arguments: foo=1"),
        (ann, "/ann/new", [], 400, "The body of this request is one JSON object."),
        (ann, "/ann/new", b"{", 400, "Bad request: could not decode json"),
        (ann, "/ann/json", {}, 400, "'json' is reserved for a path of teepi's own; choose another name for an index."),
    ):
        reply = await who.call("PUT", path, body)
        assert (reply.status, reply.message, reply.reason) == (status, words, HTTPStatus(status).phrase)
    assert list((await nobody.get("/ann"))["indexes"]) == ["dev"]


async def test_index_is_changed_in_each_form_that_clients_send(make_teepi: MakeTeepi) -> None:
    """A list of steps, settings, and the whole that GET has answered, around in the envelope or not."""
    nobody, root, ann, _ = await people(make_teepi)
    await ann.put("/ann/dev")
    changed = await ann.patch("/ann/dev", ["acl_upload=ann,:anonymous:", "title=hello", "bases+=root/pypi"])
    assert changed == {**STAGE, "acl_upload": ["ann", ":ANONYMOUS:"], "title": "hello", "bases": ["root/pypi"]}
    assert await nobody.get("/ann/dev?no_projects=") == changed
    assert await ann.patch("/ann/dev/", ["title-=", "bases-=root/pypi", "acl_upload-="]) == STAGE
    assert await ann.patch("/ann/dev", {"volatile": "no", "title": "x"}) == {**STAGE, "volatile": False, "title": "x"}
    for whole in (await nobody.get("/ann/dev"), (await nobody.call("GET", "/ann/dev")).json):
        assert await ann.patch("/ann/dev", whole) == {**STAGE, "volatile": False, "title": "x"}
    assert (await root.patch("/ann/dev", {"title": "root's"}))["title"] == "root's"


async def test_change_that_cannot_be_is_refused_and_changes_nothing(make_teepi: MakeTeepi) -> None:
    """Of several steps all or none; the type stays in every form."""
    nobody, _, ann, bob = await people(make_teepi)
    await ann.put("/ann/dev")
    await ann.put("/ann/above", {"bases": "ann/dev"})
    for who, path, body, status, words in (
        (bob, "/ann/dev", ["title=x"], 403, "no permission to modify index ann/dev"),
        (nobody, "/ann/dev", ["title=x"], 403, "no permission to modify index ann/dev; nobody is logged in"),
        (ann, "/ann/nope", ["title=x"], 404, "The stage ann/nope could not be found."),
        (ann, "/ann/dev", ["title=x", "foo=1"], 400, "indexconfig got unexpected keyword arguments: foo=1"),
        (ann, "/ann/dev", ["bases=no/pe"], 400, "base index 'no/pe' does not exist"),
        (ann, "/ann/dev", ["bases=ann/above"], 400,
         "base index 'ann/above' leads back to ann/dev; bases cannot go in a circle"),
        (ann, "/ann/dev", ["type=mirror"], 400,
         "The index ann/dev is a stage and stays one: 'type' cannot be changed."),
        (ann, "/ann/dev", {"type": "mirror"}, 400,
         "The index ann/dev is a stage and stays one: 'type' cannot be changed."),
        (ann, "/ann/dev", {"type": "indexconfig", "result": {"type": "mirror"}}, 400,
         "The index ann/dev is a stage and stays one: 'type' cannot be changed."),
        (ann, "/ann/dev", "x", 400, "Changes of an index are an object of settings, or a list of key=value."),
        (ann, "/ann/dev", b"[", 400, "Bad request: could not decode json"),
    ):  # fmt: skip
        reply = await who.call("PATCH", path, body)
        assert (reply.status, reply.message, reply.reason) == (status, words, HTTPStatus(status).phrase)
    assert await nobody.get("/ann/dev?no_projects=") == STAGE


async def test_change_that_changes_nothing_is_an_error_only_when_asked_for(make_teepi: MakeTeepi) -> None:
    """``?error_on_noop``, with a value or without."""
    _, _, ann, _ = await people(make_teepi)
    await ann.put("/ann/dev")
    for query in ("?error_on_noop", "?error_on_noop=1"):
        for body in ([], ["volatile=True"], {"bases": ""}):
            reply = await ann.call("PATCH", f"/ann/dev{query}", body)
            assert (reply.status, reply.message) == (400, "The requested modifications resulted in no changes")
    assert await ann.patch("/ann/dev", []) == STAGE
    assert (await ann.patch("/ann/dev?error_on_noop=", ["title=x"]))["title"] == "x"


async def test_volatile_index_is_deleted_with_201_and_all_that_is_in_it(make_teepi: MakeTeepi) -> None:
    """Others are kept; an index of the same name later is empty."""
    nobody, root, ann, bob = await people(make_teepi)
    await ann.put("/ann/dev")
    await ann.put("/ann/kept", {"volatile": False})
    assert (await ann.upload("ann/dev", wheel("demo"), "demo")).status == 200
    _, [file] = await page_of(nobody, "ann/dev")
    for who, index, status, words in (
        (bob, "ann/dev", 403, "no permission to delete index ann/dev"),
        (nobody, "ann/dev", 403, "no permission to delete index ann/dev; nobody is logged in"),
        (ann, "ann/kept", 403, "index ann/kept non-volatile, cannot delete"),
        (ann, "ann/nope", 404, "The stage ann/nope could not be found."),
        (root, "root/pypi", 403, "index root/pypi non-volatile, cannot delete"),
    ):
        reply = await who.call("DELETE", f"/{index}")
        assert (reply.status, reply.message, reply.reason) == (status, words, HTTPStatus(status).phrase)
    reply = await ann.call("DELETE", "/ann/dev")
    assert (reply.status, reply.json) == (201, {"message": "index ann/dev deleted"})
    assert [(await nobody.fetch(path)).status for path in (file, "/ann/dev/+simple/demo/")] == [404, 404]
    assert (await nobody.call("GET", "/ann/dev")).message == "The stage ann/dev could not be found."
    await ann.put("/ann/dev/")
    assert (await nobody.get("/ann/dev"))["projects"] == []
    assert (await root.call("DELETE", "/ann/dev/")).status == 201


async def test_index_of_the_settings_is_409_to_change(make_teepi: MakeTeepi, upstream: Upstream) -> None:
    """Named root/pypi or otherwise; a reload gives and takes them, and what clients made stays."""
    nobody, root, ann, _ = await people(make_teepi, has_built_in=False)
    for method, body in (("PATCH", ["title=x"]), ("DELETE", None)):
        reply = await root.call(method, "/root/pypi", body)
        words = "root/pypi is in the configuration file of this teepi: change it there."
        assert (reply.status, reply.message) == (409, words)
    assert (await root.call("PUT", "/root/pypi", {})).status == 409
    assert (await root.get("/root/pypi?no_projects="))["mirror_url"] == upstream.index_url
    server, settings = nobody.teepi.server, nobody.teepi.settings
    indexes = {**settings.indexes, "ann/set": IndexSettings(bases=("root/pypi",))}
    assert server.reload(replace(settings, indexes=indexes)) == []
    assert (await ann.call("PATCH", "/ann/set", ["title=x"])).status == 409
    assert (await nobody.get("/ann/set?no_projects="))["type"] == "mirror"
    assert server.reload(settings) == []
    assert (await ann.put("/ann/set", {"title": "x"}))["title"] == "x"


async def test_settings_that_would_hide_a_private_index_are_refused(make_teepi: MakeTeepi) -> None:
    """At a reload and at a start: else public files would take the place of private ones, without a word."""
    nobody, _, ann, _ = await people(make_teepi, has_built_in=False)
    await ann.put("/ann/dev", {"title": "made"})
    teepi = nobody.teepi
    indexes = {**teepi.settings.indexes, "ann/dev": IndexSettings(bases=("root/pypi",))}
    with pytest.raises(ConfigError, match="a private index of that name"):
        teepi.server.reload(replace(teepi.settings, indexes=indexes))
    assert (await nobody.get("/ann/dev?no_projects="))["title"] == "made"
    with pytest.raises(ConfigError, match="a private index of that name"):
        await teepi.restarted(indexes=indexes)


async def test_index_whose_base_is_gone_shows_nothing_of_the_bases_behind(make_teepi: MakeTeepi) -> None:
    """The base may have had the name: what is its own it shows, all else is 503, and its title can be changed."""
    nobody, _, ann, _ = await people(make_teepi, has_built_in=False)
    await ann.put("/ann/lib")
    await ann.put("/ann/app", {"bases": "ann/lib,root/pypi"})
    await ann.upload("ann/app", wheel("own"), "own")
    assert (await ann.call("DELETE", "/ann/lib")).status == 201
    answer = await nobody.fetch("/ann/app/+simple/demo/")
    assert (answer.status, b"made of ann/lib, which is no more" in answer.body) == (503, True)
    assert (await page_of(nobody, "ann/app", "own"))[0] == 200
    assert (await ann.patch("/ann/app", ["title=x"]))["bases"] == ["ann/lib", "root/pypi"]
    assert (await ann.call("PATCH", "/ann/app", ["bases=ann/lib,no/pe"])).status == 400
    await ann.patch("/ann/app", ["bases-=ann/lib"])
    assert (await page_of(nobody, "ann/app"))[0] == 404


async def test_refresh_is_for_those_who_may_read_and_of_that_index_alone(
    make_teepi: MakeTeepi, second: Upstream
) -> None:
    """401, 404 and 302 with one question more upstream."""
    second.project("demo", {WHEEL: b"x"})
    nobody, root, *_ = await people(make_teepi)
    for name in ("one", "two"):
        await root.put(f"/root/{name}", {"type": "mirror", "mirror_url": second.index_url})
        await page_of(root, f"root/{name}")
    await root.put("/root/over", {"bases": "root/one"})
    await root.patch("/root/one", ["acl_read=root"])
    assert (await nobody.call("POST", "/root/one/+simple/demo/refresh")).status == 401
    assert (await nobody.call("POST", "/root/nope/+simple/demo/refresh")).status == 404
    second.requests.clear()
    assert (await fetch(root.teepi.address, "/root/over/+simple/demo/refresh", root.headers, "POST")).status == 302
    for name in ("one", "two"):
        await page_of(root, f"root/{name}")
    assert second.count("GET", "/simple/demo/") == 1


async def test_projects_of_an_index_are_what_was_uploaded_or_is_cached(
    make_teepi: MakeTeepi, upstream: Upstream
) -> None:
    """Sorted, of itself alone; a mirror's whole list would be its upstream's."""
    upstream.project("cached", {"cached-1.0.tar.gz": b"x"})
    upstream.project("seen", {"seen-1.0.tar.gz": b"x"})
    nobody, _, ann, _ = await people(make_teepi, has_built_in=False)
    await ann.put("/ann/dev", {"bases": "root/pypi"})
    for name in ("zeta", "alpha"):
        assert (await ann.upload("ann/dev", wheel(name), name)).status == 200
    for name in ("cached", "seen"):
        _, [file] = await page_of(nobody, "ann/dev", name)
        if name == "cached":
            assert (await nobody.fetch(file)).status == 200
    assert (await nobody.get("/ann/dev"))["projects"] == ["alpha", "zeta"]
    async with asyncio.timeout(5):
        while not (found := (await nobody.get("/root/pypi"))["projects"]):  # noqa: ASYNC110 - the row follows the file
            await asyncio.sleep(0)
    assert found == ["cached"]


# --- at the same time


async def test_of_two_who_make_the_same_index_at_once_one_gets_409(make_teepi: MakeTeepi) -> None:
    """And the index is the other's."""
    nobody, root, ann, _ = await people(make_teepi)
    replies = await asyncio.gather(
        *(who.call("PUT", "/ann/dev", {"title": str(at)}) for at, who in enumerate((root, ann)))
    )
    assert sorted(reply.status for reply in replies) == [200, 409]
    assert (await nobody.get("/ann/dev"))["title"] == str([reply.status for reply in replies].index(200))


async def test_changes_of_one_index_at_once_all_hold(make_teepi: MakeTeepi) -> None:
    """None is computed from what was before another."""
    _, _, ann, _ = await people(make_teepi)
    await ann.put("/ann/dev")
    names = [f"user{number}" for number in range(8)]
    await asyncio.gather(*(ann.patch("/ann/dev", [f"acl_upload+={name}"]) for name in names))
    assert sorted((await ann.get("/ann/dev"))["acl_upload"]) == ["ann", *names]


async def test_bases_that_are_set_at_once_make_no_circle(make_teepi: MakeTeepi) -> None:
    """The second is refused."""
    _, _, ann, _ = await people(make_teepi)
    await ann.put("/ann/a")
    await ann.put("/ann/b")
    changes = (("/ann/a", "bases=ann/b"), ("/ann/b", "bases=ann/a"))
    replies = await asyncio.gather(*(ann.call("PATCH", path, [step]) for path, step in changes))
    assert sorted(reply.status for reply in replies) == [200, 400]


# --- the built-in mirror


async def test_built_in_index_shows_what_a_fresh_devpis_does(make_teepi: MakeTeepi, upstream: Upstream) -> None:
    """Exactly five keys."""
    nobody, _ = await fresh(make_teepi)
    assert await nobody.get("/root/pypi?no_projects=") == {
        "type": "mirror", "volatile": False, "title": "PyPI", "mirror_url": upstream.index_url,
        "mirror_web_url_fmt": f"{upstream.url}/project/{{name}}/",
    }  # fmt: skip


async def test_root_points_the_built_in_index_elsewhere(
    make_teepi: MakeTeepi, upstream: Upstream, second: Upstream
) -> None:
    """At once and over a restart: neither pages, absences, lists nor files of the former upstream are its own."""
    old = upstream.project("demo", {WHEEL: b"old", "demo-0.9.tar.gz": b"older"})
    second.project("demo", {WHEEL: b"new"})
    second.project("other", {})
    for server, name in ((upstream, "of-old"), (second, "of-new")):
        body = json.dumps({"meta": {"api-version": "1.0"}, "projects": [{"name": name}]}).encode()
        server.file("/simple/", body, content_type=LIST_TYPE)
    nobody, root = await fresh(make_teepi)
    _, links = await page_of(nobody, "root/pypi")
    for link in (*links, old.path(WHEEL)):
        assert (await nobody.fetch(link)).status == 200
    assert (await page_of(nobody, "root/pypi", "other"))[0] == 404
    assert b"of-old" in (await nobody.fetch("/simple/")).body
    assert (await root.patch("/root/pypi", [f"mirror_url={second.index_url}"]))["mirror_url"] == second.index_url
    asked = len(upstream.requests)

    async def is_the_new_one(session: Devpi) -> None:
        _, [link] = await page_of(session, "root/pypi")
        assert (await session.fetch(link)).body == b"new"
        assert [(await session.fetch(former)).status for former in links] == [404, 404]
        assert (await page_of(session, "root/pypi", "other"))[0] == 200
        assert b"of-new" in (await session.fetch("/simple/")).body
        assert len(upstream.requests) == asked

    await is_the_new_one(nobody)
    again = await nobody.teepi.restarted()
    try:
        assert (await Devpi(again).get("/root/pypi?no_projects="))["mirror_url"] == second.index_url
        await is_the_new_one(Devpi(again))
    finally:
        await again.stop()


async def test_page_that_was_on_its_way_from_the_former_upstream_is_not_shown(
    make_teepi: MakeTeepi, upstream: Upstream, second: Upstream
) -> None:
    """Whoever waits for it gets the new one's."""
    upstream.project("demo", {WHEEL: b"old"})
    second.project("demo", {"demo-2.0.tar.gz": b"new"})
    nobody, root = await fresh(make_teepi)
    gate = upstream.gate("/simple/demo/")
    waiting = asyncio.create_task(page_of(nobody, "root/pypi"))
    await gate.reached.wait()
    await root.patch("/root/pypi", {"mirror_url": second.index_url})
    gate.open()
    status, [link] = await waiting
    assert (status, link.rpartition("/")[2]) == (200, "demo-2.0.tar.gz")


# --- mirrors


async def test_mirror_serves_pages_and_files_of_its_upstream(
    make_teepi: MakeTeepi, upstream: Upstream, second: Upstream
) -> None:
    """As often fresh as it is told to, alone and as a base; it takes no uploads and goes when it is deleted."""
    second.project("demo", {WHEEL: b"second"})
    nobody, root, ann, _ = await people(make_teepi)
    made = await root.put("/root/two", {"type": "mirror", "mirror_url": second.index_url.rstrip("/"),
                                        "mirror_cache_expiry": "1800"})  # fmt: skip
    shown = {
        "type": "mirror",
        "volatile": True,
        "mirror_url": second.index_url.rstrip("/"),
        "mirror_cache_expiry": 1800,
    }
    assert made == shown
    assert await nobody.get("/root/two?no_projects=") == shown
    await ann.put("/ann/dev", {"bases": "root/two"})
    for index in ("root/two", "ann/dev", "root/two", "ann/dev"):
        status, [link] = await page_of(nobody, index)
        assert (status, link.startswith("/root/two/")) == (200, True)
        assert (await nobody.fetch(link)).body == b"second"
    _, [link] = await page_of(nobody, "ann/dev")
    assert second.count("GET", "/simple/demo/") == 1
    await root.patch("/root/two", ["mirror_cache_expiry=0"])
    await page_of(nobody, "root/two")
    await page_of(nobody, "root/two")
    assert second.count("GET", "/simple/demo/") == 3
    assert upstream.requests == []
    assert (await root.upload("root/two", wheel("x"), "x")).status == 404
    assert (await root.call("DELETE", "/root/two")).status == 201
    assert [(await page_of(nobody, index))[0] for index in ("root/two", "ann/dev")] == [404, 503]
    assert (await nobody.fetch(link)).status == 404


async def test_mirror_of_a_name_that_was_another_before_shows_nothing_of_that(
    make_teepi: MakeTeepi, upstream: Upstream, second: Upstream
) -> None:
    """Also not while the new upstream is away, and offline."""
    upstream.project("demo", {WHEEL: b"old"})
    nobody, root = await fresh(make_teepi)
    await root.put("/root/m", {"type": "mirror", "mirror_url": upstream.index_url})
    _, [link] = await page_of(nobody, "root/m")
    assert (await nobody.fetch(link)).status == 200
    assert (await root.call("DELETE", "/root/m")).status == 201
    await root.put("/root/m", {"type": "mirror", "mirror_url": second.index_url})
    await second.stop()
    assert (await page_of(nobody, "root/m"))[0] == 503
    assert (await nobody.fetch(link)).status == 503
    nobody.teepi.server.reload(replace(nobody.teepi.settings, offline=True))
    assert (await page_of(nobody, "root/m"))[0] == 503
    assert (await nobody.fetch(link)).status == 503


async def test_mirror_of_a_user_does_not_lead_to_private_addresses(
    make_teepi: MakeTeepi, second: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number or name, and when it is changed to one; root's does, who configures, or anybody's who may be root."""
    give_names(monkeypatch)
    second.project("demo", {WHEEL: b"x"})
    nobody, root, ann, _ = await people(make_teepi)
    await ann.put("/ann/m", {"type": "mirror", "mirror_url": second.index_url})
    assert (await page_of(nobody, "ann/m"))[0] == 200
    second.requests.clear()
    await root.call("PATCH", "/root", {"password": "pw"})
    root = nobody.using("root", "pw")
    for number, url in enumerate((second.index_url, f"{named('other.example', second)}/simple/")):
        await ann.put(f"/ann/m{number}", {"type": "mirror", "mirror_url": url})
        answer = await nobody.fetch(f"/ann/m{number}/+simple/demo/")
        assert (answer.status, b"private address" in answer.body) == (503, True)
    await ann.put("/ann/later", {"type": "mirror", "mirror_url": "https://index.example/"})
    await root.patch("/ann/later", {"mirror_url": second.index_url})  # it is still ann's
    assert (await page_of(nobody, "ann/later"))[0] == 503
    assert second.requests == []
    await root.put("/root/m", {"type": "mirror", "mirror_url": second.index_url})
    assert (await page_of(nobody, "root/m"))[0] == 200


async def test_mirror_under_a_name_with_an_at_sign_is_kept_on_disk(make_teepi: MakeTeepi, second: Upstream) -> None:
    """Its page outlives a restart without its upstream."""
    second.project("demo", {WHEEL: b"x"})
    nobody, root = await fresh(make_teepi)
    await root.put("/root/m@home", {"type": "mirror", "mirror_url": second.index_url})
    assert (await page_of(nobody, "root/m@home"))[0] == 200
    assert (await nobody.fetch("/root/m@home/+simple/")).status == 200
    await second.stop()
    again = await nobody.teepi.restarted()
    try:
        assert (await page_of(Devpi(again), "root/m@home"))[0] == 200
    finally:
        await again.stop()


async def test_password_of_a_mirror_is_sent_to_its_upstream_and_shown_to_nobody(
    make_teepi: MakeTeepi, second: Upstream
) -> None:
    """Also after a client has sent back what it was shown."""
    second.project("demo", {})
    nobody, root = await fresh(make_teepi)
    url = second.index_url.replace("://", "://ann:secret@")
    made = await root.put("/root/m", {"type": "mirror", "mirror_url": url})
    await root.patch("/root/m", {**made, "title": "x"})
    for path in ("/root/m", "/root", "/"):
        assert "secret" not in json.dumps(await root.get(path))
    assert (await page_of(nobody, "root/m"))[0] == 200
    assert second.seen("/simple/demo/")[0].headers["authorization"] == f"Basic {basic('ann', 'secret')}"


# --- who may read


async def protected(make_teepi: MakeTeepi, **settings: Any) -> tuple[Devpi, Devpi, Devpi, Devpi, list[str]]:
    """Let ann have an index that only she reads, one above it, and a mirror; return the URLs that are about them."""
    nobody, root, ann, bob = await people(make_teepi, has_built_in=False, **settings)
    await ann.put("/ann/secret", {"acl_read": "ann"})
    await bob.put("/bob/above", {"bases": "ann/secret,root/pypi"})
    assert (await ann.upload("ann/secret", wheel("demo"), "demo")).status == 200
    _, [file] = await page_of(ann, "ann/secret")
    paths = [
        f"/{index}{path}"
        for index in ("ann/secret", "bob/above")
        for path in ("/+simple/demo/", "/+simple/", "/demo/", "/", "/demo/json", "/+simple/demo", "/+api")
    ]
    return nobody, root, ann, bob, [*paths, file, f"{file}.metadata"]


async def test_protected_index_and_what_is_above_it_are_for_those_who_may_read_it(
    make_teepi: MakeTeepi, upstream: Upstream
) -> None:
    """Pages, lists, files and documents: 401 to nobody, 403 to others; who may is told to keep it to himself."""
    upstream.file("/simple/", b'{"meta":{"api-version":"1.0"},"projects":[]}', content_type=LIST_TYPE)
    nobody, root, ann, bob, paths = await protected(make_teepi)
    for path in paths:
        refused = await nobody.fetch(path)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Basic realm="pypi"'), path
        assert "location" not in refused.headers
        assert (await bob.fetch(path)).status == 403, path
        for who in (ann, root):
            answer = await who.fetch(path)
            assert answer.status not in {401, 403}, path
            assert {"private", "no-store"} & set(answer.headers["cache-control"].replace(",", "").split()), path
            assert "public" not in answer.headers["cache-control"]


async def test_protected_index_is_not_in_what_devpis_clients_list(make_teepi: MakeTeepi) -> None:
    """Users, all of them, and its own JSON; owner and root see it."""
    nobody, root, ann, bob, _ = await protected(make_teepi)
    for who, status in ((nobody, 401), (bob, 403), (ann, 200), (root, 200)):
        may = status == 200
        assert ("secret" in (await who.get("/ann"))["indexes"]) is may
        assert ("secret" in (await who.get("/"))["ann"]["indexes"]) is may
        assert ("above" in (await who.get("/"))["bob"]["indexes"]) is may
        for path in ("/ann/secret", "/ann/secret?no_projects=", "/ann/secret/+api", "/ann/secret/demo",
                     "/ann/secret/demo/1.0", "/bob/above/demo/1.0", "/bob/above"):  # fmt: skip
            assert (await who.call("GET", path)).status == status, path
    for who in (nobody, bob):
        assert b"secret" not in (await who.fetch("/no/where/+simple/demo/")).body
        push = {"name": "demo", "version": "1.0", "targetindex": "bob/above"}
        assert (await who.call("POST", "/ann/secret", push)).status == (403 if who is bob else 401)


async def test_protected_index_is_searched_by_those_who_may_read_it(make_teepi: MakeTeepi) -> None:
    """Of everything it is left out; asked for by name it is refused."""
    nobody, _, ann, bob, _ = await protected(make_teepi)
    for who, status in ((nobody, 401), (bob, 403), (ann, 200)):
        assert (await who.fetch("/+search?q=demo&index=ann/secret")).status == status
        found = json.loads((await who.fetch("/+search?q=demo")).body)["results"]
        assert [hit["index"] for hit in found] == (["ann/secret"] if status == 200 else [])


async def test_protected_mirror_is_never_answered_by_the_hot_path(make_teepi: MakeTeepi, upstream: Upstream) -> None:
    """Not when it was open before, and not after somebody who may has asked."""
    upstream.project("demo", {WHEEL: b"x"})
    nobody, root = await fresh(make_teepi)
    _, [file] = await page_of(nobody, "root/pypi")
    for _ in range(3):
        assert (await page_of(nobody, "root/pypi"))[0] == 200
        assert (await nobody.fetch(file)).status == 200
    await root.patch("/root/pypi", {"acl_read": "root"})
    for path in ("/simple/", "/root/pypi/+simple/", "/root/pypi/"):
        assert (await nobody.fetch(path)).status == 401
        assert (await root.fetch(path)).headers["cache-control"] == "private, no-cache"
    before = nobody.teepi.server.metrics.hot_answers
    paths = ("/root/pypi/+simple/demo/", "/simple/demo/", file, "/pypi/demo/json", f"/packages/demo/{WHEEL}")
    for path in paths:
        for _ in range(3):
            assert (await root.fetch(path)).status == 200
            assert (await root.fetch(path, {"Authorization": f"Basic {basic('root', '')}"})).status == 200
        assert (await nobody.fetch(path)).status == 401, path
    assert nobody.teepi.server.metrics.hot_answers == before
    await root.patch("/root/pypi", ["acl_read-="])
    assert (await nobody.fetch("/simple/demo/")).headers["cache-control"] == "no-cache"


async def test_protected_mirror_is_not_named_to_those_who_look_for_another(make_teepi: MakeTeepi) -> None:
    """The sentence about an unknown index names those of the settings alone."""
    nobody, root = await fresh(make_teepi)
    await root.put("/root/hidden", {"type": "mirror", "mirror_url": "https://index.example/", "acl_read": "root"})
    answer = await nobody.fetch("/no/where/+simple/demo/")
    assert (answer.status, b"root/pypi" in answer.body, b"hidden" in answer.body) == (404, True, False)
    assert list((await nobody.get("/root"))["indexes"]) == ["pypi"]
    assert list((await root.get("/root"))["indexes"]) == ["hidden", "pypi"]


async def test_names_of_protected_files_are_shown_to_nobody_who_looks_on(
    make_teepi: MakeTeepi, second: Upstream
) -> None:
    """Neither on the page for people nor in the status, where everybody looks."""
    second.project("demo", {"secret_name-1.0.tar.gz": b"x"})
    nobody, root, *_ = await people(make_teepi)
    await root.put("/root/priv", {"type": "mirror", "mirror_url": second.index_url, "acl_read": "root"})
    _, [link] = await page_of(root, "root/priv")
    assert (await root.fetch(link)).body == b"x"
    recent = nobody.teepi.server.metrics.recent
    await until(lambda: bool(recent))
    [ended] = recent
    assert ended.name == "a file that not everybody may read"


async def test_token_of_one_index_reads_what_that_is_made_of(make_teepi: MakeTeepi) -> None:
    """Its pages link there; of other indexes it reads what everybody may."""
    nobody, _, ann, _, _ = await protected(make_teepi)
    await ann.put("/ann/top", {"bases": "ann/secret", "acl_read": "ann"})
    await ann.put("/ann/other", {"acl_read": "ann"})
    _, [file] = await page_of(ann, "ann/top")
    made = await nobody.teepi.server.services.private.accounts.create_token(
        "ann", index="ann/top", may_upload=False, may_read=True, description="", seconds=None
    )
    reader = nobody.using("__token__", made[0])
    assert [(await reader.fetch(path)).status for path in (file, f"{file}.metadata")] == [200, 200]
    assert (await page_of(reader, "ann/other"))[0] == 403


async def test_protection_and_its_end_hold_at_once(make_teepi: MakeTeepi) -> None:
    """By a list or a group; an index whose base is no more is not kept by its list."""
    nobody, _, ann, bob, _ = await protected(make_teepi)
    for change, statuses in (("acl_read=:AUTHENTICATED:", [401, 200]), ("acl_read=bob", [401, 200]),
                             ("acl_read=", [401, 403]), ("acl_read-=", [200, 200])):  # fmt: skip
        await ann.patch("/ann/secret", [change])
        assert [(await page_of(who, "ann/secret"))[0] for who in (nobody, bob)] == statuses
    await ann.patch("/ann/secret", ["acl_read=ann"])
    assert (await page_of(bob, "bob/above"))[0] == 403
    assert (await ann.call("DELETE", "/ann/secret")).status == 201
    assert (await page_of(bob, "bob/above"))[0] == 503
    assert (await bob.get("/bob/above"))["bases"] == ["ann/secret", "root/pypi"]
