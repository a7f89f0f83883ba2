"""The leader's duties decide what DESIGN says, and nothing twice."""

from __future__ import annotations

from dataclasses import replace

from swarm.controllers import Replacing, VerdictController, VoterController, drain_wishes, settle_moves
from swarm.controllers.voters import voters_wanted
from swarm.model.command import SetNode, StopAssignment
from swarm.model.entry import Configuration, Voter
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, MemberView
from swarm.model.node import Availability, VerdictKind
from swarm.model.phase import Phase
from swarm.model.task import Mount, MountKind, NodeLossKind
from swarm.model.view import ClusterView, FollowerView
from tests.catalog_kit import Log, make_node

LEADER = NodeId("id-n1")


def member(name: str, status: MemberStatus = MemberStatus.ALIVE, kind: VerdictKind | None = None, **fields: float) -> MemberView:
    return MemberView(
        node_id=NodeId(f"id-{name}"), name=name, address="127.0.0.1:4747", status=status, generation=1, incarnation=0,
        since=0.0, last_contact=0.0, death_kind=kind, evidence="n2 lost it", **fields,
    )  # fmt: skip


def dead(name: str, kind: VerdictKind = VerdictKind.HOST_SILENT) -> MemberView:
    return member(name, MemberStatus.DEAD, kind)


class Cluster:
    """A log of some nodes, gossip's members beside it, and views of both."""

    def __init__(self, nodes: int, *, voters: int = 1) -> None:
        names = [f"n{number}" for number in range(1, nodes + 1)]
        self.log = Log(*(make_node(name) for name in names))
        self.members = {NodeId(f"id-{name}"): member(name) for name in names}
        self.configuration = Configuration(tuple(Voter(f"id-{name}", 1) for name in names[:voters]))
        self.silent_since: dict[str, float] = {}
        self.now = 0.0

    def lose(self, name: str, kind: VerdictKind = VerdictKind.HOST_SILENT) -> None:
        self.members[NodeId(f"id-{name}")] = dead(name, kind)
        self.silent_since[f"id-{name}"] = self.now

    def revive(self, name: str) -> None:
        self.members[NodeId(f"id-{name}")] = member(name)
        self.silent_since.pop(f"id-{name}", None)

    def view(self, now: float, *, lag: int = 0) -> ClusterView:
        self.now = now
        followers = {
            node_id: FollowerView(node_id, 1000 - lag, 1000 - lag, self.silent_since.get(node_id, now))
            for node_id in self.log.catalog.nodes
            if node_id != LEADER
        }
        return self.log.catalog.view(
            now, LEADER, self.members, last_index=1000, is_leader=True, leader_since=0.0,
            configuration=self.configuration, followers=followers,
        )  # fmt: skip


# ---- verdicts


def test_a_death_becomes_a_verdict_once_with_its_evidence() -> None:
    cluster = Cluster(3)
    cluster.lose("n3")
    controller = VerdictController()
    [command] = controller.reconcile(cluster.view(100.0))
    assert (command.node_id, command.kind, command.evidence) == ("id-n3", VerdictKind.HOST_SILENT, "n2 lost it")
    cluster.log.must(command)
    assert controller.reconcile(cluster.view(100.1)) == []


def test_a_verdict_is_taken_back_when_the_node_is_alive_and_grows_worse_when_its_host_falls_silent() -> None:
    cluster = Cluster(3)
    controller = VerdictController()
    cluster.lose("n3", VerdictKind.DAEMON_GONE)
    cluster.log.must(controller.reconcile(cluster.view(100.0))[0])
    cluster.lose("n3", VerdictKind.HOST_SILENT)
    [worse] = controller.reconcile(cluster.view(101.0))
    assert worse.kind is VerdictKind.HOST_SILENT
    cluster.log.must(worse)
    cluster.lose("n3", VerdictKind.DAEMON_GONE)
    assert controller.reconcile(cluster.view(102.0)) == []
    cluster.revive("n3")
    [back] = controller.reconcile(cluster.view(103.0))
    assert back.kind is VerdictKind.ALIVE


