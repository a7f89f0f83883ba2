"""Gossip's part of a simulated daemon: the membership core with its packets, connects, exchanges and streams.

Promise: nothing here decides anything the drivers do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import assert_never

from swarm.membership import (
    Effect,
    MemberChanged,
    MemberIdentity,
    Membership,
    Message,
    PingOverStream,
    PushPull,
    SendPacket,
    SyncState,
    TryConnect,
    TwinSuspected,
    decode_message_untrusted,
    encode_message,
)
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberView, Sample
from swarm.model.node import Availability
from swarm.simulation.node import Daemon
from swarm.simulation.replica import Replica
from swarm.simulation.streams import Reply

SYNC_TIMEOUT_S = 5.0


class Gossip:
    """Membership with what stands around it. Only admitted nodes are members."""

    name = "gossip"

    def __init__(self, daemon: Daemon, replica: Replica, generation: int) -> None:
        self.dirty = True
        self.daemon = daemon
        self.scene = daemon.scene
        self.replica = replica
        host = daemon.host
        self.core = Membership(
            identity=MemberIdentity(host.node_id, host.name, host.address, generation),
            config=self.scene.settings.membership,
            rng=self.scene.world.random(f"gossip/{host.number}/{daemon.life}"),
            now=daemon.now(),
        )
        self.on_change: list[Callable[[], None]] = []
        self._packets = 0
        daemon.handlers["membership.sync"] = self._on_sync
        daemon.handlers["membership.ping"] = self._on_ping
        daemon.on_streams.append((self, self._on_stream))
        replica.on_applied.append(lambda entries, results, restored: self._on_applied(restored or _about_nodes(entries)))

    def members(self) -> Mapping[NodeId, MemberView]:
        """As the core sees them."""
        return self.core.members()

    def observe_sample(self, sample: Sample) -> None:
        """This node's load."""
        self.dirty = True
        self.core.observe_sample(sample, self.daemon.now())

    def _on_applied(self, news: bool) -> None:
        if news:
            nodes = self.replica.catalog.nodes
            present = {i: (n.name, n.address) for i, n in nodes.items() if n.availability is not Availability.LEFT}
            self.dirty = True
            self.core.set_admitted(present, self.daemon.now())

    def _on_stream(self, peer: NodeId, connected: bool) -> None:
        self.core.observe_stream(peer, connected, self.daemon.now())

    # ---- effects

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case SendPacket():
                self._send(effect)
            case TwinSuspected():
                self.scene.world.trace(self.daemon.host.name, f"is said to live at {effect.address}")
            case MemberChanged():
                for told in self.on_change:
                    told()
                if self.scene.world.tracing:
                    new = effect.new
                    said = f"{new.name} is {new.status.value} {new.death_kind or ''} {effect.evidence}"
                    self.scene.world.trace(self.daemon.host.name, f"believes {said}")
            case TryConnect():
                host = self.scene.by_address.get(effect.address)
                self.scene.network.connect(
                    self.daemon.host_number,
                    host.number if host else None,
                    effect.timeout_s,
                    lambda outcome: self.daemon.feed(self, self._connected, effect.probe_id, outcome),
                )
            case PingOverStream():
                self.scene.streams.call(
                    self.daemon, effect.node_id, "membership.ping", None, timeout_s=effect.timeout_s,
                    done=lambda answer: self._pinged(effect.probe_id, answer is not None),
                )
            case PushPull():
                self.scene.streams.call(
                    self.daemon, effect.node_id, "membership.sync", self.core.sync_state(self.daemon.now()),
                    timeout_s=SYNC_TIMEOUT_S, done=self._synced,
                )
            case _:
                assert_never(effect)

    def _send(self, effect: SendPacket) -> None:
        host = self.scene.by_address.get(effect.address)
        if host is None:
            return
        message: Message = effect.message
        self._packets += 1
        if self.scene.settings.encode_every and self._packets % self.scene.settings.encode_every == 0:
            assert decode_message_untrusted(encode_message(message)) == message
        source = self.daemon.host.address_pair
        self.scene.network.packet(self.daemon.host_number, host.number, lambda: host.on_packet(source, message))

    def on_packet(self, source: tuple[str, int], message: Message) -> None:
        """One packet, opened."""
        self.core.on_packet(source, message, self.daemon.now())

    def _connected(self, probe_id: int, outcome: str) -> None:
        self.core.on_connect_result(probe_id, outcome, self.daemon.now())

    def _pinged(self, probe_id: int, answered: bool) -> None:
        self.dirty = True
        self.core.on_stream_ping(probe_id, answered, self.daemon.now())

    def _synced(self, remote: SyncState | None) -> None:
        self.dirty = True
        if remote is None:
            self.core.on_push_pull_failed(self.daemon.now())
        else:
            self.core.on_push_pull_reply(remote, self.daemon.now())

    def _on_sync(self, source: NodeId, remote: SyncState, reply: Reply) -> None:
        self.dirty = True
        reply(self.core.on_push_pull(remote, self.daemon.now()))

    def _on_ping(self, source: NodeId, question: None, reply: Reply) -> None:
        reply(True)


def _about_nodes(entries: tuple[object, ...]) -> bool:
    return any(getattr(entry, "kind", "") == "found" or getattr(entry, "kind", "").startswith("node.") for entry in entries)
