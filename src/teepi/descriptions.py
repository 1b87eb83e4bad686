"""Descriptions of projects as HTML that is safe to show: rendered and sanitised in threads, within bounds.

Whoever wrote one may be hostile. What is too long, takes too long or cannot be rendered is shown as the text it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

MOST_CHARACTERS: Final = 200_000
"""A longer description is cut where it is shown, and not rendered."""
_THREADS: Final = 2
_SECONDS: Final = 3.0
"""So long a page waits; what is done later is shown the next time."""
_KEPT: Final = 64
_DEEPEST_HEADING: Final = 6
_BELOW: Final = 2  # headings of the page itself
_HEADING: Final = re.compile(r"<(/?)h([1-6])\b")
_TAGS: Final = (
    "a abbr b blockquote br caption cite code col colgroup dd del details div dl dt em figcaption figure "
    "h1 h2 h3 h4 h5 h6 hr i kbd li ol p pre s span strong sub summary sup table tbody td th thead tr tt ul "
    "var"
)
# No class and no id: neither our styles nor our script are theirs. Of an image there are its words alone: it lies
# elsewhere, and whoever has it there would learn who reads this.
_ATTRIBUTES: Final = {
    "a": {"href", "title"},
    "abbr": {"title"},
    "ol": {"start"},
    "td": {"align", "colspan", "rowspan"},
    "th": {"align", "colspan", "rowspan"},
}


class Descriptions:
    """Renders descriptions, and keeps those rendered last."""

    def __init__(self, *, seconds: float = _SECONDS) -> None:
        """Let a page wait for ``seconds``."""
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="descriptions")
        self._kept: OrderedDict[str, Future[str | None]] = OrderedDict()

    def close(self, *, wait: bool = False) -> None:
        """End the threads, when nobody asks any more."""
        self._threads.shutdown(wait=wait, cancel_futures=not wait)

    @property
    def running(self) -> int:
        """How many are being rendered."""
        return sum(not each.done() for each in self._kept.values())

    async def html(self, text: str, content_type: str) -> str | None:
        """Return a description as HTML; None when it is to be shown as text."""
        if not text.strip() or len(text) > MOST_CHARACTERS:
            return None
        kind = content_type.partition(";")[0].strip().lower() or "text/x-rst"
        key = hashlib.sha256(f"{kind}\n{text}".encode("utf-8", "replace")).hexdigest()
        running = self._kept.get(key)
        if running is None:
            if self.running >= _THREADS:
                return None  # rather than to wait behind others
            running = self._kept[key] = self._threads.submit(rendered, text, kind)
            while len(self._kept) > _KEPT and next(iter(self._kept.values())).done():
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(asyncio.wrap_future(running))
        except TimeoutError:
            return None


def rendered(text: str, kind: str) -> str | None:
    """Return a description of the media type ``kind`` as safe HTML, None for plain text and what fails (blocking)."""
    try:
        found = _rendered(text, kind)
    except Exception as error:  # noqa: BLE001 - parsers of others, and whatever anybody may write
        log.info("A description could not be rendered: %r.", error)
        return None
    return None if found is None else sanitised(found)


def _rendered(text: str, kind: str) -> str | None:
    if kind == "text/markdown":
        from readme_renderer import markdown  # noqa: PLC0415 - large, and few processes ever show a description

        # Without its highlighting: regular expressions that hostile code can keep busy, and all of teepi with them.
        return markdown.variants["GFM"](text)
    if kind == "text/x-rst":
        from readme_renderer import rst  # noqa: PLC0415 - the same

        rst.SETTINGS["syntax_highlight"] = "none"  # the same
        return rst.render(text)
    return None


def sanitised(html: str) -> str:
    """Return HTML with nothing in it that acts, loads or looks like a part of our page; headings below ours."""
    import nh3  # noqa: PLC0415 - the same
    from selectolax.lexbor import LexborHTMLParser  # noqa: PLC0415 - the same

    tree = LexborHTMLParser(html)
    for image in tree.css("img"):
        image.replace_with(image.attributes.get("alt") or "")
    clean = nh3.clean(
        tree.html or "",
        tags=set(_TAGS.split()),
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="nofollow noopener noreferrer",
    )
    return _HEADING.sub(lambda found: f"<{found[1]}h{min(_DEEPEST_HEADING, int(found[2]) + _BELOW)}", clean)
