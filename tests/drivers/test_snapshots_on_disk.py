"""Real store, real drivers, real catalog: the measurement of snapshots itself, with a small catalog."""

from __future__ import annotations

from testnet.bench import snapshots


def test_a_node_restarts_from_a_snapshot_makes_one_under_submits_and_installs_it_at_an_empty_follower() -> None:
    section = snapshots.measure(1, tasks=300)
    found = {figures.name for figures in section.figures if figures.samples}
    assert {"restart: time", "snapshot: time", "install: time"} <= found
    assert len(section.aims) == 3
