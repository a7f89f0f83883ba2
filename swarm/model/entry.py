"""A log entry: the envelope around a command. Consensus orders it, the catalog applies it, the store keeps it."""

from __future__ import annotations

import msgspec

from swarm.model.ids import RequestId


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of the log. `kind` and `version` say how to read `payload`; an unknown pair stops apply at this entry.

    `recovery_generation` and `term` are the proposer's. `time_utc` is never below that of the entry before.
    """

    index: int
    term: int
    kind: str
    version: int
    payload: bytes
    recovery_generation: int
    time_utc: float
    request_id: RequestId = RequestId("")


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a voter must not forget: its term and vote (Raft, figure 2), with the recovery generation it belongs to."""

    recovery_generation: int = 0
    term: int = 0
    voted_for: str = ""


class Committed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An entry that is known to be committed, and with it everything before: written beside other things, so it may lag. It holds
    under its recovery generation only: a recovery may give up what an earlier generation had committed elsewhere."""

    recovery_generation: int = 0
    index: int = 0
    term: int = 0


class Voter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A voter counts only under the store generation named here: a wiped disk comes back as somebody else."""

    node_id: str
    store_generation: int


class Configuration(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The voter set in force from the index of its entry on. `outgoing` is not empty during a joint change (Raft, section 6)."""

    voters: tuple[Voter, ...]
    outgoing: tuple[Voter, ...] = ()


class SnapshotMeta(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a catalog snapshot stands in the log."""

    index: int
    term: int
    configuration: Configuration
    configuration_index: int
    recovery_generation: int
    time_utc: float
    crc32c: int
    length: int


KIND_NOOP = "noop"
KIND_FOUND = "found"
KIND_CONFIGURATION = "configuration"
"""The three kinds that consensus itself reads; every other kind is the catalog's alone."""
