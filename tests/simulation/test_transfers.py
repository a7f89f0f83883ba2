"""With a snapshot every few entries, followers get them all the time, in chunks; and whatever breaks in the middle of one
(streams, hosts, leaders, the daemon that receives), the promises hold (PROTOCOLS S10)."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.consensus.transfer import Chunk, Intake, Intakes
from swarm.model.entry import SnapshotMeta
from tests.simulation.mutants import patched
from tests.simulation.scenario import run_seed

EVERY = 12
SEEDS = 8


class Seen:
    """What happened to snapshots on their way, in all runs together."""

    def __init__(self) -> None:
        self.whole = 0
        self.begun = 0

    def begin(self, intakes: Intakes, meta: SnapshotMeta) -> Any:
        self.begun += 1
        return BEGIN(intakes, meta)

    def take(self, intake: Intake, chunk: Chunk) -> bytes:
        news = TAKE(intake, chunk)
        self.whole += bool(news) and intake.is_complete
        return news


BEGIN, TAKE = Intakes.begin, Intake.take


@pytest.mark.timeout(300)
def test_transfers_that_break_in_the_middle_break_no_promise() -> None:
    seen = Seen()
    with (
        patched(Intakes, "begin", lambda intakes, meta: seen.begin(intakes, meta)),
        patched(Intake, "take", lambda intake, chunk: seen.take(intake, chunk)),
    ):
        for seed in range(1, 1 + SEEDS):
            run_seed(seed, hosts=4, seconds=25.0, kinds=("power", "cut", "daemon", "blackout"), every_s=1.5, snapshot_every=EVERY)
    assert seen.whole >= SEEDS, "snapshots arrive"
    assert seen.begun > seen.whole, "some broke off for good"
