"""All times and sizes that govern a transfer and its readers, each with its reason.

One frozen object, handed to whoever needs it; tests scale it instead of sleeping.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes; the defaults are what installers tolerate (pip gives up after 15 s without a byte)."""

    withheld_bytes: int = 64 * KIB
    """The end that nobody sees before the digest is right. Covers a zip's end record; more only lengthens
    the silence at the end on a slow upstream."""

    connect_seconds: float = 5.0
    first_byte_seconds: float = 8.0
    """Of a cold fetch: connect and first byte together stay near ``cold_answer_seconds``."""
    cold_answer_seconds: float = 12.0
    """A client that has seen no byte by then gets 503 and the fetch goes on; pip's own limit is 15 s."""

    resume_connect_seconds: float = 3.0
    resume_first_byte_seconds: float = 5.0
    """With ``silence_seconds`` these stay under pip's 15 s, so that a resume looks like a pause."""
    silence_seconds: float = 5.0
    """No byte for so long means that the connection is broken."""
    rate_window_seconds: float = 20.0
    rate_window_bytes: int = 4 * KIB
    """Fewer bytes than this in a window is broken as well: one byte every 0.4 s defeats a read time-out."""
    resume_waits_seconds: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
    """Wait before each try in a row; their number is the number of tries."""
    resume_jitter: float = 0.25
    """Up to this share is added to a wait, so that many transfers do not come back in step."""
    resume_credit_bytes: int = 1 * MIB
    """So many new bytes restore all tries: a large file on a bad line gets there in the end."""

    mismatch_first_wait_seconds: float = 1.0
    mismatch_max_wait_seconds: float = 60.0
    """From the second wrong copy on, fetches of that file are spaced 1, 2, 4 … 60 s: pip alone would ask
    a dozen times."""

    near_tip_bytes: int = 8 * MIB
    """A range that begins this close ahead of what has arrived joins the download instead of being passed."""
    passed_range_bytes: int = 8 * MIB
    """A longer range is not passed upstream by itself but joins: it would be fetched twice."""

    ring_bytes: int = 8 * MIB
    """Memory of a download that no file can hold."""
    ring_idle_seconds: float = 10.0
    """A reader that takes nothing for so long no longer holds up a ring and the others on it (pip: 15 s)."""
    client_idle_seconds: float = 60.0
    """A client that takes nothing for so long is dropped; nothing but itself waits for it."""
    keepalive_seconds: float = 90.0
    """A connection without a whole request for so long is closed, be it idle or a head that trickles in; installers
    idle up to 75 s between requests."""
    tls_handshake_seconds: float = 10.0
    """A TLS handshake that takes longer is given up: until its end a connection costs a descriptor for nothing."""
    fin_wait_seconds: float = 3.0
    """After all bytes of a failed body are acknowledged, so long is waited for the client to close."""
    send_step_bytes: int = 256 * KIB
    """One sendfile: 64 KiB cost half as much CPU again, more makes hot pages wait."""
    send_batch: int = 32
    """Readers stepped per turn of the event loop (32 × 256 KiB is 2 to 4 ms)."""

    low_space_bytes: int = 512 * MIB
    """With less than this free on the disk of the cache ``/readyz`` says so: one large wheel more may not fit."""

    page_patience_seconds: float = 2.0
    """So long a request that has something stale waits for its revalidation; the setting ``patience``."""
    refresh_seconds: float = 3.0
    """A client that asks for a fresh page gets one confirmed within this time: a storm of refreshes asks once."""
    page_bytes: int = 64 * MIB
    """An index page larger than this, its content coding removed, is refused before parsing."""
    list_bytes: int = 128 * MIB
    """A project list larger than this is refused; a real one has 40 MB."""
    page_recheck_seconds: float = 5.0
    """A page is looked at once more for an unknown file URL, but no more often than this."""
    learning_seconds: float = 0.5
    """What was read out of wheels goes to the catalogue together: a resolver asks for thousands."""
    page_hashes_seconds: float = 60.0
    """A page is made anew for hashes of core metadata no more often: clients would fetch and parse all of it again
    for something they can do without."""
    metadata_ranges: int = 48
    """Wheels of one origin that are read by ranges at a time; a page must not wait behind thousands."""
    rangeless_seconds: float = 600.0
    """So long an origin that answers no ranges is asked for none."""
    absent_seconds: float = 10.0
    """How long upstream's 404 for a project is remembered."""
    push_answer_seconds: float = 120.0
    """Of another repository, for each file that is pushed there: it hashes and checks before it answers."""
    push_rate_bytes: int = 32 * KIB
    """A second; for so many bytes of a file that is pushed elsewhere one second more is waited."""
    partial_max_age_days: float = 7.0
    """Partials that no one touched for so long are deleted at start."""
