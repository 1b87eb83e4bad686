"""Probes of the server and of its upstreams."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import aiohttp

from teepi import __version__, tls
from teepi.doctor.finding import Finding, Inquiry, State
from teepi.errors import TeepiError
from teepi.origins import hide_user_info
from teepi.outbound import Outbound
from teepi.upstream import PAGE_ACCEPT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from teepi.index_settings import IndexSettings

_SERVER_SECONDS: Final = 3.0
_UPSTREAM_SECONDS: Final = 6.0
_SLOW_SECONDS: Final = 2.0
_CLOCK_SECONDS: Final = 300.0
_MOST_STATUS_BYTES: Final = 1 << 20
_PROJECT: Final = "pip"  # a page that every mirror of the public index has
_REFUSED: Final = frozenset({401, 403, 407})
_ABSENT: Final = frozenset({404, 410})
_FIRST_ERROR: Final = 400


async def look_at_server(inquiry: Inquiry) -> list[Finding]:
    """Whether this very teepi answers there."""
    url = inquiry.server
    try:
        trust = True if inquiry.certificate is None else await asyncio.to_thread(tls.trusting, inquiry.certificate)
    except TeepiError as error:
        return [Finding(State.BAD, "server", error.message.rstrip("."), "Correct it; the server was not asked.")]
    began = time.monotonic()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SERVER_SECONDS), trust_env=False) as session,
            session.get(url + "+status", allow_redirects=False, ssl=trust) as response,
        ):
            status = await response.json(content_type=None)
            version = str(status["version"])
    except aiohttp.ClientSSLError as error:
        said = f"The certificate at {url} is not trusted ({_reason(error)})"
        if inquiry.certificate is not None:
            said = f"What answers at {url} does not show the certificate {inquiry.certificate} ({_reason(error)})"
            remedy = "After a renewal let teepi read it: SIGHUP, or systemctl reload."
        else:
            remedy = (
                "Name the address that stands in the certificate with --url, or let SSL_CERT_FILE name its authority."
            )
        return [Finding(State.BAD, "server", said, remedy)]
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        said = f"Nothing answers at {url} ({_reason(error)})"
        return [Finding(State.BAD, "server", said, "Start it with 'teepi serve', or name its address with --url.")]
    except (aiohttp.ClientError, ValueError, KeyError, TypeError, IndexError):
        said = f"Something else than teepi answers at {url}"
        return [Finding(State.BAD, "server", said, "Stop it or let teepi --listen elsewhere; or name it with --url.")]
    seconds = time.monotonic() - began
    if version == __version__:
        found = [Finding(State.WELL, "server", f"teepi {version} answers at {url} in {_shown(seconds)}")]
    else:
        said = f"teepi {version} answers at {url}, and this is {__version__}"
        found = [Finding(State.DOUBT, "server", said, "Restart the server, so that it is what is installed.")]
    problems = status.get("problems")
    for problem in problems if isinstance(problems, list) else []:
        found.append(Finding(State.BAD, "server", str(problem).rstrip("."), "The server says so; its log has more."))
    return found


async def look_at_upstreams(inquiry: Inquiry) -> list[Finding]:
    """Whether each upstream answers and how fast, through the proxy and with the authorities of the settings."""
    settings = inquiry.settings
    if settings is None:
        return []
    if settings.offline:
        return [Finding(State.NOTE, "upstream", "Not asked, since the settings say offline")]
    asked = [
        _look_at_upstream(name, index, mirror) for name, index in settings.indexes.items() for mirror in index.mirrors
    ]
    answers = await asyncio.gather(*asked)
    clocks = [clock for _, clock in answers if clock is not None]
    found = [finding for finding, _ in answers]
    return [*found, _clock(min(clocks, key=abs))] if clocks else found


async def _look_at_upstream(name: str, index: IndexSettings, mirror: str) -> tuple[Finding, float | None]:
    """Ask for one page; return the finding, and by how many seconds this clock is ahead of upstream's, if it says."""
    what, url = f"upstream {name}", hide_user_info(mirror)
    outbound = Outbound(index)
    session = outbound.session(per_host=1)
    limit = aiohttp.ClientTimeout(total=_UPSTREAM_SECONDS)
    began = time.monotonic()
    try:
        async with asyncio.timeout(_UPSTREAM_SECONDS):
            response = await outbound.request(
                session, "GET", f"{mirror}{_PROJECT}/", {"Accept": PAGE_ACCEPT}, decompress=False, timeout=limit
            )
        response.close()  # the head is enough
    except TeepiError as error:
        return Finding(State.BAD, what, error.message.rstrip("."), "Correct the settings of this index."), None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        said = f"{url} cannot be reached ({_reason(error)})"
        remedy = "Look at the network, and at proxy and ca_file of this index; what is cached is served meanwhile."
        return Finding(State.BAD, what, said, remedy), None
    finally:
        await session.close()
        await outbound.aclose()
    seconds = time.monotonic() - began
    return _judged(what, url, response.status, seconds), _ahead(response.headers, seconds)


def _judged(what: str, url: str, status: int, seconds: float) -> Finding:
    if status in _REFUSED:
        remedy = "Correct username and password of this index, or see whether its proxy wants them."
        return Finding(State.BAD, what, f"{url} answers {status}", remedy)
    if status in _ABSENT:
        said = f"{url} answers in {_shown(seconds)} and has no page of {_PROJECT}"
        return Finding(State.NOTE, what, said, "If it should have: its URL ends with the path of the Simple API.")
    if status >= _FIRST_ERROR:
        remedy = "Wait, or name another mirror; what is cached is served meanwhile."
        return Finding(State.BAD, what, f"{url} answers {status}", remedy)
    if seconds > _SLOW_SECONDS:
        said = f"{url} takes {_shown(seconds)} to answer"
        return Finding(State.DOUBT, what, said, "Look for a nearer mirror; what is cached is not slowed.")
    return Finding(State.WELL, what, f"{url} answers in {_shown(seconds)}")


def _ahead(headers: Mapping[str, str], seconds: float) -> float | None:
    """Compare with Date, and Age where a cache on the way kept it (RFC 9110, 6.6.1; RFC 9111, 5.1)."""
    try:
        sent = parsedate_to_datetime(headers["Date"]).timestamp() + float(headers.get("Age", "0"))
    except (KeyError, ValueError):
        return None
    return time.time() - seconds / 2 - sent


def _clock(ahead: float) -> Finding:
    if abs(ahead) <= _CLOCK_SECONDS:
        return Finding(State.WELL, "clock", "Agrees with upstream's")
    said = f"{abs(ahead) / 60:.0f} minutes {'ahead of' if ahead > 0 else 'behind'} upstream's"
    return Finding(State.BAD, "clock", said, "Set it (timedatectl set-ntp true): certificates and ages depend on it.")


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = getattr(error, "os_error", error)
    number = None if isinstance(cause, socket.gaierror) else getattr(cause, "errno", None)  # uvloop's words are long
    return os.strerror(number) if number else getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
