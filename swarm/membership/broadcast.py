"""Rumours waiting to be passed on: which members there is news of, and how often it was sent.

One slot per member, so the queue never outgrows the table and newer news replaces older. What is sent is the table's belief at
the moment of sending. Fewest sent first; after `limit` sends a slot is dropped (SWIM, section 4.1).

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math

from swarm.model.ids import NodeId


class Broadcasts:
    """Invariant: a slot was sent fewer times than the limit that held when it was last picked."""

    __slots__ = ("_sent", "fresh")

    def __init__(self) -> None:
        self._sent: dict[NodeId, int] = {}
        self.fresh = False
        """Whether something was put in since the last round of rumours."""

    def put(self, node_id: NodeId) -> None:
        """There is news of `node_id`: start its count again."""
        self._sent[node_id] = 0
        self.fresh = True

    def forget(self, node_id: NodeId) -> None:
        """Say no more about `node_id`."""
        self._sent.pop(node_id, None)

    def waiting(self) -> list[NodeId]:
        """Whom to tell about next: fewest sent first, then by id."""
        return sorted(self._sent, key=lambda node_id: (self._sent[node_id], node_id))

    def sent(self, node_id: NodeId, *, limit: int) -> None:
        """It went out once more; dropped when it has gone out often enough."""
        count = self._sent.get(node_id, limit) + 1
        if count >= limit:
            self._sent.pop(node_id, None)
        else:
            self._sent[node_id] = count

    def __len__(self) -> int:
        return len(self._sent)


def retransmit_limit(members: int, factor: int) -> int:
    """factor * ceil(log10(N + 1)): enough for everybody to hear it with high probability (SWIM, section 4.1)."""
    return factor * max(1, math.ceil(math.log10(members + 1)))
