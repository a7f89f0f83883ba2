"""Deaths in the middle of moves, moves that fail, and a leader that begins in the middle of it all."""

from __future__ import annotations

from swarm.controllers import Replacing, VerdictController, drain_wishes, settle_moves
from swarm.model.command import SetNode, StopAssignment
from swarm.model.ids import NodeId, TaskId
from swarm.model.node import Availability, VerdictKind
from swarm.model.phase import Desired, Phase
from swarm.model.task import Restart, RestartKind
from swarm.scheduler import Planner
from tests.catalog_kit import World, make_world


def drained_half_way() -> tuple[World, str, str, TaskId]:
    """A task on its way from n2, which drains, to n3: its world, both copies, its id."""
    world = make_world()
    task_id, old = world.log.running("web", "n2")
    world.log.must(SetNode(NodeId("id-n2"), Availability.DRAIN))
    return world, old, world.log.assign(task_id, "n3", replaces=old), task_id


def test_the_old_copy_is_kept_when_the_new_ones_node_dies_during_a_drain() -> None:
    world, old, new, task_id = drained_half_way()
    world.log.report(new, Phase.RUNNING)
    world.log.verdict("n3", VerdictKind.HOST_SILENT)
    assert Replacing().reconcile(world.view(), brake_until=0.0).replacements == ()
    [stop] = settle_moves(world.view())
    assert (stop.assignment_id, stop.keep) == (new, old)
    world.log.must(stop)
    assert world.catalog.tasks[task_id].assignment == old
    [again], _ = drain_wishes(world.view())
    assert again.replaces == old, "the drain goes on, to another node"
    world.log.must(SetNode(NodeId("id-n1"), Availability.ACTIVE))
    assert world.log.assign(task_id, "n1", replaces=old).endswith(".3")


def test_an_old_copy_that_was_told_to_stop_has_to_end_before_its_replacement_is_replaced() -> None:
    world, old, new, task_id = drained_half_way()
    world.log.report(new, Phase.RUNNING)
    world.log.must(StopAssignment(old, "moved"))
    world.log.verdict("n3", VerdictKind.HOST_SILENT)
    replacing = Replacing()
    assert replacing.reconcile(world.view(), brake_until=0.0).replacements == ()
    world.log.report(old, Phase.STOPPED)
    [replacement] = replacing.reconcile(world.view(), brake_until=0.0).replacements
    assert (replacement.task_id, replacement.replaces) == (task_id, new)


def test_a_move_that_failed_for_good_is_not_tried_again_without_end() -> None:
    world, _, new, task_id = drained_half_way()
    world.log.report(new, Phase.FAILED, reason="gave up")
    assert drain_wishes(world.view()) == ([], [])
    assert world.catalog.tasks[task_id].reason == "gave up"


def test_a_job_in_progress_is_let_run_to_its_end_on_a_draining_node() -> None:
    world = make_world()
    world.log.running("job", "n2", restart=Restart(RestartKind.NO))
    world.log.must(SetNode(NodeId("id-n2"), Availability.DRAIN))
    assert drain_wishes(world.view()) == ([], [])


def test_a_move_away_is_cancelled_when_the_node_takes_work_again() -> None:
    world, old, new, _ = drained_half_way()
    world.log.must(SetNode(NodeId("id-n2"), Availability.ACTIVE))
    [stop] = settle_moves(world.view())
    assert (stop.assignment_id, stop.keep) == (new, old)


def test_a_new_leader_brakes_for_deaths_its_gossip_saw_before_it_led() -> None:
    world = make_world(5)
    for name in ("n3", "n4", "n5"):
        world.dies(name)
    world.now += 2.0
    controller = VerdictController()
    assert len(controller.reconcile(world.view())) == 3
    assert controller.brake_until == world.now - 2.0 + 60.0


def test_old_deaths_do_not_make_a_new_leader_brake() -> None:
    world = make_world(5)
    for name in ("n3", "n4", "n5"):
        world.dies(name)
    world.now += 31.0
    controller = VerdictController()
    controller.reconcile(world.view())
    assert controller.brake_until == 0.0


def test_a_task_held_by_the_brake_says_how_to_release_it() -> None:
    world = make_world()
    world.log.running("web", "n2")
    world.log.verdict("n2", VerdictKind.HOST_SILENT)
    wishes = Replacing().reconcile(world.view(), brake_until=world.now + 60.0)
    assert wishes.replacements == ()
    assert "swarm node confirm-dead n2" in wishes.reasons[0].reason
    world.apply_all(wishes.reasons)
    assert Replacing().reconcile(world.view(), brake_until=world.now + 60.0).reasons == ()


def test_a_proposal_that_was_refused_rests_before_it_is_made_again() -> None:
    world = make_world()
    task_id = world.log.submit("web")
    planner = Planner()
    assert len(planner.plan(world.view()).commands) == 1
    planner.refused(task_id, world.now)
    assert planner.plan(world.view()).commands == ()
    world.now += 1.1
    assert len(planner.plan(world.view()).commands) == 1
    assert world.catalog.tasks[task_id].desired is Desired.RUNNING
