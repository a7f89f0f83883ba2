"""A leader takes no more than it can hold, and new tasks do not keep out what makes room."""

from __future__ import annotations

import pytest

from swarm.consensus.config import ConsensusConfig
from swarm.errors import Overloaded
from swarm.model.ids import RequestId
from tests.fakes.consensus_cluster import Cluster

SMALL = ConsensusConfig(proposals_max=20, proposals_bytes_max=10_000)


def propose_until_refused(cluster: Cluster, kind: str, size_bytes: int) -> int:
    leader = cluster.nodes[cluster.leader()]
    for taken in range(1_000):
        try:
            leader.propose(kind, 1, b"x" * size_bytes, RequestId(""), cluster.now, cluster.now)
        except Overloaded:
            return taken
    return 1_000


@pytest.mark.parametrize(("kind", "size_bytes", "taken"), [
    ("task.submit", 1, 10), ("task.submit", 1_000, 5), ("task.reason", 1, 20), ("task.reason", 1_000, 10),
])  # fmt: skip
def test_what_waits_is_bounded_in_number_and_bytes_and_new_tasks_at_half(kind: str, size_bytes: int, taken: int) -> None:
    cluster = Cluster("abc", config=SMALL)
    cluster.run(3)
    assert propose_until_refused(cluster, kind, size_bytes) == taken
    cluster.run(1)
    assert propose_until_refused(cluster, kind, size_bytes) == taken, "what was applied has made room"


def test_a_flood_of_new_tasks_leaves_room_for_everything_else() -> None:
    cluster = Cluster("abc", config=SMALL)
    cluster.run(3)
    assert propose_until_refused(cluster, "task.submit_many", 1_000) == 5
    assert propose_until_refused(cluster, "assignment.reports", 1_000) == 5
