"""A node that applies nothing any more (an entry of a newer program) goes on for the others, with a log that stays short."""

from __future__ import annotations

from swarm.consensus.config import ConsensusConfig
from tests.fakes.consensus_cluster import Cluster

TRAILING = 50
FLOOD = 1_000
CONFIG = ConsensusConfig(trailing=TRAILING)


def halted_follower(cluster: Cluster) -> tuple[str, str]:
    """(leader, halted): the third one is down, so that every commit needs the halted one."""
    leader = cluster.leader()
    halted, third = (name for name in "abc" if name != leader)
    cluster.nodes[halted].step_down(cluster.local(halted), for_good=True)
    cluster.crash(third)
    return leader, halted


def flood(cluster: Cluster, count: int = FLOOD) -> None:
    for number in range(count):
        cluster.propose(f"{number}")
        if number % 100 == 0:
            cluster.run(0.1)
    cluster.run(1)


def in_memory(cluster: Cluster, name: str) -> int:
    node = cluster.nodes[name]
    return sum(node.entry_at(index) is not None for index in range(1, node.last_index + 1))


def test_it_acknowledges_everything_and_holds_only_the_newest_in_memory() -> None:
    cluster = Cluster("abc", config=CONFIG)
    cluster.run(3)
    leader, halted = halted_follower(cluster)
    flood(cluster)
    assert len(cluster.texts(leader)) == FLOOD, "nothing is committed without the halted one"
    assert in_memory(cluster, halted) <= 2 * TRAILING + 100
    on_disk = [entry.index for entry in cluster.disks[halted].durable.entries]
    assert on_disk == list(range(1, cluster.nodes[halted].last_index + 1))


def test_what_it_held_already_is_let_go_as_it_halts() -> None:
    cluster = Cluster("abc", config=CONFIG)
    cluster.run(3)
    flood(cluster)
    _, halted = halted_follower(cluster)
    assert in_memory(cluster, halted) <= TRAILING


def test_it_follows_the_next_leader_and_drops_what_that_one_contradicts() -> None:
    cluster = Cluster("abc", config=CONFIG)
    cluster.run(3)
    leader, halted = halted_follower(cluster)
    (third,) = set("abc") - {leader, halted}
    flood(cluster)
    cluster.start(third)
    cluster.run(3)
    cluster.isolate(third)
    cluster.slow_disks.add(leader)  # so its last proposal is durable on the halted one alone, and committed nowhere
    cluster.propose("never")
    cluster.run(0.1)
    assert cluster.disks[halted].durable.entries[-1].payload == b"never"
    cluster.crash(leader)
    cluster.slow_disks.clear()
    cluster.cuts.clear()
    cluster.start(leader)
    cluster.run(5)
    assert cluster.leader() != halted
    cluster.propose("after")
    cluster.run(1)
    held = [entry.payload for entry in cluster.disks[halted].durable.entries]
    assert held[-1] == b"after" and b"never" not in held
    assert in_memory(cluster, halted) <= 2 * TRAILING


def test_after_the_upgrade_a_start_finds_every_entry_on_the_disk() -> None:
    cluster = Cluster("abc", config=CONFIG)
    cluster.run(3)
    leader, halted = halted_follower(cluster)
    flood(cluster)
    cluster.crash(halted)
    cluster.start(halted)
    cluster.run(3)
    assert cluster.texts(halted) == cluster.texts(leader) == [f"{number}" for number in range(FLOOD)]


def test_a_snapshot_where_the_log_begins_has_the_time_of_its_own_entry() -> None:
    cluster = Cluster("abc", config=ConsensusConfig(trailing=3))
    cluster.run(3)
    for number in range(30):
        cluster.propose(f"{number}")
        cluster.run(0.05)
    _, halted = halted_follower(cluster)
    offset = cluster.nodes[halted]._state.log.offset
    meta = cluster.nodes[halted].snapshot_meta(offset, crc32c=0, length=1)
    entry, newest = cluster.applied[halted][offset - 1], cluster.applied[halted][-1]
    assert (meta.index, meta.time_utc) == (entry.index, entry.time_utc) and entry.time_utc < newest.time_utc
