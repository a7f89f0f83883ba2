"""Which nodes may fail now and how many more, in numbers and in words: what `swarm status` says about quorum.

A set of voters works while a majority of it does; while the set is being changed, the old and the new one must both. A voter
whose disk takes nothing acknowledges nothing: it counts like a missing one, and may fail as well. A node that does not vote may
always fail. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LISTED_MAX = 5
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
IS_FULL, HANGS = "is full", "hangs"
"""What may be the matter with the disk of a voter that answers and acknowledges nothing."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Names, and one line for people."""

    quorum: bool
    may_fail: tuple[str, ...]
    may_not_fail: tuple[str, ...]
    more_may_fail: int
    """So many of `may_fail` may fail at the same moment, whichever of them."""
    text: str
    missing: str
    absent: tuple[str, ...] = ()
    """Without a quorum: the voters that do not answer."""
    idle: tuple[str, ...] = ()
    """Without a quorum: the voters that answer and whose disk takes nothing."""


def tolerance(
    nodes: Sequence[tuple[str, bool, bool]], *, outgoing: Sequence[str] = (), idle: Mapping[str, str] | None = None
) -> Tolerance:
    """From (name, is voter, is alive) of every node, the voters that a change under way replaces, and what is the matter with the
    disks of those that acknowledge nothing. Cost O(nodes)."""
    alive = [name for name, _, is_alive in nodes if is_alive]
    sets = [[name for name, voter, _ in nodes if voter], *([list(outgoing)] if outgoing else [])]
    stuck = {name: why for name, why in (idle or {}).items() if name in alive and any(name in voters for voters in sets)}
    working = [name for name in alive if name not in stuck]
    spares = [_spare(voters, working) for voters in sets]
    for voters, spare in zip(sets, spares, strict=True):
        if spare < 0:
            return _no_quorum(voters, alive, stuck)
    needed = {name for voters, spare in zip(sets, spares, strict=True) if spare == 0 for name in voters if name not in stuck}
    may = tuple(name for name in alive if name not in needed)
    may_not = tuple(name for name in alive if name in needed)
    at_risk = [sum(name in voters and name not in stuck for name in may) for voters in sets]
    bounds = [spare for risk, spare in zip(at_risk, spares, strict=True) if risk > spare]
    more = min([len(may), *bounds])
    return Tolerance(True, may, may_not, more, _text(may, may_not, more, len(sets[0]), stuck), "")


def _spare(voters: list[str], working: list[str]) -> int:
    """How many of the working voters a majority could do without; negative without a majority."""
    return sum(name in working for name in voters) - (len(voters) // 2 + 1)


def _no_quorum(voters: list[str], alive: list[str], stuck: Mapping[str, str]) -> Tolerance:
    there = [name for name in voters if name in alive]
    absent = tuple(name for name in voters if name not in alive)
    idle = tuple(name for name in there if name in stuck)
    needed = f"of {len(voters)} voters {'can store entries' if idle else 'answer'}, {len(voters) // 2 + 1} are needed"
    text = f"{len(there) - len(idle)} {needed}"
    if idle:
        gone = [f"{_listed(absent, 'and')} {'does' if len(absent) == 1 else 'do'} not answer"] if absent else []
        text += f": {' and '.join([*gone, *(f'the disk of {name} {stuck[name]}' for name in idle)])}"
    elif absent:
        text += f" (missing: {', '.join(absent)})"
    return Tolerance(False, (), tuple(there), 0, text, text, absent, idle)


def ways_out(may: Tolerance, idle: Mapping[str, str]) -> str:
    """What somebody can do who was refused for want of a quorum."""
    full = [name for name in may.idle if idle.get(name) == IS_FULL]
    ways = [f"free space on {_listed(full, 'or')}"] if full else []
    if may.absent:
        whom = may.absent[0] if len(may.absent) == 1 else f"one of {_listed(may.absent, 'and')}"
        ways += [f"bring {whom} back", "ask another node (--addr)"]
    last = "; only if they are gone for good: swarm recover --dry-run" if may.absent else ""
    return f"{', or '.join(ways)}{'; ' if ways else ''}leave a submit here with --queue{last}"


def _text(may: tuple[str, ...], may_not: tuple[str, ...], more: int, voters: int, stuck: Mapping[str, str]) -> str:
    why = "the only voter" if voters == 1 else f"each is needed for a majority of the {voters} voters"
    if not may:
        return f"none may fail: {_listed(may_not, 'and')}, {why}"
    named = [f"{name} (its disk {stuck[name]}, it acknowledges nothing)" if name in stuck else name for name in may]
    count = _COUNTS[more] if more < len(_COUNTS) else str(more)
    text = f"one more may fail: {_listed(named, 'or')}"
    if more > 1:
        text = f"{count} more may fail at once: {_together(named, more)}"
    return text + (f"; not {_listed(may_not, 'or')}, {why}" if may_not else "")


def _together(names: Sequence[str], more: int) -> str:
    if len(names) == more and more <= LISTED_MAX:
        return f"{_listed(names, 'and')} together"
    return f"any of {_listed(names, 'and')}"


def _listed(names: Sequence[str], word: str) -> str:
    if len(names) > LISTED_MAX:
        return f"{len(names)} nodes ({', '.join(names[: LISTED_MAX - 1])}, ...)"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
