"""Pushes of a version: the verb, out of a mirror, to another index, and to a repository elsewhere."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from tests.http.owner import Owner
from tests.support.clients import RawClient, fetch
from tests.support.teepi import FAST
from tests.support.wheels import sdist, wheel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import MakeTeepi
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

MADE = wheel("gamma", "0.1", summary="third letter")
SOURCE = sdist("gamma", "0.1")
PASSWORD = "s3cret-token"  # noqa: S105 - of a test


@pytest.fixture
async def teepi(make_teepi: MakeTeepi) -> Teepi:
    """Give a teepi that lets root in."""
    return await make_teepi(insecure_empty_root=True)


@pytest.fixture
async def owner(teepi: Teepi) -> AsyncIterator[Owner]:
    """Give root with the volatile index root/dev and root/prod, which is not."""
    async with Owner(teepi) as owner:
        await owner.index("root/dev")
        await owner.index("root/prod", volatile=False)
        yield owner


# -- the verb ----------------------------------------------------------------------------------------


async def test_push_verb_is_answered_on_a_new_connection_and_after_an_upload(owner: Owner) -> None:
    """As devpi's client sends it; the log names the version and each file, whose history is told."""
    assert (await owner.push("root/dev", name="gamma", version="0.1", targetindex="root/prod"))[0] == 404
    await owner.upload("root/dev", MADE)
    status, log = await owner.push("root/dev", name="Gamma", version="0.1.0", targetindex="/root/prod/")
    path = f"root/prod/+f/{MADE.sha256[:3]}/{MADE.sha256[3:16]}/{MADE.filename}"
    assert (status, log) == (
        200,
        [[200, "register", "gamma", "0.1", "->", "root/prod"], [200, "store_releasefile", path]],
    )
    [link] = await owner.links("root/prod", "gamma", "0.1")
    assert [(entry["what"], entry.get("src"), entry["dst"]) for entry in link["log"]] == [
        ("upload", None, "root/dev"), ("push", "root/dev", "root/prod"),
    ]  # fmt: skip


