"""Majorities, also of two voter sets at once (Raft, section 6).

Pure: no I/O, no clock, no randomness of its own. A voter is a (node id, store generation); whoever asks says what it knows of
each. During a joint change both sets must agree, so a value holds only when each set's majority reaches it.
"""

from __future__ import annotations

from collections.abc import Callable

from swarm.model.entry import Configuration, Voter

NO_VOTERS = Configuration(())


def majority(count: int) -> int:
    """How many of `count` are more than half."""
    return count // 2 + 1


def voter_sets(configuration: Configuration) -> tuple[tuple[Voter, ...], ...]:
    """The sets that must each agree: one, or two during a joint change."""
    return (configuration.voters, configuration.outgoing) if configuration.outgoing else (configuration.voters,)


def is_voter(configuration: Configuration, voter: Voter) -> bool:
    """Whether this (id, store generation) is in any set in force."""
    return voter in configuration.voters or voter in configuration.outgoing


def voters_of(configuration: Configuration) -> tuple[Voter, ...]:
    """Every voter of every set in force, sorted by id, each once."""
    every = dict.fromkeys(configuration.voters + configuration.outgoing)
    return tuple(sorted(every, key=lambda voter: (voter.node_id, voter.store_generation)))


def quorum_value(configuration: Configuration, value_of: Callable[[Voter], float]) -> float:
    """The greatest value that a majority of every set has reached. An empty configuration reaches nothing."""
    if not configuration.voters:
        return float("-inf")
    return min(sorted(map(value_of, voters), reverse=True)[majority(len(voters)) - 1] for voters in voter_sets(configuration))


def has_quorum(configuration: Configuration, agrees: Callable[[Voter], bool]) -> bool:
    """Whether a majority of every set agrees."""
    return quorum_value(configuration, lambda voter: 1.0 if agrees(voter) else 0.0) == 1.0


def is_small(configuration: Configuration) -> bool:
    """Whether some set in force has fewer than three voters, so that learners must vouch for what is acknowledged."""
    return any(len(voters) < 3 for voters in voter_sets(configuration))
