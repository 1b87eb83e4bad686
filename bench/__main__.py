"""The table of scenarios: ``python -m bench NAME [options]``."""

from __future__ import annotations

import argparse
import sys
from typing import Protocol

from bench import faults, kill, page, relay, soak, stampede, suite


class Scenario(Protocol):
    """What a module of this package offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run; return the exit code."""


SCENARIOS: dict[str, Scenario] = {
    "stampede": stampede,
    "page": page,
    "kill": kill,
    "faults": faults,
    "soak": soak,
    "relay": relay,
    "all": suite,
    **{name: suite.Named(name) for name in suite.SCENARIOS},
}


def main() -> int:
    """Run the scenario that the command line names; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in SCENARIOS.items():
        summary = (getattr(module, "__doc__", None) or "").partition("\n")[0]
        module.configure(commands.add_parser(name, help=summary, description=getattr(module, "__doc__", None)))
    arguments = parser.parse_args()
    return SCENARIOS[arguments.name].run(arguments)


if __name__ == "__main__":
    sys.exit(main())
