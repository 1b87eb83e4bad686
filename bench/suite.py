"""All scenarios with peers, in one run: ``python -m bench all``; or one of them by its name.

The server under test has core 0 to itself, the load, the upstream and this program have core 1. Each figure is the
median of 11 runs (3 with --quick), the servers taken in turn. CPU is that of the server's whole process tree, and
requests per CPU second are what compares: wall figures depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import os
import platform
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import growth, installs, large, results, stampedes, warm
from bench.environments import FAILURES, Environments
from bench.lab import Lab, say
from bench.machine import cores
from bench.peers import PEERS
from bench.results import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_RUNS, _SECONDS = 11, 3
_QUICK_RUNS, _QUICK_SECONDS = 3, 1
_RESULTS = Path(__file__).parent / "RESULTS.md"

_PAGES = [warm.Pages(*each) for each in itertools.product(("small", "large"), ("json", "html"), ("gzip", "identity"))]
_FILES = [large.Download(1, 20, 10), large.Download(8, 5, 2), large.Download(64, 1, 1)]
_INSTALLS = [installs.Install(place, *each) for place, each in enumerate(itertools.product(("uv", "pip"), (1, 8)))]
SCENARIOS: dict[str, Callable[[Lab], Result]] = {
    **{each.name: each.run for each in _PAGES},
    "small-file": warm.small_files,
    **{each.name: each.run for each in _FILES},
    "stampede-file": stampedes.on_a_file,
    "stampede-page": stampedes.on_a_page,
    "start-up": growth.start_up,
    "growth": growth.growth,
    "memory": large.memory,
    "slow-clients": large.slow_clients,
    **{each.name: each.run for each in _INSTALLS},
}
"""By name, in the order of the report."""


class Named:
    """One scenario as a command."""

    def __init__(self, name: str) -> None:
        """Run ``name``."""
        self._name = name
        self.__doc__ = f"The scenario {name} of ``all``.\n\n{__doc__}"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        _common(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run it; return the exit code."""
        return _run([self._name], arguments)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    _common(parser)
    parser.add_argument("--only", type=_names(SCENARIOS), metavar="NAMES", help="these scenarios alone, with commas")


def run(arguments: argparse.Namespace) -> int:
    """Run all that were chosen; return the exit code."""
    return _run(arguments.only or list(SCENARIOS), arguments)


def _common(parser: argparse.ArgumentParser) -> None:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "teepi-bench"
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_RUNS} short runs instead of {_RUNS}")
    parser.add_argument("--runs", type=int, help="how many instead")
    parser.add_argument("--peers", type=_names(PEERS), default=list(PEERS), metavar="NAMES", help="with commas")
    parser.add_argument("--peers-dir", type=Path, default=home, help="where peers are installed (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write {_RESULTS.name} beside this program")


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    names = list(known)

    def parse(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        if unknown := set(chosen) - set(names):
            raise argparse.ArgumentTypeError(f"no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
        return [name for name in names if name in chosen]

    return parse


def _run(names: Sequence[str], arguments: argparse.Namespace) -> int:
    environments = Environments(arguments.peers_dir)
    runs = arguments.runs or (_QUICK_RUNS if arguments.quick else _RUNS)
    os.sched_setaffinity(0, {cores()[1]})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with us
    found: list[Result] = []
    seconds = _QUICK_SECONDS if arguments.quick else _SECONDS
    with Lab(arguments.peers, environments, runs, seconds, is_quick=arguments.quick) as lab:
        for name in names:
            say(f"== {name}")
            try:
                found.append(SCENARIOS[name](lab))
            except FAILURES as error:
                found.append(Result(name, "This scenario failed.", "rate", notes={"teepi": f"failed: {error}"}))
            print(found[-1].markdown(), flush=True)
    if any(each.targets for each in found):
        print(results.summary(found))
    if arguments.write:
        _RESULTS.write_text(_report(found, environments, runs), encoding="utf-8")
        say(f"written to {_RESULTS}")
    return 1 if any("teepi" in each.notes for each in found) else 0


def _report(found: Sequence[Result], environments: Environments, runs: int) -> str:
    """Return the whole document."""
    today = dt.datetime.now(dt.UTC).date()
    # Where the peers lie is of no interest to others.
    said = re.sub(r" --peers-dir(=| )\S+", "", shlex.join(["python", "-m", "bench", *sys.argv[1:]]))
    versions = ", ".join(f"{name} {version}" for name, version in environments.versions().items())
    return (
        "# Results\n\n"
        f"Made on {today} by `{said}`; medians of {runs} runs, with the smallest and the largest in brackets.\n"
        f"Versions: {versions}.\nMachine: {_machine()}.\n\n{_notes()}\n"
        "## Targets\n\n" + results.summary(found) + "\n## Scenarios\n\n" + "\n".join(each.markdown() for each in found)
    )


def _notes() -> str:
    paragraphs = (__doc__ or "").split("\n\n", 1)[1]
    return paragraphs.strip() + "\n"


def _machine() -> str:
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} cores ({name}), {memory} GiB, Linux {platform.release()}"
