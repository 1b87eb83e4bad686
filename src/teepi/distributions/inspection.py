"""What an uploaded file is, found out of its name, its form and its bytes, each compared with the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from packaging.utils import canonicalize_version

from teepi.distributions.core_metadata import read_fields
from teepi.distributions.names import DUMB, is_release, named, normalised, parsed_version
from teepi.distributions.refusal import quoted, quoted_path, refusal
from teepi.distributions.tars import checked_content, is_tar
from teepi.distributions.zips import checked_members, content
from teepi.errors import BadWheel, NoCoreMetadata
from teepi.wheel_metadata import METADATA_BYTES, extract

if TYPE_CHECKING:
    from typing import BinaryIO

    from teepi.distributions.claims import Claims
    from teepi.distributions.names import Named
    from teepi.distributions.zips import Member

_PKG_INFO: Final = "PKG-INFO"


@dataclass(frozen=True, slots=True)
class Distribution:
    """An uploaded file that may be kept."""

    filename: str
    project: str
    """Normalised (PEP 503)."""
    name: str
    """As the metadata spells it, or else the form or the file's name."""
    version: str
    """As the metadata spells it, or else the form or the file's name."""
    version_key: str
    """The same for all spellings of one version (PEP 440)."""
    filetype: str
    """``bdist_wheel``, ``sdist``, ``bdist_egg`` or ``bdist_dumb``."""
    requires_python: str | None
    summary: str
    core_metadata: bytes | None
    """METADATA of a wheel, byte for byte (PEP 658). None for an sdist: building it may change what is dynamic."""
    fields: dict[str, Any]
    """Core metadata by the names that upload forms use; ``""`` and ``[]`` for what is unknown."""


def inspect(file: BinaryIO, size: int, filename: str, claims: Claims) -> Distribution:
    """Find out what the ``size`` bytes of ``file`` are, which came as ``filename`` with the form ``claims``.

    Reads all of the file, blocking. Raises :class:`BadUpload` with the reason why it is not to be kept.
    """
    name = named(filename, claims)
    metadata = _metadata(file, size, filename, name)
    what = f"The metadata in {quoted_path(filename)}"
    fields = read_fields(metadata, claims, what)
    if metadata is not None:
        _check_identity(fields, name, what)
    spelled_name, spelled_version = fields["name"] or name.project, fields["version"] or str(name.version)
    fields |= {"name": spelled_name, "version": spelled_version}
    return Distribution(
        filename=filename,
        project=name.project,
        name=spelled_name,
        version=spelled_version,
        version_key=canonicalize_version(name.version),
        filetype=name.filetype,
        requires_python=fields["requires_python"] or None,
        summary=fields["summary"],
        core_metadata=metadata if name.filetype == "bdist_wheel" else None,
        fields=fields,
    )


def claimed_release(claims: Claims, *, needs_version: bool = True) -> dict[str, Any]:
    """Return the fields of a release that comes as a form alone, as :attr:`Distribution.fields` has them.

    Raises :class:`BadUpload` when its name or version is none; a version may be missing unless ``needs_version``.
    """
    fields = read_fields(None, claims, "The form")
    normalised(fields["name"])
    if fields["version"] or needs_version:
        parsed_version(fields["version"])
    return fields


def inspect_docs(file: BinaryIO, size: int) -> list[tuple[str, int]]:
    """Return path and size in bytes of each file in a zip of documentation.

    Raises :class:`BadUpload` for an archive that is not sound.
    """
    members = _members(file, size)
    return [(path, member.size) for path, member in members.items() if not member.is_directory]


def _check_identity(fields: dict[str, Any], name: Named, what: str) -> None:
    for field in ("name", "version"):
        if not fields[field]:
            raise refusal(f"{what} has no {field.title()}.")
    if normalised(fields["name"]) != name.project:
        raise refusal(f"{what} is for project {quoted(fields['name'])}.")
    if parsed_version(fields["version"]) != name.version:
        raise refusal(f"{what} is for version {quoted(fields['version'])}.")


def _metadata(file: BinaryIO, size: int, filename: str, name: Named) -> bytes | None:
    """Return METADATA or PKG-INFO out of a sound archive; an egg may have none."""
    if name.extension == ".whl":
        return _wheel(file, size, filename)
    if name.extension == ".egg":
        return _pkg_info(file, _members(file, size), "EGG-INFO")
    if name.filetype == DUMB:  # installers leave it alone
        if name.extension == ".zip":
            _members(file, size)
        else:
            checked_content(file, size, _PKG_INFO, METADATA_BYTES, needs_top=False)
        return None
    if name.extension == ".zip":
        top, info = _zip_sdist(file, size)
    else:
        top, info = checked_content(file, size, _PKG_INFO, METADATA_BYTES)
    is_flat = not top and info is not None
    if not is_flat and not is_release(top, name.project, name.version):
        raise refusal(f"The sdist's directory {quoted_path(top)} is not called name-version, as its file is.")
    if info is None:
        raise refusal(f"The sdist has no {quoted_path(f'{top}/{_PKG_INFO}')}: build it with a PEP 517 builder.")
    return info


def _members(file: BinaryIO, size: int) -> dict[str, Member]:
    if is_tar(file):
        raise refusal("The file is a tar archive and a zip archive at once.")
    return checked_members(file, size)


def _wheel(file: BinaryIO, size: int, filename: str) -> bytes:
    members = _members(file, size)
    tops = {top for top, below, _ in (path.partition("/") for path in members) if below}
    owners = {top for top in tops if top.endswith(".dist-info")}
    if len(owners) != 1:
        raise refusal(f"The wheel has {len(owners)} .dist-info directories instead of one.")
    info = owners.pop()
    for required in ("METADATA", "WHEEL", "RECORD"):
        if f"{info}/{required}" not in members:
            raise refusal(f"The wheel has no {quoted_path(f'{info}/{required}')}.")

    def read(start: int, stop: int) -> bytes:
        file.seek(start)
        return file.read(stop - start)

    try:
        return extract(filename, size, read)  # what will be served is found as it will be found again
    except (BadWheel, NoCoreMetadata) as error:
        raise refusal(error.message.replace(filename, "The wheel", 1)) from error


def _zip_sdist(file: BinaryIO, size: int) -> tuple[str, bytes | None]:
    members = _members(file, size)
    tops = {path.partition("/")[0] for path in members}
    if len(tops) != 1:
        raise refusal(f"The sdist has {len(tops)} directories or files at its top instead of one directory.")
    top = tops.pop()
    return top, _pkg_info(file, members, top)


def _pkg_info(file: BinaryIO, members: dict[str, Member], top: str) -> bytes | None:
    member = members.get(f"{top}/{_PKG_INFO}")
    return content(file, member, METADATA_BYTES) if member is not None else None
