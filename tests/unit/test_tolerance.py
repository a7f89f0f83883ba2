"""What `swarm status` says of the nodes that may fail: in words, in numbers, and never more than is true."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.schema.tolerance import HANGS, IS_FULL, tolerance, ways_out

Rows = list[tuple[str, bool, bool]]


@pytest.mark.parametrize(
    ("nodes", "more", "text"),
    [
        ([("n1", True, True)], 0, "none may fail: n1, the only voter"),
        ([("n1", True, True), ("n2", False, True)], 1, "one more may fail: n2; not n1, the only voter"),
        (
            [("n1", True, True), ("n2", False, True), ("n3", False, True)], 2,
            "two more may fail at once: n2 and n3 together; not n1, the only voter",
        ),
        ([("n1", True, True), ("n2", True, True), ("n3", True, True)], 1, "one more may fail: n1, n2 or n3"),
        (
            [("n1", True, True), ("n2", True, True), ("n3", True, False)], 0,
            "none may fail: n1 and n2, each is needed for a majority of the 3 voters",
        ),
        (
            [("n1", True, True), ("n2", True, True), ("n3", True, False), ("n4", False, True)], 1,
            "one more may fail: n4; not n1 or n2, each is needed for a majority of the 3 voters",
        ),
        (
            [("n1", True, True), ("n2", True, False), ("n3", True, False)], 0,
            "1 of 3 voters answer, 2 are needed (missing: n2, n3)",
        ),
        (
            [(f"n{number}", number < 5, True) for number in range(8)], 2,
            "two more may fail at once: any of 8 nodes (n0, n1, n2, n3, ...)",
        ),
    ],
)  # fmt: skip
def test_status_says_in_words_who_may_fail_and_how_many_more(nodes: Rows, more: int, text: str) -> None:
    found = tolerance(nodes)
    assert (found.text, found.more_may_fail) == (text, more)


THREE = [("n1", True, True), ("n2", True, True), ("n3", True, True)]


def test_a_voter_with_a_full_disk_may_fail_and_no_other_one() -> None:
    found = tolerance(THREE, idle={"n2": IS_FULL})
    assert (found.quorum, found.more_may_fail, found.may_fail, found.may_not_fail) == (True, 1, ("n2",), ("n1", "n3"))
    assert found.text == (
        "one more may fail: n2 (its disk is full, it acknowledges nothing); "
        "not n1 or n3, each is needed for a majority of the 3 voters"
    )


def test_voters_whose_disks_take_nothing_are_no_majority() -> None:
    rows = [("n1", True, True), ("n2", True, True), ("n3", True, False)]
    found = tolerance(rows, idle={"n2": IS_FULL})
    assert (found.quorum, found.absent, found.idle) == (False, ("n3",), ("n2",))
    assert found.text == "1 of 3 voters can store entries, 2 are needed: n3 does not answer and the disk of n2 is full"
    assert ways_out(found, {"n2": IS_FULL}) == (
        "free space on n2, or bring n3 back, or ask another node (--addr); leave a submit here with --queue; "
        "only if they are gone for good: swarm recover --dry-run"
    )
    both = tolerance(THREE, idle={"n1": HANGS, "n2": IS_FULL})
    assert both.text == "1 of 3 voters can store entries, 2 are needed: the disk of n1 hangs and the disk of n2 is full"
    assert ways_out(both, {"n1": HANGS, "n2": IS_FULL}) == "free space on n2; leave a submit here with --queue"


def test_who_is_refused_for_want_of_a_quorum_hears_every_way_out() -> None:
    found = tolerance([("n1", True, True), ("n2", True, False), ("n3", True, False)])
    assert ways_out(found, {}) == (
        "bring one of n2 and n3 back, or ask another node (--addr); leave a submit here with --queue; "
        "only if they are gone for good: swarm recover --dry-run"
    )


def works(nodes: Rows, outgoing: tuple[str, ...], failed: tuple[str, ...]) -> bool:
    """The rule itself: a majority of every set in force."""
    alive = {name for name, _, is_alive in nodes if is_alive and name not in failed}
    sets = [{name for name, voter, _ in nodes if voter}, *([set(outgoing)] if outgoing else [])]
    return all(2 * len(voters & alive) > len(voters) for voters in sets)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=7).filter(
        lambda rows: any(voter for voter, *_ in rows)
    )
)
def test_what_status_says_is_what_majorities_say_also_while_the_voters_change(
    rows: list[tuple[bool, bool, bool, bool]],
) -> None:
    nodes = [(f"n{number}", voter, alive) for number, (voter, alive, *_) in enumerate(rows)]
    outgoing = tuple(f"n{number}" for number, (_, _, out, _) in enumerate(rows) if out)
    stuck = tuple(f"n{number}" for number, (*_, is_stuck) in enumerate(rows) if is_stuck)
    found = tolerance(nodes, outgoing=outgoing, idle=dict.fromkeys(stuck, IS_FULL))
    assert found.quorum is works(nodes, outgoing, stuck)
    if not found.quorum:
        return
    alive = [name for name, _, is_alive in nodes if is_alive]
    assert [*found.may_fail] == [name for name in alive if works(nodes, outgoing, (name, *stuck))]
    assert sorted((*found.may_fail, *found.may_not_fail)) == sorted(alive)
    assert all(works(nodes, outgoing, (*failed, *stuck)) for failed in combinations(found.may_fail, found.more_may_fail))
    if found.more_may_fail < len(found.may_fail):
        more = combinations(found.may_fail, found.more_may_fail + 1)
        assert not all(works(nodes, outgoing, (*failed, *stuck)) for failed in more)
