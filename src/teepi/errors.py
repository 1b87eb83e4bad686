"""Every error that teepi raises on purpose, each with the HTTP status that answers it.

The message is one or two plain sentences for the person at the client: what, where, what to do.
Turning an error into an answer happens in one place, ``web/app``.
"""

from __future__ import annotations

from typing import ClassVar


class TeepiError(Exception):
    """Base of all deliberate errors; ``status`` is the HTTP status that a handler answers with."""

    status: ClassVar[int] = 500
    retry_after_seconds: int | None = None
    """Sent as Retry-After (RFC 9110, 10.2.3). pip waits exactly that long, so it stays at 1, but for passwords."""

    @property
    def message(self) -> str:
        """The sentence for the client."""
        return str(self.args[0]) if self.args else type(self).__name__


class ConfigError(TeepiError):
    """A flag, variable or configuration key is wrong; the process does not start."""


class BadInput(TeepiError):
    """A file or a word that a command was given cannot be used."""


class ServiceError(TeepiError):
    """The machine's service manager is missing or refuses."""


class BadRequest(TeepiError):
    """The request target or a header cannot be read."""

    status = 400


class Unauthorized(TeepiError):
    """Whoever asks has not said who he is, or could not prove it (RFC 9110, 15.5.2)."""

    status = 401


class BadUpload(TeepiError):
    """An uploaded file, or what its form says of it, is refused; the message fits into a reason phrase."""

    status = 400


class Forbidden(TeepiError):
    """Whoever asks is known, or could not be, and may not do this."""

    status = 403


class RefusedWrite(Forbidden):
    """A write under a name that is not known to be teepi's, or sent by a web page of somebody else."""


class NotFound(TeepiError):
    """Upstream said 404, no page links to this, or the URL is none of ours."""

    status = 404


class Deleted(NotFound):
    """The uploader deleted this file (RFC 9110, 15.5.11)."""

    status = 410


class NoCoreMetadata(NotFound):
    """A wheel was looked into and has no core metadata that can be served: so it stays for these bytes."""


class MethodNotAllowed(TeepiError):
    """The URL exists and takes other methods."""

    status = 405


class NotAcceptable(TeepiError):
    """The Accept header excludes every form of the page."""

    status = 406


class Conflict(TeepiError):
    """Something of that name is there and stays as it is."""

    status = 409


class LengthRequired(TeepiError):
    """An upload must say how long it is (RFC 9110, 15.5.12)."""

    status = 411


class TooLarge(TeepiError):
    """What a client sends is larger than is taken (RFC 9110, 15.5.14)."""

    status = 413


class RangeNotSatisfiable(TeepiError):
    """The range begins past the end of the file (RFC 9110, 15.5.17)."""

    status = 416

    def __init__(self, size: int) -> None:
        """Remember ``size`` in bytes for the Content-Range of the answer."""
        super().__init__(f"The range begins past the end of the file, which has {size} bytes.")
        self.size = size


class TooManyAttempts(TeepiError):
    """Wrong passwords came too often; the next try has to wait (RFC 6585, 4)."""

    status = 429

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        """``retry_after_seconds`` is when the next try is looked at."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(TeepiError):
    """Upstream cannot be had right now; the client should try again in a moment."""

    status = 503
    retry_after_seconds = 1


class Offline(TeepiError):
    """teepi runs offline and this is not cached; asking again does not help, hence no Retry-After."""

    status = 503


class DataUnavailable(TeepiError):
    """The data directory cannot be used; asking again does not help before a restart, hence no Retry-After."""

    status = 503


class UpstreamError(Unavailable):
    """Upstream answered something unusable or broke off; carries the upstream's status when it gave one."""

    def __init__(
        self, message: str, upstream_status: int | None = None, *, asked_wait_seconds: float | None = None
    ) -> None:
        """``message`` says which URL did what; ``upstream_status`` is its HTTP status, if it came that far.

        ``asked_wait_seconds`` is how long upstream asked to be left alone (Retry-After).
        """
        super().__init__(message)
        self.upstream_status = upstream_status
        self.asked_wait_seconds = asked_wait_seconds


class BadPage(UpstreamError):
    """Upstream's index page cannot be read as HTML or JSON of the Simple API."""


class BadWheel(UpstreamError):
    """What upstream sent of a wheel, or all of it, is no sound archive."""


class Interrupted(UpstreamError):
    """A transfer broke and could not be resumed."""


class Mismatch(UpstreamError):
    """The bytes of a file are not those that the index promised (digest, size or validator)."""


class StoreError(TeepiError):
    """The cache or data directory cannot be used: full, read-only, in use by another process, or damaged."""


class InUse(StoreError):
    """Another process has the lock of the directory."""
