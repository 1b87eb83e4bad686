"""Mirrors that clients other than root made: what their pages claim leads to no file of another index, nor to its."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

import pytest

from teepi.index_settings import IndexSettings
from teepi.limits import Limits
from tests.http.devpi import Devpi, fresh
from tests.http.links import sha256
from tests.http.scene import until
from tests.support.faults import Status
from tests.support.projects import JSON
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import MakeTeepi
    from tests.support.projects import Project
    from tests.support.upstream import Upstream

    Mirrors = Callable[..., Awaitable[tuple[Devpi, Devpi]]]

HONEST = wheel("demo", "1.0", requires=["honest"])
EVIL = wheel("demo", "1.0", requires=["evil"])
NAME = HONEST.filename
CLAIM = sha256(HONEST.content)
BY_DIGEST = f"+f/{CLAIM[:3]}/{CLAIM[3:16]}/{NAME}"
LIMITS = replace(Limits(), learning_seconds=0.0, page_hashes_seconds=0.0)
"""The real ones, but pages say at once what was learnt."""


@pytest.fixture
def honest(upstream: Upstream) -> Project:
    """Publish the file where root's mirror finds it."""
    return upstream.project("demo", {NAME: HONEST.content})


@pytest.fixture
def evil(second: Upstream) -> Project:
    """Publish another file of that name where bob's mirror finds it, under the digest of root's."""
    return second.project("demo", {NAME: EVIL.content}, extra={NAME: {"hashes": {"sha256": CLAIM}}})


@pytest.fixture
def mirrors(make_teepi: MakeTeepi, upstream: Upstream, second: Upstream) -> Mirrors:
    """Give a function that makes the mirrors root/corp and bob/evil; it returns the sessions of root and bob."""

    async def make(**settings: Any) -> tuple[Devpi, Devpi]:
        nobody, root = await fresh(make_teepi, limits=LIMITS)
        bob = await nobody.user("bob")
        await root.put("/root/corp", {"type": "mirror", "mirror_url": upstream.index_url, **settings})
        await bob.put("/bob/evil", {"type": "mirror", "mirror_url": second.index_url})
        return root, bob

    return make


async def page(session: Devpi, index: str) -> dict[str, Any]:
    """Return what the page of an index says of the file."""
    answer = await session.fetch(f"/{index}/+simple/demo/", {"Accept": JSON})
    assert answer.status == 200, answer.body
    [file] = json.loads(answer.body)["files"]
    return dict(file)


def target(index: str, project: Project) -> str:
    """Return where the file is in an index."""
    return f"/{index}/+http/{project.url(NAME).removeprefix('http://')}"


async def test_core_metadata_that_a_stranger_sends_is_not_served_for_another_index(
    mirrors: Mirrors, honest: Project, evil: Project
) -> None:
    """It is read by ranges, which no digest guards: neither its bytes nor its hash show elsewhere."""
    root, bob = await mirrors()
    await page(bob, "bob/evil")
    assert (await bob.fetch(target("bob/evil", evil) + ".metadata")).body == EVIL.metadata
    while (await page(bob, "bob/evil"))["core-metadata"] != {"sha256": sha256(EVIL.metadata)}:
        pass
    assert (await page(root, "root/corp"))["core-metadata"] is True
    assert (await root.fetch(target("root/corp", honest) + ".metadata")).body == HONEST.metadata
    while (await page(root, "root/corp"))["core-metadata"] != {"sha256": sha256(HONEST.metadata)}:
        pass
    assert (await page(bob, "bob/evil"))["core-metadata"] == {"sha256": sha256(EVIL.metadata)}


