"""A hand-over that comes to nothing: how long proposals are refused, and who leads then."""

from __future__ import annotations

import pytest

from swarm.consensus.config import ConsensusConfig
from swarm.errors import Unavailable
from swarm.model.ids import NodeId
from tests.fakes.consensus_cluster import Cluster

D_S = ConsensusConfig().promise_s
TICK_S = ConsensusConfig().heartbeat_s


def handing_over(*, is_heir_cut_off: bool) -> tuple[Cluster, str, str]:
    """A leader with an entry that its heir cannot get, and the hand-over begun."""
    cluster = Cluster("abc")
    cluster.run(3)
    leader = cluster.leader()
    heir = next(name for name in "abc" if name != leader)
    if is_heir_cut_off:
        cluster.isolate(heir)
    else:
        cluster.slow_disks.add(heir)
    cluster.propose("before", leader)
    cluster.run(0.05)
    cluster.nodes[leader].transfer_leadership(NodeId(heir), cluster.local(leader))
    return cluster, leader, heir


@pytest.mark.parametrize("is_heir_cut_off", [True, False], ids=["cut off", "disk hangs"])
def test_a_leader_whose_heir_gets_not_everything_takes_proposals_again_after_d(is_heir_cut_off: bool) -> None:
    cluster, leader, _ = handing_over(is_heir_cut_off=is_heir_cut_off)
    term = cluster.nodes[leader].term
    cluster.run(D_S - TICK_S)
    with pytest.raises(Unavailable, match="being handed over"):
        cluster.propose("too early", leader)
    cluster.run(2 * TICK_S)
    cluster.propose("after", leader)
    cluster.run(0.1)
    assert (cluster.leader(), cluster.nodes[leader].term) == (leader, term), "it never stopped leading"
    assert cluster.texts(leader) == ["before", "after"]
    assert not [line for line in cluster.trace if "TimeoutNow" in line]


def test_a_hand_over_that_was_given_up_is_not_carried_out_when_the_heir_is_back() -> None:
    cluster, leader, heir = handing_over(is_heir_cut_off=True)
    cluster.run(D_S + TICK_S)
    cluster.cuts.clear()
    cluster.run(5)
    assert cluster.texts(heir) == ["before"]
    assert cluster.leader() == leader


def test_while_the_heir_catches_up_its_leader_keeps_the_lease() -> None:
    cluster, leader, _ = handing_over(is_heir_cut_off=False)

    def leads_on() -> None:
        assert cluster.leases() == [leader]

    cluster.run(D_S + TICK_S, each=leads_on)


def test_where_the_heir_never_hears_that_it_should_lead_somebody_does_within_two_election_timeouts() -> None:
    """The lease is given up for good before the word is sent: whether it arrives nobody knows."""
    cluster = Cluster("abc")
    cluster.run(3)
    leader = cluster.leader()
    heir = next(name for name in "abc" if name != leader)
    cluster.cuts.add((leader, heir))
    cluster.nodes[leader].transfer_leadership(NodeId(heir), cluster.local(leader))
    cluster.run(0)
    assert cluster.leases() == []
    with pytest.raises(Unavailable, match="does not lead"):
        cluster.propose("x", leader)
    cluster.run(2 * 1.5 * D_S)
    cluster.propose("x")
    cluster.run(0.1)
    assert cluster.texts(cluster.leader()) == ["x"]
