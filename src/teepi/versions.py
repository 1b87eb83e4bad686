"""Versions of uploaded projects: one key for all spellings of a version, and their order. Pure."""

from __future__ import annotations

from functools import lru_cache

from packaging.utils import canonicalize_version
from packaging.version import InvalidVersion, Version


def version_key(version: str) -> str:
    """Return what all spellings of ``version`` share (PEP 440); of what is no version, itself."""
    return canonicalize_version(version)


@lru_cache(maxsize=4096)
def rank(version: str) -> tuple[bool, Version]:
    """Return what versions are sorted by; what is none comes first."""
    try:
        return True, Version(version)
    except InvalidVersion:
        return False, Version("0")
