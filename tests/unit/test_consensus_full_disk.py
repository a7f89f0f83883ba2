"""Full disks (S9): what makes the log longer is refused, votes are not, others go on, and nothing acknowledged is lost."""

from __future__ import annotations

import pytest

from swarm.consensus.messages import HeartbeatReply, decode_message_untrusted, encode_message
from swarm.errors import DiskFull, Unavailable
from swarm.wire.codec import encode
from tests.fakes.consensus_cluster import Cluster


def run(cluster: Cluster, seconds: float, full: str) -> None:
    """Let time pass; every node's driver looks at its disk four times a second."""
    for _ in range(round(seconds * 4)):
        for name, node in cluster.nodes.items():
            now = cluster.local(name)
            node.on_disk(now, now, full=name in full)
        cluster.run(0.25)


def founded(names: str, others: str = "") -> Cluster:
    cluster = Cluster(names, others)
    run(cluster, 4.0, "")
    return cluster


def test_a_leader_with_a_full_disk_hands_over_and_the_others_go_on() -> None:
    cluster = founded("abc")
    first = cluster.leader()
    cluster.propose("before")
    run(cluster, 1.0, "")
    run(cluster, 1.0, first)
    second = cluster.leader()
    assert second != first
    assert any("TimeoutNow" in line for line in cluster.trace), "it handed over; nobody waited for a timeout"
    cluster.propose("after")
    run(cluster, 1.0, first)
    assert all(cluster.texts(name) == ["before", "after"] for name in "abc" if name != first)


def test_a_follower_with_a_full_disk_acknowledges_nothing_new_and_catches_up_when_there_is_room() -> None:
    cluster = founded("abc")
    full = next(name for name in "abc" if name != cluster.leader())
    run(cluster, 1.0, full)
    held = cluster.nodes[full].last_index
    for number in range(5):
        cluster.propose(f"entry {number}")
        run(cluster, 0.5, full)
    assert cluster.nodes[full].last_index == held
    assert cluster.nodes[cluster.leader()].followers()[full].match_index == held  # type: ignore[index]
    sent = sum("Append after" in line and f"-> {full}" in line for line in cluster.trace)
    run(cluster, 5.0, full)
    assert sent == sum("Append after" in line and f"-> {full}" in line for line in cluster.trace), "none is sent in vain"
    run(cluster, 1.0, "")
    assert cluster.texts(full) == [f"entry {number}" for number in range(5)]


def test_where_nothing_can_be_committed_without_a_full_disk_its_reserve_holds_what_was_proposed_and_no_more_is() -> None:
    cluster = founded("abc")
    leader = cluster.leader()
    full, gone = (name for name in "abc" if name != leader)
    cluster.isolate(gone)
    cluster.propose("one")
    run(cluster, 3.0, full)
    assert cluster.texts(leader) == ["one"]
    with pytest.raises(DiskFull, match="no majority of the voters has room on its disk"):
        cluster.propose("two")
    run(cluster, 1.0, "")
    cluster.propose("three")
    run(cluster, 1.0, "")
    assert cluster.texts(full) == ["one", "three"]


def test_the_only_voter_refuses_while_its_disk_is_full_and_goes_on_leading() -> None:
    cluster = founded("a")
    run(cluster, 1.0, "a")
    with pytest.raises(DiskFull, match="the disk of the leader, a, is full"):
        cluster.propose("no")
    run(cluster, 10.0, "a")
    assert cluster.nodes["a"].may_act(cluster.local("a"))
    run(cluster, 1.0, "")
    cluster.propose("yes")
    run(cluster, 1.0, "")
    assert cluster.texts("a") == ["yes"]


def test_a_leader_refuses_what_a_majority_could_not_keep_and_names_them() -> None:
    cluster = founded("abc")
    leader = cluster.leader()
    full = "".join(name for name in "abc" if name != leader)
    run(cluster, 1.0, full)
    assert cluster.leader() == leader
    with pytest.raises(DiskFull) as refused:
        cluster.propose("no")
    assert refused.value.cause == f"the disk is full on {full[0]}, {full[1]}"
    run(cluster, 0.5, full[0])
    cluster.propose("yes")


def test_while_it_hands_over_a_leader_asks_to_try_again() -> None:
    cluster = founded("abc")
    leader = cluster.leader()
    now = cluster.local(leader)
    cluster.nodes[leader].on_disk(now, now, full=True)
    with pytest.raises(Unavailable) as refused:
        cluster.propose("no", leader)
    assert not isinstance(refused.value, DiskFull)


def test_a_voter_with_a_full_disk_votes_and_lets_others_lead() -> None:
    for seed in range(8):
        cluster = Cluster("abc", seed=str(seed))
        run(cluster, 4.0, "")
        leader = cluster.leader()
        full, other = (name for name in "abc" if name != leader)
        run(cluster, 1.0, full)
        cluster.crash(leader)
        run(cluster, 4.0, full)
        assert cluster.leader() == other


def test_where_every_disk_is_full_somebody_leads_all_the_same() -> None:
    """Reads are fresh and leases are held; only entries are refused."""
    cluster = founded("abc")
    run(cluster, 1.0, "abc")
    cluster.crash(cluster.leader())
    run(cluster, 8.0, "abc")
    with pytest.raises(DiskFull):
        cluster.propose("no")
    run(cluster, 2.0, "")
    cluster.propose("yes")


def test_below_three_voters_a_learner_with_a_full_disk_is_not_waited_for() -> None:
    cluster = founded("a", "b")
    run(cluster, 1.0, "b")
    cluster.propose("one")
    run(cluster, 1.0, "b")
    assert cluster.texts("a") == ["one"]
    run(cluster, 1.0, "")
    assert cluster.texts("b") == ["one"]


def test_a_heartbeat_reply_of_an_earlier_program_says_that_there_is_room() -> None:
    reply = HeartbeatReply(3, 0, 1, 7, 9, 3, 8, 20, True)
    assert decode_message_untrusted(encode_message(reply)) == reply
    earlier = encode([8, 3, 0, 1, 7, 9, 3, 8, 20])
    assert decode_message_untrusted(earlier) == HeartbeatReply(3, 0, 1, 7, 9, 3, 8, 20, False)
