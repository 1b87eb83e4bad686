"""Probes of the disk and of what the system allows."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Final

from teepi.doctor.finding import Finding, Inquiry, State, in_thread

if TYPE_CHECKING:
    from pathlib import Path

_GIB: Final = 1 << 30
_LITTLE_BYTES: Final = 5 * _GIB
_TOO_LITTLE_BYTES: Final = _GIB
_DESCRIPTORS: Final = 4096  # six uv installs open 300 connections at once, and each download a few files


async def look_at_cache_dir(inquiry: Inquiry) -> list[Finding]:
    """Whether files can be kept there."""
    settings = inquiry.settings
    return [] if settings is None else await in_thread(partial(_directory, settings.cache_dir, "cache_dir"))


async def look_at_data_dir(inquiry: Inquiry) -> list[Finding]:
    """Whether what is precious can be kept there."""
    settings = inquiry.settings
    return [] if settings is None else await in_thread(partial(_directory, settings.data_dir, "data_dir"))


def _directory(path: Path, what: str) -> list[Finding]:
    option = f"--{what.replace('_', '-')}"
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return [Finding(State.BAD, what, f"{there} is no directory", f"Remove it, or choose another with {option}.")]
    found = []
    refusal = _refusal(there)
    if refusal is not None:
        remedy = f"Let the user who runs teepi write there, or choose another with {option}."
        found.append(Finding(State.BAD, what, f"{there} cannot be used ({refusal})", remedy))
    mode = there.stat().st_mode
    if there == path and mode & stat.S_IWOTH:
        said = f"Everybody on this machine can write to {path}"
        found.append(Finding(State.DOUBT, what, said, f"Take that right away: chmod o-w {path}."))
    space = os.statvfs(there)
    free = space.f_bavail * space.f_frsize
    if space.f_files and not space.f_favail:
        said = f"The file system of {there} has no inode left"
        found.append(Finding(State.BAD, what, said, f"Remove small files, or choose another with {option}."))
    if free < _LITTLE_BYTES:
        state = State.BAD if free < _TOO_LITTLE_BYTES else State.DOUBT
        said = f"{there} has {free / _GIB:.1f} GiB left"
        found.append(Finding(state, what, said, f"Make room, or choose another disk with {option}."))
    if found:
        return found
    said = f"{path} can be written, {free / _GIB:.0f} GiB are free"
    return [
        Finding(State.WELL, what, said if there == path else f"{path} will be made; {free / _GIB:.0f} GiB are free")
    ]


def _refusal(directory: Path) -> str | None:
    """Return why no file can be written and locked in ``directory``; the file has no name and goes by itself."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"teepi")
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}:
            return "its file system has no locks"
        return error.strerror or str(error)
    return None


async def look_at_descriptors(inquiry: Inquiry) -> list[Finding]:  # noqa: ARG001 - a probe
    """Whether many clients can connect at once; teepi raises its own limit as far as the system lets it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _DESCRIPTORS:
        said = f"A process may open no more than {hard} files and connections"
        return [
            Finding(State.DOUBT, "descriptors", said, "Raise it: ulimit -Hn 65536, or LimitNOFILE=65536 in a unit.")
        ]
    return [Finding(State.WELL, "descriptors", f"Up to {'any number' if hard == resource.RLIM_INFINITY else hard}")]
