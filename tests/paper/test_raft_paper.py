"""Sentences of the Raft paper (extended version) and of Ongaro's thesis, each against one core that is fed by hand."""

from __future__ import annotations

from swarm.consensus.core import Consensus
from swarm.consensus.effects import Effect, Persist, Role, Send
from swarm.consensus.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Vote,
    VoteReply,
)
from swarm.model.entry import KIND_CONFIGURATION, Configuration, Entry, HardState
from swarm.model.ids import NodeId
from swarm.ports import Stored
from swarm.wire.codec import encode
from tests.fakes.consensus_cluster import core, founding, stored, voters

B, C, D, E = (NodeId(name) for name in "bcde")


def entry(index: int, term: int) -> Entry:
    return Entry(index, term, "task.reason", 1, b"", 0, 0.0)


def effects(node: Consensus, now: float) -> list[Effect]:
    """Everything it wants, its writes made durable at once."""
    seen: list[Effect] = []
    while batch := node.take_effects():
        seen += batch
        for effect in batch:
            if isinstance(effect, Persist):
                node.on_persisted(effect.batch.number, now)
    node.check()
    return seen


def sent(seen: list[Effect], kind: type[Message]) -> list[Message]:
    return [effect.message for effect in seen if isinstance(effect, Send) and isinstance(effect.message, kind)]


def campaigning(node: Consensus, *, grants: tuple[NodeId, ...] = (B, C)) -> float:
    """Wait out the timeout, win the pre-vote; the node is a candidate then. Returns the time."""
    effects(node, 0.0)
    now = node.next_deadline
    node.tick(now)
    effects(node, now)
    for voter in grants:
        node.on_message(voter, PreVoteReply(node.term + 1, 0, 1, True), now)
        if node.role is Role.CANDIDATE:
            break
    assert node.role is Role.CANDIDATE
    return now


def leading(held: Stored, *, grants: tuple[NodeId, ...] = (B, C)) -> tuple[Consensus, float]:
    node = core("a", held)
    return node, elected(node, grants=grants)


def elected(node: Consensus, *, grants: tuple[NodeId, ...] = (B, C)) -> float:
    """Wait out the timeout, win the pre-vote and the votes. Returns the time."""
    now = campaigning(node, grants=grants)
    effects(node, now)
    for voter in grants:
        node.on_message(voter, VoteReply(node.term, 0, 1, True), now)
        if node.role is Role.LEADER:
            break
    assert node.role is Role.LEADER
    return now


def follower(held: Stored) -> Consensus:
    """A node whose wait after the start is over."""
    node = core("a", held)
    effects(node, 0.0)
    return node


LATE = 1.0


def test_5_1_a_stale_term_is_rejected() -> None:
    node = follower(stored(founding("abc"), term=5))
    node.on_message(B, Append(4, 0, 1, 1, 1, (entry(2, 4),), 2), LATE)
    seen = effects(node, LATE)
    assert node.last_index == 1
    assert [message.term for message in sent(seen, HeartbeatReply)] == [5], "and its sender learns of the later term"


def test_5_1_a_later_term_is_entered_and_written_before_anything_is_promised_in_it() -> None:
    node = follower(stored(founding("abc"), term=1))
    node.on_message(B, Append(7, 0, 1, 1, 1, (entry(2, 7),), 0), LATE)
    first = node.take_effects()
    (batch,) = [effect.batch for effect in first if isinstance(effect, Persist)]
    assert batch.hard_state == HardState(0, 7, "") and batch.entries == (entry(2, 7),)
    assert sent(first, AppendReply) == []
    node.on_persisted(batch.number, LATE)
    assert sent(node.take_effects(), AppendReply) == [AppendReply(7, 0, 1, True, 2)]


def test_5_1_a_leader_that_sees_a_later_term_becomes_a_follower() -> None:
    node, now = leading(stored(founding("abc")))
    node.on_message(B, HeartbeatReply(9, 0, 1, 0, 1, 1, 0, 0), now)
    assert (node.role, node.term) == (Role.FOLLOWER, 9)
    assert not node.lease_valid(now)


