"""Handlers for what is written to private indexes: uploads, pushes, deletions, results of test runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from packaging.utils import canonicalize_name

from teepi.errors import BadRequest, BadUpload, NotFound
from teepi.external import Repository
from teepi.http_semantics import query_names
from teepi.web import answers
from teepi.web.forms import read_form
from teepi.web.requests import json_body, json_text

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from teepi.accounts import Accounts
    from teepi.directory import Asker
    from teepi.external import External
    from teepi.index_config import IndexConfig
    from teepi.limits import Limits
    from teepi.live import Live
    from teepi.mirrored import Mirrored
    from teepi.stages import Stages
    from teepi.uploads import Uploads
    from teepi.web.gate import Gate

_RESULT_BYTES: Final = 16 << 20
_ACTIONS: Final = ("file_upload", "submit", "doc_upload")


class UploadHandlers:
    """Thin: who, what, and one call of ``uploads``."""

    def __init__(
        self,
        accounts: Accounts,
        gate: Gate,
        stages: Stages,
        uploads: Uploads,
        mirrored: Mirrored,
        external: External,
        live: Live,
        limits: Limits,
    ) -> None:
        """Pushes go by ``mirrored`` out of mirrors, by ``external`` elsewhere.

        ``live`` says how large an upload may be, ``limits`` how long it may pause.
        """
        self._accounts = accounts
        self._gate = gate
        self._stages = stages
        self._uploads = uploads
        self._mirrored = mirrored
        self._external = external
        self._live = live
        self._limits = limits

    async def _stage(self, request: BaseRequest, index: str, to_do: str) -> IndexConfig:
        """Return the stage to write to, once it is known that whoever asks may."""
        directory = self._accounts.directory
        config = directory.require(index)
        if config is None or not config.is_stage:
            raise NotFound(f"cannot {to_do} mirror index {index}")
        directory.require_upload(await self._gate.asker(request), config, time.time())
        return config

    async def post(self, request: BaseRequest, index: str) -> web.StreamResponse:
        """``POST /{user}/{index}/``: a form is an upload, JSON a push."""
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return await self.push(request, index)
        request[answers.KIND] = "upload"
        config = await self._stage(request, index, "submit to")
        incoming = await self._uploads.begin()
        try:
            form = await read_form(
                request,
                lambda data: self._uploads.write(incoming, data),
                self._live.settings.max_upload_bytes,
                self._limits.client_idle_seconds,
            )
            action = form.one(":action")
            if action not in _ACTIONS:
                raise BadUpload(f"the field :action is {action[:50]!r}; it must be one of {', '.join(_ACTIONS)}")
            asker = await self._gate.asker(request, again=True)  # as it is now: an upload may take an hour
            config = await self._stage(request, index, "submit to")
            if action == "submit":
                is_written = await self._uploads.register(asker, config, form.fields)
                return _done("" if is_written else "This version is registered already; it stays as it is.")
            if form.filename is None:
                raise BadUpload("the form of the upload has no file: the field content is missing")
            if action == "doc_upload":
                await self._uploads.docs(asker, config, incoming, form.fields)
                return _done()
            kept = await self._uploads.file(asker, config, form.filename, incoming, form.fields)
            is_same = not kept.is_new and not config.is_volatile
            return _done("Upload of identical file to non volatile index." if is_same else "")
        finally:
            await self._uploads.end(incoming)

    # -- pushing -------------------------------------------------------------------------------------

    async def push(self, request: BaseRequest, index: str) -> web.StreamResponse:
        """``PUSH /{user}/{index}`` or ``POST`` with JSON: a version to another index, or to another repository."""
        await self._gate.require_read(request, index)
        asker = await self._gate.asker(request)
        given = await json_body(request)
        if not isinstance(given, dict) or not all(isinstance(given.get(key), str) for key in ("name", "version")):
            raise BadRequest("A push names name, version and targetindex, or posturl.")
        project, version = canonicalize_name(given["name"]), given["version"]
        flags = {
            "files": not _flag(given, "only_docs"),
            "docs": not _flag(given, "no_docs"),
            "register": _flag(given, "register_project"),
        }
        source = self._accounts.directory.require(index)
        is_stage = source is not None and source.is_stage
        if "posturl" in given:
            if not is_stage:
                raise NotFound(f"{index} is a mirror: push to an index of your own first, and from there elsewhere")
            return await self._push_elsewhere(asker, index, project, version, given, flags)
        if not isinstance(given.get("targetindex"), str):
            raise BadRequest("A push names targetindex (USER/INDEX), or posturl for another repository.")
        target = await self._stage(request, given["targetindex"].strip("/"), "push to")
        if source is not None and is_stage:
            log = await self._uploads.push(asker, source, project, version, target, **flags)
        elif flags["files"]:
            log = await self._mirrored.push(asker, index, project, version, target)
        else:
            raise NotFound(f"{index} is a mirror, which has no documentation")
        return answers.devpi("actionlog", log)

    async def _push_elsewhere(
        self, asker: Asker, index: str, project: str, version: str, given: dict[str, Any], flags: dict[str, bool]
    ) -> web.StreamResponse:
        said = [given.get(key) or "" for key in ("posturl", "username", "password")]
        if not all(isinstance(each, str) for each in said):
            raise BadRequest("posturl, username and password of a push are text.")
        log, is_all = await self._external.push(asker, index, project, version, Repository.of(*said), **flags)
        return answers.devpi("actionlog", log, status=200 if is_all else 502)

    # -- deleting ------------------------------------------------------------------------------------

    async def delete_project(self, request: BaseRequest, index: str, name: str) -> web.StreamResponse:
        """``DELETE /{user}/{index}/{project}``."""
        config = await self._stage(request, index, "delete from")
        project = canonicalize_name(name)
        await self._uploads.delete_project(config, project, force=_forced(request))
        return answers.devpi(message=f"project {project!r} deleted from stage {index}")

    async def delete_version(self, request: BaseRequest, index: str, name: str, version: str) -> web.StreamResponse:
        """``DELETE /{user}/{index}/{project}/{version}``."""
        config = await self._stage(request, index, "delete from")
        project = canonicalize_name(name)
        await self._uploads.delete_version(config, project, version, force=_forced(request))
        return answers.devpi(message=f"project {project!r} version {version!r} deleted")

    async def delete_file(self, request: BaseRequest, index: str, prefix: str, filename: str) -> web.StreamResponse:
        """``DELETE /{user}/{index}/+f/{3}/{13}/{file}``."""
        config = await self._stage(request, index, "delete from")
        file = await self._stages.file(index, prefix.replace("/", ""), filename)
        await self._uploads.delete_file(config, file, force=_forced(request))
        return answers.devpi(message=f"file {filename!r} deleted")

    # -- results of test runs ------------------------------------------------------------------------

    async def result(self, request: BaseRequest, index: str, prefix: str, filename: str) -> web.StreamResponse:
        """``POST`` of JSON to a file: what ``devpi test`` found."""
        request[answers.JSON_ERRORS] = True
        config = self._accounts.directory.require(index)
        if config is None or not config.is_stage:
            raise NotFound(f"no permission to upload tox results to {index}: it is a mirror")
        await self._gate.require_read(request, index)
        asker = await self._gate.asker(request)
        self._accounts.directory.require_toxresult(asker, config, time.time())
        file = await self._stages.file(index, prefix.replace("/", ""), filename)
        number = await self._uploads.result(asker, file, await json_text(request, most_bytes=_RESULT_BYTES))
        return answers.devpi("toxresultpath", f"{file.path}.toxresult-{number}")


def _done(reason: str = "") -> web.Response:
    response = web.Response(content_type="text/html", headers={"Cache-Control": "no-store", **answers.DEVPI_HEADERS})
    if reason:
        answers.say_reason(response, reason)
    return response


def _flag(given: dict[str, Any], key: str) -> bool:
    return given.get(key) is True or str(given.get(key, "")).lower() in {"1", "true", "yes"}


def _forced(request: BaseRequest) -> bool:
    return "force" in query_names(request.raw_path)
