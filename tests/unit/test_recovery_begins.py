"""Beginning a recovery generation: what is written, what it keeps, and who should do it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.core import Consensus
from swarm.consensus.effects import Apply, Persist, Role
from swarm.consensus.messages import Append, Heartbeat, Vote
from swarm.consensus.recovery import Look, Survey, begin_generation
from swarm.drivers.recovery import refuse_needless
from swarm.errors import Conflict
from swarm.model.entry import KIND_CONFIGURATION, KIND_NOOP, Configuration, Entry, HardState, SnapshotMeta, Voter
from swarm.model.generation import next_generation
from swarm.model.ids import NodeId
from swarm.ports import Batch, Stored
from swarm.wire.codec import encode

A, B, C = (Voter(name, 1) for name in "abc")
OLD = 0
NEW = next_generation(OLD, random.Random(1))


def entry(index: int, term: int = 1, generation: int = OLD) -> Entry:
    return Entry(index, term, KIND_NOOP, 1, b"\x80", generation, float(index))


def founded(*voters: Voter, length: int = 5, term: int = 3, voted_for: str = "b") -> Stored:
    """A log whose first entry is the configuration."""
    first = Entry(1, 1, KIND_CONFIGURATION, 1, encode(Configuration(voters)), OLD, 1.0)
    return Stored(1, HardState(OLD, term, voted_for), (first, *map(entry, range(2, length + 1))), None, None)


def after(stored: Stored, batch: Batch) -> Stored:
    assert batch.hard_state is not None
    return Stored(
        stored.store_generation, batch.hard_state, (*stored.entries, *batch.entries), stored.snapshot, stored.snapshot_data
    )


def consensus(stored: Stored, generation: int, me: Voter = A) -> Consensus:
    return Consensus(
        me=me, recovery_generation=generation, config=ConsensusConfig(), rng=random.Random(7), stored=stored, now=0.0
    )


def lead_alone(core: Consensus) -> list[Entry]:
    """Let it elect itself and write what it wants; returns what it applied."""
    applied: list[Entry] = []
    now = 0.0
    while now < 5.0:
        now += 0.05
        core.tick(now)
        for _ in range(3):
            for effect in core.take_effects():
                if isinstance(effect, Persist):
                    core.on_persisted(effect.batch.number, now)
                elif isinstance(effect, Apply):
                    applied += effect.entries
                    core.on_applied(effect.entries[-1].index, now)
    return applied


def test_all_that_the_survivor_has_is_kept_and_committed_by_it_alone() -> None:
    stored = founded(A, B, C)
    batch = begin_generation(stored, me=A, generation=NEW, time_utc=9.0)
    assert batch is not None
    core = consensus(after(stored, batch), NEW)
    applied = lead_alone(core)
    assert core.role is Role.LEADER and core.configuration == Configuration((A,))
    assert tuple(applied[:5]) == stored.entries, "uncommitted entries too"
    assert [each.recovery_generation for each in applied[5:]] == [NEW, NEW], "the configuration, and the first of its term"


def test_it_is_written_once() -> None:
    stored = founded(A, B, C)
    batch = begin_generation(stored, me=A, generation=NEW, time_utc=9.0)
    assert batch is not None and begin_generation(after(stored, batch), me=A, generation=NEW, time_utc=10.0) is None


def test_before_it_is_written_the_node_can_do_nothing_in_the_new_generation() -> None:
    core = consensus(founded(A, B, C), NEW)
    lead_alone(core)
    assert core.role is not Role.LEADER and core.commit_index == 0


@given(st.integers(1, 900_000), st.integers(1, 900_000))
@settings(deadline=None)
def test_terms_go_on_above_those_of_every_leader_that_is_fenced(own: int, unseen: int) -> None:
    stored = founded(A, B, C, term=own)
    batch = begin_generation(stored, me=A, generation=NEW, time_utc=0.0)
    assert batch is not None and batch.hard_state is not None
    assert batch.hard_state.term == batch.entries[0].term > max(own, unseen)
    assert batch.hard_state.voted_for == "", "a vote of the old generation binds nobody in the new one"
    assert batch.entries[0].time_utc >= stored.entries[-1].time_utc


def test_a_log_that_begins_with_a_snapshot_is_sent_on_under_the_new_generation() -> None:
    meta = SnapshotMeta(40, 2, Configuration((A, B, C)), 1, OLD, 40.0, 0, 3)
    stored = Stored(1, HardState(OLD, 4, ""), (), meta, b"xyz")
    batch = begin_generation(stored, me=A, generation=NEW, time_utc=0.0)
    assert batch is not None and batch.entries[0].index == 41
    core = consensus(after(stored, batch), NEW)
    assert core.snapshot == (replace(meta, recovery_generation=NEW), b"xyz")
    learner = consensus(Stored(2, HardState(), (), None, None), NEW, me=Voter("b", 2))
    learner.on_snapshot(NodeId("a"), replace(meta, recovery_generation=NEW), b"xyz", 1.0)
    assert learner.commit_index == 40


@pytest.mark.parametrize("generation", [OLD, next_generation(OLD, random.Random(2)), next_generation(NEW, random.Random(3))])
def test_no_message_of_another_generation_is_read(generation: int) -> None:
    stored = founded(A, B, C)
    batch = begin_generation(stored, me=A, generation=NEW, time_utc=0.0)
    assert batch is not None
    core = consensus(after(stored, batch), NEW)
    lead_alone(core)
    before = (core.term, core.last_index, core.commit_index, core.role)
    far = core.term + 10
    for message in (
        Vote(far, generation, 1, 99, far), Heartbeat(far, generation, 1, 1, 99, far),
        Append(far, generation, 1, 5, 1, (entry(6, far, generation),), 6),
    ):  # fmt: skip
        core.on_message(NodeId("b"), message, 6.0)
    assert (core.term, core.last_index, core.commit_index, core.role) == before


def look(name: str, index: int, term: int = 1, *, age_s: float = 60.0, leads: bool = False, store: int = 1) -> Look:
    return Look(NodeId(name), store, term, index, term, index, index, age_s, leads)


def refusal(survey: Survey, *, even_behind: bool = False) -> str:
    try:
        refuse_needless(survey, lambda node_id: f"node {node_id}", even_behind=even_behind)
    except Conflict as refused:
        return f"{refused.message}: {refused.cause}"
    return ""


def test_a_survivor_of_a_lost_quorum_may_recover_and_the_missing_are_named() -> None:
    survey = Survey(look("a", 9), (), Configuration((A, B, C)))
    assert refusal(survey) == "" and survey.missing == (B, C)


def test_a_better_survivor_is_named_unless_the_operator_insists() -> None:
    longer = Survey(look("a", 9), (look("d", 11),), Configuration((A, B, C)))
    assert "node d has a newer log" in refusal(longer) and refusal(longer, even_behind=True) == ""
    later = Survey(look("a", 11, 1), (look("d", 9, 2),), Configuration((A, B, C)))
    assert "node d has a newer log" in refusal(later), "a later term counts more than a longer log"
    equal = Survey(look("a", 9), (look("d", 9),), Configuration((A, B, C)))
    assert refusal(equal) == "" and equal.best.node_id == "a"


def test_nothing_is_recovered_while_there_is_a_leader_or_a_majority() -> None:
    config = Configuration((A, B, C))
    assert "there is a leader: node d leads" in refusal(Survey(look("a", 9), (look("d", 9, leads=True),), config))
    assert "heard a leader 1.0 s ago" in refusal(Survey(look("a", 9, age_s=1.0), (), config), even_behind=True)
    assert "majority" in refusal(Survey(look("a", 9), (look("b", 9),), config), even_behind=True)
    assert "no log" in refusal(Survey(look("a", 0), (), config))


def test_the_leader_of_a_rival_may_recover_once_more() -> None:
    config = Configuration((A,))
    assert refusal(Survey(look("a", 9, leads=True), (), config, has_rival=True)) == ""
    assert "leader" in refusal(Survey(look("b", 9), (look("a", 9, leads=True),), config, has_rival=True))


def test_a_voter_that_lost_its_disk_does_not_count_as_there() -> None:
    survey = Survey(look("a", 9), (look("b", 4, store=2),), Configuration((A, B, C)))
    assert not survey.has_quorum and survey.missing == (B, C) and refusal(survey) == ""
