"""Tasks through the command line: any node takes any command, and what it prints is what the engines run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from testnet.host import INSIDE_ENVIRONMENT, SWARM
from tests.integration.live_cluster import BUSYBOX, LABEL_CLUSTER, Cluster, eventually

pytestmark = pytest.mark.testnet
COUNT = (BUSYBOX, "sh", "-c", "trap 'exit 0' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.2 & wait $!; done")
TASK_FIELDS = {"id", "name", "image", "desired", "phase", "node", "attempt", "reason"}
NODE_FIELDS = {"id", "name", "address", "status", "role", "leader", "engine"}


def test_every_node_takes_submits_and_all_nodes_tell_the_same(cluster: Cluster) -> None:
    for number in cluster.net.hosts:
        cluster.submit(f"through-h{number}", node=number)
        assert len(cluster.runs(f"through-h{number}")) == 1, "submit returns when the task runs"
    assert {run[0] for run in cluster.runs()} == {1, 2, 3}, "spread is the default"
    seen = [cluster.tasks(number) for number in cluster.net.hosts]
    assert seen[0] == seen[1] == seen[2]
    for task in seen[0].values():
        assert task.keys() >= TASK_FIELDS
        assert (task["desired"], task["phase"], task["attempt"], task["image"]) == ("running", "running", 1, BUSYBOX)
        assert task["node"] == f"h{cluster.host_of(task['name'])}"


def test_node_ls_says_who_is_there_who_votes_and_who_leads(untouched: Cluster) -> None:
    for number in untouched.net.hosts:
        nodes = untouched.nodes(number)
        assert nodes.keys() == {"h1", "h2", "h3"}
        assert all(node.keys() >= NODE_FIELDS for node in nodes.values())
        assert {(node["status"], node["role"]) for node in nodes.values()} == {("alive", "voter")}
        assert [node["leader"] for node in nodes.values()].count(True) == 1
        assert untouched.net.address(2) in nodes["h2"]["address"]
        assert "h2" in untouched.ok(number, "node", "ls")
        assert untouched.json(number, "node", "inspect", "h2")["id"] == nodes["h2"]["id"]
        assert "h1" in untouched.ok(number, "status")


def test_a_task_is_inspected_stopped_and_removed_by_name_or_prefix_through_any_node(cluster: Cluster) -> None:
    cluster.submit("one", node=1)
    identity = cluster.tasks()["one"]["id"]
    shown = cluster.json(2, "task", "inspect", "one")
    assert shown["id"] == identity
    assert cluster.json(3, "task", "inspect", identity[:8])["name"] == "one"
    running = cluster.refused(2, "task", "rm", "one")
    assert running.returncode == 4
    assert "one" in running.stderr
    cluster.ok(3, "task", "stop", "one")
    eventually(lambda: not cluster.runs("one"), "the container to end")
    eventually(lambda: cluster.json(1, "task", "inspect", "one")["phase"] == "stopped", "the end to be reported")
    cluster.ok(2, "task", "rm", "one")
    for number in cluster.net.hosts:
        gone = cluster.refused(number, "task", "inspect", "one")
        assert gone.returncode == 3
        assert "one" in gone.stderr
    eventually(lambda: not containers(cluster), "no container to be left on any engine")


def test_a_name_in_use_is_refused_and_the_first_task_is_shown(cluster: Cluster) -> None:
    cluster.submit("twin", node=1)
    identity = cluster.tasks()["twin"]["id"]
    refused = cluster.refused(2, "task", "submit", "--name", "twin", "--detach", *COUNT)
    assert refused.returncode == 4
    assert identity[:8] in refused.stderr
    assert len(cluster.runs()) == 1


def test_logs_come_from_the_node_that_has_them_and_are_followed(cluster: Cluster) -> None:
    cluster.submit("talk", work=COUNT)
    home = cluster.host_of("talk")
    reader = cluster.others(home)[0]
    eventually(lambda: "line 3" in cluster.ok(reader, "task", "logs", "talk"), "what it wrote")
    assert cluster.ok(reader, "task", "logs", "talk").startswith("line 1\n")
    with following(cluster, reader, "task", "logs", "-f", "talk") as lines:
        first = next(lines)
        number = int(first.split()[1])
        assert next(lines) == f"line {number + 1}\n"
        wanted = f"line {number + 12}\n"
        assert any(line == wanted for line in lines), "lines come as they are written, none is lost"


def test_events_are_followed_while_things_happen(cluster: Cluster) -> None:
    with following(cluster, 2, "events", "-f", "--since", "0") as lines:
        cluster.submit("noted", node=3)
        assert any("noted" in line for line in lines)


def test_a_job_ends_with_its_exit_code_and_is_not_run_again(cluster: Cluster) -> None:
    cluster.ok(1, "task", "submit", "--name", "good", "--restart", "no", BUSYBOX, "true")
    cluster.swarm(2, "task", "submit", "--name", "bad", "--restart", "no", BUSYBOX, "sh", "-c", "exit 3")
    eventually(lambda: cluster.json(1, "task", "inspect", "good")["phase"] == "succeeded", "success")
    eventually(lambda: cluster.json(1, "task", "inspect", "bad")["phase"] == "failed", "failure")
    assert "3" in cluster.json(1, "task", "inspect", "bad")["reason"]
    assert len(cluster.observer.intervals("good")) == len(cluster.observer.intervals("bad")) == 1


def test_a_service_that_ends_is_restarted_with_back_off(cluster: Cluster) -> None:
    cluster.ok(1, "task", "submit", "--name", "again", "--detach", BUSYBOX, "sh", "-c", "exit 1")
    eventually(lambda: len(cluster.observer.intervals("again")) >= 4, "restarts")
    assert cluster.tasks()["again"]["attempt"] == 1, "local restarts belong to the same attempt"
    runs = cluster.observer.intervals("again")[:4]
    pauses = [later.start_s - (earlier.end_s or 0) for earlier, later in pairwise(runs)]
    assert pauses[0] < pauses[1] < pauses[2]
    assert cluster.observer.copies_max("again") == 1


def test_limits_and_settings_reach_the_container(cluster: Cluster) -> None:
    options = ["--cpus", "0.5", "--memory", "64M", "--env", "COLOUR=blue", "--workdir", "/tmp", "--label", "team=web"]
    cluster.submit("set", *options, "--user", "1000", "--stop-signal", "SIGTERM", "--stop-grace", "3s", "-p", "18080:80")
    home = cluster.host_of("set")
    (container,) = [each for each in containers(cluster) if each["Config"]["Labels"]["swarm.name"] == "set"]  # type: ignore[index]
    environment = dict(setting.split("=", 1) for setting in container["Config"]["Env"])
    assert environment["COLOUR"] == "blue"
    assert (environment["SWARM_TASK"], environment["SWARM_NODE"], environment["SWARM_ATTEMPT"]) == ("set", f"h{home}", "1")
    assert environment["SWARM_NODE_ADDRESS"].startswith(cluster.net.address(home))
    host = container["HostConfig"]
    assert (host["Memory"], host["NanoCpus"] or host["CpuQuota"] * 10**9 // 100_000) == (64 << 20, 500_000_000)
    assert (container["Config"]["User"], container["Config"]["WorkingDir"]) == ("1000", "/tmp")
    assert host["RestartPolicy"]["Name"] in ("no", ""), "restarts are the daemon's, never the engine's"
    assert host["PortBindings"]["80/tcp"][0]["HostPort"] == "18080"


def test_a_published_redis_answers_on_its_host(cluster: Cluster) -> None:
    cluster.ok(3, "task", "submit", "--name", "cache", "-p", "6379:6379", "testnet/redis:1")
    address = cluster.net.address(cluster.host_of("cache"))

    def answers() -> bool:
        try:
            with socket.create_connection((address, 6379), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False

    eventually(answers, "redis to answer")


def test_a_task_file_says_the_same_as_options(cluster: Cluster) -> None:
    text = f'name: filed\nimage: {BUSYBOX}\ncommand: ["sleep", "600"]\ncpus: 0.25\nstop_signal: SIGKILL\nrestart: always\n'
    done = cluster.net.run(2, str(SWARM), "task", "submit", "--file", "/dev/stdin", text=text)
    assert done.returncode == 0, done.stderr
    assert cluster.host_of("filed") in cluster.net.hosts


def test_the_local_socket_and_an_api_token_from_afar_give_the_same(cluster: Cluster) -> None:
    cluster.submit("seen")
    token = cluster.json(1, "token", "api")["token"]
    remote = cluster.net.run(1, str(SWARM), "task", "ls", "-o", "json", SWARM_ADDR=cluster.net.address(3), SWARM_API_TOKEN=token)
    assert remote.returncode == 0, remote.stderr
    assert json.loads(remote.stdout) == cluster.json(1, "task", "ls")
    other = token[:30] + ("a" if token[30] != "a" else "b") + token[31:]
    wrong = cluster.net.run(1, str(SWARM), "task", "ls", "--addr", cluster.net.address(3), SWARM_API_TOKEN=other)
    assert wrong.returncode in (2, 5)
    assert "token" in wrong.stderr


def containers(cluster: Cluster) -> list[dict[str, object]]:
    """Every container of ours on any engine, running or not, as the engines describe them."""
    found = []
    for number in cluster.net.hosts:
        client = cluster.net.docker(number)
        try:
            ours = {"label": f"{LABEL_CLUSTER}={cluster.identity}"}
            found += [each.attrs for each in client.containers.list(all=True, ignore_removed=True, filters=ours)]
        finally:
            client.close()
    return found


@contextmanager
def following(cluster: Cluster, number: int, *arguments: str) -> Iterator[Iterator[str]]:
    """The lines of a command that goes on until it is ended."""
    host = cluster.net.host(number)
    command = [*host.enter(cluster.net.init(number)), str(SWARM), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=INSIDE_ENVIRONMENT, cwd="/", start_new_session=True
    ) as child:
        assert child.stdout is not None
        try:
            yield iter(child.stdout.readline, "")
        finally:
            os.killpg(child.pid, signal.SIGKILL)
