"""Projects of the scripted upstream: pages of the Simple API (PEP 503, 658, 691, 700) over files."""

from __future__ import annotations

import hashlib
import html
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tests.support.exchange import Resource

if TYPE_CHECKING:
    from collections.abc import Callable

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "text/html"

Form = Literal["json", "html", "both"]


@dataclass(eq=False)
class Project:
    """A project whose page always tells its present files; change it by :meth:`put` and :meth:`remove`."""

    name: str
    origin: Callable[[], str]
    """Gives the URL of the host that has the files, which is known once it listens."""
    publish: Callable[[str, bytes | None], None]
    """Puts a file under a path of that host, or with None takes it away."""
    form: Form = "json"
    """What the page is served as; ``both``: by Accept."""
    links: Literal["absolute", "rooted", "relative"] = "absolute"
    sha256: bool = True
    size: bool = True
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per file name: keys of the JSON entry that are set or replaced (``hashes``, ``yanked``, ``url``, …)."""
    page_extra: dict[str, Any] = field(default_factory=dict)
    """Top-level keys of the page that are set or replaced."""
    page_headers: dict[str, str] = field(default_factory=dict)
    page_etag: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)
    """Core metadata by file name, advertised with its sha256 and served at ``….metadata``."""

    def put(self, filename: str, content: bytes, metadata: bytes | None = None) -> str:
        """Add or replace a file; return its path."""
        self.files[filename] = content
        self.publish(self.path(filename), content)
        if metadata is not None:
            self.metadata[filename] = metadata
            self.publish(self.path(filename) + ".metadata", metadata)
        return self.path(filename)

    def remove(self, filename: str) -> None:
        """Take a file from page and host."""
        del self.files[filename]
        self.publish(self.path(filename), None)
        if self.metadata.pop(filename, None) is not None:
            self.publish(self.path(filename) + ".metadata", None)

    @property
    def page_path(self) -> str:
        """Path of the project page."""
        return f"/simple/{self.name}/"

    def path(self, filename: str) -> str:
        """Path of a file on its host."""
        return f"/packages/{self.name}/{filename}"

    def url(self, filename: str) -> str:
        """Absolute URL of a file."""
        return self.origin() + self.path(filename)

    def page(self, accept: str) -> Resource:
        """Return the page in the form that this project has for the Accept header ``accept``."""
        as_json = self.form == "json" or (self.form == "both" and JSON in accept)
        content = (self._json() if as_json else self._html()).encode()
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"' if self.page_etag else None
        return Resource(content, JSON if as_json else HTML, etag, headers=self.page_headers)

    def _link(self, filename: str) -> str:
        path = self.path(filename)
        return {"absolute": self.origin() + path, "rooted": path, "relative": "../.." + path}[self.links]

    def _entry(self, filename: str) -> dict[str, Any]:
        content = self.files[filename]
        entry: dict[str, Any] = {"filename": filename, "url": self._link(filename), "hashes": {}}
        if self.sha256:
            entry["hashes"] = {"sha256": hashlib.sha256(content).hexdigest()}
        if self.size:
            entry["size"] = len(content)
        if filename in self.metadata:
            entry["core-metadata"] = {"sha256": hashlib.sha256(self.metadata[filename]).hexdigest()}
        return entry | self.extra.get(filename, {})

    def _json(self) -> str:
        page: dict[str, Any] = {
            # PEP 700: 1.1 demands sizes and versions.
            "meta": {"api-version": "1.1" if self.size else "1.0"},
            "name": self.name,
            "files": [self._entry(filename) for filename in self.files],
        }
        if self.size:
            page["versions"] = sorted({filename.removesuffix(".tar.gz").split("-")[1] for filename in self.files})
        return json.dumps(page | self.page_extra)

    def _html(self) -> str:
        lines = [f"<!DOCTYPE html><html><head><title>{self.name}</title></head><body>"]
        for filename in self.files:
            entry = self._entry(filename)
            fragment = "".join(f"#{name}={value}" for name, value in list(entry["hashes"].items())[:1])
            attributes = f' href="{html.escape(entry["url"] + fragment)}"'
            if "requires-python" in entry:
                attributes += f' data-requires-python="{html.escape(entry["requires-python"])}"'
            if (yanked := entry.get("yanked", False)) is not False:
                attributes += f' data-yanked="{html.escape("" if yanked is True else yanked)}"'
            if "core-metadata" in entry:
                value = entry["core-metadata"]
                text = "true" if value is True else "sha256=" + value["sha256"]
                attributes += f' data-dist-info-metadata="{text}" data-core-metadata="{text}"'
            lines.append(f"<a{attributes}>{html.escape(filename)}</a><br>")
        return "\n".join([*lines, "</body></html>", ""])
