"""A description of a project as HTML that is safe to show. Run as a process of its own: ``python -m teepi.rendering``.

Parsers of Markdown and reStructuredText can be made to take minutes, or gigabytes, and would hold up everybody from a
thread. The process reads the text and writes the HTML, within what its limits allow; status 1 says that there is none.
"""

from __future__ import annotations

import re
import resource
import sys
from typing import Final

CPU_SECONDS: Final = 5
_MEMORY_BYTES: Final = 1 << 30
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


def main() -> int:
    """Render what comes on stdin, of the media type in the first argument."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    html = rendered(sys.stdin.buffer.read().decode("utf-8", "replace"), sys.argv[1])
    if html is None:
        return 1
    sys.stdout.buffer.write(html.encode())
    return 0


def rendered(text: str, kind: str) -> str | None:
    """Return a description of the media type ``kind`` as safe HTML, None for plain text and what fails."""
    try:
        found = _rendered(text, kind)
    except Exception:  # noqa: BLE001 - parsers of others, and whatever anybody may write
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


if __name__ == "__main__":
    sys.exit(main())
