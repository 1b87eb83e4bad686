"""What clients write to private indexes: files, versions, documentation, results; deleting and pushing.

An upload is streamed to the data directory, checked there by ``distributions``, and kept with its rows in one step, or
it leaves nothing. Who may is asked of ``directory`` by those who call.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from packaging.utils import canonicalize_name

from teepi.data import StoredDocs, StoredFile, StoredVersion, projects
from teepi.distributions import check_digests, claimed_release, inspect, inspect_docs
from teepi.errors import BadUpload, Conflict, Forbidden, NotFound
from teepi.tasks import in_executor
from teepi.versions import version_key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from teepi.data import Archive, Incoming
    from teepi.directory import Asker
    from teepi.distributions import Distribution
    from teepi.index_config import IndexConfig

    Claims = Mapping[str, str | list[str]]
    """Fields of an upload's form by name; those that came several times as a list."""

_T = TypeVar("_T")

_MOST_ATTESTATIONS_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an upload."""

    file: StoredFile
    is_new: bool
    """False: exactly this file was there already."""
    replaced: str | None = None
    """sha256 of what it overwrote."""


class Uploads:
    """Writes to stages."""

    def __init__(self, archive: Archive, threads: Executor, changed: Callable[[str, str], object]) -> None:
        """Check files in ``threads``; ``changed`` is told index and project after each change."""
        self._archive = archive
        self._threads = threads
        self._changed = changed

    async def begin(self) -> Incoming:
        """Return a file for what arrives; whoever calls gives it to :meth:`end` in the end."""
        try:
            return await in_executor(self._threads, self._archive.blobs.begin)
        except OSError as error:
            raise self._archive.failed(error) from error

    async def write(self, incoming: Incoming, data: bytes) -> None:
        """Append to an upload. Raises :class:`Unavailable` when the disk does not take it."""
        try:
            await in_executor(self._threads, incoming.write, data)
        except OSError as error:
            raise self._archive.failed(error) from error

    async def end(self, incoming: Incoming) -> None:
        """Let go of what arrived, kept or not; also when whoever calls is cancelled."""
        await asyncio.shield(in_executor(self._threads, incoming.abort))

    async def _check(self, incoming: Incoming, check: Callable[[], _T]) -> _T:
        """Run ``check`` on all of an upload and make it durable, in a thread."""

        def in_thread() -> _T:
            with incoming.in_use:
                found = check()
                incoming.finish()
                return found

        try:
            return await in_executor(self._threads, in_thread)
        except OSError as error:
            raise self._archive.failed(error) from error

    # -- files ---------------------------------------------------------------------------------------

    async def file(
        self,
        asker: Asker,
        index: IndexConfig,
        filename: str,
        incoming: Incoming,
        claims: Claims,
        *,
        pushed_from: str | None = None,
    ) -> Kept:
        """Check a distribution and keep it; ``pushed_from`` is the index that it comes from, if any.

        Raises :class:`BadUpload` and :class:`Conflict`.
        """

        def check() -> tuple[Distribution, str | None]:
            check_digests(claims, *incoming.digests)
            return inspect(incoming.file, incoming.size, filename, claims), _attestations(claims)

        found, attestations = await self._check(incoming, check)
        now = time.time()
        key = version_key(found.version)
        sha256, md5, blake2b = incoming.digests
        metadata = found.core_metadata
        source = {"what": "upload"} if pushed_from is None else {"what": "push", "src": pushed_from}
        entry = {**source, "who": asker.said, "when": list(time.gmtime(now)[:6]), "dst": index.name}
        file = StoredFile(
            *(0, index.name, found.project, key, found.filename, sha256, incoming.size, md5, blake2b),
            *(found.filetype, _one(claims, "pyversion") or "", found.requires_python),
            *(None if metadata is None else hashlib.sha256(metadata).hexdigest(), now, asker.said),
            *(attestations, [entry]),
        )
        version = StoredVersion(index.name, found.project, key, found.version, found.fields, now, asker.said)

        def write(connection: sqlite3.Connection) -> Kept:
            _require_index(connection, index.name)
            before = projects.file_named(connection, index.name, file.filename)
            if before is not None and before.sha256 == sha256:
                return Kept(before, is_new=False)
            if before is not None:
                if not index.is_volatile:
                    raise Conflict(f"{file.filename} already exists in non-volatile index")
                connection.execute("DELETE FROM files WHERE id = ?", (before.id,))
                written = replace(file, log=[_overwritten(before, asker, index.name), *file.log])
            else:
                written = file
            if index.is_volatile or not projects.versions(connection, index.name, file.project, key):
                projects.put_version(connection, version)
            projects.put_file(connection, written, metadata)
            return Kept(written, is_new=True, replaced=None if before is None else before.sha256)

        kept = await self._archive.keep(incoming, write)
        if kept.replaced is not None:
            await self._sweep([kept.replaced])
        if kept.is_new:
            self._changed(index.name, file.project)
        return kept

    # -- versions and documentation ------------------------------------------------------------------

    async def register(self, asker: Asker, index: IndexConfig, claims: Claims) -> bool:
        """Note a version without a file (``submit``); False when a non-volatile index has it, where it stays.

        Raises :class:`BadUpload`.
        """
        fields = claimed_release(claims)
        project, version = canonicalize_name(fields["name"]), fields["version"]
        found = StoredVersion(index.name, project, version_key(version), version, fields, time.time(), asker.said)

        def write(connection: sqlite3.Connection) -> bool:
            _require_index(connection, index.name)
            before = projects.versions(connection, index.name, found.project, found.version_key)
            if before and not index.is_volatile:
                return False
            projects.put_version(connection, found)
            return True

        is_written = await self._archive.database.write(write)
        if is_written:
            self._changed(index.name, found.project)
        return is_written

    async def docs(self, asker: Asker, index: IndexConfig, incoming: Incoming, claims: Claims) -> StoredDocs:
        """Keep the documentation of a version (``doc_upload``), in the place of any before."""
        fields = claimed_release(claims, needs_version=False)
        name, version = fields["name"], fields["version"]
        project = canonicalize_name(name)
        if not version:
            known = await self._archive.database.read(lambda c: projects.versions(c, index.name, project))
            if not known:
                raise BadUpload(f"doczip has no version and {name!r} has no releases to derive one from")
            version = max(known, key=lambda each: each.registered_at).version
            fields["version"] = version
        key = version_key(version)

        def check() -> None:
            check_digests(claims, *incoming.digests)
            inspect_docs(incoming.file, incoming.size)

        await self._check(incoming, check)
        now = time.time()

        def write(connection: sqlite3.Connection) -> tuple[StoredDocs, list[str]]:
            _require_index(connection, index.name)
            if not projects.versions(connection, index.name, project, key):
                projects.put_version(
                    connection, StoredVersion(index.name, project, key, version, fields, now, asker.said)
                )
            before = [each for each in projects.docs(connection, index.name, project) if each.version_key == key]
            found = StoredDocs(index.name, project, key, incoming.digests[0], incoming.size, now, asker.said)
            if before and before[0].sha256 != found.sha256 and not index.is_volatile:
                raise Conflict(f"{name} {version} has documentation already in non-volatile index")
            projects.put_docs(connection, found)
            return found, [each.sha256 for each in before]

        found, before = await self._archive.keep(incoming, write)
        await self._sweep(before)
        self._changed(index.name, project)
        return found

    async def _sweep(self, candidates: Sequence[str]) -> None:
        """Remove what has been overwritten and is nobody's now."""
        if candidates:
            await self._archive.discard(lambda _: (None, candidates))

    # -- deleting ------------------------------------------------------------------------------------

    async def delete_project(self, index: IndexConfig, project: str, *, force: bool = False) -> None:
        """Delete all versions of a project from ``index`` itself."""
        await self._delete(index, project, None, force=force)

    async def delete_version(self, index: IndexConfig, project: str, version: str, *, force: bool = False) -> None:
        """Delete a version with its files and documentation."""
        await self._delete(index, project, version, force=force)

    async def _delete(self, index: IndexConfig, project: str, version: str | None, *, force: bool) -> None:
        def write(connection: sqlite3.Connection) -> tuple[None, list[str]]:
            key = None if version is None else version_key(version)
            found = projects.versions(connection, index.name, project, key)
            if not found:
                what = f"project {project!r}" if version is None else f"version {version} of project {project}"
                raise NotFound(f"There is no {what} on {index.name}.")
            _require_volatile(index, project if version is None else f"{project} {version}", force=force)
            contents = [file.sha256 for file in projects.files(connection, index.name, project, key)]
            contents += [
                docs.sha256
                for docs in projects.docs(connection, index.name, project)
                if key is None or docs.version_key == key
            ]
            for each in found:
                projects.delete_version(connection, index.name, project, each.version_key)
            return None, contents

        await self._archive.discard(write)
        self._changed(index.name, project)

    async def delete_file(self, index: IndexConfig, file: StoredFile, *, force: bool = False) -> None:
        """Delete one file; a version that has neither file nor documentation left goes with it."""
        _require_volatile(index, file.filename, force=force)

        def write(connection: sqlite3.Connection) -> tuple[None, list[str]]:
            now = projects.file_named(connection, index.name, file.filename)
            if now is None or now.id != file.id:
                raise NotFound(f"{file.filename} is gone from {index.name} already.")
            projects.delete_files(connection, [now])
            is_empty = not projects.files(connection, index.name, file.project, file.version_key)
            if is_empty and all(
                docs.version_key != file.version_key for docs in projects.docs(connection, index.name, file.project)
            ):
                projects.delete_version(connection, index.name, file.project, file.version_key)
            return None, [file.sha256]

        await self._archive.discard(write)
        self._changed(index.name, file.project)

    # -- results of test runs ------------------------------------------------------------------------

    async def result(self, asker: Asker, file: StoredFile, text: str) -> int:
        """Keep what a test run (``devpi test``) said of a file, JSON, as it came; return its number."""
        number = await self._archive.database.write(
            lambda c: projects.add_result(c, file.id, time.time(), asker.said, text)
        )
        self._changed(file.index, file.project)
        return number

    # -- pushing -------------------------------------------------------------------------------------

    async def push(
        self,
        asker: Asker,
        source: IndexConfig,
        project: str,
        version: str,
        target: IndexConfig,
        *,
        files: bool = True,
        docs: bool = True,
        register: bool = False,
    ) -> list[list[Any]]:
        """Copy a version from one stage to another, all of it or nothing; return devpi's log of what was done.

        Raises :class:`NotFound` and :class:`Conflict`.
        """
        key = version_key(version)
        now = time.time()

        def write(connection: sqlite3.Connection) -> tuple[list[list[Any]], list[str]]:
            _require_index(connection, target.name)
            found = projects.versions(connection, source.name, project, key)
            own = projects.files(connection, source.name, project, key) if files else []
            manual = [each for each in projects.docs(connection, source.name, project) if each.version_key == key]
            if not found or not (own or (docs and manual) or register):
                raise NotFound(f"no release/files found for {project} {version} in {source.name}")
            [release] = found
            before = projects.versions(connection, target.name, project, key)
            if target.is_volatile or not before:
                projects.put_version(
                    connection, replace(release, index=target.name, registered_at=now, registered_by=asker.said)
                )
            log: list[list[Any]] = [
                [200, "register", release.fields.get("name", project), release.version, "->", target.name]
            ]
            replaced: list[str] = []
            for file in own:
                there = projects.file_named(connection, target.name, file.filename)
                past: list[dict[str, Any]] = []
                if there is not None and there.sha256 != file.sha256:
                    if not target.is_volatile:
                        raise Conflict(f"{file.filename} already exists in non-volatile index")
                    replaced.append(there.sha256)
                    connection.execute("DELETE FROM files WHERE id = ?", (there.id,))
                    past, there = [_overwritten(there, asker, target.name)], None
                entry = {"what": "push", "who": asker.said, "when": list(time.gmtime(now)[:6]), "src": source.name}
                happened = [*past, *file.log, {**entry, "dst": target.name}]
                copy = replace(file, index=target.name, uploaded_by=asker.said, log=happened)
                if there is None:
                    new = projects.put_file(connection, copy, projects.core_metadata(connection, file.id))
                    for result in projects.results(connection, [file.id]):
                        projects.add_result(connection, new, result.posted_at, result.posted_by, result.content)
                log.append([200, "store_releasefile", copy.path])
            for each in manual if docs else ():
                copied = replace(each, index=target.name, uploaded_at=now, uploaded_by=asker.said)
                replaced += _replace_docs(connection, copied, is_volatile=target.is_volatile)
                log.append([200, "uploaddoc", project, release.version, "->", target.name])
            return log, replaced

        log = await self._archive.discard(write)
        self._changed(target.name, project)
        return log


