"""Which nodes may fail now, in numbers and in words: what `swarm status` says about quorum.

A set of voters works while a majority of them does. A node that does not vote may always fail. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Names, and one line for people."""

    quorum: bool
    may_fail: tuple[str, ...]
    may_not_fail: tuple[str, ...]
    text: str
    missing: str


def tolerance(nodes: Sequence[tuple[str, bool, bool]]) -> Tolerance:
    """From (name, is voter, is alive) of every node. Cost O(nodes)."""
    voters = [name for name, voter, _ in nodes if voter]
    alive_voters = [name for name, voter, alive in nodes if voter and alive]
    others = [name for name, voter, alive in nodes if alive and not voter]
    needed = len(voters) // 2 + 1
    spare = len(alive_voters) - needed
    dead = [name for name in voters if name not in alive_voters]
    if spare < 0:
        missing = f"{len(alive_voters)} of {len(voters)} voters answer, {needed} are needed"
        missing += f" (missing: {', '.join(dead)})" if dead else ""
        return Tolerance(False, (), tuple(alive_voters), missing, missing)
    if spare == 0:
        text = f"{_listed(alive_voters, 'and')} may not fail"
        text += f"; {_listed(others, 'or')} may" if others else ""
        return Tolerance(True, tuple(others), tuple(alive_voters), text, "")
    names = (*alive_voters, *others)
    at_once = "any one node" if spare == 1 else f"any {spare} nodes at once"
    text = f"{at_once} may fail" if len(names) > 5 else f"{_listed(list(names), 'or')} may fail"
    text += f" ({spare} of the {len(alive_voters)} voters at once)" if spare > 1 else ""
    return Tolerance(True, names, (), text, "")


def _listed(names: list[str], word: str) -> str:
    if len(names) > 5:
        return f"{len(names)} nodes ({', '.join(names[:4])}, ...)"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}" if names else "no node"
