"""Project pages in memory: what is parsed and what is ready to be sent, each within a budget of its own.

A page that is stored can be parsed again; a finished variant answers most requests, and conditional ones, by itself.
So the parsed forms of the pages used last are kept, and the variants of many more. No IO, no clock.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from teepi.codings import Coding, encode, worth_encoding

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from teepi.hot_entries import HotEntries
    from teepi.http_semantics import PageFormat
    from teepi.simple_api import ProjectPage
    from teepi.store import StoredPage

PARSED_BYTES: Final = 48 << 20
"""Of pages in their parsed form, by an estimate."""
VARIANT_BYTES: Final = 64 << 20
"""Of finished pages: some two thousand projects of two hundred files each, compressed."""
_BYTES_PER_FILE: Final = 1500  # of a parsed page, beside the body itself
_MARKED_BYTES: Final = 32 << 20  # of finished pages of private indexes
_BYTES_PER_MARKED: Final = 500  # beside its body
_VARIANTS_KEPT: Final = 16  # per page; a path of many empty segments asks for another one each time

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Variant:
    """A finished page: one format in one coding with links from one depth."""

    body: bytes
    etag: str
    coding: Coding = Coding.IDENTITY
    """What the body is really in: a short one is left as it is."""

    @classmethod
    def of(cls, body: bytes, form: PageFormat, coding: Coding) -> Variant:
        """Finish a rendered page, in ``coding`` where that is worth it."""
        # The same bytes under another Content-Type are another representation (RFC 9110, 8.8.1).
        etag = hashlib.sha256(form.content_type.encode() + body).hexdigest()[:32]
        if coding is Coding.IDENTITY or not worth_encoding(body):
            return cls(body, f'"{etag}"', Coding.IDENTITY)
        # An ETag names bytes: each coding has its own (RFC 9110, 8.8.3.3).
        return cls(encode(body, coding), f'"{etag}-{coding.value}"', coding)


@dataclass(slots=True, eq=False)
class Page:
    """A project page in memory; the same object as long as what it shows is the same."""

    stored: StoredPage
    """Without its body while the page is not parsed."""
    parsed: ProjectPage | None
    """None when memory was short: ``Pages.whole`` brings it back."""
    confirmed_at: float
    """Monotonic seconds of upstream's last answer; a clock that jumps does not change ages."""
    made_of: tuple[object, ...] = ()
    """For the page of an index made of others: the tokens of theirs."""
    token: object = field(default_factory=object)
    """Stands for this page without keeping it in memory."""
    saved_at: float | None = None
    """:attr:`StoredPage.fetched_at` of what is on disk, None before it is."""
    variants: dict[tuple[PageFormat, str, Coding], Variant] = field(default_factory=dict)
    core_metadata: Mapping[str, str] | None = None
    """What the catalogue knows of wheels that were looked into (see ``Catalog.core_metadata``), once asked."""
    learnt: int = 0
    """Grows when that changes: what was looked up before is not kept."""
    look_again_at: float = math.inf
    """Monotonic seconds: from then on that is out of date."""
    looked_at: float = -math.inf

    @property
    def key(self) -> _Key:
        """Index and project."""
        return self.stored.index, self.stored.project

    @property
    def content(self) -> ProjectPage:
        """The parsed form of a page that is whole."""
        if self.parsed is None:
            msg = f"the page of {self.stored.project} is not parsed now"
            raise RuntimeError(msg)
        return self.parsed

    @property
    def parsed_bytes(self) -> int:
        """What the parsed form and the body are counted with."""
        return 0 if self.parsed is None else len(self.stored.body) + _BYTES_PER_FILE * len(self.parsed.links)

    @property
    def variant_bytes(self) -> int:
        """Bytes of all finished variants."""
        return sum(len(variant.body) for variant in self.variants.values())


