"""How evidence is weighed and worded."""

from __future__ import annotations

import pytest

from swarm.membership.config import Config
from swarm.membership.evidence import Case, Circumstances, Observation, ago, describe, weigh
from swarm.model.ids import NodeId
from swarm.model.node import VerdictKind

CONFIG = Config()
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
GONE, SILENT, STALLED = VerdictKind.DAEMON_GONE, VerdictKind.HOST_SILENT, VerdictKind.DAEMON_STALLED


def around(*, possible: int = 3, heard_at: float = 0.0, factor: int = 1) -> Circumstances:
    return Circumstances(heard_at=heard_at, observers_possible=possible, health_factor=factor, members=possible + 2)


def case(own: list[str], *, reports: dict[NodeId, str] | None = None, at: float = 10.5) -> Case:
    made = Case(NodeId("x"), 10.0, pings_lost=1)
    for outcome in own:
        made.on_own_connect(outcome)
    for observer, outcome in (reports or {}).items():
        made.others[observer] = Observation(at, outcome)
    return made


def test_refused_to_two_observers_is_gone_at_once() -> None:
    found = weigh(case(["refused"], reports={A: "refused"}), around(), CONFIG, 10.2)
    assert (found.kind, found.conclusive) == (GONE, True)


def test_refused_to_one_of_several_is_not_yet_enough() -> None:
    assert not weigh(case(["refused", "refused"]), around(), CONFIG, 10.5).conclusive


def test_refused_twice_is_enough_where_nobody_else_could_say() -> None:
    assert not weigh(case(["refused"]), around(possible=0), CONFIG, 10.2).conclusive
    assert weigh(case(["refused", "refused"]), around(possible=0), CONFIG, 10.3).conclusive


def test_silence_needs_several_connects_of_ours_and_others_that_agree() -> None:
    silent = {A: "silent", B: "silent"}
    assert not weigh(case(["silent"] * 2, reports=silent), around(), CONFIG, 11.0).conclusive
    found = weigh(case(["silent"] * 3, reports=silent), around(), CONFIG, 11.0)
    assert (found.kind, found.conclusive) == (SILENT, True)
    assert not weigh(case(["silent"] * 3), around(), CONFIG, 11.0).conclusive


def test_one_connect_that_is_answered_starts_the_count_again() -> None:
    made = case(["silent", "silent", "accepted", "silent"], reports={A: "silent", B: "silent"})
    assert not weigh(made, around(), CONFIG, 11.0).conclusive


@pytest.mark.parametrize("now", [10.5, 12.0, 14.9])
def test_an_accepting_kernel_is_stalled_and_only_the_whole_suspicion_ends_it(now: float) -> None:
    made = case(["accepted"], reports={A: "accepted", B: "accepted", C: "accepted"}, at=now)
    found = weigh(made, around(), CONFIG, now)
    assert (found.kind, found.conclusive) == (STALLED, False)
    assert weigh(made, around(), CONFIG, 15.01).conclusive


def test_a_kernel_that_answers_anybody_is_not_silent() -> None:
    found = weigh(case(["silent"] * 5, reports={A: "silent", B: "accepted"}), around(), CONFIG, 11.5)
    assert (found.kind, found.conclusive) == (STALLED, False)


def test_a_member_that_is_still_heard_is_not_a_silent_host() -> None:
    made = case(["silent"] * 5, reports={A: "silent", B: "silent"})
    assert weigh(made, around(heard_at=11.0), CONFIG, 11.2).kind is STALLED
    assert weigh(made, around(heard_at=11.0), CONFIG, 11.7).kind is SILENT


def test_agreement_on_missing_answers_alone_shortens_nothing() -> None:
    made = case([], reports={A: "", B: "", C: ""})
    assert not weigh(made, around(), CONFIG, 14.9).conclusive


def test_an_accuser_who_only_misses_answers_confirms_nothing() -> None:
    made = case(["silent"] * 4)
    made.others[A] = Observation(10.5, "", STALLED)
    made.others[B] = Observation(10.5, "", STALLED)
    assert not weigh(made, around(), CONFIG, 11.5).conclusive
    made.others[A] = made.others[B] = Observation(10.5, "", SILENT)
    assert weigh(made, around(), CONFIG, 11.5).conclusive


def test_old_observations_do_not_count() -> None:
    made = case(["silent"] * 9, reports={A: "silent", B: "silent"}, at=10.5)
    assert not weigh(made, around(), CONFIG, 13.0).conclusive


def test_whoever_distrusts_itself_waits_longer() -> None:
    made = case(["silent"] * 5, reports={A: "silent", B: "silent"})
    assert not weigh(made, around(factor=8), CONFIG, 11.5).conclusive


def test_no_connect_and_no_ping_lost_is_no_death_however_late() -> None:
    made = case([])
    made.pings_lost = 0
    assert not weigh(made, around(), CONFIG, 100.0).conclusive


def test_evidence_is_told_in_words() -> None:
    names = {"me": "n1", "a": "n2", "d": "n4"}
    made = case(["silent"], reports={A: "silent"})
    words = describe(made, lambda i: names[i], NodeId("me"), 12.1, reached_by="d", reached_at=12.088)
    assert words == "n1, n2 lost it 2.1 s ago: no SYN-ACK; n4 reached it 12 ms ago"


@pytest.mark.parametrize(("age_s", "words"), [(0.0124, "12 ms ago"), (2.14, "2.1 s ago"), (300, "5 min ago"), (-1, "0 ms ago")])
def test_ages_are_told_in_words(age_s: float, words: str) -> None:
    assert ago(age_s) == words
