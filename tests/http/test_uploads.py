"""Uploads to private indexes: what is taken, what is refused with which words, and that a refusal leaves nothing."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import sqlite3
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from teepi.data import Blobs, Incoming
from tests.http.scene import until
from tests.support.clients import RawClient
from tests.support.private import BOUNDARY, HTML, PAGE, Owner, basic, fields_of, form
from tests.support.teepi import FAST
from tests.support.wheels import Distribution, sdist, wheel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeTeepi

ALPHA = wheel("alpha", requires_python=">=3.8", summary="A thing")
OTHER = wheel("alpha", requires_python=">=3.9", summary="Another")


@pytest.fixture
async def owner(make_teepi: MakeTeepi) -> Owner:
    """Give root, with the indexes root/dev (volatile) and root/prod."""
    teepi = await make_teepi(insecure_empty_root=True, max_upload_bytes=8 << 20)
    owner = Owner(teepi)
    await owner.index("root/dev")
    await owner.index("root/prod", volatile=False)
    return owner


def kept(*built: Distribution) -> list[str]:
    """Return what the data directory has when it has these files alone."""
    return sorted(f"files/{each.sha256[:2]}/{each.sha256}" for each in built)


# Statuses -------------------------------------------------------------------------------------------


async def test_upload_is_200_without_a_body_and_installable_at_once(owner: Owner) -> None:
    """With and without a slash behind the index; wheel, sdist; the reason phrase is HTTP's own."""
    built = sdist("alpha")
    answer = await owner.upload("root/dev", ALPHA)
    assert (answer.status, answer.body, answer.head.reason) == (200, b"", "OK")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-length"] == "0"
    body = form(fields_of(built), built.filename, built.content)
    async with await RawClient.connect(owner.teepi.address) as client:
        length = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(len(body))}
        await client.send("POST", "/root/dev", {**owner.auth, **length})
        await client.send_bytes(body)
        assert (await client.read_answer()).status == 200
    assert await owner.names("root/dev", "alpha") == [ALPHA.filename, built.filename]
    for each in (ALPHA, built):
        assert (await owner.get(owner.path("root/dev", each))).body == each.content
    assert owner.left == kept(ALPHA, built)


async def test_upload_again_the_same_is_200_another_409_on_a_non_volatile_index(owner: Owner) -> None:
    """With the reason phrases that devpi's client prints; what was there stays, byte for byte."""
    await owner.put("root/prod", ALPHA)
    again = await owner.upload("root/prod", ALPHA)
    assert (again.status, again.head.reason) == (200, "Upload of identical file to non volatile index.")
    other = await owner.upload("root/prod", OTHER)
    assert (other.status, other.head.reason) == (409, f"{OTHER.filename} already exists in non-volatile index")
    assert (await owner.get(owner.path("root/prod", ALPHA))).body == ALPHA.content
    assert owner.left == kept(ALPHA)
    [link] = (await owner.json("/root/prod/alpha/1.0"))["result"]["+links"]
    assert [entry["what"] for entry in link["log"]] == ["upload"]


async def test_upload_again_to_a_volatile_index_overwrites(owner: Owner) -> None:
    """The log says so, the metadata are the new ones, the old bytes leave the disk unless another index has them."""
    await owner.put("root/dev", ALPHA, OTHER)
    assert owner.left == kept(OTHER)
    data = (await owner.json("/root/dev/alpha/1.0"))["result"]
    assert (data["summary"], data["requires_python"]) == ("Another", ">=3.9")
    [link] = data["+links"]
    assert [(entry["what"], entry["who"], entry["dst"]) for entry in link["log"]] == [
        ("overwrite", "root", "root/dev"), ("upload", "root", "root/dev"),
    ]  # fmt: skip
    assert (await owner.get(owner.path("root/dev", ALPHA))).status == 404
    await owner.put("root/prod", OTHER)
    await owner.put("root/dev", ALPHA)
    assert owner.left == kept(ALPHA, OTHER)
    assert (await owner.upload("root/dev", ALPHA)).head.reason == "OK"
    assert owner.teepi.server.metrics.requests["upload", "other", 2] >= 3
    overwritten, _ = (await owner.json("/root/dev/alpha/1.0"))["result"]["+links"][0]["log"]
    assert overwritten["count"] == 2


