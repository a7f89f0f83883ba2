"""Two hundred clusters, each with its own accidents: no rule is broken, and once healed every one of them is well again.

More on demand: `python -m tests.simulation --seed 1000 --count 5000`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.simulation.scenario import run_seed

SEEDS = 200
TOGETHER = 8
PLOTTED = 12
KEPT = Path(__file__).with_name("seeds.txt")


def kept_seeds() -> list[tuple[int, dict[str, Any]]]:
    """Every seed of the file, with its options."""
    found = []
    for line in KEPT.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        seed, *words = line.split("  ")[0].split()
        options: dict[str, Any] = {}
        for word in words:
            name, value = word.split("=")
            options[name] = tuple(value.split(",")) if name == "kinds" else float(value) if "." in value else int(value)
        found.append((int(seed), options))
    return found


@pytest.mark.parametrize("first", range(1, SEEDS + 1, TOGETHER))
@pytest.mark.timeout(300)
def test_a_cluster_keeps_its_promises_and_recovers(first: int) -> None:
    for seed in range(first, min(first + TOGETHER, SEEDS + 1)):
        try:
            run_seed(seed)
        except Exception as error:
            error.add_note(f"seed {seed}: python -m tests.simulation --seed {seed} --trace")
            raise


@pytest.mark.parametrize(("plot", "hosts"), [("figure_8", 7), ("dead_king", 3), ("lost_store", 3), ("coup", 5)])
@pytest.mark.timeout(300)
def test_accidents_in_the_worst_order_break_nothing(plot: str, hosts: int) -> None:
    for seed in range(1, 1 + PLOTTED):
        run_seed(seed, hosts=hosts, kinds=(plot,), every_s=1.0, append_entries_max=1)


@pytest.mark.parametrize("hosts", [2, 3])
@pytest.mark.timeout(300)
def test_full_disks_break_nothing(hosts: int) -> None:
    for seed in range(1, 4):
        run_seed(seed, hosts=hosts, kinds=("full", "power", "crown", "cut", "daemon"), seconds=15.0)


@pytest.mark.parametrize(("seed", "options"), kept_seeds())
def test_what_a_seed_once_found_stays_found(seed: int, options: dict[str, Any]) -> None:
    run_seed(seed, **options)


def test_a_seed_tells_the_same_story_twice() -> None:
    def story(seed: int) -> list[tuple[float, str, str]]:
        told: list[tuple[float, str, str]] = []
        run_seed(seed, hosts=3, seconds=8.0, trace=lambda moment, who, what: told.append((moment, who, what)))
        return told

    assert story(3) == story(3)
