"""Certificates for a teepi that speaks TLS, signed by an authority of the test's own."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A certificate and its key as files, and who trusts it."""

    authority: trustme.CA
    directory: Path

    @property
    def cert(self) -> Path:
        """Certificate, with those between it and the root."""
        return self.directory / "fullchain.pem"

    @property
    def key(self) -> Path:
        """Its key."""
        return self.directory / "privkey.pem"

    @property
    def root(self) -> Path:
        """The authority's certificate, for clients."""
        return self.directory / "root.pem"

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client trusts that knows the authority."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    def renew(self) -> bytes:
        """Write a new certificate with a new key; return the certificate in DER form."""
        issued = self.authority.issue_cert("127.0.0.1")
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def make_pair(directory: Path) -> Pair:
    """Make an authority and a certificate for 127.0.0.1 in ``directory``."""
    directory.mkdir(exist_ok=True)
    pair = Pair(trustme.CA(), directory)
    pair.authority.cert_pem.write_to_path(pair.root)
    pair.renew()
    return pair
