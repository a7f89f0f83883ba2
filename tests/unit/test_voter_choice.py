"""Who votes when there is a choice: spread over zones, then load, then age; and who makes room for a better spread."""

from __future__ import annotations

import dataclasses

from msgspec.structs import replace

from swarm.controllers import LeadController, VoterController, VotersConfig
from swarm.model.entry import Configuration, Voter
from swarm.model.ids import NodeId
from swarm.model.liveness import Sample
from swarm.model.view import ClusterView
from tests.catalog_kit import Log, make_node
from tests.unit.test_controllers import LEADER, Cluster, ids, settle


def labelled(zones: str, *, voters: int = 1, witnesses: str = "") -> Cluster:
    """A cluster whose nodes n1, n2, ... are in these zones (`-`: none said); `witnesses` are the digits of their names."""
    cluster = Cluster(len(zones), voters=voters)
    cluster.log = Log(
        *(
            make_node(f"n{number}", witness=str(number) in witnesses, labels=() if zone == "-" else (("zone", zone),))
            for number, zone in enumerate(zones, start=1)
        )
    )
    return cluster


def load(cluster: Cluster, name: str, cpu_permille: int) -> None:
    node_id = NodeId(f"id-{name}")
    cluster.members[node_id] = replace(cluster.members[node_id], sample=Sample(node_id, 1, 1, cpu_used_permille=cpu_permille))


def leaving(view: ClusterView, *names: str) -> ClusterView:
    return dataclasses.replace(view, leaving=frozenset(NodeId(f"id-{name}") for name in names))


def test_new_voters_are_spread_over_zones_before_anything_else() -> None:
    cluster = labelled("aaabc")
    for name in ("n1", "n2", "n3"):
        load(cluster, name, 0)
    load(cluster, "n4", 900)
    load(cluster, "n5", 900)
    assert ids(settle(cluster, VoterController(), 20.0, 30.0)) == ["id-n1", "id-n4", "id-n5"]


def test_in_one_zone_the_least_loaded_vote_and_noise_does_not_count() -> None:
    cluster = Cluster(4)
    load(cluster, "n2", 990)
    load(cluster, "n3", 240)
    load(cluster, "n4", 10)
    assert ids(settle(cluster, VoterController(), 20.0, 30.0)) == ["id-n1", "id-n3", "id-n4"]
    cluster = Cluster(5)
    for name, cpu in (("n2", 240), ("n3", 200), ("n4", 0), ("n5", 0)):
        load(cluster, name, cpu)
    assert ids(settle(cluster, VoterController(), 20.0, 30.0)) == ["id-n1", "id-n2", "id-n3"]


def test_a_node_of_unknown_load_votes_last_and_of_equals_the_one_admitted_first_then_the_lower_id() -> None:
    cluster = Cluster(4)
    load(cluster, "n4", 990)
    load(cluster, "n3", 999)
    assert ids(settle(cluster, VoterController(), 20.0, 30.0)) == ["id-n1", "id-n3", "id-n4"]
    cluster = Cluster(4)
    old = cluster.log.catalog.nodes[NodeId("id-n2")]
    later = replace(old, joined_index=7)
    view = cluster.view(20.0)
    nodes = {**view.nodes, later.id: later}
    controller = VoterController()
    controller.reconcile(dataclasses.replace(view, nodes=nodes))
    wanted = controller.reconcile(dataclasses.replace(cluster.view(30.0), nodes=nodes))
    assert ids(wanted) == ["id-n1", "id-n3", "id-n4"]


def test_a_badly_spread_set_is_mended_by_one_exchange_a_minute_as_long_as_it_gets_strictly_better() -> None:
    cluster = labelled("aaabc", voters=3)
    controller = VoterController()
    assert settle(cluster, controller, 20.0, 40.0, 59.9) is None
    wanted = settle(cluster, controller, 60.0)
    assert ids(wanted) == ["id-n1", "id-n2", "id-n4"], "the youngest of the fullest zone gives way"
    cluster.configuration = Configuration(wanted or ())
    assert settle(cluster, controller, 75.0, 119.9) is None
    wanted = settle(cluster, controller, 120.0)
    assert ids(wanted) == ["id-n1", "id-n4", "id-n5"]
    cluster.configuration = Configuration(wanted or ())
    assert settle(cluster, controller, 200.0, 300.0, 400.0, 500.0) is None


def test_a_set_that_no_exchange_betters_stays_and_so_does_one_without_zones() -> None:
    for zones in ("aabbb", "-----", "ab---", "aaaaa"):
        cluster = labelled(zones, voters=3)
        assert settle(cluster, VoterController(), 20.0, 60.0, 120.0, 180.0) is None, zones


def test_no_exchange_for_the_spread_makes_witnesses_the_majority() -> None:
    cluster = labelled("aabc", voters=3, witnesses="34")
    assert settle(cluster, VoterController(), 20.0, 60.0, 120.0, 180.0) is None
    cluster = labelled("aabc", voters=3, witnesses="3")
    assert ids(settle(cluster, VoterController(), 20.0, 60.0)) == ["id-n1", "id-n3", "id-n4"]


