"""Figures, targets and the tables made of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Sequence

TEEPI = "teepi"
NGINX = "nginx static"


@dataclass(frozen=True)
class Measure:
    """One column."""

    heading: str
    places: int = 0
    """Decimals."""
    has_spread: bool = False
    """Show the smallest and the largest of the runs too."""


MEASURES: dict[str, Measure] = {
    "per_core": Measure("requests per CPU second", has_spread=True),
    "cpu_us": Measure("CPU µs per request", 1),
    "rate": Measure("requests/s, wall", has_spread=True),
    "gb_per_core": Measure("GB per CPU second", 2, has_spread=True),
    "cpu_s_per_gb": Measure("CPU s per GB", 2),
    "gb_per_second": Measure("GB/s, wall", 2, has_spread=True),
    "idle_mb": Measure("idle MB", 1),
    "crowd_mb": Measure("peak MB above idle", 1),
    "busy": Measure("server busy %"),
    "p99_ms": Measure("p99 ms", 2),
    "upstream_gets": Measure("upstream GETs"),
    "right": Measure("right answers"),
    "wall_s": Measure("wall s", 2, has_spread=True),
    "wall_ratio": Measure("× one direct client", 2),
    "first_ms": Measure("first byte, median ms"),
    "last_ms": Measure("first byte, last ms"),
    "median_ms": Measure("answered, median ms", 1),
    "max_ms": Measure("answered, last ms", 1),
    "anon_mb": Measure("anonymous MB above idle", 1),
    "cpu_s": Measure("server CPU s", 2),
    "cold_s": Measure("cold, wall s", 2, has_spread=True),
    "warm_s": Measure("warm, wall s", 2, has_spread=True),
    "warm_cpu_s": Measure("warm, server CPU s", 2),
    "start_s": Measure("s to the first answer", 2, has_spread=True),
    "rows": Measure("files cached"),
    "beside_rate": Measure("requests/s beside slow ones", has_spread=True),
    "beside_p99_ms": Measure("p99 ms beside slow ones", 2),
    "kept": Measure("share of the rate that is kept", 2),
    "answer_bytes": Measure("bytes of a body"),
}
"""By key, in the order of the columns."""


@dataclass(frozen=True)
class Target:
    """What teepi's median of ``measure`` is held against: a limit, or a peer's median times it."""

    measure: str
    limit: float
    against: str | None = None
    is_least: bool = True
    """At least; else at most."""
    subject: str = TEEPI
    """Of which row the median is."""

    def text(self) -> str:
        """Return it in words."""
        bound = f"{'≥' if self.is_least else '≤'} {self.limit:g}"
        name = MEASURES[self.measure].heading
        of = "" if self.subject == TEEPI else f"{self.subject}: "
        return f"{of}{name} {bound} × {self.against}" if self.against else f"{of}{name} {bound}"

    def judge(self, result: Result) -> str:
        """Return ``met`` or ``missed`` with the figure, or why nothing can be said."""
        value = result.median(self.subject, self.measure)
        if value is None:
            return "not measured"
        if self.against is not None:
            other = result.median(self.against, self.measure)
            if not other:
                return f"not measured: no {self.against}"
            value /= other
        is_met = value >= self.limit if self.is_least else value <= self.limit
        return f"{'met' if is_met else '**missed**'} ({value:.3g})"


@dataclass
class Result:
    """What one scenario found."""

    name: str
    title: str
    """One sentence: what is measured."""
    main: str
    """The measure that ratios are made of."""
    targets: Sequence[Target] = ()
    reference: str = NGINX
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By peer and measure, one for each run."""
    notes: dict[str, str] = field(default_factory=dict)
    """By peer: why there are none."""

    def add(self, peer: str, figures: dict[str, float]) -> None:
        """Add one run's."""
        mine = self.figures.setdefault(peer, {})
        for measure, value in figures.items():
            mine.setdefault(measure, []).append(value)

    def median(self, peer: str, measure: str) -> float | None:
        """Return the median over the runs, None when there is none."""
        values = self.figures.get(peer, {}).get(measure)
        return statistics.median(values) if values else None

    def markdown(self) -> str:
        """Return heading and table."""
        columns = [key for key in MEASURES if any(key in mine for mine in self.figures.values())]
        headings = ["server", *(MEASURES[key].heading for key in columns), f"× {self.reference}"]
        lines = [f"### {self.name}", "", self.title, "", _row(headings), _row(["---"] * len(headings))]
        base = self.median(self.reference, self.main)
        found = {**self.figures, **self.notes}
        for peer in [*(peer for peer in PEERS if peer in found), *(row for row in found if row not in PEERS)]:
            if peer in self.notes:
                lines.append(_row([peer, self.notes[peer], *[""] * len(columns)]))
                continue
            value = self.median(peer, self.main)
            ratio = f"{value / base:.3g}" if base and value is not None else ""
            lines.append(_row([peer, *(self._cell(peer, key) for key in columns), ratio]))
        lines += ["", *(f"- {target.text()}: {target.judge(self)}" for target in self.targets)]
        return "\n".join(lines).rstrip() + "\n"

    def _cell(self, peer: str, key: str) -> str:
        values = self.figures[peer].get(key)
        if not values:
            return ""
        measure = MEASURES[key]
        text = f"{statistics.median(values):,.{measure.places}f}"
        if measure.has_spread and len(values) > 1:
            text += f" ({min(values):,.{measure.places}f} – {max(values):,.{measure.places}f})"
        return text


def summary(results: Sequence[Result]) -> str:
    """Return the table of all targets."""
    lines = [_row(["scenario", "target", "result"]), _row(["---"] * 3)]
    lines += [_row([each.name, target.text(), target.judge(each)]) for each in results for target in each.targets]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"
