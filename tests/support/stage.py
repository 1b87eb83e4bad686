"""A scripted private index that speaks as much of devpi's protocol as uploading clients need, and remembers all."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from teepi.filenames import project_of_filename

if TYPE_CHECKING:
    from tests.support.wheels import Distribution

PASSWORD = "s3cret"  # noqa: S105 - of a test


@dataclass
class Upload:
    """One POST of a file."""

    index: str
    filename: str
    content: bytes
    fields: list[tuple[str, str]]


@dataclass
class Stage:
    """Users, indexes and files; ``admin/dev`` of user ``admin`` is there from the start."""

    users: dict[str, dict[str, Any]] = field(default_factory=lambda: {"admin": {}, "root": {}})
    indexes: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "admin/dev": {"type": "stage", "acl_upload": ["admin"]},
            "root/pypi": {"type": "mirror"},
        }
    )
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """By index and name: what lies in the index itself."""
    base: dict[str, Distribution] = field(default_factory=dict)
    """By name: what all indexes have from a base."""
    closed: set[str] = field(default_factory=set)
    """Indexes that only who is logged in may read."""
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and reason phrase by file name."""
    uploads: list[Upload] = field(default_factory=list)
    changes: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, path and body of what changed users and indexes."""

    def app(self) -> web.Application:
        """Return the server."""
        app = web.Application()
        app.router.add_get("/{user}/{index}/+api", self._api)
        app.router.add_get("/{user}/{index}/+simple/{project}/", self._page)
        app.router.add_get("/{user}/{index}/+f/{filename}", self._file)
        app.router.add_get("/{user}/{index}/{project}", self._project)
        app.router.add_post("/{user}/{index}/", self._upload)
        for path in ("/{user}", "/{user}/{index}"):
            app.router.add_get(path, self._look)
            app.router.add_route("PUT", path, self._change)
            app.router.add_route("PATCH", path, self._change)
        return app

    @staticmethod
    def _index(request: web.Request) -> str:
        return f"{request.match_info['user']}/{request.match_info['index']}"

    @staticmethod
    def _user(request: web.Request) -> str | None:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(value).decode().partition(":")
        return user if scheme == "Basic" and password == PASSWORD else None

    def _require_read(self, request: web.Request) -> None:
        if self._index(request) in self.closed and self._user(request) is None:
            raise web.HTTPUnauthorized

    async def _api(self, request: web.Request) -> web.Response:
        index = self._index(request)
        if index not in self.indexes:
            return web.json_response({"message": f"The stage {index} could not be found."}, status=404)
        self._require_read(request)
        user = self._user(request)
        status = ["noauth", "", []] if user is None else ["ok", user, []]
        about: dict[str, Any] = {"login": str(request.url.with_path("/+login")), "authstatus": status}
        if self.indexes[index]["type"] == "stage":
            about["pypisubmit"] = str(request.url.with_path(f"/{index}/"))
        return web.json_response({"type": "apiconfig", "result": about})

    async def _page(self, request: web.Request) -> web.Response:
        index, project = self._index(request), request.match_info["project"]
        self._require_read(request)
        own = {name: content for (place, name), content in self.files.items() if place == index}
        names = {**{name: made.content for name, made in self.base.items()}, **own}
        links = [
            f'<a href="../../+f/{name}#sha256={hashlib.sha256(content).hexdigest()}">{name}</a>'
            for name, content in names.items()
            if project_of_filename(name) == project
        ]
        return web.Response(text="<!DOCTYPE html>" + "".join(links), content_type="text/html")

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["filename"]
        self._require_read(request)
        own = self.files.get((self._index(request), name))
        return web.Response(body=own if own is not None else self.base[name].content)

    async def _project(self, request: web.Request) -> web.Response:
        links = [
            {
                "rel": "releasefile",
                "href": f"http://{request.host}/{place}/+f/{name}",
                "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
            }
            for (place, name), content in self.files.items()
            if place == self._index(request) and project_of_filename(name) == request.match_info["project"]
        ]
        return web.json_response({"type": "projectconfig", "result": {"1.0": {"+links": links}}})

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        part = form["content"]
        assert isinstance(part, web.FileField)
        content, index = part.file.read(), self._index(request)
        fields = [(name, str(value)) for name, value in form.items() if name != "content"]
        self.uploads.append(Upload(index, part.filename, content, fields))
        allowed = self.indexes[index]["acl_upload"]
        if self._user(request) not in allowed and ":ANONYMOUS:" not in allowed:
            return web.Response(status=403, reason="no permission to submit")
        if part.filename in self.refusals:
            status, phrase = self.refusals[part.filename]
            return web.Response(status=status, reason=phrase)
        self.files[index, part.filename] = content
        return web.Response()

    async def _look(self, request: web.Request) -> web.Response:
        path = request.path.strip("/")
        found = {**self.users, **self.indexes}.get(path)
        if found is None:
            return web.json_response({"message": f"no {path}"}, status=404)
        return web.json_response({"type": "config", "result": found})

    async def _change(self, request: web.Request) -> web.Response:
        body, path = await request.json(), request.path.strip("/")
        self.changes.append((request.method, path, body))
        if self._user(request) is None:
            return web.json_response({"message": "no permission"}, status=403)
        if request.method == "PATCH":
            [change] = body
            name = change.rpartition("=")[2]
            allowed = self.indexes[path]["acl_upload"]
            (allowed.append if "+=" in change else allowed.remove)(name)
        elif "/" in path:
            self.indexes[path] = {"type": "stage", "acl_upload": [path.partition("/")[0]], **body}
        else:
            self.users[path] = body
        return web.json_response({"type": "config", "result": {}}, status=201 if request.method == "PUT" else 200)
