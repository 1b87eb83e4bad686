"""``teepi doctor``: each probe looks at one thing and says what it found, and what to do about it.

Probes run at once, each for a few seconds at most; none raises.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from teepi.doctor import installation, machine, network
from teepi.doctor.clients import look_at_clients
from teepi.doctor.finding import Finding, Inquiry, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Finding", "Inquiry", "State", "examine"]

_PROBE_SECONDS: Final = 10.0

_PROBES: Final[tuple[tuple[str, Callable[[Inquiry], Awaitable[list[Finding]]]], ...]] = (
    ("server", network.look_at_server),
    ("upstream", network.look_at_upstreams),
    ("cache_dir", machine.look_at_cache_dir),
    ("data_dir", machine.look_at_data_dir),
    ("clients", look_at_clients),
    ("packages", installation.look_at_packages),
    ("speed", installation.look_at_compiled_parts),
    ("descriptors", machine.look_at_descriptors),
)


async def examine(inquiry: Inquiry, probe_seconds: float = _PROBE_SECONDS) -> list[Finding]:
    """Return what all probes find, in the order in which people want it."""
    found = await asyncio.gather(*(_guarded(name, probe(inquiry), probe_seconds) for name, probe in _PROBES))
    return [finding for findings in found for finding in findings]


async def _guarded(name: str, probe: Awaitable[list[Finding]], seconds: float) -> list[Finding]:
    try:
        return await asyncio.wait_for(probe, seconds)
    except TimeoutError:
        said = f"No answer within {seconds:g} s"
        return [Finding(State.BAD, name, said, "A disk or network that hangs is the usual cause.")]
    except Exception as error:  # noqa: BLE001 - a probe that breaks is a finding, and the others go on
        said = f"This could not be looked at ({type(error).__name__}: {error})"
        return [Finding(State.BAD, name, said, "Please report it.")]
