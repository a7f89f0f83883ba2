"""The page of membership's figures: every measurement keeps its own results file, and the page is written from all of them.

`record(name, section, command)` writes docs/benchmarks/membership/NAME.json and the page again; `render()` alone makes the page's
text from whatever results there are. One file each, so that measurements made apart do not disturb each other's rows. A results
file holds a `Recorded`: the samples themselves, so every figure on the page can be computed again; nothing in it tells the time.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from testnet.bench.figures import Section
from testnet.bench.machine import commit, processor
from testnet.layout import REPOSITORY

PAGE = REPOSITORY / "docs" / "benchmarks" / "membership.md"
RESULTS = REPOSITORY / "docs" / "benchmarks" / "membership"

ORDER = (
    "convergence",
    "bytes",
    "scale",
    "false-deaths-1",
    "false-deaths-2",
    "false-deaths-4",
    "false-deaths-8",
    "power-cut-3",
    "power-cut-10",
    "power-cut-30",
    "daemon-kill",
    "load",
    "pauses",
    "split",
    "idle-30",
    "mutated-packets",
)
"""Sections stand in this order; others follow by name."""

INTRODUCTION = """# Membership, measured

Each section was written by the command it names, which measures it again; the page is put together from the results beside it
(`docs/benchmarks/membership/*.json`, all samples kept). What is called simulated ran real membership cores on virtual time, so
its times do not depend on the machine and a run is the same for the same seed; what is called real ran daemons on emulated
hosts ([testnet](../testnet.md)), which share one machine's cores: compare figures within one section only.

`discarded` counts the runs that failed or were disturbed, with the reason; percentiles are by nearest rank, so with few runs p95
is the maximum."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one measurement found, and where."""

    section: Section
    command: str
    commit: str
    python: str
    cores: str


def record(name: str, section: Section, command: str) -> Path:
    """Keep these results under that name, in place of older ones, and write the page again."""
    where = Recorded(section, command, commit(), platform.python_version(), f"{os.cpu_count()} ({processor()})")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(_lines(asdict(where)) + "\n")
    PAGE.write_text(render())
    return PAGE


def render() -> str:
    """The whole page, from the results there are."""
    found = {path.stem: msgspec.json.decode(path.read_bytes(), type=Recorded) for path in RESULTS.glob("*.json")}
    ordered = sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    results = [found[name] for name in ordered]
    aims = [aim for result in results for aim in result.section.aims]
    missed = [f"{each.section.title.lower()}: {aim.what}" for each in results for aim in each.section.aims if not aim.met]
    short = f"**Of {len(aims)} aims {len(aims) - len(missed)} were met.**"
    if missed:
        short += " Not met: " + "; ".join(missed) + ". The sections say by how much, and what bounds it."
    return "\n\n".join([INTRODUCTION, short, *map(_told, results)]) + "\n"


def _told(result: Recorded) -> str:
    where = f"`{result.command}`; commit {result.commit}, Python {result.python}, {result.cores}."
    return f"{result.section.markdown()}\n\nMeasured by {where}"


def _lines(content: Any, depth: int = 0) -> str:
    """JSON with a line for each part down to the single figure, so that a change is seen where it is."""
    if depth >= 3 or not isinstance(content, dict | list) or not content:
        return json.dumps(_rounded(content))
    margin, outer = " " * (depth + 1), " " * depth
    if isinstance(content, list):
        return "[\n" + ",\n".join(margin + _lines(each, 3) for each in content) + f"\n{outer}]"
    parts = (f"{margin}{json.dumps(key)}: {_lines(value, depth + 1)}" for key, value in content.items())
    return "{\n" + ",\n".join(parts) + f"\n{outer}}}"


def _rounded(content: Any) -> Any:
    """Six digits are more than any of this is exact to."""
    if isinstance(content, float):
        return float(f"{content:.6g}")
    if isinstance(content, list):
        return [_rounded(each) for each in content]
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    return content
