"""Read-through for upstream's own legacy JSON: fresh, stale or revalidate, one request per document.

Nothing depends on it: whatever goes wrong, the document is made from the index page instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from teepi import legacy_json
from teepi.errors import NotFound, TeepiError
from teepi.single_flight import SingleFlight
from teepi.store import StoredPage
from teepi.upstream import UpstreamPage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping

    from teepi.limits import Limits
    from teepi.live import Live
    from teepi.model import FileRecord
    from teepi.page_memory import Page
    from teepi.store import PageStore
    from teepi.tasks import TaskScope
    from teepi.upstream import Upstream

log = logging.getLogger(__name__)

_ACCEPT: Final = "application/json"
_SIMPLE: Final = "/simple/"
_KEPT_BYTES: Final = 16 << 20  # of documents in memory
_OVERHEAD_BYTES: Final = 1024  # of each
_REFUSALS_KEPT: Final = 10_000
_THREAD_BYTES: Final = 256 << 10  # a larger document is made off the event loop

_Key = tuple[str, str, str | None]


@dataclass(slots=True)
class _Document:
    """Upstream's answer; an empty body says that it has none."""

    stored: StoredPage
    confirmed_at: float
    """Monotonic seconds of upstream's last answer."""

    @property
    def kept_bytes(self) -> int:
        return _OVERHEAD_BYTES + len(self.stored.body)


