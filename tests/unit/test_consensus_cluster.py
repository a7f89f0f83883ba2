"""Whole runs of a few cores: what a cluster does when hosts die, links break, disks vanish and voters change."""

from __future__ import annotations

import copy

import pytest

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.effects import Role
from swarm.errors import Unavailable
from swarm.model.entry import Voter
from swarm.model.ids import NodeId
from tests.fakes.consensus_cluster import Cluster, voters


def running(names: str, others: str = "", **options: object) -> Cluster:
    cluster = Cluster(names, others, **options)  # type: ignore[arg-type]
    cluster.run(3)
    return cluster


def test_three_founders_elect_one_leader_that_applies_its_own_entry_first() -> None:
    cluster = running("abc")
    leader = cluster.nodes[cluster.leader()]
    assert leader.term == 2, "founding was term 1"
    assert {node.leader_id for node in cluster.nodes.values()} == {cluster.leader()}
    assert {node.applied_index for node in cluster.nodes.values()} == {2}


def test_one_node_alone_leads_itself() -> None:
    cluster = running("a")
    cluster.propose("x")
    cluster.run(0.1)
    assert cluster.texts("a") == ["x"]


def test_a_stable_leader_stays() -> None:
    cluster = running("abcde")
    leader, term = cluster.leader(), cluster.nodes["a"].term
    cluster.run(60, each=lambda: None)
    assert (cluster.leader(), cluster.nodes["a"].term) == (leader, term)


def test_the_lease_never_lapses_while_a_majority_answers() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    cluster.crash(next(name for name in "abc" if name != leader))
    cluster.run(20, each=lambda: assert_leads(cluster, leader))


def assert_leads(cluster: Cluster, leader: str) -> None:
    assert cluster.leases() == [leader]


def test_a_dead_leader_is_replaced_within_two_election_timeouts() -> None:
    for seed in "0123456789":
        cluster = running("abc", seed=seed)
        cluster.crash(cluster.leader())
        cluster.run(2 * 1.5 * 0.8)
        assert cluster.leader() in cluster.nodes


def test_a_leader_cut_off_stops_acting_before_another_begins_and_steps_down() -> None:
    cluster = running("abc")
    old = cluster.leader()
    cluster.isolate(old)
    cluster.run(0.69)
    assert cluster.leases() == []
    cluster.run(3)
    assert cluster.leader() != old
    assert cluster.nodes[old].role is not Role.LEADER
    with pytest.raises(Unavailable):
        cluster.propose("x", old)


def test_an_isolated_voter_does_not_raise_the_term_and_disturbs_nobody_when_it_is_back() -> None:
    cluster = running("abc")
    leader, term = cluster.leader(), cluster.nodes["a"].term
    lonely = next(name for name in "abc" if name != leader)
    cluster.isolate(lonely)
    cluster.run(30)
    assert cluster.nodes[lonely].term == term
    cluster.cuts.clear()
    cluster.run(5)
    assert (cluster.leader(), cluster.nodes[lonely].term) == (leader, term)


def test_a_leader_that_can_send_but_not_hear_steps_down() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    cluster.cuts |= {(other, leader) for other in "abc"}
    cluster.run(5)
    assert cluster.leader() != leader


def test_entries_that_no_majority_had_are_overwritten_and_said_to_be_lost() -> None:
    cluster = running("abc")
    old = cluster.leader()
    cluster.isolate(old)
    cluster.propose("never", old)
    cluster.run(5)
    cluster.propose("kept")
    cluster.cuts.clear()
    cluster.run(2)
    assert [cluster.texts(name) for name in "abc"] == [["kept"]] * 3
    assert f"{old} lost 3 of term 2" in cluster.trace


def test_what_was_committed_survives_a_restart_of_all() -> None:
    cluster = running("abc")
    cluster.propose("x")
    cluster.run(0.5)
    for name in "abc":
        cluster.crash(name)
    for name in "abc":
        cluster.start(name)
    cluster.run(4)
    assert [cluster.texts(name) for name in "abc"] == [["x"]] * 3


