"""Two hundred whole clusters under faults, each from one seed; `python -m tests.simulation --seed N --trace` tells one's story.

In packs of ten, so that two workers share them evenly. A pack runs to its end and names every seed that failed.
"""

from __future__ import annotations

import pytest

from tests.simulation.scenario import run_seed

SEEDS = 200
PACK = 10


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(1, SEEDS + 1, PACK))
def test_a_cluster_survives_what_each_seed_does_to_it(first: int) -> None:
    failed: dict[int, str] = {}
    for seed in range(first, first + PACK):
        try:
            run_seed(seed)
        except Exception as error:  # whatever a core or a checker raises is that seed's finding
            failed[seed] = f"{type(error).__name__}: {error}"
    assert failed == {}, f"{failed}; tell the story: python -m tests.simulation --trace --seed {min(failed, default=0)}"
