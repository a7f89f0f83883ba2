"""Samples and how they are told: min, median, 95th percentile, max, how many, how many discarded and why.

A `Figures` is the samples of one thing, an `Aim` is a bound that the project set itself for one figure, and a `Section` is what
one measurement found: its figures, its aims, and in words what was done and what bounds it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Figures:
    """The samples of one thing. `unit` is for people; nothing is rounded before it is printed."""

    name: str
    unit: str
    samples: list[float] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)

    def add(self, value: float) -> None:
        self.samples.append(value)

    def discard(self, reason: str) -> None:
        """A run that measured something else (the machine, a failed step): counted and shown, never dropped silently."""
        self.discarded.append(reason)

    def percentile(self, share: float) -> float:
        """Nearest rank: the smallest sample that at least `share` of all are at or below. NaN without samples."""
        if not self.samples:
            return math.nan
        ordered = sorted(self.samples)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    @property
    def median(self) -> float:
        return self.percentile(0.5)

    def row(self) -> str:
        """One line of a Markdown table."""
        reasons = "; ".join(f"{count} x {reason}" for reason, count in sorted(Counter(self.discarded).items()))
        shown = " | ".join(told(self.percentile(share)) for share in (0.0, 0.5, 0.95, 1.0))
        return f"| {self.name} | {self.unit} | {shown} | {len(self.samples)} | {reasons or '0'} |"


def told(value: float) -> str:
    """Three digits; whole numbers from a hundred on."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


HEADER = """| what | unit | min | median | p95 | max | runs | discarded |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"""


def table(figures: list[Figures]) -> str:
    return "\n".join([HEADER, *(each.row() for each in figures)])


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound on one figure: `found` is to be at most `bound`, or at least, where more is better."""

    what: str
    found: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """What was not measured is not met."""
        return self.found >= self.bound if self.at_least else self.found <= self.bound

    def line(self) -> str:
        """Met or missed, and by how much."""
        if math.isnan(self.found):
            return f"- {self.what}: **not measured**."
        off = abs(self.found - self.bound)
        side = "above" if self.at_least else "below"
        verdict = f"met, {told(off)} {self.unit} {side}" if self.met else f"**missed by {told(off)} {self.unit}**"
        least = "at least " if self.at_least else ""
        return f"- {self.what}: {told(self.found)} {self.unit}, aim {least}{told(self.bound)} {self.unit}: {verdict}."


@dataclass(slots=True)
class Section:
    """What one measurement found."""

    title: str
    how: str
    figures: list[Figures] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    where: list[Figures] = field(default_factory=list)
    """Where the time goes: the same runs, cut into steps."""
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        parts = [f"## {self.title}", self.how, table(self.figures)]
        if self.aims:
            parts.append("\n".join(aim.line() for aim in self.aims))
        if self.where:
            parts += ["Where the time goes, in the same runs:", table(self.where)]
        return "\n\n".join([*parts, *self.notes])
