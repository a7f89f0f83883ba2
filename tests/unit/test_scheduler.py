"""Where tasks go, by which policy, and what is said when they go nowhere."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarm.errors import UsageError
from swarm.model.command import Admit, Assign, SetNode
from swarm.model.constraint import parse_constraint, parse_preference
from swarm.model.ids import NodeId, TaskId
from swarm.model.liveness import EngineState, MemberStatus, Sample
from swarm.model.node import Availability, VerdictKind
from swarm.model.placement import Replacement
from swarm.model.resources import Resources
from swarm.model.task import Mount, MountKind, Port
from swarm.scheduler import Plan, Planner, Policy, explain, plan
from tests.catalog_kit import GIB, World, make_node, make_world

MIB = 2**20


def places(made: Plan) -> list[str]:
    return [command.node_id.removeprefix("id-") for command in made.commands]


def test_spread_gives_each_node_its_turn_by_the_number_of_assignments() -> None:
    world = make_world()
    for number in range(6):
        world.log.submit(f"t{number}")
    assert places(plan(world.view())) == ["n1", "n2", "n3", "n1", "n2", "n3"]


def test_binpack_takes_the_tightest_fit() -> None:
    world = World(make_node("n1", memory=8 * GIB), make_node("n2", memory=2 * GIB), make_node("n3", memory=4 * GIB))
    for number in range(3):
        world.log.submit(f"t{number}", resources=Resources(100, 1 * GIB))
    assert places(plan(world.view(), policy=Policy.BINPACK)) == ["n2", "n2", "n3"]


def test_binpack_finds_the_only_fit_behind_many_misfits() -> None:
    world = World(*(make_node(f"n{i}", cpu=4000, memory=GIB) for i in range(1, 90)), make_node("big", memory=64 * GIB))
    world.log.submit("a", resources=Resources(100, 8 * GIB))
    assert places(plan(world.view(), policy=Policy.BINPACK)) == ["big"]


def test_least_loaded_goes_by_the_newest_samples() -> None:
    world = make_world()
    for name, cpu in (("n1", 900), ("n2", 100), ("n3", 500)):
        world.member(name, sample=Sample(NodeId(f"id-{name}"), 1, 2, cpu_used_permille=cpu, engine=EngineState.UP))
    world.log.submit("a")
    assert places(plan(world.view(), policy=Policy.LEAST_LOADED)) == ["n2"]


def test_round_robin_goes_on_after_the_node_chosen_last() -> None:
    world = make_world()
    planner = Planner(Policy.ROUND_ROBIN)
    chosen = []
    for number in range(5):
        world.log.submit(f"t{number}")
        made = planner.plan(world.view())
        chosen += places(made)
        world.apply_all(made.commands)
        planner.touch(command.node_id for command in made.commands)
    assert chosen == ["n1", "n2", "n3", "n1", "n2"]


def test_e_pvm_avoids_the_node_whose_cpu_is_measured_busy() -> None:
    world = make_world()
    for name, cpu in (("n1", 950), ("n2", 300), ("n3", 700)):
        world.member(name, sample=Sample(NodeId(f"id-{name}"), 1, 2, cpu_used_permille=cpu, engine=EngineState.UP))
    world.log.submit("a", resources=Resources(500))
    assert places(plan(world.view(), policy=Policy.E_PVM)) == ["n2"]


@pytest.mark.parametrize("policy", list(Policy))
def test_a_node_without_a_sample_is_chosen_last(policy: Policy) -> None:
    world = make_world()
    world.member("n1", sample=None)
    world.log.submit("a")
    assert places(plan(world.view(), policy=policy)) != ["n1"]


@pytest.mark.parametrize("policy", list(Policy))
def test_no_plan_overfills_a_node(policy: Policy) -> None:
    world = make_world(cpu=1000)
    tasks = [world.log.submit(f"t{number}", resources=Resources(400)) for number in range(8)]
    made = plan(world.view(), policy=policy)
    assert len(made.commands) == 6 and list(made.waiting) == tasks[6:]
    world.apply_all(made.commands)


def test_planning_again_before_the_first_plan_is_applied_proposes_nothing_twice() -> None:
    world = make_world(count=1, cpu=1000)
    planner = Planner()
    world.log.submit("a", resources=Resources(700))
    first = planner.plan(world.view())
    world.log.submit("b", resources=Resources(700))
    assert len(first.commands) == 1
    second = planner.plan(world.view())
    assert (second.commands, second.waiting) == ((), (TaskId("t-b"),))


def test_a_refused_proposal_gives_its_room_back() -> None:
    world = make_world(count=1, cpu=1000)
    planner = Planner()
    world.log.submit("a", resources=Resources(700))
    planner.plan(world.view())
    planner.settled(TaskId("t-a"))
    assert len(planner.plan(world.view()).commands) == 1


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"status": MemberStatus.SUSPECT}, "not alive by gossip"),
        ({"paused_until": 2_000.0}, "announced a pause"),
        ({"sample": Sample(NodeId("id-n2"), 1, 2, engine=EngineState.DOWN)}, "no working engine"),
    ],
)
def test_an_observation_excludes_a_node(what: dict[str, object], says: str) -> None:
    world = make_world(count=2)
    world.log.submit("a", constraints=("node.name==n2",))
    world.member("n2", **what)
    assert plan(world.view()).commands == ()
    assert says in explain(world.view(), TaskId("t-a")).summary


def test_a_node_that_is_silent_towards_the_leader_gets_no_work() -> None:
    world = make_world(count=2)
    world.silent["n2"] = world.now - 11
    world.log.submit("a", constraints=("node.name==n2",))
    assert plan(world.view()).commands == ()
    assert "silent towards the leader" in explain(world.view(), TaskId("t-a")).summary


def test_nothing_is_placed_on_drained_dead_or_witness_nodes() -> None:
    nodes = [make_node("n1"), make_node("n2"), make_node("n3", witness=True)]
    world = World(*nodes)
    world.log.must(SetNode(NodeId("id-n1"), Availability.DRAIN))
    world.log.verdict("n2", VerdictKind.CONFIRMED)
    world.log.submit("a")
    assert plan(world.view()).commands == ()
    summary = explain(world.view(), TaskId("t-a")).summary
    assert summary == "cannot place task 'a': no feasible node (1 is dead; 1 is set to drain; 1 is a witness)"


def test_constraints_choose_by_label_name_and_architecture() -> None:
    world = World(
        make_node("n1", labels=(("disk", "ssd"),)),
        make_node("n2", labels=(("disk", "hdd"),)),
        make_node("n3", labels=(("disk", "ssd"),), arch="aarch64"),
    )
    world.log.submit("a", constraints=("node.labels.disk==ssd", "node.hostname!=n1"))
    world.log.submit("b", constraints=("node.arch==x86_64", "node.labels.disk!=ssd"))
    world.log.submit("c", constraints=("node.platform.arch==arm64",))
    assert places(plan(world.view())) == ["n3", "n2", "n3"]


@pytest.mark.parametrize("text", ["", "node.labels.disk", "node.labels.==x", "node.colour==red", "node.name==", "disk=ssd"])
def test_a_constraint_that_cannot_be_read_is_quoted(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_constraint(text)
    assert repr(text) in caught.value.message and caught.value.hint


def test_a_preference_evens_out_over_a_label() -> None:
    world = World(*(make_node(f"n{i}", labels=(("zone", "a" if i < 4 else "b"),)) for i in range(1, 6)))
    for number in range(4):
        world.log.submit(f"t{number}", preferences=("spread=node.labels.zone",))
    zones = ["a" if int(name[1]) < 4 else "b" for name in places(plan(world.view()))]
    assert sorted(zones) == ["a", "a", "b", "b"]
    with pytest.raises(UsageError):
        parse_preference("spread")


def test_a_taken_host_port_sends_the_next_task_elsewhere() -> None:
    world = make_world(count=2)
    for name in ("a", "b", "c"):
        world.log.submit(name, ports=(Port(80, 80),))
    made = plan(world.view())
    assert places(made) == ["n1", "n2"]
    world.apply_all(made.commands)
    assert explain(world.view(), TaskId("t-c")).summary.endswith("(2 have host port 80/tcp taken)")


def test_a_shortage_is_told_with_what_is_needed_and_what_there_is() -> None:
    world = make_world(count=5, memory=310 * MIB)
    world.log.submit("web.2", resources=Resources(memory_bytes=512 * MIB))
    assert plan(world.view()).waiting == (TaskId("t-web-2"),)
    explanation = explain(world.view(), TaskId("t-web-2"))
    assert explanation.summary == (
        "cannot place task 'web.2': no feasible node (5 lack memory: need 512 MiB, most available 310 MiB)"
    )
    assert explanation.nodes[0] == ("id-n1", "lacks memory: need 512 MiB, available 310 MiB")


def test_a_pinned_task_waits_for_its_node_and_says_so() -> None:
    world = make_world()
    task_id, assignment = world.log.running("db", "n2", mounts=(Mount(MountKind.VOLUME, "data", "/d"),))
    world.log.verdict("n2", VerdictKind.HOST_SILENT)
    view = world.view()
    assert "dead" in explain(view, task_id).summary
    made = plan(view, replacements=[Replacement(task_id, assignment, NodeId("id-n2"), "dead")])
    assert made.commands == ()


def test_a_replacement_goes_first_and_never_to_the_node_it_leaves() -> None:
    world = make_world(count=2, cpu=1000)
    task_id, assignment = world.log.running("a", "n1", resources=Resources(900))
    waiting = world.log.submit("b", resources=Resources(900))
    made = plan(world.view(), replacements=[Replacement(task_id, assignment, NodeId("id-n1"), "drain")])
    assert made.commands == (Assign(task_id, 2, NodeId("id-n2"), assignment, "drain"),)
    assert made.waiting == (waiting,)


def test_what_found_no_place_is_placed_as_soon_as_a_node_has_room() -> None:
    world = make_world(count=1, cpu=100)
    planner = Planner()
    world.log.submit("a", resources=Resources(500))
    assert planner.plan(world.view()).commands == ()
    bigger = replace(make_node("n2"), fingerprint=b"2" * 32)
    world.log.must(Admit(bigger))
    world.members[bigger.id] = replace(world.members[NodeId("id-n1")], node_id=bigger.id)
    planner.touch([bigger.id])
    assert places(planner.plan(world.view())) == ["n2"]


def test_a_queue_without_a_place_holds_up_nobody_behind_it_and_goes_first_once_there_is_room() -> None:
    world = make_world(count=1, cpu=100)
    planner = Planner()
    large = [world.log.submit(f"large-{number}", resources=Resources(500)) for number in range(3)]
    assert [planner.plan(world.view()).waiting for _ in range(2)] == [tuple(large)] * 2
    small = world.log.submit("small", resources=Resources(50))
    made = planner.plan(world.view())
    assert ([each.task_id for each in made.commands], made.waiting) == ([small], tuple(large))
    bigger = replace(make_node("n2"), fingerprint=b"2" * 32)
    world.log.must(Admit(bigger))
    world.members[bigger.id] = replace(world.members[NodeId("id-n1")], node_id=bigger.id)
    planner.touch([bigger.id])
    assert [each.task_id for each in planner.plan(world.view()).commands] == large


def test_what_found_no_place_is_looked_at_again_after_a_second_though_nobody_told_of_a_change() -> None:
    world = make_world(count=2)
    planner = Planner()
    world.member("n2", status=MemberStatus.SUSPECT)
    waiting = tuple(world.log.submit(f"t{number}", constraints=("node.name==n2",)) for number in range(2))
    assert planner.plan(world.view()).waiting == waiting
    world.member("n2", status=MemberStatus.ALIVE)
    world.now += 0.5
    assert planner.plan(world.view()).waiting == waiting
    world.now += 1.0
    assert places(planner.plan(world.view())) == ["n2", "n2"]


def test_a_plan_stops_at_its_limit_and_says_there_is_more() -> None:
    world = make_world()
    for number in range(10):
        world.log.submit(f"t{number}")
    planner = Planner()
    first = planner.plan(world.view(), limit=4)
    rest = planner.plan(world.view(), limit=100)
    assert (len(first.commands), first.unfinished, len(rest.commands)) == (4, True, 6)
