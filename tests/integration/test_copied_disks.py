"""One identity on two hosts: a data folder that was copied. The younger daemon ends and says why; the cluster goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.drivers.presence import TIE_S
from testnet.cluster import Testnet
from testnet.engine import reserved_instance
from testnet.host import SWARM, tail
from testnet.observer import boottime_s
from testnet.processes import Process
from tests.integration.live_cluster import eventually

pytestmark = pytest.mark.testnet
COPY = 4
"""The host without a daemon of its own."""


@pytest.fixture(scope="module")
def net() -> Iterator[Testnet]:
    """Three nodes that vote, and a fourth host for the copy of h3's disk."""
    with reserved_instance() as instance, Testnet.up(hosts=4, instance=instance, daemons=False) as made:
        made.new_token()
        peers = ",".join(made.address(number) for number in (1, 2, 3))
        for number in (1, 2, 3):
            made.start_daemon(number, ["--token-file", str(made.layout.token), "--peers", peers], wait=False)
        for number in (1, 2, 3):
            made.wait_for_daemon(number)
        made.wait_for_nodes([1, 2, 3])
        yield made


def copied(net: Testnet, name: str) -> Path:
    """A copy of h3's data folder on the fourth host, as it is at this moment."""
    there = net.host(COPY).folder / name
    shutil.copytree(net.host(3).folder / "swarm", there)
    return there


def start_copy(net: Testnet, data: Path) -> Process:
    """The daemon of the copy, at an address of its own."""
    host = net.host(COPY)
    (host.folder / "program.log").unlink(missing_ok=True)
    arguments = ["--name", "h3", "--data", str(data), "--engine", host.engine_url, "--advertise", host.address]
    return host.spawn(net.init(COPY), [str(SWARM), "up", *arguments], host.folder / "program.log")


def said(net: Testnet) -> str:
    return tail(net.host(COPY).folder / "program.log", characters=20_000)


def test_a_copy_started_beside_its_living_original_refuses_and_names_where_that_runs(net: Testnet) -> None:
    before = net.swarm_json(1, "node", "ls")
    process = start_copy(net, copied(net, "beside"))
    eventually(lambda: not process.alive(), "the copy to end")
    assert "a daemon with the same identity runs at" in said(net), said(net)
    assert net.address(3) in said(net)
    assert "swarm reset" in said(net)
    after = net.swarm_json(1, "node", "ls")
    assert isinstance(before, list) and isinstance(after, list)
    assert [(node["id"], node["address"]) for node in after] == [(node["id"], node["address"]) for node in before]
    assert {node["status"] for node in after} == {"alive"}


def test_an_original_started_beside_its_older_copy_refuses_and_is_not_heard_over_it(net: Testnet) -> None:
    data = copied(net, "instead")
    net.crash_daemon(3)
    process, started_s = start_copy(net, data), boottime_s()
    try:
        eventually(lambda: address_of_h3(net) == net.address(COPY), "the copy to be the node")
        eventually(lambda: boottime_s() > started_s + 2 * TIE_S + 1, "the copy to be clearly older than what starts now")
        net.restart_daemon(3, wait=False)
        eventually(lambda: "same identity" in net.host(3).daemon_log.read_text(), "the original to be refused")
        eventually(lambda: "running" not in daemon_of(net, 3), "the original to end")
        assert net.address(COPY) in net.host(3).daemon_log.read_text()
        assert process.alive(), said(net)
        assert address_of_h3(net) == net.address(COPY)
    finally:
        process.kill()
    net.restart_daemon(3)
    eventually(lambda: address_of_h3(net) == net.address(3), "the original to be the node again", timeout_s=30)


def address_of_h3(net: Testnet) -> str:
    nodes = net.swarm_json(1, "node", "ls")
    assert isinstance(nodes, list)
    [found] = [node for node in nodes if node["name"] == "h3" and node["status"] == "alive"] or [{"address": ""}]
    return str(found["address"]).rpartition(":")[0]


def daemon_of(net: Testnet, number: int) -> str:
    found = net.process(number, "daemon")
    return "running" if found is not None and found.alive() else "ended"
