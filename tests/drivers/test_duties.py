"""The leader's duties on virtual time: real replicas, catalogs, controllers and scheduler; gossip is a mapping we change."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from swarm.catalog import Catalog
from swarm.consensus.config import ConsensusConfig
from swarm.drivers.consensus import Replica
from swarm.drivers.controllers import Duties
from swarm.drivers.leaving import GIVE_AWAY_S, Leaving
from swarm.drivers.view import ViewSource
from swarm.model.command import Found, Report, Reports, SetNode, Submit, SubmitMany
from swarm.model.entry import KIND_FOUND, Entry, HardState, Voter
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.liveness import MemberStatus
from swarm.model.node import Availability, Node, VerdictKind
from swarm.model.phase import Phase
from swarm.ports import Batch
from swarm.wire.codec import encode
from tests.catalog_kit import make_member, make_node, make_spec
from tests.fakes.memory_peers import MemoryNetwork
from tests.fakes.memory_store import MemoryStore

NODES = tuple(make_node(f"n{number}") for number in range(1, 4))


class TrioClock:
    def now(self) -> float:
        return trio.current_time()

    def utc(self) -> float:
        return trio.current_time()


class Cluster:
    """Three nodes in one process, all voters unless fewer are wanted."""

    def __init__(self, nursery: trio.Nursery, nodes: tuple[Node, ...] = NODES, voters: int = 3) -> None:
        self.nodes = nodes
        self.nursery = nursery
        self.network = MemoryNetwork()
        self.members = {node.id: make_member(node) for node in nodes}
        self.learners = tuple(Voter(node.id, 1) for node in nodes)
        self.voters = self.learners[:voters]
        self.replicas: dict[NodeId, Replica] = {}
        self.catalogs: dict[NodeId, Catalog] = {}
        self.duties: dict[NodeId, Duties] = {}
        self.leaving: dict[NodeId, Leaving] = {}
        self.scopes: dict[NodeId, trio.CancelScope] = {}
        self.requests = 0

    async def start(self, node_id: NodeId) -> None:
        store = MemoryStore()
        entry = Entry(1, 1, KIND_FOUND, 1, encode(Found(ClusterId("c"), self.nodes, self.voters)), 0, 0.0)
        await store.write([Batch(1, (entry,), hard_state=HardState(0, 1))])
        catalog = self.catalogs[node_id] = Catalog()
        peers = self.network.peers(node_id)
        replica = self.replicas[node_id] = Replica(
            me=Voter(node_id, 1), recovery_generation=0, config=ConsensusConfig(), rng=random.Random(node_id),
            stored=store.durable, store=store, catalog=catalog, peers=peers, clock=TrioClock(),
            learners=lambda: self.learners,
        )  # fmt: skip
        leaving = self.leaving[node_id] = Leaving(replica, catalog, peers, TrioClock())
        views = ViewSource(replica, catalog, lambda: self.members, TrioClock(), leaving.ids)
        self.duties[node_id] = Duties(replica, views, TrioClock())
        self.scopes[node_id] = await self.nursery.start(self._run, node_id)

    async def _run(self, node_id: NodeId, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.replicas[node_id].run)
            await nursery.start(self.duties[node_id].run)
            task_status.started(nursery.cancel_scope)

    async def leader(self) -> NodeId:
        def found() -> bool:
            return any(self.replicas[node_id].may_act for node_id in self.scopes)

        await eventually(found)
        return next(node_id for node_id in self.scopes if self.replicas[node_id].may_act)

    async def submit(self, command: object) -> str:
        self.requests += 1
        replica = self.replicas[next(iter(self.scopes))]
        return (await replica.submit(command, request_id=RequestId(f"r{self.requests}"))).value

    async def run_all(self) -> None:
        """Every runner reports that what was assigned runs and what was stopped has stopped."""
        catalog = self.catalogs[next(iter(self.scopes))]
        for each in list(catalog.assignments.values()):
            if not each.ended and each.phase is not Phase.RUNNING and each.node_id in self.scopes:
                report = Report(each.id, each.report_sequence + 1, Phase.RUNNING)
                await self.submit(Reports(each.node_id, (report,)))

    def die(self, node_id: NodeId, kind: VerdictKind) -> None:
        self.scopes.pop(node_id).cancel()
        self.network.isolate(node_id)
        self.members[node_id] = replace(
            self.members[node_id], status=MemberStatus.DEAD, death_kind=kind, since=trio.current_time()
        )
        for duties in self.duties.values():
            duties.wake()

    def current(self, name: str) -> str:
        """Name of the node that a task is assigned to, or empty."""
        catalog = self.catalogs[next(iter(self.scopes))]
        task = catalog.find_task(name)
        assignment = catalog.assignments.get(task.assignment)
        return catalog.nodes[assignment.node_id].name if assignment is not None else ""


async def eventually(condition: Callable[[], bool], *, within_s: float = 10.0) -> float:
    began = trio.current_time()
    with trio.fail_after(within_s):
        while not condition():
            await trio.sleep(0.005)
    return trio.current_time() - began


@asynccontextmanager
async def three_nodes(nodes: tuple[Node, ...] = NODES, *, voters: int = 3) -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery, nodes, voters)
        for node in nodes:
            await cluster.start(node.id)
        yield cluster
        nursery.cancel_scope.cancel()


async def test_a_submitted_task_is_assigned_without_waiting_for_the_next_look(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as cluster:
        await cluster.leader()
        await trio.sleep(0.33)
        await cluster.submit(Submit(TaskId("t1"), make_spec("web")))
        assert await eventually(lambda: cluster.current("web") != "") < 0.2


async def test_sixty_tasks_are_spread_over_three_nodes_each_proposed_once(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as cluster:
        leader = await cluster.leader()
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(cluster.submit, Submit(TaskId(f"t{number}"), make_spec(f"web-{number}")))
        catalog = cluster.catalogs[leader]
        await eventually(lambda: len(catalog.assignments) == 60)
        assert sorted(len(catalog.by_node[node.id]) for node in NODES) == [20, 20, 20]
        assert cluster.duties[leader].counters["proposed_Assign"] == 60


class LosesTheLead:
    """A replica that takes one proposal, and then leads no more, or in another term and then no more."""

    def __init__(self, replica: Replica, lost: str) -> None:
        self.replica, self.lost, self.proposed = replica, lost, 0
        self.over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.replica, name)

    @property
    def may_act(self) -> bool:
        return self.replica.may_act and not self.over and not (self.proposed and self.lost == "the lease")

    @property
    def term(self) -> int:
        self.over = self.proposed > 0
        return self.replica.term + (self.lost == "the term" and self.over)

    def propose_packed(self, *packed: Any) -> Any:
        self.proposed += 1
        return self.replica.propose_packed(*packed)


@pytest.mark.parametrize("lost", ["the lease", "the term"])
async def test_what_was_decided_is_not_proposed_once_the_lead_is_lost_in_between(
    autojump_clock: trio.testing.MockClock, lost: str
) -> None:
    async with three_nodes() as cluster:
        leader = await cluster.leader()
        duties = cluster.duties[leader]
        replica = LosesTheLead(cluster.replicas[leader], lost)
        tasks = tuple(Submit(TaskId(f"t{number}"), make_spec(f"web-{number}")) for number in range(3))
        duties._replica = replica  # type: ignore[assignment]
        await cluster.submit(SubmitMany(tasks))
        await eventually(lambda: replica.proposed > 0)
        assert duties.counters["proposed_Assign"] == 1, "of three that one look had decided on"


async def test_a_silent_hosts_work_runs_elsewhere_soon_and_a_gone_daemons_after_its_grace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for kind, at_least_s, at_most_s in ((VerdictKind.HOST_SILENT, 0.0, 1.0), (VerdictKind.DAEMON_GONE, 29.0, 33.0)):
        async with three_nodes() as cluster:
            leader = await cluster.leader()
            spec = make_spec("web", constraints=(f"node.name!={cluster.catalogs[leader].nodes[leader].name}",))
            await cluster.submit(Submit(TaskId("t1"), spec))
            await eventually(lambda c=cluster: c.current("web") != "")
            victim = next(node for node in NODES if node.name == cluster.current("web"))
            await cluster.run_all()
            cluster.die(victim.id, kind)
            took = await eventually(lambda c=cluster, v=victim: c.current("web") != v.name, within_s=60.0)
            assert at_least_s <= took <= at_most_s


async def test_a_new_leader_takes_the_duties_over(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as cluster:
        leader = await cluster.leader()
        name = cluster.catalogs[leader].nodes[leader].name
        for number in range(3):
            await cluster.submit(Submit(TaskId(f"t{number}"), make_spec(f"web-{number}")))
        await eventually(lambda: all(cluster.current(f"web-{number}") for number in range(3)))
        await cluster.run_all()
        assert name in [cluster.current(f"web-{number}") for number in range(3)]
        cluster.die(leader, VerdictKind.HOST_SILENT)
        await cluster.leader()
        await cluster.submit(Submit(TaskId("late"), make_spec("late")))
        await eventually(lambda: cluster.current("late") not in ("", name))
        await eventually(lambda: name not in [cluster.current(f"web-{number}") for number in range(3)])


async def test_a_drained_nodes_work_runs_elsewhere_before_it_stops(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as cluster:
        leader = await cluster.leader()
        await cluster.submit(Submit(TaskId("t1"), make_spec("web")))
        await eventually(lambda: cluster.current("web") != "")
        await cluster.run_all()
        catalog = cluster.catalogs[leader]
        old = catalog.assignments[catalog.find_task("web").assignment]
        await cluster.submit(SetNode(old.node_id, Availability.DRAIN))
        await eventually(lambda: catalog.find_task("web").previous == old.id)
        assert catalog.assignments[old.id].desired == "running"
        await cluster.run_all()
        await eventually(lambda: catalog.assignments[old.id].desired == "stopped")


def voters_of(cluster: Cluster, node_id: NodeId) -> list[str]:
    return [voter.node_id for voter in cluster.replicas[node_id].configuration.voters]


async def test_a_voter_that_leaves_gives_its_vote_away_first(autojump_clock: trio.testing.MockClock) -> None:
    """Also when two leave at once: the one that stays goes on alone."""
    async with three_nodes() as cluster:
        leader = await cluster.leader()
        await trio.sleep(25.0)
        goes = [node.id for node in NODES if node.id != leader]
        gave: list[bool] = []

        async def leave(node_id: NodeId) -> None:
            gave.append(await cluster.leaving[node_id].give_vote_away())

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for node_id in goes:
                nursery.start_soon(leave, node_id)
        assert gave == [True, True]
        assert trio.current_time() - began < GIVE_AWAY_S
        assert voters_of(cluster, leader) == [leader]
        for node_id in goes:
            cluster.die(node_id, VerdictKind.HOST_SILENT)
        assert cluster.replicas[leader].may_act
        await cluster.submit(Submit(TaskId("t1"), make_spec("web")))


async def test_a_leader_that_leaves_is_followed_by_its_heir_in_less_than_200_ms(autojump_clock: trio.testing.MockClock) -> None:
    nodes = (*NODES, make_node("n4"))
    async with three_nodes(nodes) as cluster:
        leader = await cluster.leader()
        await trio.sleep(25.0)
        without: list[float] = []

        async def watch() -> None:
            while True:
                if not any(replica.may_act for replica in cluster.replicas.values()):
                    without.append(trio.current_time())
                await trio.sleep(0.005)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            assert await cluster.leaving[leader].give_vote_away()
            await trio.sleep(3.0)
            nursery.cancel_scope.cancel()
        assert len(without) * 0.005 < 0.2
        heir = await cluster.leader()
        assert heir != leader
        assert voters_of(cluster, heir) == sorted(node.id for node in nodes if node.id != leader)


async def test_the_only_voter_of_others_does_not_leave_when_nobody_can_take_its_vote(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_nodes(NODES[:2], voters=1) as cluster:
        leader = await cluster.leader()
        other = next(node.id for node in NODES[:2] if node.id != leader)
        cluster.die(other, VerdictKind.HOST_SILENT)
        began = trio.current_time()
        assert not await cluster.leaving[leader].give_vote_away()
        assert GIVE_AWAY_S <= trio.current_time() - began < GIVE_AWAY_S + 3
    async with three_nodes(NODES[:1], voters=1) as cluster:
        leader = await cluster.leader()
        assert await cluster.leaving[leader].give_vote_away(), "nobody stays behind"


async def test_a_witness_that_was_elected_hands_over_to_a_full_voter(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes(tuple(replace(node, witness=node.name != "n3") for node in NODES)) as cluster:
        await eventually(lambda: cluster.replicas[NODES[2].id].may_act, within_s=60.0)
        await trio.sleep(20.0)
        assert await cluster.leader() == NODES[2].id
