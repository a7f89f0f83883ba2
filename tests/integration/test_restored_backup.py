"""A cluster is gone, and a new one is made from its backup on hosts that were reset: what was wanted runs again, each once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testnet.host import tail
from tests.integration.live_cluster import LABEL_CLUSTER, Cluster, Kept, eventually

pytestmark = pytest.mark.testnet


@pytest.fixture
def two_hosts() -> Iterator[Cluster]:
    kept = Kept()
    try:
        with kept.lent(2, voters=1, mend=False) as cluster:
            yield cluster
    finally:
        kept.close()


def reset(cluster: Cluster, number: int) -> None:
    """As its operator does: forget the cluster, then remove what it left by the command that the reset names."""
    done = cluster.swarm(number, "reset", "--data", str(cluster.net.data_folder(number)), "--yes")
    assert done.returncode == 0, done
    command = done.stderr.strip().rpartition("): ")[2]
    assert command.startswith("docker rm -f "), done.stderr
    removed = cluster.net.run(number, "sh", "-c", command)
    assert removed.returncode == 0, removed


def starts(cluster: Cluster, name: str) -> int:
    """How many containers of a task this cluster has ever started."""
    return sum(each.labels.get(LABEL_CLUSTER) == cluster.identity for each in cluster.observer.intervals(name))


def environment_of(cluster: Cluster, name: str) -> list[str]:
    (interval,) = (each for each in cluster.observer.running(name) if each.labels.get(LABEL_CLUSTER) == cluster.identity)
    client = cluster.net.docker(interval.host)
    try:
        return list(client.containers.get(interval.container).attrs["Config"]["Env"])
    finally:
        client.close()


def saved_and_gone(cluster: Cluster, backup: str) -> None:
    """Work on both hosts, a backup, more work; then the daemons end, and both hosts are reset."""
    for number in (1, 2):
        cluster.submit(f"on-{number}", "--constraint", f"node.name==h{number}")
    cluster.submit("anywhere", "--env", "COLOUR=blue")
    cluster.submit("stopped")
    cluster.ok(1, "task", "stop", "stopped")
    cluster.ok(2, "backup", "save", backup)
    cluster.submit("later")
    for number in (1, 2):
        cluster.net.stop_daemon(number)
    for number in (1, 2):
        reset(cluster, number)
    eventually(lambda: cluster.observer.running() == [], "what the old cluster left to be removed")


def test_a_cluster_made_from_a_backup_on_reset_hosts_runs_each_wanted_task_once_and_takes_new_ones(two_hosts: Cluster) -> None:
    cluster, net, former = two_hosts, two_hosts.net, two_hosts.identity
    backup = str(net.layout.state / "saved")
    saved_and_gone(cluster, backup)

    told = cluster.ok(1, "backup", "restore", backup, "--data", str(net.data_folder(1)))
    assert "3 tasks will be placed anew" in told
    net.start_daemon(1, [])
    cluster.wait_writable(1)
    cluster.identity = cluster.json(1, "status")["cluster_id"]
    assert cluster.identity != former and cluster.identity in told
    assert cluster.tasks().keys() == {"on-1", "on-2", "anywhere", "stopped"}, "what came after the backup is not in it"
    for name in ("on-1", "anywhere"):
        cluster.wait_runs(name, on=[1])
    assert not cluster.runs("on-2"), "its node is not there yet"
    assert "COLOUR=blue" in environment_of(cluster, "anywhere")

    join = ["--token-file", str(net.layout.token), "--peers", net.address(1)]
    net.start_daemon(2, join, wait=False)
    eventually(lambda: not cluster.daemon_alive(2), "the token of the old cluster to be refused")
    assert "does not accept this token" in tail(net.host(2).daemon_log)
    net.layout.token.write_text(cluster.ok(1, "token", "show"))
    net.start_daemon(2, join)
    cluster.wait_all_alive()
    cluster.wait_runs("on-2", on=[2])
    cluster.submit("fresh", node=2)
    cluster.watch_nothing_changes(cluster.runs(), seconds=2)
    ever = {name: starts(cluster, name) for name in ("on-1", "on-2", "anywhere", "fresh", "stopped", "later")}
    assert ever == {"on-1": 1, "on-2": 1, "anywhere": 1, "fresh": 1, "stopped": 0, "later": 0}
    assert len(cluster.observer.running()) == 4, "and nothing of the old cluster"
