"""Which nodes should vote when there is a choice: spread over zones first, then the lowest load, then age.

A node's zone is its label `zone` (`swarm up --label zone=rack-1`, or `swarm node label`); nodes without one count as one zone
together, since nothing says that they do not share their fate. A set is better spread when its fullest zone holds fewer voters,
then the next fullest, and so on. Load is what gossip says of the node's processors, in steps so coarse that noise does not
outweigh age; age is the order of admission; ties break on the id. A witness goes before an equal full node, since it has nothing
else to do, as long as witnesses stay a minority.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from swarm.model.entry import Voter
from swarm.model.ids import NodeId
from swarm.model.view import ClusterView

ZONE_LABEL = "zone"
LOAD_STEP_PERMILLE = 250
"""Four classes of load: idle, some, much, full. Finer: two nodes that are alike would be told apart by the moment."""
LOAD_UNKNOWN = 10**6
"""A node whose load nobody has heard of goes last."""


def zone_of(view: ClusterView, voter: Voter) -> str:
    """The failure domain that a node says it is in; empty when it says none."""
    node = view.nodes.get(NodeId(voter.node_id))
    return dict(node.labels).get(ZONE_LABEL, "") if node is not None else ""


def crowding(view: ClusterView, voters: Sequence[Voter]) -> tuple[int, ...]:
    """How many of them each zone holds, the fullest first. Of two sets of one size the smaller tuple is better spread."""
    return tuple(sorted(Counter(zone_of(view, voter) for voter in voters).values(), reverse=True))


def choose(view: ClusterView, kept: Sequence[Voter], candidates: Sequence[Voter], size: int) -> list[Voter]:
    """`kept` and the best of the candidates, `size` in all; fewer when there are not enough."""
    chosen, left = list(kept[:size]), list(candidates)
    while len(chosen) < size and left:
        zones = Counter(zone_of(view, voter) for voter in chosen)
        witnesses = sum(_is_witness(view, voter) for voter in chosen)
        best = min(
            left,
            key=lambda voter: (
                zones[zone_of(view, voter)], _witness_rank(view, voter, witnesses < size // 2), *_rank(view, voter)
            ),
        )  # fmt: skip
        chosen.append(best)
        left.remove(best)
    return chosen


def exchange(view: ClusterView, voters: Sequence[Voter], learners: Sequence[Voter], *, fixed: NodeId) -> list[Voter] | None:
    """The set with one voter exchanged for a learner so that it is strictly better spread; None when none makes it so. `fixed`
    keeps its vote, and witnesses stay a minority. A voter gives way from the fullest zone, and there the busiest and youngest.
    O(nodes)."""
    zones = Counter(zone_of(view, voter) for voter in voters)
    movable = [voter for voter in voters if voter.node_id != fixed]
    if not movable or not learners:
        return None
    goes = max(movable, key=lambda voter: (zones[zone_of(view, voter)], *_rank(view, voter)))
    witnesses = sum(_is_witness(view, voter) for voter in voters if voter != goes)
    fit = [voter for voter in learners if 2 * (witnesses + _is_witness(view, voter)) < len(voters)]
    if not fit:
        return None
    comes = min(fit, key=lambda voter: (zones[zone_of(view, voter)], *_rank(view, voter)))
    if zones[zone_of(view, goes)] - zones[zone_of(view, comes)] < 2:
        return None
    return [voter for voter in voters if voter != goes] + [comes]


def _is_witness(view: ClusterView, voter: Voter) -> bool:
    node = view.nodes.get(NodeId(voter.node_id))
    return node is not None and node.witness


def _witness_rank(view: ClusterView, voter: Voter, wanted: bool) -> int:
    if not _is_witness(view, voter):
        return 1
    return 0 if wanted else 2


def _rank(view: ClusterView, voter: Voter) -> tuple[int, int, str]:
    node = view.nodes.get(NodeId(voter.node_id))
    return _load(view, NodeId(voter.node_id)), node.joined_index if node is not None else 0, voter.node_id


def _load(view: ClusterView, node_id: NodeId) -> int:
    member = view.members.get(node_id)
    if member is None or member.sample is None:
        return LOAD_UNKNOWN
    return max(member.sample.cpu_used_permille, member.sample.load_permille) // LOAD_STEP_PERMILLE
