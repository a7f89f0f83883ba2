"""Two nodes and a witness: the witness votes, runs nothing, needs no engine; whichever dies, the others take commands."""

from __future__ import annotations

import pytest

from testnet.cluster import Testnet
from testnet.engine import reserved_instance
from testnet.observer import Observer
from tests.integration.live_cluster import WORK, Cluster, eventually

pytestmark = pytest.mark.testnet
WITNESS = 3


def found(net: Testnet, observer: Observer) -> Cluster:
    """Hosts 1 and 2 with their engines, host 3 as a witness whose engine is not there."""
    net.new_token()
    for number in net.hosts:
        options = ["--witness", "--engine", "unix:///nowhere.sock"] if number == WITNESS else []
        net.start_daemon(number, [*net.daemon_arguments(number, together=True), *options], wait=False)
    for number in net.hosts:
        net.wait_for_daemon(number)
    net.wait_for_nodes(net.hosts)
    cluster = Cluster(net, observer)
    eventually(lambda: all(node["votes"] for node in cluster.nodes().values()), "three voters")
    return cluster


def test_two_nodes_and_a_witness_survive_the_death_of_the_leader_and_the_witness_runs_nothing() -> None:
    with reserved_instance() as instance, Testnet.up(hosts=3, instance=instance, daemons=False) as net, Observer(net) as observer:
        cluster = found(net, observer)
        row = cluster.nodes()[f"h{WITNESS}"]
        assert (row["role"], row["engine"], row["status"]) == ("witness", "none", "alive")
        assert cluster.json(WITNESS, "status")["problems"] == []
        eventually(lambda: cluster.leader() != WITNESS, "a full node to lead")
        for name in ("a", "b", "c"):
            cluster.submit(name, node=WITNESS)
        eventually(lambda: {run[0] for run in cluster.runs()} == {1, 2}, "both full nodes to run something")
        assert len(cluster.runs()) == 3, "and the witness nothing"
        victim = cluster.leader()
        (survivor,) = cluster.others(victim, WITNESS)
        cluster.kill(victim)
        cluster.ok(survivor, "task", "submit", "--name", "after", "--detach", *WORK)
        cluster.wait_runs("after", on=[survivor])
        eventually(lambda: cluster.leader(seen_by=survivor) == survivor, "the full node that is left to lead", timeout_s=30.0)
        assert cluster.json(survivor, "status")["more_may_fail"] == 0
