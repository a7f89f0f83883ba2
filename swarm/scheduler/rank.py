"""Which of the feasible nodes is best: the five policies.

Each policy has an order, a tuple that the index keeps nodes sorted by, and a score that is computed anew for the few best
feasible nodes. Smaller is better in both, and both end in the node's id, so that ties always break the same way.

- spread: the fewest assignments, then the smallest share reserved. What a Docker user expects.
- binpack: the tightest fit. The order is the room left, so that a search may begin at the first node with enough.
- least-loaded: the smallest load by gossip's newest sample.
- round-robin: by id, beginning after the node chosen last.
- e-pvm: the smallest rise of cost, where cost is the sum of n ** utilisation over CPU, memory and generic resources (Amir et
  al.; the Borg paper, section 3.2). The CPU term takes the larger of what is reserved and what is measured. The exponential
  makes the last tenth of a host dear, which spreads load and keeps headroom for spikes.

A node without a sample comes after every node that has one.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from enum import StrEnum

from swarm.model.liveness import Sample
from swarm.model.node import Node
from swarm.model.resources import Resources

Key = tuple[int | float | str, ...]

BYTES_PER_MILLICORE = 2**31 // 1000
"""Makes CPU comparable with memory: 2 GiB stand for one core, the usual shape of a host."""
SHARE_WHOLE = 1000
NOMINAL = Resources(cpu_millicores=10, memory_bytes=16 * 2**20)
"""What a task that reserves nothing is taken to use, so that it still costs more on a fuller node."""


class Policy(StrEnum):
    """How to choose among feasible nodes."""

    SPREAD = "spread"
    BINPACK = "binpack"
    LEAST_LOADED = "least-loaded"
    ROUND_ROBIN = "round-robin"
    E_PVM = "e-pvm"


def order(policy: Policy, node: Node, reserved: Resources, count: int, sample: Sample | None) -> Key:
    """Where the index keeps the node."""
    match policy:
        case Policy.SPREAD:
            return (count, share(node, reserved), node.id)
        case Policy.BINPACK:
            return (room(node.capacity.minus(reserved)), node.id)
        case Policy.LEAST_LOADED:
            return (*load(sample), count, node.id)
        case Policy.ROUND_ROBIN:
            return (node.id,)
        case Policy.E_PVM:
            return (share(node, reserved), count, node.id)


def score(
    policy: Policy, node: Node, reserved: Resources, wanted: Resources, count: int, sample: Sample | None, *, nodes: int
) -> Key:
    """How good the node is for a task that wants `wanted`, among the candidates."""
    missing = 0 if sample is not None else 1
    match policy:
        case Policy.BINPACK:
            left = node.capacity.minus(reserved).minus(wanted)
            return (missing, room_sum(left), node.id)
        case Policy.LEAST_LOADED:
            return (*load(sample), count, share(node, reserved), node.id)
        case Policy.E_PVM:
            return (missing, cost_rise(node, reserved, wanted, sample, nodes=nodes), count, node.id)
        case _:
            return (missing, *order(policy, node, reserved, count, sample))


def share(node: Node, reserved: Resources) -> int:
    """The larger reserved share of CPU and memory, in thousandths."""
    return max(
        _permille(reserved.cpu_millicores, node.capacity.cpu_millicores),
        _permille(reserved.memory_bytes, node.capacity.memory_bytes),
    )


def room(free: Resources) -> int:
    """The smaller of free memory and free CPU, in bytes."""
    return min(free.cpu_millicores * BYTES_PER_MILLICORE, free.memory_bytes)


def room_sum(free: Resources) -> int:
    """All that is free, in bytes: what a tight fit makes small."""
    return free.cpu_millicores * BYTES_PER_MILLICORE + free.memory_bytes


def room_bounds(wanted: Resources) -> tuple[int, int]:
    """Below the first no node fits; from the second on every node does, as far as CPU and memory go."""
    one, other = wanted.cpu_millicores * BYTES_PER_MILLICORE, wanted.memory_bytes
    return min(one, other), max(one, other)


def load(sample: Sample | None) -> tuple[int, int]:
    """(missing, load in thousandths): the larger of CPU and memory in use, in steps of 5 % so that noise decides nothing."""
    if sample is None:
        return (1, 0)
    busy = max(sample.cpu_used_permille, sample.memory_used_permille, min(sample.load_permille, SHARE_WHOLE))
    return (0, busy // 50 * 50)


def cost_rise(node: Node, reserved: Resources, wanted: Resources, sample: Sample | None, *, nodes: int) -> float:
    """How much the node's cost would rise. Terms are resources with a capacity; utilisation above 1 is allowed and dear."""
    base = float(max(nodes, 2))
    capacity = node.capacity
    cpu_now = reserved.cpu_millicores / max(capacity.cpu_millicores, 1)
    if sample is not None:
        cpu_now = max(cpu_now, sample.cpu_used_permille / SHARE_WHOLE)
    rise = _rise(base, cpu_now, max(wanted.cpu_millicores, NOMINAL.cpu_millicores) / max(capacity.cpu_millicores, 1))
    memory = max(capacity.memory_bytes, 1)
    rise += _rise(base, reserved.memory_bytes / memory, max(wanted.memory_bytes, NOMINAL.memory_bytes) / memory)
    if wanted.generic:
        have, used = dict(capacity.generic), dict(reserved.generic)
        for name, amount in wanted.generic:
            rise += _rise(base, used.get(name, 0) / max(have.get(name, 0), 1), amount / max(have.get(name, 0), 1))
    return rise


def _rise(base: float, now: float, more: float) -> float:
    return float(base ** min(now + more, 8.0) - base ** min(now, 8.0))


def _permille(part: int, whole: int) -> int:
    if whole <= 0:
        return SHARE_WHOLE if part > 0 else 0
    return part * SHARE_WHOLE // whole
