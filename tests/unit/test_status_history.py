"""What is kept of gossip's changes of mind, how late the loop was, and how counters are grouped."""

from __future__ import annotations

from itertools import count, pairwise

import pytest
from msgspec.structs import replace

from swarm.drivers.history import CHANGES_KEPT, StatusHistory
from swarm.drivers.lag import LoopLag
from swarm.membership import MemberChanged
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, MemberView
from swarm.model.node import VerdictKind
from swarm.schema.counters import grouped
from swarm.schema.shapes import change_object
from tests.fakes.gossip_network import GossipNetwork, node_id

ALIVE, SUSPECT, DEAD, LEFT = MemberStatus.ALIVE, MemberStatus.SUSPECT, MemberStatus.DEAD, MemberStatus.LEFT
ME = NodeId("me")


def view(status: MemberStatus, *, generation: int = 1, name: str = "n3") -> MemberView:
    kind = VerdictKind.DAEMON_GONE if status is DEAD else None
    return MemberView(NodeId(name), name, "10.0.0.3:4747", status, generation, 0, 0.0, 0.0, death_kind=kind)


def history(*statuses: MemberStatus, generation: int = 1) -> StatusHistory:
    clock = count(1000)
    made = StatusHistory(ME, lambda: float(next(clock)))
    for old, new in pairwise(statuses):
        before = replace(view(old), generation=generation)
        made.on_change(MemberChanged(before, view(new), f"from {old} to {new}"))
    return made


@pytest.mark.parametrize(
    ("statuses", "counted"),
    [
        ((ALIVE, SUSPECT, ALIVE), {"suspicions_opened": 1, "suspicions_refuted": 1}),
        ((ALIVE, SUSPECT, LEFT), {"suspicions_opened": 1, "suspicions_left": 1}),
        (
            (ALIVE, SUSPECT, DEAD, ALIVE),
            {"suspicions_opened": 1, "suspicions_dead_daemon_gone": 1, "deaths_daemon_gone": 1, "deaths_taken_back": 1},
        ),
        ((ALIVE, DEAD), {"deaths_daemon_gone": 1}),
        ((ALIVE, LEFT), {}),
    ],
)
def test_a_suspicion_is_counted_by_how_it_ended(statuses: tuple[MemberStatus, ...], counted: dict[str, int]) -> None:
    made = history(*statuses)
    assert dict(made.counters) == counted
    assert made.of(NodeId("n3")) == counted
    assert made.of(NodeId("n2")) == {}


def test_whoever_was_never_heard_of_was_not_suspected_by_anybody() -> None:
    assert dict(history(SUSPECT, ALIVE, generation=0).counters) == {}


def test_a_removal_ends_a_suspicion_and_forgets_the_member() -> None:
    made = history(ALIVE, SUSPECT)
    made.on_change(MemberChanged(view(SUSPECT), view(SUSPECT), "no longer admitted", removed=True))
    assert made.counters["suspicions_removed"] == 1
    assert made.of(NodeId("n3")) == {}
    assert len(made.after(0)) == 1


def test_what_is_no_change_of_a_status_is_not_told() -> None:
    made = history(ALIVE, ALIVE)
    made.on_change(MemberChanged(None, view(SUSPECT, generation=0), "not heard of yet"))
    assert made.after(0) == []


def test_a_change_tells_who_saw_what_when_and_why() -> None:
    (change,) = history(ALIVE, DEAD).after(0)
    assert (change.observer, change.subject, change.name, change.time_utc) == (ME, "n3", "n3", 1000.0)
    assert (change.old_status, change.status, change.death_kind) == (ALIVE, DEAD, VerdictKind.DAEMON_GONE)
    assert change.evidence == "from alive to dead"


def test_only_the_newest_changes_are_kept_and_numbers_go_on() -> None:
    made = history(*[ALIVE, SUSPECT] * (CHANGES_KEPT // 2 + 100))
    kept = made.after(0)
    assert len(kept) == CHANGES_KEPT
    assert [change.number for change in kept] == list(range(kept[0].number, kept[0].number + CHANGES_KEPT))
    assert [change.number for change in made.after(kept[-2].number)] == [kept[-1].number]


def test_suspicions_add_up_over_a_storm_of_them() -> None:
    network = GossipNetwork(5, loss=0.4)
    network.run(30.0)
    network.kill_host(4)
    network.run(10.0)
    network.loss = 0.0
    network.run(10.0)
    for number in (1, 2, 3, 5):
        made = StatusHistory(node_id(number), lambda: 0.0)
        for _, change in network.hosts[number].changes:
            made.on_change(change)
        ended = sum(n for what, n in made.counters.items() if what.startswith("suspicions_") and what != "suspicions_opened")
        still_open = sum(network.status(number, other) is SUSPECT for other in network.hosts if other != number)
        assert made.counters["suspicions_opened"] == ended + still_open > 0


def test_the_worst_lag_is_kept_for_a_minute() -> None:
    lag = LoopLag()
    assert (lag.last_s, lag.max_s(0.0)) == (0.0, 0.0)
    lag.note(0.8, 100.0)
    for now in range(101, 200):
        lag.note(0.01, float(now))
        assert lag.last_s == 0.01
        assert lag.max_s(float(now)) == (0.8 if now < 160 else 0.01)


def test_counters_are_grouped_and_none_is_lost() -> None:
    flat = {
        "packets_sent": 10, "packets_received": 9, "bytes_sent": 1000, "bytes_received": 900,
        "dropped_unauthenticated": 2, "not_admitted": 1, "udp_send_101": 4, "suspicions_dead_host_silent": 3,
        "cases_answered": 7, "loop_lag_ms": 1, "loop_lag_max_1m_ms": 55, "hello_timeout": 6,
    }  # fmt: skip
    found = grouped(flat)
    assert found["packets"] == {"sent": 10, "received": 9}
    assert found["bytes"] == {"sent": 1000, "received": 900}
    assert found["drops"] == {"not_admitted": 1, "udp_send_101": 4, "unauthenticated": 2}
    assert found["suspicions"]["dead_host_silent"] == 3 and found["suspicions"]["refuted"] == 0
    assert found["cases"] == {"opened": 0, "answered": 7, "reached_by_others": 0}
    assert found["loop_lag_ms"] == {"last": 1, "max_1m": 55}
    assert found["other"] == {"hello_timeout": 6}
    assert sum(n for group in found.values() for n in group.values()) == sum(flat.values())


def test_what_is_noted_of_oneself_is_told_in_its_place_and_changes_no_status() -> None:
    made = history(MemberStatus.ALIVE, MemberStatus.SUSPECT)
    before = len(made.after(0))
    made.note("me", "the disk of /data is full: no log entries are taken", about="disk")
    (noted,) = made.after(before)
    told = change_object(noted, "me")
    assert (told["kind"], told["text"]) == ("node.disk", "me: the disk of /data is full: no log entries are taken")
    assert (noted.subject, noted.old_status, noted.status) == (ME, MemberStatus.ALIVE, MemberStatus.ALIVE)
