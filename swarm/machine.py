"""The shape that all cores share: inputs in, ordered effects out.

A core is synchronous Python. It is given inputs (a message, a tick, an intent) together with `now`, changes its state, and
appends effects to a list that its driver takes and carries out in order. It does no I/O, reads no clock, and draws randomness
only from the `random.Random` it was handed, so that a run is a pure function of its seed.

Promises kept here: `now` never goes backwards for a core (`Core.observe_now`), and effects come out in the order they were
emitted, each exactly once; a core that broke does nothing any more (`ends_when_broken`).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

EffectT = TypeVar("EffectT")
CoreT = TypeVar("CoreT")


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


def ends_when_broken(*refusals: type[Exception]) -> Callable[[type[CoreT]], type[CoreT]]:
    """Of a core's class: once one of its public methods has failed with anything but a refusal, an invariant is broken and the
    change may be half made; from then on each of them raises that same error. Whoever asked (a request, a peer's call) may end
    its own work with the first one: the driver's loop meets it at its next tick, and so the node ends, whatever broke the core.
    Properties go on telling."""

    def guard(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.broken_by is not None:
                raise self.broken_by
            try:
                return method(self, *args, **kwargs)
            except refusals:
                raise
            except Exception as error:
                self.broken_by = error
                raise

        return guarded

    def decorate(core: type[CoreT]) -> type[CoreT]:
        core.broken_by = None  # type: ignore[attr-defined]
        for name, method in list(vars(core).items()):
            if inspect.isfunction(method) and not name.startswith("_"):
                setattr(core, name, guard(method))
        return core

    return decorate


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
