"""What the membership core asks its driver to do. A closed union; the driver carries them out in order."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.membership.messages import Message
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberView


@dataclass(frozen=True, slots=True)
class SendPacket:
    """Seal and send one datagram to `address` (`ip:port`); may get lost."""

    address: str
    message: Message


@dataclass(frozen=True, slots=True)
class TryConnect:
    """One TCP connect to the peer port, closed at once; answer with `on_connect_result(probe_id, ...)`, always."""

    probe_id: int
    node_id: NodeId
    address: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class PingOverStream:
    """Ask over the standing stream whether the daemon speaks; answer with `on_stream_ping(probe_id, answered, now, silent_s)`."""

    probe_id: int
    node_id: NodeId
    timeout_s: float


@dataclass(frozen=True, slots=True)
class PushPull:
    """Exchange whole tables with `node_id`: send `sync_state(now)`, hand the answer to `on_push_pull_reply`."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A member's status (or generation, address or announced pause) is another now. `old` is None for a new one; a member that
    was removed from the admitted set is told by `removed`."""

    old: MemberView | None
    new: MemberView
    evidence: str
    removed: bool = False


@dataclass(frozen=True, slots=True)
class TwinSuspected:
    """Somebody says that this node, or a daemon with its identity, is at `address`, which is not this daemon's: ask there."""

    address: str


Effect = SendPacket | TryConnect | PingOverStream | PushPull | MemberChanged | TwinSuspected
