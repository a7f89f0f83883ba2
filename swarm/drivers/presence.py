"""Which run of a daemon this is, and which of two runs under one identity was there first.

Promise: of two runs that each measure the other, both name the same elder, unless what they measured differs by more than the
tie of a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from swarm.errors import IdentityTaken
from swarm.model.node import Node

TIE_S = 1.0
"""Runs that differ by less are told apart by name: what each side measures differs by the time of a message."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a daemon. `now` gives CLOCK_BOOTTIME seconds. A run without a name is nobody's twin."""

    instance: str
    started_at: float
    now: Callable[[], float]

    @property
    def running_s(self) -> float:
        """How long it has lasted."""
        return max(0.0, self.now() - self.started_at)

    def is_twin(self, instance: str) -> bool:
        """Whether somebody under the same identity is another run than this one."""
        return "" not in (self.instance, instance) and instance != self.instance

    def is_elder(self, instance: str, running_s: float) -> bool:
        """Whether this run was there before that other one."""
        ahead_s = self.running_s - running_s
        return ahead_s > 0 if abs(ahead_s) >= TIE_S else self.instance < instance


NO_RUN = Run("", 0.0, lambda: 0.0)


def displaced(me: Node, address: str, running_s: float) -> IdentityTaken:
    """What the younger one ends with."""
    return IdentityTaken(
        f"cannot run as the node {me.name!r} ({me.id}): a daemon with the same identity runs at {address}, {_lasting(running_s)}",
        cause="two hosts hold one id and one key: a data folder was copied, or a disk was cloned with one on it",
        hint="on the host that is the copy: swarm reset, then join as a new node; containers were not touched",
    )


def _lasting(running_s: float) -> str:
    minutes = math.floor(running_s / 60)
    return f"for {running_s:.0f} s" if minutes < 2 else f"for {minutes} min" if minutes < 120 else f"for {minutes // 60} h"
