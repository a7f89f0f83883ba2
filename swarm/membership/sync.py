"""Push-pull: two members exchange their whole tables, on joining and now and then (anti-entropy).

What a table says is older than a rumour and comes from one member alone. So its "dead" counts as suspicion, for which the partner
investigates itself; its "left" is the member's own word and is believed.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math

import msgspec

from swarm.membership.config import Config
from swarm.membership.messages import Claim, SyncState
from swarm.membership.samples import SampleBoard
from swarm.membership.table import Table
from swarm.model.liveness import MemberStatus


def state_of(table: Table, samples: SampleBoard, now: float) -> SyncState:
    """Everything this node ever heard of the members. O(N)."""
    heard = [table.records[i] for i in sorted(table.records) if table.records[i].generation > 0]
    return SyncState(
        table.claim(table.me, now),
        tuple(table.claim(record, now) for record in heard),
        tuple(samples.latest[node_id] for node_id in sorted(samples.latest)),
    )


def as_suspicion(claim: Claim) -> Claim:
    """A remote "dead" for what it is worth."""
    if claim.status is MemberStatus.DEAD:
        return msgspec.structs.replace(claim, status=MemberStatus.SUSPECT)
    return claim


def sync_interval_s(members: int, config: Config) -> float:
    """Tables grow with N, and so does the time between exchanges beyond 32 members (as memberlist's does)."""
    return config.sync_interval_s * (1.0 + max(0.0, math.ceil(math.log2(max(1, members)) - 5)))
