"""What a member or a peer may ask of consensus, and what is refused whoever asks."""

from __future__ import annotations

import pytest

from swarm.consensus.core import TERMS_AHEAD_MAX
from swarm.consensus.messages import HeartbeatReply, PreVote, PreVoteReply, VoteReply
from swarm.errors import BadMessage, UsageError
from swarm.model.entry import KIND_CONFIGURATION, KIND_FOUND, Configuration, SnapshotMeta
from swarm.model.generation import TERMS_APART
from swarm.model.ids import NodeId, RequestId
from swarm.wire.codec import encode
from tests.fakes.consensus_cluster import Cluster, core, founding, stored, voters


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(KIND_CONFIGURATION, encode(Configuration(()))), (KIND_CONFIGURATION, b"junk"), (KIND_FOUND, founding("d").payload)],
)
def test_configurations_are_written_by_consensus_alone(kind: str, payload: bytes) -> None:
    cluster = Cluster("abc")
    cluster.run(3)
    node = cluster.nodes[cluster.leader()]
    before = node.last_index
    with pytest.raises(UsageError):
        node.propose(kind, 1, payload, RequestId(""), cluster.now, cluster.now)
    cluster.run(1)
    assert (node.last_index, node.configuration) == (before, Configuration(voters("abc")))
    node.propose_configuration(voters("ab"), cluster.now, cluster.now)
    cluster.run(1)
    assert node.configuration == Configuration(voters("ab")), "its own way stays open"


@pytest.mark.parametrize("term", [2**63 - 1, 1 + TERMS_AHEAD_MAX + 1])
def test_a_term_far_beyond_all_is_refused_and_changes_nothing(term: int) -> None:
    node = core("a", stored(founding("abc")))
    node.take_effects()
    for message in (HeartbeatReply(term, 0, 1, 1, 1, 1, 1, 0), VoteReply(term, 0, 1, True), PreVoteReply(term, 0, 1, False)):
        with pytest.raises(BadMessage):
            node.on_message(NodeId("b"), message, 0.0)
    node.on_message(NodeId("b"), PreVote(term, 0, 1, 1, 1), 0.0)
    meta = SnapshotMeta(5, term, Configuration(voters("abc")), 1, 0, 0.0, 0, 1)
    with pytest.raises(BadMessage):
        node.on_snapshot(NodeId("b"), meta, b"x", 0.0)
    node.check()
    assert (node.term, node.last_index, node.snapshot) == (1, 1, None)


def test_the_terms_of_a_thousand_recoveries_are_entered_at_once() -> None:
    node = core("a", stored(founding("abc")))
    node.on_message(NodeId("b"), VoteReply(1000 * TERMS_APART, 0, 1, False), 0.0)
    assert node.term == 1000 * TERMS_APART
