"""Every mutant is caught: no checker is asleep. Seeds are tried in order until one shows it, at most five hundred."""

from __future__ import annotations

import pytest

from swarm.errors import BadMessage, Bug
from tests.simulation import (  # noqa: F401 (they register their own)
    consensus_mutants,
    decision_mutants,
    stream_mutants,
    transfer_mutants,
)
from tests.simulation.mutants import MUTANTS, SHOWN_BY, WHERE_TO_LOOK
from tests.simulation.scenario import run_seed

SEEDS_MAX = 500


def caught_by(name: str) -> tuple[int, BaseException] | None:
    """A seed that shows the mutant, and what was said; None when none does. Where one is remembered it is tried first."""
    remembered = [SHOWN_BY[name]] if name in SHOWN_BY else []
    with MUTANTS[name]():
        for seed in (*remembered, *range(1, 1 + SEEDS_MAX)):
            try:
                run_seed(seed, **WHERE_TO_LOOK.get(name, {}))
            except (AssertionError, Bug, BadMessage) as violation:
                return seed, violation
    return None


@pytest.mark.parametrize("name", sorted(MUTANTS))
@pytest.mark.timeout(600)
def test_the_mutant_is_caught(name: str) -> None:
    assert caught_by(name) is not None, f"{SEEDS_MAX} seeds did not show what breaks when: {MUTANTS[name].__doc__}"


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= 35
