"""Probes of the installers' settings, seen from this user, shell and directory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from teepi.clients.address import is_local, is_same_server
from teepi.clients.known import Pip, clients
from teepi.clients.use import use_of
from teepi.doctor.finding import Finding, Inquiry, State, in_thread
from teepi.origins import hide_user_info

if TYPE_CHECKING:
    from teepi.clients.known import Client, Surroundings
    from teepi.clients.use import Use


async def look_at_clients(inquiry: Inquiry) -> list[Finding]:
    """Who uses teepi, and what stands in the way of it."""
    around = inquiry.around
    known = clients(around).values()
    return await in_thread(lambda: [found for client in known for found in _look_at(client, around, inquiry.server)])


def _look_at(client: Client, around: Surroundings, server: str) -> list[Finding]:
    use = use_of(client, around)
    if use.problem is not None:
        return [Finding(State.BAD, use.name, use.problem.rstrip("."), "Correct that file.")]
    if not is_same_server(use.index, server):
        return [_elsewhere(use, server)]
    found = [Finding(State.WELL, use.name, f"It uses teepi, as {use.place} says")]
    found += [
        _more_indexes(use.name, variable, others, f"unset {variable}")
        for variable in client.more_indexes
        if (others := around.environ.get(variable))
    ]
    if isinstance(client, Pip):
        found += _pip(client, use, around)
    return found


def _elsewhere(use: Use, server: str) -> Finding:
    if use.index is None:
        where = "" if use.place else ", in the directory of a project"
        return Finding(State.NOTE, use.name, "It does not use teepi", f"To let it: teepi configure {use.name}{where}.")
    index = hide_user_info(use.index)
    if is_same_server(use.in_file, server):
        said = f"{use.place} is {index} and goes before what its file says, which is teepi"
        return Finding(State.DOUBT, use.name, said, f"Unset {use.place}, here and where it is set.")
    if use.is_ours:
        said = f"It was set up for teepi and is led to {index} by {use.place}"
        return Finding(State.DOUBT, use.name, said, f"Run 'teepi configure {use.name}' again, or give --url.")
    said = f"It uses {index}, as {use.place} says"
    return Finding(State.NOTE, use.name, said, f"To let it use teepi: teepi configure {use.name}.")


def _pip(client: Pip, use: Use, around: Surroundings) -> list[Finding]:
    found = []
    content = client.read(use.text)
    trusted = around.environ.get("PIP_TRUSTED_HOST")
    url = use.index or ""
    if not client.trusts({"global": {"trusted-host": trusted}} if trusted else content, url):
        if is_local(urlsplit(url).hostname or ""):
            said, state = "trusted-host lacks teepi's, so that pip keeps nothing in its own cache", State.DOUBT
        else:
            said, state = "trusted-host lacks teepi's, so that pip refuses plain http to it", State.BAD
        found.append(Finding(state, use.name, said, f"Run 'teepi configure {use.name}'."))
    found += [
        _more_indexes(use.name, f"[{section}] extra-index-url", others, "take it out")
        for section in ("global", "install")
        if (others := content.get(section, {}).get("extra-index-url"))
    ]
    return found


def _more_indexes(name: str, place: str, others: str, remedy: str) -> Finding:
    shown = ", ".join(map(hide_user_info, re.split(r"\s+(?=\S+://)", others.strip())))
    said = f"{place} adds {shown}, where anybody's project of the same name can take the place of yours"
    return Finding(State.DOUBT, name, said, f"Make one index of both in teepi.toml (bases), and {remedy}.")
