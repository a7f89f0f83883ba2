"""How long, and how many, request ids are kept: up to the second and the number, and what is said to be known is."""

from __future__ import annotations

import pytest

from swarm.catalog import requests
from swarm.catalog.requests import KEPT_S, Requests
from swarm.model.command import Noop
from tests.catalog_kit import Log, make_node


def known(log: Log, *request_ids: str) -> list[bool]:
    """Whether each is still taken for a repetition. Asked oldest first: one that is not is kept anew, as the newest."""
    return [log.must(Noop(), request_id).repeated for request_id in request_ids]


def test_a_request_id_is_known_to_the_last_second_of_24_hours_of_log_time() -> None:
    log = Log(make_node("n1"))
    log.must(Noop(), "r1")
    log.time_utc += 24 * 3600 - 1
    assert known(log, "r1") == [True]
    log.time_utc += 1
    assert known(log, "r1") == [True], "a repetition does not begin its day anew"
    log.time_utc += 1
    assert known(log, "r1") == [False]


def test_one_more_id_than_are_kept_pushes_out_the_oldest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "KEPT_MAX", 3)
    log = Log(make_node("n1"))
    for number in range(1, 4):
        known(log, f"r{number}")
    assert known(log, "r1", "r2", "r3") == [True, True, True], "as many as are kept"
    known(log, "r4")
    assert known(log, "r2", "r3", "r4") == [True, True, True]
    assert known(log, "r1") == [False]


def test_since_when_every_id_is_known_is_a_day_ago_and_when_full_the_time_of_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "KEPT_MAX", 3)
    log, kept = Log(make_node("n1")), Requests()
    for number in range(1, 5):
        log.time_utc += 10.0
        kept.forget_old(log.time_utc)
        since = kept.known_since(log.time_utc)
        assert since == (1_010.0 if number == 4 else log.time_utc - KEPT_S), "with three kept, the oldest is at its limit"
        kept.remember(log.entry(Noop(), f"r{number}"), log.time_utc, "", None)
    kept.forget_old(log.time_utc)
    assert [record.request_id for record in kept.records] == ["r2", "r3", "r4"]
    assert kept.known_since(log.time_utc) == 1_020.0, "that of r2: r1 is not known any more"
    assert kept.known_since(1_020.0 + KEPT_S + 5.0) == 1_025.0, "age counts beside number"
