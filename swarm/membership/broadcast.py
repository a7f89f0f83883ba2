"""Rumours waiting to be passed on: which members there is news of, and how often it was sent.

One slot per member, so the queue never outgrows the table and newer news replaces older. What is sent is the table's belief at
the moment of sending. Fewest sent first, and of those the longest waiting, so that nobody's news starves when there is more of it
than room; after `limit` sends a slot is dropped (SWIM, section 4.1).

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import chain, islice

from swarm.model.ids import NodeId


class Broadcasts:
    """Invariant: a slot was sent fewer times than the limit that held when it was last picked."""

    __slots__ = ("_by_count", "counts", "fresh")

    def __init__(self) -> None:
        self.counts: dict[NodeId, int] = {}
        """Who waits, and how often each was sent; only to be read."""
        self._by_count: list[dict[NodeId, None]] = [{}]
        """The same slots, by how often they were sent; in each the longest waiting first."""
        self.fresh = False
        """Whether something was put in since the last round of rumours."""

    def put(self, node_id: NodeId) -> None:
        """There is news of `node_id`: start its count again. What was not sent yet keeps its place."""
        count = self.counts.get(node_id)
        if count:
            del self._by_count[count][node_id]
        self.counts[node_id] = 0
        self._by_count[0][node_id] = None
        self.fresh = True

    def forget(self, node_id: NodeId) -> None:
        """Say no more about `node_id`."""
        count = self.counts.pop(node_id, None)
        if count is not None:
            del self._by_count[count][node_id]

    def clear(self) -> None:
        """Say no more about anybody."""
        self.counts.clear()
        self._by_count = [{}]
        self.fresh = False

    def waiting(self, at_most: int | None = None) -> list[NodeId]:
        """Whom to tell about next: fewest sent first, then the longest waiting. O(at_most)."""
        return list(islice(chain.from_iterable(self._by_count), at_most))

    def sent(self, node_id: NodeId, *, limit: int) -> None:
        """It went out once more; dropped when it has gone out often enough."""
        count = self.counts.get(node_id)
        if count is None:
            return
        by_count = self._by_count
        del by_count[count][node_id]
        count += 1
        if count >= limit:
            del self.counts[node_id]
            return
        self.counts[node_id] = count
        if count == len(by_count):
            by_count.append({})
        by_count[count][node_id] = None

    def __len__(self) -> int:
        return len(self.counts)


@lru_cache(maxsize=4096)
def retransmit_limit(members: int, factor: int) -> int:
    """factor * ceil(log10(N + 1)): enough for everybody to hear it with high probability (SWIM, section 4.1)."""
    return factor * max(1, math.ceil(math.log10(members + 1)))