async def test_upload_without_right_says_which_is_missing(owner: Owner) -> None:
    """401 with a challenge for nobody and for wrong passwords, 403 for somebody else, 404 for mirrors and nothing."""
    await owner.ask("PUT", "/bob", {"password": "secret"})
    for auth in ({}, basic("root", "wrong"), basic("bob", "wrong"), basic("nobody", "x"), {"X-Devpi-Auth": "%%%"}):
        answer = await Owner(owner.teepi, auth).upload("root/dev", ALPHA)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Basic realm="pypi"')
        assert answer.body.startswith(b"no permission to submit to root/dev")
    answer = await Owner(owner.teepi, basic("bob", "secret")).upload("root/dev", ALPHA)
    assert (answer.status, answer.head.reason) == (403, "no permission to submit to root/dev as bob")
    answer = await owner.upload("root/pypi", ALPHA)
    assert (answer.status, answer.head.reason) == (404, "cannot submit to mirror index root/pypi")
    assert (await owner.upload("root/nowhere", ALPHA)).status == 404
    assert owner.left == []
    await owner.ask("PATCH", "/root/dev", ["acl_upload+=bob"])
    assert (await Owner(owner.teepi, basic("bob", "secret")).upload("root/dev", ALPHA)).status == 200


async def test_upload_with_an_api_token_is_what_the_token_allows(owner: Owner) -> None:
    """User __token__ as twine sends it; a token of one index, or for reading alone, uploads nowhere else."""
    services = owner.teepi.server._services  # noqa: SLF001 - tokens are made by operators
    assert services is not None
    accounts = services.private.accounts
    text, _ = await accounts.create_token(
        "root", index="root/dev", may_upload=True, may_read=True, description="", seconds=None
    )
    bearer = Owner(owner.teepi, basic("__token__", text))
    await bearer.put("root/dev", ALPHA)
    answer = await bearer.upload("root/prod", ALPHA)
    assert (answer.status, answer.head.reason) == (
        403, "no permission to submit: this token does not allow uploads to root/prod",
    )  # fmt: skip
    text, token = await accounts.create_token(
        "root", index=None, may_upload=False, may_read=True, description="", seconds=None
    )
    assert (await Owner(owner.teepi, basic("__token__", text)).upload("root/dev", OTHER)).status == 403
    await accounts.revoke_token(token.id)
    assert (await Owner(owner.teepi, basic("__token__", text)).upload("root/dev", OTHER)).status == 401
    [link] = (await owner.json("/root/dev/alpha/1.0"))["result"]["+links"]
    assert link["log"][0]["who"] == "root"


async def test_upload_form_may_have_its_fields_in_any_order(owner: Owner) -> None:
    """The file first, as some clients send it; a signature beside it is dropped."""
    body = form([("content", ""), *fields_of(ALPHA)], ALPHA.filename, ALPHA.content)
    signature = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="gpg_signature"; filename="a.asc"\r\n\r\nsig\r\n'
    ).encode()
    assert (await owner.post("root/dev", signature + body)).status == 200
    assert await owner.names("root/dev", "alpha") == [ALPHA.filename]


DAMAGED = Distribution(ALPHA.filename, ALPHA.content[:-30], ALPHA.metadata)
ALIEN = Distribution("beta-1.0-py3-none-any.whl", ALPHA.content, ALPHA.metadata)


