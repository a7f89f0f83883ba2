"""The past: what is kept of each applied entry, and what may be asked about it."""

from __future__ import annotations

import msgspec

from swarm.model.entry import Entry
from swarm.model.outcome import Applied, Event, Rejected


class Archived(msgspec.Struct, frozen=True, array_like=True):
    """One applied entry with what came of it: the events it made, and why it, or a part of it, was refused."""

    entry: Entry
    events: tuple[Event, ...] = ()
    refused: str = ""


def archived(entry: Entry, applied: Applied) -> Archived:
    """What is kept of an entry. A repetition was refused, if at all, the first time."""
    return Archived(entry, applied.events, "" if applied.repeated else _why(applied))


def _why(applied: Applied) -> str:
    if applied.outcome is not None:
        return _reason(applied.outcome)
    if not applied.refused:
        return ""
    first, more = _reason(applied.refused[0][1]), len(applied.refused) - 1
    return f"{first}, and {more} more of this request" if more else first


def _reason(rejected: Rejected) -> str:
    return f"{rejected.message}: {rejected.cause}" if rejected.cause else rejected.message


class Base(msgspec.Struct, frozen=True, array_like=True):
    """A catalog snapshot from which later states are rebuilt: everything up to `index`, as of `time_utc` of the log."""

    cluster_id: str
    index: int
    time_utc: float
    recovery_generation: int


class Moment(msgspec.Struct, frozen=True):
    """A point of the log: an index, or a time (the state after the last entry that is not younger), or the newest there is."""

    index: int | None = None
    utc: float | None = None


class Question(msgspec.Struct, frozen=True):
    """What is asked about the past. `what`: history, state or diff."""

    what: str
    at: Moment = Moment()
    """Of a state; of a difference its beginning."""
    to: Moment = Moment()
    """The end of a difference."""
    about: tuple[str, ...] = ()
    """Only rows about these: ids of tasks or nodes, or names."""
    since: Moment = Moment()
    """A history's beginning: entries after this index, or not before this time."""
    before: int = 0
    """Only entries below this index; 0 for all."""
    limit: int = 100
    """Rows at most (of a state or a difference: of each kind)."""
    removed: dict[str, int] = {}
    """Ids of nodes that are gone, and the index at which each was removed: there its name can be found."""
