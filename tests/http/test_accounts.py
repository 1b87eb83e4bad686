"""Who is who: what this server says it is, logging in, users, API tokens, and changes at the same time."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest

from teepi import __version__
from teepi.index_settings import IndexSettings
from tests.http.devpi import AGENT, Devpi, basic, fresh
from tests.http.scene import until
from tests.support.clients import fetch
from tests.support.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from teepi.accounts import Accounts
    from tests.conftest import MakeTeepi
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream

FEATURES = ["push-no-docs", "push-only-docs", "push-register-project", "server-keyvalue-parsing"]
PAGE = "application/vnd.pypi.simple.v1+json"


def accounts(teepi: Teepi) -> Accounts:
    """Return what operators' commands change."""
    return teepi.server.services.private.accounts


# --- what this is


async def test_api_says_where_to_log_in_and_upload(make_teepi: MakeTeepi) -> None:
    """Exactly devpi's keys: of the server, of a user, of a stage, and of a mirror, which takes no uploads."""
    nobody, _ = await fresh(make_teepi)
    ann = await nobody.user("ann")
    await ann.put("/ann/dev")
    url = "http://teepi.example"
    server = {"login": f"{url}/+login", "authstatus": ["noauth", "", []], "features": FEATURES}
    for path in ("/+api", "/+api/", "/ann/+api", "/nobody/+api"):
        assert (await nobody.call("GET", path)).json == {"type": "apiconfig", "result": server}
    mirror = {**server, "index": f"{url}/root/pypi", "simpleindex": f"{url}/root/pypi/+simple/"}
    assert await nobody.get("/root/pypi/+api") == mirror
    stage = {"index": f"{url}/ann/dev", "simpleindex": f"{url}/ann/dev/+simple/", "pypisubmit": f"{url}/ann/dev/"}
    assert await ann.get("/ann/dev/+api") == {**server, "authstatus": ["ok", "ann", []], **stage}
    absent = await nobody.call("GET", "/ann/nope/+api")
    assert (absent.status, absent.message) == (404, "The stage ann/nope could not be found.")


async def test_links_of_api_begin_with_the_outside_url(make_teepi: MakeTeepi) -> None:
    """Of a proxy's header, or of the settings, which come first."""
    nobody, root = await fresh(make_teepi)
    await root.put("/root/dev")
    proxied = {"X-Outside-URL": "https://b.example/sub"}
    for base in ("https://b.example/sub", "https://a.example"):
        if base == "https://a.example":
            nobody.teepi.server.reload(replace(nobody.teepi.settings, outside_url=base))
        found = (await nobody.call("GET", "/root/dev/+api", headers=proxied)).result
        links = [found[key] for key in ("login", "index", "simpleindex", "pypisubmit")]
        ends = ("/+login", "/root/dev", "/root/dev/+simple/", "/root/dev/")
        assert links == [f"{base}{end}" for end in ends]


async def test_status_is_devpis_and_what_monitors_read(make_teepi: MakeTeepi) -> None:
    """``devpi --version`` prints versioninfo; the same document for all, with the keys that it always had."""
    nobody, _ = await fresh(make_teepi)
    found = (await nobody.call("GET", "/+status")).json
    assert found["type"] == "status"
    assert found["result"]["versioninfo"] == {"teepi": __version__, "devpi-server": "6.20.3"}
    host, port = nobody.teepi.address
    assert {key: found["result"][key] for key in ("role", "host", "port", "outside-url")} == {
        "role": "MASTER", "host": host, "port": port, "outside-url": None,
    }  # fmt: skip
    assert ["hits", "counter", 0] in found["result"]["metrics"]
    assert len(found["result"]["uuid"]) == 32
    monitored = json.loads((await fetch(nobody.teepi.address, "/+status")).body)
    assert set(monitored) == set(found)
    assert {"version", "uptime_seconds", "in_flight", "counters", "day", "cache", "problems"} < set(monitored)