REFUSED: list[tuple[Distribution, dict[str, str], str]] = [
    (ALPHA, {"version": "0.7"}, f"filename '{ALPHA.filename}' does not contain version '0.7'"),
    (ALPHA, {"name": "beta"}, f"filename '{ALPHA.filename}' does not contain project name 'beta'"),
    (ALPHA, {"sha256_digest": "0" * 64}, "sha256_digest does not match the uploaded file"),
    (ALPHA, {"md5_digest": "0" * 32}, "md5_digest does not match the uploaded file"),
    (ALPHA, {"action": "launch"}, "the field :action is 'launch'; it must be one of file_upload, submit, doc_upload"),
    (ALPHA, {"attestations": "[{}]"}, "the attestations are no JSON list of attestation objects (PEP 740)"),
    (DAMAGED, {}, "The file is no sound zip archive"),
    (ALIEN, {"name": "beta"}, "The wheel"),
]


async def test_upload_that_is_refused_says_why_and_leaves_nothing(owner: Owner) -> None:
    """400, the words in the reason phrase and in the body; no file, no row (fault 18)."""
    for built, more, reason in REFUSED:
        answer = await owner.upload("root/dev", built, None, **more)
        assert answer.status == 400
        assert answer.head.reason.startswith(reason)
        assert answer.body.decode().startswith(reason)
        assert owner.left == []
    assert (await owner.json("/root/dev"))["result"]["projects"] == []


NO_FORMS = [
    (form([(":action", "file_upload")], None), "the form of the upload has no file: the field content is missing"),
    (form([("name", "alpha")], ALPHA.filename, ALPHA.content), "the field :action is ''; it must be one of"),
    (form(fields_of(ALPHA), ALPHA.filename, ALPHA.content)[:-40], "the form of the upload cannot be read"),
    (form(fields_of(ALPHA), ALPHA.filename, ALPHA.content)[:300], "the form of the upload cannot be read"),
    (form([("f", "")] * 3001, None), "the form of the upload has more than 3000 fields"),
    (form([("f" * 101, "")], None), "the form of the upload has a part without a name"),
    (b"no form", "the form of the upload cannot be read"),
    (b"", "the form of the upload cannot be read"),
    (b"x" * 100_000, "the form of the upload cannot be read"),
    (f"--{BOUNDARY}\r\nContent-Disposition: {'x' * 100_000}\r\n\r\n".encode(), "the form of the upload cannot be read"),
    (f"--{BOUNDARY}\r\n{'X-A: b' * 9000}\r\n\r\n".encode(), "the form of the upload cannot be read"),
    (f"--{BOUNDARY}\r\nno header\r\n\r\n--{BOUNDARY}--\r\n".encode(), "the form of the upload cannot be read"),
    (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="content"\r\n'
        f"Content-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\n\r\nx\r\n--q--\r\n--{BOUNDARY}--\r\n".encode(),
        "the form of the upload has a part without a name",
    ),
]


async def test_upload_form_that_is_none_is_refused_and_leaves_nothing(owner: Owner) -> None:
    """400 with the reason (fault 18); of a field that came twice the first value counts."""
    for body, reason in NO_FORMS:
        answer = await owner.post("root/dev", body)
        assert answer.status == 400
        assert answer.head.reason.startswith(reason)
        assert owner.left == []
    assert (await owner.json("/root/dev"))["result"]["projects"] == []
    twice = [*fields_of(ALPHA), ("name", "beta"), ("version", "2")]
    assert (await owner.post("root/dev", form(twice, ALPHA.filename, ALPHA.content))).status == 200


async def test_upload_form_with_large_fields_is_refused(make_teepi: MakeTeepi) -> None:
    """16 MiB of all fields together are read, no more (fault 18)."""
    owner = Owner(await make_teepi(insecure_empty_root=True))
    await owner.index("root/dev")
    body = form([*fields_of(ALPHA), *[("description", "x" * (6 << 20))] * 3], ALPHA.filename, ALPHA.content)
    answer = await owner.post("root/dev", body)
    assert (answer.status, answer.head.reason) == (400, "the fields of the upload have more than 16777216 bytes")
    assert owner.left == []


