"""Recovery generations: a later number takes an earlier one's place, and rivals never pass for each other."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from swarm.model.generation import GENERATION_MAX, generation_text, next_generation, number_of, supersedes

GENERATIONS = st.integers(0, GENERATION_MAX >> 1)


@given(GENERATIONS, st.integers())
def test_a_recovery_takes_the_place_of_what_it_recovers(current: int, seed: int) -> None:
    fresh = next_generation(current, random.Random(seed))
    assert supersedes(fresh, current) and not supersedes(current, fresh)
    assert number_of(fresh) == number_of(current) + 1


@given(GENERATIONS, GENERATIONS, GENERATIONS)
def test_taking_the_place_is_a_strict_order(one: int, two: int, three: int) -> None:
    assert not supersedes(one, one)
    assert not (supersedes(one, two) and supersedes(two, one))
    assert supersedes(one, three) or not (supersedes(one, two) and supersedes(two, three))


def test_two_recoveries_of_one_generation_are_rivals_until_one_is_recovered_again() -> None:
    rivals = [next_generation(0, random.Random(seed)) for seed in (1, 2)]
    assert rivals[0] != rivals[1]
    assert not supersedes(rivals[0], rivals[1]) and not supersedes(rivals[1], rivals[0])
    settled = next_generation(rivals[1], random.Random(3))
    assert supersedes(settled, rivals[0]) and supersedes(settled, rivals[1])


def test_a_generation_has_a_name_for_people() -> None:
    assert generation_text(0) == "its founding"
    assert generation_text((1 << 40) + 255) == "recovery 1 (00000000ff)"
