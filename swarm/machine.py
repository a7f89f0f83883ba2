"""The shape that all cores share: inputs in, ordered effects out.

A core is synchronous Python. It is given inputs (a message, a tick, an intent) together with `now`, changes its state, and
appends effects to a list that its driver takes and carries out in order. It does no I/O, reads no clock, and draws randomness
only from the `random.Random` it was handed, so that a run is a pure function of its seed.

Promises kept here: `now` never goes backwards for a core (`Core.observe_now`), and effects come out in the order they were
emitted, each exactly once.
"""

from __future__ import annotations

import math
from typing import Generic, Protocol, TypeVar

EffectT = TypeVar("EffectT")


class Outbox(Generic[EffectT]):
    """An ordered list of effects that a core emits into and a driver takes from."""

    __slots__ = ("_effects",)

    def __init__(self) -> None:
        self._effects: list[EffectT] = []

    def emit(self, effect: EffectT) -> None:
        """Append one effect. O(1)."""
        self._effects.append(effect)

    def take(self) -> list[EffectT]:
        """Hand over everything emitted since the last take, in order, and forget it."""
        effects, self._effects = self._effects, []
        return effects

    def __len__(self) -> int:
        return len(self._effects)


class Core(Protocol):
    """What every driver (and the simulation) relies on. `now` is CLOCK_BOOTTIME seconds everywhere."""

    @property
    def next_deadline(self) -> float:
        """When `tick` must be called at the latest, CLOCK_BOOTTIME seconds; `math.inf` when idle."""

    def tick(self, now: float) -> None:
        """Do whatever is due at `now`. Calling it early or twice is harmless."""

    def on_stall(self, gap_s: float, now: float) -> None:
        """This process did not run for `gap_s` seconds. Comes before any other input after the pause."""

    def check(self) -> None:
        """Assert every invariant. For tests and the simulation."""


NEVER = math.inf
