"""Forms of the pages for people that change something. Each is shown first, with what will happen, and then sent.

That a form is of our own page, and not of somebody else's, is seen by ``guard`` (Host, Origin) and by the cookie, which
no other site can have sent (SameSite). Who may is asked of the same places as for devpi's clients.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from packaging.utils import canonicalize_name

from teepi.errors import BadRequest, BadUpload, Forbidden, NotFound, Unauthorized
from teepi.index_config import check_index_name
from teepi.web.forms import read_form
from teepi.web.requests import form_body
from teepi.web.ui.session import see_other
from teepi.web.ui.view import path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web
    from aiohttp.web_request import BaseRequest

    from teepi.accounts import Accounts
    from teepi.directory import Asker
    from teepi.index_config import IndexConfig
    from teepi.live import Live
    from teepi.stages import Stages
    from teepi.uploads import Uploads
    from teepi.web.gate import Gate
    from teepi.web.ui.session import SessionHandlers
    from teepi.web.ui.view import Views

_ROOT: Final = "../"  # from /+manage/WHAT
_STAGE_TEXTS: Final = ("title", "bases", "acl_upload", "acl_read", "mirror_whitelist")
_MIRROR_TEXTS: Final = ("title", "mirror_url", "acl_read")


class ManageUi:
    """``/+manage/{what}``: ``GET`` shows a form, ``POST`` does it and goes on to a page."""

    def __init__(
        self,
        accounts: Accounts,
        gate: Gate,
        stages: Stages,
        uploads: Uploads,
        views: Views,
        live: Live,
        session: SessionHandlers,
        *,
        idle_seconds: float,
    ) -> None:
        """Ask these; ``session`` gives a new login token after a new password. Uploads may pause ``idle_seconds``."""
        self._idle_seconds = idle_seconds
        self._accounts = accounts
        self._gate = gate
        self._stages = stages
        self._uploads = uploads
        self._views = views
        self._live = live
        self._session = session

    async def show(self, request: BaseRequest, what: str) -> web.StreamResponse:
        """``GET``."""
        asker = await self._asker(request)
        given = request.rel_url.query
        match what:
            case "delete":
                return await self._show_delete(request, asker, given)
            case "index":
                return self._show_index(request, asker, given)
            case "create":
                self._require_owner(asker, given.get("user", ""))
                return self._views.page("manage_create.html", request=request, owner=given.get("user", ""))
            case "password":
                return self._views.page("manage_password.html", request=request, problem="")
            case "upload":
                index = self._uploadable(asker, given.get("index", "")).name
                return self._views.page("manage_upload.html", request=request, index=index)
        raise NotFound("There is no such form here.")

    async def do(self, request: BaseRequest, what: str) -> web.StreamResponse:
        """``POST``."""
        asker = await self._asker(request)
        if what == "upload":
            return await self._upload(request, asker)
        given = await form_body(request)
        match what:
            case "delete":
                return await self._delete(asker, given)
            case "index":
                return await self._change_index(asker, given)
            case "create":
                return await self._create_index(asker, given)
            case "password":
                return await self._change_password(request, asker, given)
        raise NotFound("There is no such form here.")

    async def _asker(self, request: BaseRequest) -> Asker:
        asker = await self._gate.asker(request)
        if asker.user is None:
            raise Unauthorized("Log in first: this is for those who may change something.")
        return asker

    def _uploadable(self, asker: Asker, index: str) -> IndexConfig:
        """Return the stage that ``asker`` may change the content of."""
        config = self._accounts.directory.require(index)
        if config is None or not config.is_stage:
            raise NotFound(f"{index[:100]} is a mirror: nothing is uploaded to it or deleted from it.")
        self._accounts.directory.require_upload(asker, config, time.time())
        return config

    def _require_owner(self, asker: Asker, user: str) -> None:
        self._accounts.directory.require_user(user)
        self._accounts.directory.require_owner(
            asker, user, f"change indexes of {user}", self._live.settings.restrict_modify
        )

    def _ownable(self, asker: Asker, index: str) -> IndexConfig:
        config = self._accounts.directory.require(index)
        if config is None:
            raise Forbidden(f"{index} is in the configuration file of this teepi: change it there.")
        self._require_owner(asker, config.user)
        return config

    # -- deleting ------------------------------------------------------------------------------------

    async def _show_delete(self, request: BaseRequest, asker: Asker, given: Mapping[str, str]) -> web.StreamResponse:
        index, project, version, filename = (given.get(key, "") for key in ("index", "project", "version", "file"))
        if not project:
            config = self._ownable(asker, index)
            count = len(await self._stages.own_projects(index)) if config.is_stage else 0
            what, word, lost = f"the index {index}", index, f"{count} projects" if count else ""
        else:
            config = self._uploadable(asker, index)
            releases = await self._stages.releases(index, canonicalize_name(project), version or None, with_bases=False)
            names = [file.filename for release in releases for file in release.files]
            if filename:
                names = [name for name in names if name == filename]
            if not releases or (filename and not names):
                raise NotFound(f"There is no such thing in {index} any more.")
            what = filename or (f"version {version} of {project}" if version else f"all versions of {project}")
            word = filename or (f"{project} {version}" if version else project)
            lost = "" if filename else ", ".join(names[:20]) + (f" and {len(names) - 20} more" if names[20:] else "")
        needs_word = not project or not config.is_volatile
        return self._views.page(
            "manage_delete.html",
            request=request,
            given={"index": index, "project": project, "version": version, "file": filename},
            what=what, lost=lost, word=word, needs_word=needs_word, is_volatile=config.is_volatile,
            back=path("/".join(part for part in (index, project) if part) + "/"),
        )  # fmt: skip

    async def _delete(self, asker: Asker, given: Mapping[str, str]) -> web.StreamResponse:
        index, project, version, filename = (given.get(key, "") for key in ("index", "project", "version", "file"))
        typed = given.get("word", "").strip()
        if not project:
            self._ownable(asker, index)
            _require_word(typed, index)
            await self._accounts.delete_index(asker, index)
            return see_other(path(index.partition("/")[0]), _ROOT)
        config = self._uploadable(asker, index)
        name = canonicalize_name(project)
        force = not config.is_volatile
        if force:
            _require_word(typed, filename or (f"{project} {version}" if version else project))
        if filename:
            releases = await self._stages.releases(index, name, version or None, with_bases=False)
            file = next((each for release in releases for each in release.files if each.filename == filename), None)
            if file is None:
                raise NotFound(f"{filename[:200]} is gone from {index} already.")
            await self._uploads.delete_file(config, file, force=force)
        elif version:
            await self._uploads.delete_version(config, name, version, force=force)
        else:
            await self._uploads.delete_project(config, name, force=force)
        rest = await self._stages.releases(index, name, with_bases=False)
        return see_other(path(f"{index}/{name}/" if rest else f"{index}/"), _ROOT)

    # -- indexes -------------------------------------------------------------------------------------

    def _show_index(self, request: BaseRequest, asker: Asker, given: Mapping[str, str]) -> web.StreamResponse:
        config = self._ownable(asker, given.get("index", ""))
        shown = config.shown()
        texts = {key: _joined(shown.get(key, "")) for key in (_STAGE_TEXTS if config.is_stage else _MIRROR_TEXTS)}
        texts["acl_read"] = ", ".join(config.acl_read)
        return self._views.page(
            "manage_index.html", request=request, index=config.name, is_stage=config.is_stage, texts=texts,
            is_volatile=config.is_volatile,
        )  # fmt: skip

    async def _change_index(self, asker: Asker, given: Mapping[str, str]) -> web.StreamResponse:
        config = self._ownable(asker, given.get("index", ""))
        wanted: dict[str, Any] = {
            key: given[key].strip() for key in (_STAGE_TEXTS if config.is_stage else _MIRROR_TEXTS) if key in given
        }
        wanted["volatile"] = "volatile" in given
        await self._accounts.modify_index(asker, config.name, wanted)
        return see_other(path(f"{config.name}/"), _ROOT)

    async def _create_index(self, asker: Asker, given: Mapping[str, str]) -> web.StreamResponse:
        owner, name = given.get("user", ""), given.get("name", "").strip()
        self._require_owner(asker, owner)
        index = f"{owner}/{check_index_name(name)}"
        kind = given.get("type", "stage")
        wanted: dict[str, Any] = {"type": kind, "title": given.get("title", "").strip()}
        if kind == "mirror":
            wanted["mirror_url"] = given.get("mirror_url", "").strip()
        else:
            wanted |= {"bases": given.get("bases", ""), "volatile": "volatile" in given}
        await self._accounts.create_index(asker, index, {key: value for key, value in wanted.items() if value != ""})
        return see_other(path(f"{index}/"), _ROOT)

    # -- the visitor himself -------------------------------------------------------------------------

    async def _change_password(
        self, request: BaseRequest, asker: Asker, given: Mapping[str, str]
    ) -> web.StreamResponse:
        name = asker.user or ""
        new = given.get("new", "")
        problem = ""
        if not new or new != given.get("again", ""):
            problem = "Type the new password twice, the same both times."
        else:
            try:
                await self._accounts.identity.login(name, given.get("password", ""), request.remote or "")
            except Unauthorized:
                problem = "The present password is another one."
        if problem:
            return self._views.page("manage_password.html", request=request, status=400, problem=problem)
        renewed = await self._accounts.modify_user(asker, name, {"password": new})
        response = see_other(path(name), _ROOT)
        if renewed is not None:
            self._session.keep(request, response, *renewed)
        return response

    # -- uploading -----------------------------------------------------------------------------------

    async def _upload(self, request: BaseRequest, asker: Asker) -> web.StreamResponse:
        config = self._uploadable(asker, request.rel_url.query.get("index", ""))
        incoming = await self._uploads.begin()
        try:
            form = await read_form(
                request,
                lambda data: self._uploads.write(incoming, data),
                self._live.settings.max_upload_bytes,
                self._idle_seconds,
            )
            if not form.filename:
                raise BadUpload("Choose a file first: a wheel or an sdist.")
            config = self._uploadable(asker, config.name)  # as it is now: an upload may take an hour
            kept = await self._uploads.file(asker, config, form.filename, incoming, {})
        finally:
            await self._uploads.end(incoming)
        return see_other(path(f"{config.name}/{kept.file.project}/"), _ROOT)


def _require_word(typed: str, word: str) -> None:
    if typed != word:
        raise BadRequest(f"Nothing was deleted: to delete this, type {word!r} exactly.")


def _joined(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