async def test_upload_that_is_no_multipart_or_has_no_length_or_too_much_is_refused_unread(owner: Owner) -> None:
    """400, 411 and 413, each before the body has come (fault 18)."""
    async with await RawClient.connect(owner.teepi.address) as client:
        await client.send("POST", "/root/dev", {**owner.auth, "Content-Length": str((8 << 20) + 1)})
        answer = await client.read_answer()
        assert (answer.status, answer.head.reason) == (
            413, "This upload has 8388609 bytes; at most 8388608 are taken (setting max_upload).",
        )  # fmt: skip
    async with await RawClient.connect(owner.teepi.address) as client:
        chunked = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Transfer-Encoding": "chunked"}
        await client.send("POST", "/root/dev", {**owner.auth, **chunked})
        answer = await client.read_answer()
        assert (answer.status, answer.head.reason) == (411, "An upload says how long it is: send Content-Length.")
    packed = gzip.compress(form(fields_of(ALPHA), ALPHA.filename, bytes(9 << 20)))  # more than is taken
    answer = await owner.post("root/dev", packed, {"Content-Encoding": "gzip"})
    assert (answer.status, "without Content-Encoding" in answer.head.reason) == (400, True)
    for kind in ("text/plain", "multipart/form-data", "multipart/mixed; boundary=x"):
        answer = await owner.post("root/dev", b"--x--", {"Content-Type": kind})
        assert answer.status == 400
    assert owner.left == []


async def test_refused_client_that_still_sends_reads_the_answer_and_no_reset(owner: Owner) -> None:
    """It sends all of its 8 MB before it reads, as requests does: whatever the refusal."""
    body = form(fields_of(ALPHA), ALPHA.filename, b"x" * (8 << 20))
    for auth, status in (({}, 401), (basic("root", ""), 413)):
        answer = await Owner(owner.teepi, auth).post("root/dev", body)
        assert (answer.status, answer.complete) == (status, True)
    answer = await owner.post("root/pypi", body)
    assert (answer.status, answer.complete) == (404, True)


async def test_refused_client_that_leaves_is_not_waited_for(make_teepi: MakeTeepi) -> None:
    """Nothing of it is kept for the rest of a body that cannot come any more."""
    teepi = await make_teepi(replace(FAST, client_idle_seconds=600.0))

    def handlers() -> int:
        return sum(
            getattr(task.get_coro(), "__qualname__", "") == "RequestHandler.start" for task in asyncio.all_tasks()
        )

    async with await RawClient.connect(teepi.address) as client:
        await client.send("POST", "/root/pypi", {"Content-Length": "1000"})
        assert (await client.read_answer()).status == 404
        assert handlers() == 1
    await until(lambda: handlers() == 0)


async def test_client_that_expects_100_continue_is_refused_before_it_sends(owner: Owner) -> None:
    """For curl waits a second for that line; who may not upload gets the refusal in its place (RFC 9110, 10.1.1)."""
    body = form(fields_of(ALPHA), ALPHA.filename, ALPHA.content)
    head = {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "Content-Length": str(len(body)),
        "Expect": "100-continue",
    }
    async with await RawClient.connect(owner.teepi.address) as client:
        await client.send("POST", "/root/dev", head)
        assert (await client.read_head()).status == 401
    async with await RawClient.connect(owner.teepi.address) as client:
        await client.send("POST", "/root/dev", {**owner.auth, **head})
        assert (await client.read_head()).status == 100
        await client.send_bytes(body)
        assert (await client.read_answer()).status == 200


# Registering ----------------------------------------------------------------------------------------