def test_a_restarted_voter_neither_votes_nor_campaigns_for_a_while_but_acknowledges() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    for name in [name for name in "abc" if name != leader]:
        cluster.crash(name)
        cluster.start(name)
    cluster.propose("x", leader)
    cluster.run(0.05)
    assert cluster.texts(leader) == ["x"]
    begun = cluster.now
    cluster.crash(leader)
    asked = len(cluster.trace)
    cluster.run(0.88 - (cluster.now - begun) - 0.06)
    assert not [line for line in cluster.trace[asked:] if "Vote" in line]


def test_a_wiped_voter_comes_back_as_a_learner_and_its_acknowledgements_do_not_count() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    wiped, other = [name for name in "abc" if name != leader]
    cluster.crash(wiped)
    cluster.wipe(wiped)
    cluster.start(wiped)
    cluster.run(3)
    assert cluster.nodes[wiped].applied_index == cluster.nodes[leader].applied_index, "it gets the log"
    assert not cluster.nodes[wiped].is_voter
    cluster.crash(other)
    cluster.run(3)
    assert cluster.leases() == [], "two disks that count are gone: no majority, though two nodes run"


def test_a_wiped_voter_never_votes_even_with_the_log_back() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    wiped = next(name for name in "abc" if name != leader)
    cluster.crash(wiped)
    cluster.wipe(wiped)
    cluster.start(wiped)
    cluster.run(3)
    cluster.crash(leader)
    cluster.run(10)
    assert cluster.leases() == []


def test_a_lost_append_is_sent_again() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    cluster.loss = lambda: True
    cluster.propose("x", leader)
    cluster.collect()
    cluster.loss = lambda: False
    cluster.run(0.5)
    assert [cluster.texts(name) for name in "abc"] == [["x"]] * 3


@pytest.mark.parametrize("trailing", [1000, 2])
def test_a_follower_whose_disk_was_set_back_under_its_old_generation_gets_again_what_it_had_acknowledged(trailing: int) -> None:
    cluster = Cluster("abc", config=ConsensusConfig(trailing=trailing))
    cluster.run(3)
    leader = cluster.leader()
    behind = next(name for name in "abc" if name != leader)
    before = copy.deepcopy(cluster.disks[behind])
    for number in range(8):
        cluster.propose(str(number), leader)
        cluster.run(0.1)
    assert cluster.texts(behind) == cluster.texts(leader) != []
    cluster.compact(leader)
    cluster.crash(behind)
    cluster.disks[behind] = before
    cluster.start(behind)
    cluster.run(1)
    assert cluster.leader() == leader
    cluster.propose("after", leader)
    cluster.run(1)
    assert cluster.texts(behind) == cluster.texts(leader) == [*map(str, range(8)), "after"]


def test_a_follower_behind_the_log_gets_a_snapshot_and_goes_on() -> None:
    cluster = Cluster("abc", config=ConsensusConfig(trailing=5))
    cluster.run(3)
    leader = cluster.leader()
    behind = next(name for name in "abc" if name != leader)
    cluster.isolate(behind)
    for number in range(50):
        cluster.propose(str(number), leader)
        cluster.run(0.02)
    cluster.compact(leader)
    cluster.cuts.clear()
    cluster.run(2)
    cluster.propose("more")
    cluster.run(1)
    assert f"{leader} -> {behind} snapshot at 52" in cluster.trace
    assert cluster.texts(behind) == [*map(str, range(50)), "more"]
    cluster.crash(behind)
    cluster.start(behind)
    cluster.run(1)
    assert cluster.texts(behind) == [*map(str, range(50)), "more"], "also from its own disk"


def test_voters_are_swapped_in_one_change_without_the_one_that_is_dead() -> None:
    cluster = running("abc", "d")
    leader = cluster.leader()
    dead = next(name for name in "abc" if name != leader)
    cluster.crash(dead)
    cluster.run(1)
    target = tuple(Voter(name, 1) for name in "abcd" if name != dead)
    cluster.nodes[leader].propose_configuration(target, cluster.local(leader), cluster.now)
    assert cluster.nodes[leader].configuration.outgoing, "in force when appended"
    cluster.run(1)
    for name in cluster.nodes:
        assert cluster.nodes[name].configuration.voters == target
        assert not cluster.nodes[name].configuration.outgoing


