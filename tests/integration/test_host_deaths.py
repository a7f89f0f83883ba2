"""Hosts die, by one, by two and all at once: the work goes on elsewhere, or waits without losing anything."""

from __future__ import annotations

import pytest

from testnet.observer import boottime_s
from tests.integration.live_cluster import BUSYBOX, WORK, Cluster, eventually

pytestmark = pytest.mark.testnet
JOB = (BUSYBOX, "echo", "done")


def test_the_work_of_a_killed_host_runs_elsewhere_and_nothing_else_moves(cluster: Cluster) -> None:
    placed = cluster.three_workers()
    leader = cluster.leader()
    victim = next(number for number in cluster.others(leader) if number in placed)
    moved = placed[victim]
    undisturbed = cluster.runs() - cluster.runs_on(victim)
    killed_s = boottime_s()
    cluster.kill(victim)
    cluster.wait_runs(moved, on=cluster.others(victim), timeout_s=15)
    assert cluster.observer.absence_s(moved, since_s=killed_s, until_s=boottime_s()) < 10
    assert undisturbed <= cluster.runs()
    eventually(lambda: cluster.nodes(leader)[f"h{victim}"]["status"] == "dead", "the node to be shown dead")
    assert cluster.tasks(leader)[moved]["attempt"] == 2
    before = cluster.runs()
    cluster.revive(victim)
    cluster.wait_all_alive()
    cluster.watch_nothing_changes(before, seconds=3)
    assert all(cluster.observer.copies_max(name) == 1 for name in placed.values()), "no task ever ran twice"


def test_the_death_of_the_leaders_host_is_survived_and_the_next_submit_is_accepted_soon(cluster: Cluster) -> None:
    placed = cluster.three_workers()
    victim = cluster.leader()
    survivors = cluster.others(victim)
    killed_s = boottime_s()
    cluster.kill(victim)
    cluster.ok(survivors[0], "task", "submit", "--name", "after", "--detach", *WORK)
    assert boottime_s() - killed_s < 8, "a new leader accepts writes within seconds"
    for name in (*placed.values(), "after"):
        cluster.wait_runs(name, on=survivors, timeout_s=20)
    assert cluster.leader(seen_by=survivors[0]) in survivors
    assert cluster.tasks(survivors[1]).keys() >= {*placed.values(), "after"}
    cluster.revive(victim)
    cluster.wait_all_alive()
    eventually(lambda: len(cluster.runs()) == 4, "four tasks with one copy each")
    assert cluster.observer.copies_max("after") == 1


def test_two_of_three_hosts_dead_leaves_containers_running_and_reads_stale_and_refuses_writes(cluster: Cluster) -> None:
    placed = cluster.three_workers()
    survivor, *victims = cluster.net.hosts
    name = placed[survivor]
    kept = cluster.runs_on(survivor)
    cluster.kill(*victims)
    eventually(lambda: "no leader in reach" in said(cluster, survivor, "task", "ls"), "reads to be marked stale")
    assert cluster.tasks(survivor).keys() == set(placed.values()), "reads are served"
    eventually(lambda: cluster.swarm(survivor, "status").returncode == 6, "the loss of the quorum to be seen")
    refused = cluster.refused(survivor, "task", "submit", "--name", "late", "--detach", *WORK)
    assert refused.returncode == 6
    assert any(f"h{victim}" in refused.stderr for victim in victims), f"it says who is missing: {refused.stderr}"
    cluster.watch_nothing_changes(kept, seconds=2)
    cluster.end_container(name)
    eventually(lambda: cluster.runs_on(survivor) - kept, "the container to be restarted by policy without any leader")
    assert {run[0] for run in cluster.runs()} == {survivor}
    kept = cluster.runs_on(survivor)
    cluster.revive(victims[0])
    cluster.wait_writable(survivor)
    cluster.submit("late", node=survivor)
    for task in (*placed.values(), "late"):
        cluster.wait_runs(task, timeout_s=30)
    assert kept <= cluster.runs(), "what ran on is not disturbed by the return"
    assert "no leader" not in said(cluster, survivor, "task", "ls")


def test_a_reboot_of_all_hosts_at_once_brings_everything_back_once(cluster: Cluster) -> None:
    placed = cluster.three_workers()
    cluster.ok(1, "task", "submit", "--name", "job", "--restart", "no", *JOB)
    eventually(lambda: cluster.tasks()["job"]["phase"] == "succeeded", "the job to end")
    cluster.kill(*cluster.net.hosts)
    eventually(lambda: not cluster.runs(), "the observer to see that nothing runs any more")
    rebooted_s = boottime_s()
    cluster.revive(*cluster.net.hosts)
    cluster.wait_all_alive()
    for name in placed.values():
        cluster.wait_runs(name, timeout_s=40)
    assert all(cluster.observer.copies_max(name, since_s=rebooted_s) == 1 for name in placed.values())
    assert cluster.tasks()["job"]["phase"] == "succeeded"
    assert len(cluster.observer.intervals("job")) == 1, "a job that had ended does not run again"


def test_a_task_with_a_volume_waits_for_its_node_and_finds_its_data_again(cluster: Cluster) -> None:
    count = "echo run >> /data/runs; wc -l < /data/runs; trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"
    image = BUSYBOX
    cluster.submit("pinned", "--volume", "diary:/data", work=(image, "sh", "-c", count))
    home = cluster.host_of("pinned")
    if home == 1:
        reader = 2
    else:
        reader = 1
    stay = f"node.name==h{home}"
    cluster.submit("free", "--constraint", "node.os==linux", "--volume", "scrap:/data", "--volume-elsewhere")
    cluster.submit("neighbour", "--constraint", stay)
    cluster.kill(home)
    eventually(lambda: waits_for(cluster, reader, "pinned", f"h{home}"), "the reason to name the dead node", timeout_s=30)
    cluster.wait_runs("free", on=cluster.others(home))
    assert not cluster.runs("pinned")
    cluster.watch_nothing_changes(cluster.runs(), seconds=2)
    cluster.revive(home)
    cluster.wait_runs("pinned", on=[home], timeout_s=30)
    eventually(lambda: cluster.ok(reader, "task", "logs", "pinned").split()[-1:] == ["2"], "the second run to find its data")


def waits_for(cluster: Cluster, reader: int, name: str, node: str) -> bool:
    return node in cluster.tasks(reader)[name]["reason"]


def said(cluster: Cluster, number: int, *arguments: str) -> str:
    done = cluster.swarm(number, *arguments)
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).lower()

