"""Amounts of a host's capacity: what a task reserves, what a node has, and whether the one fits in the other.

`fits` is shared by the scheduler (which plans) and the catalog (which checks again at apply), so both give the same answer.
All amounts are integers: floats would not add up the same on every replica.
"""

from __future__ import annotations

import msgspec


class Resources(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An amount of each resource. `generic` holds countable named things (gpus, licences), sorted by name."""

    cpu_millicores: int = 0
    memory_bytes: int = 0
    tasks: int = 0
    generic: tuple[tuple[str, int], ...] = ()

    def plus(self, other: Resources) -> Resources:
        """The sum, resource by resource."""
        return _combine(self, other, 1)

    def minus(self, other: Resources) -> Resources:
        """The difference, resource by resource; may be negative where a node is over-reserved."""
        return _combine(self, other, -1)


def _combine(one: Resources, other: Resources, sign: int) -> Resources:
    generic: tuple[tuple[str, int], ...] = one.generic
    if other.generic:
        amounts = dict(one.generic)
        for name, amount in other.generic:
            amounts[name] = amounts.get(name, 0) + sign * amount
        generic = tuple(sorted(amounts.items()))
    return Resources(
        one.cpu_millicores + sign * other.cpu_millicores,
        one.memory_bytes + sign * other.memory_bytes,
        one.tasks + sign * other.tasks,
        generic,
    )


def fits(wanted: Resources, free: Resources) -> str | None:
    """None when `wanted` fits into `free`; otherwise the name of the first resource that is short."""
    if wanted.cpu_millicores > max(free.cpu_millicores, 0):
        return "cpu"
    if wanted.memory_bytes > max(free.memory_bytes, 0):
        return "memory"
    if wanted.tasks > max(free.tasks, 0):
        return "tasks"
    if wanted.generic:
        have = dict(free.generic)
        for name, amount in wanted.generic:
            if amount > have.get(name, 0):
                return name
    return None
