"""Mutants of recovery: one rule each, for the stories of `test_recoveries`, which must notice. See `mutants`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from swarm.consensus.core import Consensus
from swarm.consensus.recovery import Survey, begin_generation
from swarm.model.entry import KIND_CONFIGURATION, KIND_FOUND, KIND_NOOP
from swarm.simulation import host
from swarm.simulation.disk import Disk
from swarm.simulation.host import Host
from swarm.simulation.streams import Streams
from tests.simulation.mutants import Mutant, patched

RECOVERY_MUTANTS: dict[str, Mutant] = {}


def mutant(function: Callable[[], Iterator[None]]) -> Mutant:
    """Register one."""
    made = contextmanager(function)
    functools.update_wrapper(made, function)
    RECOVERY_MUTANTS[function.__name__] = made
    return made


@mutant
def nobody_follows_a_later_generation() -> Iterator[None]:
    """Who was lost and comes back stays in its old life."""
    with patched(Host, "on_generation", lambda self, generation: None):
        yield


@mutant
def any_other_generation_is_followed() -> Iterator[None]:
    """Whoever follows another generation is followed, be it an earlier one."""
    with patched(host, "supersedes", lambda one, other: one != other):
        yield


@mutant
def an_old_log_is_continued() -> Iterator[None]:
    """Who follows a later generation keeps its log, under its old store generation."""
    with patched(Disk, "wipe", lambda self: None):
        yield


@mutant
def an_old_generation_is_listened_to() -> Iterator[None]:
    """Neither a hello nor a message is refused for its generation."""

    def on_message(self: Consensus, source: Any, message: Any, now: float) -> None:
        mine = msgspec.structs.replace(message, recovery_generation=self._state.recovery_generation)
        honest(self, source, mine, now)

    honest = Consensus.on_message
    with patched(Streams, "_are_apart", lambda self, one, other: False), patched(Consensus, "on_message", on_message):
        yield


@mutant
def the_worst_survivor_goes_on() -> Iterator[None]:
    """The command names the survivor with the oldest log."""
    best = property(lambda self: min((self.mine, *self.others), key=lambda look: look.order))
    with patched(Survey, "best", best):
        yield


@mutant
def the_lost_voters_stay_voters() -> Iterator[None]:
    """A recovery begins with the voters that were lost."""

    def begin(stored: Any, **options: Any) -> Any:
        batch = begin_generation(stored, **options)
        assert batch is not None
        (entry,) = batch.entries
        kept = [each for each in stored.entries if each.kind == KIND_CONFIGURATION]
        if kept:
            entry = msgspec.structs.replace(entry, payload=kept[-1].payload)
        else:
            assert any(each.kind == KIND_FOUND for each in stored.entries)
            entry = msgspec.structs.replace(entry, kind=KIND_NOOP, payload=b"")
        return dataclasses.replace(batch, entries=(entry,))

    with patched(host, "begin_generation", begin):
        yield
