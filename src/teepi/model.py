"""The values that every layer speaks of: digests, file keys, files that pages link to.

Frozen structs and nothing else: no IO, no clocks, no imports from the rest of teepi. A page has thousands of them;
a struct is made in a fifth of a frozen dataclass's time, and the garbage collector need not look at it.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

# Strongest first. An index may give several; sha256 leads because it is what the store is named by,
# then the others by strength. Anything that is not here is carried in pages but never decides.
DIGEST_PREFERENCE: Final = (
    "sha256",
    "sha512",
    "sha384",
    "sha3_512",
    "sha3_384",
    "sha3_256",
    "blake2b",
    "blake2s",
    "sha224",
    "sha1",
    "md5",
)

# Hex characters of each digest in DIGEST_PREFERENCE, in the same order; another length is no digest.
_DIGEST_HEX_LENGTH: Final = dict(zip(DIGEST_PREFERENCE, (64, 128, 96, 128, 96, 64, 128, 64, 56, 40, 32), strict=True))


class Digest(msgspec.Struct, frozen=True, gc=False):
    """A hash of a whole file, as an index gives it (PEP 503 fragment, PEP 691 ``hashes``)."""

    algorithm: str
    """A name that :func:`hashlib.new` knows, lower case."""
    hex: str
    """Lower-case hexadecimal."""

    @staticmethod
    def strongest(hashes: dict[str, str]) -> Digest | None:
        """Return the digest that decides among ``{algorithm: hex}``, or None when none is usable."""
        for algorithm in DIGEST_PREFERENCE:
            value = hashes.get(algorithm)
            if isinstance(value, str):
                value = value.lower()
                if len(value) == _DIGEST_HEX_LENGTH[algorithm] and set(value) <= set("0123456789abcdef"):
                    return Digest(algorithm, value)
        return None


class FileKey(msgspec.Struct, frozen=True, gc=False):
    """What single-flight, partial, lock and generation hang on.

    ``sha256:<hex>`` where the page gives it, so that all aliases and indexes share one fetch; else
    ``url:<hex>`` over index, raw URL and any weaker digest, so that a page that changes gives a new key. So it is,
    too, for a file of an index that shares nothing, whatever digest its page gives: anybody can claim one.
    """

    value: str

    @staticmethod
    def of(index: str, url: str, digest: Digest | None, *, bound_to: str = "") -> FileKey:
        """Return the key of the file at ``url`` (raw, absolute) of ``index`` with the digest that decides.

        With ``bound_to`` no other index has it, nor one that had the name with another upstream.
        """
        if digest is not None and digest.algorithm == "sha256" and not bound_to:
            return FileKey(f"sha256:{digest.hex}")
        weaker = f"{digest.algorithm}={digest.hex}" if digest is not None else ""
        seed = f"{index}\n{url}\n{weaker}" + (f"\n{bound_to}" if bound_to else "")
        return FileKey("url:" + hashlib.sha256(seed.encode("utf-8", "surrogateescape")).hexdigest())

    @property
    def sha256(self) -> str | None:
        """The content's sha256 in hex when the key carries it: when that alone leads to the bytes."""
        kind, _, value = self.value.partition(":")
        return value if kind == "sha256" else None

    @property
    def slug(self) -> str:
        """The key as a file name: ``sha256-<hex>`` or ``url-<hex>``."""
        return self.value.replace(":", "-")


class FileRecord(msgspec.Struct, frozen=True, gc=False):
    """One file that a page of an index links to: what is needed to fetch and check it without the page."""

    index: str
    """Name of the index, ``user/name``."""
    project: str
    """Normalised project name (PEP 503)."""
    filename: str
    url: str
    """The upstream's own URL, raw as the page spelt it, absolute, without fragment."""
    address: str
    """Where the file lives below the index's base, percent-decoded once: ``+files/{authority}/{path}``."""
    digest: Digest | None = None
    """The digest that decides (see :data:`DIGEST_PREFERENCE`), or None when the page gives none."""
    size: int | None = None
    """Bytes, when the page says so (PEP 700)."""
    metadata: Digest | bool = False
    """PEP 658/714 core metadata: its digest, True when advertised without one, False when not advertised."""
    immutable: bool = False
    """Upstream itself called this file ``immutable`` (RFC 8246)."""
    wheel: FileRecord | None = None
    """Of core metadata that upstream does not have: the wheel out of which it is read."""
    bound_to: str = ""
    """Where nothing of it is shared with other indexes: the upstream, which any user may have named. It is said by who
    hands the record out, and not stored."""

    @property
    def key(self) -> FileKey:
        """The :class:`FileKey` that this record resolves to."""
        return FileKey.of(self.index, self.url, self.digest, bound_to=self.bound_to)

    @property
    def sha256(self) -> str | None:
        """What the page says of the content, in hex; bytes that are found by :attr:`key` have it."""
        return self.digest.hex if self.digest is not None and self.digest.algorithm == "sha256" else None
