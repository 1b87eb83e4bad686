"""What scenarios share: the world, the upstream, the servers that run, and how often each is measured."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench import servers, world
from bench.environments import FAILURES, Environments, Skipped
from bench.machine import cores, ended, spawn
from bench.peers import PEERS, Place, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from bench.results import Result

_COLD_RUNS = 3
_BEGUN = time.monotonic()


class Lab:
    """Directories and processes of one run; leaving the block ends and removes them."""

    def __init__(
        self, peers: Sequence[str], environments: Environments, runs: int, seconds: int, *, is_quick: bool
    ) -> None:
        """Compare ``peers``, each measured in ``runs`` runs of ``seconds``; scenarios may do less when quick."""
        self.peers = peers
        self.environments = environments
        self.runs = runs
        self.seconds = seconds
        self.is_quick = is_quick
        self.cold_runs = 1 if is_quick else min(runs, _COLD_RUNS)
        """Of what can be done but once with the same names."""
        self.skipped: dict[str, str] = {}
        """Peers that cannot be had, with the reason."""
        self._stack = contextlib.ExitStack()
        self._shared: dict[str, Running] = {}
        self._places = 0

    def __enter__(self) -> Self:
        """Make the world and start the upstream."""
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        (self.directory / "world").mkdir()
        say("making the world …")
        self.world = world.World.make(self.directory / "world", 1 + self.cold_runs * world.INSTALLS)
        command = [sys.executable, "-m", "bench.origin", str(self.world.directory)]
        self._origin = self._stack.enter_context(ended(spawn(command, cores()[1])))
        assert self._origin.stdout is not None
        self.origin_port = int(self._origin.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        """End all."""
        self._stack.close()

    def place(self) -> Place:
        """Return a fresh directory for a server."""
        self._places += 1
        return Place(self.world, self.origin_port, self.directory / f"server-{self._places}", self.environments)

    @contextlib.contextmanager
    def fresh(self, peer: str, place: Place | None = None) -> Iterator[Running]:
        """Run a server of its own for the block. Raises :class:`Skipped`."""
        with PEERS[peer](place or self.place()) as running:
            yield running

    def shared(self, peer: str) -> Running:
        """Return the server that all warm scenarios use, started when first wanted. Raises :class:`Skipped`."""
        if peer in self.skipped:
            raise Skipped(self.skipped[peer])
        if peer not in self._shared:
            say(f"starting {peer} …")
            try:
                self._shared[peer] = self._stack.enter_context(PEERS[peer](self.place()))
            except Skipped as reason:
                self.skipped[peer] = str(reason)
                raise
        return self._shared[peer]

    def delay(self, seconds: float) -> None:
        """Move the upstream away: each of its answers waits so long."""
        servers.get(self.origin_port, f"/+delay/{seconds}")

    def asked(self) -> dict[str, int]:
        """Return how often each thing was asked of the upstream since the last call."""
        found: dict[str, int] = json.loads(servers.get(self.origin_port, "/+report")[1])
        servers.get(self.origin_port, "/+reset")
        return found

    def interleave(
        self,
        result: Result,
        peers: Sequence[str],
        measure: Callable[[str], dict[str, float]],
        once: Collection[str] = (),
        runs: int = 0,
    ) -> None:
        """Call ``measure`` for every peer in turn, ``runs`` times (the lab's when 0), each time in another order.

        So noise hits all alike. A peer whose measurement fails is left out from there on, by name. Those in ``once``
        are so slow that a quick run measures them but once.
        """
        dice = random.Random(7)
        runs = runs or self.runs
        for peer in peers:
            result.figures.setdefault(peer, {})  # in the order of the table
        for number in range(runs):
            for peer in dice.sample(list(peers), len(peers)):
                if peer in result.notes or (self.is_quick and number and peer in once):
                    continue
                try:
                    figures = measure(peer)
                except FAILURES as error:
                    result.notes[peer] = f"failed: {str(error)[:200]}"
                    result.figures.pop(peer, None)
                else:
                    result.add(peer, figures)
            say(f"{result.name}: run {number + 1} of {runs}")


def say(text: str) -> None:
    """Tell whoever waits."""
    print(f"{time.monotonic() - _BEGUN:5.0f} s  {text}", file=sys.stderr, flush=True)
