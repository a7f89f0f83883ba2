"""The Raft paper's safety argument and its sections on membership and snapshots, sentence by sentence, as far as they are not in
`test_raft_paper`: 5.2, 5.4.3, 6 and 7."""

from __future__ import annotations

import itertools

import pytest

from swarm.consensus.effects import Persist, RestoreSnapshot, Role
from swarm.consensus.messages import Append, AppendReply, Heartbeat, HeartbeatReply, Vote, VoteReply
from swarm.errors import Unavailable
from swarm.model.entry import Configuration, Entry, SnapshotMeta, Voter
from swarm.model.ids import NodeId
from tests.fakes.consensus_cluster import Cluster, core, founding, stored, voters
from tests.paper.test_raft_paper import LATE, B, C, D, E, campaigning, effects, elected, entry, follower, leading, sent


def meta(index: int, term: int, names: str = "abc") -> SnapshotMeta:
    return SnapshotMeta(index, term, Configuration(voters(names)), 1, 0, 0.0, 0, 4)


def test_5_2_a_candidate_that_learns_of_a_later_term_becomes_a_follower_in_it() -> None:
    node = core("a", stored(founding("abc")))
    now = campaigning(node)
    effects(node, now)
    node.on_message(B, VoteReply(7, 0, 1, False), now)
    assert (node.role, node.term) == (Role.FOLLOWER, 7)


def test_5_2_a_refused_vote_is_no_vote() -> None:
    node = core("a", stored(founding("abc")))
    now = campaigning(node)
    effects(node, now)
    node.on_message(B, VoteReply(2, 0, 1, False), now)
    node.on_message(C, VoteReply(2, 0, 1, False), now)
    assert node.role is Role.CANDIDATE


def test_5_4_3_whoever_lacks_a_committed_entry_finds_no_majority() -> None:
    """The argument's core: the majority that has the entry and the one that votes share a voter, and that one refuses."""
    has, lacks = stored(founding("abcde"), entry(2, 2), term=2), stored(founding("abcde"), term=2)
    for holders in itertools.combinations("abcde", 3):
        for candidate in sorted(set("abcde") - set(holders)):
            granted = 1
            for name in sorted(set("abcde") - {candidate}):
                voter = core(name, has if name in holders else lacks)
                effects(voter, 0.0)
                voter.on_message(NodeId(candidate), Vote(3, 0, 1, 1, 1), LATE)
                granted += sum(reply.granted for reply in sent(effects(voter, LATE), VoteReply) if isinstance(reply, VoteReply))
            assert granted < 3, (holders, candidate)


def test_5_4_3_a_leader_of_a_later_term_commits_what_it_found_with_its_own_first_entry() -> None:
    node, now = leading(stored(founding("abc"), entry(2, 1), term=1))
    effects(node, now)
    assert node.commit_index == 0
    node.on_message(B, AppendReply(node.term, 0, 1, True, 3), now)
    assert node.commit_index == 3


class Applied:
    """What each server applied, and what any server applied at each index."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.at: dict[int, Entry] = {}
        self._seen = dict.fromkeys(cluster.nodes, 0)

    def look(self) -> None:
        for name, last in self._seen.items():
            for each in self.cluster.applied[name][last:]:
                self._seen[name] += 1
                assert each.index == self._seen[name], f"{name} applied {each.index} after {self._seen[name] - 1}"
                assert self.at.setdefault(each.index, each) == each, f"{name} applied another entry at {each.index}"


@pytest.mark.parametrize("seed", "0123")
@pytest.mark.parametrize("heard_by", [0, 1])
def test_5_4_3_no_two_servers_apply_different_entries_at_one_index_and_all_apply_in_its_order(heard_by: int, seed: str) -> None:
    """State Machine Safety (figure 3). Six leaders in a row are cut off with entries that no majority has; some of them are on
    another server's disk, and are overwritten or committed by a later leader."""
    cluster = Cluster("abcde", seed=seed)
    applied = Applied(cluster)
    cluster.run(3, each=applied.look)
    for number in range(6):
        leader = cluster.leader()
        hearers = sorted(set("abcde") - {leader})[number % 4 :][:heard_by]
        cluster.isolate(leader)
        cluster.cuts -= {(leader, name) for name in hearers}
        for each in range(3):
            cluster.propose(f"{number}.{each} of {leader}", leader)
        cluster.run(0.05, each=applied.look)
        cluster.isolate(leader)
        cluster.run(5, each=applied.look)
        cluster.propose(f"{number} kept")
        cluster.run(0.5, each=applied.look)
        cluster.cuts.clear()
        cluster.run(0.5 * (number % 3), each=applied.look)
    cluster.run(3, each=applied.look)
    assert [line for line in cluster.trace if " lost " in line], "there were conflicts"
    assert [text for text in cluster.texts("a") if "kept" in text] == [f"{number} kept" for number in range(6)]
    assert all(cluster.applied[name] == list(applied.at.values()) for name in "abcde"), "all of them, the same"


