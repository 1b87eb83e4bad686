"""Small real wheels and sdists, made without any tool: the same arguments give the same bytes.

Pure Python only. ``padding`` makes a file as large as a test needs, of bytes that do not compress.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import random
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EPOCH = (2025, 1, 1, 0, 0, 0)

_BACKEND = '''"""PEP 517 backend that hands out the wheel lying beside it, so that a build needs no network."""
import pathlib
import shutil

WHEEL = next(pathlib.Path(__file__).parent.glob("*.whl"))


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    shutil.copy(WHEEL, wheel_directory)
    return WHEEL.name
'''

_PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "handing_out"\nbackend-path = ["."]\n'


@dataclass(frozen=True)
class Distribution:
    """A built file."""

    filename: str
    content: bytes
    metadata: bytes
    """Core metadata: METADATA of a wheel, PKG-INFO of an sdist."""

    @property
    def sha256(self) -> str:
        """Digest of the content in hex."""
        return hashlib.sha256(self.content).hexdigest()


def noise(size: int, seed: int = 0) -> bytes:
    """Return ``size`` pseudo-random bytes that do not compress, always the same for one ``seed``."""
    return random.Random(seed).randbytes(size)


def wheel(
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    requires_python: str | None = None,
    summary: str = "",
    files: Mapping[str, bytes] | None = None,
    padding: int = 0,
    seed: int = 0,
) -> Distribution:
    """Build a ``py3-none-any`` wheel with a package ``name`` that knows its ``__version__``.

    ``requires`` are requirement strings (PEP 508), ``files`` further members by path, ``padding`` bytes
    of noise in a member of their own.
    """
    package = name.replace("-", "_").replace(".", "_")
    info = f"{package}-{version}.dist-info"
    metadata = _metadata(name, version, requires, requires_python, summary)
    members = {
        f"{package}/__init__.py": f'__version__ = "{version}"\n'.encode(),
        **(files or {}),
        **({f"{package}/padding.bin": noise(padding, seed)} if padding else {}),
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_record_hash(data)},{len(data)}\n" for path, data in members.items())
    members[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, data in members.items():
            member = zipfile.ZipInfo(path, _EPOCH)
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)
    return Distribution(f"{package}-{version}-py3-none-any.whl", buffer.getvalue(), metadata)


def sdist(
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    requires_python: str | None = None,
    padding: int = 0,
    seed: int = 0,
    backend: str = "",
) -> Distribution:
    """Build an sdist (PEP 625) that an installer can build without network: its backend lies inside.

    ``backend`` is Python that is added to it.
    """
    built = wheel(name, version, requires=requires, requires_python=requires_python)
    metadata = built.metadata
    stem = f"{name.replace('-', '_').replace('.', '_')}-{version}"
    members = {
        "PKG-INFO": metadata,
        "pyproject.toml": _PYPROJECT.encode(),
        "handing_out.py": (_BACKEND + backend).encode(),
        built.filename: built.content,
        **({"padding.bin": noise(padding, seed)} if padding else {}),
    }
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, data in members.items():
            member = tarfile.TarInfo(f"{stem}/{path}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return Distribution(f"{stem}.tar.gz", buffer.getvalue(), metadata)


def _metadata(
    name: str, version: str, requires: Sequence[str], requires_python: str | None, summary: str = ""
) -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    if summary:
        lines.append(f"Summary: {summary}")
    if requires_python is not None:
        lines.append(f"Requires-Python: {requires_python}")
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    return "\n".join([*lines, ""]).encode()


def _record_hash(data: bytes) -> str:
    # The wheel specification's RECORD: urlsafe base64 without padding.
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
