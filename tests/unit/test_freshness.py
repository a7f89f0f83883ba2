"""The age of what a node shows is that of what it has applied, and not of the last word of a leader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.api.freshness import why_stale
from swarm.consensus.freshness import WAITING_MAX, Freshness
from swarm.consensus.messages import Heartbeat, decode_message_untrusted, encode_message
from swarm.model.ids import NodeId
from swarm.wire.codec import encode
from tests.fakes.consensus_cluster import Cluster
from tests.fakes.node_face import MemoryFace
from tests.unit.test_consensus_full_disk import founded, run


def age_s(cluster: Cluster, name: str) -> float:
    return cluster.local(name) - cluster.nodes[name].freshness.at


def test_a_follower_with_a_full_disk_grows_old_though_it_hears_its_leader_and_is_fresh_again_when_it_has_caught_up() -> None:
    cluster = founded("abc")
    leader = cluster.leader()
    full = next(name for name in "abc" if name != leader)
    run(cluster, 2.0, full)
    assert age_s(cluster, full) < 0.5, "nothing is lacking yet"
    for number in range(30):
        cluster.propose(f"entry {number}")
        run(cluster, 1.0, full)
    node = cluster.nodes[full]
    assert cluster.local(full) - node.leader_contact < 0.5
    assert 29 < age_s(cluster, full) < 31
    assert (node.freshness.told_commit, node.commit_index) == (cluster.nodes[leader].commit_index, node.commit_index)
    assert node.freshness.told_commit == node.commit_index + 30
    run(cluster, 1.5, "")
    assert age_s(cluster, full) < 0.5


def test_a_leader_that_no_majority_answers_grows_old() -> None:
    cluster = founded("abc")
    leader = cluster.leader()
    assert age_s(cluster, leader) < 0.5
    cluster.isolate(leader)
    for _ in range(4):
        before = age_s(cluster, leader)
        cluster.run(0.3)
        assert age_s(cluster, leader) == pytest.approx(before + 0.3, abs=0.11)


def test_a_learner_is_as_old_as_its_last_heartbeat_at_most() -> None:
    cluster = founded("abc", "d")
    for number in range(20):
        cluster.propose(f"entry {number}")
        run(cluster, 0.5, "")
        assert age_s(cluster, "d") < 1.5


def test_what_is_read_after_a_standstill_does_not_make_old_data_look_new() -> None:
    cluster = founded("abc")
    leader = cluster.leader()
    frozen = next(name for name in "abc" if name != leader)
    node, commit = cluster.nodes[frozen], cluster.nodes[frozen].commit_index
    waited = Heartbeat(node.term, 0, 1, 0, commit, node.term_at(commit) or 0)
    begun, now = cluster.now, cluster.now + 5.0
    node.on_stall(5.0, now)
    for step in range(3):
        node.on_message(NodeId(leader), waited, now + step * 0.1)
    assert node.freshness.at <= begun, "the leader may have said that five seconds ago"
    node.on_stall(0.3, now + 0.6)
    node.on_message(NodeId(leader), waited, now + 1.1)
    assert node.freshness.at <= begun, "a second standstill right after it changes nothing about the first"
    node.on_message(NodeId(leader), waited, now + 1.7)
    assert node.freshness.at == now + 1.7


@given(st.lists(st.one_of(st.tuples(st.just("told"), st.integers(0, 99)), st.tuples(st.just("applied"), st.integers(0, 99)))))
def test_it_is_never_younger_than_it_was_when_everything_known_to_be_committed_was_applied(steps: list[tuple[str, int]]) -> None:
    """Against the rule itself, over every moment at which a leader spoke."""
    freshness, told, applied = Freshness(), list[tuple[int, float]](), 0
    for at, (what, index) in enumerate(steps):
        if what == "told":
            freshness.hear(index, float(at))
            told.append((index, float(at)))
        else:
            applied = max(applied, index)
            freshness.applied(applied)
        known = [when for index, when in told if index <= applied]
        assert freshness.at <= max(known, default=float("-inf"))


def test_what_waits_is_bounded_and_the_age_exact_again_once_all_is_applied() -> None:
    freshness = Freshness()
    for index in range(1, 10 * WAITING_MAX):
        freshness.hear(index, float(index))
    freshness.applied(10 * WAITING_MAX)
    assert freshness.at == WAITING_MAX
    freshness.hear(10 * WAITING_MAX, 5000.0)
    assert freshness.at == 5000.0


def test_a_heartbeat_of_an_earlier_program_names_no_more_than_its_receiver_may_take() -> None:
    beat = Heartbeat(3, 0, 1, 7, 9, 3, NodeId(""), 0, 12)
    assert decode_message_untrusted(encode_message(beat)) == beat
    earlier = encode([7, 3, 0, 1, 7, 9, 3])
    assert decode_message_untrusted(earlier) == Heartbeat(3, 0, 1, 7, 9, 3)


def test_the_words_beside_an_age_say_what_is_the_matter() -> None:
    face = MemoryFace()
    face.status = {"role": "follower", "leader_contact_age_s": 0.1, "applied_index": 67, "told_commit": 103}
    assert why_stale(face, asked=False) == "this node is behind: it has applied entry 67 of 103"
    face.full = (face.node_id,)
    assert why_stale(face, asked=True) == "this node is behind: it has applied entry 67 of 103 (its disk is full)"
    face.status["leader_contact_age_s"] = 30.0
    assert (why_stale(face, asked=False), why_stale(face, asked=True)) == ("no leader in reach", "")
    face.status |= {"leader_contact_age_s": 0.1, "told_commit": 67}
    assert (why_stale(face, asked=False), why_stale(face, asked=True)) == ("no leader confirmed it in time", "")
    face.is_removed = True
    assert why_stale(face, asked=False) == why_stale(face, asked=True)
    assert why_stale(face, asked=True).startswith("this node was removed from the cluster")
