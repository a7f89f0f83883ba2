"""A page of figures made from results files: every measurement keeps its own file, and the page is written from all of them.

`ResultsPage.record(name, section, command)` writes FOLDER/NAME.json and the page again; `render()` alone makes the page's text
from whatever results there are. One file each, so that measurements made apart do not disturb each other's rows. A results file
holds a `Recorded`: the samples themselves, so every figure on the page can be computed again; nothing in it tells the time.
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


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one measurement found, and where."""

    section: Section
    command: str
    commit: str
    python: str
    cores: str


@dataclass(frozen=True, slots=True)
class ResultsPage:
    """Where a page and its results are, what stands above them, and in which order: what is not in it follows by name."""

    page: Path
    results: Path
    introduction: str
    order: tuple[str, ...]

    def record(self, name: str, section: Section, command: str) -> Path:
        """Keep these results under that name, in place of older ones, and write the page again."""
        self.results.mkdir(parents=True, exist_ok=True)
        write_results(self.results / f"{name}.json", section, command)
        self.page.write_text(self.render())
        return self.page

    def render(self) -> str:
        """The whole page, from the results there are."""
        found = {path.stem: msgspec.json.decode(path.read_bytes(), type=Recorded) for path in self.results.glob("*.json")}
        order = self.order
        ordered = sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))
        results = [found[name] for name in ordered]
        aims = [aim for result in results for aim in result.section.aims]
        missed = [f"{each.section.title.lower()}: {aim.what}" for each in results for aim in each.section.aims if not aim.met]
        short = f"**Of {len(aims)} aims {len(aims) - len(missed)} were met.**"
        if missed:
            short += " Not met: " + "; ".join(missed) + ". The sections say by how much, and what bounds it."
        return "\n\n".join([self.introduction, short, *map(_told, results)]) + "\n"


def write_results(path: Path, section: Section, command: str) -> None:
    """One results file. The page takes it in when it is written next."""
    found = Recorded(section, command, commit(), platform.python_version(), f"{os.cpu_count()} ({processor()})")
    path.write_text(_lines(asdict(found)) + "\n")


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