async def test_devpis_clients_are_told_with_every_answer_what_this_is(
    make_teepi: MakeTeepi, upstream: Upstream
) -> None:
    """Errors, pages, lists and files; they warn otherwise. Installers get neither the header nor slower answers."""
    upstream.project("demo", {"demo-1.0.tar.gz": b"x"})
    teepi = await make_teepi()
    page = "/root/pypi/+simple/demo/"
    [file] = json.loads((await fetch(teepi.address, page, {"Accept": PAGE})).body)["files"]
    link = urljoin(page, file["url"])
    for path in (
        page,
        page,
        "/root/pypi/+simple/",
        link,
        link,
        page,
        "/nowhere",
        "/root/pypi/+simple/Demo",
        "/healthz",
    ):
        answer = await fetch(teepi.address, path, {"User-Agent": AGENT, "Accept": "*/*"})
        assert answer.headers["x-devpi-api-version"] == "2", path
    await until(lambda: not list(teepi.server.registry))  # only what is in the cache becomes hot
    for path in (page, link, page, link):
        assert "x-devpi-api-version" not in (await fetch(teepi.address, path, {"Accept": "*/*"})).headers
    assert teepi.server.metrics.hot_answers == 2


async def test_get_with_a_body_is_answered(make_teepi: MakeTeepi) -> None:
    """``devpi use -l`` sends one; the connection goes on."""
    nobody, _ = await fresh(make_teepi)
    reply = await nobody.call("GET", "/", b"{}")
    assert reply.status == 200
    assert reply.json["type"] == "list:userconfig"
    assert reply.headers.get("connection") != "close"


# --- logging in


async def test_login_gives_a_token(make_teepi: MakeTeepi) -> None:
    """Ten hours of it, in devpi's words; wrong ones are 401 and what is no login 400."""
    nobody, _ = await fresh(make_teepi)
    await nobody.user("ann")
    reply = await nobody.call("POST", "/+login", {"user": "ann", "password": "pw"})
    assert (reply.status, set(reply.json)) == (200, {"type", "message", "result"})
    assert (reply.json["type"], reply.json["message"]) == ("proxyauth", "login successful")
    assert (set(reply.result), reply.result["expiration"]) == ({"password", "expiration"}, 36000)
    assert reply.result["password"].isascii()
    for user, password in (("ann", "no"), ("bob", "pw"), ("ann", "")):
        wrong = await nobody.call("POST", "/+login", {"user": user, "password": password})
        assert (wrong.status, wrong.message) == (401, f"user '{user}' could not be authenticated")
        assert wrong.reason == "Unauthorized"  # which devpi's client looks for
    wrong_ones: list[Any] = [{}, {"user": "ann"}, {"password": "pw"}, {"user": 1, "password": "pw"}, [], None]
    for body in wrong_ones:
        bad = await nobody.call("POST", "/+login", body)
        assert (bad.status, bad.message) == (400, "Bad request: no user/password specified")
    for garbage in (b"{", b'{"user": NaN}', b"\xff"):
        bad = await nobody.call("POST", "/+login", garbage)
        assert (bad.status, bad.message) == (400, "Bad request: could not decode json")


async def test_password_and_token_are_taken_in_both_headers_and_wrong_ones_are_nobody(make_teepi: MakeTeepi) -> None:
    """Without an error; a token is its user's alone."""
    nobody, _ = await fresh(make_teepi)
    ann = await nobody.user("ann")
    await nobody.user("bob")
    token = (await nobody.call("POST", "/+login", {"user": "ann", "password": "pw"})).result["password"]
    for user, secret, who in (("ann", "pw", "ann"), ("ann", token, "ann"), ("bob", token, None), ("ann", "x", None),
                              ("no", "pw", None), ("ann", token[:-1], None)):  # fmt: skip
        assert await Devpi(ann.teepi, {"X-Devpi-Auth": basic(user, secret)}).who() == who
        assert await Devpi(ann.teepi, {"Authorization": f"Basic {basic(user, secret)}"}).who() == who
    assert await Devpi(ann.teepi, {"X-Devpi-Auth": "%%%"}).who() is None
    both = {"X-Devpi-Auth": basic("ann", "x"), "Authorization": f"Basic {basic('ann', 'pw')}"}
    assert await Devpi(ann.teepi, both).who() is None


