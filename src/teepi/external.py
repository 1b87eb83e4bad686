"""Pushes a version out of a stage to a repository elsewhere, as twine would upload it.

A client names the address, so it is judged like a link on an upstream's page: public, unless the administrator asks or
has named the host. Credentials go there and nowhere else, into no message and no log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from teepi.directory import ROOT
from teepi.errors import BadRequest, Forbidden, NotFound, Offline, TeepiError, Unauthorized
from teepi.filenames import interpreters_of_filename
from teepi.index_settings import IndexSettings
from teepi.origins import basic, origin_of, shown, split_user_info
from teepi.outbound import Outbound, PrivateTarget
from teepi.response import reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from teepi.data import StoredDocs, StoredFile
    from teepi.directory import Asker
    from teepi.limits import Limits
    from teepi.live import Live
    from teepi.stages import Release, Stages

log = logging.getLogger(__name__)

_URL: Final = re.compile(r"[!-~]{1,2000}")
_OK: Final = frozenset({200, 201})
_GONE: Final = 410  # what the public index says to a registration: it wants none
_MOST_ANSWER_BYTES: Final = 4096
_LONGEST_TEXT: Final = 500  # characters of an answer that are repeated
_AT_A_TIME: Final = 4
_FAILED: Final = -1
"""Stands for the status where no answer came, as devpi has it."""


@dataclass(frozen=True, slots=True)
class Repository:
    """Where to push to, and as whom."""

    url: str
    """Takes uploads as the public index's legacy API does; no user info in it."""
    username: str
    password: str = field(repr=False)

    @classmethod
    def of(cls, url: str, username: str, password: str) -> Repository:
        """Check what a client says. Raises :class:`BadRequest`."""
        try:
            if not _URL.fullmatch(url):
                raise ValueError("characters that no URL has")  # noqa: TRY301
            bare, user_info = split_user_info(url)
            origin_of(bare)
        except ValueError:
            raise BadRequest("posturl is no http or https URL.") from None
        if user_info is not None and not username:
            username, password = user_info
        return cls(bare, username, password)

    def hide(self, text: str) -> str:
        """Return what the repository said without the credentials, should it repeat them."""
        authorization = basic(self.username, self.password).partition(" ")[2]
        for secret in (authorization, self.password):
            text = text.replace(secret, "…") if secret else text
        return text


class External:
    """Uploads to repositories elsewhere. ``stages`` has the files."""

    def __init__(self, stages: Stages, live: Live, limits: Limits) -> None:
        """Open no connection yet."""
        self._stages = stages
        self._live = live
        self._limits = limits
        self._slots = asyncio.Semaphore(_AT_A_TIME)

    async def push(
        self,
        asker: Asker,
        source: str,
        project: str,
        version: str,
        repository: Repository,
        *,
        files: bool = True,
        docs: bool = True,
        register: bool = False,
    ) -> tuple[list[list[Any]], bool]:
        """Upload what the stage ``source`` has of a version; return devpi's log of it, and whether all was taken.

        Raises :class:`Unauthorized` when nobody is logged in, :class:`NotFound` when there is nothing to upload,
        :class:`Forbidden` for a private address and :class:`Offline`.
        """
        if asker.user is None:
            raise Unauthorized("Log in to push to another repository.")
        if self._live.offline:
            raise Offline("teepi runs offline and pushes nothing to other repositories.")
        releases = await self._stages.releases(source, project, version, with_bases=False)
        wanted = releases[0] if releases else None
        if wanted is None or not ((files and wanted.files) or (docs and wanted.docs) or register):
            raise NotFound(f"no release/files found for {project} {version} in {source}")
        host = origin_of(repository.url).host
        is_trusted = asker.user == ROOT or _is_listed(host, self._live.settings.allowed_hosts)
        async with self._slots:
            outbound = Outbound(IndexSettings(repository.url, is_trusted=is_trusted))
            try:
                async with outbound.session(1) as session:
                    upload = _Upload(outbound, session, repository, self._stages, self._limits)
                    return await upload.release(wanted, files=files, docs=docs, register=register)
            except PrivateTarget:
                raise Forbidden(
                    f"{host} is at a private address: only root may push there, or anybody once {host} stands in the "
                    "setting allowed_hosts."
                ) from None
            finally:
                await outbound.aclose()