def test_5_2_a_follower_stays_one_while_it_hears_its_leader() -> None:
    node = follower(stored(founding("abc")))
    now = 0.0
    for number in range(1, 100):
        now = number * 0.3
        node.on_message(B, Heartbeat(2, 0, 1, number, 0, 0), now)
        node.tick(now + 0.29)
    assert node.role is Role.FOLLOWER
    assert sent(effects(node, now), PreVote) == []


def test_5_2_a_candidate_votes_for_itself_and_asks_the_others_once_that_is_on_disk() -> None:
    node = core("a", stored(founding("abc")))
    now = campaigning(node)
    first = node.take_effects()
    assert node.term == 2
    assert sent(first, Vote) == []
    (batch,) = [effect.batch for effect in first if isinstance(effect, Persist)]
    assert batch.hard_state == HardState(0, 2, "a")
    node.on_persisted(batch.number, now)
    assert [effect.to for effect in node.take_effects() if isinstance(effect, Send)] == [B, C]


def test_5_2_a_candidate_wins_with_a_majority_of_all_voters_only() -> None:
    node = core("a", stored(founding("abcde")))
    now = campaigning(node)
    effects(node, now)
    node.on_message(B, VoteReply(2, 0, 1, True), now)
    node.on_message(B, VoteReply(2, 0, 1, True), now)
    assert node.role is Role.CANDIDATE, "the same vote counts once"
    node.on_message(C, VoteReply(2, 0, 2, True), now)
    assert node.role is Role.CANDIDATE, "a vote under another store generation does not count"
    node.on_message(NodeId("z"), VoteReply(2, 0, 1, True), now)
    assert node.role is Role.CANDIDATE, "nor that of one who is no voter"
    node.on_message(D, VoteReply(2, 0, 1, True), now)
    assert node.role is Role.LEADER


def test_5_2_a_candidate_does_not_count_itself_before_its_vote_is_durable() -> None:
    node = core("a", stored(founding("abc")))
    now = campaigning(node)
    node.take_effects()
    node.on_message(B, VoteReply(2, 0, 1, True), now)
    assert node.role is Role.CANDIDATE
    node.on_persisted(1, now)
    assert node.role is Role.LEADER


def test_5_2_each_voter_votes_for_at_most_one_candidate_in_a_term() -> None:
    node = follower(stored(founding("abc")))
    node.on_message(B, Vote(2, 0, 1, 1, 1), LATE)
    node.on_message(C, Vote(2, 0, 1, 1, 1), LATE)
    node.on_message(B, Vote(2, 0, 1, 1, 1), LATE)
    replies = [
        (effect.to, effect.message.granted)
        for effect in effects(node, LATE)
        if isinstance(effect, Send) and isinstance(effect.message, VoteReply)
    ]
    assert sorted(replies) == [(B, True), (B, True), (C, False)]


def test_5_2_the_vote_is_remembered_over_a_restart() -> None:
    node = follower(stored(founding("abc"), term=2, voted_for="b"))
    node.on_message(C, Vote(2, 0, 1, 1, 1), LATE)
    assert [message.granted for message in sent(effects(node, LATE), VoteReply)] == [False]


def test_5_2_a_grant_that_is_durable_too_late_is_not_sent() -> None:
    node = follower(stored(founding("abc")))
    node.on_message(B, Vote(2, 0, 1, 1, 1), LATE)
    node.take_effects()
    node.on_message(C, Vote(3, 0, 1, 1, 1), LATE)
    node.take_effects()
    node.on_persisted(2, LATE)
    assert node.take_effects() == [Send(C, VoteReply(3, 0, 1, True))]


def test_5_2_a_candidate_that_hears_the_leader_of_its_term_follows_it() -> None:
    node = core("a", stored(founding("abc")))
    now = campaigning(node)
    node.on_message(B, Heartbeat(2, 0, 1, 1, 0, 0), now)
    assert (node.role, node.leader_id) == (Role.FOLLOWER, B)