async def test_token_that_has_ended_is_no_guess_at_a_password(make_teepi: MakeTeepi) -> None:
    """A client that goes on sending it keeps nobody of that name out, however often."""
    nobody, _ = await fresh(make_teepi)
    ann = await nobody.user("ann")
    assert (await ann.call("PATCH", "/ann", {"password": "new"})).status == 200
    for _ in range(30):
        assert await ann.who() is None
    assert await nobody.using("ann", "new").who() == "ann"


async def test_too_many_wrong_passwords_are_429_for_who_sends_them(make_teepi: MakeTeepi) -> None:
    """And nobody else: another user logs in."""
    nobody, _ = await fresh(make_teepi)
    await nobody.user("ann")
    await nobody.user("bob")
    replies = [await nobody.call("POST", "/+login", {"user": "ann", "password": str(at)}) for at in range(30)]
    assert replies[-1].status == 429
    assert int(replies[-1].headers["retry-after"]) > 0
    assert await (await nobody.login("bob", "pw")).who() == "bob"


async def test_tokens_and_passwords_end_with_a_new_password_and_with_their_user(make_teepi: MakeTeepi) -> None:
    """At once; the answer to the change has a new token. A user of the same name later is another one."""
    nobody, root = await fresh(make_teepi)
    ann = await nobody.user("ann")
    reply = await ann.call("PATCH", "/ann", {"password": "new"})
    assert (reply.status, set(reply.json)) == (200, {"type", "message", "result"})
    assert (reply.json["type"], reply.json["message"]) == ("userpassword", "user updated, new proxy auth")
    assert (set(reply.result), reply.result["expiration"]) == ({"password", "expiration"}, 36000)
    renewed = nobody.using("ann", reply.result["password"])
    assert [await each.who() for each in (ann, nobody.using("ann", "pw"), renewed)] == [None, None, "ann"]
    assert (await root.call("PATCH", "/ann", {"password": "roots"})).status == 200
    assert [await each.who() for each in (renewed, nobody.using("ann", "roots"))] == [None, "ann"]
    last = await nobody.login("ann", "roots")
    assert (await last.call("DELETE", "/ann")).message == "user 'ann' deleted"
    assert await last.who() is None
    assert (await last.call("PUT", "/ann/dev", {})).message == "no user 'ann'"
    await nobody.put("/ann", {"password": "roots"})
    assert await last.who() is None


async def test_tokens_outlive_a_restart(make_teepi: MakeTeepi) -> None:
    """And so do users, with all that is said of them, and their indexes."""
    nobody, _ = await fresh(make_teepi)
    ann = await nobody.user("ann")
    await ann.call("PATCH", "/ann", {"email": "a@b.example"})
    await ann.put("/ann/dev", {"title": "x"})
    shown = await ann.get("/ann")
    again = await ann.teepi.restarted()
    try:
        assert await Devpi(again, ann.headers).get("/ann") == shown
        assert await Devpi(again, ann.headers).who() == "ann"
    finally:
        await again.stop()


async def test_root_cannot_log_in_until_a_password_was_set_on_the_machine(make_teepi: MakeTeepi) -> None:
    """The 401 says what to do."""
    nobody = Devpi(await make_teepi())
    for password in ("", "root"):
        reply = await nobody.call("POST", "/+login", {"user": "root", "password": password})
        assert reply.status == 401
        assert reply.message.startswith("user 'root' could not be authenticated: root has no password yet")
        assert "teepi user passwd root" in reply.message
    assert await nobody.using("root", "").who() is None
    await accounts(nobody.teepi).set_password("root", "pw")
    assert await (await nobody.login("root", "pw")).who() == "root"
    assert "teepi user" not in (await nobody.call("POST", "/+login", {"user": "root", "password": ""})).message


