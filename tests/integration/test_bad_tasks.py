"""Tasks that cannot be: each gives one clear error, or a pending reason, that names the thing; nothing is lost by it."""

from __future__ import annotations

import pytest

from testnet.host import SWARM
from tests.integration.live_cluster import BUSYBOX, WORK, Cluster, assert_clear_error, eventually

pytestmark = pytest.mark.testnet


def reason_names(cluster: Cluster, name: str, *words: str) -> bool:
    """Whether the reason that `task ls` and `task inspect` give holds all these words."""
    task = cluster.tasks()[name]
    return all(word.lower() in task["reason"].lower() for word in words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--constraint", "node.labels.disk=ssd"], ["node.labels.disk=ssd", "=="]),
        (["--constraint", "node.colour==red"], ["colour"]),
        (["--memory", "lots"], ["memory", "lots"]),
        (["--cpus", "-1"], ["cpus"]),
        (["-p", "99999:80"], ["99999"]),
        (["--restart", "sometimes"], ["restart", "sometimes"]),
        (["--mount", "type=bind,src=relative,dst=/x"], ["relative"]),
        (["--volume-elsewhere=perhaps"], ["volume-elsewhere"]),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_and_named(untouched: Cluster, options: list[str], words: list[str]) -> None:
    refused = untouched.refused(1, "task", "submit", "--name", "bad", *options, *WORK)
    assert refused.returncode == 2
    assert all(word in refused.stderr for word in words), refused.stderr
    assert not untouched.tasks()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image: [unclosed", ["line"]),
        (f"image: {BUSYBOX}\nimagee: x\n", ["imagee", "image"]),
        ("name: x\n", ["image"]),
        (f"image: {BUSYBOX}\nports: [22:22:22:22]\n", ["22:22"]),
        ("\x00\x01", []),
        ("", ["image"]),
    ],
)
def test_a_malformed_file_is_refused_and_the_place_is_named(untouched: Cluster, text: str, words: list[str]) -> None:
    done = untouched.net.run(2, str(SWARM), "task", "submit", "--file", "/dev/stdin", text=text)
    assert_clear_error(done)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert not untouched.tasks()


def test_a_missing_file_is_named(untouched: Cluster) -> None:
    refused = untouched.refused(1, "task", "submit", "--file", "/nowhere/task.yml")
    assert "/nowhere/task.yml" in refused.stderr


def test_an_unknown_image_is_said_and_the_cluster_goes_on(cluster: Cluster) -> None:
    refused = cluster.refused(1, "task", "submit", "--name", "unknown", "--restart", "no", "testnet/nothing:9")
    assert "testnet/nothing:9" in refused.stderr
    eventually(lambda: reason_names(cluster, "unknown", "testnet/nothing:9"), "the reason to name the image")
    cluster.submit("fine")
    assert not cluster.runs("unknown")


def test_sixty_four_cpus_fit_nowhere_and_every_node_says_why(cluster: Cluster) -> None:
    cluster.ok(1, "task", "submit", "--name", "huge", "--detach", "--cpus", "64", *WORK)
    eventually(lambda: reason_names(cluster, "huge", "cpu"), "the reason to name what is short")
    shown = cluster.ok(2, "task", "inspect", "huge")
    assert all(f"h{number}" in shown for number in cluster.net.hosts), shown
    cluster.submit("fine")
    assert not cluster.runs("huge")


def test_a_port_that_is_reserved_everywhere_makes_the_next_task_wait(cluster: Cluster) -> None:
    for number in cluster.net.hosts:
        cluster.submit(f"web-{number}", "-p", "7007:80")
    assert {run[0] for run in cluster.runs()} == {1, 2, 3}
    cluster.ok(1, "task", "submit", "--name", "fourth", "--detach", "-p", "7007:80", *WORK)
    eventually(lambda: reason_names(cluster, "fourth", "7007"), "the reason to name the port")


def test_a_port_taken_by_a_stranger_is_named(cluster: Cluster) -> None:
    client = cluster.net.docker(2)
    try:
        stranger = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, ports={"80/tcp": 7008})
        try:
            cluster.ok(
                1, "task", "submit", "--name", "taken", "--detach", "-p", "7008:80", "--constraint", "node.name==h2", *WORK
            )
            eventually(lambda: reason_names(cluster, "taken", "7008"), "the reason to name the port")
            assert not cluster.runs("taken")
            stranger.reload()
            assert stranger.status == "running", "a container that is not ours is never touched"
        finally:
            stranger.remove(force=True)
        cluster.wait_runs("taken", on=[2], timeout_s=45)
    finally:
        client.close()


def test_a_missing_bind_source_is_named_and_not_created(cluster: Cluster) -> None:
    path = f"{cluster.net.host(3).folder}/absent"
    here = ["--mount", f"type=bind,src={path},dst=/data", "--constraint", "node.name==h3"]
    cluster.ok(1, "task", "submit", "--name", "bound", "--detach", *here, *WORK)
    eventually(lambda: reason_names(cluster, "bound", path), "the reason to name the path")
    assert cluster.net.run(3, "test", "-e", path).returncode == 1


def test_a_command_that_is_not_in_the_image_is_named(cluster: Cluster) -> None:
    refused = cluster.refused(2, "task", "submit", "--name", "typo", "--restart", "no", BUSYBOX, "no-such-program")
    assert "no-such-program" in refused.stderr


def test_unknown_tasks_nodes_and_commands_are_named(untouched: Cluster) -> None:
    for command in (("task", "inspect"), ("task", "stop"), ("task", "rm"), ("task", "logs"), ("node", "inspect"), ("node", "rm")):
        refused = untouched.refused(1, *command, "nobody")
        assert refused.returncode == 3
        assert "nobody" in refused.stderr
    assert "frobnicate" in untouched.refused(1, "frobnicate").stderr
