"""The voter set, whatever dies, returns, moves and is labelled: never even, never without a majority in contact; it converges,
and nothing is changed when nothing has changed."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarm.controllers import VoterController, VotersConfig
from swarm.controllers.spread import crowding
from swarm.controllers.voters import voters_wanted
from swarm.model.entry import Configuration, Voter
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, Sample
from swarm.model.node import Availability
from swarm.model.view import ClusterView, FollowerView
from tests.catalog_kit import make_member, make_node

CONFIG = VotersConfig(give_up_s=60.0)
IDS = [NodeId(f"id-n{number}") for number in range(8)]
LEADER = IDS[0]
others = st.integers(1, 7)
EVENTS = st.one_of(
    st.tuples(st.just("die"), others),
    st.tuples(st.just("return"), others),
    st.tuples(st.just("cut"), others),
    st.tuples(st.just("leave"), others),
    st.tuples(st.just("rejoin"), others),
    st.tuples(st.just("wipe"), others),
    st.tuples(st.just("stall"), others),
    st.tuples(st.just("drain"), others),
    st.tuples(st.just("zone"), st.tuples(others, st.sampled_from("abc"))),
    st.tuples(st.just("load"), st.tuples(others, st.integers(0, 1000))),
    st.tuples(st.just("wait"), st.sampled_from([1, 16, 61])),
)


class World:
    """What a leader sees of its cluster; a change of the voters that it wants is in force at once."""

    def __init__(self, count: int, zones: str, witnesses: set[int], voters: int) -> None:
        nodes = [
            make_node(
                f"n{number}", witness=number in witnesses,
                labels=() if zones[number] == "-" else (("zone", zones[number]),), joined_index=number,
            )
            for number in range(count)
        ]  # fmt: skip
        self.nodes = {node.id: node for node in nodes}
        self.members = {node.id: make_member(node) for node in nodes}
        self.silent_since: dict[NodeId, float] = {}
        self.stalled: set[NodeId] = set()
        founders = min(voters, count) - 1 + min(voters, count) % 2
        self.configuration = Configuration(tuple(Voter(node_id, 1) for node_id in IDS[:founders]))
        self.now = 100.0
        self.controller = VoterController(CONFIG)
        self.changes: list[tuple[float, Configuration]] = []

    def view(self) -> ClusterView:
        followers = {
            node_id: FollowerView(node_id, 100, 100, self.silent_since.get(node_id, self.now), 9.0 * (node_id in self.stalled))
            for node_id in self.nodes
            if node_id != LEADER
        }
        return ClusterView(
            now=self.now, self_id=LEADER, nodes=self.nodes, tasks={}, assignments={}, by_node={}, reserved={}, pending=(),
            members=self.members, last_index=100, is_leader=True, leader_since=90.0, configuration=self.configuration,
            followers=followers,
        )  # fmt: skip

    def in_contact(self, voter: Voter) -> bool:
        node_id = NodeId(voter.node_id)
        return node_id == LEADER or (
            node_id in self.nodes
            and self.nodes[node_id].store_generation == voter.store_generation
            and self.now - self.silent_since.get(node_id, self.now) <= CONFIG.contact_s
        )

    def is_of_use(self, voter: Voter) -> bool:
        """In contact, and no node that has left: that one goes, however well it answers."""
        node = self.nodes.get(NodeId(voter.node_id))
        return self.in_contact(voter) and node is not None and node.availability is not Availability.LEFT

    def look(self) -> None:
        """One look of the leader; what it wants must keep every rule, and comes into force."""
        before = self.configuration.voters
        wanted = self.controller.reconcile(self.view())
        if wanted is None:
            return
        assert len(wanted) % 2 == 1, "never even"
        assert len({voter.node_id for voter in wanted}) == len(wanted)
        assert Voter(LEADER, 1) in wanted
        there = sum(map(self.in_contact, wanted))
        assert 2 * there > len(wanted), "never without a majority in contact"
        assert self.is_worth_it(before, wanted)
        assert not self.changes or self.now - self.changes[-1][0] >= CONFIG.change_interval_s
        self.configuration = Configuration(wanted)
        self.changes.append((self.now, self.configuration))

    def is_worth_it(self, before: tuple[Voter, ...], wanted: tuple[Voter, ...]) -> bool:
        """Another size, fewer who cannot or should not vote, or a strictly better spread: no change for nothing."""
        if len(before) != len(wanted):
            return True
        gone = [voter for voter in before if not self.is_of_use(voter)]
        still_gone = [voter for voter in wanted if not self.is_of_use(voter)]
        view = self.view()
        return len(still_gone) < len(gone) or crowding(view, wanted) < crowding(view, before)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.look()

    def take(self, what: str, argument: Any) -> None:
        number = argument[0] if isinstance(argument, tuple) else argument
        if what == "wait":
            self.run(argument)
            return
        node_id = IDS[number]
        if node_id not in self.nodes:
            return
        node, member = self.nodes[node_id], self.members[node_id]
        match what:
            case "die":
                self.members[node_id] = replace(member, status=MemberStatus.DEAD)
                self.silent_since.setdefault(node_id, self.now)
            case "cut":
                self.silent_since.setdefault(node_id, self.now)
            case "return":
                self.members[node_id] = replace(member, status=MemberStatus.ALIVE)
                self.silent_since.pop(node_id, None)
                self.stalled.discard(node_id)
                self.nodes[node_id] = replace(node, availability=Availability.ACTIVE)
            case "leave":
                self.nodes[node_id] = replace(node, availability=Availability.LEFT)
            case "rejoin" | "drain":
                wanted = Availability.ACTIVE if what == "rejoin" else Availability.DRAIN
                self.nodes[node_id] = replace(node, availability=wanted)
            case "wipe":
                self.nodes[node_id] = replace(node, store_generation=node.store_generation + 1)
            case "stall":
                self.stalled.add(node_id)
            case "zone":
                self.nodes[node_id] = replace(node, labels=(("zone", argument[1]),))
            case "load":
                sample = Sample(node_id, 1, 1, cpu_used_permille=argument[1])
                self.members[node_id] = replace(member, sample=sample)

    def heal(self) -> None:
        for number in range(1, len(self.nodes)):
            self.take("return", number)


WORLDS = st.builds(
    World,
    count=st.integers(1, 8),
    zones=st.text("ab-", min_size=8, max_size=8),
    witnesses=st.sets(st.integers(1, 7), max_size=2),
    voters=st.sampled_from([1, 3, 5]),
)


@settings(deadline=None, max_examples=150)
@given(WORLDS, st.lists(EVENTS, max_size=20))
def test_no_change_is_even_or_without_a_majority_or_for_nothing(world: World, events: list[tuple[str, Any]]) -> None:
    for what, argument in events:
        world.take(what, argument)
        world.run(2)


@settings(deadline=None, max_examples=100)
@given(WORLDS, st.lists(EVENTS, max_size=20))
def test_healed_it_converges_to_the_wanted_size_in_the_best_spread_and_then_stays(
    world: World, events: list[tuple[str, Any]]
) -> None:
    for what, argument in events:
        world.take(what, argument)
        world.run(2)
    world.heal()
    world.run(400)
    voters, view = world.configuration.voters, world.view()
    assert len(voters) == min(voters_wanted(len(world.nodes)), len(world.nodes))
    assert all(map(world.in_contact, voters))
    learners = [Voter(node.id, node.store_generation) for node in world.nodes.values()]
    for comes in [each for each in learners if each not in voters]:
        for goes in [each for each in voters if each.node_id != LEADER]:
            exchanged = [each for each in voters if each != goes] + [comes]
            assert crowding(view, exchanged) >= crowding(view, voters), "no exchange would spread it better"
    world.changes.clear()
    world.run(200)
    assert world.changes == [], "nothing has changed, so nothing is changed"


@settings(deadline=None, max_examples=50)
@given(WORLDS)
def test_an_unreachable_newcomer_never_becomes_a_voter(world: World) -> None:
    """PROTOCOLS S13: adding a node that does not answer leaves the quorum as it is."""
    stranger = make_node("stranger")
    world.nodes[stranger.id] = stranger
    world.members[stranger.id] = make_member(stranger)
    world.silent_since[stranger.id] = -1000.0
    world.run(150)
    assert stranger.id not in {voter.node_id for voter in world.configuration.voters}


@settings(deadline=None, max_examples=50)
@given(WORLDS, st.integers(1, 7))
def test_the_same_view_gives_the_same_set_whatever_the_order_of_its_tables(world: World, cut: int) -> None:
    """Ties break on the id: the order of a mapping decides nothing."""
    view = world.view()
    items = list(view.nodes.items())
    turned = dataclasses.replace(view, nodes=dict(items[cut:] + items[:cut]))
    wanted = []
    for first in (view, turned):
        controller = VoterController(CONFIG)
        controller.reconcile(first)
        later = dataclasses.replace(first, now=first.now + 70.0)
        followers = {each: dataclasses.replace(follower, last_contact=later.now) for each, follower in first.followers.items()}
        wanted.append(controller.reconcile(dataclasses.replace(later, followers=followers)))
    assert wanted[0] == wanted[1]