class Legacy:
    """The legacy JSON of all mirror indexes."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        store: PageStore,
        scope: TaskScope,
        limits: Limits,
        live: Live,
        core_metadata: Callable[[FileRecord], Awaitable[bytes]] | None = None,
    ) -> None:
        """``upstreams`` are those of ``pages``; ``store`` is a place of its own for the documents.

        ``core_metadata`` gives a wheel's, or raises.
        """
        self._upstreams = upstreams
        self._store = store
        self._scope = scope
        self._limits = limits
        self._live = live
        self._asking = SingleFlight[_Document](scope)
        self._core_metadata = core_metadata
        self._reading = SingleFlight[bytes](scope)
        self._documents: OrderedDict[_Key, _Document] = OrderedDict()
        self._kept_bytes = 0
        self._refused: OrderedDict[Hashable, float] = OrderedDict()  # key -> monotonic seconds until when not to ask

    async def get(self, page: Page, base: str, version: str | None = None) -> tuple[bytes, str]:
        """Return the document of ``page`` (of its release ``version``), links below ``base``, and its ETag.

        Raises :class:`NotFound` when the page has no such version.
        """
        known = None
        if version is not None:
            known = legacy_json.find_version(page.content, version)
            if known is None:
                msg = f"{page.content.project} has no version {version[:100]}."
                raise NotFound(msg)
        stored = await self._find(page.stored.index, page.stored.project, known)
        metadata = None if stored is not None else await self._read(legacy_json.wheel_of(page.content, known))

        def work() -> tuple[bytes, str]:
            body = None
            if stored is not None:
                try:
                    body = legacy_json.adopt(stored.body, page.content, base, known)
                except TeepiError as error:
                    log.warning("%s", error)
            if body is None:
                body = legacy_json.build(page.content, base, known, metadata)
            return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'

        size = len(page.stored.body) + (0 if stored is None else len(stored.body)) + len(metadata or b"")
        return work() if size < _THREAD_BYTES else await asyncio.to_thread(work)

    async def _read(self, wheel: FileRecord | None) -> bytes | None:
        """Return the core metadata of ``wheel``, or None where it cannot be had in time; it goes on coming."""
        read = self._core_metadata
        if wheel is None or read is None or self._refused.get(wheel.key, 0.0) > time.monotonic():
            return None

        async def work() -> bytes:
            try:
                return await read(wheel)
            except TeepiError:
                self._refuse(wheel.key)
                raise

        try:
            return await self._reading.join((wheel.index, wheel.key), work, self._limits.page_patience_seconds)
        except (TeepiError, TimeoutError) as error:
            log.info("The legacy JSON of %s goes without core metadata: %s", wheel.project, error)
            return None

    def _refuse(self, key: Hashable) -> None:
        """Do not ask for it again for a while."""
        self._refused[key] = time.monotonic() + self._limits.absent_seconds
        if len(self._refused) > _REFUSALS_KEPT:
            self._refused.popitem(last=False)

    async def _find(self, index: str, project: str, version: str | None) -> StoredPage | None:
        """Return upstream's document, or None where there is none to be had now."""
        upstream = self._upstreams.get(index)
        url = None if upstream is None else _url(upstream.root, project, version)
        if url is None:
            return None
        key = (index, project, version)
        document = await self._known(key, url)
        now = time.monotonic()
        fresh_since = now - self._live.page_ttl_seconds(index)
        if document is not None and (self._live.offline or document.confirmed_at > fresh_since):
            return document.stored if document.stored.body else None
        if not self._live.offline and self._refused.get(key, 0.0) <= now:
            with contextlib.suppress(TeepiError, TimeoutError):  # what is there, or the page, serves as well
                document = await self._asking.join(
                    key, lambda: self._revalidate(key, url, document), self._limits.page_patience_seconds
                )
        return None if document is None or not document.stored.body else document.stored

    async def _revalidate(self, key: _Key, url: str, document: _Document | None) -> _Document:
        old = None if document is None else document.stored
        try:
            answer = await self._upstreams[key[0]].page(
                url,
                etag=None if old is None else old.etag,
                last_modified=None if old is None else old.last_modified,
                accept=_ACCEPT,
            )
        except NotFound:
            # Remembered as an empty document: an index without legacy JSON is not asked for it with every page.
            answer = UpstreamPage(url, "", None, None, b"")
        except TeepiError as error:
            self._refuse(key)
            log.warning("The legacy JSON of %s was not fetched: %s", key[1], error)
            raise
        etag, modified, now = answer.etag, answer.last_modified, time.time()
        if answer.body is None and old is not None:
            etag, modified = etag or old.etag, modified or old.last_modified
            stored = replace(old, etag=etag, last_modified=modified, fetched_at=now)
        else:
            body = answer.body or b""
            stored = StoredPage(key[0], _slug(key), url, answer.content_type, etag, modified, now, body)
        document = _Document(stored, time.monotonic())
        self._keep(key, document)
        self._refused.pop(key, None)
        self._scope.start(self._save(stored), name=f"store legacy JSON of {key[1]}")
        return document

    async def _save(self, stored: StoredPage) -> None:
        try:
            await self._store.save(stored)
        except OSError as error:
            log.warning("%s was served but not stored: %s.", stored.url.partition("?")[0], error)

    async def _known(self, key: _Key, url: str) -> _Document | None:
        """Return the document from memory or disk, whatever its age."""
        if (document := self._documents.get(key)) is not None and document.stored.url == url:
            self._documents.move_to_end(key)
            return document
        stored = await self._store.load(key[0], _slug(key))
        if (document := self._documents.get(key)) is not None and document.stored.url == url:  # somebody was quicker
            return document
        if stored is None or stored.url != url:  # of an upstream that was configured before
            return None
        age = max(0.0, time.time() - stored.fetched_at)
        document = _Document(stored, time.monotonic() - age)
        self._keep(key, document)
        return document

    def _keep(self, key: _Key, document: _Document) -> None:
        self._drop(key)
        self._documents[key] = document
        self._kept_bytes += document.kept_bytes
        while self._kept_bytes > _KEPT_BYTES and len(self._documents) > 1:
            _, dropped = self._documents.popitem(last=False)
            self._kept_bytes -= dropped.kept_bytes

    def _drop(self, key: _Key) -> None:
        old = self._documents.pop(key, None)
        if old is not None:
            self._kept_bytes -= old.kept_bytes


def _url(upstream: str, project: str, version: str | None) -> str | None:
    """Return where an upstream whose list is at ``…/simple/`` has the document; None where that is not known."""
    if not upstream.endswith(_SIMPLE):
        return None
    release = "" if version is None else f"{quote(version, safe='')}/"
    return f"{upstream.removesuffix(_SIMPLE)}/pypi/{project}/{release}json"


def _slug(key: _Key) -> str:
    """Return the name on disk: a hash, since a version may hold what a file name may not."""
    _, project, version = key
    return hashlib.sha256(f"{project}\n{version or ''}".encode()).hexdigest()
