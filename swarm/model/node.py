"""A node: a host that runs the daemon, as the log knows it (admission, wishes, verdicts). What gossip sees is in `liveness`."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from swarm.model.ids import NodeId
from swarm.model.resources import Resources


class Availability(StrEnum):
    """Written by the operator through the log: ACTIVE takes work, DRAIN gives it away, LEFT is gone for good."""

    ACTIVE = "active"
    DRAIN = "drain"
    LEFT = "left"


class VerdictKind(StrEnum):
    """The leader's decision about a node, in the log. ALIVE is also what a fresh node has.

    HOST_SILENT: no kernel answers. DAEMON_GONE: the kernel refuses the port. DAEMON_STALLED: the kernel accepts, nobody speaks.
    CONFIRMED: an operator said so (`node confirm-dead`).
    """

    ALIVE = "alive"
    HOST_SILENT = "host_silent"
    DAEMON_GONE = "daemon_gone"
    DAEMON_STALLED = "daemon_stalled"
    CONFIRMED = "confirmed"


class Verdict(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Kind, its evidence in words, and since which log index."""

    kind: VerdictKind = VerdictKind.ALIVE
    evidence: str = ""
    index: int = 0


class Node(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One admitted node. `address` is `ip:port` of its peer port (UDP and TCP), as last declared by itself through the log."""

    id: NodeId
    name: str
    address: str
    api_address: str
    fingerprint: bytes
    """SHA-256 of the subject public key info of the node's key, 32 bytes."""
    public_key: bytes
    """The key itself (DER SubjectPublicKeyInfo, P-256): secrets are sealed to it."""
    store_generation: int
    labels: tuple[tuple[str, str], ...] = ()
    arch: str = ""
    os: str = "linux"
    capacity: Resources = Resources()
    engine_version: str = ""
    availability: Availability = Availability.ACTIVE
    verdict: Verdict = Verdict()
    witness: bool = False
    joined_index: int = 0
    schema_known: int = 1
    """Highest command schema this node has logged that it knows."""
    label_edits: tuple[tuple[str, str | None], ...] = ()
    """An operator's labels, sorted by key; None hides a declared one. They outlive what the node declares at its next start."""
