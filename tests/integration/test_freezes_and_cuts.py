"""Hosts that are slow, frozen or cut off: nothing is killed for being slow, a minority changes nothing, one copy in the end."""

from __future__ import annotations

import pytest

from testnet.observer import boottime_s
from testnet.processes import wait_until
from tests.integration.live_cluster import WORK, Cluster, eventually

pytestmark = pytest.mark.testnet


def hold(seconds: float) -> None:
    """Let a fault last."""
    until = boottime_s() + seconds
    wait_until(lambda: boottime_s() >= until, timeout_s=seconds + 5, what="the time to pass")


def test_a_leaders_host_that_freezes_for_three_seconds_moves_nothing(cluster: Cluster) -> None:
    cluster.three_workers()
    before = cluster.runs()
    leader = cluster.leader()
    cluster.net.freeze(leader)
    cluster.watch_nothing_changes(before, seconds=3)
    cluster.net.thaw(leader)
    cluster.wait_all_alive()
    cluster.watch_nothing_changes(before, seconds=3)
    assert {task["attempt"] for task in cluster.tasks().values()} == {1}


@pytest.mark.timeout(180)
def test_a_host_frozen_for_a_minute_loses_nothing_and_one_that_is_given_up_has_one_copy_in_the_end(cluster: Cluster) -> None:
    placed = cluster.three_workers()
    before = cluster.runs()
    leader = cluster.leader()
    victim = cluster.others(leader)[0]
    name = placed[victim]
    frozen_s = boottime_s()
    cluster.net.freeze(victim)
    eventually(lambda: cluster.nodes(leader)[f"h{victim}"]["status"] != "alive", "the silence to be noticed")
    cluster.watch_nothing_changes(before, seconds=60 - (boottime_s() - frozen_s))
    assert cluster.nodes(leader)[f"h{victim}"]["status"] == "dead"
    assert {task["attempt"] for task in cluster.tasks(leader).values()} == {1}, "a stalled daemon has 90 s"
    cluster.ok(leader, "node", "confirm-dead", f"h{victim}")
    eventually(lambda: len(cluster.runs(name)) == 2, "a copy where it can work")
    assert before <= cluster.runs(), "the frozen copy and all others are still there"
    cluster.net.thaw(victim)
    cluster.wait_all_alive()
    cluster.wait_runs(name, timeout_s=30)
    cluster.watch_nothing_changes(cluster.runs(), seconds=3)
    assert {run for run in before if run[0] != victim} <= cluster.runs()
    assert cluster.observer.absence_s(name, since_s=frozen_s, until_s=boottime_s()) == 0


def test_a_leader_cut_off_from_all_others_changes_nothing_while_they_go_on_and_one_copy_is_left(cluster: Cluster) -> None:
    placed = cluster.three_workers()
    leader = cluster.leader()
    majority = cluster.others(leader)
    kept = cluster.runs_on(leader)
    cut_s = boottime_s()
    cluster.net.isolate(leader)
    cluster.ok(majority[0], "task", "submit", "--name", "after", *WORK)
    assert cluster.host_of("after") in majority
    eventually(lambda: len(cluster.runs(placed[leader])) == 2, "the majority to run what it cannot see", timeout_s=20)
    refused = cluster.refused(leader, "task", "submit", "--name", "minority", "--detach", *WORK)
    assert refused.returncode == 6
    assert cluster.leader(seen_by=majority[0]) in majority
    assert cluster.runs_on(leader) == kept, "the minority neither stops nor starts anything"
    cluster.net.heal()
    cluster.wait_all_alive()
    for name in (*placed.values(), "after"):
        cluster.wait_runs(name, timeout_s=30)
        assert cluster.observer.absence_s(name, since_s=cut_s + 15, until_s=boottime_s()) == 0
    cluster.watch_nothing_changes(cluster.runs(), seconds=2)
    assert "minority" not in cluster.tasks(leader)


def test_a_one_way_cut_between_two_followers_moves_nothing(cluster: Cluster) -> None:
    cluster.three_workers()
    before = cluster.runs()
    one, other = cluster.others(cluster.leader())
    cluster.net.cut(one, other, one_way=True)
    cluster.watch_nothing_changes(before, seconds=8)
    cluster.net.heal()
    cluster.wait_all_alive()
    cluster.watch_nothing_changes(before, seconds=1)
