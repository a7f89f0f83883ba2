"""A Hypothesis state machine on the consensus core: each message, write, tick and crash of five nodes is its choice.

The network keeps what was sent until it is delivered, in any order, twice, or lost. Writes become durable one at a time; a crash
loses the others. After each step: one leader a term, leases disjoint (all clocks are one here), logs match, what was committed
anywhere is final and is in the log of every later leader (Raft, figure 3), no core's own check fails.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from swarm.consensus import quorum
from swarm.consensus.config import ConsensusConfig
from swarm.consensus.core import Consensus
from swarm.consensus.effects import Apply, Persist, Role, Send
from swarm.consensus.messages import Message
from swarm.errors import Bug, OperatorError
from swarm.model.entry import Entry, HardState, Voter
from swarm.model.ids import NodeId, RequestId
from swarm.ports import Batch
from tests.fakes.consensus_cluster import core, founding, voters
from tests.fakes.memory_store import MemoryStore

NAMES = "abcde"
VOTERS = "abc"
PICK = st.integers(0, 10_000)
FLIGHT_MAX = 60
CONFIG = ConsensusConfig(stream_learners_min=1, stream_pause_s=1.0)
"""So that learners take entries from peers, and often begin to."""
BOUNDS = settings(stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck))


class Machine(RuleBasedStateMachine):
    """Five nodes, three of which vote at first."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.disks = {name: MemoryStore() for name in NAMES}
        self.nodes: dict[str, Consensus] = {}
        self.queues: dict[str, list[Batch]] = {}
        self.flight: list[tuple[str, str, Message]] = []
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, Entry] = {}
        for name in NAMES:
            if name in VOTERS:
                self.disks[name].keep(Batch(1, (founding(VOTERS),), hard_state=HardState(0, 1)))
            self.start(name)

    def start(self, name: str) -> None:
        self.nodes[name] = core(name, self.disks[name].durable, now=self.now, config=CONFIG)
        self.nodes[name].set_learners(voters(NAMES), self.now)
        self.queues[name] = []

    def collect(self) -> None:
        for name, node in self.nodes.items():
            for effect in node.take_effects():
                match effect:
                    case Send(to, message):
                        self.flight.append((name, to, message))
                    case Persist(batch, _):
                        self.queues[name].append(batch)
                    case Apply(entries):
                        for entry in entries:
                            assert self.committed.setdefault(entry.index, entry) == entry, f"{name}: another {entry.index}"
                        node.on_applied(entries[-1].index, self.now)
                    case _:
                        pass
        del self.flight[:-FLIGHT_MAX]

    def leading(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.role is Role.LEADER]

    # ---- what may happen

    @rule(who=PICK)
    def somebodys_time_has_come(self, who: int) -> None:
        due = sorted(self.nodes, key=lambda name: self.nodes[name].next_deadline)
        name = due[0] if who % 3 else due[who % len(due)]
        deadline = self.nodes[name].next_deadline
        if deadline < float("inf"):
            self.now = max(self.now, deadline) + 1e-6
            self.nodes[name].tick(self.now)
            self.collect()

    @precondition(lambda self: self.flight)
    @rule(which=PICK, doubled=st.booleans(), count=st.integers(1, 8))
    def messages_arrive(self, which: int, doubled: bool, count: int) -> None:
        for _ in range(min(count, len(self.flight))):
            source, to, message = self.flight[which % len(self.flight)]
            if not doubled:
                del self.flight[which % len(self.flight)]
            self.now += 0.0005
            if to in self.nodes:
                self.nodes[to].on_message(NodeId(source), message, self.now)
                self.collect()

    @precondition(lambda self: self.flight)
    @rule(which=PICK)
    def a_message_is_lost(self, which: int) -> None:
        del self.flight[which % len(self.flight)]

    @rule(count=st.integers(1, 4))
    def disks_write(self, count: int) -> None:
        for name, queue in self.queues.items():
            for batch in queue[:count]:
                self.disks[name].keep(batch)
                self.nodes[name].on_persisted(batch.number, self.now)
            del queue[:count]
        self.collect()

    @rule(who=st.sampled_from(NAMES))
    def one_crashes_and_starts(self, who: str) -> None:
        self.start(who)
        self.collect()

    @precondition(lambda self: self.leading())
    @rule(which=PICK)
    def a_leader_proposes(self, which: int) -> None:
        leading = self.leading()
        try:
            node = self.nodes[leading[which % len(leading)]]
            node.propose("task.reason", 1, b"%d" % which, RequestId(""), self.now, 0.0)
        except OperatorError:
            return
        self.collect()

    @precondition(lambda self: self.leading())
    @rule(which=PICK, chosen=st.sampled_from(["a", "abc", "bcd", "cde", "abcde", "ade"]))
    def a_leader_changes_the_voters(self, which: int, chosen: str) -> None:
        leading = self.leading()
        try:
            self.nodes[leading[which % len(leading)]].propose_configuration(voters(chosen), self.now, 0.0)
        except OperatorError:
            return
        self.collect()

    @precondition(lambda self: self.leading())
    @rule(which=PICK, to=st.sampled_from(NAMES))
    def a_leader_hands_over(self, which: int, to: str) -> None:
        leading = self.leading()
        try:
            self.nodes[leading[which % len(leading)]].transfer_leadership(NodeId(to), self.now)
        except OperatorError:
            return
        self.collect()

    # ---- what must hold

    @invariant()
    def one_leader_a_term_that_has_everything_committed(self) -> None:
        for name in self.leading():
            node = self.nodes[name]
            assert self.leaders.setdefault(node.term, name) == name, f"two leaders in term {node.term}"
            for index, entry in self.committed.items():
                if entry.term < node.term:
                    assert node.term_at(index) == entry.term, f"{name} leads term {node.term} without entry {index}"

    @invariant()
    def leases_are_disjoint(self) -> None:
        assert len([name for name, node in self.nodes.items() if node.lease_valid(self.now)]) <= 1

    @invariant()
    def logs_match_and_every_core_is_sound(self) -> None:
        seen: dict[tuple[int, int], tuple[Entry, int]] = {}
        for node in self.nodes.values():
            node.check()
            previous = 0
            for index in range(1, node.last_index + 1):
                entry = node.entry_at(index)
                assert entry is not None
                assert seen.setdefault((index, entry.term), (entry, previous)) == (entry, previous)
                previous = entry.term


def test_no_order_of_events_breaks_a_rule() -> None:
    run_state_machine_as_test(Machine, settings=settings(BOUNDS, max_examples=25))


def test_a_core_for_which_half_is_a_majority_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quorum, "majority", lambda count: max(1, count // 2))
    with pytest.raises((AssertionError, Bug)):
        run_state_machine_as_test(Machine, settings=settings(BOUNDS, max_examples=200, derandomize=True, phases=[Phase.generate]))


def test_the_machine_gets_as_far_as_committed_commands_and_learners_that_take_from_peers() -> None:
    machine = Machine()
    for step in range(400):
        machine.somebodys_time_has_come(1)
        machine.disks_write(4)
        while machine.flight:
            machine.messages_arrive(0, False, 8)
            machine.disks_write(4)
        if machine.leading() and step % 20 == 0:
            machine.a_leader_proposes(0)
    assert Voter("a", 1) in machine.nodes["a"].configuration.voters
    assert sum(entry.kind == "task.reason" for entry in machine.committed.values()) > 5
    assert all(machine.nodes[name]._state.stream.taking for name in "de")