def test_a_suspect_is_not_judged() -> None:
    cluster = Cluster(3)
    cluster.members[NodeId("id-n3")] = member("n3", MemberStatus.SUSPECT)
    assert VerdictController().reconcile(cluster.view(100.0)) == []


def test_the_brake_holds_when_most_of_the_cluster_dies_at_once_and_not_when_few_do() -> None:
    for lost, brakes in ((2, False), (3, True)):
        cluster = Cluster(5)
        controller = VerdictController()
        controller.reconcile(cluster.view(100.0))
        for number in range(lost):
            cluster.lose(f"n{5 - number}")
        controller.reconcile(cluster.view(101.0))
        assert (controller.brake_until == 161.0) is brakes


# ---- replacing


def replaced(cluster: Cluster, replacing: Replacing, now: float, brake_until: float = 0.0) -> list[str]:
    return [wish.task_id for wish in replacing.reconcile(cluster.view(now), brake_until=brake_until).replacements]


def test_a_silent_hosts_work_moves_at_once_a_gone_daemons_after_30_s_a_stalled_ones_after_90() -> None:
    for kind, grace_s in ((VerdictKind.HOST_SILENT, 0.0), (VerdictKind.DAEMON_GONE, 30.0), (VerdictKind.DAEMON_STALLED, 90.0)):
        cluster = Cluster(3)
        cluster.log.running("web", "n3")
        cluster.log.verdict("n3", kind)
        replacing = Replacing()
        assert bool(replaced(cluster, replacing, 100.0)) is (grace_s == 0.0)
        assert grace_s == 0.0 or replaced(cluster, replacing, 99.9 + grace_s) == []
        assert replaced(cluster, replacing, 100.0 + grace_s) == ["t-web"]


def test_what_waits_for_the_brake_says_for_how_long() -> None:
    for kind, wait_s in ((VerdictKind.HOST_SILENT, 60), (VerdictKind.DAEMON_GONE, 60), (VerdictKind.DAEMON_STALLED, 90)):
        cluster = Cluster(3)
        cluster.log.running("web", "n3")
        cluster.log.verdict("n3", kind)
        replacing = Replacing()
        [reason] = replacing.reconcile(cluster.view(100.0), brake_until=160.0).reasons
        assert reason.reason == (
            "waits, since most nodes fell silent at once: "
            f"replaced some {wait_s} s after the last of them did, or after 'swarm node confirm-dead n3'"
        )
        assert replaced(cluster, replacing, 99.9 + wait_s, brake_until=160.0) == []
        assert replaced(cluster, replacing, 100.0 + wait_s, brake_until=160.0) == ["t-web"]


def test_a_stalled_daemon_that_turns_out_to_be_a_silent_host_is_replaced_at_once() -> None:
    cluster = Cluster(3)
    cluster.log.running("web", "n3")
    cluster.log.verdict("n3", VerdictKind.DAEMON_STALLED)
    replacing = Replacing()
    assert replaced(cluster, replacing, 100.0) == []
    cluster.log.verdict("n3", VerdictKind.HOST_SILENT)
    assert replaced(cluster, replacing, 101.0) == ["t-web"]


def test_nothing_is_replaced_during_an_announced_pause_or_under_the_brake_but_for_an_operators_word() -> None:
    cluster = Cluster(3)
    cluster.log.running("web", "n3")
    cluster.log.verdict("n3", VerdictKind.HOST_SILENT)
    cluster.members[NodeId("id-n3")] = member("n3", MemberStatus.DEAD, VerdictKind.HOST_SILENT, paused_until=150.0)
    replacing = Replacing()
    assert replaced(cluster, replacing, 149.0) == []
    assert replaced(cluster, replacing, 150.0, brake_until=170.0) == []
    assert replaced(cluster, replacing, 170.0, brake_until=170.0) == ["t-web"]
    cluster.log.verdict("n3", VerdictKind.CONFIRMED)
    assert replaced(cluster, replacing, 171.0, brake_until=500.0) == ["t-web"]


