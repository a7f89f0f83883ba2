"""What applying one log entry gave: a value or a rejection, events for people, and what was touched.

Promise: equal on every replica that applies the same log; callers turn a rejection into an exception of `swarm.errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from swarm.errors import Conflict, NotFound, OperatorError, UsageError

_ERRORS: dict[str, type[OperatorError]] = {"conflict": Conflict, "not_found": NotFound, "invalid": UsageError}


class Rejected(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The command was understood and refused; no state changed. `code`: conflict, not_found or invalid."""

    code: str
    message: str
    cause: str = ""
    hint: str = ""

    def to_error(self) -> OperatorError:
        """The exception to show whoever asked."""
        return _ERRORS.get(self.code, UsageError)(self.message, cause=self.cause, hint=self.hint)


def refused_text(refused: Sequence[tuple[int, Rejected]]) -> str:
    """Which items of a batch were refused, and with which code: `3:conflict 7:invalid`. Without the words, which are long."""
    return " ".join(f"{number}:{rejected.code}" for number, rejected in refused)


def refused_of_text(text: str) -> dict[int, str]:
    """Number and code of each item that `refused_text` names."""
    pairs = (each.split(":", 1) for each in text.split())
    return {int(number): code for number, code in pairs}


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing the log says happened. All events of one entry share its index; streams resume after an index.

    `subjects` are ids of the nodes, tasks and assignments it is about; `fields` repeats the facts in `text` for programs.
    """

    index: int
    time_utc: float
    kind: str
    subjects: tuple[str, ...]
    text: str
    fields: dict[str, str | int] = {}


@dataclass(frozen=True, slots=True)
class Applied:
    """Result of one entry. `value` is the id the command made, if any; `repeated` says the request id had been applied before.

    `refused` are the items of a batch that were refused, by number; a repetition has them in `value` only. `relayed_by` is the
    node that carried the request to the leader for this one, whose own catalog then lags behind.
    """

    index: int
    outcome: Rejected | None = None
    value: str = ""
    events: tuple[Event, ...] = ()
    touched_nodes: frozenset[str] = frozenset()
    touched_tasks: frozenset[str] = frozenset()
    repeated: bool = False
    refused: tuple[tuple[int, Rejected], ...] = ()
    relayed_by: str = ""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events after an index. Not `complete` when older ones than the ring holds were asked for: list again, then resume."""

    events: tuple[Event, ...]
    complete: bool
    last_index: int