class _Upload:
    """Uploads one release."""

    def __init__(
        self,
        outbound: Outbound,
        session: aiohttp.ClientSession,
        repository: Repository,
        stages: Stages,
        limits: Limits,
    ) -> None:
        self._outbound = outbound
        self._session = session
        self._repository = repository
        self._stages = stages
        self._limits = limits
        self._said: list[list[Any]] = []
        self._is_all = True

    async def release(
        self, release: Release, *, files: bool, docs: bool, register: bool
    ) -> tuple[list[list[Any]], bool]:
        """Upload all that is wanted, until no answer comes; return the log, and whether all was taken."""
        about = release.version.fields
        name, version = about.get("name", release.version.project), release.version.version
        try:
            if register:
                status, _ = await self._post({**about, ":action": "submit"})
                self._note(status, "register", name, version, also_fine=_GONE)
                if not self._is_all:
                    return self._said, False
            for file in release.files if files else ():
                status, text = await self._post({**about, **_of_file(file)}, file, file.filename)
                self._note(status, "upload", file.path, text)
            if docs and release.docs is not None:
                fields = {"name": name, "version": version, ":action": "doc_upload"}
                status, text = await self._post(fields, release.docs, f"{name}.zip")
                self._note(status, "docfile", name, *([text] if text else ()))
        except PrivateTarget:
            raise
        except (TeepiError, aiohttp.ClientError, OSError, ValueError) as error:
            why = "no answer in time" if isinstance(error, TimeoutError) else reason(error)
            self._note(_FAILED, "exception on upload:", self._repository.hide(f"{shown(self._repository.url)}: {why}"))
        return self._said, self._is_all

    def _note(self, status: int, *what: str, also_fine: int = 200) -> None:
        self._said.append([status, *what])
        self._is_all = self._is_all and (status in _OK or status == also_fine)
        log.info("Push to %s: %s %s", shown(self._repository.url), status, self._repository.hide(" ".join(what)))

    async def _post(
        self, fields: Mapping[str, Any], content: StoredFile | StoredDocs | None = None, filename: str = ""
    ) -> tuple[int, str]:
        """Send a form, with a file or without; return the status, and what is said of a refusal."""
        # Else "!" and "+" in names come as "%21" and "%2B"; quotes and control characters were refused at upload.
        form = aiohttp.FormData(default_to_multipart=True, quote_fields=False)
        for name, value in _pairs({"protocol_version": "1", **fields}):
            form.add_field(name, value)
        if content is None:
            return await self._send(form, 0)
        opened = await self._stages.open(content)
        try:
            # Nobody else reads by this descriptor, so that its position is ours.
            with os.fdopen(os.dup(opened.file.fd), "rb") as file:
                form.add_field("content", file, filename=filename, content_type="application/octet-stream")
                return await self._send(form, content.size)
        finally:
            opened.file.drop()

    async def _send(self, form: aiohttp.FormData, size: int) -> tuple[int, str]:
        repository, limits = self._repository, self._limits
        seconds = limits.push_answer_seconds + size / limits.push_rate_bytes
        async with asyncio.timeout(seconds):
            response = await self._outbound.request(
                self._session,
                "POST",
                repository.url,
                {"Authorization": basic(repository.username, repository.password)},
                decompress=True,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_seconds),
                data=form,
            )
            try:
                if response.status in _OK:
                    return response.status, ""
                text = (response.reason or "").strip()
                if response.content_type in {"text/plain", "application/json"}:
                    body = (await response.content.read(_MOST_ANSWER_BYTES)).decode("utf-8", "replace").strip()
                    text = body if body.startswith(text) else f"{text} {body}"  # many say the same in both
            finally:
                response.close()
        return response.status, " ".join(repository.hide(text).split())[:_LONGEST_TEXT]


def _of_file(file: StoredFile) -> dict[str, Any]:
    """Return the fields of a form that are about one file."""
    found = {
        ":action": "file_upload",
        "filetype": file.filetype,
        "pyversion": file.pyversion or interpreters_of_filename(file.filename),
        "sha256_digest": file.sha256,
        "md5_digest": file.md5,
        "blake2_256_digest": file.blake2b,
    }
    return found if file.attestations is None else {**found, "attestations": file.attestations}


def _pairs(fields: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the fields of a form; a list is a field that comes several times, what is unknown is left out."""
    for name, value in fields.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None and each != "":
                yield name, str(each)


def _is_listed(host: str, names: Iterable[str]) -> bool:
    """Whether ``host`` is one of ``names``, or below one that begins with ``*.``."""
    name = host.removesuffix(".")
    return any(name.endswith(each[1:]) if each.startswith("*.") else name == each for each in names)
