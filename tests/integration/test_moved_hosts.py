"""All hosts come back at other addresses at once, as after a power cut with a DHCP server that forgot (L9)."""

from __future__ import annotations

import pytest

from testnet import network, state
from tests.integration.live_cluster import Cluster, at_once, eventually

pytestmark = pytest.mark.testnet


def move(cluster: Cluster, addresses: dict[int, str], peers: list[str]) -> None:
    """Other addresses for hosts whose daemons do not run, and for the next start of these."""
    net = cluster.net
    arguments = ["--token-file", str(net.layout.token), "--peers", ",".join(peers), "--advertise"]
    with state.editing(net.layout) as record:
        for number, address in addresses.items():
            network.set_address(net.layout, number, address)
            record.hosts[number].daemon_arguments = [*arguments, address]


def assert_found(cluster: Cluster, addresses: dict[int, str]) -> None:
    """Everybody is alive in everybody's eyes, there is a leader, and the log has the new addresses."""
    cluster.wait_all_alive(timeout_s=60.0)
    wanted = {f"h{number}": f"{address}:4747" for number, address in addresses.items()}
    for number in addresses:

        def told(number: int = number) -> bool:
            return {name: node["address"] for name, node in cluster.nodes(number).items()} == wanted

        eventually(told, f"the new addresses in the eyes of h{number}", timeout_s=20.0)


def test_hosts_that_all_come_back_at_other_addresses_find_each_other_by_the_peers_given(cluster: Cluster) -> None:
    net = cluster.net
    cluster.submit("before")
    home = {number: net.address(number) for number in net.hosts}

    # After a power cut each is where another one was, which is worse than where nobody was: somebody answers there.
    exchanged = dict(zip(net.hosts, [*list(home.values())[1:], home[1]], strict=True))
    cluster.kill(*net.hosts)
    move(cluster, exchanged, list(exchanged.values()))
    cluster.revive(*net.hosts)
    assert_found(cluster, exchanged)
    cluster.wait_runs("before")
    cluster.submit("between", node=2)

    # Back home, with one address given to all, and containers that run on.
    running = cluster.runs()
    at_once(net.crash_daemon, *net.hosts)
    move(cluster, home, [home[1]])
    at_once(net.restart_daemon, *net.hosts)
    assert_found(cluster, home)
    assert cluster.runs() == running, "no container was stopped or started"
    cluster.submit("after", node=3)
