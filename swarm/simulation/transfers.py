"""Snapshots between simulated daemons: the chunks of `consensus.transfer`, sent and kept as `drivers.replica_snapshots` does.

Chunks are small here, so that a transfer is some steps long: streams break, leaders change and hosts lose power in the middle of
one. A spool is in memory and dies with its daemon, as a half-written file is removed at the next start.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from swarm.consensus.core import Consensus
from swarm.consensus.transfer import Chunk, Intake, Intakes, Received, chunk_of
from swarm.errors import BadMessage
from swarm.model.entry import SnapshotMeta
from swarm.model.ids import NodeId
from swarm.ports import SnapshotData
from swarm.simulation.node import Daemon
from swarm.simulation.streams import Reply

CALL = "consensus.snapshot"
CHUNK_TIMEOUT_S = 5.0
Ended = Callable[[NodeId, bool], None]
ECHO_S = 0.0005
"""So far the second of two senders of the same snapshot is behind."""
CHUNKS = 3
"""So many chunks make a snapshot, about."""


class Transfers:
    """Of one daemon, both ways. `touched` says that the core was fed."""

    def __init__(self, daemon: Daemon, core: Consensus, touched: Callable[[], None]) -> None:
        self._daemon = daemon
        self._core = core
        self._touched = touched
        self._sending: dict[NodeId, None] = {}
        self._intakes = Intakes()
        self._spools: dict[SnapshotMeta, bytearray] = {}
        daemon.handlers[CALL] = self._on_chunk

    def send(self, to: NodeId) -> None:
        """The newest snapshot, unless one is on its way there."""
        snapshot = self._core.snapshot
        if snapshot is not None and to not in self._sending:
            self._sending[to] = None
            question = chunk_of(snapshot[0], 0, b"")
            self._ask(to, question, snapshot[1], self._ended)
            if self._daemon.host.is_echoed:
                self._daemon.later(ECHO_S, None, self._ask, to, question, snapshot[1], _unheard)

    def _ask(self, to: NodeId, chunk: Chunk, data: SnapshotData, ended: Ended) -> None:
        done = partial(self._answered, to, chunk, data, ended)
        self._daemon.scene.streams.call(self._daemon, to, CALL, chunk, timeout_s=CHUNK_TIMEOUT_S, done=done)

    def _answered(self, to: NodeId, chunk: Chunk, data: SnapshotData, ended: Ended, answer: Received | None) -> None:
        meta = chunk.meta
        if answer is not None and answer.position < meta.length and (answer.position > chunk.offset or not chunk.data):
            end = min(answer.position + meta.length // CHUNKS + 1, meta.length)
            piece = self._daemon.host.disk.read(data, answer.position, end)
            self._ask(to, chunk_of(meta, answer.position, piece), data, ended)
        else:
            ended(to, answer is not None and answer.position == meta.length)

    def _ended(self, to: NodeId, arrived: bool) -> None:
        del self._sending[to]
        self._touched()
        self._core.on_snapshot_sent(to, arrived=arrived, now=self._daemon.now())

    def _on_chunk(self, source: NodeId, chunk: Chunk, reply: Reply) -> None:
        meta = chunk.meta
        if not self._core.wants_snapshot(meta):
            reply(Received(meta.length))
            return
        intake = self._intakes.find(meta)
        if intake is None:
            intake, dropped = self._intakes.begin(meta)
            self._spools[meta] = bytearray()
            self._forget(dropped)
        try:
            self._spools[meta] += intake.take(chunk)
            if intake.is_complete:
                intake.verify()
        except BadMessage:  # who asked hears nothing, and offers it again
            self._intakes.end(intake)
            self._forget([intake])
            return
        if intake.is_complete:
            self._intakes.end(intake)
            self._touched()
            self._core.on_snapshot(source, meta, bytes(self._spools.pop(meta)), self._daemon.now())
            self._forget(self._intakes.overtaken(meta.index))
        reply(Received(intake.position))

    def _forget(self, intakes: list[Intake]) -> None:
        for intake in intakes:
            del self._spools[intake.meta]


def _unheard(to: NodeId, arrived: bool) -> None:
    """The second sender is nobody's business here."""
