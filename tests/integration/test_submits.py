"""Submits that have a hard way: around a cut, and through a time without a leader on the disk of one node."""

from __future__ import annotations

import json

import pytest

from tests.integration.live_cluster import WORK, Cluster, eventually

pytestmark = pytest.mark.testnet
KEY = "left-with-several-nodes"


@pytest.mark.timeout(240)
def test_a_submit_goes_around_a_cut_and_outlasts_the_loss_of_the_quorum_on_disk(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    leader = cluster.leader()
    survivor, other = cluster.others(leader)
    cluster.net.cut(survivor, leader)
    cluster.ok(survivor, "task", "submit", "--name", "around", "--detach", *WORK)
    assert "around" in cluster.tasks(other)
    cluster.net.heal()
    eventually(lambda: "around" in cluster.tasks(survivor), "the log to reach the node that was cut off")

    cluster.kill(leader, other)
    queue = ("task", "submit", "--queue", "--detach", "--request-id", KEY, "--name", "late", *WORK)
    cluster.ok(survivor, *queue)
    cluster.net.crash_daemon(survivor)
    cluster.net.restart_daemon(survivor)
    eventually(lambda: cluster.tasks(survivor)["late"]["phase"] == "queued", "the restarted daemon to have it still")
    assert cluster.tasks(survivor)["around"]["phase"] != "queued", "what was applied before is known without a leader"
    cluster.revive(leader, other)
    cluster.wait_all_alive()
    cluster.ok(other, *queue)
    cluster.wait_runs("late", timeout_s=30)
    eventually(lambda: json.loads(cluster.ok(survivor, "task", "queue", "ls", "-o", "json")) == [], "nothing to wait any more")
    names = [task["name"] for task in cluster.json(other, "task", "ls")]
    assert sorted(names) == ["around", "late"]
