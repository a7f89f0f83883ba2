"""A quorum is lost for good: a survivor goes on with what it has, and whoever comes back later is taken in anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from testnet.host import tail
from tests.integration.live_cluster import WORK, Cluster, Kept, eventually

pytestmark = pytest.mark.testnet
YES = "--yes-i-lose-what-only-the-missing-voters-have"


def hosts(count: int, *, voters: int) -> Iterator[Cluster]:
    kept = Kept()
    try:
        with kept.lent(count, voters=voters, mend=False) as cluster:
            yield cluster
    finally:
        kept.close()


@pytest.fixture
def two_hosts() -> Iterator[Cluster]:
    yield from hosts(2, voters=1)


@pytest.fixture
def three_hosts() -> Iterator[Cluster]:
    yield from hosts(3, voters=3)


def voters(cluster: Cluster, number: int) -> list[str]:
    return cluster.json(number, "status")["voters"]


def recovery_seen(cluster: Cluster, number: int) -> int:
    """Which recovery a node follows, also while it has no leader; -1 while its daemon starts anew."""
    shown = cluster.swarm(number, "status", "-o", "json").stdout
    return int(json.loads(shown)["recovery"]) if shown else -1


def test_after_the_only_voter_is_lost_a_survivor_goes_on_and_the_old_voter_returns_as_a_learner(two_hosts: Cluster) -> None:
    cluster = two_hosts
    (only,) = voters(cluster, 1)
    lost = int(only.removeprefix("h"))
    survivor = 3 - lost
    cluster.submit("stays", "--constraint", f"node.name==h{survivor}", node=lost)
    cluster.submit("moves", "--constraint", "node.os==linux", node=lost)
    cluster.ok(lost, "task", "submit", "--name", "last", "--detach", *WORK)  # acknowledged right before the end
    cluster.kill(lost)
    kept = {run for run in cluster.runs("stays") if run[0] == survivor}
    assert len(kept) == 1
    eventually(lambda: cluster.swarm(survivor, "status").returncode == 6, "the survivor to miss its leader")
    assert cluster.swarm(survivor, "task", "submit", "--name", "early", "--detach", *WORK).returncode in (6, 7)

    eventually(lambda: cluster.json(survivor, "recover", "--dry-run")["refused"] == "", "the leader to be long gone")
    shown = cluster.ok(survivor, "recover", "--dry-run")
    assert f"h{lost}" in shown and "last heard a leader" in shown and "kept:" in shown
    assert cluster.refused(survivor, "recover").returncode != 0, "nothing happens without a typed confirmation"
    told = cluster.ok(survivor, "recover", YES)
    assert f"h{survivor} leads the cluster in recovery 1" in told and f"next: start those of h{lost}" in told
    assert "cluster.recovered" in cluster.ok(survivor, "history")

    assert cluster.tasks(survivor).keys() == {"stays", "moves", "last"}, "nothing acknowledged is lost"
    assert voters(cluster, survivor) == [f"h{survivor}"]
    assert kept <= cluster.runs(), "what ran was not restarted"
    for name in ("moves", "last"):
        cluster.wait_runs(name, on=[survivor], timeout_s=30)
    cluster.ok(survivor, "task", "submit", "--name", "late", "--detach", *WORK)
    cluster.wait_runs("late", on=[survivor])

    before = cluster.runs()
    cluster.revive(lost)
    eventually(lambda: cluster.json(lost, "status")["recovery"] == 1, "the old voter to follow the recovery", timeout_s=30)
    cluster.wait_all_alive(timeout_s=60)
    eventually(lambda: cluster.json(lost, "status")["role"] == "learner", "the old voter to be a learner")
    assert [each["kind"] for each in cluster.json(lost, "backup", "ls")].count("replaced") == 1
    assert "the cluster was recovered without this node" in tail(cluster.net.host(lost).daemon_log, 20_000)
    assert before <= cluster.runs(), "its return disturbs nothing"
    assert voters(cluster, lost) == [f"h{survivor}"]
    cluster.ok(lost, "task", "submit", "--name", "through", "--detach", *WORK)
    for name in ("stays", "moves", "last", "late", "through"):
        cluster.wait_runs(name, timeout_s=30)


def test_a_node_that_was_leaving_when_the_cluster_was_recovered_leaves_what_the_cluster_is_now(two_hosts: Cluster) -> None:
    cluster = two_hosts
    (only,) = voters(cluster, 1)
    leaving = int(only.removeprefix("h"))
    survivor = 3 - leaving
    cluster.net.cut(leaving, survivor)
    cluster.ok(leaving, "node", "drain", "self")
    with ThreadPoolExecutor(1) as pool:
        down = pool.submit(cluster.swarm, leaving, "down", "--drain", timeout_s=90.0)
        eventually(lambda: cluster.json(survivor, "recover", "--dry-run")["refused"] == "", "the leader to be long gone")
        cluster.ok(survivor, "recover", YES)
        assert not down.done(), "nobody can take its vote, and it waits"
        cluster.net.heal()
        assert "has left the cluster" in down.result().stdout

    def has_left() -> bool:
        (row,) = [row for row in cluster.json(survivor, "node", "ls") if row["name"] == only]
        return bool(row["availability"] == "left")

    eventually(has_left, "what the command said to be true", timeout_s=5)
    said = tail(cluster.net.host(leaving).daemon_log, 20_000)
    assert "recovered while this node was leaving" in said and "starts anew" in said
    assert cluster.json(survivor, "status")["recovery"] == 1 and voters(cluster, survivor) == [f"h{survivor}"]


def test_a_majority_of_old_voters_that_returns_under_a_retired_secret_gives_its_log_up(three_hosts: Cluster) -> None:
    """They have a leader of their own, and no stream to the recovered node, which removed one and rotated the secret."""
    cluster = three_hosts
    assert len(voters(cluster, 1)) == 3
    survivor, removed, kept = 1, 2, 3
    lost = (removed, kept)
    cluster.submit("kept", "--constraint", f"node.name==h{survivor}")
    for number in lost:
        cluster.kill(number)
    eventually(lambda: cluster.json(survivor, "recover", "--dry-run")["refused"] == "", "the leader to be long gone")
    cluster.ok(survivor, "recover", YES)
    cluster.ok(survivor, "node", "rm", f"h{removed}")
    eventually(lambda: not cluster.json(survivor, "secret", "status")["rotating"], "the secret to be rotated")

    for number in lost:
        cluster.net.cut(survivor, number)
        cluster.revive(number)
    for number in lost:
        cluster.ok(number, "task", "submit", "--name", f"old-{number}", "--detach", *WORK, timeout_s=60)
    assert {cluster.json(number, "status")["recovery"] for number in lost} == {0}
    cluster.net.heal()

    for number in lost:
        eventually(lambda number=number: recovery_seen(cluster, number) == 1, "it to follow", timeout_s=40)  # type: ignore[misc]
        assert "the cluster was recovered without this node" in tail(cluster.net.host(number).daemon_log, 20_000)
    eventually(lambda: cluster.json(kept, "status")["role"] == "learner", "it to be taken in", timeout_s=40)
    assert cluster.tasks(kept).keys() == cluster.tasks(survivor).keys() == {"kept"}
    assert voters(cluster, survivor) == [f"h{survivor}"]
    refused = cluster.swarm(removed, "task", "submit", "--name", "late", "--detach", *WORK)
    assert refused.returncode in (4, 6), refused.stdout + refused.stderr
    cluster.ok(kept, "task", "submit", "--name", "through", "--detach", *WORK)
    cluster.wait_runs("through", on=[survivor, kept])
