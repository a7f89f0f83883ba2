"""Promises and leases: the rules of DESIGN section 6, each alone. The arithmetic of drift; what ends and what renews."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.core import Consensus
from swarm.consensus.effects import Role, Send
from swarm.consensus.lease import Promise
from swarm.consensus.messages import Heartbeat, HeartbeatReply, PreVote, PreVoteReply, TimeoutNow, Vote, VoteReply
from swarm.errors import Unavailable
from swarm.model.entry import HardState, Voter
from swarm.model.ids import NodeId, RequestId
from swarm.ports import Stored
from tests.fakes.consensus_cluster import Cluster, core, founding, stored
from tests.paper.test_raft_paper import B, C, effects, leading, sent

CONFIG = ConsensusConfig()
AFTER_START = 0.8 * 1.1


@given(st.floats(0.95, 1.05), st.floats(0.95, 1.05), st.floats(0, 10))
def test_every_promise_outlives_the_lease_it_holds_up(leader_rate: float, voter_rate: float, travel_s: float) -> None:
    """In true time: the lease runs from the send by the leader's clock, the promise from the receipt by the voter's."""
    lease_ends = CONFIG.lease_s / leader_rate
    promise_ends = travel_s + CONFIG.promise_s / voter_rate
    wait_ends = CONFIG.promise_s * CONFIG.start_wait_fraction / voter_rate
    assert lease_ends <= promise_ends
    assert lease_ends <= wait_ends


def test_a_lease_that_would_outlive_promises_is_refused() -> None:
    with pytest.raises(ValueError, match="outlives"):
        ConsensusConfig(lease_fraction=0.95)
    with pytest.raises(ValueError, match="restarted"):
        ConsensusConfig(start_wait_fraction=0.9)


def held_by_leader() -> Consensus:
    """A voter that heard leader b of term 2 at 10.0."""
    node = core("a", stored(founding("abc")))
    node.on_message(B, Heartbeat(2, 0, 1, 1, 0, 0), 10.0)
    effects(node, 10.0)
    return node


@pytest.mark.parametrize(("at", "answers"), [(10.0, 0), (10.79, 0), (10.801, 1)])
def test_a_voter_that_heard_its_leader_gives_no_vote_before_its_promise_ends(at: float, answers: int) -> None:
    node = held_by_leader()
    node.on_message(C, Vote(9, 0, 1, 5, 5), at)
    assert len(sent(effects(node, at), VoteReply)) == answers
    assert node.term == (9 if answers else 2), "a request that is not read raises no term"
    node = held_by_leader()
    node.on_message(C, PreVote(9, 0, 1, 5, 5), at)
    assert len(sent(effects(node, at), PreVoteReply)) == answers


def test_the_promise_holds_the_voter_itself() -> None:
    node = held_by_leader()
    assert node.next_deadline >= 10.8
    node.tick(10.79)
    assert effects(node, 10.79) == []


def test_a_leader_that_stepped_down_keeps_its_own_promise() -> None:
    node, now = leading(stored(founding("abc")))
    effects(node, now)
    node.step_down(now + 0.01)
    node.on_message(B, Vote(9, 0, 1, 9, 9), now + 0.5)
    assert sent(effects(node, now + 0.5), VoteReply) == []
    node.on_message(B, Vote(9, 0, 1, 9, 9), now + 0.81)
    assert [reply.granted for reply in sent(effects(node, now + 0.81), VoteReply)] == [True]


def test_after_a_start_a_voter_waits_before_it_votes() -> None:
    for at, answers in ((0.0, 0), (AFTER_START - 0.01, 0), (AFTER_START + 0.01, 1)):
        node = core("a", stored(founding("abc")))
        node.on_message(C, Vote(9, 0, 1, 5, 5), at)
        assert len(sent(effects(node, at), VoteReply)) == answers


def test_a_promise_never_gets_shorter() -> None:
    promise = Promise(CONFIG, 0.0)
    promise.extend(B, 2, 0.01)
    assert promise.until == AFTER_START
    promise.extend(B, 2, 5.0)
    promise.extend(C, 3, 4.0)
    assert promise.until == 5.8


def test_a_hand_over_waives_only_the_promise_made_to_that_leader_in_that_term() -> None:
    for released_by, released_term, answers in ((B, 2, 1), (C, 2, 0), (B, 1, 0), (NodeId(""), 0, 0)):
        node = held_by_leader()
        node.on_message(C, Vote(3, 0, 1, 5, 5, released_by, released_term), 10.1)
        assert len(sent(effects(node, 10.1), VoteReply)) == answers, (released_by, released_term)


def test_what_was_promised_before_a_start_is_never_waived() -> None:
    node = core("a", stored(founding("abc")))
    node.on_message(B, Heartbeat(2, 0, 1, 1, 0, 0), 0.1)
    node.on_message(C, Vote(3, 0, 1, 5, 5, B, 2), 0.2)
    assert sent(effects(node, 0.2), VoteReply) == []


def test_a_timeout_now_of_somebody_else_or_of_another_term_moves_nobody() -> None:
    node = held_by_leader()
    node.on_message(C, TimeoutNow(2, 0, 1), 10.1)
    node.on_message(B, TimeoutNow(1, 0, 1), 10.1)
    assert (node.role, node.term) == (Role.FOLLOWER, 2)
    node.on_message(B, TimeoutNow(2, 0, 1), 10.1)
    assert (node.role, node.term) == (Role.CANDIDATE, 3)
    votes = sent(effects(node, 10.1), Vote)
    assert {(vote.released_by, vote.released_term) for vote in votes} == {(B, 2)}


def answer(node: Consensus, number: int, now: float, *, source: NodeId = B, generation: int = 1, disk_age_ms: int = 0) -> None:
    node.on_message(source, HeartbeatReply(node.term, 0, generation, number, 1, 1, 0, disk_age_ms), now)


def test_the_lease_counts_from_the_send_of_the_round_not_from_its_answer() -> None:
    node, now = leading(stored(founding("abc")))
    effects(node, now)
    assert not node.lease_valid(now), "no round is answered yet"
    answer(node, 1, now + 0.5)
    assert node.lease_valid(now + 0.67)
    assert not node.lease_valid(now + 0.69)


def test_an_answer_under_another_store_generation_renews_nothing() -> None:
    node, now = leading(stored(founding("abc")))
    effects(node, now)
    answer(node, 1, now, generation=2)
    assert not node.lease_valid(now)


def test_an_answer_of_a_voter_whose_disk_stalls_renews_nothing() -> None:
    node, now = leading(stored(founding("abc")))
    effects(node, now)
    answer(node, 1, now, disk_age_ms=3001)
    assert not node.lease_valid(now)
    answer(node, 1, now, disk_age_ms=800)
    assert node.lease_valid(now)


def test_proposals_are_refused_outside_the_lease_and_nothing_changes() -> None:
    node, now = leading(stored(founding("abc")))
    before = node.last_index
    with pytest.raises(Unavailable):
        node.propose("task.reason", 1, b"", RequestId(""), now, 0.0)
    assert node.last_index == before


def test_a_leader_may_act_only_when_its_own_first_entry_is_applied() -> None:
    cluster = Cluster("a")
    node = cluster.nodes["a"]
    effects(node, 0.0)
    now = node.next_deadline
    node.tick(now)
    effects(node, now)
    assert node.lease_valid(now) and node.commit_index == 2
    assert not node.may_act(now)
    node.on_applied(2, now)
    assert node.may_act(now)


def test_a_handed_over_lease_is_gone_at_once_and_for_good() -> None:
    cluster = Cluster("abc")
    cluster.run(3)
    leader = cluster.leader()
    node = cluster.nodes[leader]
    other = NodeId(next(name for name in "abc" if name != leader))
    node.transfer_leadership(other, cluster.now)
    assert not node.lease_valid(cluster.now)
    assert Send(other, TimeoutNow(2, 0, 1)) in node.take_effects()
    answer(node, 30, cluster.now)
    assert not node.lease_valid(cluster.now)


def test_nobody_without_entry_1_votes_or_campaigns() -> None:
    node = core("a", Stored(1, HardState(), (), None, None))
    node.on_message(B, Vote(9, 0, 1, 5, 5), 50.0)
    node.on_message(B, PreVote(9, 0, 1, 5, 5), 50.0)
    node.tick(100.0)
    assert effects(node, 100.0) == []
    assert node.term == 0


def test_messages_of_another_recovery_generation_are_ignored() -> None:
    node = core("a", stored(founding("abc")))
    node.on_message(B, Heartbeat(9, 1, 1, 1, 0, 0), 5.0)
    assert (node.term, effects(node, 5.0)) == (1, [])


def test_time_written_into_entries_never_goes_back() -> None:
    cluster = Cluster("a")
    cluster.run(3)
    node = cluster.nodes["a"]
    for utc in (100.0, 50.0, 101.0):
        node.propose("task.reason", 1, b"", RequestId(""), cluster.now, utc)
    assert [entry.time_utc for index in (3, 4, 5) if (entry := node.entry_at(index))] == [100.0, 100.0, 101.0]


@pytest.mark.parametrize("old", [True, False])
def test_during_a_change_the_lease_needs_a_majority_of_both_sets_and_stands_on_neither_alone(old: bool) -> None:
    """S15: the lease quorum uses the configurations in force, from the append of the joint one on."""
    cluster = Cluster("abc", "de")
    cluster.run(3)
    leader = cluster.leader()
    node = cluster.nodes[leader]
    silent = [name for name in ("abc" if old else "de") if name != leader]
    target = tuple(Voter(name, 1) for name in sorted((leader, "d", "e")))
    node.propose_configuration(target, cluster.local(leader), cluster.now)
    assert node.configuration.outgoing
    cluster.cuts |= {pair for name in silent for pair in ((name, leader), (leader, name))}
    cluster.run(CONFIG.lease_s + 0.01)
    assert node.configuration.outgoing and not node.lease_valid(cluster.local(leader))


def test_a_restarted_voter_acknowledges_at_once_though_it_may_not_vote() -> None:
    node = core("a", stored(founding("abc")))
    node.on_message(B, Heartbeat(2, 0, 1, 3, 0, 0), 0.01)
    assert [reply.round for reply in sent(effects(node, 0.01), HeartbeatReply)] == [3]
    node.on_message(C, Vote(9, 0, 1, 5, 5), 0.02)
    assert sent(effects(node, 0.02), VoteReply) == []


def test_the_lease_is_given_up_before_timeout_now_leaves_and_no_later_answer_brings_it_back() -> None:
    """S15: at the moment at which TimeoutNow is among the effects the lease is over, for good in that term."""
    cluster = Cluster("abc")
    cluster.run(3)
    leader = cluster.leader()
    node, now = cluster.nodes[leader], cluster.local(leader)
    heir = NodeId(next(name for name in "abc" if name != leader))
    assert node.lease_valid(now)
    node.transfer_leadership(heir, now)
    assert not node.lease_valid(now)
    assert [type(effect.message) for effect in node.take_effects() if isinstance(effect, Send)].count(TimeoutNow) == 1
    for number in range(200):
        answer(node, number, now, source=heir)
    assert not node.lease_valid(now) and not node.may_act(now)
    with pytest.raises(Unavailable):
        node.propose("task.reason", 1, b"", RequestId(""), now, 0.0)
