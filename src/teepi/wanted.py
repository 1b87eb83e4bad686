"""Which files a lock file or a resolver's report asks for, for one Python and platform: what ``prefetch`` fetches.

No IO: texts in, names out.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote, urlsplit

from packaging import tags as tagging
from packaging.markers import default_environment
from packaging.pylock import (
    PackageArchive,
    PackageSdist,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockUnsupportedVersionError,
    PylockValidationError,
)
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from teepi.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from packaging.markers import Environment
    from packaging.tags import Tag


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file of one project."""

    project: str
    """Normalised name (PEP 503)."""
    filename: str
    sha256: str | None
    """Lower-case hex, when the list gives it."""
    url: str | None = None
    """Where it is, when the list was made through this very server."""
    version: str | None = None
    """As the metadata have it, when a resolver looked at them."""


@dataclass(frozen=True, slots=True)
class Target:
    """The Python and the platform that files are chosen for."""

    tags: Sequence[Tag]
    """Best first (PEP 425)."""
    environment: Environment
    """For markers (PEP 508)."""

    @classmethod
    def of(cls, python: str | None = None, platforms: Sequence[str] = ()) -> Target:
        """Return the target for ``python`` (``3.12``) and platform tags; without them, what runs this.

        Raises :class:`BadInput` when ``python`` is no version of two numbers.
        """
        environment = default_environment()
        if python is None and not platforms:
            return cls(list(tagging.sys_tags()), environment)
        python = python or environment["python_version"]
        parts = python.split(".")
        if not 2 <= len(parts) <= 3 or not all(part.isascii() and part.isdecimal() for part in parts):  # noqa: PLR2004
            raise BadInput(f"--python {python} is no version of Python; write it as in --python 3.12.")
        version = (int(parts[0]), int(parts[1]))
        places = list(platforms) or list(tagging.platform_tags())
        found = [
            *tagging.cpython_tags(version, platforms=places),
            *tagging.compatible_tags(version, f"cp{version[0]}{version[1]}", places),
        ]
        full = python if len(parts) == 3 else f"{python}.0"  # noqa: PLR2004 - with its micro version
        changed = {"python_version": f"{version[0]}.{version[1]}", "python_full_version": full}
        merged = {**environment, **changed, **_environment_of(places[0])}
        return cls(found, cast("Environment", merged))


def read_lock(text: str, name: str, target: Target) -> list[Wanted]:
    """Return what a lock file asks for: ``uv.lock``, or ``pylock.toml`` (PEP 751).

    Of ``uv.lock``, which is for all platforms at once, every project is taken that has a file for ``target``. Raises
    :class:`BadInput` naming the file and the reason.
    """
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{name} is no lock file: it is not TOML ({error}).") from None
    try:
        if "lock-version" in content:
            return list(_from_pylock(content, name, target))
        if "package" in content and isinstance(content.get("version"), int):
            return list(_from_uv_lock(content, name, target))
    except ValueError as error:
        raise BadInput(f"{name} has a URL that is none ({error}); lock anew.") from None
    raise BadInput(f"{name} is neither a pylock.toml (it has no lock-version) nor a uv.lock.")


def read_report(text: str) -> list[Wanted]:
    """Return what pip's installation report (version 1) names. Raises :class:`BadInput`."""
    try:
        items = json.loads(text)["install"]
        return [
            Wanted(
                canonicalize_name(item["metadata"]["name"]),
                _last_segment(item["download_info"]["url"]),
                item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256"),
                item["download_info"]["url"],
                item["metadata"].get("version"),
            )
            for item in items
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"pip's report cannot be read ({type(error).__name__}: {error}); use a newer pip.") from None


def _from_pylock(content: Mapping[str, Any], name: str, target: Target) -> Iterator[Wanted]:
    try:
        lock = Pylock.from_dict(content)
        chosen = list(lock.select(environment=target.environment, tags=target.tags))
    except (PylockValidationError, PylockUnsupportedVersionError, PylockSelectError) as error:
        raise BadInput(f"{name} cannot be used: {error}.".replace("..", ".")) from None
    for package, file in chosen:
        if isinstance(file, (PackageWheel, PackageSdist)):
            filename = file.filename
        elif isinstance(file, PackageArchive) and file.url:
            filename = _last_segment(file.url)
        else:
            continue  # a directory or a repository comes from no index
        yield Wanted(package.name, filename, dict(file.hashes).get("sha256"))


def _from_uv_lock(content: Mapping[str, Any], name: str, target: Target) -> Iterator[Wanted]:
    order = {tag: place for place, tag in enumerate(target.tags)}
    try:
        for package in content["package"]:
            if "registry" not in package.get("source", {}):
                continue  # the project itself, a directory, a repository
            files = [file for file in package.get("wheels", ()) if _rank(_name_in(file), order) is not None]
            wheel = min(files, key=lambda file: _rank(_name_in(file), order) or 0, default=None)
            file = wheel or package.get("sdist")
            if file is None:
                continue  # for other platforms only
            yield Wanted(canonicalize_name(package["name"]), _name_in(file), _sha256(file.get("hash")))
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{name} is no uv.lock that can be read ({type(error).__name__}: {error}).") from None


def project_of_wheel(url: str) -> str | None:
    """Return the project (normalised name) of the wheel that ``url`` leads to; None when it leads to none."""
    try:
        return parse_wheel_filename(_last_segment(url))[0]
    except (InvalidWheelFilename, ValueError):
        return None


def _name_in(file: Mapping[str, Any]) -> str:
    return str(file.get("filename") or _last_segment(file.get("url") or file["path"]))


def _rank(filename: str, order: Mapping[Tag, int]) -> int | None:
    """Return how well a wheel fits, 0 best, or None when it does not."""
    try:
        wheel_tags = parse_wheel_filename(filename)[3]
    except InvalidWheelFilename:
        return None
    return min((order[tag] for tag in wheel_tags if tag in order), default=None)


def _sha256(value: object) -> str | None:
    return value.removeprefix("sha256:") if isinstance(value, str) and value.startswith("sha256:") else None


def _last_segment(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _environment_of(platform: str) -> dict[str, str]:
    """Return the markers that follow from a platform tag; where it says nothing, this machine's stay."""
    for prefix, (sys_platform, system, os_name) in _SYSTEMS.items():
        if platform.startswith(prefix):
            found = {"sys_platform": sys_platform, "platform_system": system, "os_name": os_name}
            machine = next((machine for machine in _MACHINES if platform.endswith(machine)), None)
            return found if machine is None else found | {"platform_machine": _MACHINES[machine]}
    return {}


_MACHINES: Final = {
    "win_amd64": "AMD64",
    "win_arm64": "ARM64",
    "win32": "x86",
    **{name: name for name in ("x86_64", "aarch64", "arm64", "armv7l", "i686", "ppc64le", "riscv64", "s390x")},
}
_SYSTEMS: Final = {
    "manylinux": ("linux", "Linux", "posix"),
    "musllinux": ("linux", "Linux", "posix"),
    "linux": ("linux", "Linux", "posix"),
    "macosx": ("darwin", "Darwin", "posix"),
    "win": ("win32", "Windows", "nt"),
}
