"""The cluster's secret is rotated under running work: nothing restarts, nobody is suspected, who was away comes back, who was
removed does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from testnet.host import SWARM, tail
from testnet.layout import REPOSITORY
from tests.integration.live_cluster import BUSYBOX, Cluster, eventually

pytestmark = pytest.mark.testnet
FORGE = """
import json, pathlib, random, socket, sys
sys.path.insert(0, sys.argv[1])
from swarm.adapters.identity import ClusterFile, NodeFile
import msgspec
from swarm.membership.messages import Claim, Ping, encode_message
from swarm.model.liveness import MemberStatus
from swarm.wire.envelope import Sealer
from swarm.wire.keys import Keyring, gossip_key
folder, address, victim = pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4]
cluster = msgspec.json.decode((folder / "cluster.json").read_bytes(), type=ClusterFile)
node = msgspec.json.decode((folder / "node.json").read_bytes(), type=NodeFile)
speaker = sys.argv[5] or node.node_id
named = {each.id: each for each in cluster.nodes}
sealer = Sealer(cluster.cluster_id, Keyring(gossip_key(cluster.secret, cluster.cluster_id)), speaker, 1 << 20)
dead = Claim(victim, 1 << 20, 0, MemberStatus.DEAD, named[victim].name, named[victim].address, accuser=speaker)
me = Claim(speaker, 1 << 20, 0, MemberStatus.ALIVE, "x", "10.0.0.1:4747")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
    for number in range(50):
        packet = sealer.seal(speaker, encode_message(Ping(me, number, victim, (dead,))))
        forger.sendto(packet, (address, 4747))
"""


def secret(cluster: Cluster, number: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = cluster.json(number, "secret", "status")
    return found


def suspicions(cluster: Cluster) -> dict[int, int]:
    """How often each daemon's log says that it suspects somebody, or worse."""
    found = {}
    for number in cluster.net.hosts:
        text = cluster.net.host(number).daemon_log.read_text()
        found[number] = sum(text.count(f" is {word}: ") for word in ("suspect", "dead"))
    return found


@contextmanager
def submits(cluster: Cluster) -> Iterator[list[str]]:
    """Jobs submitted one after the other from all hosts while the block runs; what failed is kept."""
    failed: list[str] = []
    over = threading.Event()

    def work() -> None:
        number = 0
        while not over.is_set() and number < 200:
            number += 1
            host = cluster.net.hosts[number % len(cluster.net.hosts)]
            job = ("--detach", "--restart", "no", "--name", f"job-{number}", BUSYBOX, "true")
            done = cluster.swarm(host, "task", "submit", *job)
            if done.returncode:
                failed.append(done.stderr)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield failed
    finally:
        over.set()
        thread.join(timeout=60)


def test_a_rotation_under_work_restarts_nothing_suspects_nobody_and_refuses_no_submit(cluster: Cluster) -> None:
    cluster.three_workers()
    before, suspected = cluster.runs(), suspicions(cluster)
    old = cluster.ok(1, "token", "show")
    api = cluster.ok(1, "token", "api").strip()
    with submits(cluster) as failed:
        for number in cluster.net.hosts:
            cluster.ok(number, "secret", "rotate")
    assert failed == []
    assert before <= cluster.runs()
    assert suspicions(cluster) == suspected
    numbers = {secret(cluster, number)["number"] for number in cluster.net.hosts}
    assert len(numbers) == 1
    tokens = {cluster.ok(number, "token", "show") for number in cluster.net.hosts}
    assert len(tokens) == 1 and old not in tokens
    address = cluster.net.address(2)
    stale = cluster.net.run(1, str(SWARM), "node", "ls", "--addr", address, SWARM_API_TOKEN=api)
    assert stale.returncode == 5 and "before a rotation" in stale.stderr, stale.stderr
    fresh = cluster.ok(1, "token", "api").strip()
    assert cluster.net.run(1, str(SWARM), "node", "ls", "--addr", address, SWARM_API_TOKEN=fresh).returncode == 0


