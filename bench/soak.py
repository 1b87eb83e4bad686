"""Lets 30 clients install at random for 20 minutes while the upstream misbehaves and the cache is a third of the need.

Every whole body is compared with its sha256, every range with the bytes it asked for. Upstream sends wrong bytes now
and then; a range that does not come from the cache cannot be verified, and is counted apart. What a client leaves
or what ends short is neither right nor wrong. Meanwhile cache on disk, memory and descriptors are measured.
A client that has no byte for 15 s, as long as pip waits, gives up and is counted. Exit code 1 on a wrong byte, a cache
above its limit, or an unclean exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import secrets
import signal
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from bench import servers
from bench.machine import MB, ended, quantity
from tests.support.clients import ConnectionEnd, RawClient
from tests.support.faults import EarlyEnd, Fault, Reset, Stall, Status, WrongBytes
from tests.support.upstream import Upstream

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

_JSON = "application/vnd.pypi.simple.v1+json"
_PROJECTS = 60
_FILES_EACH = 3
_DRAIN_SECONDS = 20
_PIP_PATIENCE_SECONDS = 15


@dataclass
class Sample:
    """What was measured at one moment."""

    seconds: float
    cache_bytes: int
    memory_bytes: int
    descriptors: int
    requests: int


@dataclass
class Run:
    """What the clients and the sampler saw."""

    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    largest_cache_bytes: int = 0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--working-set", type=quantity, default=quantity("300MB"))
    parser.add_argument("--seed", type=int, default=None, help="of files, faults and clients (default: a fresh one)")


def run(arguments: argparse.Namespace) -> int:
    """Run; exit code 1 on any violation."""
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    limit = arguments.working_set // 3
    print(f"seed {seed}, {arguments.clients} clients, {arguments.minutes} min, limit {limit / MB:.0f} MB", flush=True)
    contents = _contents(random.Random(seed), arguments.working_set)
    # forked, so that both processes have the same bytes without copying them
    here, there = get_context("fork").Pipe()
    upstream = get_context("fork").Process(target=_serve, args=(there, contents, seed), daemon=True)
    upstream.start()
    upstream_port: int = here.recv()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        flags = ("--max-size", str(limit), "--min-free", "0")
        process, port = servers.start_teepi(directory, upstream_port, flags)
        with ended(process):
            result = asyncio.run(_load(process, port, contents, arguments, seed, directory / "cache", limit))
            status = json.loads(servers.get(port, "/+status")[1])
            process.send_signal(signal.SIGTERM)
            try:
                exit_code: int | None = process.wait(_DRAIN_SECONDS)
            except subprocess.TimeoutExpired:
                exit_code = None
        wrong_files = [path.name for path in _final(directory / "cache") if not _is_whole(path)]
    upstream.terminate()
    return _verdict(result, status, exit_code, wrong_files, limit)


def _verdict(result: Run, status: dict[str, Any], exit_code: int | None, wrong_files: list[str], limit: int) -> int:
    print(f"\n{'minute':>6} {'cache MB':>9} {'memory MB':>10} {'descriptors':>12} {'requests':>9}")
    step = max(1, len(result.samples) // 20)
    for sample in result.samples[::step]:
        print(
            f"{sample.seconds / 60:6.1f} {sample.cache_bytes / MB:9.1f} {sample.memory_bytes / MB:10.1f} "
            f"{sample.descriptors:12} {sample.requests:9}"
        )
    print(f"\nanswers: {dict(result.answers.most_common())}")
    print(f"counters: {status['counters']}")
    print(f"largest cache: {result.largest_cache_bytes / MB:.1f} MB of {limit / MB:.1f} MB")
    faults = list(result.wrong[:10])
    if result.largest_cache_bytes > limit:
        faults.append("the cache was above its limit")
    if wrong_files:
        faults.append(f"wrong bytes under {len(wrong_files)} final names")
    if exit_code != 0:
        faults.append(f"exit code {exit_code} after SIGTERM")
    half = len(result.samples) // 2
    if half > 10:
        for name, part in ("second", result.samples[half // 2 : half]), ("last", result.samples[-half // 2 :]):
            sizes = sorted(sample.memory_bytes for sample in part)
            lowest, median, highest = (size / MB for size in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
            print(f"memory in the {name} quarter: lowest {lowest:.1f}, median {median:.1f}, highest {highest:.1f} MB")
    print("violations: " + ("none" if not faults else "; ".join(faults)))
    return 1 if faults else 0


# The upstream ---------------------------------------------------------------------------------------


def _contents(dice: random.Random, working_set: int) -> dict[str, dict[str, bytes]]:
    """Return bytes by project and file name: few large files, many small ones, ``working_set`` in all."""
    weights = [dice.paretovariate(1.1) for _ in range(_PROJECTS * _FILES_EACH)]
    unit = working_set / sum(weights)
    sizes = iter([min(max(20_000, int(weight * unit)), working_set // 8) for weight in weights])
    return {
        f"demo-{number}": {
            f"demo_{number}-{version}.0-py3-none-any.whl": dice.randbytes(next(sizes)) for version in range(_FILES_EACH)
        }
        for number in range(_PROJECTS)
    }


def _serve(pipe: Connection, contents: dict[str, dict[str, bytes]], seed: int) -> None:
    """Be the upstream, in a process of its own."""

    async def serve() -> None:
        upstream = Upstream()
        dice = random.Random(seed + 1)
        for name, files in contents.items():
            project = upstream.project(name, files)
            upstream.script(project.page_path, _faults(dice, 0, 0.05))
            for filename, content in files.items():
                upstream.script(project.path(filename), _faults(dice, len(content), 0.25))
        await upstream.start()
        pipe.send(int(upstream.url.rpartition(":")[2]))
        while True:
            await asyncio.sleep(5)
            upstream.requests.clear()

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asyncio.run(serve())


def _faults(dice: random.Random, size: int, share: float) -> Iterator[Fault | None]:
    """Yield a fault for ``share`` of the answers, for ever."""
    while True:
        if dice.random() >= share:
            yield None
            continue
        at = dice.randrange(1, size) if size > 1 else 0
        kinds: list[Fault] = [Status(503), Status(429, {"Retry-After": "1"}), Reset("head")]
        if size > 1:
            kinds += [Reset(at), Reset(at), EarlyEnd(at), Stall(at), WrongBytes(at)]
        yield dice.choice(kinds)


# The clients ----------------------------------------------------------------------------------------


async def _load(
    process: subprocess.Popen[str],
    port: int,
    contents: dict[str, dict[str, bytes]],
    arguments: argparse.Namespace,
    seed: int,
    cache: Path,
    limit: int,
) -> Run:
    result = Run()
    begin = time.monotonic()
    end = begin + arguments.minutes * 60
    digests = {
        filename: hashlib.sha256(content).hexdigest()
        for files in contents.values()
        for filename, content in files.items()
    }

    async def sample() -> None:
        proc = Path(f"/proc/{process.pid}")
        while time.monotonic() < end:
            size = await asyncio.to_thread(_disk_bytes, cache)
            result.largest_cache_bytes = max(result.largest_cache_bytes, size)
            if size > limit and len(result.wrong) < 10:
                result.wrong.append(f"{size / MB:.1f} MB on disk after {time.monotonic() - begin:.0f} s")
            pages = int((proc / "statm").read_text(encoding="ascii").split()[1])
            result.samples.append(
                Sample(
                    time.monotonic() - begin, size, pages * 4096, len(list((proc / "fd").iterdir())),
                    sum(result.answers.values()),
                )
            )  # fmt: skip
            await asyncio.sleep(1)

    clients = [
        _client(port, contents, digests, random.Random(seed + 100 + number), end, result)
        for number in range(arguments.clients)
    ]
    await asyncio.gather(sample(), *clients)
    return result


async def _client(
    port: int,
    contents: dict[str, dict[str, bytes]],
    digests: dict[str, str],
    dice: random.Random,
    end: float,
    result: Run,
) -> None:
    names = list(contents)
    weights = [1 / (place + 1) for place in range(len(names))]
    while time.monotonic() < end:
        [project] = dice.choices(names, weights)
        filename = dice.choice(list(contents[project]))
        content = contents[project][filename]
        try:
            async with await RawClient.connect(("127.0.0.1", port)) as client:
                client.patience_seconds = _PIP_PATIENCE_SECONDS
                kind = await _one(client, dice, project, filename, content, digests[filename])
        except TimeoutError:
            kind = "silent too long"
        except (ConnectionEnd, OSError):
            kind = "connection ended"
        result.answers[kind.partition(":")[0]] += 1
        if kind.startswith("wrong"):
            result.wrong.append(kind)
        await asyncio.sleep(dice.random() * 0.05)


async def _one(  # noqa: PLR0911 - each way in which a request may end
    client: RawClient, dice: random.Random, project: str, filename: str, content: bytes, digest: str
) -> str:
    """Read a page and a file of it on one connection; return what became of it."""
    page_path = f"/root/pypi/+simple/{project}/"
    page = await client.get(page_path, {"Accept": _JSON})
    if page.status != 200:
        return f"page {page.status}"
    links = {file["filename"]: file["url"] for file in json.loads(page.body)["files"]}
    if set(links) < {filename}:
        return f"wrong: the page of {project} lacks {filename}"
    target = urljoin(page_path, links[filename])
    chance = dice.random()
    if chance < 0.1:
        first = dice.randrange(len(content))
        last = min(len(content) - 1, first + dice.randrange(1, 200_000))
        answer = await client.get(target, {"Range": f"bytes={first}-{last}"})
        if answer.status != 206:
            return f"range {answer.status}"
        if answer.complete and answer.body != content[first : last + 1]:
            # Only a whole file has a digest: a range that upstream got wrong, or of a file on its way, is unverified.
            is_cached = "hit" in answer.headers.get("cache-status", "")
            return f"wrong: bytes {first}-{last} of {filename}" if is_cached else "unverified range wrong"
        return "range right" if answer.complete else "range short"
    if chance < 0.15:
        await client.send("GET", target)
        with contextlib.suppress(ConnectionEnd):
            await client.read_head()
            await client.read(dice.randrange(1, len(content)))
        client.abort()
        return "left early"
    answer = await client.get(target)
    if answer.status != 200:
        return f"file {answer.status}"
    if not answer.complete:
        return "file short"
    return "file right" if hashlib.sha256(answer.body).hexdigest() == digest else f"wrong: {filename} has other bytes"


# What is on disk ------------------------------------------------------------------------------------


def _final(cache: Path) -> list[Path]:
    return [path for path in (cache / "v1/files/sha256").glob("*/*") if path.is_file()]


def _is_whole(path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def _disk_bytes(cache: Path) -> int:
    """Return the bytes of cached files and partials, each once."""
    total = 0
    for pattern in ("v1/files/sha256/*/*", "v1/partial/*"):
        for path in cache.glob(pattern):
            with contextlib.suppress(OSError):  # gone meanwhile
                total += path.stat().st_size
    return total
