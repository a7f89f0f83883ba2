"""What the runner asks of its driver. A closed union of frozen dataclasses, carried out in order."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.model.command import Report
from swarm.model.container import ContainerPlan


@dataclass(frozen=True, slots=True)
class Run:
    """Create the planned container (or find it) and start it. Result: the container as started.

    `plan.spec.registry_auth` is still sealed: opening it is the driver's."""

    plan: ContainerPlan


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container that has ended. Result: the container as it is after."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Signal, wait up to the grace, kill. Result: the container as it is after, or None when it is gone."""

    container_id: str
    signal: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a container that does not run. Result: None."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Inspect:
    """Look at one container. Result: what it is now, or None when it is gone."""

    container_id: str


Operation = Run | Start | Stop | Remove | Inspect


@dataclass(frozen=True, slots=True)
class StartOperation:
    """Begin one engine operation; its result comes back by `on_operation_done` with this number, possibly never."""

    number: int
    operation: Operation


@dataclass(frozen=True, slots=True)
class AbandonOperation:
    """Give an operation up. It may still finish; what it made is found by events and lists."""

    number: int


@dataclass(frozen=True, slots=True)
class SendReports:
    """Bring these to the log. Nothing is expected back: what the log does not show is sent again."""

    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class NeedBarrier:
    """Ask the leader, now or later, for its commit index; answer with this number by `on_fresh`."""

    number: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something people should see in the log of this node. `kind`: stray, collected, engine, operation, fence."""

    kind: str
    subject: str
    text: str


Effect = StartOperation | AbandonOperation | SendReports | NeedBarrier | Notice