def test_one_becomes_three_and_three_become_one_in_one_change() -> None:
    cluster = running("a", "bc")
    cluster.nodes["a"].propose_configuration(voters("abc"), cluster.local("a"), cluster.now)
    cluster.run(2)
    assert cluster.nodes["c"].is_voter
    cluster.crash("a")
    cluster.run(3)
    leader = cluster.leader()
    cluster.start("a")
    cluster.run(2)
    cluster.nodes[leader].propose_configuration((Voter(leader, 1),), cluster.local(leader), cluster.now)
    cluster.run(2)
    for name in "abc":
        if name != leader:
            cluster.crash(name)
    cluster.run(2)
    assert cluster.leader() == leader


def test_a_leader_that_is_voted_out_goes_and_the_rest_elect_another() -> None:
    cluster = running("abc", "d")
    leader = cluster.leader()
    target = tuple(Voter(name, 1) for name in "abcd" if name != leader)
    cluster.nodes[leader].propose_configuration(target, cluster.local(leader), cluster.now)
    cluster.run(4)
    assert cluster.leader() != leader
    assert not cluster.nodes[leader].is_voter


def test_a_leader_that_is_voted_out_gives_its_lease_up_and_names_its_heir() -> None:
    cluster = running("abc", "d")
    leader = cluster.leader()
    node = cluster.nodes[leader]
    target = tuple(Voter(name, 1) for name in "abcd" if name != leader)
    node.propose_configuration(target, cluster.local(leader), cluster.now)
    alone: list[float] = []

    def look() -> None:
        assert_at_most_one_lease(cluster)
        if not node.lease_valid(cluster.local(leader)) and not cluster.leases():
            alone.append(cluster.now)

    cluster.run(1.0, each=look)
    assert cluster.leader() != leader
    assert alone[-1] - alone[0] < 0.2, "nobody waits for a leader that has gone"
    assert sum("TimeoutNow" in line for line in cluster.trace) == 1


def test_a_voted_out_node_with_the_longest_log_still_leads_until_the_new_voters_have_it() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    kept = next(name for name in "abc" if name != leader)
    node = cluster.nodes[leader]
    node.propose_configuration((Voter(kept, 1),), cluster.local(leader), cluster.now)
    while node.configuration.outgoing:
        cluster.run(0.0005)
    cluster.isolate(kept)
    cluster.run(4)
    assert cluster.nodes[kept].configuration.outgoing, "it has the joint configuration only, and the others have more"
    cluster.cuts.clear()
    cluster.run(6)
    assert cluster.leader() == kept


def test_a_change_cut_off_is_rolled_back_where_its_entry_is_truncated() -> None:
    cluster = running("abc", "d")
    leader = cluster.leader()
    cluster.isolate(leader)
    node = cluster.nodes[leader]
    before = node.configuration
    node.propose_configuration(tuple(Voter(name, 1) for name in "abcd" if name != leader), cluster.local(leader), cluster.now)
    assert node.configuration != before
    cluster.run(5)
    cluster.cuts.clear()
    cluster.run(2)
    assert node.configuration == before


def test_a_change_to_a_set_out_of_contact_is_refused_and_one_at_a_time() -> None:
    cluster = running("abc", "de")
    leader = cluster.leader()
    node = cluster.nodes[leader]
    cluster.crash("d")
    cluster.crash("e")
    cluster.run(5)
    with pytest.raises(Unavailable, match="in contact"):
        node.propose_configuration((Voter(leader, 1), *voters("de")), cluster.local(leader), cluster.now)
    with pytest.raises(Unavailable, match="in contact"):
        node.propose_configuration((Voter(leader, 1), Voter("b", 7), Voter("c", 7)), cluster.local(leader), cluster.now)
    node.propose_configuration((Voter(leader, 1),), cluster.local(leader), cluster.now)
    with pytest.raises(Unavailable, match="earlier change"):
        node.propose_configuration(voters("abc"), cluster.local(leader), cluster.now)


