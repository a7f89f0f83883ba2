"""Whatever dies, returns and drains: nothing is proposed twice, nothing the catalog refuses, and it ends."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.controllers import Replacing, VerdictController, drain_wishes, settle_moves
from swarm.model.command import RemoveNode, SetNode, StopTask
from swarm.model.ids import NodeId
from swarm.model.node import Availability, VerdictKind
from swarm.model.phase import Desired, Phase
from swarm.model.task import Mount, MountKind, Restart, RestartKind
from swarm.model.view import ClusterView
from swarm.scheduler import Planner
from tests.catalog_kit import World, make_world

NAMES = ("n1", "n2", "n3", "n4")
others = st.sampled_from(NAMES[1:])
deaths = st.sampled_from([kind for kind in VerdictKind if kind not in (VerdictKind.ALIVE, VerdictKind.CONFIRMED)])
STEPS = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from(["plain", "plain", "pinned", "job"])),
    st.tuples(st.just("run"), st.integers(0, 9)),
    st.tuples(st.just("end"), st.tuples(st.integers(0, 9), st.sampled_from([Phase.FAILED, Phase.SUCCEEDED, Phase.STOPPED]))),
    st.tuples(st.just("obey"), st.integers(0, 9)),
    st.tuples(st.just("die"), st.tuples(others, deaths)),
    st.tuples(st.just("return"), others),
    st.tuples(st.just("drain"), st.sampled_from(NAMES)),
    st.tuples(st.just("undrain"), st.sampled_from(NAMES)),
    st.tuples(st.just("remove"), others),
    st.tuples(st.just("stop"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 31.0, 61.0])),
)


class Leader:
    """The duties as the driver runs them, each step's commands applied before the next look."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.planner = Planner()
        self.verdicts = VerdictController()
        self.replacing = Replacing()

    def decide(self, view: ClusterView) -> list[Any]:
        verdicts = self.verdicts.reconcile(view)
        if verdicts:
            return list(verdicts)
        wishes = self.replacing.reconcile(view, brake_until=self.verdicts.brake_until)
        moves, stops = drain_wishes(view)
        placed = self.planner.plan(view, replacements=(*wishes.replacements, *moves))
        return [*settle_moves(view), *stops, *wishes.reasons, *placed.commands]

    def settle(self) -> None:
        """Until nothing more is proposed. Nothing is refused on the way."""
        for _ in range(12):
            commands = self.decide(self.world.view())
            if not commands:
                return
            for command in commands:
                applied = self.world.log.must(command)
                self.planner.touch(NodeId(node_id) for node_id in applied.touched_nodes)
        raise AssertionError(f"still proposing {commands}")


def take(world: World, what: str, argument: Any, number: int) -> None:
    """One thing that happens to the cluster."""
    catalog = world.catalog
    live = [catalog.assignments[key] for key in sorted(catalog.assignments) if not catalog.assignments[key].ended]
    reachable = [assignment for assignment in live if not assignment.unreachable_since_index]
    match what:
        case "submit":
            fields: dict[str, Any] = {"plain": {}, "job": {"restart": Restart(RestartKind.NO)}}.get(argument, {})
            if argument == "pinned":
                fields = {"mounts": (Mount(MountKind.VOLUME, "v", "/v"),)}
            world.log.submit(f"t{number}", **fields)
        case "run" if reachable:
            chosen = reachable[argument % len(reachable)]
            if chosen.desired is Desired.RUNNING:
                world.log.report(chosen.id, Phase.RUNNING)
        case "end" if reachable:
            chosen = reachable[argument[0] % len(reachable)]
            world.log.report(chosen.id, argument[1], reason="ended")
        case "obey" if reachable:
            for chosen in reachable:
                if chosen.desired is Desired.STOPPED:
                    world.log.report(chosen.id, Phase.STOPPED)
        case "die" if NodeId(f"id-{argument[0]}") in catalog.nodes:
            world.dies(*argument)
        case "return" if NodeId(f"id-{argument}") in catalog.nodes:
            world.returns(argument)
        case "drain" | "undrain" if NodeId(f"id-{argument}") in catalog.nodes:
            wanted = Availability.DRAIN if what == "drain" else Availability.ACTIVE
            world.log.must(SetNode(NodeId(f"id-{argument}"), wanted))
        case "remove":
            world.log.apply(RemoveNode(NodeId(f"id-{argument}")))
            world.members.pop(NodeId(f"id-{argument}"), None)
        case "stop" if catalog.tasks:
            world.log.must(StopTask(sorted(catalog.tasks)[argument % len(catalog.tasks)]))
        case "wait":
            world.now += argument
        case _:
            pass


@settings(deadline=None, max_examples=200)
@given(st.lists(STEPS, max_size=40))
def test_the_duties_settle_after_anything_and_no_command_is_refused(steps: list[tuple[str, Any]]) -> None:
    world = make_world(4)
    leader = Leader(world)
    for number, (what, argument) in enumerate(steps):
        take(world, what, argument, number)
        leader.planner.touch(NodeId(f"id-{name}") for name in NAMES)
        leader.settle()
        world.now += 0.5


@settings(deadline=None, max_examples=100)
@given(st.lists(STEPS, max_size=30))
def test_after_healing_every_task_that_should_run_has_one_copy_on_a_node_that_may_run_it(steps: list[tuple[str, Any]]) -> None:
    world = make_world(4)
    leader = Leader(world)
    for number, (what, argument) in enumerate(steps):
        if what != "remove":
            take(world, what, argument, number)
        leader.planner.touch(NodeId(f"id-{name}") for name in NAMES)
        leader.settle()
    for name in NAMES:
        take(world, "undrain", name, 0)
        world.returns(name)
    for _ in range(8):
        world.now += 61.0
        leader.planner.touch(NodeId(f"id-{name}") for name in NAMES)
        leader.settle()
        take(world, "obey", 0, 0)
        for assignment in list(world.catalog.assignments.values()):
            if not assignment.ended and assignment.desired is Desired.RUNNING and assignment.phase is not Phase.RUNNING:
                world.log.report(assignment.id, Phase.RUNNING)
    for task in world.catalog.tasks.values():
        if task.desired is Desired.RUNNING and not task.ended:
            assert task.previous == ""
            current = world.catalog.assignments[task.assignment]
            assert (current.phase, current.desired) == (Phase.RUNNING, Desired.RUNNING)
        else:
            assert task.ended