async def test_empty_root_logs_in_only_with_the_setting_and_until_it_has_a_password(make_teepi: MakeTeepi) -> None:
    """Its tokens end with that; a client may set it as well as an operator, and it stays set."""
    nobody, root = await fresh(make_teepi)
    assert [await each.who() for each in (root, nobody.using("root", ""))] == ["root", "root"]
    assert await nobody.using("root", "x").who() is None
    for password in ("other", "", "pw"):  # devpi's own tests take a password back
        assert (await root.call("PATCH", "/root", {"password": password})).status == 200
        former, root = root, nobody.using("root", password)
        assert [await each.who() for each in (former, root)] == [None, "root"]
    assert await nobody.using("root", "").who() is None
    again = await nobody.teepi.restarted()
    try:
        assert await Devpi(again).using("root", "").who() is None
        assert await Devpi(again).using("root", "pw").who() == "root"
    finally:
        await again.stop()


# --- users


async def test_user_is_made_by_anyone_and_shown_without_secrets(make_teepi: MakeTeepi) -> None:
    """201 with exactly what GET says; who is there already is 409, and a password is needed."""
    nobody, _ = await fresh(make_teepi)
    given = {"password": "pw", "email": "a@b.example", "title": "T", "description": "D", "custom_data": {"a": [1]}}
    reply = await nobody.call("PUT", "/ann", given)
    created = reply.result["created"]
    del given["password"]
    user = {"created": created, "indexes": {}, "username": "ann", **given}
    assert (reply.status, reply.json) == (201, {"type": "userconfig", "result": user})
    assert len(created) == len("2026-11-20T22:00:13Z")
    for path in ("/ann", "/ann/"):
        assert (await nobody.call("GET", path)).json == {"type": "userconfig", "result": user}
    assert (await nobody.call("GET", "/")).json == {
        "type": "list:userconfig",
        "result": {"ann": user, "root": await nobody.get("/root")},
    }
    assert list((await nobody.get("/root"))["indexes"]) == ["pypi"]
    again = await nobody.call("PUT", "/ann", {"password": "pw"})
    assert (again.status, again.message, again.reason) == (409, "user already exists", "Conflict")
    wrong: list[Any] = [{}, {"password": ""}, {"password": None}, {"password": 5}, None]
    for body in wrong:
        bad = await nobody.call("PUT", "/bob", body)
        assert (bad.status, bad.message) == (400, "password needs to be set")
    for body, words in (([], "one JSON object"), ({"password": "x", "foo": 1}, "a user has no 'foo'"),
                        ({"password": "x", "email": 5}, "email is a text"), (b"{", "could not decode json"),
                        ({"password": "x", "custom_data": "x" * 10_001}, "custom_data is too long")):  # fmt: skip
        bad = await nobody.call("PUT", "/bob", body)
        assert (bad.status, words in bad.message) == (400, True)
    bad = await nobody.call("PUT", "/b%20b", {"password": "x"})
    assert (bad.status, bad.message[:40]) == (400, "'b b' is not the name of a user: one has")
    absent = await nobody.call("GET", "/bob")
    assert (absent.status, absent.message) == (404, "no user 'bob'")


async def test_empty_password_of_a_user_is_for_trying_out_alone(make_teepi: MakeTeepi) -> None:
    """Without the setting none is taken, and one from before lets nobody in."""
    nobody, _ = await fresh(make_teepi)
    ann = await nobody.user("ann")
    assert (await ann.call("PATCH", "/ann", {"password": ""})).status == 200
    assert await nobody.using("ann", "").who() == "ann"
    again = await nobody.teepi.restarted(insecure_empty_root=False)
    try:
        assert await Devpi(again).using("ann", "").who() is None
        await accounts(again).set_password("ann", "pw")
        refused = await Devpi(again).using("ann", "pw").call("PATCH", "/ann", {"password": ""})
        assert (refused.status, refused.message) == (400, "password needs to be set")
    finally:
        await again.stop()


