"""Read-through for project lists: fresh, stale or revalidate, one request upstream per list, compressed on disk.

The list of an index made of others has the names of theirs, and follows them. Installers never need one. A list is
large, hence read, rendered, compressed and inflated in pieces, each in a thread.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from teepi.errors import BadPage, NotFound, Offline, TeepiError, Unavailable
from teepi.http_semantics import PageFormat
from teepi.list_forms import HTML, JSON, ListBody, ListForms
from teepi.origins import shown
from teepi.pages import Freshness
from teepi.project_list import JsonNames, first_spellings, lines_of, names_of
from teepi.single_flight import SingleFlight
from teepi.tasks import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from teepi.limits import Limits
    from teepi.live import Live
    from teepi.store import ListStore, ListWriter, SortedLines, StoredList
    from teepi.tasks import TaskScope
    from teepi.upstream import Upstream, UpstreamPage

log = logging.getLogger(__name__)

_PIECE_BYTES: Final = 64 << 10  # one step of writing: a thousand names, whose 1 to 2 ms hold the interpreter's lock
_NAMES_STEP: Final = 1000
_FROM_BEST: Final = (Freshness.HIT, Freshness.COLLAPSED, Freshness.REVALIDATED, Freshness.MISS, Freshness.STALE)


class ProjectLists:
    """The project lists of all indexes."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        store: ListStore,
        scope: TaskScope,
        limits: Limits,
        live: Live,
        mirrors_of: Callable[[str], Sequence[str] | None],
        names_of: Callable[[str], Awaitable[list[str]]],
    ) -> None:
        """``upstreams`` are those of ``pages``.

        ``mirrors_of`` says of what mirrors a private index is made, None for what is no private index; ``names_of``
        what was uploaded to it and to the private indexes that it is made of, as it is now.
        """
        self._mirrors_of = mirrors_of
        self._names_of = names_of
        self._upstreams = upstreams
        self._store = store
        self._limits = limits
        self._live = live
        self._lists: dict[str, StoredList] = {}
        self._confirmed: dict[str, float] = {}  # monotonic seconds of upstream's last answer
        self._failed: dict[str, float] = {}
        self._loading = SingleFlight[None](scope)
        self._asking = SingleFlight[Freshness](scope)

    def is_index(self, index: str) -> bool:
        """Whether there is an index of that name, and so a list."""
        return index in self._live.indexes or self._mirrors_of(index) is not None

    def _bases(self, index: str) -> Sequence[str] | None:
        """Return what an index is made of, for a stage its mirrors; None when it has an upstream of its own."""
        settings = self._live.indexes.get(index)
        return self._mirrors_of(index) if settings is None else settings.bases or None

    async def open(self, index: str, form: PageFormat, *, gzip: bool) -> tuple[ListBody, Freshness]:
        """Return the list of ``index`` in ``form``, to be closed, and how it was come by.

        Raises :class:`NotFound`, :class:`Offline`, or :class:`UpstreamError` / :class:`Unavailable` when there is
        none to fall back to.
        """
        self._drop_foreign(index)
        if index not in self._lists:
            await self._loading.join(index, lambda: self._load(index), self._limits.cold_answer_seconds)
        freshness = await self._freshen(index)
        return ListBody(self._lists[index], form, gzip=gzip), freshness

    async def known(self, index: str) -> tuple[ListBody, str] | None:
        """Return the list of ``index`` as JSON, to be closed, and the sha256 of it; None when none is here.

        Upstream is not asked, however old it is.
        """
        if index not in self._upstreams:
            return None
        self._drop_foreign(index)
        if index not in self._lists:
            await self._loading.join(index, lambda: self._load(index))
        found = self._lists.get(index)
        return (
            None
            if found is None
            else (ListBody(found, PageFormat.JSON, gzip=False), found.head.forms[JSON].plain_sha256)
        )

    async def invalidate(self) -> None:
        """Ask upstream at the next request for a list, of whichever index; until then it stays."""
        for index in tuple(self._upstreams):  # a reload may come in between
            if index not in self._lists:
                await self._loading.join(index, partial(self._load, index), self._limits.cold_answer_seconds)
            self._confirmed[index] = -math.inf
            self._failed.pop(index, None)

    async def forget(self, index: str) -> None:
        """Forget the list that an earlier index of this name has left."""
        found = self._lists.pop(index, None)
        if found is not None:
            found.close()
        self._failed.pop(index, None)
        await in_thread(lambda: self._store.remove(index))

    async def _freshen(self, index: str) -> Freshness:
        """Ask upstream when it is time; return with a list there, or raise."""
        is_there = index in self._lists
        if (known := self._judge(index)) is not None:
            return known
        limits = self._limits
        # Of a stage a stale list would hide what was just uploaded: putting a million names together takes seconds.
        may_hurry = is_there and index in self._live.indexes
        patience = limits.page_patience_seconds if may_hurry else limits.cold_answer_seconds
        joined = self._asking.is_flying(index)
        work = self._revalidate if self._bases(index) is None else self._unite
        try:
            freshness = await self._asking.join(index, lambda: work(index), patience)
        except (TeepiError, TimeoutError) as error:
            if index in self._lists:
                return Freshness.STALE
            if isinstance(error, TimeoutError):
                msg = "Upstream's project list has not come in full yet; teepi goes on fetching it. Try again."
                raise Unavailable(msg) from None
            raise
        return Freshness.COLLAPSED if joined and freshness is not Freshness.HIT else freshness

    def _judge(self, index: str) -> Freshness | None:
        """Return how fresh a list is that need not, or must not, be asked for now; None when it is time to."""
        is_there = index in self._lists
        made_of = self._bases(index)
        if made_of is not None and index not in self._live.indexes:  # a stage: what was uploaded shows at once
            return None
        if self._live.offline and is_there:
            return Freshness.HIT
        if made_of is not None:  # it is as fresh as they are
            return None
        if self._live.offline:
            msg = f"teepi runs offline and has no project list of {index}; installers do not need one."
            raise Offline(msg)
        now = time.monotonic()
        if is_there and self._confirmed[index] > now - self._live.page_ttl_seconds(index):
            return Freshness.HIT
        if is_there and self._failed.get(index, -self._limits.absent_seconds) > now - self._limits.absent_seconds:
            return Freshness.STALE
        return None

    def close(self) -> None:
        """Let go of all lists."""
        for found in self._lists.values():
            found.close()
        self._lists.clear()

    async def _load(self, index: str) -> None:
        found = await in_thread(lambda: self._store.load(index))
        if found is None:
            return
        if index in self._lists or found.head.url not in self._places(index):
            found.close()
            return
        self._lists[index] = found
        self._confirmed[index] = time.monotonic() - max(0.0, time.time() - found.head.fetched_at)

    def _drop_foreign(self, index: str) -> None:
        """Let go of a list that came from an upstream which is another one now."""
        found = self._lists.get(index)
        if found is not None and found.head.url not in self._places(index):
            del self._lists[index]
            self._failed.pop(index, None)
            found.close()

    def _places(self, index: str) -> Sequence[str]:
        """Return where the list may have come from; what is stored from elsewhere is of an earlier configuration."""
        made_of = self._bases(index)
        if made_of is None:
            return self._upstreams[index].roots if index in self._upstreams else ()
        return [f"bases:{','.join(made_of)}"]

    async def _revalidate(self, index: str) -> Freshness:
        asked = Freshness.REVALIDATED if index in self._lists else Freshness.MISS
        try:
            try:
                await self._fetch(index, in_memory=False)
            except OSError as error:
                log.warning("The project list of %s cannot be stored: %s. It is kept in memory.", index, error)
                await self._fetch(index, in_memory=True)
        except TeepiError as error:
            self._failed[index] = time.monotonic()
            log.warning("The project list of %s was not fetched: %s", index, error)
            raise
        self._confirmed[index] = time.monotonic()
        self._failed.pop(index, None)
        return asked

    async def _fetch(self, index: str, *, in_memory: bool) -> None:
        upstream = self._upstreams[index]
        await upstream.first(
            upstream.roots, lambda url, hurried: self._fetch_from(url, index, in_memory=in_memory, hurried=hurried)
        )

    async def _fetch_from(self, url: str, index: str, *, in_memory: bool, hurried: bool) -> None:
        old = self._lists.get(index)
        told = None if old is None or old.head.url != url else old.head  # validators tell another mirror nothing
        etag = None if told is None else told.etag
        modified = None if told is None else told.last_modified
        async with self._upstreams[index].project_list(url, etag=etag, last_modified=modified, hurried=hurried) as (
            answer,
            chunks,
        ):
            if answer.body is None and old is not None:
                old.head = replace(old.head, etag=answer.etag or etag, fetched_at=time.time())
                head = old.head
                try:
                    await in_thread(lambda: self._store.renew(head))
                except OSError as error:
                    log.warning("The head of the project list of %s cannot be written: %s.", index, error)
                return
            writer = await in_thread(lambda: self._begin(index, in_memory=in_memory))
            try:
                await self._write(writer, answer, chunks)
                found = await in_thread(lambda: writer.commit(url, answer.etag, answer.last_modified, time.time()))
            finally:
                await in_thread(writer.abort)
        self._replace(index, found)

    def _replace(self, index: str, found: StoredList) -> None:
        old = self._lists.get(index)
        self._lists[index] = found
        if old is not None:
            old.close()

    def _begin(self, index: str, *, in_memory: bool) -> ListWriter:
        forms = (JSON, HTML)
        if not in_memory:
            try:
                return self._store.begin(index, forms)
            except OSError as error:
                log.warning("The project list of %s cannot be stored: %s. It is kept in memory.", index, error)
        return self._store.begin(index, forms, in_memory=True)

    async def _write(self, writer: ListWriter, answer: UpstreamPage, chunks: AsyncIterator[bytes]) -> None:
        pieces = _pieces(chunks, self._limits.list_bytes, shown(answer.url))
        first = await anext(pieces, b"")
        names, is_json = names_of(answer.content_type, first, shown(answer.url))
        forms = ListForms(writer, has_json=is_json)

        def step(piece: bytes) -> None:
            if is_json:
                writer.add(JSON, piece)  # as it is: there is no link in it
            forms.put(names.feed(piece))

        def end() -> None:
            forms.put(names.finish())
            forms.end()

        await in_thread(forms.begin)
        await in_thread(lambda: step(first))
        async for piece in pieces:
            await in_thread(lambda piece=piece: step(piece))  # type: ignore[misc] # the loop's own piece
        await in_thread(end)

    # -- made of others ------------------------------------------------------------------------------

    async def _unite(self, index: str) -> Freshness:
        """Bring the list of an index made of others up to date with theirs: with all of them, or it raises."""
        is_there = index in self._lists
        bases = self._bases(index) or ()
        own = [] if index in self._live.indexes else await self._names_of(index)
        with ExitStack() as parts:
            bodies, found = [], [Freshness.HIT]
            for base in bases:
                body, freshness = await self._open_base(index, base)
                parts.callback(body.close)
                bodies.append(body)
                found.append(freshness)
            worst = max(found, key=_FROM_BEST.index)
            digest = [hashlib.sha256("\n".join(own).encode()).hexdigest()] if own else []
            made_of = " ".join([*digest, *(body.etag for body in bodies)])
            if is_there and self._lists[index].head.etag == made_of:
                return worst
            parts_of = dict(zip(bases, bodies, strict=True))
            try:
                await self._merge(index, own, parts_of, made_of, in_memory=False)
            except OSError as error:
                log.warning("The project list of %s cannot be stored: %s. It is kept in memory.", index, error)
                await self._merge(index, own, parts_of, made_of, in_memory=True)
        return worst if worst is Freshness.STALE else Freshness.REVALIDATED if is_there else Freshness.MISS

    async def _open_base(self, index: str, base: str) -> tuple[ListBody, Freshness]:
        try:
            return await self.open(base, PageFormat.JSON, gzip=False)
        except NotFound as error:  # its upstream has no list, which is not an empty one
            msg = f"{index} has no project list, since its base {base} has none: {error.message}"
            raise Unavailable(msg) from error

    async def _merge(
        self, index: str, own: list[str], bodies: Mapping[str, ListBody], made_of: str, *, in_memory: bool
    ) -> None:
        """Write a list with every name once, as the first that has it spells it; what a stage has itself is first."""
        with ExitStack() as undo:
            lines = await in_thread(lambda: self._store.sort(index, in_memory=in_memory))
            undo.callback(lines.close)
            count = await in_thread(lambda: _add_names(lines, lambda: own, 0))
            for base, body in bodies.items():
                body.rewind()
                reader = JsonNames(f"of {base}")
                is_more = True
                while is_more:
                    piece = await body.read()
                    is_more = bool(piece)
                    feed = partial(reader.feed, piece) if piece else reader.finish
                    count = await in_thread(partial(_add_names, lines, feed, count))
            writer = await in_thread(lambda: self._begin(index, in_memory=in_memory))
            undo.callback(writer.abort)
            forms, names = ListForms(writer), first_spellings(lines)
            await in_thread(forms.begin)
            while some := await in_thread(lambda: list(islice(names, _NAMES_STEP))):
                await in_thread(partial(forms.put, some))
            await in_thread(forms.end)
            place = f"bases:{','.join(bodies)}"
            self._replace(index, await in_thread(lambda: writer.commit(place, made_of, None, time.time())))


def _add_names(lines: SortedLines, names: Callable[[], list[str]], number: int) -> int:
    """Add a line for each name, the first with ``number``; return the next number."""
    found = names()
    lines.add(lines_of(found, number))
    return number + len(found)


async def _pieces(chunks: AsyncIterator[bytes], most: int, said: str) -> AsyncIterator[bytes]:
    """Join chunks to pieces that are worth a thread. Raises :class:`BadPage` beyond ``most`` bytes."""
    parts: list[bytes] = []
    size = total = 0
    async for chunk in chunks:
        for start in range(0, len(chunk), _PIECE_BYTES):
            part = chunk[start : start + _PIECE_BYTES]
            parts.append(part)
            size += len(part)
            total += len(part)
            if total > most:
                msg = f"The project list {said} is larger than {most} bytes and is refused."
                raise BadPage(msg)
            if size >= _PIECE_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
    if parts:
        yield b"".join(parts)