def test_5_2_election_timeouts_are_drawn_anew_from_their_range() -> None:
    node = follower(stored(founding("abc")))
    drawn = set()
    for number in range(1, 50):
        node.on_message(B, Heartbeat(2, 0, 1, number, 0, 0), float(number))
        drawn.add(round(node.next_deadline - number, 6))
    assert all(0.8 <= timeout < 1.2 for timeout in drawn)
    assert len(drawn) > 40


def test_5_3_entries_are_taken_only_where_the_logs_meet() -> None:
    node = follower(stored(founding("abc"), entry(2, 1)))
    node.on_message(B, Append(3, 0, 1, 5, 2, (entry(6, 3),), 0), LATE)
    node.on_message(B, Append(3, 0, 1, 2, 2, (entry(3, 3),), 0), LATE)
    replies = sent(effects(node, LATE), AppendReply)
    assert [reply.accepted for reply in replies] == [False, False]
    assert node.last_index == 2


def test_5_3_what_contradicts_the_leader_is_replaced_and_what_agrees_is_kept() -> None:
    node = follower(stored(founding("abc"), entry(2, 1), entry(3, 2), entry(4, 2), term=2))
    node.on_message(B, Append(3, 0, 1, 1, 1, (entry(2, 1), entry(3, 3)), 0), LATE)
    (batch,) = [effect.batch for effect in effects(node, LATE) if isinstance(effect, Persist)]
    assert (batch.truncate_from, batch.entries) == (3, (entry(3, 3),))
    assert (node.last_index, node.term_at(3)) == (3, 3)


def test_5_3_an_old_append_does_not_shorten_the_log() -> None:
    node = follower(stored(founding("abc"), entry(2, 2), entry(3, 2), term=2))
    node.on_message(B, Append(2, 0, 1, 1, 1, (entry(2, 2),), 0), LATE)
    assert node.last_index == 3
    assert sent(effects(node, LATE), AppendReply) == [AppendReply(2, 0, 1, True, 2)], "nor acknowledges more than it carried"


def test_5_3_a_follower_commits_no_further_than_the_append_reached() -> None:
    node = follower(stored(founding("abc"), entry(2, 1), entry(3, 1)))
    node.on_message(B, Append(2, 0, 1, 1, 1, (entry(2, 1),), 9), LATE)
    assert node.commit_index == 2


def test_5_3_a_heartbeat_commits_only_where_the_terms_agree() -> None:
    node = follower(stored(founding("abc"), entry(2, 1), entry(3, 1)))
    node.on_message(B, Heartbeat(4, 0, 1, 1, 3, 2), LATE)
    assert node.commit_index == 0
    node.on_message(B, Heartbeat(4, 0, 1, 2, 3, 1), LATE)
    assert node.commit_index == 3


def test_5_3_a_leader_goes_back_until_the_logs_meet() -> None:
    node, now = leading(stored(founding("abc"), entry(2, 1), entry(3, 1), entry(4, 1)))
    effects(node, now)
    node.on_message(B, AppendReply(2, 0, 1, False, 1), now)
    appends = [message for message in sent(effects(node, now), Append) if isinstance(message, Append)]
    assert [(message.previous_index, len(message.entries)) for message in appends] == [(1, 4)]


def test_5_3_a_leader_never_changes_its_own_log() -> None:
    node, now = leading(stored(founding("abc"), entry(2, 1)))
    before = [node.entry_at(index) for index in range(1, node.last_index + 1)]
    node.on_message(B, AppendReply(2, 0, 1, False, 0), now)
    node.on_message(B, HeartbeatReply(2, 0, 1, 1, 1, 1, 0, 0), now)
    assert [node.entry_at(index) for index in range(1, node.last_index + 1)] == before


def test_5_4_1_no_vote_for_a_log_that_is_behind() -> None:
    held = stored(founding("abc"), entry(2, 2), entry(3, 2), term=3)
    asked = {(3, 2): True, (4, 2): True, (2, 2): False, (9, 1): False, (1, 3): True}
    for (last_index, last_term), granted in asked.items():
        node = follower(held)
        node.on_message(B, Vote(4, 0, 1, last_index, last_term), LATE)
        assert [reply.granted for reply in sent(effects(node, LATE), VoteReply)] == [granted], (last_index, last_term)
        node = follower(held)
        node.on_message(B, PreVote(4, 0, 1, last_index, last_term), LATE)
        assert bool(sent(effects(node, LATE), PreVoteReply)) == granted
        assert node.term == 3, "a pre-vote changes nothing"


