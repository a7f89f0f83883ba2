"""Resources add, subtract and fit exactly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.model.resources import Resources, fits

amounts = st.builds(
    Resources,
    cpu_millicores=st.integers(0, 10**6),
    memory_bytes=st.integers(0, 2**40),
    tasks=st.integers(0, 1000),
    generic=st.dictionaries(st.sampled_from(["gpu", "licence", "fpga"]), st.integers(1, 8)).map(
        lambda amounts: tuple(sorted(amounts.items()))
    ),
)


@given(amounts, amounts)
def test_what_is_added_and_taken_away_leaves_the_same_room(one: Resources, other: Resources) -> None:
    back = one.plus(other).minus(other)
    assert fits(one, back) is None
    assert fits(back, one) is None


@given(amounts, amounts)
def test_a_sum_fits_only_where_both_do(one: Resources, other: Resources) -> None:
    both = one.plus(other)
    assert fits(one, both) is None
    assert fits(other, both) is None


def test_the_first_short_resource_is_named() -> None:
    free = Resources(cpu_millicores=1000, memory_bytes=100, tasks=10, generic=(("gpu", 1),))
    assert fits(Resources(cpu_millicores=1001), free) == "cpu"
    assert fits(Resources(memory_bytes=101), free) == "memory"
    assert fits(Resources(tasks=11), free) == "tasks"
    assert fits(Resources(generic=(("gpu", 2),)), free) == "gpu"
    assert fits(Resources(generic=(("fpga", 1),)), free) == "fpga"
    assert fits(Resources(1000, 100, 10, (("gpu", 1),)), free) is None


def test_an_over_reserved_node_still_takes_what_needs_none_of_it() -> None:
    assert fits(Resources(), Resources(cpu_millicores=-5)) is None
