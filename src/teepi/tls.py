"""The certificate that listeners show: read, checked, and read again while they listen.

It imports no more than ssl, for ``teepi health`` has to stay quick. What the settings are is said in ``config``.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from teepi.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"  # PKCS #8, and the older forms with RSA or EC before it (RFC 7468)
_MISMATCHES: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"})


class Certificate:
    """A certificate chain and its key, for connections to come."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Read both PEM files. Raises :class:`ConfigError` with one sentence. Blocks."""
        self._paths = chain, key
        self._newest = self.context = _context(chain, key)
        """For listeners; it goes on to show what :meth:`renew` has read."""
        self.context.sni_callback = self._show_newest

    def renew(self) -> None:
        """Read the files again; connections that there are go on. Raises as the constructor does, and keeps the old."""
        self._newest = _context(*self._paths)

    def _show_newest(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _first: ssl.SSLContext
    ) -> None:
        # Called for clients that name no server, too. To load into a context that is in use is no way: with a
        # wrong key it would be left with the new certificate and the old key.
        connection.context = self._newest


def check(chain: Path | None, key: Path | None) -> None:
    """Read both files as a listener would, if they are set. Raises :class:`ConfigError`. Blocks."""
    if chain is not None and key is not None:
        _context(chain, key)


def trusting(chain: Path) -> ssl.SSLContext:
    """Return what a client on this machine needs to know the server with this very certificate, whatever its names.

    Raises :class:`ConfigError`. Blocks.
    """
    _read(chain, "tls_cert", _CERTIFICATE, "certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # asked by a loopback address, which no public authority certifies
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file need not reach up to a root
    try:
        context.load_verify_locations(chain)
    except ssl.SSLError as error:
        raise ConfigError(f"tls_cert: {chain} has a damaged certificate ({_reason(error)}); replace it.") from None
    return context


class _Encrypted(Exception):
    pass


def _context(chain: Path, key: Path) -> ssl.SSLContext:
    _read(chain, "tls_cert", _CERTIFICATE, "certificate")
    _read(key, "tls_key", _KEY, "private key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(chain, key, _refuse)
    except _Encrypted:
        raise ConfigError(
            f"tls_key: {key} is encrypted and nobody is there to type its password; "
            "write it without one ('openssl pkey -in OLD -out NEW')."
        ) from None
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise ConfigError(
                f"tls_key: {key} is not the key of the first certificate in {chain}; name the two that belong together."
            ) from None
        raise ConfigError(
            f"tls_cert {chain} and tls_key {key} cannot be used ({_reason(error)}); replace them."
        ) from None
    return context


def _refuse() -> str:
    """Give no password; without this OpenSSL would ask the terminal for one."""
    raise _Encrypted


def _read(path: Path, setting: str, mark: bytes, what: str) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{setting}: {path} cannot be read ({error.strerror}); name a PEM file that teepi's user may read."
        ) from None
    if mark not in content:
        raise ConfigError(f"{setting}: {path} has no {what} in PEM form; name a file that has.")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
