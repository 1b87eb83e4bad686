"""Handlers for reading private indexes: pages, lists, files, versions."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from aiohttp import web
from packaging.utils import canonicalize_name

from teepi import legacy_json, release_json
from teepi.codings import choose_coding
from teepi.errors import NotFound
from teepi.files import Outcome
from teepi.http_semantics import if_none_match, index_prefix, query_names, wants_fresh
from teepi.page_memory import MarkedVariants, Variant
from teepi.pages import Freshness
from teepi.stages import METADATA, PROVENANCE, has_provenance, provenance, render_page
from teepi.tasks import in_thread
from teepi.versions import version_key
from teepi.web import answers
from teepi.web.stored import send_stored

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from aiohttp.web_request import BaseRequest

    from teepi.data import StoredFile
    from teepi.indexes import Indexes
    from teepi.pages import Pages
    from teepi.simple_api import ProjectPage
    from teepi.stages import Release, StagePage, Stages
    from teepi.web.send import Senders

    LegacyOf = Callable[[BaseRequest, str, str, str | None], Awaitable[web.StreamResponse]]

_PROJECT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")  # PEP 508
_RESULT: Final = re.compile(r"(?P<file>.+)\.toxresult-(?P<number>[0-9]{1,18})")
_THREAD_FILES: Final = 200  # a larger page is rendered off the event loop


class StageHandlers:
    """Thin: ask ``stages``, answer."""

    def __init__(
        self,
        stages: Stages,
        indexes: Indexes,
        pages: Pages,
        senders: Senders,
        outside: Callable[[BaseRequest], str],
        refresh_seconds: float,
    ) -> None:
        """``outside`` gives the URL of this server; a wish for a fresh page is granted every ``refresh_seconds``."""
        self._stages = stages
        self._indexes = indexes
        self._pages = pages
        self._senders = senders
        self._outside = outside
        self._refresh_seconds = refresh_seconds
        self._finished = MarkedVariants()

    def is_stage(self, index: str) -> bool:
        """Whether ``index`` is a private one."""
        return self._stages.stage(index) is not None

    def made_of(self, index: str) -> Collection[str]:
        """Return ``index`` with all that it is made of. Raises :class:`NotFound`."""
        return self._stages.made_of(index)

    # -- pages ---------------------------------------------------------------------------------------

    async def project(self, request: BaseRequest, index: str, name: str, *, slash: bool) -> web.StreamResponse:
        """Answer ``…/{name}/`` for installers; a name that is not normalised, or no slash behind it, redirects."""
        request[answers.KIND] = "page"
        project = _normalised(name)
        if not slash or project != name:
            query = request.raw_path.partition("?")[2]
            return answers.redirect(f"../{project}/" if slash else f"{project}/", query)
        form = answers.negotiate(request)
        root = index_prefix(request.raw_path.partition("?")[0])
        coding = choose_coding(answers.header(request, "Accept-Encoding"))
        mark, key = await self._stages.mark(), (index, project, form, root, coding)
        kept = self._finished.get(key, mark)
        if kept is not None:
            return answers.page(request, kept, form, Freshness.HIT.value)
        found = await self._page(request, index, project)
        if found.mirror is not None:
            mirror, page = found.mirror
            variant = await self._pages.variant(page, form, f"{root}{quote(mirror)}/", coding)
            return answers.page(request, variant, form, found.freshness.value)
        content = _content(found)

        outside = f"{self._outside(request)}/"

        def make() -> Variant:
            return Variant.of(render_page(content, form, root, outside), form, coding)

        variant = make() if len(content.links) < _THREAD_FILES else await in_thread(make)
        response = answers.page(request, variant, form, found.freshness.value)
        if has_provenance(content):
            response.headers["Vary"] = f"{answers.VARY}, Host, {answers.OUTSIDE_URL}"
        elif found.is_settled:  # pages with provenance are another one under each name of this server
            self._finished.put(key, mark, variant)
        return response

    async def _page(self, request: BaseRequest, index: str, project: str) -> StagePage:
        newer_than = None
        if wants_fresh(answers.header(request, "Cache-Control")):
            newer_than = time.monotonic() - self._refresh_seconds
        return await self._stages.page(index, project, newer_than=newer_than)

    async def legacy(
        self, request: BaseRequest, index: str, name: str, version: str | None, of_mirror: LegacyOf
    ) -> web.StreamResponse:
        """Answer legacy JSON; ``of_mirror`` answers when a mirror has the project."""
        request[answers.KIND] = "legacy"
        project = _normalised(name)
        found = await self._page(request, index, project)
        if found.mirror is not None:
            return await of_mirror(request, found.mirror[0], name, version)
        content = _content(found)
        spelt = None if version is None else legacy_json.find_version(content, version)
        if version is not None and spelt is None:
            raise NotFound(f"{project} has no version {version[:100]} here.")
        wheel = legacy_json.wheel_of(content, spelt)
        metadata = None
        if wheel is not None:
            metadata = await self._stages.core_metadata_named(index, project, wheel.filename)
        outside = f"{self._outside(request)}/"
        is_large = len(content.links) >= _THREAD_FILES

        def make() -> bytes:
            return legacy_json.build(content, outside, spelt, metadata)

        body = await in_thread(make) if is_large else make()
        return web.Response(body=body, headers={"Content-Type": "application/json", "Cache-Control": "no-store"})

    # -- devpi's JSON --------------------------------------------------------------------------------

    async def versions(
        self, request: BaseRequest, index: str, name: str, version: str | None = None
    ) -> web.StreamResponse:
        """``GET /{user}/{index}/{project}`` and ``…/{version}`` for devpi's clients, of stages and mirrors alike."""
        project = _normalised(name)
        with_bases = "ignore_bases" not in query_names(request.raw_path)
        known = await self._known(request, index, project, version, with_bases=with_bases)
        if known is None:
            raise NotFound(f"no project {project!r}")
        return await in_thread(known.answer) if known.is_large else known.answer()

    async def _known(
        self, request: BaseRequest, index: str, project: str, version: str | None, *, with_bases: bool
    ) -> _Known | None:
        """Return what there is of a project, or of that one version; None when there is no such project."""
        base = f"{self._outside(request)}/"
        if not self.is_stage(index):
            try:
                page, _ = await self._indexes.page(self._indexes.require(index), project)
            except NotFound:
                return None
            return _Known(project, version, (), base, await self._pages.shown(page), f"{base}{index}/")
        releases = await self._stages.releases(index, project, version, with_bases=with_bases)
        known = _Known(project, version, releases, base)
        if releases and version is not None:  # what a mirror has of it is not looked at
            return known
        owner = index if releases else await self._stages.owner(index, project)
        if not with_bases:
            return known if owner == index else None
        found = await self._stages.of_mirrors(index, project, is_owned=owner is not None)
        if found is None:
            return None if owner is None else known
        mirror, page, _ = found
        return _Known(project, version, releases, base, await self._pages.shown(page), f"{base}{mirror}/")

    # -- files ---------------------------------------------------------------------------------------

    async def file(self, request: BaseRequest, index: str, prefix: str, filename: str) -> web.StreamResponse:
        """``/{user}/{index}/+f/{3}/{13}/{file}``, with its core metadata, provenance and results of test runs."""
        request[answers.KIND] = "metadata" if filename.endswith(METADATA) else "file"
        prefix = prefix.replace("/", "")
        result = _RESULT.fullmatch(filename)
        if filename.endswith(METADATA):
            file = await self._stages.file(index, prefix, filename.removesuffix(METADATA))
            if file.metadata_sha256 is None:
                raise NotFound(f"There is no core metadata of {file.filename}.")
            content = await self._stages.core_metadata(file)
            return _small(request, content, "text/plain; charset=utf-8", file.metadata_sha256)
        if filename.endswith(PROVENANCE):
            file = await self._stages.file(index, prefix, filename.removesuffix(PROVENANCE))
            return web.json_response(provenance(file), headers={"Cache-Control": "no-cache"})
        if result is not None:
            file = await self._stages.file(index, prefix, result["file"])
            said = await self._stages.result(file, int(result["number"]))
            return _small(request, said.encode(), "application/json")
        file = await self._stages.file(index, prefix, filename)
        if answers.wants_json(request):
            return answers.devpi("releasefilemeta", self._facts(request, file, await self._stages.version_of(file)))
        return await send_stored(request, self._senders, self._stages, file, cache_control=answers.immutable(request))

    def _facts(self, request: BaseRequest, file: StoredFile, version: str) -> dict[str, Any]:
        return {
            "url": f"{self._outside(request)}/{quote(file.path, safe='/+')}",
            "hash_spec": f"sha256={file.sha256}",
            "hashes": {"sha256": file.sha256, "md5": file.md5, "blake2b_256": file.blake2b},
            "project": file.project,
            "version": version,
            "size": file.size,
            "last_modified": formatdate(file.uploaded_at, usegmt=True),
            "log": file.log,
        }


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a project, or of one version of it, before it is put together."""

    project: str
    version: str | None
    """The one that is wanted."""
    releases: Sequence[Release]
    base: str
    page: ProjectPage | None = None
    """Of the mirror that answers or adds."""
    page_base: str = ""

    @property
    def is_large(self) -> bool:
        """Whether it is to be put together off the event loop."""
        of_page = 0 if self.page is None else len(self.page.links)
        return sum(1 + len(release.files) for release in self.releases) + of_page >= _THREAD_FILES

    def answer(self) -> web.Response:
        """Put it together. Raises :class:`NotFound` for a version that is not there."""
        key = None if self.version is None else version_key(self.version)
        found = release_json.projects_versions(self.releases, self.base)
        if self.page is not None:
            keys = {release.version.version_key for release in self.releases}
            mirrored = release_json.mirrored_versions(self.page, self.page_base, key)
            found |= {each: data for each, data in mirrored.items() if version_key(each) not in keys}
        if self.version is None:
            return answers.devpi_encoded("projectconfig", release_json.encoded(found))
        if not found:
            raise NotFound(f"The version {self.version[:100]} of project {self.project} does not exist.")
        [data] = found.values()
        return answers.devpi("versiondata", data)


def _normalised(name: str) -> str:
    if not _PROJECT.fullmatch(name):
        raise NotFound(f"{name[:100]!r} is not the name of a project.")
    return canonicalize_name(name)


def _content(found: StagePage) -> ProjectPage:
    if found.content is None:
        raise RuntimeError("a page of a stage has neither a mirror's page nor content")
    return found.content


def _small(request: BaseRequest, body: bytes, content_type: str, sha256: str | None = None) -> web.Response:
    """Answer bytes that belong to a digest and so never change."""
    etag = f'"{sha256 or hashlib.sha256(body).hexdigest()}"'
    headers = {
        "Content-Type": content_type,
        "Cache-Control": answers.immutable(request),
        "ETag": etag,
        "Cache-Status": f"teepi; {Outcome.HIT.value}",
        "X-Content-Type-Options": "nosniff",
    }
    if if_none_match(answers.header(request, "If-None-Match"), etag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers)