async def test_submit_registers_a_version_without_a_file(owner: Owner) -> None:
    """200; its page is empty, its metadata have every field; a non-volatile index keeps what it has and says so."""
    fields = fields_of(ALPHA, action="submit", summary="first", classifiers="A :: B")
    for index in ("root/dev", "root/prod"):
        assert (await owner.post(index, form(fields, None))).head.reason == "OK"
        assert await owner.names(index, "alpha") == []
        data = (await owner.json(f"/{index}/alpha/1.0"))["result"]
        assert (data["summary"], data["classifiers"], data["license"], data["requires_dist"]) == (
            "first", ["A :: B"], "", [],
        )  # fmt: skip
    again = form(fields_of(ALPHA, action="submit", summary="second"), None)
    assert (await owner.post("root/dev", again)).head.reason == "OK"
    answer = await owner.post("root/prod", again)
    assert (answer.status, answer.head.reason) == (200, "This version is registered already; it stays as it is.")
    assert (await owner.json("/root/dev/alpha/1.0"))["result"]["summary"] == "second"
    assert (await owner.json("/root/prod/alpha/1.0"))["result"]["summary"] == "first"
    for name, version in (("al/pha", "1"), ("", "1"), ("alpha", "x/y"), ("alpha", "")):
        fields = [(":action", "submit"), ("name", name), ("version", version)]
        answer = await owner.post("root/dev", form(fields, None))
        assert answer.status == 400
        assert "is invalid" in answer.head.reason


async def test_doc_upload_is_200_and_what_is_no_documentation_400(owner: Owner) -> None:
    """A sound zip; of the newest version when none is named."""
    pages = wheel("alpha", files={"index.html": b"<h1>docs</h1>"}).content
    fields = [(":action", "doc_upload"), ("name", "alpha")]
    assert (await owner.post("root/dev", form(fields, "alpha.zip", pages))).status == 400
    await owner.put("root/dev", ALPHA)
    assert (await owner.post("root/dev", form(fields, "alpha.zip", pages))).status == 200
    answer = await owner.post("root/dev", form(fields, "alpha.zip", pages[:-9]))
    assert (answer.status, "no sound zip archive" in answer.head.reason) == (400, True)
    answer = await owner.post("root/dev", form([*fields, ("version", "2.0")], "alpha.zip", pages))
    assert answer.status == 200
    data = (await owner.json("/root/dev/alpha"))["result"]
    assert {version: [link["rel"] for link in data[version]["+links"]] for version in data} == {
        "2.0": ["doczip"], "1.0": ["releasefile", "doczip"],
    }  # fmt: skip
    assert len(owner.left) == 2


# At once --------------------------------------------------------------------------------------------


class Held:
    """Lets threads stand at a call until :meth:`open`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        """Stand before ``owner.name``."""
        self._gate = threading.Event()
        self.count = 0
        real: Callable[..., Any] = getattr(owner, name)

        def held(*args: Any, **options: Any) -> Any:
            self.count += 1
            assert self._gate.wait(10)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, held)

    def open(self) -> None:
        """Let all pass."""
        self._gate.set()


@pytest.mark.parametrize("second", [ALPHA, OTHER])
async def test_two_uploads_of_one_version_at_once_one_wins(
    owner: Owner, second: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are checked before either is kept: the other gets 409, or 200 when it is the very same file."""
    held = Held(monkeypatch, Incoming, "finish")
    tasks = [asyncio.create_task(owner.upload("root/prod", each)) for each in (ALPHA, second)]
    await until(lambda: held.count == 2)
    held.open()
    answers = await asyncio.gather(*tasks)
    assert sorted(answer.status for answer in answers) == [200, 200 if second is ALPHA else 409]
    [winner, *_] = [each for each, answer in zip((ALPHA, second), answers, strict=True) if answer.status == 200]
    assert owner.left == kept(winner)
    assert (await owner.page("root/prod", "alpha"))["files"][0]["hashes"] == {"sha256": winner.sha256}