def test_6_no_voters_change_before_this_leaders_own_term_has_committed() -> None:
    """The bug of the one-step change (raft-dev, 2015): a leader whose own term has nothing committed may not know of a change
    that was."""
    node = follower(stored(founding("abc")))
    node.on_message(B, Append(2, 0, 1, 1, 1, (), 1), LATE)
    effects(node, LATE)
    assert node.is_configuration_committed, "nothing else forbids it"
    now = elected(node)
    effects(node, now)
    node.on_message(B, HeartbeatReply(node.term, 0, 1, 1, 1, 1, 0, 0), now)
    assert node.lease_valid(now)
    target = (Voter("a", 1), Voter("b", 1))
    with pytest.raises(Unavailable, match="this leader's own term is not committed yet"):
        node.propose_configuration(target, now, now)
    assert (node.last_index, node.configuration) == (2, Configuration(voters("abc"))), "nothing was done"
    node.on_message(B, AppendReply(node.term, 0, 1, True, 2), now)
    assert node.commit_index == 2
    node.propose_configuration(target, now, now)
    assert node.configuration == Configuration(target, voters("abc"))


def test_6_a_vote_request_is_disregarded_while_a_leader_is_heard() -> None:
    node = follower(stored(founding("abc")))
    node.on_message(B, Heartbeat(2, 0, 1, 1, 0, 0), LATE)
    effects(node, LATE)
    node.on_message(C, Vote(9, 0, 1, 5, 5), LATE + 0.3)
    assert node.term == 2 and sent(effects(node, LATE + 0.3), VoteReply) == [], "a removed server disturbs nobody"


def test_6_a_server_that_is_added_counts_only_from_the_change_on() -> None:
    node, now = leading(stored(founding("abc")))
    node.set_learners(voters("abcde"), now)
    effects(node, now)
    for learner in (D, E):
        node.on_message(learner, AppendReply(node.term, 0, 1, True, 2), now)
    assert node.commit_index == 0, "two learners and the leader have it, and no other voter"
    node.on_message(B, AppendReply(node.term, 0, 1, True, 2), now)
    assert node.commit_index == 2


def test_7_a_snapshot_that_the_log_contradicts_replaces_it_and_brings_the_voters() -> None:
    node = follower(stored(founding("abc"), entry(2, 1), entry(3, 1), term=4))
    node.on_snapshot(B, meta(3, 2, "abd"), b"data", LATE)
    seen = effects(node, LATE)
    (batch,) = [effect.batch for effect in seen if isinstance(effect, Persist)]
    assert batch.discard_log and [effect for effect in seen if isinstance(effect, RestoreSnapshot)]
    assert (node.last_index, node.commit_index, node.term_at(3)) == (3, 3, 2)
    assert node.configuration == Configuration(voters("abd"))


def test_7_a_snapshot_that_is_a_prefix_of_the_log_keeps_what_follows() -> None:
    node = follower(stored(founding("abc"), entry(2, 1), entry(3, 1), entry(4, 1), term=1))
    node.on_snapshot(B, meta(3, 1), b"data", LATE)
    (batch,) = [effect.batch for effect in effects(node, LATE) if isinstance(effect, Persist)]
    assert not batch.discard_log
    assert (node.last_index, node.commit_index) == (4, 3), "entry 4 stays, and is not committed by it"


def test_7_a_snapshot_older_than_what_is_committed_changes_nothing() -> None:
    node = follower(stored(founding("abc"), entry(2, 1), entry(3, 1), term=1))
    node.on_message(B, Append(2, 0, 1, 3, 1, (), 3), LATE)
    effects(node, LATE)
    assert node.commit_index == 3
    node.on_snapshot(B, meta(2, 1), b"data", LATE)
    seen = effects(node, LATE)
    assert [effect for effect in seen if isinstance(effect, RestoreSnapshot | Persist)] == []
    assert sent(seen, AppendReply) == [AppendReply(2, 0, 1, True, 3)], "and its sender learns how far this node is"
