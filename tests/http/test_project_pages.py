"""Pages of users, indexes, projects and versions for browsers; logging in with one, and changing things."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from teepi.directory import Asker
from tests.support.clients import RawClient, fetch
from tests.support.wheels import sdist, wheel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conftest import MakeTeepi
    from tests.support.clients import Answer
    from tests.support.teepi import Teepi
    from tests.support.upstream import Upstream
    from tests.support.wheels import Distribution

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
OURS = {"Origin": "http://teepi.example", **BROWSER}
PASSWORD = "s3cret"  # noqa: S105 - of a test
BAD = "<script>alert(1)</script>"


def basic(user: str = "admin") -> dict[str, str]:
    """Return the header of a client that is no browser."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()}


async def send(teepi: Teepi, path: str, body: bytes, kind: str, headers: Mapping[str, str]) -> Answer:
    """POST."""
    async with await RawClient.connect(teepi.address) as client:
        length = {"Content-Type": kind, "Content-Length": str(len(body))}
        await client.send("POST", path, {**headers, **length})
        await client.send_bytes(body)
        return await client.read_answer()


async def submit(teepi: Teepi, path: str, headers: Mapping[str, str] | None = None, **fields: str) -> Answer:
    """Send a form as the page of teepi's own would."""
    body = urlencode({key.rstrip("_"): value for key, value in fields.items()}).encode()
    return await send(teepi, path, body, "application/x-www-form-urlencoded", {**OURS, **(headers or {})})


async def upload(
    teepi: Teepi, path: str, file: Distribution, headers: Mapping[str, str], fields: Mapping[str, str | list[str]]
) -> Answer:
    """Send a file as multipart/form-data."""
    named = [(name, each) for name, value in fields.items() for each in ([value] if isinstance(value, str) else value)]
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in named
    ]
    head = f'--x\r\nContent-Disposition: form-data; name="content"; filename="{file.filename}"\r\n\r\n'.encode()
    body = b"".join([*parts, head, file.content, b"\r\n--x--\r\n"])
    return await send(teepi, path, body, "multipart/form-data; boundary=x", headers)


async def put(teepi: Teepi, file: Distribution, index: str = "admin/dev", **fields: Any) -> None:
    """Upload as a client does."""
    answer = await upload(teepi, f"/{index}/", file, basic(), {":action": "file_upload", **fields})
    assert answer.status == 200, answer.head.reason


async def team(teepi: Teepi) -> None:
    """Make ``admin`` with ``dev`` (volatile), ``stable`` (not) and ``secret`` (his alone), and ``guest``."""
    accounts = teepi.server.services.private.accounts
    for name in ("admin", "guest"):
        await accounts.new_user(name, {"password": PASSWORD})
    admin = Asker("admin")
    await accounts.create_index(admin, "admin/dev", {"bases": "root/pypi"})
    await accounts.create_index(admin, "admin/stable", {"volatile": "False"})
    await accounts.create_index(admin, "admin/secret", {"acl_read": ["admin"], "title": "hush"})


async def log_in(teepi: Teepi, user: str = "admin") -> dict[str, str]:
    """Return the cookie of a browser that has logged in."""
    answer = await submit(teepi, "/+session", user=user, password=PASSWORD)
    assert answer.status == 303
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


async def look(teepi: Teepi, path: str, cookie: Mapping[str, str] | None = None, *, status: int = 200) -> str:
    """Return a page as a browser gets it."""
    answer = await fetch(teepi.address, path, {**BROWSER, **(cookie or {})})
    assert answer.status == status
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    return answer.body.decode()


# Reading --------------------------------------------------------------------------------------------


