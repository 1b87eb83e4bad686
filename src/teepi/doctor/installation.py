"""Probes of the Python packages that teepi runs on."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement

from teepi.doctor.finding import Finding, Inquiry, State, in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable


async def look_at_packages(inquiry: Inquiry) -> list[Finding]:  # noqa: ARG001 - a probe
    """Whether what is installed is what teepi asks for."""
    return await in_thread(lambda: [_packages(*_required())])


async def look_at_compiled_parts(inquiry: Inquiry) -> list[Finding]:  # noqa: ARG001 - a probe
    """Whether the quick parts are there: without them all works, slowly."""
    return await in_thread(_compiled_parts)


def _required() -> tuple[str | None, list[str]]:
    try:
        return importlib.metadata.version("teepi"), importlib.metadata.requires("teepi") or []
    except importlib.metadata.PackageNotFoundError:
        return None, []


def _packages(version: str | None, requirements: Iterable[str]) -> Finding:
    if version is None:
        return Finding(State.NOTE, "packages", "teepi runs from its source and is not installed, so none is compared")
    wrong = [said for text in requirements if (said := _conflict(text)) is not None]
    if not wrong:
        return Finding(State.WELL, "packages", "All are of versions that teepi works with")
    remedy = "Install teepi again into an environment of its own (python -m venv, uv tool install, pipx)."
    return Finding(State.BAD, "packages", "; ".join(wrong), remedy)


def _conflict(text: str) -> str | None:
    """Return what is wrong with one requirement (PEP 508) in this environment."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return f"teepi's own metadata is damaged ({text})"
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return f"{requirement.name} is {version}, and teepi wants {requirement.specifier}"


def _compiled_parts() -> list[Finding]:
    from aiohttp.http_parser import HttpRequestParser  # noqa: PLC0415 - in its thread, since it takes a while

    if HttpRequestParser.__module__.endswith("_http_parser"):
        found = [Finding(State.WELL, "C parser", "aiohttp reads HTTP in C")]
    else:
        remedy = "Install aiohttp again from a wheel, and unset AIOHTTP_NO_EXTENSIONS."
        found = [Finding(State.BAD, "C parser", "aiohttp reads HTTP in Python, which is slow", remedy)]
    try:
        import uvloop  # noqa: F401, PLC0415 - whether it can be
    except ImportError as error:
        remedy = "Install uvloop again; teepi does not start without it."
        found.append(Finding(State.BAD, "uvloop", f"It cannot be imported ({error})", remedy))
    else:
        found.append(Finding(State.WELL, "uvloop", "It can be imported"))
    return found
