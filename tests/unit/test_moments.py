"""Moments as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from swarm.errors import UsageError
from swarm.model.archived import Moment
from swarm.schema.moments import moment_text, read_moment

NOW = 1_772_366_400.0
"""2026-03-01 12:00:00 UTC, a Sunday."""
HOUR = 3600.0


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is an hour ahead of UTC, in summer two."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("10:30", NOW - 1.5 * HOUR), ("12:00", NOW), ("12:00:01", NOW + 1 - 24 * HOUR), ("9:05", NOW - 175 * 60),
        ("2026-03-01", NOW - 12 * HOUR), ("2026-02-28 18:00", NOW - 18 * HOUR), ("2026-03-01T11:59:30", NOW - 30),
        ("2026-03-01T12:00:00Z", NOW), ("2026-03-01T12:00+02:00", NOW - 2 * HOUR),
        ("90s", NOW - 90), ("10m", NOW - 600), ("2h", NOW - 2 * HOUR), ("1.5d", NOW - 36 * HOUR),
    ],
)  # fmt: skip
def test_a_time_is_read_in_utc(text: str, utc: float) -> None:
    assert read_moment(text, now_utc=NOW, local=False) == Moment(utc=utc)


@pytest.mark.usefixtures("in_berlin")
def test_a_time_without_zone_is_local_where_the_reader_is_and_one_with_a_zone_is_not() -> None:
    before_s = {"10:30": 2.5 * HOUR, "13:00": 0.0, "13:01": 24 * HOUR - 60, "2026-03-01": 13 * HOUR}
    for text, seconds in before_s.items():
        assert read_moment(text, now_utc=NOW, local=True) == Moment(utc=NOW - seconds)
    assert read_moment("2026-03-01T12:00Z", now_utc=NOW, local=True) == Moment(utc=NOW)
    summer = read_moment("2026-07-01T12:00", now_utc=NOW, local=True)
    assert moment_text(summer) == "2026-07-01T10:00:00Z"


def test_indexes_and_now_are_no_times() -> None:
    assert read_moment("4711", now_utc=NOW, local=True) == Moment(index=4711)
    assert read_moment(" now ", now_utc=NOW, local=True) == Moment()


@pytest.mark.parametrize("moment", [Moment(), Moment(index=7), Moment(utc=NOW), Moment(utc=NOW + 0.125)])
def test_what_the_command_line_sends_is_read_back_the_same(moment: Moment) -> None:
    assert read_moment(moment_text(moment), now_utc=0.0, local=False) == moment


@pytest.mark.parametrize("text", ["", "25:00", "10:61", "yesterday", "10 m", "9" * 16, "9" * 10 + "d", "1:2:3"])
def test_what_cannot_be_read_is_said_with_what_can(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read the time") as refused:
        read_moment(text, now_utc=NOW, local=False)
    assert "10:30" in refused.value.hint
