"""The persisted commit index: a restarted node serves what it knew without any leader, and never more than was committed."""

from __future__ import annotations

import random

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.core import Consensus
from swarm.consensus.effects import Apply, Effect, Persist
from swarm.model.entry import Committed, HardState, Voter
from swarm.ports import Stored
from tests.fakes.consensus_cluster import Cluster, founding, stored


def applied(effects: list[Effect]) -> list[int]:
    return [entry.index for effect in effects if isinstance(effect, Apply) for entry in effect.entries]


def restarted(held: Stored, *, recovery_generation: int = 0) -> Consensus:
    return Consensus(
        me=Voter("a", held.store_generation), recovery_generation=recovery_generation, config=ConsensusConfig(),
        rng=random.Random(1), stored=held, now=0.0,
    )  # fmt: skip


def test_a_restarted_follower_applies_what_it_knew_to_be_committed_before_any_leader_speaks() -> None:
    cluster = Cluster("abc")
    cluster.run(3.0)
    for text in ("one", "two", "three"):
        cluster.propose(text)
        cluster.run(0.5)
    follower = next(name for name in "abc" if name != cluster.leader())
    cluster.isolate(follower)
    cluster.crash(follower)
    cluster.start(follower)
    cluster.run(0.1)
    assert cluster.texts(follower) == ["one", "two"], "it may lag by what no later write carried"
    assert cluster.nodes[follower].commit_index == cluster.disks[follower].durable.committed.index


def test_the_commit_index_is_never_a_reason_to_write() -> None:
    cluster = Cluster("abc")
    cluster.run(3.0)
    cluster.propose("one")
    cluster.run(0.5)
    written = {name: sum(line.startswith(f"{name} writes") for line in cluster.trace) for name in "abc"}
    commits = {name: cluster.nodes[name].commit_index for name in "abc"}
    cluster.run(5.0)
    assert written == {name: sum(line.startswith(f"{name} writes") for line in cluster.trace) for name in "abc"}
    assert all(cluster.disks[name].durable.committed.index < commits[name] for name in "abc")


def test_an_idle_disks_small_write_may_carry_it_once() -> None:
    cluster = Cluster("a")
    cluster.run(3.0)
    node = cluster.nodes["a"]
    assert node.lazy_commit() == Committed(0, node.commit_index, node.term)
    assert node.lazy_commit() is None


def test_it_is_not_offered_before_its_entries_are_durable() -> None:
    """Two of three have it, so it is committed; the third one's disk is behind."""
    cluster = Cluster("abc")
    cluster.run(3.0)
    slow = next(name for name in "abc" if name != cluster.leader())
    node = cluster.nodes[slow]
    cluster.run(0.5)
    node.lazy_commit()
    cluster.slow_disks.add(slow)
    for text in ("one", "two"):
        cluster.propose(text)
        cluster.run(0.5)
    assert node.durable_index < node.commit_index
    assert node.lazy_commit() is None


def test_it_never_names_more_than_was_committed_nor_what_is_not_durable_whatever_crashes() -> None:
    for seed in range(20):
        cluster = Cluster("abc", seed=str(seed))
        rng = random.Random(seed)
        cluster.loss = lambda rng=rng: rng.random() < 0.1  # type: ignore[misc]
        told: dict[int, int] = {}
        for _ in range(12):
            cluster.run(rng.uniform(0.05, 1.5))
            victim = rng.choice("abc")
            if leaders := [name for name in "abc" if cluster.nodes[name].may_act(cluster.local(name))]:
                cluster.propose("more", leaders[0])
            cluster.run(rng.uniform(0.0, 0.02))
            cluster.crash(victim)
            held = cluster.disks[victim].durable
            last = held.entries[-1].index if held.entries else 0
            assert held.committed.index <= last
            cluster.start(victim)
            for entry in held.entries[: held.committed.index]:
                assert told.setdefault(entry.index, entry.term) == entry.term, "two commits of one index differ"


def test_another_recovery_generation_believes_none_of_it_and_writes_its_own() -> None:
    held = Stored(1, HardState(0, 1), (founding("a"), *stored().entries), None, None, Committed(0, 1, 1))
    assert applied(restarted(held).take_effects()) == [1]
    node = restarted(held, recovery_generation=1)
    effects = node.take_effects()
    assert applied(effects) == [] and node.commit_index == 0
    assert [effect.batch.committed for effect in effects if isinstance(effect, Persist)] == [Committed(1, 0, 0)]
