"""Which beliefs of daemons a measurement counts as mistakes, and what it takes a death to be put down to."""

from __future__ import annotations

from testnet.bench.beliefs import Absence, Belief, counted, mistaken


def belief(at: float, observer: int, subject: int, status: str, evidence: str = "") -> Belief:
    return Belief(at, observer, subject, status, evidence)


def test_what_is_said_of_a_host_that_was_away_is_no_mistake() -> None:
    said = [belief(11.0, 1, 3, "suspect"), belief(12.0, 1, 3, "dead"), belief(15.0, 1, 3, "alive")]
    assert mistaken(said, [Absence(3, 10.0, 20.0)]) == []
    assert mistaken(said, []) == said[:2]


def test_a_host_called_dead_again_after_it_was_seen_back_is_a_mistake() -> None:
    again = belief(17.0, 1, 3, "dead")
    said = [belief(12.0, 1, 3, "dead"), belief(15.0, 1, 3, "alive"), again]
    assert mistaken(said, [Absence(3, 10.0, 20.0)]) == [again]


def test_a_daemon_that_has_just_started_may_suspect_others_and_call_none_dead() -> None:
    first, wrong = belief(15.0, 3, 1, "suspect"), belief(16.0, 3, 1, "dead")
    assert mistaken([first, wrong], [Absence(3, 10.0, 20.0)]) == [wrong]


def test_a_death_is_put_down_to_what_its_evidence_says() -> None:
    said = [
        belief(1.0, 1, 3, "dead", "h1, h2 lost it 1.0 s ago: no SYN-ACK"),
        belief(1.0, 1, 3, "dead", "h2 found it silent (no kernel answers)"),
        belief(1.0, 1, 3, "dead", "h1 lost it 20 ms ago: its kernel refuses the port"),
        belief(1.0, 1, 3, "dead", "h1 lost it 5.0 s ago: its kernel accepts, nobody speaks"),
        belief(1.0, 1, 3, "dead", "h1 lost it 5.0 s ago: its kernel accepts, nobody speaks; h2 lost it 5.0 s ago: no SYN-ACK"),
        belief(1.0, 1, 3, "suspect", "h1 lost it 300 ms ago: no SYN-ACK"),
    ]
    assert counted(said) == {"dead: daemon gone": 1, "dead: daemon stalled": 2, "dead: host silent": 2, "suspect": 1}
