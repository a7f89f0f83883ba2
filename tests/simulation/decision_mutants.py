"""Mutants of what was decided, and on what grounds: runners ahead of the log, verdicts without a silence. See `mutants`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from swarm.catalog import Catalog
from swarm.membership import investigation
from swarm.membership.evidence import Finding
from swarm.model.node import VerdictKind
from swarm.runner import labels
from swarm.simulation.containers import Containers
from tests.simulation.mutants import SHOWN_BY, WHERE_TO_LOOK, mutant, patched

WHERE_TO_LOOK.update(
    {
        "a_runner_runs_what_is_anothers": {"hosts": 2, "kinds": ("slow_engine",)},
        "a_leader_that_is_heard_is_news": {"hosts": 3, "kinds": ("full", "power", "crown", "cut", "daemon")},
        "a_gone_daemon_is_called_a_silent_host": {"hosts": 3, "kinds": ("daemon",), "every_s": 1.0},
        "a_stalled_daemon_is_called_a_silent_host": {"hosts": 3, "kinds": ("freeze",), "every_s": 1.0},
    }
)
SHOWN_BY.update({"a_leader_that_is_heard_is_news": 266})


@mutant
def a_runner_runs_the_next_attempt() -> Iterator[None]:
    """A runner makes up the next attempt of a task, which the log has not named."""
    plan_of = labels.plan_of

    def ahead(*, assignment: Any, **others: Any) -> Any:
        return plan_of(assignment=msgspec.structs.replace(assignment, attempt=assignment.attempt + 1), **others)

    with patched(labels, "plan_of", ahead):
        yield


@mutant
def a_runner_runs_what_is_anothers() -> Iterator[None]:
    """A runner takes what was placed on others for its own."""

    def held_by(self: Catalog, node_id: Any) -> Any:
        others = [each for each in self.assignments.values() if each.node_id != node_id]
        return {each.id: (msgspec.structs.replace(each, node_id=node_id), self.tasks[each.task_id]) for each in others}

    with patched(Catalog, "held_by", held_by):
        yield


@mutant
def a_leader_that_is_heard_is_news() -> Iterator[None]:
    """A runner takes the word of a leader for the newest state, though its entries are not applied here."""
    look = Containers._look

    def looks(self: Containers) -> None:
        self.core.fence.on_current(self.replica.core.leader_contact)
        look(self)

    with patched(Containers, "_look", looks):
        yield


def found_silent(instead_of: VerdictKind) -> Any:
    """Weighs as ever, and calls one kind of death another."""
    weigh = investigation.weigh

    def careless(*given: Any) -> Finding:
        finding = weigh(*given)
        return replace(finding, kind=VerdictKind.HOST_SILENT) if finding.kind is instead_of else finding

    return careless


@mutant
def a_gone_daemon_is_called_a_silent_host() -> Iterator[None]:
    """A kernel that refuses counts as one that does not answer."""
    with patched(investigation, "weigh", found_silent(VerdictKind.DAEMON_GONE)):
        yield


@mutant
def a_stalled_daemon_is_called_a_silent_host() -> Iterator[None]:
    """A kernel that accepts while nobody speaks counts as one that does not answer."""
    with patched(investigation, "weigh", found_silent(VerdictKind.DAEMON_STALLED)):
        yield