async def test_version_page_shows_what_was_uploaded_and_what_came_of_its_tests(make_teepi: MakeTeepi) -> None:
    """Summary, files with digest and uploader, dependencies in this index, links, licence, install line, test runs."""
    teepi = await make_teepi()
    await team(teepi)
    file = wheel("Demo.Lib", "1.0", summary="What it is", requires=["rich>=14"], requires_python=">=3.9")
    await put(
        teepi, file, license="MIT", description="Some *words*", description_content_type="text/markdown",
        project_urls=["Source, https://git.example/demo"], classifiers=["Topic :: Testing"],
    )  # fmt: skip
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.html", "<h1>Read me</h1>")
    await put(
        teepi, replace(file, filename="docs.zip", content=packed.getvalue()),
        **{":action": "doc_upload", "name": "demo-lib", "version": "1.0"},
    )  # fmt: skip
    run = {"testenvs": {"py311": {"test": [{"retcode": "0"}]}, "py312": {"test": [{"retcode": "1"}]}}}
    sha256 = file.sha256
    path = f"/admin/dev/+f/{sha256[:3]}/{sha256[3:16]}/{file.filename}"
    assert (await send(teepi, path, json.dumps(run).encode(), "application/json", basic())).status == 200
    for url in ("/admin/dev/demo-lib/", "/admin/dev/demo-lib/1.0.0"):
        page = await look(teepi, url)
        for said in (
            *("<title>Demo.Lib 1.0", "What it is", "MIT", "Topic :: Testing", "<em>words</em>", "&gt;=3.9"),
            *(sha256, f"{sha256[:12]}…", "by admin", "py311 passed", "py312 failed", "demo-lib==1.0"),
            *(
                '/admin/dev/rich/">rich</a> <span class="hint">&gt;=14</span>',
                'href="https://git.example/demo" rel="no',
            ),
            "admin/dev has this project, so it hides what root/pypi may have",
        ):
            assert said in page
        assert "delete" not in page  # nobody is logged in
        links = re.findall(r'href="((?:\.\./)+)([^"?]+)"', page)
        assert "admin/dev/demo-lib/1.0/+d/" in {link for _, link in links}
        assert (("../" * (url.count("/") - 1)), path[1:]) in links
    assert (await fetch(teepi.address, "/admin/dev/demo-lib/", BROWSER)).headers["vary"] == "Accept"
    await look(teepi, "/admin/dev/demo-lib/2.0", status=404)
    await look(teepi, f"/admin/dev/demo-lib/{'9' * 5000}", status=404)