class PageMemory:
    """The pages used last. A page that has neither a parsed form nor a variant is not in it."""

    def __init__(self, hot: HotEntries) -> None:
        """Begin empty; from ``hot`` is taken what a page that goes was shown by."""
        self._hot = hot
        self._pages: dict[_Key, Page] = {}
        self._parsed: OrderedDict[_Key, Page] = OrderedDict()
        self._shown: OrderedDict[_Key, Page] = OrderedDict()
        self.parsed_bytes = 0
        """Estimate for all parsed forms."""
        self.variant_bytes = 0
        """Sum over all variants."""

    def get(self, key: _Key) -> Page | None:
        """Return the page, parsed or not."""
        page = self._pages.get(key)
        for used in (self._parsed, self._shown):
            if key in used:
                used.move_to_end(key)
        return page

    def has(self, page: Page) -> bool:
        """Whether exactly this page is kept."""
        return self._pages.get(page.key) is page

    def keep(self, page: Page) -> None:
        """Keep ``page``, which is parsed, in the place of any other of its project."""
        self.forget(page.key)
        self._pages[page.key] = page
        self._count_parsed(page)

    def restore(self, page: Page, stored: StoredPage, parsed: ProjectPage) -> None:
        """Give a page that is kept its parsed form and its body back."""
        if page.parsed is None:
            page.stored, page.parsed = stored, parsed
            if self.has(page):
                self._count_parsed(page)

    def add_variant(self, page: Page, key: tuple[PageFormat, str, Coding], variant: Variant) -> None:
        """Keep a variant of a page that is kept, if it has not too many."""
        if self.has(page) and len(page.variants) < _VARIANTS_KEPT:
            page.variants[key] = variant
            self._shown[page.key] = page
            self.variant_bytes += len(variant.body)
            while self.variant_bytes > VARIANT_BYTES and len(self._shown) > 1:
                self.drop_variants(next(iter(self._shown.values())))
            while self.variant_bytes > VARIANT_BYTES and len(page.variants) > 1:
                oldest = next(iter(page.variants))
                self.variant_bytes -= len(page.variants.pop(oldest).body)
                self._hot.drop(page.stored.project)

    def drop_variants(self, page: Page) -> None:
        """Forget the variants of ``page``."""
        self._hot.drop(page.stored.project)
        if self._shown.get(page.key) is page:
            del self._shown[page.key]
            self.variant_bytes -= page.variant_bytes
            if page.parsed is None:
                del self._pages[page.key]
        page.variants.clear()

    def forget(self, key: _Key) -> None:
        """Drop the page of ``key`` altogether; whoever holds it goes on with what it has."""
        self._hot.drop(key[1])
        page = self._pages.pop(key, None)
        if page is not None and self._parsed.pop(key, None) is not None:
            self.parsed_bytes -= page.parsed_bytes
        if page is not None and self._shown.pop(key, None) is not None:
            self.variant_bytes -= page.variant_bytes

    def __iter__(self) -> Iterator[Page]:
        """Go through all pages."""
        return iter(self._pages.values())

    def of_project(self, project: str) -> list[Page]:
        """Return the pages of ``project`` in all indexes."""
        return [page for page in self._pages.values() if page.stored.project == project]

    def _count_parsed(self, page: Page) -> None:
        self._parsed[page.key] = page
        self.parsed_bytes += page.parsed_bytes
        while self.parsed_bytes > PARSED_BYTES and len(self._parsed) > 1:
            self._unparse(next(iter(self._parsed.values())))

    def _unparse(self, page: Page) -> None:
        """Leave of a page what cannot be had again from disk."""
        if page.saved_at != page.stored.fetched_at or not page.variants:
            self.forget(page.key)
            return
        del self._parsed[page.key]
        self.parsed_bytes -= page.parsed_bytes
        page.parsed, page.stored = None, replace(page.stored, body=b"")


class MarkedVariants:
    """Finished pages that are good while what they were made of has the same mark: those used last."""

    def __init__(self, most_bytes: int = _MARKED_BYTES) -> None:
        """Keep up to ``most_bytes``."""
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, tuple[object, Variant]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, mark: object) -> Variant | None:
        """Return the page if it was made under ``mark``."""
        found = self._kept.get(key)
        if found is None or found[0] != mark:
            return None
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: Hashable, mark: object, variant: Variant) -> None:
        """Keep a page; ``mark`` is from before it was made."""
        self._drop(key)
        self._kept[key] = mark, variant
        self._bytes += _BYTES_PER_MARKED + len(variant.body)
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= _BYTES_PER_MARKED + len(found[1].body)
