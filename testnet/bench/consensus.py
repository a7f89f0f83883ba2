"""Consensus' measurements by name: `./testnet/run bench-consensus NAME...` measures, and writes docs/benchmarks/consensus.md."""

from __future__ import annotations

from testnet.bench import batches, followers, joins, leader_loss, leader_stop, snapshots, throughput
from testnet.bench.consensus_page import CONSENSUS
from testnet.bench.measuring import Measurement, run_all

MEASUREMENTS: dict[str, Measurement] = {
    "leader-cut": Measurement(leader_loss.measure_power_cut, 20),
    "leader-cut-busy": Measurement(leader_loss.measure_busy_cut, 20),
    "leader-stop": Measurement(leader_stop.measure, 20),
    "submits": Measurement(throughput.measure, 5),
    "batch": Measurement(batches.measure, 5),
    "snapshots": Measurement(snapshots.measure, 3),
    "joins": Measurement(joins.measure, 2),
    "followers-2": Measurement(followers.measured(2), 3),
    "followers-10": Measurement(followers.measured(10), 3),
    "followers-50": Measurement(followers.measured(50), 3),
}


def run(names: list[str], *, runs: int | None = None, keep: bool = True) -> int:
    """Measure these, all when none is named."""
    return run_all(CONSENSUS, MEASUREMENTS, names or list(MEASUREMENTS), "bench-consensus", runs=runs, keep=keep)