async def test_user_is_changed_by_himself_and_root(make_teepi: MakeTeepi) -> None:
    """Clients send back all that they were shown; what is sent empty is taken back."""
    nobody, root = await fresh(make_teepi)
    ann, bob = await nobody.user("ann"), await nobody.user("bob")
    shown = await ann.get("/ann")
    for who, change in ((ann, {**shown, "email": "a@b.example", "title": "T"}), (root, {"title": ""})):
        reply = await who.call("PATCH", "/ann", change)
        assert (reply.status, reply.message) == (200, "user updated")
    assert await ann.get("/ann") == {**shown, "email": "a@b.example"}
    for who, words in ((bob, "no permission to modify user ann"),
                       (nobody, "no permission to modify user ann; nobody is logged in")):  # fmt: skip
        refused = await who.call("PATCH", "/ann", {"email": "x"})
        assert (refused.status, refused.message) == (403, words)
    for who in (ann, nobody):
        absent = await who.call("PATCH", "/nope", {"email": "x"})
        assert (absent.status, absent.message) == (404, "no user 'nope'")
    nonsense: list[Any] = [{"foo": 1}, [], ["email=x"], {"password": 5}]
    for change in nonsense:
        assert (await ann.call("PATCH", "/ann", change)).status == 400
    assert await ann.who() == "ann"


async def test_user_is_deleted_with_his_volatile_indexes(make_teepi: MakeTeepi) -> None:
    """By himself or root; not root itself, nor who has an index that is kept."""
    nobody, root = await fresh(make_teepi)
    ann, bob = await nobody.user("ann"), await nobody.user("bob")
    await ann.put("/ann/kept", {"volatile": "False"})
    await ann.put("/ann/dev")
    await bob.put("/bob/above", {"bases": "ann/dev"})
    for who, name, status, words in (
        (bob, "ann", 403, "no permission to delete user ann"),
        (nobody, "ann", 403, "no permission to delete user ann; nobody is logged in"),
        (ann, "ann", 403, "user 'ann' has the non-volatile index ann/kept, cannot delete"),
        (root, "root", 403, "the user root cannot be deleted"),
        (root, "nope", 404, "no user 'nope'"),
    ):
        refused = await who.call("DELETE", f"/{name}")
        assert (refused.status, refused.message) == (status, words)
    await ann.patch("/ann/kept", {"volatile": True})
    assert (await root.call("DELETE", "/ann")).message == "user 'ann' deleted"
    for path in ("/ann", "/ann/dev", "/ann/kept"):
        assert (await nobody.call("GET", path)).status == 404
    assert (await bob.call("GET", "/bob/above")).status == 200
    assert sorted(await nobody.get("/")) == ["bob", "root"]


async def test_restrict_modify_lets_nobody_else_make_or_change_users_and_indexes(make_teepi: MakeTeepi) -> None:
    """In every verb, and root still does; his own password a user may always change."""
    nobody, root = await fresh(make_teepi)
    ann, bob = await nobody.user("ann"), await nobody.user("bob")
    await ann.put("/ann/dev")
    nobody.teepi.server.reload(replace(nobody.teepi.settings, restrict_modify=("bob",)))
    for who in (nobody, ann):
        for method, path, body in (("PUT", "/new", {"password": "x"}), ("PUT", "/ann/new", {}),
                                   ("PATCH", "/ann/dev", {"title": "x"}), ("DELETE", "/ann/dev", None),
                                   ("PATCH", "/bob", {"email": "x"}), ("DELETE", "/ann", None)):  # fmt: skip
            assert (await who.call(method, path, body)).status == 403, (method, path)
    assert (await ann.call("PATCH", "/ann", {"email": "x"})).status == 200
    await bob.put("/new", {"password": "x"})
    await bob.put("/ann/new")
    await root.patch("/ann/dev", {"title": "x"})
    assert [(await bob.call("DELETE", path)).status for path in ("/ann/dev", "/ann")] == [201, 200]