def _one(claims: Claims, key: str) -> str | None:
    value = claims.get(key)
    return value if value is None or isinstance(value, str) else value[0]


def _attestations(claims: Claims) -> str | None:
    """Return the attestations of an upload (PEP 740). Raises :class:`BadUpload` for what is no list of them."""
    text = _one(claims, "attestations")
    if not text:
        return None
    try:
        found = json.loads(text) if len(text) <= _MOST_ATTESTATIONS_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, dict) and "envelope" in each for each in found):
        raise BadUpload("the attestations are no JSON list of attestation objects (PEP 740)")
    return json.dumps(found) if found else None


def _replace_docs(connection: sqlite3.Connection, docs: StoredDocs, *, is_volatile: bool) -> list[str]:
    """Write documentation; return the sha256 of what it replaces. Raises :class:`Conflict` where that stays."""
    before = [
        each.sha256
        for each in projects.docs(connection, docs.index, docs.project)
        if each.version_key == docs.version_key and each.sha256 != docs.sha256
    ]
    if before and not is_volatile:
        raise Conflict(
            f"{docs.project} {docs.version_key} has documentation already in non-volatile index {docs.index}"
        )
    projects.put_docs(connection, docs)
    return before


def _overwritten(before: StoredFile, asker: Asker, index: str) -> dict[str, Any]:
    """Return the entry that stands for all that a file has taken the place of, as devpi says it."""
    count = next((entry.get("count", 0) for entry in before.log if entry["what"] == "overwrite"), 0)
    when = list(time.gmtime()[:6])
    return {"what": "overwrite", "count": count + 1, "who": asker.said, "when": when, "dst": index}


def _require_volatile(index: IndexConfig, what: str, *, force: bool) -> None:
    if not (index.is_volatile or force):
        raise Forbidden(f"{what} is on the non-volatile index {index.name}, cannot delete; force does")


def _require_index(connection: sqlite3.Connection, name: str) -> None:
    """Raise :class:`NotFound` when the index was deleted while an upload to it arrived."""
    if connection.execute("SELECT 1 FROM indexes WHERE name = ?", (name,)).fetchone() is None:
        raise NotFound(f"The stage {name} could not be found.")
