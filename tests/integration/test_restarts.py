"""Daemons and engines restart under running containers: nothing restarts, nothing moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testnet.cluster import Testnet
from tests.integration.live_cluster import WORK, Cluster, at_once, eventually

pytestmark = pytest.mark.testnet


def crash(net: Testnet, number: int) -> None:
    net.crash_daemon(number)


def terminate(net: Testnet, number: int) -> None:
    net.stop_daemon(number)


@pytest.mark.parametrize("stop", [crash, terminate])
def test_a_restart_of_any_daemon_restarts_and_moves_no_container(cluster: Cluster, stop: Callable[[Testnet, int], None]) -> None:
    cluster.three_workers()
    before = cluster.runs()
    attempts = {name: task["attempt"] for name, task in cluster.tasks().items()}
    for number in (*cluster.others(cluster.leader()), cluster.leader()):
        stop(cluster.net, number)
        cluster.watch_nothing_changes(before, seconds=1)
        cluster.net.restart_daemon(number)
        cluster.wait_all_alive()
    cluster.watch_nothing_changes(before, seconds=2)
    tasks = cluster.tasks()
    assert {name: task["attempt"] for name, task in tasks.items()} == attempts
    assert {task["phase"] for task in tasks.values()} == {"running"}


def test_a_crash_of_all_daemons_at_once_is_noticed_by_no_container(cluster: Cluster) -> None:
    placed = cluster.three_workers()
    before = cluster.runs()
    at_once(cluster.net.crash_daemon, *cluster.net.hosts)
    cluster.watch_nothing_changes(before, seconds=1)
    at_once(cluster.net.restart_daemon, *cluster.net.hosts)
    cluster.wait_all_alive()
    cluster.watch_nothing_changes(before, seconds=2)
    cluster.submit("next")
    assert before < cluster.runs()
    assert cluster.tasks().keys() == {"next", *placed.values()}


def test_a_container_that_ends_while_its_daemon_is_away_is_restarted_by_the_next_one(cluster: Cluster) -> None:
    cluster.submit("a")
    home = cluster.host_of("a")
    cluster.net.crash_daemon(home)
    cluster.end_container("a")
    eventually(lambda: not cluster.runs("a"), "the end to be seen")
    cluster.net.restart_daemon(home)
    cluster.wait_runs("a", on=[home])
    assert cluster.observer.copies_max("a") == 1


def test_a_crash_of_an_engine_stops_no_container_and_new_work_waits_until_it_is_back(cluster: Cluster) -> None:
    cluster.three_workers()
    before = cluster.runs()
    number = 2
    cluster.net.crash_engine(number)
    eventually(lambda: cluster.nodes()["h2"]["engine"] != "up", "the node to say that its engine is down")
    cluster.ok(1, "task", "submit", "--name", "next", "--detach", "--constraint", "node.name==h2", *WORK)
    cluster.submit("elsewhere")
    assert cluster.host_of("elsewhere") != number
    assert not cluster.runs("next")
    assert before <= cluster.runs()
    cluster.net.restart_engine(number)
    cluster.wait_runs("next", on=[number], timeout_s=30)
    assert before < cluster.runs()
