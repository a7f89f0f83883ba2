"""Five hosts: the leader and a node that does not vote die at once, and a removed node is refused when it returns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.live_cluster import WORK, Cluster, Kept, eventually

pytestmark = pytest.mark.testnet


@pytest.fixture
def five() -> Iterator[Cluster]:
    kept = Kept()
    try:
        with kept.lent(5, mend=False) as lent:
            yield lent
    finally:
        kept.close()


def test_leader_and_learner_die_at_once_the_work_goes_on_and_a_removed_node_stays_out(five: Cluster) -> None:
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        five.submit(name)
    leader = five.leader()
    roles = {int(name[1:]): node["role"] for name, node in five.nodes().items()}
    assert sorted(roles.values()) == ["learner", "learner", "voter", "voter", "voter"]
    learner = next(number for number, role in roles.items() if role == "learner")
    survivors = five.others(leader, learner)
    undisturbed = {run for run in five.runs() if run[0] in survivors}
    five.kill(leader, learner)
    five.submit("after", node=survivors[0])
    for name in (*names, "after"):
        five.wait_runs(name, on=survivors, timeout_s=20)
    assert undisturbed <= five.runs()

    reader = survivors[0]
    eventually(
        lambda: [node["role"] for name, node in five.nodes(reader).items() if int(name[1:]) in survivors].count("voter") == 3,
        "the last learner to take the lost voter's place",
        timeout_s=45,
    )
    five.ok(reader, "node", "rm", f"h{learner}")
    eventually(lambda: gone(five, reader, learner), "the removed node to be gone")
    before = five.runs()
    five.net.revive(leader)
    five.net.revive(learner, wait=False)
    five.net.wait_for_daemon(learner)
    eventually(lambda: "was removed from the cluster" in said_status(five, learner), "it to be told so", timeout_s=30)
    assert "swarm reset" in said_status(five, learner), "and what to do"
    five.net.wait_for_nodes([leader, *survivors], seen_by=reader)
    assert gone(five, reader, learner)
    five.watch_nothing_changes(before, seconds=2)

    if five.daemon_alive(learner):
        five.net.stop_daemon(learner)
    five.ok(learner, "reset", "--data", f"{five.net.host(learner).folder}/swarm", "--yes")
    five.net.layout.token.write_text(five.ok(reader, "token", "show"))  # the removal has rotated the secret
    five.net.start_daemon(learner, ["--token-file", str(five.net.layout.token), "--peers", five.net.address(reader)])
    five.net.wait_for_nodes([learner], seen_by=reader)
    five.ok(reader, "task", "submit", "--name", "new", "--constraint", f"node.name==h{learner}", *WORK)
    five.wait_runs("new", on=[learner])


def said_status(five: Cluster, number: int) -> str:
    return five.swarm(number, "status").stdout


def gone(five: Cluster, reader: int, number: int) -> bool:
    """Whether a host's node is no member any more."""
    node = five.nodes(reader).get(f"h{number}")
    return node is None or node["status"] == "left"
