"""What a node keeps about entries that come from a peer instead of the leader, and about peers that take them from it.

Pure: no I/O, no clock, no randomness of its own. All of it belongs to one term and is forgotten with it: the next leader says
anew who takes from whom.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.consensus.messages import Pull
from swarm.model.ids import NodeId

HOPS_MAX = 3
"""Leader to peer, peer to peer, peer to learner. Deeper: fewer bytes at the leader, and later entries at the far end."""
PARKED_MAX = 64
"""Pulls that wait here. A leader sends fewer takers than that to one node; more are told to go elsewhere."""


@dataclass(slots=True)
class Taking:
    """Entries are taken from `source`. Times are this node's CLOCK_BOOTTIME."""

    source: NodeId
    hops: int
    """From the leader to here; at least 2."""
    progress_at: float
    """When the commit index last advanced, or fell behind what the leader says."""
    asked_at: float
    asked_index: int
    reported_index: int = 0
    """The commit index that the leader was last told, in this term."""


class Stream:
    """Both sides of one node in one term."""

    __slots__ = ("back_until", "parked", "taking", "wanted_index")

    def __init__(self) -> None:
        self.taking: Taking | None = None
        """None while everything comes from the leader."""
        self.back_until = float("-inf")
        """It has just gone back to the leader: an offer that comes before then may have been made before the leader knew."""
        self.wanted_index = 0
        """The highest commit index that the leader of this term has named."""
        self.parked: dict[NodeId, Pull] = {}
        """Who waits for entries after which index; at most one pull of a node, at most PARKED_MAX in all."""

    @property
    def hops(self) -> int:
        """From the leader to here."""
        return self.taking.hops if self.taking is not None else 1