async def test_push_verb_with_a_request_behind_it_is_answered_before_that(teepi: Teepi, owner: Owner) -> None:
    """Head, body and the next head come in one read."""
    await owner.upload("root/dev", MADE)
    body = json.dumps({"name": "gamma", "version": "0.1", "targetindex": "root/prod"}).encode()
    credentials = base64.b64encode(b"root:").decode()
    head = (
        f"PUSH /root/dev HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    after = b"GET /root/prod/+simple/gamma/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(head.encode() + body + after)
        pushed, page = await client.read_answer(), await client.read_answer()
        assert (pushed.status, page.status) == (200, 200), pushed.body
        assert MADE.filename.encode() in page.body


async def test_push_verb_is_taken_while_the_request_before_it_is_answered(
    teepi: Teepi, owner: Owner, upstream: Upstream
) -> None:
    """Devpi's client pushes on the connection on which it has just asked: its handler may not have ended."""
    await owner.upload("root/dev", MADE)
    body = json.dumps({"name": "gamma", "version": "0.1", "targetindex": "root/prod"}).encode()
    credentials = base64.b64encode(b"root:").decode()
    head = (
        f"PUSH /root/dev HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    gate = upstream.gate("/simple/held/")
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(b"GET /simple/held/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await gate.reached.wait()
        await client.send_bytes(head.encode() + body)
        gate.open()
        assert [(await client.read_answer()).status for _ in range(2)] == [404, 200]


async def test_push_verb_at_the_beginning_of_half_a_head_stays_what_it_is(teepi: Teepi) -> None:
    """A head that was cut in two: the second half is no request of its own, nor is it changed."""
    async with await RawClient.connect(teepi.address) as client:
        await client.send_bytes(b"GET /simple?a=")
        await fetch(teepi.address, "/+api")  # so that it has been read by now
        await client.send_bytes(b"PUSH HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.read_answer()).headers["location"] == "simple/?a=PUSH"
    assert (await fetch(teepi.address, "/+api", method="PUSHY")).status == 400


# -- between indexes ---------------------------------------------------------------------------------


async def test_push_of_other_content_to_a_nonvolatile_index_is_a_conflict(owner: Owner) -> None:
    """Nothing of the version is pushed then, documentation included."""
    await owner.upload("root/prod", MADE)
    await owner.upload("root/dev", wheel("gamma", "0.1", summary="another"))
    status, said = await owner.push("root/dev", name="gamma", version="0.1", targetindex="root/prod")
    assert (status, said) == (409, f"{MADE.filename} already exists in non-volatile index")
    await owner.docs("root/prod", "gamma", "0.1", {})
    await owner.docs("root/dev", "gamma", "0.1", {"more.html": b"more"})
    given = {"name": "gamma", "version": "0.1", "targetindex": "root/prod"}
    assert (await owner.push("root/dev", only_docs=True, **given))[0] == 409
    assert (await owner.read("/root/prod/gamma/0.1/+d/more.html"))[0] == 404


# -- out of a mirror ---------------------------------------------------------------------------------


async def test_push_out_of_a_mirror_fetches_each_file_once_and_keeps_it(
    upstream: Upstream, teepi: Teepi, owner: Owner
) -> None:
    """Wheel and sdist of that version alone, as uploads are kept: with their metadata, and where they came from."""
    project = upstream.project("gamma")
    for made in (MADE, SOURCE, wheel("gamma", "0.2")):
        project.put(made.filename, made.content)
    project.put("gamma-0.1.win32-py2.7.exe", b"MZ")
    status, log = await owner.push("root/pypi", name="gamma", version="0.1", targetindex="root/prod")
    assert status == 200, log
    assert [entry[:2] for entry in log] == [[200, "register"], *[[200, "store_releasefile"]] * 2]
    links = await owner.links("root/prod", "gamma", "0.1")
    assert {link["href"].rpartition("/")[2] for link in links} == {MADE.filename, SOURCE.filename}
    assert {(entry["what"], entry["src"]) for link in links for entry in link["log"]} == {("push", "root/pypi")}
    path = f"/root/prod/+f/{MADE.sha256[:3]}/{MADE.sha256[3:16]}/{MADE.filename}"
    assert (await fetch(teepi.address, path)).body == MADE.content
    assert (await fetch(teepi.address, f"{path}.metadata")).body == MADE.metadata
    assert (await owner.push("root/pypi", name="gamma", version="0.1", targetindex="root/prod"))[0] == 200
    assert upstream.count("GET", project.path(MADE.filename)) == 1


async def test_push_out_of_a_mirror_says_which_file_is_refused_and_keeps_the_others(
    upstream: Upstream, owner: Owner
) -> None:
    """One that is no sound archive, and one that is there with other content."""
    project = upstream.project("gamma")
    project.put(MADE.filename, MADE.content)
    project.put(SOURCE.filename, b"no archive")
    status, log = await owner.push("root/pypi", name="gamma", version="0.1", targetindex="root/prod")
    said = {entry[2].rpartition("/")[2]: entry[0] for entry in log[1:]}
    assert (status, said) == (200, {MADE.filename: 200, SOURCE.filename: 400})
    assert [link["href"].rpartition("/")[2] for link in await owner.links("root/prod", "gamma", "0.1")] == [
        MADE.filename
    ]
    await owner.upload("root/dev", wheel("delta", "1.0", summary="ours"))
    other = upstream.project("delta")
    other.put("delta-1.0-py3-none-any.whl", wheel("delta", "1.0").content)
    await owner.index("root/strict", volatile=False)
    await owner.push("root/dev", name="delta", version="1.0", targetindex="root/strict")
    status, message = await owner.push("root/pypi", name="delta", version="1.0", targetindex="root/strict")
    assert (status, message) == (409, "delta-1.0-py3-none-any.whl already exists in non-volatile index")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"version": "9.9", "targetindex": "root/dev"}, 404),
        ({"version": "0.1", "targetindex": "root/dev", "only_docs": True}, 404),
        ({"version": "0.1", "targetindex": "root/pypi"}, 404),
        ({"version": "0.1", "targetindex": "no/pe"}, 404),
        ({"version": "0.1"}, 400),
        ({"version": "0.1", "posturl": "http://there.example/", "username": "u", "password": "p"}, 404),
    ],
)
async def test_push_out_of_a_mirror_that_cannot_be_done_is_refused(
    upstream: Upstream, owner: Owner, given: dict[str, Any], status: int
) -> None:
    """No such version, no documentation, no stage to push to, nowhere; and from a mirror not elsewhere."""
    upstream.project("gamma").put(MADE.filename, MADE.content)
    answered, said = await owner.push("root/pypi", name="gamma", **given)
    assert (answered, type(said)) == (status, str)


