"""Which nodes may fail now and how many more, in numbers and in words: what `swarm status` says about quorum.

A set of voters works while a majority of it does; while the set is being changed, the old and the new one must both. A node that
does not vote may always fail. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LISTED_MAX = 5
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


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


def tolerance(nodes: Sequence[tuple[str, bool, bool]], *, outgoing: Sequence[str] = ()) -> Tolerance:
    """From (name, is voter, is alive) of every node, and the voters that a change under way replaces. Cost O(nodes)."""
    alive = [name for name, _, is_alive in nodes if is_alive]
    sets = [[name for name, voter, _ in nodes if voter], *([list(outgoing)] if outgoing else [])]
    spares = [_spare(voters, alive) for voters in sets]
    for voters, spare in zip(sets, spares, strict=True):
        if spare < 0:
            missing = _missing(voters, alive)
            return Tolerance(False, (), tuple(name for name in voters if name in alive), 0, missing, missing)
    needed = {name for voters, spare in zip(sets, spares, strict=True) if spare == 0 for name in voters}
    may = tuple(name for name in alive if name not in needed)
    may_not = tuple(name for name in alive if name in needed)
    bounds = [spare for voters, spare in zip(sets, spares, strict=True) if sum(name in voters for name in may) > spare]
    more = min([len(may), *bounds])
    return Tolerance(True, may, may_not, more, _text(may, may_not, more, len(sets[0])), "")


def _spare(voters: list[str], alive: list[str]) -> int:
    """How many of the living voters a majority could do without; negative without a majority."""
    return sum(name in alive for name in voters) - (len(voters) // 2 + 1)


def _missing(voters: list[str], alive: list[str]) -> str:
    there = sum(name in alive for name in voters)
    dead = [name for name in voters if name not in alive]
    text = f"{there} of {len(voters)} voters answer, {len(voters) // 2 + 1} are needed"
    return text + (f" (missing: {', '.join(dead)})" if dead else "")


def _text(may: tuple[str, ...], may_not: tuple[str, ...], more: int, voters: int) -> str:
    why = "the only voter" if voters == 1 else f"each is needed for a majority of the {voters} voters"
    if not may:
        return f"none may fail: {_listed(may_not, 'and')}, {why}"
    count = _COUNTS[more] if more < len(_COUNTS) else str(more)
    text = f"one more may fail: {_listed(may, 'or')}"
    if more > 1:
        text = f"{count} more may fail at once: any of {_listed(may, 'and')}"
    return text + (f"; not {_listed(may_not, 'or')}, {why}" if may_not else "")


def _listed(names: Sequence[str], word: str) -> str:
    if len(names) > LISTED_MAX:
        return f"{len(names)} nodes ({', '.join(names[: LISTED_MAX - 1])}, ...)"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
