"""Measurements by name, each written to its page as soon as it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from testnet.bench.figures import Section
from testnet.bench.results import ResultsPage

PAGE = "page"
"""In place of a name: write the page from the results there are."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """`measure(runs)` finds a section; `runs` is how often each thing is repeated unless `--runs` says otherwise."""

    measure: Callable[[int], Section]
    runs: int


def run_all(
    page: ResultsPage,
    measurements: Mapping[str, Measurement],
    names: Sequence[str],
    command: str,
    *,
    runs: int | None = None,
    keep: bool = True,
) -> int:
    """Measure these, in order, and `keep` each one's results as soon as it is over. A TestnetError says what could not be."""
    for name in names:
        if name == PAGE:
            page.page.write_text(page.render())
            continue
        measurement, began = measurements[name], time.monotonic()
        section = measurement.measure(runs or measurement.runs)
        if keep:
            page.record(name, section, f"./testnet/run {command} {name}" + (f" --runs {runs}" if runs else ""))
        print(f"{section.markdown()}\n\nafter {time.monotonic() - began:.0f} s", flush=True)
    return 0
