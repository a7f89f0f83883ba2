"""A node's disk fills up under submits: its daemon and the cluster go on, and it catches up when there is room (S9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.live_cluster import WORK, Cluster, eventually

pytestmark = pytest.mark.testnet
DISK = "200m"
"""Room for the ballast of 64 MiB, twice over, and for the log."""


@contextmanager
def on_a_small_disk(cluster: Cluster, number: int) -> Iterator[str]:
    """Have a daemon's data folder on a filesystem of its own for a while. Gives the folder."""
    folder = f"{cluster.net.host(number).folder}/swarm"
    move_in = f"mkdir /run/aside && cp -a {folder}/. /run/aside && mount -t tmpfs -o size={DISK} tmpfs {folder}"
    move_out = f"rm -rf /run/aside && cp -a {folder} /run/aside && umount -l {folder} && rm -rf {folder}/*"
    back = f"cp -a /run/aside/. {folder} && rm -rf /run/aside"
    cluster.net.stop_daemon(number)
    shell(cluster, number, f"rm -f {folder}/ballast && {move_in} && {back}")
    cluster.net.restart_daemon(number)
    cluster.wait_all_alive()
    yield folder
    cluster.net.stop_daemon(number)
    shell(cluster, number, f"{move_out} && {back}")
    cluster.net.restart_daemon(number)


def shell(cluster: Cluster, number: int, script: str) -> None:
    done = cluster.net.run(number, "sh", "-c", script)
    assert done.returncode == 0, f"{script}: {done.stderr}"


def problems(cluster: Cluster, number: int) -> str:
    return "; ".join(cluster.json(number, "status")["problems"])


def applied(cluster: Cluster, number: int) -> int:
    return int(cluster.json(number, "status")["applied_index"])


def test_a_full_disk_costs_neither_its_daemon_nor_any_submit_and_the_node_catches_up(cluster: Cluster) -> None:
    full = cluster.others(cluster.leader())[0]
    with on_a_small_disk(cluster, full) as folder:
        other = cluster.others(full)[0]
        cluster.submit("before", node=full)
        shell(cluster, full, f"dd if=/dev/zero of={folder}/hog bs=1M 2>/dev/null; test -s {folder}/hog")
        eventually(lambda: f"the disk of node h{full} is full" in problems(cluster, other), "the others to say so")
        eventually(lambda: "this node: the disk of" in problems(cluster, full), "the node itself to say so")
        for name, node in (("one", other), ("two", full), ("three", other)):
            cluster.ok(node, "task", "submit", "--detach", "--name", name, *WORK)
        eventually(lambda: cluster.tasks(other).keys() >= {"before", "one", "two", "three"}, "every submit to be carried out")
        assert cluster.daemon_alive(full)
        assert applied(cluster, full) < applied(cluster, other), "it takes no entries"
        assert "is full" in cluster.ok(full, "events", "--since", "0"), "an event tells of it"
        shell(cluster, full, f"rm {folder}/hog")
        eventually(lambda: cluster.tasks(full).keys() >= {"before", "one", "two", "three"}, "it to catch up")
        eventually(lambda: "is full" not in problems(cluster, other) + problems(cluster, full), "nothing to be wrong any more")
        shell(cluster, full, f"test $(stat -c %b {folder}/ballast) -ge 131072")
