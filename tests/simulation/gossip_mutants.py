"""The membership core broken on purpose, one rule each, with the trial of `test_gossip_only` that must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from swarm.membership import claims, core, mail, table
from swarm.membership.claims import Claims
from swarm.membership.health import LocalHealth
from swarm.membership.table import RANK, Record
from tests.simulation.mutants import patched


@contextmanager
def remote_dead_is_dead() -> Iterator[None]:
    """A table's "dead" is believed as it stands."""
    with patched(core, "as_suspicion", lambda claim: claim):
        yield


@contextmanager
def nobody_refutes() -> Iterator[None]:
    """A member lets stand what is said about it."""
    with patched(Claims, "_on_claim_about_me", lambda self, claim, now: None):
        yield


@contextmanager
def no_local_health() -> Iterator[None]:
    """A member that misses answers trusts its eyes all the same."""
    with patched(LocalHealth, "_add", lambda self, step: None):
        yield


@contextmanager
def late_is_dead() -> Iterator[None]:
    """Who was late before gets no more time than anybody."""
    with patched(table, "PATIENCE_MAX", 1):
        yield


@contextmanager
def incarnation_before_generation() -> Iterator[None]:
    """The older daemon's rebuttals outweigh the newer daemon's start."""

    def order(claim: object) -> tuple[int, int, int]:
        return claim.incarnation, claim.generation, RANK[claim.status]  # type: ignore[attr-defined]

    with patched(table, "claim_order", order), patched(claims, "claim_order", order), patched(Record, "order", property(order)):
        yield


@contextmanager
def rumours_are_told_once() -> Iterator[None]:
    """Everybody passes news on to one other."""
    with patched(mail, "retransmit_limit", lambda members, factor: 1):
        yield


Mutant = Callable[[], AbstractContextManager[None]]
