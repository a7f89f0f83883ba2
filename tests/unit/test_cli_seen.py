"""The matrix of round trips, the words of `node ls` and the lines of `events -f`, as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.cli.events import Place, line_of
from swarm.cli.node import shown_contact, shown_health
from swarm.cli.seen import cell, matrix, reasons


def found(count: int, rtt_ms: float = 0.4, missing: dict[tuple[int, int], str] | None = None) -> dict[str, Any]:
    """An answer of `/v1/rtt` with nodes numbered from 1."""
    missing = missing or {}
    ids = range(1, count + 1)
    rows = [
        {
            "id": f"id{a}",
            "name": f"host{a}",
            "rtt_ms": {f"id{b}": None if (a, b) in missing else rtt_ms for b in ids if b != a},
            "missing": {f"id{b}": missing[a, b] for b in ids if (a, b) in missing},
        }
        for a in ids
    ]
    return {"nodes": [{"id": f"id{a}", "name": f"host{a}"} for a in ids], "rows": rows}


def test_a_row_is_who_measured_and_a_column_is_to_whom() -> None:
    answer = found(3, missing={(1, 3): "host3 is dead in the eyes of host1"})
    answer["rows"][1]["rtt_ms"]["id1"] = 12.4
    assert matrix(answer, 80) == [
        "           1    2    3",
        "1 host1    . 0.40    -",
        "2 host2   12    . 0.40",
        "3 host3 0.40 0.40    .",
    ]
    assert reasons(answer) == ["-: host3 is dead in the eyes of host1"]


def test_thirty_nodes_fit_every_terminal() -> None:
    for width in (80, 120, 165):
        lines = matrix(found(30), width)
        assert max(map(len, lines)) <= width
        cells = [line[len("30 host30 ") :].split() for line in lines if "host" in line]
        assert sum(map(len, cells)) == 30 * 30
        assert [number for line in lines if "host" not in line for number in line.split()] == [str(n) for n in range(1, 31)]
    assert len(matrix(found(30), 0)) == 31, "a file gets one block"


def test_one_reason_for_many_cells_is_said_once() -> None:
    answer = found(4, missing={(2, b): "host2 is dead" for b in (1, 3, 4)})
    assert reasons(answer) == ["-: host2 is dead (3 cells)"]


def test_no_nodes_are_an_empty_matrix() -> None:
    assert matrix({"nodes": [], "rows": []}, 80) == []


@pytest.mark.parametrize(
    ("rtt_ms", "shown"),
    [
        (0.031, "0.03"), (0.994, "0.99"), (0.996, "1.0"), (9.94, "9.9"), (9.96, "10"), (999.4, "999"), (1500.0, "1.5s"),
        (None, "-"),
    ],
)  # fmt: skip
def test_a_cell_has_at_most_four_characters(rtt_ms: float | None, shown: str) -> None:
    assert cell({"id": "a", "rtt_ms": {"b": rtt_ms}}, "b") == shown
    assert len(shown) <= 4


@pytest.mark.parametrize(
    ("age_ms", "words"),
    [
        (None, "never"), (12, "12 ms ago"), (2100, "2.1 s ago"), (119_900, "119.9 s ago"), (300_000, "5 min ago"),
        (8_000_000, "2 h ago"), (10 * 86_400_000, "10 d ago"),
    ],
)  # fmt: skip
def test_the_age_of_the_last_contact_is_told_in_words(age_ms: int | None, words: str) -> None:
    assert shown_contact({"last_contact_ms": age_ms, "rtt_ms": 0.4}) == words


def test_health_is_told_only_of_those_who_are_there() -> None:
    told = [shown_health({"health": health, "status": status}) for health, status in ((0, "alive"), (3, "suspect"), (0, "dead"))]
    assert told == ["well", "poor (3)", "-"]
    assert shown_health({"health": None, "status": "alive"}) == "-"


def member(number: int, utc: float) -> tuple[str, str, dict[str, Any]]:
    return "", "member", {"index": None, "number": number, "time_utc": utc, "kind": "member.dead", "text": "n1 sees that"}


def test_what_gossip_saw_is_shown_once_although_a_resumed_stream_gives_it_again() -> None:
    place = Place()
    log = ("7", "log", {"index": 7})
    stream = [log, member(1, 100.0), member(2, 101.0), member(1, 100.0), member(2, 101.0), member(3, 102.0)]
    assert [place.is_new(*event) for event in stream] == [True, True, True, False, False, True]
    assert place.last == "7", "only the log's events can be resumed after"


def test_neither_a_restarted_daemon_nor_a_clock_set_back_hides_what_gossip_sees() -> None:
    place = Place()
    assert [place.is_new(*event) for event in (member(50, 100.0), member(1, 110.0), member(2, 90.0))] == [True] * 3


def test_a_followed_change_of_a_status_has_no_index() -> None:
    _, name, content = member(1, 100.0)
    assert line_of(name, content, "table").split()[0] == "-"
    assert "member.dead" in line_of(name, content, "table") and '"stream": "member"' in line_of(name, content, "json")