async def test_false_sizes_on_a_strangers_page_do_not_end_ranges_for_others(mirrors: Mirrors, second: Upstream) -> None:
    """Nobody asks an origin for ranges that answers none; that it does not is found out for each stranger apart."""
    big = wheel("demo", "1.0", padding=400_000)
    project = second.project("demo", {NAME: big.content})
    entry = {"hashes": {"sha256": CLAIM}, "size": 100_000}
    names = [f"demo-{number}.0-py3-none-any.whl" for number in range(2, 5)]
    files = [entry | {"filename": name, "url": project.url(name)} for name in names]
    said = {"meta": {"api-version": "1.0"}, "name": "demo", "files": files}
    second.file("/evil/demo/", json.dumps(said).encode(), content_type=JSON)
    for name in names:
        second.file(project.path(name), big.content)
    root, bob = await mirrors()
    await bob.patch("/bob/evil", {"type": "mirror", "mirror_url": f"{second.url}/evil/"})
    await root.put("/root/copy", {"type": "mirror", "mirror_url": second.index_url})
    for name in names:
        path = target("bob/evil", project).replace(NAME, name)
        assert (await bob.fetch(f"{path}.metadata")).status >= 500
        assert second.ranges(project.path(name))[-1] is None
    await page(root, "root/copy")
    assert (await root.fetch(target("root/copy", project) + ".metadata")).body == big.metadata
    assert None not in second.ranges(project.path(NAME))


async def test_stranger_who_claims_the_digest_of_a_protected_file_does_not_get_it(
    mirrors: Mirrors, honest: Project, evil: Project, second: Upstream
) -> None:
    """At none of its URLs, by a range, as core metadata, out of a stage or by a push: his upstream did not send it."""
    second.script(evil.path(NAME), repeat(Status(404)))
    root, bob = await mirrors(acl_read="root")
    await bob.put("/bob/dev", {"bases": "bob/evil"})
    await page(root, "root/corp")
    assert (await root.fetch(target("root/corp", honest))).body == HONEST.content
    assert (await root.fetch(target("root/corp", honest) + ".metadata")).body == HONEST.metadata
    for index in ("bob/evil", "bob/dev"):
        assert (await page(bob, index))["hashes"] == {"sha256": CLAIM}
    for path in (target("bob/evil", evil), f"/bob/evil/{BY_DIGEST}"):
        for more, headers in (("", {}), ("", {"Range": "bytes=0-9"}), (".metadata", {})):
            answer = await bob.fetch(path + more, headers)
            assert answer.status >= 400, (path, more)
            assert HONEST.metadata not in answer.body
    pushed = await bob.call("PUSH", "/bob/evil", {"name": "demo", "version": "1.0", "targetindex": "bob/dev"})
    assert pushed.status >= 400
    assert (await root.fetch(target("root/corp", honest))).headers["cache-status"] == "teepi; hit"


async def test_stranger_whose_upstream_hangs_holds_up_no_other_index(
    mirrors: Mirrors, honest: Project, evil: Project, second: Upstream
) -> None:
    """Each asks its own; what wrong bytes the stranger's sends at last spaces no fetch of the other's either."""
    gate = second.gate(evil.path(NAME))
    root, bob = await mirrors()
    await page(bob, "bob/evil")
    registry = bob.teepi.server.registry
    asked = asyncio.ensure_future(bob.fetch(target("bob/evil", evil)))
    await gate.reached.wait()
    await page(root, "root/corp")
    answer = await root.fetch(target("root/corp", honest))
    assert (answer.body, answer.headers["etag"]) == (HONEST.content, f'"{CLAIM}"')
    assert not asked.done()
    gate.open()
    assert (await asked).status >= 500
    await until(lambda: not list(registry))
    assert (await root.fetch(target("root/corp", honest))).headers["etag"] == f'"{CLAIM}"'