async def test_indexes_of_the_settings_are_listed_under_an_owner_without_an_account(
    make_teepi: MakeTeepi, upstream: Upstream
) -> None:
    """``devpi use -l`` shows them; he cannot log in, and anybody may become a user of that name."""
    teepi = await make_teepi(indexes=_settings_with_team(upstream))
    nobody = Devpi(teepi)
    shown = await nobody.get("/team")
    assert (list(shown), shown["username"], list(shown["indexes"])) == (["indexes", "username"], "team", ["all"])
    assert (await nobody.get("/"))["team"] == shown
    assert "created" in await nobody.put("/team", {"password": "x"})


def _settings_with_team(upstream: Upstream) -> dict[str, Any]:
    return {"root/pypi": IndexSettings(upstream.index_url), "team/all": IndexSettings(bases=("root/pypi",))}


# --- API tokens


async def token_of(teepi: Teepi, user: str, **options: Any) -> tuple[str, str]:
    """Make an API token as an operator; return its text and id."""
    given: dict[str, Any] = {"index": None, "may_upload": True, "may_read": True, "description": "", "seconds": None}
    text, token = await accounts(teepi).create_token(user, **{**given, **options})
    return text, token.id


async def test_api_token_is_a_password_of_its_user_until_it_is_revoked_or_expires(make_teepi: MakeTeepi) -> None:
    """Under his name or ``__token__``, in both headers; no other's, and gone with him."""
    nobody, root = await fresh(make_teepi)
    await nobody.user("ann")
    text, identity = await token_of(nobody.teepi, "ann")
    ended, _ = await token_of(nobody.teepi, "ann", seconds=-1.0)
    for user, who in (("ann", "ann"), ("__token__", "ann"), ("root", None), ("bob", None)):
        assert await nobody.using(user, text).who() == who
        assert await Devpi(nobody.teepi, {"Authorization": f"Basic {basic(user, text)}"}).who() == who
    assert await nobody.using("ann", ended).who() is None
    assert await nobody.using("ann", text[:-1] + "-").who() is None
    await accounts(nobody.teepi).revoke_token(identity)
    assert await nobody.using("ann", text).who() is None
    other, _ = await token_of(nobody.teepi, "ann")
    assert (await root.call("DELETE", "/ann")).status == 200
    await nobody.put("/ann", {"password": "pw"})
    assert await nobody.using("ann", other).who() is None


async def test_api_token_does_what_it_is_for(make_teepi: MakeTeepi) -> None:
    """Uploading or reading, on one index or all, as twine and pip send it."""
    nobody, _ = await fresh(make_teepi)
    ann = await nobody.user("ann")
    for index in ("ann/dev", "ann/other"):
        await ann.put(f"/{index}", {"acl_read": "ann"})
        assert (await ann.upload(index, wheel("demo"), "demo")).status == 200

    async def does(**options: Any) -> list[int]:
        secret, _ = await token_of(nobody.teepi, "ann", **options)
        session = Devpi(nobody.teepi, {"Authorization": f"Basic {basic('__token__', secret)}"})
        uploads = [(await session.upload(index, wheel("demo"), "demo")).status for index in ("ann/dev", "ann/other")]
        pages = [(await session.fetch(f"/{index}/+simple/demo/")).status for index in ("ann/dev", "ann/other")]
        return uploads + pages

    assert await does() == [200, 200, 200, 200]
    assert await does(index="ann/dev") == [200, 403, 200, 403]
    assert await does(may_read=False) == [200, 200, 403, 403]
    assert await does(may_upload=False) == [403, 403, 200, 200]


async def test_api_token_changes_no_users_and_no_indexes(make_teepi: MakeTeepi) -> None:
    """Whatever it allows, and root's neither."""
    nobody, _ = await fresh(make_teepi)
    await (await nobody.user("ann")).put("/ann/dev")
    for user in ("ann", "root"):
        secret, _ = await token_of(nobody.teepi, user)
        session = nobody.using("__token__", secret)
        for method, path, body in (("PATCH", "/ann", {"password": "x"}), ("DELETE", "/ann", None),
                                   ("PUT", "/ann/new", {}), ("PATCH", "/ann/dev", ["title=x"]),
                                   ("DELETE", "/ann/dev", None)):  # fmt: skip
            refused = await session.call(method, path, body)
            assert (refused.status, "an API token changes no users" in refused.message) == (403, True)