async def test_index_deleted_or_closed_while_an_upload_arrives_takes_nothing(owner: Owner) -> None:
    """404 after it was deleted, 409 after it was made non-volatile, 403 after the right was taken away."""
    body = form(fields_of(OTHER), OTHER.filename, OTHER.content)
    await owner.ask("PUT", "/bob", {"password": "secret"})
    head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(len(body))}
    await owner.put("root/dev", ALPHA)
    for method, given, status in (
        ("PATCH", ["volatile=False"], 409), ("PATCH", ["acl_upload=", "volatile=True"], 403), ("DELETE", None, 404),
    ):  # fmt: skip
        auth = basic("bob", "secret")
        await owner.ask("PATCH", "/root/dev", ["acl_upload=bob"])
        async with await RawClient.connect(owner.teepi.address) as client:
            await client.send("POST", "/root/dev", {**auth, **head})
            await client.send_bytes(body[:-30])
            await until(lambda: any("incoming" in path for path in owner.left))
            assert (await owner.ask(method, "/root/dev", given)).status in {200, 201}
            await client.send_bytes(body[-30:])
            assert (await client.read_answer()).status == status
        assert owner.left == ([] if method == "DELETE" else kept(ALPHA))


async def test_credentials_that_end_while_an_upload_arrives_take_nothing(owner: Owner) -> None:
    """Who asks is found out anew when all has come."""
    body = form(fields_of(OTHER), OTHER.filename, OTHER.content)
    await owner.ask("PUT", "/bob", {"password": "secret"})
    await owner.put("root/dev", ALPHA)
    await owner.ask("PATCH", "/root/dev", ["acl_upload=bob"])
    head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(len(body))}
    async with await RawClient.connect(owner.teepi.address) as client:
        await client.send("POST", "/root/dev", {**basic("bob", "secret"), **head})
        await client.send_bytes(body[:-30])
        await until(lambda: any("incoming" in path for path in owner.left))
        assert (await owner.ask("PATCH", "/bob", {"password": "another"})).status == 200
        await client.send_bytes(body[-30:])
        assert (await client.read_answer()).status == 401
    assert owner.left == kept(ALPHA)


async def test_client_that_leaves_within_its_upload_leaves_nothing(
    owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """By FIN or by RST; nor does it leave a traceback in the log."""
    body = form(fields_of(ALPHA), ALPHA.filename, ALPHA.content)
    head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(len(body))}
    for leave in (RawClient.close, RawClient.abort):
        client = await RawClient.connect(owner.teepi.address)
        await client.send("POST", "/root/dev", {**owner.auth, **head})
        await client.send_bytes(body[:-30])
        await until(lambda: any("incoming" in path for path in owner.left))
        leave(client)
        await until(lambda: not owner.left)
    assert (await owner.json("/root/dev"))["result"]["projects"] == []
    assert "Traceback" not in caplog.text


async def test_client_that_stops_within_its_upload_is_given_up(owner: Owner) -> None:
    """It is told so when it still listens, and nothing is left."""
    body = form(fields_of(ALPHA), ALPHA.filename, ALPHA.content)
    head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(len(body))}
    object.__setattr__(owner.teepi.server.limits, "client_idle_seconds", 0.1)
    async with await RawClient.connect(owner.teepi.address) as client:
        await client.send("POST", "/root/dev", {**owner.auth, **head})
        await client.send_bytes(body[:-30])
        answer = await client.read_answer()
        assert (answer.status, answer.head.reason) == (400, "the upload stopped: nothing came for 0.1 seconds")
    assert owner.left == []


