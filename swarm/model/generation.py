"""Recovery generations: which life of a cluster a node follows.

A cluster is founded in generation 0. Each `swarm recover` begins a new one: a number, one above that of the node it is begun on,
and 40 random bits below it in one integer, so that two recoveries that do not know of each other are never the same. A later
number takes an earlier one's place, for good. Two of one number are rivals: neither takes the other's place, and their nodes do
not speak with each other, until an operator recovers once more on the side to be kept.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import random

RANDOM_BITS = 40
GENERATION_MAX = 2**63 - 1
"""What the messages of consensus have room for: four million recoveries."""
TERMS_APART = 1_000_000
"""A recovery continues the terms this far above those its node knows of: the leaders that it fences may have had later ones. At
an election a second it takes a forgotten voter eleven days to get there."""


def number_of(generation: int) -> int:
    """How many recoveries it is away from the founding."""
    return generation >> RANDOM_BITS


def next_generation(current: int, rng: random.Random) -> int:
    """The one that a recovery of this one begins; `rng` should be `random.SystemRandom()` outside of tests."""
    fresh = (number_of(current) + 1) << RANDOM_BITS | rng.getrandbits(RANDOM_BITS)
    assert fresh <= GENERATION_MAX
    return fresh


def supersedes(one: int, other: int) -> bool:
    """Whether a node of `other` is to give its log up for that of `one`. False between rivals."""
    return number_of(one) > number_of(other)


def has_say(one: int, other: int) -> bool:
    """Whether what the log of `one` decided holds for a node of `other`: it is the same, or takes the other's place."""
    return one == other or supersedes(one, other)


def generation_text(generation: int) -> str:
    """For people: the founding, or the recovery's number and its random part."""
    if generation == 0:
        return "its founding"
    return f"recovery {number_of(generation)} ({generation & (1 << RANDOM_BITS) - 1:010x})"