def test_the_leader_keeps_its_vote_when_the_spread_is_mended() -> None:
    cluster = labelled("aab", voters=1)
    cluster.configuration = Configuration((Voter("id-n1", 1),))
    assert settle(cluster, VoterController(), 20.0, 30.0) is not None
    cluster = labelled("aaab", voters=3)
    assert LEADER in ids(settle(cluster, VoterController(), 20.0, 60.0))


def test_a_dead_voters_place_goes_to_the_zone_it_left() -> None:
    cluster = labelled("abcac", voters=3)
    controller = VoterController()
    settle(cluster, controller, 20.0, 30.0)
    cluster.lose("n3")
    assert settle(cluster, controller, 40.0, 44.9) is None
    assert ids(settle(cluster, controller, 45.0)) == ["id-n1", "id-n2", "id-n5"]


def test_when_the_set_shrinks_the_better_spread_half_stays() -> None:
    cluster = labelled("aaabcdd", voters=5)
    controller = VoterController(VotersConfig(give_up_s=20.0))
    settle(cluster, controller, 20.0, 30.0)
    cluster.lose("n6")
    cluster.lose("n7")
    assert ids(settle(cluster, controller, 31.0, 51.0)) == ["id-n1", "id-n4", "id-n5"]


def test_a_learner_whose_disk_stalls_does_not_vote() -> None:
    cluster = Cluster(4, voters=1)
    controller = VoterController()
    settle(cluster, controller, 20.0)
    view = cluster.view(30.0)
    followers = {**view.followers, NodeId("id-n2"): dataclasses.replace(view.followers[NodeId("id-n2")], disk_age_s=3.5)}
    assert ids(controller.reconcile(dataclasses.replace(view, followers=followers))) == ["id-n1", "id-n3", "id-n4"]


# ---- leaving


def test_a_voter_that_leaves_is_replaced_at_once_and_its_node_counts_no_more() -> None:
    cluster = Cluster(4, voters=3)
    controller = VoterController()
    settle(cluster, controller, 20.0, 30.0)
    assert ids(controller.reconcile(leaving(cluster.view(30.5), "n3"))) == ["id-n1", "id-n2", "id-n4"]
    cluster = Cluster(3, voters=3)
    controller = VoterController()
    settle(cluster, controller, 20.0, 30.0)
    assert ids(controller.reconcile(leaving(cluster.view(30.5), "n3"))) == ["id-n1"], "two that stay have one voter"


def test_a_leader_that_leaves_is_voted_out_and_the_only_voter_gives_its_vote_to_one_that_is_fit() -> None:
    cluster = Cluster(4, voters=3)
    controller = VoterController()
    settle(cluster, controller, 20.0, 30.0)
    assert ids(controller.reconcile(leaving(cluster.view(30.5), "n1"))) == ["id-n2", "id-n3", "id-n4"]
    cluster = Cluster(2)
    controller = VoterController()
    assert controller.reconcile(leaving(cluster.view(20.0), "n1")) is None, "nobody is fit yet"
    assert ids(controller.reconcile(leaving(cluster.view(30.0), "n1"))) == ["id-n2"]


def test_the_only_vote_goes_to_no_node_that_does_not_answer_now() -> None:
    """Should that node's disk be lost, with the vote on it, nobody could go on."""
    cluster = Cluster(2)
    controller = VoterController()
    controller.reconcile(leaving(cluster.view(20.0), "n1"))
    view = leaving(cluster.view(30.0), "n1")
    node_id = NodeId("id-n2")
    late = dataclasses.replace(view.followers[node_id], last_contact=29.4)
    assert controller.reconcile(dataclasses.replace(view, followers={**view.followers, node_id: late})) is None
    assert ids(controller.reconcile(leaving(cluster.view(30.1), "n1"))) == ["id-n2"]


def test_when_everybody_leaves_the_set_stays() -> None:
    cluster = Cluster(3, voters=3)
    controller = VoterController()
    settle(cluster, controller, 20.0, 30.0)
    assert controller.reconcile(leaving(cluster.view(40.0), "n1", "n2", "n3")) is None


# ---- witnesses


def test_two_nodes_and_a_witness_are_three_voters() -> None:
    cluster = labelled("---", witnesses="3")
    assert ids(settle(cluster, VoterController(), 20.0, 30.0)) == ["id-n1", "id-n2", "id-n3"]


def test_a_witness_votes_before_an_equal_full_node_and_witnesses_stay_a_minority_where_they_can() -> None:
    cluster = labelled("-----", witnesses="45")
    assert ids(settle(cluster, VoterController(), 20.0, 30.0)) == ["id-n1", "id-n2", "id-n4"]
    cluster = labelled("---", witnesses="23")
    assert ids(settle(cluster, VoterController(), 20.0, 30.0)) == ["id-n1", "id-n2", "id-n3"]


def handed_over(cluster: Cluster, controller: LeadController, *times: float, lag: int = 0) -> NodeId | None:
    found = None
    for now in times:
        found = controller.reconcile(cluster.view(now, lag=lag))
    return found