async def test_cancelled_upload_closes_its_file_after_who_uses_it(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread may still write when the handler is cancelled: its descriptor must not be another file's by then."""
    services = owner.teepi.server._services  # noqa: SLF001 - cancelling is done by a server that stops
    assert services is not None
    uploads = services.private.uploads
    incoming = await uploads.begin()
    written, waits = threading.Event(), threading.Event()
    real = incoming.in_use

    class Slow:
        def update(self, _: bytes) -> None:
            assert written.wait(10)
            assert not incoming.file.closed

    class Watched:
        def __enter__(self) -> None:
            if not real.acquire(blocking=False):
                waits.set()
                real.acquire()

        def __exit__(self, *_: object) -> None:
            real.release()

    monkeypatch.setattr(incoming, "_hashes", (Slow(),))
    monkeypatch.setattr(incoming, "in_use", Watched())
    writing = asyncio.create_task(uploads.write(incoming, b"x"))
    await until(real.locked)
    writing.cancel()
    ending = asyncio.create_task(uploads.end(incoming))
    await until(waits.is_set)
    assert not incoming.file.closed
    written.set()
    await ending
    assert owner.left == []


# Disks ----------------------------------------------------------------------------------------------


async def test_disk_that_is_full_answers_503_and_keeps_nothing(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever step fails; a sentence that says what to do, and the next upload works."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in ("Incoming.__init__", "Incoming.write", "Incoming.finish", "make_directories", "sync_directory"):
        with monkeypatch.context() as broken:
            broken.setattr(f"teepi.data.blobs.{step}", full)
            answer = await owner.upload("root/dev", ALPHA)
        assert (answer.status, answer.head.reason) == (
            503, "The disk of teepi's data directory is full: nothing was stored; make room and upload again.",
        )  # fmt: skip
        assert owner.left == []
    assert (await owner.json("/root/dev"))["result"]["projects"] == []
    await owner.put("root/dev", ALPHA)


async def test_database_that_fails_at_its_commit_keeps_nothing(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has its name by then: it loses that again."""
    real = Blobs.keep

    def keep(self: Blobs, incoming: Incoming) -> None:
        real(self, incoming)
        raise sqlite3.OperationalError("disk I/O error")  # where the commit comes next

    with monkeypatch.context() as broken:
        broken.setattr(Blobs, "keep", keep)
        answer = await owner.upload("root/dev", ALPHA)
    assert (answer.status, "disk I/O error" in answer.head.reason) == (503, True)
    assert owner.left == []
    await owner.put("root/dev", ALPHA)
    with monkeypatch.context() as broken:
        broken.setattr(Blobs, "keep", keep)
        assert (await owner.upload("root/prod", ALPHA)).status == 503
    assert owner.left == kept(ALPHA)  # another index has it


# What is kept with a file ---------------------------------------------------------------------------


async def test_attestations_are_kept_and_shown_as_provenance(owner: Owner) -> None:
    """PEP 740: an absolute link in JSON and HTML, and a document with what was uploaded and by whom."""
    attestation = {"version": 1, "envelope": {"statement": "c3Q=", "signature": "c2k="}, "verification_material": {}}
    answer = await owner.upload("root/dev", ALPHA, attestations=json.dumps([attestation]))
    assert answer.status == 200
    page = await owner.get("/root/dev/+simple/alpha/", PAGE)
    assert page.headers["vary"] == "Accept, Accept-Encoding, Host, X-Outside-URL"
    [file] = json.loads(page.body)["files"]
    url = f"http://teepi.example{owner.path('root/dev', ALPHA)}.provenance"
    assert file["provenance"] == url
    html = (await owner.get("/root/dev/+simple/alpha/", HTML)).body.decode()
    assert f'data-provenance="{url}"' in html
    found = await owner.json(url.removeprefix("http://teepi.example"))
    assert found == {
        "version": 1,
        "attestation_bundles": [
            {
                "publisher": {"kind": "teepi", "claims": {"user": "root", "index": "root/dev"}},
                "attestations": [attestation],
            }
        ],
    }
    await owner.put("root/prod", ALPHA)
    assert "provenance" not in (await owner.page("root/prod", "alpha"))["files"][0]
    assert (await owner.get(owner.path("root/prod", ALPHA) + ".provenance")).status == 404
