"""The page for people over HTTP, and in a real browser where there is one."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.http.scene import FILENAME
from tests.support.clients import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTeepi
    from tests.support.upstream import Upstream

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_page_shows_what_arrives_what_ended_and_finds_what_is_cached(
    upstream: Upstream, make_teepi: MakeTeepi
) -> None:
    """A download is in flight, then among those that ended, and its project is found by a part of its name."""
    content = bytes(1_000_000)
    project = upstream.project("demo", {FILENAME: content})
    gate = upstream.gate(project.path(FILENAME), 500_000)
    teepi = await make_teepi()
    await fetch(teepi.address, "/simple/demo/")
    asking = asyncio.create_task(fetch(teepi.address, project.path(FILENAME)))
    await gate.reached.wait()
    page = (await fetch(teepi.address, "/", BROWSER)).body.decode()
    assert f'aria-label="Progress of {FILENAME}"' in page
    gate.open()
    assert (await asking).body == content
    while teepi.server.metrics.committed == 0:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0)
    await asyncio.gather(*(fetch(teepi.address, project.path(FILENAME)) for _ in range(3)))
    live = (await fetch(teepi.address, "/+live")).body.decode()
    assert "Nothing is being fetched." in live
    assert live.count(FILENAME) == 1
    found = (await fetch(teepi.address, "/?q=DEM", BROWSER)).body.decode()
    assert '<a href="./root/pypi/demo/">demo</a>' in found
    assert "No project here has" in (await fetch(teepi.address, "/?q=zzz", BROWSER)).body.decode()


async def test_page_for_a_wrong_url_is_for_browsers_alone(make_teepi: MakeTeepi) -> None:
    """An installer gets its sentence as ever."""
    teepi = await make_teepi()
    assert b"export PIP_INDEX_URL=" in (await fetch(teepi.address, "/wrong", BROWSER)).body
    assert (await fetch(teepi.address, "/wrong")).body.startswith(b"There is nothing at this URL.")


async def test_browser_runs_the_page_under_its_policy_and_renews_it(
    upstream: Upstream, make_teepi: MakeTeepi, tmp_path: Path
) -> None:
    """Styles and script are let in by the policy, and the script asks for the part that changes."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium")
    teepi = await make_teepi()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=5000", "--enable-logging=stderr"]
    process = await asyncio.create_subprocess_exec(
        chromium, *flags, "--dump-dom", teepi.url,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    out, err = await process.communicate()
    dom = out.decode()
    assert "Nothing is being fetched." in dom
    assert 'class="has-copy"' in dom  # the script has run
    assert "Content Security Policy" not in err.decode(errors="replace")
    asked = teepi.server.metrics.requests
    assert sum(count for (kind, _, _), count in asked.items() if kind == "other") >= 5  # /, three files, /+live
    assert upstream.requests == []