def test_a_node_that_answers_but_has_nothing_of_the_log_on_its_disk_is_no_only_voter() -> None:
    """It votes for nobody, so nobody would ever lead again should it end before it has anything."""
    cluster = Cluster("a", "b")
    cluster.slow_disks.add("b")
    cluster.run(2)
    node = cluster.nodes["a"]
    follower = node.followers()[NodeId("b")]
    assert cluster.local("a") - follower.last_contact < 1.1, "it is there"
    with pytest.raises(Unavailable, match="some of the log"):
        node.propose_configuration(voters("b"), cluster.local("a"), cluster.now)
    cluster.crash("b")
    cluster.slow_disks.clear()
    cluster.start("b")
    cluster.run(3)
    node.propose_configuration(voters("b"), cluster.local("a"), cluster.now)
    cluster.run(2)
    assert cluster.leader() == "b"


def test_below_three_voters_a_write_waits_for_the_learner_that_is_there() -> None:
    cluster = running("a", "b")
    cluster.slow_disks.add("b")
    cluster.propose("x")
    cluster.run(0.5)
    assert cluster.texts("a") == [], "the learner answers but has it not on disk"
    cluster.crash("b")
    cluster.run(1.2)
    assert cluster.texts("a") == ["x"], "it has not answered for a second"


def test_below_three_voters_a_write_waits_for_two_learners_and_not_for_a_third() -> None:
    cluster = running("a", "bcd")
    cluster.slow_disks.add("b")
    cluster.propose("x")
    cluster.run(0.5)
    assert cluster.texts("a") == ["x"], "two others have it on disk"
    cluster.slow_disks.add("c")
    cluster.propose("y")
    cluster.run(0.5)
    assert cluster.texts("a") == ["x"], "one other is not enough while three are there"


def test_with_three_voters_a_learner_holds_nobody_up() -> None:
    cluster = running("abc", "d")
    cluster.slow_disks.add("d")
    cluster.propose("x")
    cluster.run(0.1)
    assert cluster.texts(cluster.leader()) == ["x"]


def test_a_hand_over_leaves_no_instant_with_two_leases_and_almost_none_without() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    other = next(name for name in "abc" if name != leader)
    cluster.nodes[leader].transfer_leadership(NodeId(other), cluster.local(leader))
    started = cluster.now
    cluster.run(0.1, each=lambda: assert_at_most_one_lease(cluster))
    assert cluster.leader() == other
    assert cluster.now - started < 0.2


def assert_at_most_one_lease(cluster: Cluster) -> None:
    assert len(cluster.leases()) <= 1, cluster.leases()


def test_a_leader_whose_disk_stalls_gives_up_its_lease_and_another_takes_over() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    cluster.slow_disks.add(leader)
    cluster.propose("x", leader)
    cluster.run(2.9)
    assert cluster.leases() == [leader], "a loaded disk is late; that is no reason"
    cluster.run(3)
    assert cluster.leader() != leader


def test_a_leader_with_a_slow_disk_commits_by_the_others_disks() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    cluster.slow_disks.add(leader)
    cluster.propose("x", leader)
    cluster.run(0.1)
    assert cluster.texts(leader) == ["x"]


def test_with_one_other_disk_a_leader_does_not_count_its_own_unwritten_entry() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    cluster.crash(next(name for name in "abc" if name != leader))
    cluster.slow_disks.add(leader)
    cluster.propose("x", leader)
    cluster.run(0.5)
    assert cluster.texts(leader) == []


def test_after_a_standstill_a_leader_asks_again_before_it_acts() -> None:
    cluster = running("abc")
    leader = cluster.leader()
    node = cluster.nodes[leader]
    frozen = cluster.nodes.pop(leader)
    cluster.run(0.7)
    cluster.nodes[leader] = frozen
    node.on_stall(0.7, cluster.local(leader))
    assert not node.lease_valid(cluster.local(leader))
    cluster.run(0.05)
    assert cluster.leases() == [leader], "nobody else was elected in the meantime, so a round renews it"
