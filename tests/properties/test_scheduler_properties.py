"""Whatever waits and whatever nodes there are: no plan overfills, every command is accepted, and planning again adds nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.model.ids import NodeId
from swarm.model.liveness import EngineState, MemberStatus, Sample
from swarm.model.resources import Resources
from swarm.model.task import Port
from swarm.scheduler import Planner, Policy, explain, plan
from tests.catalog_kit import GIB, World, make_node

sizes = st.tuples(st.integers(0, 4000), st.integers(0, 8 * GIB))
asks = st.tuples(
    st.integers(0, 3000),
    st.integers(0, 4 * GIB),
    st.sampled_from([(), (Port(80, 80),)]),
    st.sampled_from([(), ("node.labels.z==a",)]),
)
gossip = st.sampled_from([*MemberStatus, *[MemberStatus.ALIVE] * 4])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(sizes, gossip, st.integers(0, 1000), st.booleans()), min_size=1, max_size=6),
    st.lists(asks, max_size=14),
    st.sampled_from(Policy),
)
def test_a_plan_is_accepted_whole_and_leaves_nothing_that_fits(
    nodes: list[tuple[tuple[int, int], MemberStatus, int, bool]],
    tasks: list[tuple[int, int, tuple[Port, ...], tuple[str, ...]]],
    policy: Policy,
) -> None:
    world = World(
        *(
            make_node(f"n{i}", cpu=cpu, memory=memory, labels=(("z", "a" if labelled else "b"),))
            for i, ((cpu, memory), _, _, labelled) in enumerate(nodes, 1)
        )
    )
    for i, (_, status, cpu_used, _) in enumerate(nodes, 1):
        sample = Sample(NodeId(f"id-n{i}"), 1, 1, cpu_used_permille=cpu_used, engine=EngineState.UP)
        world.member(f"n{i}", status=status, sample=sample)
    for i, (cpu, memory, ports, constraints) in enumerate(tasks):
        world.log.submit(f"t{i}", resources=Resources(cpu, memory), ports=ports, constraints=constraints)
    planner = Planner(policy)
    made = planner.plan(world.view())
    assert len(made.commands) + len(made.waiting) == len(tasks)
    assert planner.plan(world.view()).commands == ()
    world.apply_all(made.commands)
    planner.touch(world.catalog.nodes)
    assert planner.plan(world.view()).commands == ()
    assert plan(world.view(), policy=policy).commands == ()
    for task_id in made.waiting:
        assert "cannot place" in explain(world.view(), task_id).summary
