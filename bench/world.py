"""What the suite's upstream offers, made once per run below one directory, and its pages in both forms.

Of most files only the page knows: nobody asks for them. Real are a wheel of 50 KB in each small project, one of
100 MB, and the installable wheels, of which each cold install takes another batch.
"""

from __future__ import annotations

import hashlib
import html
import io
import itertools
import json
import random
import zipfile
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

from bench.machine import MB

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 1000
LARGE = 4
LARGE_FILES = 5000
INSTALLED = 60
INSTALLS = 4
"""Scenarios that install cold, each from batches of its own."""
COLD = 12
_COLD_FILES = 50
HUGE = "huge"
_SMALL_FILES = 5
_SMALL_BYTES = 50_000
_HUGE_BYTES = 100 * MB
_INSTALLED_BYTES = 20_000


@dataclass(frozen=True)
class File:
    """A line of a page."""

    name: str
    size: int
    sha256: str
    metadata: str
    """The sha256 of its core metadata."""
    is_real: bool = False


def small(number: int) -> str:
    """Return the name of a small project."""
    return f"small-{number}"


def large(number: int) -> str:
    """Return the name of a project with :data:`LARGE_FILES` files."""
    return f"large-{number}"


def cold(number: int) -> str:
    """Return the name of a project that nothing but the stampede on a page asks for."""
    return f"cold-{number}"


def installed(batch: int, number: int) -> str:
    """Return the name of a project with an installable wheel, one of the 60 of a batch."""
    return f"demo-{batch}-{number}"


class World:
    """The projects and their files."""

    def __init__(self, directory: Path, projects: dict[str, list[File]]) -> None:
        """Use :meth:`make` or :meth:`read`."""
        self.directory = directory
        self.projects = projects

    @classmethod
    def make(cls, directory: Path, batches: int) -> World:
        """Write files and manifest below ``directory``, with so many batches of installable wheels."""
        dice = random.Random(5)
        world = cls(directory, {})
        for number in range(SMALL):
            name = small(number)
            files = [_unreal(name, version) for version in range(_SMALL_FILES - 1)]
            real = world._write(name, f"{_stem(name)}-9.0-py3-none-any.whl", dice.randbytes(_SMALL_BYTES))
            world.projects[name] = [*files, real]
        for number in range(LARGE):
            world.projects[large(number)] = [_unreal(large(number), version) for version in range(LARGE_FILES)]
        for number in range(COLD):
            world.projects[cold(number)] = [_unreal(cold(number), version) for version in range(_COLD_FILES)]
        world.projects[HUGE] = [world._write(HUGE, "huge-1.0-py3-none-any.whl", dice.randbytes(_HUGE_BYTES))]
        for batch, number in itertools.product(range(batches), range(INSTALLED)):
            name = installed(batch, number)
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
            filename = f"{_stem(name)}-1.0-py3-none-any.whl"
            world.projects[name] = [world._write(name, filename, _wheel(name, metadata, dice), metadata)]
        manifest = {name: [asdict(file) for file in files] for name, files in world.projects.items()}
        (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        return world

    @classmethod
    def read(cls, directory: Path) -> World:
        """Read what :meth:`make` wrote."""
        manifest = json.loads((directory / "manifest.json").read_bytes())
        return cls(directory, {name: [File(**file) for file in files] for name, files in manifest.items()})

    def path(self, project: str, filename: str) -> Path:
        """Return where a real file lies."""
        return self.directory / "files" / project / filename

    def real(self, project: str) -> File:
        """Return the real file of a project."""
        return next(file for file in self.projects[project] if file.is_real)

    def _write(self, project: str, filename: str, content: bytes, metadata: bytes = b"") -> File:
        path = self.path(project, filename)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.with_name(filename + ".metadata").write_bytes(metadata)
        return File(filename, len(content), _sha256(content), _sha256(metadata), is_real=True)


def page_json(project: str, files: list[File], base: str) -> bytes:
    """Return the page as large indexes send it."""
    lines = [
        {
            "core-metadata": {"sha256": file.metadata},
            "data-dist-info-metadata": {"sha256": file.metadata},
            "filename": file.name,
            "hashes": {"sha256": file.sha256},
            "provenance": None,
            "requires-python": ">=3.8",
            "size": file.size,
            "upload-time": "2024-01-02T03:04:05.678901Z",
            "url": f"{base}{project}/{file.name}",
            "yanked": False,
        }
        for file in files
    ]
    versions = sorted({file.name.split("-")[1] for file in files})
    page = {"files": lines, "meta": {"_last-serial": 1, "api-version": "1.4"}, "name": project, "versions": versions}
    return json.dumps(page, separators=(",", ":")).encode()


def page_html(project: str, files: list[File], base: str) -> bytes:
    """Return the page in HTML."""
    head = f'<!DOCTYPE html>\n<html><head><meta name="pypi:repository-version" content="1.4"><title>{project}</title>'
    lines = [
        f'<a href="{base}{project}/{file.name}#sha256={file.sha256}" data-requires-python="{html.escape(">=3.8")}" '
        f'data-dist-info-metadata="sha256={file.metadata}" data-core-metadata="sha256={file.metadata}">'
        f"{file.name}</a><br>\n"
        for file in files
    ]
    return (head + f"</head>\n<body>\n<h1>{project}</h1>\n" + "".join(lines) + "</body></html>\n").encode()


@cache
def _stem(project: str) -> str:
    return project.replace("-", "_")


def _unreal(project: str, version: int) -> File:
    tag = f"cp31{version % 4}-cp31{version % 4}-manylinux_2_17_x86_64"
    name = f"{_stem(project)}-{version // 5}.{version % 5}-{tag}.whl"
    return File(name, 100_000 + version, _sha256(name.encode()), _sha256(name.encode() + b"m"))


def _wheel(project: str, metadata: bytes, dice: random.Random) -> bytes:
    """Return an installable wheel of one module."""
    info = f"{_stem(project)}-1.0.dist-info"
    members = {
        f"{_stem(project)}/__init__.py": b"",
        f"{_stem(project)}/data": dice.randbytes(_INSTALLED_BYTES),
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*members, f"{info}/RECORD"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (*members.items(), (f"{info}/RECORD", record.encode())):
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