async def test_push_out_of_a_mirror_of_a_file_above_the_limit_is_refused(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """As an upload of it would be."""
    teepi = await make_teepi(insecure_empty_root=True, max_upload_bytes=2000)
    made = wheel("gamma", "0.1", padding=3000)
    upstream.project("gamma").put(made.filename, made.content)
    async with Owner(teepi) as owner:
        await owner.index("root/dev")
        status, said = await owner.push("root/pypi", name="gamma", version="0.1", targetindex="root/dev")
    assert status == 413
    assert "setting max_upload" in said


# -- to another repository ---------------------------------------------------------------------------


@dataclass
class Repository:
    """Takes uploads as the public index does, and remembers them."""

    status: int = 200
    text: str = "fine"
    holds: bool = False
    forms: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        """Answer as told."""
        if self.holds:
            await asyncio.Event().wait()
        form = await request.post()
        found: dict[str, Any] = {}
        for name in form:
            values = form.getall(name)
            found[name] = [each.file.read() if isinstance(each, web.FileField) else each for each in values]
            if isinstance(values[0], web.FileField):
                found["filename"] = values[0].filename
        self.forms.append(found)
        self.authorizations.append(request.headers.get("Authorization"))
        headers = {"Location": "/elsewhere"} if self.status == 307 else None
        return web.Response(status=self.status, text=self.text, headers=headers)


@pytest.fixture
async def repository() -> AsyncIterator[Repository]:
    """Give a repository that listens."""
    there = Repository()
    app = web.Application()
    app.router.add_post("/{any:.*}", there.take)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    there.url = f"http://127.0.0.1:{runner.addresses[0][1]}/legacy/?x=1"
    yield there
    await runner.cleanup()


def credentials(there: Repository) -> dict[str, str]:
    """Return what a push says of a repository."""
    return {"posturl": there.url, "username": "me", "password": PASSWORD}


async def test_push_elsewhere_uploads_every_file_with_its_metadata(owner: Owner, repository: Repository) -> None:
    """As twine would: digests, core metadata, and the documentation last, unless it is not wanted."""
    paths = [await owner.upload("root/dev", each) for each in (SOURCE, MADE)]
    content = await owner.docs("root/dev", "gamma", "0.1", {})
    given = {"name": "gamma", "version": "0.1", **credentials(repository)}
    status, log = await owner.push("root/dev", **given, register_project=True)
    assert (status, log) == (
        200,
        [
            [200, "register", "gamma", "0.1"],
            [200, "upload", paths[1], ""], [200, "upload", paths[0], ""],
            [200, "docfile", "gamma"],
        ],
    )  # fmt: skip
    assert [form[":action"] for form in repository.forms] == [
        ["submit"], ["file_upload"], ["file_upload"], ["doc_upload"],
    ]  # fmt: skip
    form = repository.forms[1]
    assert form["content"] == [MADE.content]
    assert {key: form[key] for key in ("filename", "name", "version", "filetype", "pyversion", "summary")} == {
        "filename": MADE.filename, "name": ["gamma"], "version": ["0.1"],
        "filetype": ["bdist_wheel"], "pyversion": ["py3"], "summary": ["third letter"],
    }  # fmt: skip
    assert form["sha256_digest"] == [MADE.sha256]
    assert form["metadata_version"] == ["2.1"]
    assert "home_page" not in form
    assert repository.forms[3]["content"] == [content]
    wanted = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert set(repository.authorizations) == {wanted}
    repository.forms.clear()
    assert (await owner.push("root/dev", **given, no_docs=True))[0] == 200
    assert (await owner.push("root/dev", **given, only_docs=True))[0] == 200
    assert [form[":action"] for form in repository.forms] == [["file_upload"], ["file_upload"], ["doc_upload"]]


async def test_push_elsewhere_sends_epochs_and_local_versions_under_their_names(
    owner: Owner, repository: Repository
) -> None:
    """Neither ``!`` nor ``+`` is encoded."""
    for version in ("1!2.0", "1.0+local.1"):
        await owner.upload("root/dev", wheel("gamma", version))
        assert (await owner.push("root/dev", name="gamma", version=version, **credentials(repository)))[0] == 200
    assert [form["filename"] for form in repository.forms] == [
        "gamma-1!2.0-py3-none-any.whl", "gamma-1.0+local.1-py3-none-any.whl",
    ]  # fmt: skip


@pytest.mark.parametrize("status", [403, 307, 500])
async def test_push_elsewhere_that_is_refused_says_so_without_the_credentials(
    owner: Owner, repository: Repository, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """Even when the repository repeats them; a redirect is not followed, for it would need all of it again."""
    caplog.set_level("DEBUG")
    path = await owner.upload("root/dev", MADE)
    encoded = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    repository.status, repository.text = status, f"not with {PASSWORD} or {encoded}"
    answered, log = await owner.push("root/dev", name="gamma", version="0.1", **credentials(repository))
    assert answered == 502
    [[said, what, where, text]] = log
    assert (said, what, where) == (status, "upload", path)
    assert text.endswith("not with … or …")
    assert len(repository.forms) == 1
    said_by_teepi = [record.getMessage() for record in caplog.records if record.name.startswith("teepi")]
    assert not any(secret in line for secret in (PASSWORD, encoded, "x=1") for line in said_by_teepi)


async def test_push_elsewhere_without_an_answer_ends_in_time(
    make_teepi: MakeTeepi, repository: Repository, unused_tcp_port: int
) -> None:
    """Silence and a port that nobody listens on: the log says what it was, and no further file is tried."""
    teepi = await make_teepi(replace(FAST, push_answer_seconds=0.1), insecure_empty_root=True)
    repository.holds = True
    async with Owner(teepi) as owner:
        await owner.index("root/dev")
        for made in (MADE, SOURCE):
            await owner.upload("root/dev", made)
        given = {"name": "gamma", "version": "0.1", **credentials(repository)}
        assert await owner.push("root/dev", **given) == (
            502, [[-1, "exception on upload:", f"{repository.url.partition('?')[0]}: no answer in time"]],
        )  # fmt: skip
        given["posturl"] = f"http://127.0.0.1:{unused_tcp_port}/"
        status, [[said, _, why]] = await owner.push("root/dev", **given)
    assert (status, said) == (502, -1)
    assert "onnect" in why


@pytest.mark.parametrize(
    ("posturl", "status"),
    [
        ("file:///etc/passwd", 400),
        ("there.example", 400),
        ("http://[::1", 400),
        ("http://there.example/ HTTP/1.1\r\nX: y", 400),
        ("http://169.254.169.254/latest/", 403),
        ("http://127.1/", 403),
        ("http://localhost/", 403),
    ],
)
async def test_push_elsewhere_to_a_private_address_is_refused_to_a_user(
    teepi: Teepi, owner: Owner, posturl: str, status: int
) -> None:
    """Nothing is connected to (the guard of these tests would see it), and what is no URL is none."""
    await owner.ask("PUT", "/ann", json={"password": "pw"})
    async with Owner(teepi, "ann", "pw") as ann:
        await ann.index("ann/dev")
        await ann.upload("ann/dev", MADE)
        given = {"name": "gamma", "version": "0.1", "username": "me", "password": PASSWORD}
        answered, said = await ann.push("ann/dev", posturl=posturl, **given)
    assert answered == status
    assert PASSWORD not in said


async def test_push_elsewhere_to_an_allowed_host_is_done_for_a_user_but_not_for_nobody(
    make_teepi: MakeTeepi, repository: Repository
) -> None:
    """Whoever may read can copy what he reads, but teepi is nobody's tool who does not log in."""
    teepi = await make_teepi(insecure_empty_root=True, allowed_hosts=("127.0.0.1",))
    async with Owner(teepi, "ann", "pw") as ann, Owner(teepi, "nobody") as nobody:
        await ann.ask("PUT", "/ann", json={"password": "pw"})
        await ann.index("ann/dev")
        await ann.upload("ann/dev", MADE)
        given = {"name": "gamma", "version": "0.1", **credentials(repository)}
        assert (await ann.push("ann/dev", **given))[0] == 200
        assert (await nobody.push("ann/dev", **given))[0] == 401
        await ann.ask("PATCH", "/ann/dev", json=["acl_read=ann"])
        assert (await nobody.push("ann/dev", **given))[0] == 401
    assert len(repository.forms) == 1


async def test_push_elsewhere_of_nothing_or_offline_is_refused(
    owner: Owner, teepi: Teepi, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such version, no documentation; offline means that nothing is asked of anybody."""
    await owner.upload("root/dev", MADE)
    given: dict[str, Any] = {"name": "gamma", **credentials(repository)}
    assert (await owner.push("root/dev", version="9", **given))[0] == 404
    assert (await owner.push("root/dev", version="0.1", only_docs=True, **given))[0] == 404
    assert (await owner.push("root/dev", version="0.1", **{**given, "posturl": 1}))[0] == 400
    monkeypatch.setattr(teepi.server.live, "settings", replace(teepi.settings, offline=True))
    assert (await owner.push("root/dev", version="0.1", **given))[0] == 503
    assert repository.forms == []