async def test_api_token_logs_in_as_itself_and_gets_no_more_than_it_is(make_teepi: MakeTeepi) -> None:
    """Devpi's clients know no other way to use one: what they get is the token, as long as it holds."""
    nobody, _ = await fresh(make_teepi)
    await (await nobody.user("ann")).put("/ann/dev")
    secret, _ = await token_of(nobody.teepi, "ann")
    result = await nobody.call("POST", "/+login", {"user": "ann", "password": secret})
    assert (result.status, result.result["password"]) == (200, secret)
    assert (await nobody.call("POST", "/+login", {"user": "root", "password": secret})).status == 401
    assert (await nobody.call("POST", "/+login", {"user": "ann", "password": secret[:-1] + "-"})).status == 401


# --- at the same time


async def test_of_two_who_make_the_same_user_at_once_one_gets_409(make_teepi: MakeTeepi) -> None:
    """And the other is the user."""
    nobody, _ = await fresh(make_teepi)
    replies = await asyncio.gather(*(nobody.call("PUT", "/ann", {"password": each}) for each in ("one", "two")))
    assert sorted(reply.status for reply in replies) == [201, 409]
    winner = "one" if replies[0].status == 201 else "two"
    assert await (await nobody.login("ann", winner)).who() == "ann"


async def test_changes_of_one_user_at_once_all_hold(make_teepi: MakeTeepi) -> None:
    """The new password does not undo the title, nor the title the e-mail."""
    nobody, _ = await fresh(make_teepi)
    ann = await nobody.user("ann")
    changes = ({"password": "new"}, {"title": "T"}, {"email": "a@b.example"}, {"description": "D"})
    replies = await asyncio.gather(*(ann.call("PATCH", "/ann", change) for change in changes))
    assert [reply.status for reply in replies] == [200] * 4
    shown = await nobody.get("/ann")
    assert (shown["title"], shown["email"], shown["description"]) == ("T", "a@b.example", "D")
    assert await nobody.using("ann", "new").who() == "ann"


async def test_index_is_not_made_for_a_user_who_is_deleted_at_the_same_time(make_teepi: MakeTeepi) -> None:
    """One of the two comes first; no index is left without an owner."""
    nobody, _ = await fresh(make_teepi)
    ann = await nobody.user("ann")
    made, deleted = await asyncio.gather(ann.call("PUT", "/ann/dev", {}), ann.call("DELETE", "/ann"))
    assert deleted.status == 200
    assert made.status in {200, 403, 404}
    assert (await nobody.call("GET", "/ann/dev")).status == 404


async def test_users_that_are_made_do_not_empty_the_hot_path(make_teepi: MakeTeepi, upstream: Upstream) -> None:
    """Anyone may make them; only what an index shows takes answers out."""
    upstream.project("demo", {})
    nobody, root = await fresh(make_teepi, has_built_in=False)
    for _ in range(2):
        await nobody.fetch("/simple/demo/")
    metrics = nobody.teepi.server.metrics
    await nobody.user("ann")
    before = metrics.hot_answers
    await nobody.fetch("/simple/demo/")
    assert metrics.hot_answers == before + 1
    await root.put("/root/dev")
    await nobody.fetch("/simple/demo/")
    assert metrics.hot_answers == before + 1


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_change_from_another_site_is_refused_before_anything_is_looked_at(
    make_teepi: MakeTeepi,
    method: str,
    tmp_path: Path,  # noqa: ARG001 - of the fixtures
) -> None:
    """A web page cannot make users, though anyone may."""
    nobody, _ = await fresh(make_teepi)
    refused = await nobody.call(method, "/ann", {"password": "x"}, {"Origin": "http://evil.example"})
    assert refused.status == 403
    assert (await nobody.call("GET", "/ann")).status == 404
