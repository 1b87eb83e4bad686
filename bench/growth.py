"""What a full cache costs: the time of a start, and requests spread over few and over many files."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from bench import exchange, heads, load, stock, world
from bench.environments import FAILURES
from bench.lab import say
from bench.large import SLOW
from bench.results import TEEPI, Result, Target
from bench.warm import CONNECTIONS

if TYPE_CHECKING:
    from bench.lab import Lab
    from bench.peers import Place, Running

_MANY_ROWS = 1_000_000
_MANY_FILES = 100_000
_SPREADS = (10, 10_000, _MANY_FILES)
_REQUESTS, _QUICK_REQUESTS = 200_000, 50_000
_LOOKED_AT = 200
_START_SECONDS = 0.5


def start_up(lab: Lab) -> Result:
    """Measure starts of servers that have run before, and of teepi with a million files in its catalogue."""
    full = f"teepi, {_MANY_ROWS:,} files"
    title = (
        "From starting the process to the whole answer of a page that it had before. The million are rows of the "
        "catalogue; a start looks at no file."
    )
    targets = [
        Target("start_s", _START_SECONDS, is_least=False),
        Target("start_s", _START_SECONDS, is_least=False, subject=full),
    ]
    result = Result("start-up", title, "start_s", targets, reference=TEEPI)
    places: dict[str, tuple[str, Place]] = {}
    for row, peer in [*((peer, peer) for peer in lab.peers if peer != "direct"), (full, TEEPI)]:
        if peer not in lab.peers:
            continue
        try:
            place = lab.place()
            with lab.fresh(peer, place) as running:
                running.links(world.small(0))
            if row == full:
                say(f"{result.name}: making a catalogue of {_MANY_ROWS:,} files …")
                stock.fill(place.directory / "cache", _MANY_ROWS, lab.origin_port, are_real=False)
            places[row] = peer, place
        except FAILURES as error:
            result.notes[row] = f"skipped: {error}"

    def measure(row: str) -> dict[str, float]:
        peer, place = places[row]
        with lab.fresh(peer, place) as running:
            running.links(world.small(0))
            return {"start_s": time.monotonic() - running.begun}

    lab.interleave(result, list(places), measure, once=SLOW)
    return result


def growth(lab: Lab) -> Result:
    """Measure requests over 10, 10,000 and 100,000 cached files; before each the server is started anew."""
    requests = _QUICK_REQUESTS if lab.is_quick else _REQUESTS
    few, *_, many = (_row(spread) for spread in _SPREADS)
    title = (
        f"{requests:,} requests at random over so many of {_MANY_FILES:,} cached files of {stock.FILE_BYTES:,} bytes; "
        "the server has just been started, so the first touch of each file is in it."
    )
    targets = [Target("cpu_us", 1.15, few, is_least=False, subject=many)]
    result = Result("growth", title, "cpu_us", targets, reference=few)
    if TEEPI not in lab.peers or (reason := load.missing()) is not None:
        result.notes[few] = "teepi is not among the peers" if TEEPI not in lab.peers else str(reason)
        return result
    place = lab.place()
    with lab.fresh(TEEPI, place) as running:
        running.links(world.small(0))
    say(f"{result.name}: making {_MANY_FILES:,} files …")
    stock.fill(place.directory / "cache", _MANY_FILES, lab.origin_port, are_real=True)
    spreads = {_row(spread): spread for spread in _SPREADS}

    def measure(row: str) -> dict[str, float]:
        step = _MANY_FILES // spreads[row]
        lab.asked()
        with lab.fresh(TEEPI, place) as running:
            asked = [
                heads.head(heads.UV_FILE, stock.target(number, lab.origin_port), running.port)
                for number in range(0, _MANY_FILES, step)
            ]
            replay = load.Replay(lab.directory, "growth", asked, limit=requests)
            sample = load.replay_limited(replay, running.pid, running.port, CONNECTIONS)
            _look_at(running, lab.origin_port, step)
        if any("stock" in what for what in lab.asked()):
            raise RuntimeError("upstream was asked for files that are in the cache")
        cpu_us = sample.cpu_seconds / sample.requests * 1e6
        return {"rate": sample.rate, "per_core": sample.per_core, "cpu_us": cpu_us}

    lab.interleave(result, list(spreads), measure, runs=lab.cold_runs)
    return result


def _row(spread: int) -> str:
    return f"teepi, over {spread:,} files"


def _look_at(running: Running, origin_port: int, step: int) -> None:
    """Compare some of the files byte for byte. Raises RuntimeError."""
    with contextlib.closing(exchange.Connection(running.port)) as connection:
        for number in range(0, min(_MANY_FILES, step * _LOOKED_AT), step):
            target = stock.target(number, origin_port)
            got = connection.ask(heads.head(heads.UV_FILE, target, running.port))
            if (got.status, got.body) != (200, stock.content(number)):
                raise RuntimeError(f"answered {target} with {got.status} and {len(got.body)} bytes")
