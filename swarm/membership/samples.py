"""Samples of load: the latest one per node, passed on within a bounded number of bytes.

A sample has one writer, its node, and an order, (generation, sequence): the latest wins and nothing else is remembered. They ride
behind the rumours and never displace them.

Everybody passes everybody's samples on, so what a node spends on them grows with N unless each node speaks more seldom: a refresh
of all N costs each of them N * sends * bytes, and that over the interval is held at `sample_bytes_per_s`. A sample that differs
enough to matter goes early, but for a quarter of the interval; one that says another state of the engine goes at once.
Where everybody pings everybody a sample goes to each with a ping, and nobody passes another's on.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math

from swarm.membership.broadcast import Broadcasts
from swarm.membership.config import Config
from swarm.membership.messages import SAMPLE_BYTES_MAX, SAMPLE_BYTES_TYPICAL
from swarm.model.ids import NodeId
from swarm.model.liveness import Sample

_RATIOS = ("cpu_used_permille", "memory_used_permille", "disk_used_permille", "load_permille")


def newer(mine: Sample | None, other: Sample) -> bool:
    """Whether `other` replaces `mine`."""
    if mine is None or other.generation != mine.generation:
        return mine is None or other.generation > mine.generation
    return other.sequence > mine.sequence


def refresh_interval_s(members: int, config: Config) -> float:
    """How often a node tells its load: once a second in small clusters, more seldom in proportion to N beyond."""
    bytes_per_refresh = members * config.sample_sends * SAMPLE_BYTES_TYPICAL
    return max(config.sample_interval_s, bytes_per_refresh / config.sample_bytes_per_s)


def matters(told: Sample, now: Sample, config: Config) -> bool:
    """Whether the difference would change where somebody places work."""
    return any(abs(getattr(told, ratio) - getattr(now, ratio)) >= config.sample_change_permille for ratio in _RATIOS)


class SampleBoard:
    """Invariant: at most one sample per node; what waits to be sent is on the board."""

    __slots__ = ("_queue", "_told", "_told_at", "latest", "waiting")

    def __init__(self) -> None:
        self.latest: dict[NodeId, Sample] = {}
        self._queue = Broadcasts()
        self.waiting = self._queue.counts
        """Whose samples wait to be sent; only to be read."""
        self._told: Sample | None = None
        self._told_at = -math.inf

    def observe(self, sample: Sample, *, members: int, config: Config, now: float) -> bool:
        """This node's own load: always the latest here, told to others when it is time or matters. Returns whether it is told."""
        if not newer(self.latest.get(sample.node_id), sample):
            return False
        self.latest[sample.node_id] = sample
        told, interval_s = self._told, refresh_interval_s(members, config)
        since_s = now - self._told_at + config.sample_slack_s
        due = told is None or since_s >= interval_s or sample.engine is not told.engine
        early = told is not None and since_s >= interval_s / 4 and matters(told, sample, config)
        if due or early:
            self._told, self._told_at = sample, now
            self._queue.put(sample.node_id)
        return due or early

    def merge(self, sample: Sample, *, forward: bool) -> bool:
        """Keep it if it is the latest of its node, and pass it on when `forward`. Returns whether it was."""
        mine = self.latest.get(sample.node_id)
        if mine is not None and mine.sequence == sample.sequence and mine.generation == sample.generation:
            return False  # nearly all of them
        if not newer(mine, sample):
            return False
        self.latest[sample.node_id] = sample
        if forward:
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
