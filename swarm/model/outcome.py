"""What applying one log entry gave: a value or a rejection, events for people, and what was touched.

Promise: equal on every replica that applies the same log; callers turn a rejection into an exception of `swarm.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from swarm.errors import Conflict, NotFound, OperatorError, UsageError

_ERRORS: dict[str, type[OperatorError]] = {"conflict": Conflict, "not_found": NotFound, "invalid": UsageError}


class Rejected(msgspec.Struct, frozen=True, array_like=True):
    """The command was understood and refused; no state changed. `code`: conflict, not_found or invalid."""

    code: str
    message: str
    cause: str = ""
    hint: str = ""

    def to_error(self) -> OperatorError:
        """The exception to show whoever asked."""
        return _ERRORS.get(self.code, UsageError)(self.message, cause=self.cause, hint=self.hint)


class Event(msgspec.Struct, frozen=True):
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
    """Result of one entry. `value` is the id the command made, if any; `repeated` says the request id had been applied before."""

    index: int
    outcome: Rejected | None = None
    value: str = ""
    events: tuple[Event, ...] = ()
    touched_nodes: frozenset[str] = frozenset()
    touched_tasks: frozenset[str] = frozenset()
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events after an index. Not `complete` when older ones than the ring holds were asked for: list again, then resume."""

    events: tuple[Event, ...]
    complete: bool
    last_index: int
