"""The judge of histories is itself judged: by histories that one order explains, and by those that none does."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testnet.soak.history import NEVER, History, Outcome, Read, Write, judge, judge_task

HERE, NOT_HERE = frozenset({"a"}), frozenset[str]()


def done(called: float, answered: float) -> Write:
    return Write(called, answered, Outcome.DONE)


def unknown(called: float) -> Write:
    return Write(called, called + 1, Outcome.UNKNOWN)


def read(called: float, answered: float, names: frozenset[str]) -> Read:
    return Read(called, answered, 1, names)


def judged(submit: Write, *reads: Read, removal: Write | None = None) -> list[str]:
    return judge(History({"a": submit}, {"a": removal} if removal else {}, list(reads)))


@pytest.mark.parametrize(
    ("submit", "removal", "reads"),
    [
        (done(1, 2), None, [read(0, 1.5, NOT_HERE), read(1.6, 1.7, HERE), read(3, 4, HERE)]),
        (done(1, 5), None, [read(2, 3, HERE), read(2, 3, NOT_HERE)]),
        (unknown(1), None, [read(2, 3, NOT_HERE), read(90, 91, HERE), read(92, 93, HERE)]),
        (unknown(1), None, [read(2, 3, NOT_HERE)]),
        (done(1, 2), done(3, 4), [read(2.5, 2.6, HERE), read(3.1, 3.9, HERE), read(3.2, 3.8, NOT_HERE), read(5, 6, NOT_HERE)]),
        (done(1, 2), unknown(3), [read(5, 6, HERE), read(7, 8, NOT_HERE)]),
        (done(1, 2), Write(3, 4, Outcome.REFUSED), [read(5, 6, HERE)]),
        (Write(1, 2, Outcome.REFUSED), None, [read(5, 6, NOT_HERE)]),
    ],
)
def test_what_one_order_explains_is_not_accused(submit: Write, removal: Write | None, reads: list[Read]) -> None:
    assert judged(submit, *reads, removal=removal) == []


@pytest.mark.parametrize(
    ("submit", "removal", "reads", "words"),
    [
        (done(1, 2), None, [read(3, 4, NOT_HERE)], "lost"),
        (done(1, 9), None, [read(2, 3, HERE), read(4, 5, NOT_HERE)], "lost"),
        (unknown(1), None, [read(2, 3, HERE), read(4, 5, NOT_HERE), read(6, 7, HERE)], "lost"),
        (done(2, 3), None, [read(0, 1, HERE)], "before it was submitted"),
        (Write(1, 2, Outcome.REFUSED), None, [read(3, 4, HERE)], "refused, and read"),
        (done(1, 2), done(3, 4), [read(5, 6, HERE)], "after it was removed"),
        (done(1, 2), done(3, 4), [read(2.1, 2.9, NOT_HERE)], "lost"),
        (done(1, 2), Write(3, 4, Outcome.REFUSED), [read(5, 6, NOT_HERE)], "lost"),
        (done(1, 2), unknown(9), [read(3, 4, NOT_HERE)], "lost"),
    ],
)
def test_what_no_order_explains_is_named(submit: Write, removal: Write | None, reads: list[Read], words: str) -> None:
    (found,) = judged(submit, *reads, removal=removal)
    assert found.startswith("a: ") and words in found


def test_a_task_that_nobody_submitted_is_named() -> None:
    assert judge(History(reads=[read(0, 1, HERE)])) == ["a was read and never submitted"]


MOMENTS = st.integers(0, 6)
SPANS = st.tuples(MOMENTS, st.integers(1, 4)).map(lambda span: (float(span[0]), float(span[0] + span[1])))
OUTCOMES = st.sampled_from(Outcome)


@given(SPANS, OUTCOMES, st.none() | st.tuples(SPANS, OUTCOMES), st.lists(SPANS, max_size=3), st.lists(SPANS, max_size=3))
def test_the_short_way_agrees_with_trying_every_order(
    came: tuple[float, float],
    outcome: Outcome,
    removed: tuple[tuple[float, float], Outcome] | None,
    showing: list[tuple[float, float]],
    hiding: list[tuple[float, float]],
) -> None:
    submit, removal = Write(*came, outcome), None
    if removed is not None and outcome is Outcome.DONE:
        (after, until), how = removed
        removal = Write(submit.answered + after, submit.answered + until, how)
    shows, hides = [read(*span, HERE) for span in showing], [read(*span, NOT_HERE) for span in hiding]
    assert (judge_task(submit, removal, shows, hides) == "") == explained(submit, removal, shows, hides)


def explained(submit: Write, removal: Write | None, showing: list[Read], hiding: list[Read]) -> bool:
    """By trying a fine grid of moments for the coming and the going, and for each read one before, between or after them."""
    grid = [each / 4 for each in range(100)]

    def moments(write: Write | None) -> list[float]:
        if write is None or write.outcome is Outcome.REFUSED:
            return [NEVER]
        sure = [each for each in grid if write.called <= each <= write.until]
        return sure if write.outcome is Outcome.DONE else [*sure, NEVER]

    for came, went in itertools.product(moments(submit), moments(removal)):
        between = all(any(came <= each < went for each in grid if r.called <= each <= r.answered) for r in showing)
        outside = all(any(each < came or each >= went for each in grid if r.called <= each <= r.answered) for r in hiding)
        if between and outside:
            return True
    return False