def test_a_node_that_was_down_through_two_rotations_comes_back_by_itself_with_its_containers(cluster: Cluster) -> None:
    cluster.three_workers()
    before = cluster.runs()
    away = cluster.others(cluster.leader())[0]
    cluster.net.crash_daemon(away)
    for _ in range(2):
        cluster.ok(cluster.leader(seen_by=cluster.others(away)[0]), "secret", "rotate")
    assert secret(cluster, cluster.others(away)[0])["phase"] == "none"
    cluster.net.restart_daemon(away)
    cluster.wait_all_alive()
    eventually(lambda: secret(cluster, away) == secret(cluster, cluster.others(away)[0]), "the log to reach it")
    assert cluster.runs() == before
    assert "handed over the secret" in tail(cluster.net.host(away).daemon_log, 4000)


def test_all_daemons_restarted_after_a_rotation_find_each_other_though_started_with_the_old_token(cluster: Cluster) -> None:
    cluster.ok(1, "secret", "rotate")
    for number in cluster.net.hosts:
        cluster.net.crash_daemon(number)
    for number in cluster.net.hosts:
        cluster.net.restart_daemon(number, wait=False)
    cluster.wait_all_alive()


def test_a_removed_node_is_refused_everywhere_and_its_host_joins_anew_with_the_new_token_only(cluster: Cluster) -> None:
    old_token = cluster.ok(1, "token", "show").strip()
    ids = {node["name"]: node["id"] for node in cluster.nodes().values()}
    cluster.submit("a", "--constraint", "node.name==h1")
    before = cluster.runs()
    cluster.submit("b", "--constraint", "node.name==h3")
    host = cluster.net.host(3)
    cluster.net.crash_daemon(3)
    cluster.ok(1, "node", "rm", "--force", "h3")
    eventually(lambda: secret(cluster)["phase"] == "none", "the rotation to be through")
    assert secret(cluster)["reason"] == "node h3 was removed"
    suspected = suspicions(cluster)

    joining = [str(SWARM), "up", "--name", "h5", "--data", f"{host.folder}/fresh", "--engine", host.engine_url]
    joining += ["--advertise", host.address, "--peers", cluster.net.address(1)]
    done = cluster.net.run(3, "timeout", "3", *joining, SWARM_TOKEN=old_token, timeout_s=30)
    assert "another token or another cluster" in done.stdout + done.stderr, done
    assert "h5" not in cluster.nodes()

    for speaker in ("", ids["h2"]):
        places = (str(REPOSITORY), f"{host.folder}/swarm", cluster.net.address(1), ids["h2"] if not speaker else ids["h1"])
        forged = cluster.net.run(3, str(SWARM.parent / "python"), "-c", FORGE, *places, speaker)
        assert forged.returncode == 0, forged.stderr
    assert cluster.json(1, "status")["counters"]["dropped_unknown_key"] >= 100
    assert cluster.runs_on(3), "nobody has told it"
    cluster.net.restart_daemon(3)
    told = "this node was removed from the cluster, and runs nothing any more"
    eventually(lambda: told in cluster.swarm(3, "status").stdout, "the removed node to be told")
    eventually(lambda: not cluster.runs_on(3), "what it had to be stopped: it may run elsewhere")
    assert {name for name, node in cluster.nodes().items() if node["status"] == "alive"} == {"h1", "h2"}
    assert {number: suspicions(cluster)[number] for number in (1, 2)} == {number: suspected[number] for number in (1, 2)}
    assert before <= cluster.runs()

    cluster.net.stop_daemon(3)
    cluster.ok(3, "reset", "--data", f"{host.folder}/swarm", "--yes")
    cluster.net.layout.token.write_text(cluster.ok(1, "token", "show"))
    cluster.net.restart_daemon(3)
    cluster.wait_all_alive()
    cluster.wait_voters(3)
