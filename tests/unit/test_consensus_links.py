"""Links that fail one way, between two, or again and again: who leads well goes on leading (PROTOCOLS L2)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes.consensus_cluster import Cluster

Links = set[tuple[str, str]]
LONG_S = 30.0
FLAPS_S = (0.7, 1.7)
"""Shorter than an election timeout, and longer than all."""


def both_ways(one: str, other: str) -> Links:
    return {(one, other), (other, one)}


BROKEN: dict[str, Callable[[str, str, str], Links]] = {
    "one follower does not hear the leader": lambda leader, one, other: {(leader, one)},
    "the leader does not hear one follower": lambda leader, one, other: {(one, leader)},
    "the leader and one follower": lambda leader, one, other: both_ways(leader, one),
    "two followers": lambda leader, one, other: both_ways(one, other),
    "one follower hears nobody": lambda leader, one, other: {(leader, one), (other, one)},
    "nobody hears one follower": lambda leader, one, other: {(one, leader), (one, other)},
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("flap_s", [LONG_S, *FLAPS_S])
def test_a_link_that_breaks_deposes_no_leader_that_a_majority_answers(broken: str, flap_s: float) -> None:
    """Nothing is proposed meanwhile: every log is as long as the leader's, so that it alone keeps nobody from being elected."""
    cluster = Cluster("abc")
    cluster.run(3)
    leader, term = cluster.leader(), cluster.nodes["a"].term
    one, other = (name for name in "abc" if name != leader)
    links = BROKEN[broken](leader, one, other)

    def leads_on() -> None:
        assert cluster.leases() == [leader]
        assert {node.term for node in cluster.nodes.values()} == {term}

    for number in range(round(LONG_S / flap_s)):
        cluster.cuts = links if number % 2 == 0 else set()
        cluster.run(flap_s, each=leads_on)
    cluster.cuts = set()
    cluster.propose("after", leader)
    cluster.run(3, each=leads_on)
    assert [cluster.texts(name) for name in "abc"] == [["after"]] * 3
