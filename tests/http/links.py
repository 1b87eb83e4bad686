"""Reads index pages as installers do: JSON, or HTML with nothing but the standard library."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import urldefrag, urljoin, urlsplit

from tests.support.clients import fetch
from tests.support.projects import JSON

if TYPE_CHECKING:
    from tests.support.clients import Answer
    from tests.support.teepi import Teepi

HTML_V1 = "application/vnd.pypi.simple.v1+html"


class HtmlPage(HTMLParser):
    """An HTML page: the attributes of its anchors by file name, and its metas by name."""

    def __init__(self, body: bytes) -> None:
        """Read ``body``."""
        super().__init__()
        self.anchors: dict[str, dict[str, str | None]] = {}
        self.metas: dict[str, str | None] = {}
        self.has_base = False
        self._attributes: dict[str, str | None] | None = None
        self.feed(body.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what is wanted of a tag."""
        attributes = dict(attrs)
        if tag == "a":
            self._attributes = attributes
        elif tag == "meta" and "name" in attributes:
            self.metas[str(attributes["name"])] = attributes.get("content")
        elif tag == "base":
            self.has_base = True

    def handle_data(self, data: str) -> None:
        """Give the anchor its name."""
        if self._attributes is not None:
            self.anchors[data] = self._attributes
            self._attributes = None


def json_files(answer: Answer) -> dict[str, dict[str, Any]]:
    """Return the files of a JSON page by name."""
    return {file["filename"]: file for file in json.loads(answer.body)["files"]}


def raw_links(answer: Answer) -> dict[str, str]:
    """Return the links of a page by file name, as they stand in it but for the fragment."""
    if answer.headers["content-type"] == JSON:
        return {name: file["url"] for name, file in json_files(answer).items()}
    return {name: urldefrag(str(a["href"])).url for name, a in HtmlPage(answer.body).anchors.items()}


def links(answer: Answer, target: str, origin: str = "http://teepi.example") -> dict[str, str]:
    """Return by file name the targets that the links of the page at ``target`` of ``origin`` lead to."""
    found = {}
    for name, link in raw_links(answer).items():
        url = urljoin(origin + target, link)
        assert urlsplit(url).netloc == urlsplit(origin).netloc
        found[name] = url.removeprefix(origin)
    return found


async def get_page(teepi: Teepi, project: str = "demo", accept: str = JSON, **headers: str) -> Answer:
    """Fetch the page of ``project``."""
    return await fetch(teepi.address, f"/simple/{project}/", {"Accept": accept} | headers)


async def file_target(teepi: Teepi, filename: str, project: str = "demo") -> str:
    """Return the target that the page of ``project`` gives for ``filename``."""
    return links(await get_page(teepi, project), f"/simple/{project}/")[filename]


def sha256(content: bytes) -> str:
    """Return the digest in hex."""
    return hashlib.sha256(content).hexdigest()


def is_sentence(answer: Answer) -> bool:
    """Whether an error is plain sentences, stored by nobody (contract 19 and 36)."""
    text = answer.body.decode()
    return (
        answer.headers["content-type"].startswith("text/plain")
        and answer.headers["cache-control"] == "no-store"
        and text.endswith(".\n")
        and text.count("\n") == 1
        and len(text) < 1000
    )
