"""The replica's part of a simulated daemon: consensus, catalog and disk, wired as `drivers.consensus` wires them.

Entries are applied by a task of their own after the effects at hand; writes are queued and become durable together; an idle disk
is probed each second. Who waits for an entry is told what applying it gave, that it was overwritten, or that nobody can say.

Promise: nothing here decides anything the drivers do not; where the two differ, the drivers are right and this is to be changed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import assert_never

from swarm.catalog import Catalog
from swarm.consensus.core import Consensus, Proposed
from swarm.consensus.effects import (
    Apply,
    Effect,
    Persist,
    ProposalLost,
    RestoreSnapshot,
    Role,
    RoleChanged,
    Send,
    SendSnapshot,
)
from swarm.consensus.messages import Message, decode_message_untrusted, encode_message
from swarm.drivers.declare import Admitted
from swarm.drivers.named import named_nodes
from swarm.errors import Conflict, Unavailable, UnknownOutcome
from swarm.model.command import SCHEMA_SINCE
from swarm.model.entry import Entry, SnapshotMeta, Voter
from swarm.model.ids import NodeId, RequestId
from swarm.model.node import Availability
from swarm.model.outcome import Applied
from swarm.ports import Batch
from swarm.simulation.node import Daemon
from swarm.simulation.transfers import Transfers
from swarm.wire.checksum import crc32c

PROBE_EVERY_S = 1.0
MAKING_S = 0.2
"""A snapshot is encoded and written beside everything else."""
RESULTS_KEPT = 1024
Outcome = Applied | Exception
Settle = Callable[[Outcome], None]


class Replica:
    """Consensus with what stands around it."""

    name = "replica"

    def __init__(self, daemon: Daemon) -> None:
        self.dirty = True
        self.daemon = daemon
        self.scene = daemon.scene
        host = daemon.host
        self.catalog = Catalog()
        settings = self.scene.settings
        self.disk = host.disk
        stored = self.disk.open(self._on_disk_done)
        self.me = Voter(host.node_id, stored.store_generation)
        self.core = Consensus(
            me=self.me,
            recovery_generation=host.recovery_generation,
            config=settings.consensus,
            rng=self.scene.world.random(f"consensus/{host.number}/{daemon.life}"),
            stored=stored,
            now=daemon.now(),
        )
        self.applied_index = 0
        self.halted = ""
        """Why applying stopped for good; empty while it goes on."""
        self._held_back = Admitted(self.catalog, (), lambda nodes: None).held_back
        self.on_role: list[Callable[[RoleChanged], None]] = []
        self.on_applied: list[Callable[[tuple[Entry, ...], tuple[Applied, ...], bool], None]] = []
        self._queue: deque[Entry | RestoreSnapshot] = deque()
        self._applying = False
        self._waiters: dict[int, list[tuple[int, Settle]]] = {}
        self._results: OrderedDict[int, tuple[int, Applied]] = OrderedDict()
        self._snapshot_index = 0
        self._messages = 0
        daemon.on_one_way["consensus"] = (self, self._on_message)
        self._transfers = Transfers(daemon, self.core, self._touch)
        daemon.later(PROBE_EVERY_S, None, self._probe)

    @property
    def may_act(self) -> bool:
        return self.core.may_act(self.daemon.now())

    def _touch(self) -> None:
        self.dirty = True

    # ---- effects

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(effect)
            case Persist():
                self.scene.watch.persisting(self.daemon, effect.batch.entries)
                self.disk.submit(effect.batch)
            case Apply():
                self._queue.extend(effect.entries)
                self._apply_soon()
            case RestoreSnapshot():
                self._queue.append(effect)
                self._apply_soon()
            case SendSnapshot():
                self._transfers.send(effect.to)
            case RoleChanged():
                if effect.role is Role.LEADER:
                    for hunter in self.scene.on_leader:
                        hunter(self.daemon)
                    self.core.set_learners(self.learners(), self.daemon.now())
                for told in self.on_role:
                    told(effect)
            case ProposalLost():
                self._lost(effect.index, effect.term)
            case _:
                assert_never(effect)

    def _send(self, effect: Send) -> None:
        message: Message = effect.message
        self._messages += 1
        every = self.scene.settings.encode_every
        if every and self._messages % every == 0:
            again = decode_message_untrusted(encode_message(message))
            assert again == message, f"the codec changed {message} to {again}"
        self.scene.streams.send(self.daemon, effect.to, "consensus", message)

    def _on_message(self, source: NodeId, message: Message) -> None:
        self.core.on_message(source, message, self.daemon.now())

    def learners(self) -> tuple[Voter, ...]:
        """Every admitted node that has not left."""
        return tuple(
            Voter(node.id, node.store_generation)
            for node in sorted(self.catalog.nodes.values(), key=lambda node: node.id)
            if node.availability is not Availability.LEFT
        )

    # ---- the disk

    def _on_disk_done(self, number: int) -> None:
        self.daemon.feed(self, self._written, number)

    def _written(self, number: int) -> None:
        now = self.daemon.now()
        if number:
            self.core.on_persisted(number, now)
        self.core.on_disk(now, now, full=self.disk.full)

    def _probe(self) -> None:
        committed = self.core.lazy_commit()
        if committed is not None:
            self.disk.submit(Batch(number=0, committed=committed))
        else:
            self.disk.probe()
        self.daemon.later(PROBE_EVERY_S, None, self._probe)

    # ---- applying

    def _apply_soon(self) -> None:
        if not self._applying and not self.halted:
            self._applying = True
            self.daemon.todo(self, self._apply_slice, None)

    def _apply_slice(self, _: None) -> None:
        self._applying = False
        if isinstance(self._queue[0], RestoreSnapshot):
            effect = self._queue.popleft()
            assert isinstance(effect, RestoreSnapshot)
            self._restore(effect)
        else:
            entries: list[Entry] = []
            results: list[Applied] = []
            while self._queue and isinstance(entry := self._queue[0], Entry) and len(entries) < 64 and not self._halts_at(entry):
                self._queue.popleft()
                result = self.catalog.apply(entry)
                entries.append(entry)
                results.append(result)
                self.scene.watch.applied(self.daemon, entry, result)
                self._settle(entry, result)
            if entries:
                self._advance(entries[-1].index, tuple(entries), tuple(results), False)
                self._maybe_snapshot()
        if self._queue and not self.halted:
            self._apply_soon()

    def _halts_at(self, entry: Entry) -> bool:
        """Whether the program installed here does not know this kind of entry: nothing is applied from there on (S28)."""
        if SCHEMA_SINCE.get((entry.kind, entry.version), 1) > self.daemon.host.schema_known:
            self.halted = f"entry {entry.index} is of kind {entry.kind}: upgrade this node"
            self.scene.world.trace(self.daemon.host.name, self.halted)
            self.core.step_down(self.daemon.now(), for_good=True)
        return bool(self.halted)

    def _restore(self, effect: RestoreSnapshot) -> None:
        self.catalog.restore(effect.data[:])
        self._snapshot_index = effect.meta.index
        self.scene.watch.restored(self.daemon, effect.meta)
        for index in [index for index in self._waiters if index <= effect.meta.index]:
            for _, settle in self._waiters.pop(index):
                settle(UnknownOutcome("a snapshot went past it"))
        self._advance(effect.meta.index, (), (), True)

    def _advance(self, index: int, entries: tuple[Entry, ...], results: tuple[Applied, ...], restored: bool) -> None:
        self.applied_index = index
        self.core.on_applied(index, self.daemon.now())
        if restored or any(entry.kind == "found" or entry.kind.startswith("node.") for entry in entries):
            self.core.set_learners(self.learners(), self.daemon.now())
        self.core.deliver(named_nodes(entries, results), self.daemon.now())
        for told in self.on_applied:
            told(entries, results, restored)

    def _maybe_snapshot(self) -> None:
        every = self.scene.settings.consensus.snapshot_every
        if self.applied_index - self._snapshot_index < every or self.core.term_at(self.applied_index) is None:
            return
        data = self.catalog.snapshot()
        meta = self.core.snapshot_meta(self.applied_index, crc32c=crc32c(data), length=len(data))
        self._snapshot_index = self.applied_index
        self.daemon.later(MAKING_S, self, self._made, meta, data)

    def _made(self, meta: SnapshotMeta, data: bytes) -> None:
        """It is of the moment it was begun; a newer one may have arrived since."""
        if self._snapshot_index == meta.index:
            self.core.compact(meta, data, self.daemon.now())

    # ---- who waits for what

    def propose(self, kind: str, version: int, payload: bytes, request_id: RequestId) -> Proposed:
        """Append to the log, if this node leads. Raises `Unavailable`, `Overloaded` or `Conflict`."""
        if self.halted:
            raise Unavailable(self.halted)
        if reason := self._held_back(kind, version, payload):
            raise Conflict(f"cannot write {kind} into the log: {reason}")
        self.dirty = True
        return self.core.propose(kind, version, payload, request_id, self.daemon.now(), self.daemon.host.clock.utc())

    def result_of(self, proposed: Proposed, settle: Settle) -> None:
        """Have `settle` told what came of a proposal, as soon as this node can say."""
        kept = self._results.get(proposed.index)
        if kept is not None:
            settle(kept[1] if kept[0] == proposed.term else _lost())
        elif proposed.index <= self.applied_index:
            settle(UnknownOutcome("its result is no longer kept here"))
        else:
            self._waiters.setdefault(proposed.index, []).append((proposed.term, settle))

    def _settle(self, entry: Entry, result: Applied) -> None:
        self._results[entry.index] = (entry.term, result)
        if len(self._results) > RESULTS_KEPT:
            self._results.popitem(last=False)
        for term, settle in self._waiters.pop(entry.index, ()):
            settle(result if term == entry.term else _lost())

    def _lost(self, index: int, term: int) -> None:
        waiters = self._waiters.pop(index, [])
        kept = [waiter for waiter in waiters if waiter[0] != term]
        if kept:
            self._waiters[index] = kept
        for waiting_term, settle in waiters:
            if waiting_term == term:
                settle(_lost())


def _lost() -> Unavailable:
    return Unavailable("the request was not carried out")
