"""Death by kind of evidence: what several observers saw of one member, weighed by one pure function.

A missing answer says little: a starved daemon is late by a second and more. Its host's kernel is not: it accepts or refuses a
connect within a millisecond however busy the machine is. So:

- the kernel accepts (or the member is heard, though it does not answer): **stalled**; only time can tell, the whole suspicion;
- the kernel refuses, seen by two observers, or by all there are: **gone**, at once;
- no kernel answers several connects of ours, and other observers' connects neither: **host silent**, after a suspicion that
  their agreement shortens (it is evidence about the kernel, not about missing answers).

Whoever reached it is believed above all who did not: it is not dead.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from swarm.membership.config import Config
from swarm.membership.suspicion import CONFIRMING, suspicion_s
from swarm.model.ids import NodeId
from swarm.model.node import VerdictKind

_SILENT = ("silent", "unreachable")


@dataclass(frozen=True, slots=True)
class Observation:
    """What another observer said: what the kernel did with its connect (empty: not tried or not known)."""

    at: float
    connect: str
    kind: VerdictKind | None = None
    """Its own conclusion, when it came as an accusation and not as a report."""


@dataclass(slots=True)
class Case:
    """Everything held against one member since it was last reached."""

    subject: NodeId
    opened_at: float
    """When the first ping that was lost had been sent, or the accusation came."""
    pings_lost: int = 0
    own_connect: str = ""
    """Outcome of this node's newest connect."""
    own_silent_run: int = 0
    """This node's connects in a row without an answer."""
    own_refused_run: int = 0
    asked: dict[NodeId, None] = field(default_factory=dict)
    """Helpers that were asked and have not reported."""
    reports_expected: int = 0
    reports_received: int = 0
    others: dict[NodeId, Observation] = field(default_factory=dict)

    def on_own_connect(self, outcome: str) -> None:
        """This node's connect came to its end."""
        self.own_connect = outcome
        self.own_silent_run = self.own_silent_run + 1 if outcome in _SILENT else 0
        self.own_refused_run = self.own_refused_run + 1 if outcome == "refused" else 0


@dataclass(frozen=True, slots=True)
class Finding:
    """The most likely kind, and whether that is enough to call it dead. `check_at` is when time alone may make it so."""

    kind: VerdictKind
    conclusive: bool
    check_at: float


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the weighing depends on beside the case."""

    heard_at: float
    """Last packet of any kind from the subject, or last bytes over a stream."""
    observers_possible: int
    """Members present besides this node and the subject."""
    health_factor: int
    members: int
    patience: int = 1
    """How often its lateness was taken for a stall lately (`Record.patience`)."""


def weigh(case: Case, around: Circumstances, config: Config, now: float) -> Finding:
    """What the case amounts to at `now`."""
    fresh = [o for o in case.others.values() if now - o.at <= config.observation_fresh_s]
    heard = around.heard_at > case.opened_at and now - around.heard_at <= config.heard_fresh_s
    accepted = case.own_connect == "accepted" or any(_says(o, "accepted") for o in fresh) or heard
    refused_by_others = sum(_says(o, "refused") for o in fresh)
    refused_by = (case.own_connect == "refused") + refused_by_others
    silent_by_others = sum(_says(o, "silent") for o in fresh)
    confirmations = refused_by_others if refused_by else silent_by_others
    known = bool(refused_by or case.own_silent_run or silent_by_others)
    deadline = case.opened_at + _suspicion_s(confirmations, known and not accepted, around, config)
    overdue = now >= deadline and case.pings_lost > 0
    if accepted:
        return Finding(VerdictKind.DAEMON_STALLED, overdue, deadline)
    if refused_by:
        needed = min(2, 1 + around.observers_possible)
        enough = refused_by >= needed and (needed > 1 or case.own_refused_run >= 2)
        return Finding(VerdictKind.DAEMON_GONE, enough or overdue, deadline)
    if case.own_silent_run or silent_by_others:
        alone = around.observers_possible == 0
        tries = config.silent_connects_alone_min if alone else config.silent_connects_min
        return Finding(VerdictKind.HOST_SILENT, overdue and case.own_silent_run >= tries, deadline)
    return Finding(VerdictKind.DAEMON_STALLED, overdue, deadline)


def _says(observation: Observation, outcome: str) -> bool:
    if observation.kind is not None:
        said = {VerdictKind.HOST_SILENT: "silent", VerdictKind.DAEMON_GONE: "refused", VerdictKind.DAEMON_STALLED: "accepted"}
        return observation.kind in CONFIRMING and said[observation.kind] == outcome
    return observation.connect == outcome or (outcome == "silent" and observation.connect in _SILENT)


def _suspicion_s(confirmations: int, kernel_is_down: bool, around: Circumstances, config: Config) -> float:
    """Lifeguard's formula over the others that agree on a fact about the kernel. Nothing shortens a stall, and two things make it
    longer: that this member misses answers in general, and that the subject's silence turned out to be lateness before."""
    scale = max(1.0, len(str(around.members)) - 1.0)  # about log10 of the members: rumours need that much longer
    maximum_s = config.suspicion_max_s * scale
    if not kernel_is_down:
        return maximum_s * around.health_factor * around.patience
    return suspicion_s(
        confirmations=confirmations,
        needed=min(config.confirmations, around.observers_possible),
        minimum_s=config.suspicion_min_s * around.health_factor,
        maximum_s=maximum_s,
    )


FOUND = {
    VerdictKind.HOST_SILENT: "silent (no kernel answers)",
    VerdictKind.DAEMON_GONE: "gone (the kernel refuses the port)",
    VerdictKind.DAEMON_STALLED: "stalled (nobody speaks)",
    VerdictKind.CONFIRMED: "dead",
    VerdictKind.ALIVE: "alive",
}
"""Another's conclusion in words."""
_WORDS = {
    "accepted": "its kernel accepts, nobody speaks",
    "refused": "its kernel refuses the port",
    "silent": "no SYN-ACK",
    "unreachable": "no route or no answer to ARP",
}


def describe(
    case: Case, name_of: Callable[[str], str], self_id: NodeId, now: float, *, reached_by: str = "", reached_at: float = 0.0
) -> str:
    """The case in words: "n1, n2 lost it 2.1 s ago: no SYN-ACK; n4 reached it 12 ms ago"."""
    by_outcome: dict[str, list[str]] = {}
    if case.own_connect:
        by_outcome.setdefault(case.own_connect, []).append(name_of(self_id))
    for observer, seen in sorted(case.others.items()):
        if observer == reached_by:
            continue  # what it saw before
        outcome = seen.connect or next((word for word in _WORDS if seen.kind and _says(seen, word)), "")
        if outcome:
            by_outcome.setdefault(outcome, []).append(name_of(observer))
    age = ago(now - case.opened_at)
    parts = [f"{', '.join(who)} lost it {age}: {_WORDS.get(outcome, outcome)}" for outcome, who in by_outcome.items()]
    if not parts:
        parts = [f"{name_of(self_id)} lost it {age}: no answer to pings"]
    if reached_by:
        parts.append(f"{name_of(reached_by)} reached it {ago(now - reached_at)}")
    return "; ".join(parts)


def ago(age_s: float) -> str:
    """12 ms ago, 2.1 s ago, 5 min ago."""
    if age_s < 1:
        return f"{max(0, round(age_s * 1000))} ms ago"
    if age_s < 120:
        return f"{age_s:.1f} s ago"
    return f"{age_s / 60:.0f} min ago"