def test_a_task_with_its_data_on_the_dead_node_waits_and_says_so_once() -> None:
    cluster = Cluster(3)
    volume = (Mount(MountKind.VOLUME, "data", "/data"),)
    cluster.log.running("db", "n3", mounts=volume)
    cluster.log.running("patient", "n3", on_node_loss=NodeLossKind.WAIT)
    cluster.log.verdict("n3", VerdictKind.HOST_SILENT)
    replacing = Replacing()
    wishes = replacing.reconcile(cluster.view(100.0), brake_until=0.0)
    assert wishes.replacements == ()
    assert {reason.task_id for reason in wishes.reasons} == {"t-db", "t-patient"}
    assert all("n3" in reason.reason for reason in wishes.reasons)
    for reason in wishes.reasons:
        cluster.log.must(reason)
    assert replacing.reconcile(cluster.view(101.0), brake_until=0.0).reasons == ()


# ---- drain and heal


def test_a_drained_nodes_work_is_placed_first_and_stops_once_the_new_copy_runs() -> None:
    cluster = Cluster(3)
    task_id, old = cluster.log.running("web", "n3")
    cluster.log.must(SetNode(NodeId("id-n3"), Availability.DRAIN))
    moves, stops = drain_wishes(cluster.view(100.0))
    assert [(move.task_id, move.replaces) for move in moves] == [(task_id, old)]
    assert stops == []
    new = cluster.log.assign(task_id, "n2", replaces=old)
    assert drain_wishes(cluster.view(101.0)) == ([], [])
    assert settle_moves(cluster.view(101.0)) == []
    cluster.log.report(new, Phase.RUNNING)
    [stop] = settle_moves(cluster.view(102.0))
    assert stop.assignment_id == old
    cluster.log.must(stop)
    assert settle_moves(cluster.view(103.0)) == []


def test_a_pinned_task_is_stopped_last_when_its_node_drains() -> None:
    cluster = Cluster(3)
    web, web_copy = cluster.log.running("web", "n3")
    _, pinned = cluster.log.running("db", "n3", mounts=(Mount(MountKind.VOLUME, "data", "/data"),))
    cluster.log.must(SetNode(NodeId("id-n3"), Availability.DRAIN))
    assert drain_wishes(cluster.view(100.0))[1] == []
    new = cluster.log.assign(web, "n2", replaces=web_copy)
    cluster.log.report(new, Phase.RUNNING)
    cluster.log.must(StopAssignment(web_copy, "moved"))
    cluster.log.report(web_copy, Phase.STOPPED)
    assert [stop.assignment_id for stop in drain_wishes(cluster.view(101.0))[1]] == [pinned]


def test_an_old_copy_that_comes_back_before_the_new_one_runs_is_kept() -> None:
    cluster = Cluster(3)
    task_id, old = cluster.log.running("web", "n3")
    cluster.log.verdict("n3", VerdictKind.HOST_SILENT)
    new = cluster.log.assign(task_id, "n2", replaces=old)
    assert settle_moves(cluster.view(100.0)) == []
    cluster.log.verdict("n3", VerdictKind.ALIVE)
    [stop] = settle_moves(cluster.view(101.0))
    assert (stop.assignment_id, stop.keep) == (new, old)
    cluster.log.must(stop)
    assert cluster.log.catalog.tasks[task_id].assignment == old


