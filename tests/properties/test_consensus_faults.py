"""Whatever happens to hosts, links, disks and clocks: one leader a term, disjoint leases, equal logs, nothing committed lost."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.effects import Role
from swarm.errors import OperatorError
from swarm.model.entry import Entry, Voter
from swarm.model.ids import NodeId
from tests.fakes.consensus_cluster import Cluster

FAULTS = ["crash", "start", "isolate", "cut", "heal", "loss", "slow", "fast", "wipe"]
FAULTS += ["propose", "voters", "transfer", "compact", "wait"]
NAMES = "abcde"


class Watch:
    """Looks at the cluster after every event."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, Entry] = {}
        self.leases_seen = 0

    def __call__(self) -> None:
        cluster = self.cluster
        leases = cluster.leases()
        assert len(leases) <= 1, f"{leases} hold a lease at {cluster.now}"
        self.leases_seen += len(leases)
        for name, node in sorted(cluster.nodes.items()):
            if node.role is Role.LEADER:
                assert self.leaders.setdefault(node.term, name) == name, f"two leaders in term {node.term}"
            for entry in cluster.applied[name][-3:]:
                assert self.committed.setdefault(entry.index, entry) == entry, f"{name} applied another entry {entry.index}"

    def logs_match(self) -> None:
        """If two logs hold an entry of the same index and term, they are equal up to there (Log Matching, section 5.3)."""
        nodes = [node for _, node in sorted(self.cluster.nodes.items())]
        for one in nodes:
            for other in nodes:
                agree = False
                for index in range(min(one.last_index, other.last_index), 0, -1):
                    mine, theirs = one.entry_at(index), other.entry_at(index)
                    if mine is None or theirs is None:
                        break
                    agree = agree or mine.term == theirs.term
                    assert not agree or mine == theirs


def do(cluster: Cluster, fault: str, rng: random.Random) -> None:
    name = rng.choice(sorted(cluster.disks))
    other = rng.choice(sorted(cluster.disks))
    leaders = cluster.leases()
    if fault == "crash" and name in cluster.nodes:
        cluster.crash(name)
    elif fault == "start" and name not in cluster.nodes:
        cluster.start(name)
    elif fault == "wipe" and name not in cluster.nodes and name == "e" and "e" not in watched_voters(cluster):
        cluster.wipe(name)
    elif fault == "isolate":
        cluster.isolate(name)
    elif fault == "cut":
        cluster.cuts.add((name, other))
    elif fault == "heal":
        cluster.cuts.clear()
        cluster.loss = lambda: False
    elif fault == "loss":
        cluster.loss = lambda: rng.random() < 0.2
    elif fault == "slow":
        cluster.slow_disks.add(name)
    elif fault == "fast" and name in cluster.slow_disks:
        cluster.slow_disks.discard(name)
        if name in cluster.nodes:
            cluster.crash(name)  # what was never written is gone with the process
    elif fault == "compact" and name in cluster.nodes and cluster.applied[name]:
        cluster.compact(name)
    elif leaders:
        intend(cluster, fault, leaders[0], other, rng)


def watched_voters(cluster: Cluster) -> str:
    """Every node that was ever proposed as a voter: a disk that counts is not thrown away here (losing a majority of them loses
    data, and is meant to)."""
    return "".join(line.removeprefix("voters ") for line in cluster.trace if line.startswith("voters "))


def intend(cluster: Cluster, fault: str, leader: str, other: str, rng: random.Random) -> None:
    node = cluster.nodes[leader]
    now = cluster.local(leader)
    try:
        if fault == "propose":
            cluster.propose(f"at {cluster.now}", leader)
        elif fault == "voters":
            count = rng.choice([1, 3, 3])
            chosen = sorted(rng.sample(NAMES, count))
            cluster.trace.append("voters " + "".join(chosen))
            generations = {name: cluster.disks[name].durable.store_generation for name in chosen}
            node.propose_configuration(tuple(Voter(name, generations[name]) for name in chosen), now, cluster.now)
        elif fault == "transfer":
            node.transfer_leadership(NodeId(other), now)
    except OperatorError:
        pass


def chaos(seed: int, steps: int) -> tuple[Cluster, Watch]:
    rng = random.Random(seed)
    cluster = Cluster("abc", "de", seed=str(seed), config=ConsensusConfig(stream_learners_min=1))
    for name in NAMES:
        cluster.clocks[name] = (rng.choice([0.95, 1.0, 1.05]), rng.uniform(0, 1000))
    cluster.nodes.clear()
    for name in NAMES:
        cluster.start(name)
    cluster.message_s = lambda: rng.choice([0.0005, 0.001, 0.01, 0.05, rng.uniform(0, 0.5)])
    cluster.write_s = lambda: 0.001
    watch = Watch(cluster)
    cluster.run(3, each=watch)
    for _ in range(steps):
        do(cluster, rng.choice(FAULTS), rng)
        cluster.run(rng.choice([0.0, 0.01, 0.3, 1.5]), each=watch)
    watch.logs_match()
    return cluster, watch


def heal(cluster: Cluster, watch: Watch) -> None:
    """Everybody back, links whole, disks quick."""
    cluster.cuts.clear()
    cluster.loss = lambda: False
    cluster.message_s = lambda: 0.001
    for name in sorted(cluster.slow_disks):
        if name in cluster.nodes:
            cluster.crash(name)
    cluster.slow_disks.clear()
    for name in NAMES:
        if name not in cluster.nodes:
            cluster.start(name)
    cluster.run(12, each=watch)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_no_fault_breaks_safety_and_a_healed_cluster_works(seed: int) -> None:
    cluster, watch = chaos(seed, 40)
    heal(cluster, watch)
    watch.logs_match()
    cluster.propose("after all")
    cluster.run(2, each=watch)
    assert {tuple(cluster.texts(name)) for name in NAMES} == {tuple(cluster.texts("a"))}
    assert cluster.texts("a")[-1] == "after all"
    assert watch.leases_seen > 0
