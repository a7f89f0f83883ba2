"""Five hosts die one by one, each once `swarm status` says that it may, down to the last: it takes commands."""

from __future__ import annotations

from typing import Any

import pytest

from testnet.cluster import Testnet
from testnet.engine import reserved_instance
from testnet.observer import Observer
from tests.integration.live_cluster import Cluster, eventually

pytestmark = pytest.mark.testnet
HOSTS = 5
GIVE_UP = ("--voter-give-up", "20")


def found(net: Testnet) -> Cluster:
    """One cluster of all hosts, founded together, that gives dead voters up after 20 s."""
    net.new_token()
    for number in net.hosts:
        net.start_daemon(number, [*net.daemon_arguments(number, together=True), *GIVE_UP], wait=False)
    for number in net.hosts:
        net.wait_for_daemon(number)
    net.wait_for_nodes(net.hosts)
    cluster = Cluster(net, Observer(net))
    cluster.wait_voters(3)
    return cluster


def test_all_but_one_host_die_one_by_one_each_once_status_says_so_and_the_last_takes_commands() -> None:
    with reserved_instance() as instance, Testnet.up(hosts=HOSTS, instance=instance, daemons=False) as net:
        cluster = found(net)
        alive = list(net.hosts)
        while len(alive) > 1:
            victim = next_to_die(cluster, alive)
            cluster.kill(victim)
            alive.remove(victim)
        last = alive[0]
        cluster.wait_writable(last)
        cluster.ok(last, "task", "submit", "--name", "last", "--detach", "testnet/busybox:1", "echo", "done")
        eventually(lambda: cluster.tasks(last)["last"]["phase"] in ("running", "succeeded", "restarting"), "the task to run")
        status = cluster.json(last, "status")
        assert (status["voters"], status["more_may_fail"]) == ([f"h{last}"], 0)
        assert "only voter" in status["tolerance"]


def next_to_die(cluster: Cluster, alive: list[int]) -> int:
    """A host that status says may fail, a voter where one may. Asked once the last death is known: nobody can know it before."""
    chosen: list[int] = []
    gone = [f"h{number}" for number in cluster.net.hosts if number not in alive]

    def said() -> bool:
        nodes = cluster.nodes(alive[0])
        if any(nodes[name]["status"] != "dead" for name in gone):
            return False
        status: dict[str, Any] = cluster.json(alive[0], "status")
        may = [name for name in status["may_fail"] if int(name[1:]) in alive]
        if not (status["quorum"] and status["fresh"] and status["more_may_fail"] and may):
            return False
        chosen[:] = [int(name[1:]) for name in sorted(may, key=lambda name: name not in status["voters"])]
        return True

    try:
        eventually(said, f"status to say that one of {alive} may fail", timeout_s=90.0, interval_s=0.5)
    except AssertionError as problem:
        raise AssertionError(f"{problem}\n{cluster.diagnosis()}") from None
    return chosen[0]