def test_an_old_copy_that_comes_back_after_the_new_one_runs_stops() -> None:
    cluster = Cluster(3)
    task_id, old = cluster.log.running("web", "n3")
    cluster.log.verdict("n3", VerdictKind.HOST_SILENT)
    new = cluster.log.assign(task_id, "n2", replaces=old)
    cluster.log.report(new, Phase.RUNNING)
    cluster.log.verdict("n3", VerdictKind.ALIVE)
    assert all(stop.assignment_id == old for stop in settle_moves(cluster.view(101.0)))
    assert cluster.log.catalog.tasks[task_id].assignment == new


# ---- voters


def settle(cluster: Cluster, controller: VoterController, *times: float, lag: int = 0) -> tuple[Voter, ...] | None:
    """What is wanted at the last of these times, having looked at all of them."""
    wanted = None
    for now in times:
        wanted = controller.reconcile(cluster.view(now, lag=lag))
    return wanted


def ids(voters: tuple[Voter, ...] | None) -> list[str]:
    return [voter.node_id for voter in voters or ()]


def test_one_two_three_and_seven_nodes_have_one_one_three_and_five_voters() -> None:
    assert [voters_wanted(nodes) for nodes in (1, 2, 3, 6, 7, 100)] == [1, 1, 3, 3, 5, 5]


def test_one_becomes_three_in_one_change_once_both_learners_are_fit() -> None:
    cluster = Cluster(3)
    controller = VoterController()
    assert settle(cluster, controller, 20.0, 29.9) is None
    assert ids(settle(cluster, controller, 30.0)) == ["id-n1", "id-n2", "id-n3"]


def test_a_learner_that_is_behind_does_not_vote() -> None:
    assert settle(Cluster(3), VoterController(), 20.0, 30.0, lag=251) is None


def test_two_nodes_keep_one_voter() -> None:
    assert settle(Cluster(2), VoterController(), 20.0, 30.0, 60.0) is None


def test_a_dead_voter_is_replaced_by_a_learner_after_15_s_of_silence() -> None:
    cluster = Cluster(4, voters=3)
    controller = VoterController()
    assert settle(cluster, controller, 20.0, 30.0) is None
    cluster.lose("n3")
    assert settle(cluster, controller, 40.0, 44.9) is None
    assert ids(settle(cluster, controller, 45.0)) == ["id-n1", "id-n2", "id-n4"]


def test_without_a_learner_a_dead_voter_stays_until_it_is_given_up_and_then_three_become_one() -> None:
    cluster = Cluster(3, voters=3)
    controller = VoterController()
    settle(cluster, controller, 20.0)
    cluster.lose("n3")
    assert settle(cluster, controller, 21.0, 60.0, 619.9) is None
    assert ids(settle(cluster, controller, 620.0)) == ["id-n1"]


def test_no_change_to_a_set_without_a_majority_in_contact() -> None:
    cluster = Cluster(3, voters=3)
    controller = VoterController()
    settle(cluster, controller, 20.0)
    cluster.lose("n2")
    cluster.lose("n3")
    cluster.log.catalog.check()
    five = replace(cluster.view(40.0), configuration=Configuration((*cluster.configuration.voters, Voter("id-n9", 1))))
    assert controller.reconcile(five) is None


def test_a_voter_under_another_store_generation_is_replaced() -> None:
    cluster = Cluster(4, voters=3)
    cluster.configuration = Configuration((Voter("id-n1", 1), Voter("id-n2", 1), Voter("id-n3", 7)))
    wanted = settle(cluster, VoterController(), 20.0, 30.0)
    assert wanted is not None
    assert Voter("id-n3", 7) not in wanted
    assert len(wanted) == 3


def test_changes_are_at_least_ten_seconds_apart_and_never_during_another() -> None:
    cluster = Cluster(3)
    controller = VoterController()
    settle(cluster, controller, 20.0)
    assert settle(cluster, controller, 30.0) is not None
    assert settle(cluster, controller, 39.9) is None
    assert settle(cluster, controller, 40.0) is not None
    cluster.configuration = Configuration(cluster.configuration.voters, (Voter("id-n2", 1),))
    assert settle(cluster, controller, 60.0) is None