async def test_file_of_a_strangers_mirror_is_cached_and_stays_so_over_a_restart(
    mirrors: Mirrors, second: Upstream
) -> None:
    """Like any other: fetched once, verified, with the digest as ETag, under each of its URLs, in one copy on disk."""
    project = second.project("demo", {NAME: HONEST.content})
    _, bob = await mirrors()
    await page(bob, "bob/evil")
    paths = [target("bob/evil", project), f"/bob/evil/{BY_DIGEST}"]

    async def hits(session: Devpi) -> None:
        for path in paths * 3:  # the hot path answers the last
            answer = await session.fetch(path)
            assert (answer.body, answer.headers["etag"]) == (HONEST.content, f'"{CLAIM}"')
            assert answer.headers["cache-status"] == "teepi; hit"
            assert ("immutable" in answer.headers["cache-control"]) is ("/+f/" in path)
        assert (await session.fetch(paths[0], {"If-None-Match": f'"{CLAIM}"'})).status == 304

    assert (await bob.fetch(paths[0])).headers["cache-status"] != "teepi; hit"
    await until(lambda: not list(bob.teepi.server.registry))
    await hits(bob)
    restarted = await bob.teepi.restarted()
    try:
        await hits(Devpi(restarted, bob.headers))
    finally:
        await restarted.stop()
    assert second.count("GET", project.path(NAME)) == 1


async def test_wrong_bytes_of_a_strangers_mirror_are_refused(mirrors: Mirrors, evil: Project) -> None:
    """The digest that finds no bytes still judges them."""
    _, bob = await mirrors()
    await page(bob, "bob/evil")
    assert (await bob.fetch(target("bob/evil", evil))).status >= 500
    assert not list((bob.teepi.settings.cache_dir / "v1/files/sha256").glob("*/*"))


async def test_mirrors_that_root_made_share_one_fetch(
    mirrors: Mirrors, honest: Project, upstream: Upstream, second: Upstream
) -> None:
    """What root names is believed; also where a page of the one links to a file that only the other was asked for."""
    copy = second.project("demo", {NAME: HONEST.content})
    root, _ = await mirrors()
    await root.put("/root/copy", {"type": "mirror", "mirror_url": second.index_url})
    for index, project in (("root/corp", honest), ("root/copy", copy)):
        await page(root, index)
        assert (await root.fetch(target(index, project))).body == HONEST.content
        await until(lambda: not list(root.teepi.server.registry))
    assert (upstream.count("GET", honest.path(NAME)), second.count("GET", copy.path(NAME))) == (1, 0)


async def test_mirror_that_leaves_the_settings_for_what_a_stranger_made_shares_nothing_at_once(
    mirrors: Mirrors, honest: Project, second: Upstream
) -> None:
    """Its page in memory was read while it was the operator's: that says nothing any more."""
    project = second.project("demo", {NAME: HONEST.content})
    root, bob = await mirrors()
    server, settings = root.teepi.server, root.teepi.settings
    operators = {**settings.indexes, "bob/evil": IndexSettings(second.index_url)}
    server.reload(replace(settings, indexes=operators))
    known = {"sha256": sha256(HONEST.metadata)}
    await page(root, "root/corp")
    assert (await root.fetch(target("root/corp", honest) + ".metadata")).body == HONEST.metadata
    while (await page(bob, "bob/evil"))["core-metadata"] != known:
        pass
    assert second.ranges(project.path(NAME)) == []
    server.reload(settings)
    assert (await page(bob, "bob/evil"))["core-metadata"] is True
    assert (await bob.fetch(target("bob/evil", project) + ".metadata")).body == HONEST.metadata
    assert len(second.ranges(project.path(NAME))) == 1


async def test_file_that_a_former_upstream_of_a_strangers_mirror_has_sent_is_not_its_any_more(
    mirrors: Mirrors, upstream: Upstream, second: Upstream
) -> None:
    """Whoever gets a name that somebody else had links to that one's URL in vain."""
    project = second.project("demo", {NAME: HONEST.content})
    _, bob = await mirrors()
    await page(bob, "bob/evil")
    assert (await bob.fetch(target("bob/evil", project))).body == HONEST.content
    await until(lambda: not list(bob.teepi.server.registry))
    upstream.project("demo", {NAME: HONEST.content}, files_at=second)
    second.script(project.path(NAME), repeat(Status(401)))
    await bob.patch("/bob/evil", {"type": "mirror", "mirror_url": upstream.index_url})
    assert (await page(bob, "bob/evil"))["hashes"] == {"sha256": CLAIM}
    assert (await bob.fetch(target("bob/evil", project))).status >= 400