def test_figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting() -> None:
    node, now = leading(stored(founding("abcde"), entry(2, 2), term=3), grants=(B, C, D))
    effects(node, now)
    assert node.term == 4 and node.last_index == 3
    node.on_message(B, AppendReply(4, 0, 1, True, 2), now)
    node.on_message(C, AppendReply(4, 0, 1, True, 2), now)
    node.on_message(D, AppendReply(4, 0, 1, True, 2), now)
    assert node.commit_index == 0, "entry 2 of term 2 is on four of five disks, and may still be overwritten"
    node.on_message(B, AppendReply(4, 0, 1, True, 3), now)
    node.on_message(C, AppendReply(4, 0, 1, True, 3), now)
    assert node.commit_index == 3, "with an entry of its own term on a majority, all before it are committed"


def test_8_a_leader_begins_its_term_with_a_no_op() -> None:
    node, _ = leading(stored(founding("abc")))
    first = node.entry_at(2)
    assert first is not None and (first.kind, first.term) == ("noop", 2)


def test_10_2_1_a_leader_sends_beside_its_own_write_and_does_not_count_it_before() -> None:
    node, now = leading(stored(founding("abc")))
    out = node.take_effects()
    assert len(sent(out, Append)) == 2 and [effect for effect in out if isinstance(effect, Persist)]
    node.on_message(B, AppendReply(2, 0, 1, True, 2), now)
    assert node.commit_index == 0, "one other disk, and its own not yet"
    node.on_persisted(2, now)
    assert node.commit_index == 2


def test_6_a_joint_configuration_needs_both_majorities() -> None:
    joint = Configuration(voters("ade"), voters("abc"))
    change = Entry(2, 1, KIND_CONFIGURATION, 1, encode(joint), 0, 0.0)
    node = core("a", stored(founding("abc"), change))
    now = campaigning(node, grants=(B, D))
    effects(node, now)
    node.on_message(B, VoteReply(2, 0, 1, True), now)
    node.on_message(C, VoteReply(2, 0, 1, True), now)
    assert node.role is Role.CANDIDATE, "all of the old set, one of the new"
    node.on_message(D, VoteReply(2, 0, 1, True), now)
    assert node.role is Role.LEADER
    effects(node, now)
    node.on_message(D, AppendReply(2, 0, 1, True, 3), now)
    node.on_message(E, AppendReply(2, 0, 1, True, 3), now)
    assert node.commit_index == 0, "all of the new set, one of the old"
    node.on_message(B, AppendReply(2, 0, 1, True, 3), now)
    assert node.commit_index == 3
    assert node.configuration == Configuration(voters("ade")), "and the new set alone follows"


def test_6_a_configuration_is_in_force_when_appended_and_gone_when_truncated() -> None:
    node = follower(stored(founding("abc")))
    change = Entry(2, 2, KIND_CONFIGURATION, 1, encode(Configuration(voters("abd"), voters("abc"))), 0, 0.0)
    node.on_message(B, Append(2, 0, 1, 1, 1, (change,), 0), LATE)
    assert node.configuration.outgoing == voters("abc")
    node.on_message(C, Append(3, 0, 1, 1, 1, (entry(2, 3),), 0), LATE)
    assert node.configuration == Configuration(voters("abc"))


def test_6_a_node_that_is_not_in_the_configuration_does_not_campaign() -> None:
    node = core("z", stored(founding("abc")))
    effects(node, 0.0)
    assert node.next_deadline == float("inf")
    node.tick(1000.0)
    assert effects(node, 1000.0) == []


def test_9_6_a_node_that_could_not_win_does_not_raise_its_term() -> None:
    node = core("a", stored(founding("abc")))
    now = 0.0
    effects(node, now)
    for _ in range(200):
        now = max(now, node.next_deadline)
        node.tick(now)
        effects(node, now)
    assert node.term == 1
