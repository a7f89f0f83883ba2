"""Membership's measurements by name: `./testnet/run bench-membership NAME...` measures, and writes docs/benchmarks/membership.md.

Those of `SIMULATED` need neither root nor a testnet: `.venv/bin/python -m testnet bench-membership NAME` does the same.
"""

from __future__ import annotations

from testnet.bench import daemon_kill, gossip_rows, load, many_idle, mutated_packets, pauses, power_cut
from testnet.bench.measuring import Measurement, run_all
from testnet.bench.membership_page import MEMBERSHIP

SIMULATED: dict[str, Measurement] = {
    "convergence": Measurement(gossip_rows.convergence, 20),
    "bytes": Measurement(gossip_rows.bytes_sent, 3),
    "scale": Measurement(gossip_rows.scale, 1),
    "false-deaths-1": Measurement(gossip_rows.false_deaths_of(1), 1),
    "false-deaths-2": Measurement(gossip_rows.false_deaths_of(2), 1),
    "false-deaths-4": Measurement(gossip_rows.false_deaths_of(4), 1),
    "false-deaths-8": Measurement(gossip_rows.false_deaths_of(8), 1),
    "split": Measurement(gossip_rows.splits, 3),
}
REAL: dict[str, Measurement] = {
    "power-cut-3": Measurement(power_cut.measured(3), 20),
    "power-cut-10": Measurement(power_cut.measured(10), 20),
    "power-cut-30": Measurement(power_cut.measured(30), 20),
    "daemon-kill": Measurement(daemon_kill.measure, 12),
    "load": Measurement(load.measure, 10),
    "pauses": Measurement(pauses.measure, 10),
    "idle-30": Measurement(many_idle.measure, 3),
    "mutated-packets": Measurement(mutated_packets.measure, 1),
}
"""With daemons on emulated hosts, as root."""
MEASUREMENTS = SIMULATED | REAL


def run(names: list[str], *, runs: int | None = None, keep: bool = True) -> int:
    """Measure these, in order, and `keep` each one's results as soon as it is over. A TestnetError says what could not be."""
    return run_all(MEMBERSHIP, MEASUREMENTS, names, "bench-membership", runs=runs, keep=keep)
