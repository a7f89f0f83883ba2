"""Founding, joining, and starts that cannot be: each says what is wrong with what, and leaves the host as it was."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from testnet.cluster import Testnet
from testnet.engine import reserved_instance
from testnet.host import SWARM, tail
from testnet.processes import Process
from tests.integration.live_cluster import BUSYBOX, Kept, assert_clear_error, at_once, eventually

pytestmark = pytest.mark.testnet
ATTEMPT = count(1)


@pytest.fixture(scope="module")
def net() -> Iterator[Testnet]:
    """h1 and h2 have founded a cluster each, by chance with one token; h3 has no daemon."""
    with reserved_instance() as instance, Testnet.up(hosts=3, instance=instance, daemons=False, with_images=(BUSYBOX,)) as made:
        made.new_token()
        for number in (1, 2):
            made.start_daemon(number, ["--token-file", str(made.layout.token), "--found"])
        yield made


def start(net: Testnet, *arguments: str, number: int = 3, data: str = "") -> CompletedProcess[str]:
    """`swarm up` in the foreground on a host, in a data folder of its own unless one is given."""
    host = net.host(number)
    chosen = {"--data": data or f"{host.folder}/try-{next(ATTEMPT)}", "--engine": host.engine_url, "--advertise": host.address}
    if "--token-file" not in arguments:
        chosen["--token-file"] = str(net.layout.token)
    options = [part for name, value in chosen.items() if name not in arguments for part in (name, value)]
    return net.run(number, str(SWARM), "up", "--name", host.name, *options, *arguments, timeout_s=40)


def refused_start(net: Testnet, *arguments: str, number: int = 3, data: str = "") -> str:
    done = start(net, *arguments, number=number, data=data)
    assert_clear_error(done)
    assert done.returncode == 9 or done.returncode == 2, done
    assert "hint:" in done.stderr, done.stderr
    return done.stderr


def another_token(net: Testnet) -> Path:
    """A file with the token of a cluster that is not here."""
    path = net.layout.state / "other-token"
    path.write_text(subprocess.run([str(SWARM), "token", "new"], capture_output=True, text=True, check=True).stdout)
    return path


@contextmanager
def running(net: Testnet, number: int, *command: str) -> Iterator[Process]:
    """A program on a host while the block lasts."""
    host = net.host(number)
    process = host.spawn(net.init(number), list(command), host.folder / "program.log")
    try:
        yield process
    finally:
        process.kill()


def test_one_line_on_every_host_at_once_founds_one_cluster() -> None:
    kept = Kept(together=True)
    try:
        with kept.lent(3, mend=False) as cluster:
            clusters = {cluster.json(number, "status")["cluster_id"] for number in cluster.net.hosts}
            assert len(clusters) == 1
            assert {node["role"] for node in cluster.nodes().values()} == {"voter"}
            for number in cluster.net.hosts:
                cluster.submit(f"t{number}", node=number)
            before = cluster.runs()
            cluster.kill(cluster.leader())
            at_once(cluster.net.revive, *(number for number in cluster.net.hosts if not cluster.net.alive(number)))
            cluster.wait_all_alive()
            eventually(lambda: len(cluster.runs()) == len(before) == 3, "one copy of each task")
    finally:
        kept.close()


def test_a_first_host_founds_and_prints_the_line_by_which_others_join(net: Testnet) -> None:
    log = net.host(1).daemon_log.read_text()
    assert f"swarm up --peers {net.address(1)}" in log, tail(net.host(1).daemon_log)


def test_a_token_without_peers_or_data_founds_nothing_by_accident(net: Testnet) -> None:
    said = refused_start(net)
    assert "--peers" in said
    assert "--found" in said


def test_a_wrong_token_is_refused_and_named(net: Testnet) -> None:
    other = another_token(net)
    said = refused_start(net, "--peers", net.address(1), "--token-file", str(other))
    assert "token" in said
    assert net.address(1) in said
    assert not net.swarm(1, "node", "ls").stdout.count("h3")


def test_a_damaged_token_is_refused_without_asking_anybody(net: Testnet) -> None:
    damaged = net.host(3).folder / "damaged-token"
    text = net.layout.token.read_text().strip()
    damaged.write_text(text[:-1] + ("a" if text[-1] != "a" else "b"))
    said = refused_start(net, "--peers", net.address(1), "--token-file", str(damaged))
    assert "token" in said
    assert text[8:] not in said, "a token is never shown"
    missing = refused_start(net, "--peers", net.address(1), "--token-file", "/nowhere/token")
    assert "/nowhere/token" in missing


def test_a_node_of_another_cluster_is_refused_and_keeps_its_own(net: Testnet) -> None:
    before = net.swarm_json(2, "node", "ls")
    assert isinstance(before, list)
    net.stop_daemon(2)
    own = f"{net.host(2).folder}/swarm"
    said = refused_start(net, "--peers", net.address(1), "--token-file", str(another_token(net)), number=2, data=own)
    assert "cluster" in said
    assert "swarm reset" in said
    net.restart_daemon(2)
    eventually(lambda: [node["id"] for node in net.swarm_json(2, "node", "ls")] == [before[0]["id"]], "its own cluster again")
    assert len(net.swarm_json(1, "node", "ls")) == 1


def test_peers_of_two_clusters_are_refused_and_both_are_named(net: Testnet) -> None:
    said = refused_start(net, "--peers", f"{net.address(1)},{net.address(2)}")
    identities = [net.swarm_json(number, "status")["cluster_id"] for number in (1, 2)]
    assert all(identity[:8] in said for identity in identities), said
    assert net.address(1) in said
    assert net.address(2) in said


def test_a_peer_that_does_not_answer_is_named_while_the_node_waits(net: Testnet) -> None:
    silent = net.address(1).rpartition(".")[0] + ".99"
    host = net.host(3)
    arguments = ["--data", f"{host.folder}/waiting", "--engine", host.engine_url, "--token-file", str(net.layout.token)]
    log = host.folder / "program.log"
    log.unlink(missing_ok=True)
    with running(net, 3, str(SWARM), "up", *arguments, "--peers", silent, "--advertise", host.address) as waiting:
        eventually(lambda: silent in tail(log), "the peer to be named", timeout_s=30)
        assert waiting.alive() or "error:" in tail(log)
        assert "Traceback" not in tail(log)


@pytest.mark.parametrize(("kind", "port"), [("tcp", 4747), ("udp", 4747), ("tcp", 4748)])
def test_a_busy_port_is_named(net: Testnet, kind: str, port: int) -> None:
    family = {"tcp": "SOCK_STREAM", "udp": "SOCK_DGRAM"}[kind]
    hold = f"import socket, time; s = socket.socket(socket.AF_INET, socket.{family})\n"
    hold += f"s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('0.0.0.0', {port}))\n"
    hold += ("s.listen(1)\n" if kind == "tcp" else "") + "print('held', flush=True)\nwhile True: time.sleep(60)"
    log = net.host(3).folder / "program.log"
    log.unlink(missing_ok=True)
    with running(net, 3, "python3", "-c", hold):
        eventually(lambda: "held" in tail(log), "the port to be held")
        assert str(port) in refused_start(net, "--peers", net.address(1))


def test_a_data_folder_that_cannot_be_written_is_named(net: Testnet) -> None:
    blocked = net.host(3).folder / "a-file"
    blocked.write_text("mine")
    said = refused_start(net, "--peers", net.address(1), data=str(blocked))
    assert str(blocked) in said
    assert blocked.read_text() == "mine"
    assert "/proc/swarm" in refused_start(net, "--peers", net.address(1), data="/proc/swarm")


def test_a_data_folder_in_use_is_named(net: Testnet) -> None:
    said = refused_start(net, "--peers", net.address(1), number=1, data=f"{net.host(1).folder}/swarm")
    assert f"{net.host(1).folder}/swarm" in said
    assert "another swarm daemon" in said
    assert net.swarm(1, "status").returncode == 0


def test_a_missing_engine_is_named(net: Testnet) -> None:
    said = refused_start(net, "--peers", net.address(1), "--engine", "unix:///run/no-engine.sock")
    assert "/run/no-engine.sock" in said


def test_no_daemon_here_is_said_by_every_command(net: Testnet) -> None:
    for command in (("task", "ls"), ("node", "ls"), ("status",), ("task", "submit", BUSYBOX)):
        done = net.swarm(3, *command)
        assert_clear_error(done)
        assert "/run/swarm/swarm.sock" in done.stderr
        assert "swarm up" in done.stderr
