"""Core metadata of an upload: METADATA or PKG-INFO, and the form where these are silent.

Read by packaging, with patience for what old builders write; refused is what would harm: a name or version that is
missing or there twice, and a Requires-Python that installers cannot read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from packaging.metadata import parse_email
from packaging.specifiers import SpecifierSet

from teepi.distributions.claims import known, text, texts
from teepi.distributions.refusal import quoted, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from teepi.distributions.claims import Claims

_HEADERS: Final = 100
"""So many different fields are read; the specification has some 40, and each costs a walk over all."""
_LONGEST_SPECIFIER: Final = 4096

_SINGLE: Final = (
    "metadata_version",
    "name",
    "version",
    "summary",
    "description",
    "description_content_type",
    "home_page",
    "download_url",
    "author",
    "author_email",
    "maintainer",
    "maintainer_email",
    "license",
    "license_expression",
    "keywords",
    "requires_python",
)
# Each with packaging's name for it; both are looked up in forms, since clients disagree about plurals.
_SEVERAL: Final = {
    "classifiers": "classifiers",
    "platform": "platforms",
    "supported_platform": "supported_platforms",
    "requires_dist": "requires_dist",
    "provides_dist": "provides_dist",
    "obsoletes_dist": "obsoletes_dist",
    "requires_external": "requires_external",
    "requires": "requires",
    "provides": "provides",
    "obsoletes": "obsoletes",
    "project_urls": "project_urls",
    "provides_extra": "provides_extra",
    "license_file": "license_files",
    "dynamic": "dynamic",
    "import_name": "import_names",
    "import_namespace": "import_namespaces",
}
_EMAIL_NAMES: Final = {"classifiers": "classifier", "project_urls": "project-url"}
_ONE_LINE: Final = frozenset(_SINGLE) - {"description", "license"}
_BLANK_LINE: Final = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")
_FIELD: Final = re.compile(rb"(?:^|[\r\n])([^\s:]+):")


def read_fields(metadata: bytes | None, claims: Claims, what: str) -> dict[str, Any]:
    """Return the fields of ``metadata``, from the form where it has none; ``""`` and ``[]`` for what nobody says.

    ``what`` names the metadata in refusals. ``name`` and ``version`` are the metadata's alone, where there is any.
    """
    own = _parsed(metadata, what) if metadata is not None else {}
    fields: dict[str, Any] = {}
    for field in _SINGLE:
        said = own.get(field, "")
        if not said and not (metadata is not None and field in {"name", "version"}):
            said = text(claims, field)
        fields[field] = " ".join(said.split()) if field in _ONE_LINE else said
    for field, plural in _SEVERAL.items():
        fields[field] = own.get(field) or texts(claims, field, plural)
    _check_requires_python(fields["requires_python"])
    return fields


def _check_requires_python(specifier: str) -> None:
    try:
        if len(specifier) <= _LONGEST_SPECIFIER:
            SpecifierSet(specifier)
            return
    except ValueError:
        pass
    raise refusal(f"Requires-Python {quoted(specifier)} is no version specifier: see PEP 440.")


def _parsed(metadata: bytes, what: str) -> dict[str, Any]:
    """Return what ``metadata`` says, by our names. Values in an unknown encoding are kept as they can be read."""
    metadata = metadata.removeprefix(b"\xef\xbb\xbf")
    end = _BLANK_LINE.search(metadata)
    head, body = (metadata, b"") if end is None else (metadata[: end.start()], metadata[end.end() :])
    if len({name.lower() for name in _FIELD.findall(head)}) > _HEADERS:
        raise refusal(f"{what} has more than {_HEADERS} different fields.")
    try:
        # Without the body: what stands there is a description, never the parts of a multipart message.
        raw, unparsed = parse_email(head + b"\n\n")
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise refusal(f"{what} cannot be read as core metadata.") from error
    for field in ("name", "version"):
        if len(unparsed.get(field, [])) > 1:
            raise refusal(f"{what} has more than one {field.title()}.")
    own: dict[str, Any] = {}
    for field in _SINGLE:
        own[field] = _single(field, raw, unparsed)
    for field, plural in _SEVERAL.items():
        several = raw.get(plural) or unparsed.get(_EMAIL_NAMES.get(field, field.replace("_", "-")), [])
        if isinstance(several, dict):
            several = [f"{label}, {url}" if url else label for label, url in several.items()]
        own[field] = [one for one in map(known, several) if one] if isinstance(several, list) else []
    own["description"] = known(body.decode(errors="replace")) or own["description"]
    return own


def _single(field: str, raw: Mapping[str, Any], unparsed: Mapping[str, list[str]]) -> str:
    value = raw.get(field)
    if field == "keywords" and isinstance(value, list):
        value = ",".join(value)
    if value is None:  # twice, or in an unknown encoding
        value = next(iter(unparsed.get(field.replace("_", "-"), [])), "")
    return known(value) if isinstance(value, str) else ""