async def test_installers_and_devpi_get_their_own_pages_at_the_same_urls(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """Also while the hot path answers: what a browser gets is not what pip gets, whoever came first."""
    upstream.project("demo", {"demo-1.0-py3-none-any.whl": b"x"})
    teepi = await make_teepi()
    for _ in range(3):
        page = await fetch(teepi.address, "/root/pypi/demo/", {"Accept": "text/html"})
        assert b"<main>" not in page.body
        assert b"demo-1.0-py3-none-any.whl" in page.body
        assert b"<main>" in (await fetch(teepi.address, "/root/pypi/demo/", BROWSER)).body
    shown = await fetch(teepi.address, "/root/pypi/demo/", {"Accept": "application/json"})
    assert json.loads(shown.body)["type"] == "projectconfig"
    for short, full in (("/root/pypi/Demo/", "../demo/"), ("/root/pypi/demo", "demo/"), ("/root/pypi", "pypi/")):
        assert (await fetch(teepi.address, short, BROWSER)).headers["location"] == full


async def test_hostile_metadata_is_text_on_every_page(make_teepi: MakeTeepi) -> None:
    """Scripts in names and summaries, URLs that act, a description without end: all shown, nothing acts."""
    teepi = await make_teepi()
    await team(teepi)
    accounts = teepi.server.services.private.accounts
    await accounts.modify_index(Asker("admin"), "admin/dev", {"title": BAD, "description": BAD})
    await accounts.modify_user(Asker("admin"), "admin", {"title": BAD, "description": BAD})
    await put(
        teepi, wheel("demo", "1.0", summary=BAD), description=BAD * 20_000, license=BAD, author=BAD, keywords=BAD,
        home_page="javascript:alert(1)", project_urls=["x, javascript:alert(1)", f"{BAD}, https://x.example/{BAD}"],
        classifiers=[BAD],
    )  # fmt: skip
    for path in ("/", "/admin", "/admin/dev/", "/admin/dev/demo/", f"/admin/dev/?q={quote(BAD)}", "/admin/dev/?q=demo"):
        page = await look(teepi, path)
        assert BAD not in page
        assert "&lt;script&gt;" in page
        assert "javascript:" not in page
    page = await look(teepi, "/admin/dev/demo/")
    assert len(page) < 1_500_000
    assert "The rest of it is left out." in page


async def test_mirrored_project_shows_what_is_cached_and_fetches_no_wheel(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """A look at a page asks for the index page and small core metadata; without these it says so."""
    new, old, bare = wheel("demo", "2.0", summary="What it is"), wheel("demo", "1.0"), wheel("bare", "1.0")
    project = upstream.project(
        "demo", {each.filename: each.content for each in (new, old)}, metadata={new.filename: new.metadata}
    )
    other = upstream.project("bare", {bare.filename: bare.content})
    teepi = await make_teepi()
    page = await look(teepi, "/root/pypi/demo/")
    assert "What it is" in page
    assert ">not cached<" in page
    assert "No metadata of this version" in await look(teepi, "/root/pypi/bare/")
    asked = {request.path for request in upstream.requests}
    assert asked == {"/simple/demo/", "/simple/bare/", project.path(new.filename + ".metadata")}
    await fetch(teepi.address, other.path(bare.filename))
    while ">cached<" not in (page := await look(teepi, "/root/pypi/bare/1")) or "No metadata of this version" in page:
        pass  # what is in the cached wheel is read out soon
    assert upstream.count("GET", other.path(bare.filename)) == 1
    assert 'bare/">bare</a>' in await look(teepi, "/root/pypi/")


async def test_project_of_thousands_of_files_is_cut_and_says_so(upstream: Upstream, make_teepi: MakeTeepi) -> None:
    """Neither versions nor files of one version make a page without end."""
    tags = [f"demo-1.0-py3-none-any{at}.whl" for at in range(250)]
    upstream.project("demo", dict.fromkeys((*tags, *(f"demo-0.{at}.tar.gz" for at in range(350))), b"x"))
    teepi = await make_teepi()
    page = await look(teepi, "/root/pypi/demo/")
    assert page.count(">not cached<") == 200
    assert "and 50 more" in page
    assert "and 51 older ones" in page


async def test_projects_of_an_index_are_listed_page_by_page_and_searched(
    make_teepi: MakeTeepi, monkeypatch: Any
) -> None:
    """The newest version of each, with its summary; a search stays in the index."""
    monkeypatch.setattr("teepi.project_pages.PROJECTS", 2)
    teepi = await make_teepi()
    await team(teepi)
    for name, version in (("aa", "1.0"), ("bb", "1.10"), ("bb", "1.9"), ("bb", "2.0rc1"), ("cc", "1.0")):
        await put(teepi, wheel(name, version, summary=f"about {name} {version}"))
    await put(teepi, wheel("aa-hidden", "1.0"), "admin/secret")
    first, second = await look(teepi, "/admin/dev/"), await look(teepi, "/admin/dev/?page=2")
    assert "about bb 1.10" in first
    assert "Page 1 of 2" in first
    assert "about cc" not in first
    assert "about cc" in second
    assert "about aa" not in second
    found = await look(teepi, "/admin/dev/?q=aa")
    assert "Projects with “aa”" in found
    assert "aa-hidden" not in found


# Logging in -----------------------------------------------------------------------------------------


async def test_login_gives_a_cookie_that_scripts_and_other_sites_do_not_get(make_teepi: MakeTeepi) -> None:
    """HttpOnly, SameSite=Strict, this host, all paths, as long as the token; Secure when the visitor has https."""
    teepi = await make_teepi()
    await team(teepi)
    answer = await submit(teepi, "/+session", user="admin", password=PASSWORD, next="admin/dev/")
    assert (answer.status, answer.headers["location"]) == (303, "./admin/dev/")
    cookie = answer.headers["set-cookie"]
    flags = {each.strip().lower() for each in cookie.split(";")[1:]}
    assert flags == {"httponly", "samesite=strict", "path=/", "max-age=36000"}
    assert PASSWORD not in cookie
    behind_tls = {"X-Outside-URL": "https://teepi.example"}
    answer = await submit(teepi, "/+session", behind_tls, user="admin", password=PASSWORD)
    assert "secure" in answer.headers["set-cookie"].lower()
    for elsewhere in ("//evil.example/", "https://evil.example/", "/\\evil.example", "x\r\nSet-Cookie: a=b"):
        answer = await submit(teepi, "/+session", user="admin", password=PASSWORD, next=elsewhere)
        assert answer.headers["location"].startswith("./")
        assert "evil" not in answer.headers["location"].partition("https:")[0]
    wrong = await submit(teepi, "/+session", user="admin", password="wrong")  # noqa: S106
    assert (wrong.status, "set-cookie" in wrong.headers) == (401, False)
    assert b"could not be authenticated" in wrong.body
    out = await submit(teepi, "/+session", do="logout")
    assert 'teepi-session=""' in out.headers["set-cookie"]


async def test_protected_index_is_hidden_until_its_reader_logs_in(make_teepi: MakeTeepi) -> None:
    """No page names it, its own asks to log in without the browser's dialog, and a wrong user does not get in."""
    teepi = await make_teepi()
    await team(teepi)
    for path in ("/", "/admin"):
        assert "secret" not in await look(teepi, path)
    asked = await fetch(teepi.address, "/admin/secret/", BROWSER)
    assert (asked.status, "Basic" in asked.headers["www-authenticate"]) == (401, False)
    assert b'name="next" value="admin/secret/"' in asked.body
    assert "Basic" in (await fetch(teepi.address, "/admin/secret/+simple/demo/")).headers["www-authenticate"]
    await look(teepi, "/admin/secret/", await log_in(teepi, "guest"), status=403)
    cookie = await log_in(teepi)
    assert "hush" in await look(teepi, "/admin/secret/", cookie)
    assert "secret" in await look(teepi, "/", cookie)
    assert "secret" in await look(teepi, "/admin", cookie)


async def test_cookie_counts_for_pages_and_own_forms_alone(make_teepi: MakeTeepi) -> None:
    """No client of the API is somebody by it, nor is a form that does not say where it is from, nor a forged one."""
    teepi = await make_teepi()
    await team(teepi)
    cookie = await log_in(teepi)
    assert (await fetch(teepi.address, "/admin/secret/+simple/", {"Accept": "*/*", **cookie})).status == 401
    assert (await fetch(teepi.address, "/admin/dev", {**OURS, **cookie}, "DELETE")).status == 403
    fields = urlencode({"index": "admin/dev", "word": "admin/dev"}).encode()
    kind = "application/x-www-form-urlencoded"
    assert (await send(teepi, "/+manage/delete", fields, kind, {**BROWSER, **cookie})).status == 401
    for origin in ("http://evil.example", "http://teepi.example:8000", "null"):
        sent = await submit(teepi, "/+manage/delete", {**cookie, "Origin": origin}, index="admin/dev", word="admin/dev")
        assert sent.status == 403
        assert (await submit(teepi, "/+session", {"Origin": origin}, user="admin", password=PASSWORD)).status == 403
    for told in ("same-site", "cross-site", "none"):
        sent = await submit(teepi, "/+manage/delete", {**cookie, "Sec-Fetch-Site": told}, index="admin/dev")
        assert sent.status == 403
    forged = {"Cookie": cookie["Cookie"][:-2] + "xx"}
    assert (await submit(teepi, "/+manage/delete", forged, index="admin/dev", word="admin/dev")).status == 401
    assert "admin/dev" in await look(teepi, "/")


# Changing -------------------------------------------------------------------------------------------


async def test_files_versions_and_projects_are_deleted_by_who_may_after_a_confirmation(make_teepi: MakeTeepi) -> None:
    """Buttons are there for who may; a GET deletes nothing; others are refused whatever they send."""
    teepi = await make_teepi()
    await team(teepi)
    for file in (wheel("demo", "1.0"), sdist("demo", "1.0"), wheel("demo", "2.0")):
        await put(teepi, file)
    cookie, guest = await log_in(teepi), await log_in(teepi, "guest")
    page = await look(teepi, "/admin/dev/demo/1.0", cookie)
    [link] = re.findall(r'href="[./]+(\+manage/delete[^"]+\.tar\.gz)"', page)
    assert "delete" not in await look(teepi, "/admin/dev/demo/1.0", guest)
    confirm = await look(teepi, "/" + link.replace("&amp;", "&"), cookie)
    assert "Delete demo-1.0.tar.gz?" in confirm
    await look(teepi, "/" + link.replace("&amp;", "&"), guest, status=403)
    given = {"index": "admin/dev", "project": "demo"}
    assert (await submit(teepi, "/+manage/delete", guest, **given)).status == 403
    done = await submit(teepi, "/+manage/delete", cookie, **given, version="1.0", file="demo-1.0.tar.gz")
    assert (done.status, done.headers["location"]) == (303, "../admin/dev/demo/")
    assert "demo-1.0.tar.gz" not in await look(teepi, "/admin/dev/demo/1.0")
    await submit(teepi, "/+manage/delete", cookie, **given, version="2.0")
    await look(teepi, "/admin/dev/demo/2.0", status=404)
    done = await submit(teepi, "/+manage/delete", cookie, **given)
    assert done.headers["location"] == "../admin/dev/"
    assert "Nothing was uploaded yet" in await look(teepi, "/admin/dev/")


async def test_deleting_what_stays_wants_its_name_typed(make_teepi: MakeTeepi) -> None:
    """On an index that is not volatile, and for a whole index; one that is not volatile stays."""
    teepi = await make_teepi()
    await team(teepi)
    await put(teepi, wheel("demo", "1.0"), "admin/stable")
    cookie = await log_in(teepi)
    given = {"index": "admin/stable", "project": "demo", "version": "1.0"}
    assert "Type <strong>demo 1.0</strong>" in await look(teepi, f"/+manage/delete?{urlencode(given)}", cookie)
    assert (await submit(teepi, "/+manage/delete", cookie, **given)).status == 400
    assert (await submit(teepi, "/+manage/delete", cookie, **given, word="demo")).status == 400
    assert "demo" in await look(teepi, "/admin/stable/")
    assert (await submit(teepi, "/+manage/delete", cookie, **given, word="demo 1.0")).status == 303
    assert (await submit(teepi, "/+manage/delete", cookie, index="admin/stable", word="admin/stable")).status == 403
    assert (await submit(teepi, "/+manage/delete", cookie, index="admin/dev")).status == 400
    assert (await submit(teepi, "/+manage/delete", cookie, index="admin/dev", word="admin/dev")).status == 303
    await look(teepi, "/admin/dev/", status=404)


async def test_index_is_created_and_changed_and_a_file_uploaded_by_forms(make_teepi: MakeTeepi) -> None:
    """What the forms show is what holds; a file says itself what it is."""
    teepi = await make_teepi()
    await team(teepi)
    cookie, guest = await log_in(teepi), await log_in(teepi, "guest")
    new = {"user": "admin", "name": "new", "type_": "stage", "title": "New", "bases": "admin/dev, root/pypi"}
    assert (await submit(teepi, "/+manage/create", guest, **new)).status == 403
    made = await submit(teepi, "/+manage/create", cookie, **new)
    assert (made.status, made.headers["location"]) == (303, "../admin/new/")
    assert "Not volatile" in await look(teepi, "/admin/new/")
    form = await look(teepi, "/+manage/index?index=admin/new", cookie)
    assert 'value="admin/dev, root/pypi"' in form
    changed = {
        "title": "Other",
        "bases": "",
        "acl_upload": ":AUTHENTICATED:",
        "acl_read": ":ANONYMOUS:",
        "volatile": "1",
    }
    assert (await submit(teepi, "/+manage/index", guest, index="admin/new", **changed)).status == 403
    assert (await submit(teepi, "/+manage/index", cookie, index="admin/new", **changed)).status == 303
    page = await look(teepi, "/admin/new/")
    assert "everybody who is logged in" in page
    assert "root/pypi" not in page
    assert (await submit(teepi, "/+manage/index", cookie, index="root/pypi", title="x")).status == 403
    file = wheel("demo", "1.0", summary="By hand")
    assert (await upload(teepi, "/+manage/upload?index=admin/dev", file, {**OURS, **guest}, {})).status == 403
    done = await upload(teepi, "/+manage/upload?index=admin/new", file, {**OURS, **guest}, {})
    assert (done.status, done.headers["location"]) == (303, "../admin/new/demo/")
    page = await look(teepi, "/admin/new/demo/")
    assert "By hand" in page
    assert "by guest" in page
    wrong = replace(file, content=b"no wheel")
    answer = await upload(
        teepi, "/+manage/upload?index=admin/new", type(wrong)("x.whl", b"x", b""), {**OURS, **guest}, {}
    )
    assert (answer.status, b"<main>" in answer.body) == (400, True)


async def test_own_password_is_changed_with_the_present_one_and_the_login_goes_on(make_teepi: MakeTeepi) -> None:
    """Other logins end; somebody who finds the browser open does not know the present one."""
    teepi = await make_teepi()
    await team(teepi)
    cookie = await log_in(teepi)
    again = {"new": "n3w", "again": "n3w"}
    assert (await submit(teepi, "/+manage/password", cookie, password="wrong", **again)).status == 400  # noqa: S106
    other = await submit(teepi, "/+manage/password", cookie, password=PASSWORD, new="n3w", again="new")
    assert other.status == 400
    done = await submit(teepi, "/+manage/password", cookie, password=PASSWORD, **again)
    assert done.status == 303
    renewed = {"Cookie": done.headers["set-cookie"].partition(";")[0]}
    assert "hush" in await look(teepi, "/admin/secret/", renewed)
    await look(teepi, "/admin/secret/", cookie, status=401)


async def test_page_warns_of_an_empty_password_of_root(make_teepi: MakeTeepi) -> None:
    """As long as it is empty, whoever looks is told."""
    teepi = await make_teepi(insecure_empty_root=True)
    assert "root has an empty password" in await look(teepi, "/")
    await teepi.server.services.private.accounts.set_password("root", PASSWORD)
    assert "root has an empty password" not in await look(teepi, "/")
