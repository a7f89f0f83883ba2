"""The next step for one copy: what is wanted against what is there. A table in the form of a function.

    record gone                         stop, remove, forget
    ended                               stop what runs after all; keep the newest ended container of a task for its logs
    lost, still wanted                  leave it alone: the leader decides which copy stays
    wanted stopped                      stop, then end as stopped
    wanted running, container runs      running
    wanted running, container ended     judge the exit: restart after a while, or an end
    wanted running, no container        make one - if the fence lets it

Pure: no I/O, no clock, no randomness of its own. `next_step` decides and changes nothing. Promise: at most one operation of a
copy is in flight, and nothing is asked of an engine that is down or not yet listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm.model.container import ContainerStatus
from swarm.model.phase import Desired, Phase
from swarm.runner.copies import BROKEN, Copy
from swarm.runner.effects import Inspect, Operation, Remove, Run, Start, Stop

WEDGED_MIN = 2
"""Failed starts in a row after which a container is made anew: the first may have been the engine's own restart."""
SAME_START_S = 2.0
"""The same start, stamped by its event, by the engine's record and by our clock, differs by milliseconds on a quiet host."""


@dataclass(frozen=True, slots=True)
class Look:
    """The circumstances of one decision."""

    now: float
    ready: bool
    """The engine is up and has been listed since it came up."""
    may_start: bool
    may_restart: bool
    trusted: bool
    """What is held was true lately: a replay of old entries is not, and no exit is judged by it."""
    kept: Mapping[str, int]
    """Task -> attempt of its newest ended container, which is kept for its logs."""
    abandon_after_s: float
    stray_stop_grace_s: float


@dataclass(frozen=True, slots=True)
class Do:
    """Begin an operation. `Run` carries no plan here: the core makes it."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Create:
    """Begin to make and start the container."""


@dataclass(frozen=True, slots=True)
class MarkRunning:
    """Its container runs, and this was not known."""


@dataclass(frozen=True, slots=True)
class JudgeExit:
    """Its container ended or vanished, and this was not judged."""


@dataclass(frozen=True, slots=True)
class MarkStopped:
    """Nothing of it runs any more, as wanted."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give the operation in flight up."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Record and container are gone."""


Step = Do | Create | MarkRunning | JudgeExit | MarkStopped | Abandon | Forget


def next_step(copy: Copy, look: Look) -> Step | None:
    """What to do for `copy` now; None when there is nothing, or nothing yet."""
    if copy.operation is not None:
        return _while_busy(copy, look)
    if not look.ready or look.now < copy.hold_until:
        return None
    if copy.recheck and copy.container is not None:
        return Do(Inspect(copy.container.container_id))
    if copy.gone:
        return _collect(copy, look)
    if copy.record is None:
        return None  # a stray within its grace
    if copy.ended:
        return _after_end(copy, look)
    if copy.record.desired is Desired.STOPPED:
        return _stop(copy, look)
    if copy.lost:
        return MarkRunning() if copy.alive and copy.phase is not Phase.RUNNING else None
    return _run(copy, look)


def _while_busy(copy: Copy, look: Look) -> Step | None:
    if not isinstance(copy.operation, (Run, Start)):
        return None
    if copy.wanted:
        return MarkRunning() if copy.alive and copy.phase is not Phase.RUNNING else None
    if copy.container is None and look.now >= copy.operation_since + look.abandon_after_s:
        return Abandon()
    return None


def _collect(copy: Copy, look: Look) -> Step:
    if copy.container is None:
        return Forget()
    if copy.alive:
        return Do(_stop_of(copy, look))
    return Do(Remove(copy.container.container_id))


def _after_end(copy: Copy, look: Look) -> Step | None:
    if copy.container is None:
        return None
    if copy.alive:
        return Do(_stop_of(copy, look))
    superseded = look.kept.get(copy.task_id, 0) > copy.attempt
    return Do(Remove(copy.container.container_id)) if superseded else None


def _stop(copy: Copy, look: Look) -> Step:
    return Do(_stop_of(copy, look)) if copy.alive else MarkStopped()


def _run(copy: Copy, look: Look) -> Step | None:
    container = copy.container
    if copy.alive:
        assert container is not None
        known = copy.phase is Phase.RUNNING and abs(copy.started_utc - container.started_utc) <= SAME_START_S
        return None if known else MarkRunning()
    if container is not None and (container.status in BROKEN or copy.wedged >= WEDGED_MIN):
        return Do(Remove(container.container_id))
    exited = container is not None and container.status is ContainerStatus.EXITED
    if not copy.waiting and (exited or (container is None and copy.ran)):
        return JudgeExit() if look.trusted else None
    permitted = look.may_start or (copy.ran and look.may_restart)
    if not permitted or (copy.waiting and look.now < copy.try_at):
        return None
    if exited:
        assert container is not None
        return Do(Start(container.container_id))
    return Create()


def _stop_of(copy: Copy, look: Look) -> Stop:
    assert copy.container is not None
    if copy.spec is None:
        return Stop(copy.container.container_id, "", look.stray_stop_grace_s)
    return Stop(copy.container.container_id, copy.spec.stop_signal, copy.spec.stop_grace_s)
