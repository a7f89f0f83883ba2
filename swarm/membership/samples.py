"""Samples of load: the latest one per node, passed on within a bounded number of bytes.

A sample has one writer, its node, and an order, (generation, sequence): the latest wins and nothing else is remembered. They ride
behind the rumours and never displace them.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from swarm.membership.broadcast import Broadcasts
from swarm.membership.messages import SAMPLE_BYTES_MAX
from swarm.model.ids import NodeId
from swarm.model.liveness import Sample


def newer(mine: Sample | None, other: Sample) -> bool:
    """Whether `other` replaces `mine`."""
    if mine is None or other.generation != mine.generation:
        return mine is None or other.generation > mine.generation
    return other.sequence > mine.sequence


class SampleBoard:
    """Invariant: at most one sample per node; what waits to be sent is on the board."""

    __slots__ = ("_queue", "latest", "waiting")

    def __init__(self) -> None:
        self.latest: dict[NodeId, Sample] = {}
        self._queue = Broadcasts()
        self.waiting = self._queue.counts
        """Whose samples wait to be sent; only to be read."""

    def merge(self, sample: Sample) -> bool:
        """Keep it if it is the latest of its node, and pass it on. Returns whether it was."""
        mine = self.latest.get(sample.node_id)
        if mine is not None and mine.sequence == sample.sequence and mine.generation == sample.generation:
            return False  # nearly all of them
        if not newer(mine, sample):
            return False
        self.latest[sample.node_id] = sample
        self._queue.put(sample.node_id)
        return True

    def forget(self, node_id: NodeId) -> None:
        """The node is no member any more."""
        self.latest.pop(node_id, None)
        self._queue.forget(node_id)

    def take(self, bytes_max: int, *, limit: int) -> tuple[Sample, ...]:
        """The least told samples that fit."""
        if not self._queue.counts:
            return ()
        chosen = self._queue.waiting(max(0, bytes_max // SAMPLE_BYTES_MAX))
        for node_id in chosen:
            self._queue.sent(node_id, limit=limit)
        return tuple([self.latest[node_id] for node_id in chosen])

    def __len__(self) -> int:
        """How many wait to be sent."""
        return len(self._queue)