def test_a_witness_that_leads_hands_over_to_a_full_voter_that_is_ready_for_3_s() -> None:
    cluster = labelled("---", voters=3, witnesses="1")
    controller = LeadController()
    assert handed_over(cluster, controller, 10.0, 12.9) is None
    assert handed_over(cluster, controller, 13.0) == "id-n2"
    assert handed_over(cluster, controller, 14.0, 22.9) is None, "it was tried"
    assert handed_over(cluster, controller, 23.0) == "id-n2"


def test_a_witness_leads_on_while_no_full_voter_is_in_contact_caught_up_and_there_to_stay() -> None:
    cluster = labelled("---", voters=3, witnesses="1")
    assert handed_over(cluster, LeadController(), 10.0, 13.0, 16.0, lag=65) is None
    cluster.lose("n2")
    cluster.lose("n3")
    assert handed_over(cluster, LeadController(), 20.0, 23.0, 26.0) is None
    cluster.revive("n3")
    controller = LeadController()
    assert [controller.reconcile(leaving(cluster.view(now), "n3")) for now in (30.0, 33.0, 36.0)] == [None] * 3


def test_a_voter_whose_idle_disk_was_asked_a_second_ago_and_more_is_ready_and_one_whose_disk_stalls_is_not() -> None:
    cluster = labelled("---", voters=3, witnesses="1")

    def aged(now: float, n2: float) -> ClusterView:
        view, ages = cluster.view(now), {"id-n2": n2, "id-n3": 3.5}
        followers = {each: dataclasses.replace(view.followers[each], disk_age_s=ages[each]) for each in view.followers}
        return dataclasses.replace(view, followers=followers)

    controller = LeadController()
    assert [controller.reconcile(aged(now, age)) for now, age in ((10.0, 0.1), (11.0, 1.1), (13.0, 0.5))][-1] == NodeId("id-n2")
    stalled = LeadController()
    assert [stalled.reconcile(aged(now, 3.1)) for now in (10.0, 13.0, 16.0)] == [None] * 3


def test_a_full_leader_and_one_among_witnesses_alone_hand_over_to_nobody() -> None:
    assert handed_over(labelled("---", voters=3, witnesses="2"), LeadController(), 10.0, 13.0, 16.0) is None
    assert handed_over(labelled("---", voters=3, witnesses="123"), LeadController(), 10.0, 13.0, 16.0) is None


# ---- full disks


def full(view: ClusterView, *names: str) -> ClusterView:
    ids = {NodeId(f"id-{name}") for name in names}
    followers = {
        node_id: dataclasses.replace(follower, disk_full=node_id in ids) for node_id, follower in view.followers.items()
    }
    return dataclasses.replace(view, followers=followers)


def wanted_with_full(cluster: Cluster, lost: str, *names: str) -> list[str]:
    """The voters wanted 30 s after that one was lost, while the disks of these nodes are full."""
    controller = VoterController()
    controller.reconcile(full(cluster.view(20.0), *names))
    assert controller.reconcile(full(cluster.view(30.0), *names)) is None
    cluster.lose(lost)
    return ids(controller.reconcile(full(cluster.view(60.0), *names)))


def test_a_lost_voters_place_goes_to_a_learner_with_a_full_disk_only_where_no_other_is_fit() -> None:
    assert wanted_with_full(Cluster(5, voters=3), "n3", "n4") == ["id-n1", "id-n2", "id-n5"]
    assert wanted_with_full(Cluster(5, voters=3), "n3", "n5") == ["id-n1", "id-n2", "id-n4"]
    assert wanted_with_full(Cluster(4, voters=3), "n3", "n4") == ["id-n1", "id-n2", "id-n4"], "it can vote"
    assert wanted_with_full(Cluster(5, voters=3), "n3", "n2", "n4") == ["id-n1", "id-n2", "id-n5"], "a voter keeps its vote"


def test_no_set_grows_by_learners_with_full_disks() -> None:
    """Of one voter and two with full disks nothing could be committed any more."""
    cluster, controller = Cluster(3), VoterController()
    controller.reconcile(full(cluster.view(20.0), "n2", "n3"))
    assert controller.reconcile(full(cluster.view(30.0), "n2", "n3")) is None
    assert ids(controller.reconcile(full(cluster.view(40.0)))) == ["id-n1", "id-n2", "id-n3"]


def test_no_set_is_spread_better_by_a_learner_with_a_full_disk() -> None:
    cluster, controller = labelled("aaab", voters=3), VoterController()
    assert [controller.reconcile(full(cluster.view(now), "n4")) for now in (20.0, 30.0, 60.0, 90.0)] == [None] * 4
    assert ids(controller.reconcile(full(cluster.view(91.0)))) == ["id-n1", "id-n2", "id-n4"]


def test_a_witness_does_not_hand_over_to_a_voter_with_a_full_disk() -> None:
    cluster, controller = labelled("---", voters=3, witnesses="1"), LeadController()
    for now in (10.0, 13.0, 16.0):
        assert controller.reconcile(full(cluster.view(now), "n2", "n3")) is None
    assert [controller.reconcile(full(cluster.view(now), "n2")) for now in (17.0, 20.0)][-1] == NodeId("id-n3")
