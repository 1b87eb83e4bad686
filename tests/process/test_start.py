"""The real process: what it says at the start, how soon it answers, and how it says that it cannot start."""

from __future__ import annotations

import os
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from teepi import __version__
from tests.process.tools import status
from tests.support.clients import fetch
from tests.support.teepi import DidNotStart

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.process.conftest import Publish, Strace
    from tests.support.upstream import Upstream


async def test_start_says_where_what_and_lines_to_paste(
    make_process: MakeProcess, upstream: Upstream, tmp_path: Path
) -> None:
    """Address, upstream, directories and one line for each client, nothing on stderr."""
    teepi = await make_process()
    await teepi.terminate()
    assert teepi.stdout.splitlines() == [
        f"teepi {__version__} listens on {teepi.url}",
        f"root/pypi mirrors {upstream.index_url}",
        f"cache in {tmp_path / 'cache'}, data in {tmp_path / 'data'}",
        "the cache holds 4.3 MB of at most 1.1 TB; 0 bytes of its disk stay free",
        "",
        f"  pip     pip install --index-url {teepi.url}/root/pypi/+simple/ PROJECT",
        f"  uv      UV_DEFAULT_INDEX={teepi.url}/root/pypi/+simple/ uv pip install PROJECT",
        f"  pipenv  PIPENV_PYPI_MIRROR={teepi.url}/simple pipenv install PROJECT",
        f"  poetry  poetry source add --priority=primary teepi {teepi.url}/root/pypi/+simple/",
    ]
    assert teepi.stderr == ""


async def test_start_on_all_interfaces_gives_lines_that_work_here(make_process: MakeProcess) -> None:
    """The wildcard address is one to listen on and none to ask; its lines name loopback."""
    teepi = await make_process(listen="0.0.0.0:0")
    await teepi.terminate()
    assert f"teepi {__version__} listens on http://0.0.0.0:{teepi.address[1]}\n" in teepi.stdout
    assert f"--index-url http://127.0.0.1:{teepi.address[1]}/root/pypi/+simple/ PROJECT\n" in teepi.stdout


async def test_start_answers_soon(make_process: MakeProcess, publish: Publish) -> None:
    """The first page is answered within 0.7 s on a quiet machine; asserted loosely, since tests run on busy ones."""
    publish(1000)
    began = time.monotonic()
    teepi = await make_process()
    answer = await fetch(teepi.address, "/simple/demo/")
    seconds = time.monotonic() - began
    assert answer.status == 200
    assert seconds < 5, f"{seconds:.2f} s to the first page"


async def test_start_offline_says_so_and_asks_nothing(make_process: MakeProcess, upstream: Upstream) -> None:
    """``--offline`` shows at the start; what is not cached is 503 with a sentence."""
    teepi = await make_process(arguments=["--offline"])
    assert "offline: nothing is asked of any upstream\n" in teepi.stdout
    answer = await fetch(teepi.address, "/simple/demo/")
    assert (answer.status, answer.body) == (503, b"teepi runs offline and has no page of demo.\n")
    assert upstream.requests == []


async def refusal(make_process: MakeProcess, **options: object) -> str:
    """Start what cannot start; return its one sentence."""
    with pytest.raises(DidNotStart) as caught:
        await make_process(**options)
    failed = caught.value
    assert (failed.exit_code, failed.stdout) == (2, ""), failed
    assert re.fullmatch(r"teepi: [^\n]+\n", failed.stderr), failed
    return failed.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--page-tl", "3"], "No such option '--page-tl'. Did you mean '--page-ttl'?"),
        (["--page-ttl", "soon"], "--page-ttl = 'soon' cannot be used: write a number of seconds, 0 or more."),
        (["--upstream", "ftp://index.example/"], "--upstream = 'ftp://index.example/' cannot be used: "),
        (["--listen", "localhost"], "--listen = ['127.0.0.1:0', 'localhost'] cannot be used: write HOST:PORT"),
        (["--config", "absent.toml"], "absent.toml cannot be read: No such file or directory."),
    ],
)
async def test_start_with_a_wrong_setting_is_refused_in_one_sentence(
    make_process: MakeProcess, arguments: list[str], said: str
) -> None:
    """Exit status 2, the flag and the remedy in one line on stderr, no traceback."""
    assert said in await refusal(make_process, arguments=arguments)


async def test_start_with_a_wrong_variable_is_refused_in_one_sentence(make_process: MakeProcess) -> None:
    """A misspelt ``TEEPI_`` variable is not silently ignored."""
    said = await refusal(make_process, environment={"TEEPI_PAGE_TTI": "1"})
    assert "TEEPI_PAGE_TTI is no setting of teepi; write 'TEEPI_PAGE_TTL'" in said


async def test_start_on_a_port_in_use_is_refused_in_one_sentence(make_process: MakeProcess, tmp_path: Path) -> None:
    """The address and what to do; the cache directory is free again afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = await refusal(make_process, arguments=["--listen", f"127.0.0.1:{port}"])
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in said
    assert "--listen" in said
    teepi = await make_process()
    assert "waiting" not in teepi.stderr
    assert (tmp_path / "cache" / "lock").exists()


async def test_start_on_an_address_of_another_machine_is_refused_in_one_sentence(make_process: MakeProcess) -> None:
    """192.0.2.0/24 belongs to nobody (RFC 5737)."""
    assert "cannot listen on 192.0.2.1:3141 (" in await refusal(make_process, arguments=["--listen", "192.0.2.1:3141"])


async def test_start_on_a_cache_directory_that_cannot_be_made_passes_everything_through(
    make_process: MakeProcess, publish: Publish, tmp_path: Path
) -> None:
    """A file in the directory's place: said once, a mirror without a cache all the same."""
    file = publish(200_000)
    (tmp_path / "taken").write_bytes(b"a file")
    teepi = await make_process(arguments=["--cache-dir", str(tmp_path / "taken" / "cache")])
    for _ in range(2):
        answer = await fetch(teepi.address, file.link)
        assert (answer.status, answer.body == file.content) == (200, True)
    assert (await status(teepi))["counters"]["uncached"] == 2
    assert await teepi.terminate() == 0
    assert teepi.stderr.count("The cache directory") == 1
    assert "Traceback" not in teepi.stderr


@pytest.mark.fault
async def test_start_clears_old_partials_and_looks_at_no_cached_file(
    make_process: MakeProcess, publish: Publish, tmp_path: Path, strace: Strace
) -> None:
    """What a crash left a week ago goes, what is newer stays for a resume; the cache itself is not walked."""
    file = publish(100_000)
    teepi = await make_process()
    assert (await fetch(teepi.address, file.link)).body == file.content
    assert await teepi.terminate() == 0
    week_ago = time.time() - 8 * 86400
    partials = tmp_path / "cache" / "v1" / "partial"
    for name in ("old", "old.json", "new", "new.json"):
        (partials / name).write_bytes(b"{}")
    for path in (partials / "old", partials / "old.json", file.cached.parent):
        os.utime(path, (week_ago, week_ago))
    teepi = await make_process(prefix=strace(trace="getdents64"))
    await teepi.said("Partial files that no one touched for a week were deleted: 1.")
    assert await teepi.terminate() == 0
    assert sorted(path.name for path in partials.iterdir()) == ["new", "new.json"]
    assert str(partials) in strace.output.read_text()
    assert str(file.cached.parent) not in strace.output.read_text()
