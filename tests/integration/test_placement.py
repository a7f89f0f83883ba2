"""Where tasks run: labels, constraints, drains, and what fits nowhere."""

from __future__ import annotations

import pytest

from testnet.observer import boottime_s
from tests.integration.live_cluster import WORK, Cluster, eventually

pytestmark = pytest.mark.testnet


def test_constraints_choose_nodes_by_label_and_name_and_an_impossible_one_waits_and_says_why(cluster: Cluster) -> None:
    cluster.ok(3, "node", "label", "h2", "disk=ssd")
    try:
        cluster.submit("fast", "--constraint", "node.labels.disk==ssd")
        cluster.submit("slow", "--constraint", "node.labels.disk!=ssd", "--constraint", "node.hostname!=h1")
        assert (cluster.host_of("fast"), cluster.host_of("slow")) == (2, 3)
        cluster.ok(1, "task", "submit", "--name", "never", "--detach", "--constraint", "node.labels.disk==tape", *WORK)
        eventually(lambda: "tape" in cluster.tasks(2)["never"]["reason"], "the reason to name the label")
        assert not cluster.runs("never")
        cluster.ok(2, "node", "label", "h1", "disk=tape")
        cluster.wait_runs("never", on=[1])
    finally:
        cluster.ok(1, "node", "label", "h1", "disk-")
        cluster.ok(1, "node", "label", "h2", "disk-")


def test_a_drain_moves_tasks_before_it_stops_them_and_the_node_gets_no_new_work(cluster: Cluster) -> None:
    placed = cluster.three_workers()
    undisturbed = cluster.runs() - cluster.runs_on(2)
    moved = placed[2]
    started_s = boottime_s()
    cluster.ok(3, "node", "drain", "h2")
    cluster.wait_runs(moved, on=[1, 3])
    eventually(lambda: not cluster.runs_on(2), "the drained host to be empty")
    assert cluster.observer.absence_s(moved, since_s=started_s, until_s=boottime_s()) == 0, "moved before it was stopped"
    assert undisturbed <= cluster.runs()
    for name in ("d", "e", "f"):
        cluster.submit(name)
        assert cluster.host_of(name) != 2


def test_plain_down_pauses_and_nothing_moves(cluster: Cluster) -> None:
    placed = cluster.three_workers()
    before = cluster.runs()
    leader = cluster.leader()
    paused = cluster.others(leader)[0]
    cluster.ok(paused, "down")
    eventually(lambda: not cluster.daemon_alive(paused), "the daemon to end")
    cluster.watch_nothing_changes(before, seconds=4)
    assert cluster.tasks(leader)[placed[paused]]["attempt"] == 1
    cluster.net.restart_daemon(paused)
    cluster.wait_all_alive()
    cluster.watch_nothing_changes(before, seconds=1)


def test_down_with_drain_moves_the_work_and_leaves_and_the_next_start_is_admitted_again(cluster: Cluster) -> None:
    placed = cluster.three_workers()
    leader = cluster.leader()
    leaver = cluster.others(leader)[0]
    cluster.ok(leaver, "down", "--drain", timeout_s=60)
    eventually(lambda: not cluster.daemon_alive(leaver), "the daemon to end")
    cluster.wait_runs(placed[leaver], on=cluster.others(leaver))
    assert not cluster.runs_on(leaver), "what it ran has moved before it left"
    assert cluster.nodes(leader)[f"h{leaver}"]["status"] == "left"
    cluster.net.restart_daemon(leaver)
    cluster.wait_all_alive()
    assert cluster.nodes(leader)[f"h{leaver}"]["availability"] == "active"


def test_reservations_are_never_exceeded_and_what_fits_nowhere_waits_until_there_is_room(cluster: Cluster) -> None:
    cpus = int(cluster.net.run(1, "nproc").stdout)
    for number in cluster.net.hosts:
        cluster.submit(f"big-{number}", "--cpus", str(cpus), node=number)
    assert {run[0] for run in cluster.runs()} == {1, 2, 3}
    cluster.ok(1, "task", "submit", "--name", "late", "--detach", "--cpus", "0.5", *WORK)
    eventually(lambda: "cpu" in cluster.tasks()["late"]["reason"].lower(), "the reason to say what is short")
    assert not cluster.runs("late")
    freed = cluster.host_of("big-1")
    cluster.ok(2, "task", "stop", "big-1")
    cluster.wait_runs("late", on=[freed])
