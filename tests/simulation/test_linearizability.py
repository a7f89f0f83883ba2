"""The linearizability checker on histories known to be right and known to be wrong: it must tell them apart."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from swarm.simulation.clients import ABSENT, READ, STOP, SUBMIT, WRITE, Operation
from tests.simulation.linearizability import NotLinearizable, check_history


def history(*lines: tuple[str, str, float, float], key: str = "r") -> list[Operation]:
    return [Operation("c", key, kind, value, invoked, answered) for kind, value, invoked, answered in lines]


Lines = dict[str, list[tuple[str, str, float, float]]]

RIGHT: Lines = {
    "one after the other": [(WRITE, "a", 1, 2), (READ, "a", 3, 4), (WRITE, "b", 5, 6), (READ, "b", 7, 8)],
    "nothing written yet": [(READ, ABSENT, 1, 2), (WRITE, "a", 3, 4)],
    "a read during a write may see either": [(WRITE, "a", 1, 2), (WRITE, "b", 3, 9), (READ, "a", 4, 5), (READ, "b", 6, 7)],
    "writes that overlap in either order": [(WRITE, "a", 1, 9), (WRITE, "b", 1, 9), (READ, "b", 10, 11), (READ, "b", 12, 13)],
    "an unknown write that happened late": [(WRITE, "a", 1, math.inf), (READ, ABSENT, 2, 3), (READ, "a", 50, 51)],
    "an unknown write that never happened": [(WRITE, "a", 1, math.inf), (WRITE, "b", 2, 3), (READ, "b", 50, 51)],
    "an unknown write that happened between others": [
        (WRITE, "a", 1, math.inf), (WRITE, "b", 2, 3), (READ, "b", 4, 5), (READ, "a", 6, 7), (WRITE, "c", 8, 9),
        (READ, "c", 10, 11),
    ],
    "a read that was never answered": [(WRITE, "a", 1, 2), (READ, "", 3, math.inf), (READ, "a", 4, 5)],
    "a task's life": [(READ, ABSENT, 0, 1), (SUBMIT, "", 1, 4), (READ, "running", 3, 5), (STOP, "", 6, 9), (READ, "over", 7, 8)],
    "a job that ended by itself": [(SUBMIT, "", 1, 2), (READ, "running", 3, 4), (READ, "over", 5, 6)],
    "a task of unknown outcome": [(SUBMIT, "", 1, math.inf), (READ, ABSENT, 2, 3), (READ, "running", 4, 5)],
}
WRONG: Lines = {
    "a stale read": [(WRITE, "a", 1, 2), (WRITE, "b", 3, 4), (READ, "a", 5, 6)],
    "a lost acknowledged write": [(WRITE, "a", 1, 2), (READ, ABSENT, 3, 4)],
    "an acknowledged write that is lost later": [(WRITE, "a", 1, 2), (READ, "a", 3, 4), (WRITE, "b", 5, 6), (READ, "a", 7, 8)],
    "a write applied twice": [(WRITE, "a", 1, 2), (WRITE, "b", 3, 4), (READ, "b", 5, 6), (READ, "a", 7, 8)],
    "an unknown write that happened twice": [
        (WRITE, "a", 1, math.inf), (READ, "a", 2, 3), (WRITE, "b", 4, 5), (READ, "b", 6, 7), (READ, "a", 8, 9)
    ],
    "a read from the future": [(READ, "a", 1, 2), (WRITE, "a", 3, 4)],
    "a read of what nobody wrote": [(WRITE, "a", 1, 2), (READ, "z", 3, 4)],
    "two readers that disagree": [
        (WRITE, "a", 0, 0.5), (WRITE, "b", 1, 9), (READ, "b", 2, 3), (READ, "a", 4, 5)
    ],
    "a task submitted twice": [(SUBMIT, "", 1, 2), (SUBMIT, "", 3, 4)],
    "a task lost": [(SUBMIT, "", 1, 2), (READ, ABSENT, 3, 4)],
    "a task that runs again": [(SUBMIT, "", 1, 2), (STOP, "", 3, 4), (READ, "running", 5, 6)],
    "a task stopped before it was there": [(STOP, "", 1, 2), (SUBMIT, "", 3, 4)],
    "a task seen before it was asked for": [(READ, "running", 1, 2), (SUBMIT, "", 3, math.inf)],
}


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_a_right_history_passes(name: str) -> None:
    check_history(history(*RIGHT[name]))


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_history_is_refused(name: str) -> None:
    with pytest.raises(NotLinearizable):
        check_history(history(*WRONG[name]))


def test_keys_are_judged_apart_and_named() -> None:
    right, wrong = history(*RIGHT["one after the other"], key="k1"), history(*WRONG["a stale read"], key="k2")
    assert check_history(right) == 4
    with pytest.raises(NotLinearizable, match="those of k2"):
        check_history(right + wrong)


def explained(operations: list[Operation]) -> bool:
    """By brute force: every order of every subset that leaves out only what is unknown."""
    certain = [one for one in operations if one.answered < math.inf]
    unknown = [one for one in operations if one.answered == math.inf]
    for size in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, size):
            for order in itertools.permutations([*certain, *chosen]):
                value, fits = ABSENT, True
                for place, one in enumerate(order):
                    fits = fits and all(later.answered >= one.invoked for later in order[place + 1 :])
                    fits = fits and (one.kind == WRITE or one.value == value)
                    value = one.value if one.kind == WRITE else value
                if fits:
                    return True
    return False


def test_it_agrees_with_trying_every_order() -> None:
    seen = {True: 0, False: 0}
    for seed in range(400):
        rng = random.Random(seed)
        operations = []
        for number in range(rng.randint(3, 5)):
            invoked = rng.uniform(0, 10)
            kind = rng.choice((READ, WRITE))
            value = f"v{number}" if kind == WRITE else rng.choice((ABSENT, "v0", "v1", "v2"))
            unknown = kind == WRITE and rng.random() < 0.3
            operations.append(Operation("c", "r", kind, value, invoked, math.inf if unknown else invoked + rng.uniform(0.1, 6)))
        try:
            check_history(operations)
            judged = True
        except NotLinearizable:
            judged = False
        assert judged == explained(operations), operations
        seen[judged] += 1
    assert min(seen.values()) > 50, "both kinds must occur, or nothing is shown"
