"""What the benchmark page says of samples: percentiles that are samples, failures that stay visible, aims that can be missed."""

from __future__ import annotations

import math

import pytest

from testnet.bench.figures import Aim, Figures, Section, told


def figures(*samples: float) -> Figures:
    found = Figures("start", "ms")
    for sample in samples:
        found.add(sample)
    return found


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.05, 1.0), (0.5, 5.0), (0.51, 6.0), (0.95, 10.0), (1.0, 10.0)]
)
def test_a_percentile_is_the_smallest_sample_that_enough_are_at_or_below(share: float, expected: float) -> None:
    assert figures(7, 1, 10, 4, 3, 2, 8, 9, 5, 6).percentile(share) == expected


def test_without_samples_nothing_is_claimed() -> None:
    empty = figures()
    assert math.isnan(empty.median)
    assert empty.row() == "| start | ms | - | - | - | - | 0 | 0 |"
    assert "not measured" in Aim("start", empty.median, 5.0, "ms").line()


def test_discarded_runs_are_told_with_how_often_each_reason_came() -> None:
    found = figures(3.0)
    for reason in ("timed out", "refused", "timed out"):
        found.discard(reason)
    assert found.row().endswith("| 1 | 1 x refused; 2 x timed out |")


def test_an_aim_says_whether_it_was_met_and_by_how_much() -> None:
    assert "met, 2 s below" in Aim("replaced", 4.0, 6.0, "s").line()
    assert "**missed by 1.5 s**" in Aim("replaced", 7.5, 6.0, "s").line()


def test_an_aim_for_at_least_so_much_is_missed_below_it() -> None:
    assert "met, 100 submits/s above" in Aim("submits", 500.0, 400.0, "submits/s", at_least=True).line()
    assert "aim at least 400 submits/s: **missed by 150 submits/s**" in Aim("x", 250.0, 400.0, "submits/s", at_least=True).line()


def test_the_steps_stand_below_the_figures_they_explain() -> None:
    section = Section("Title", "How.", figures=[figures(1.0)], where=[Figures("a step", "ms", [0.5])], notes=["A note."])
    text = section.markdown()
    assert text.index("| start |") < text.index("Where the time goes") < text.index("| a step |") < text.index("A note.")


@pytest.mark.parametrize(("value", "expected"), [(0.01234, "0.0123"), (9.876, "9.88"), (1234.5, "1234"), (math.nan, "-")])
def test_values_have_three_digits_where_they_matter(value: float, expected: str) -> None:
    assert told(value) == expected
