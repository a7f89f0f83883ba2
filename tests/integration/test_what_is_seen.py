"""What people see of the nodes: round trips, who reached whom over a cut, and every death with its evidence on every observer."""

from __future__ import annotations

import re

import pytest

from tests.integration.live_cluster import Cluster, eventually

pytestmark = pytest.mark.testnet


def deaths(cluster: Cluster, observer: int, subject: str) -> list[str]:
    """What a host's events tell of a node's deaths."""
    told = cluster.json(observer, "events")
    return [event["text"] for event in told if event["kind"] == "member.dead" and event["node"] == subject]


def test_round_trips_are_measured_and_a_cut_link_is_told_with_who_still_reaches_the_other(cluster: Cluster) -> None:
    def measured() -> bool:
        rows = cluster.json(1, "node", "rtt")["rows"]
        return len(rows) == 3 and all(found is not None and found > 0 for row in rows for found in row["rtt_ms"].values())

    eventually(measured, "every node to have measured every other")
    assert len(cluster.ok(2, "node", "rtt").splitlines()) == 4
    for row in cluster.nodes(2).values():
        assert row["last_contact_ms"] is not None and row["health"] is not None, row

    one, other = cluster.others(cluster.leader())
    helper = cluster.leader()
    before = {number: len(cluster.json(number, "events")) for number in cluster.net.hosts}
    cluster.net.cut(one, other)
    told = rf"h{one} lost it .* ago: no SYN-ACK; h{helper} reached it \d+ ms ago"

    def explained() -> bool:
        return re.search(told, cluster.ok(one, "node", "inspect", f"h{other}")) is not None

    eventually(explained, f"the words '{told}'")
    eventually(lambda: cluster.nodes(one)[f"h{other}"]["last_contact_ms"] > 2000, "two seconds without contact")
    for number in cluster.net.hosts:
        assert not [e for e in cluster.json(number, "events")[before[number] :] if e["kind"] == "member.dead"]
        assert "dead" not in {row["status"] for row in cluster.nodes(number).values()}


def test_a_voter_whose_link_to_the_leader_is_cut_counts_as_missing_though_gossip_reaches_it(cluster: Cluster) -> None:
    leader = cluster.leader()
    cut_off, other = cluster.others(leader)
    assert cluster.json(leader, "status")["may_not_fail"] == []
    cluster.net.cut(leader, cut_off)
    eventually(
        lambda: cluster.json(leader, "status")["may_not_fail"] == sorted([f"h{leader}", f"h{other}"]),
        "the leader to say that neither it nor the other voter may fail",
    )
    problems = cluster.json(leader, "status")["problems"]
    assert any(f"voter h{cut_off} and the leader do not reach each other" in line for line in problems), problems
    assert {row["status"] for row in cluster.nodes(leader).values()} == {"alive"}
    cluster.net.heal()
    eventually(lambda: cluster.json(leader, "status")["may_not_fail"] == [], "all of them to count again")


def test_a_killed_daemon_is_an_event_with_its_evidence_on_both_others(cluster: Cluster) -> None:
    victim = cluster.others(cluster.leader())[0]
    name, others = f"h{victim}", cluster.others(victim)
    before = {number: len(deaths(cluster, number, name)) for number in others}
    cluster.net.crash_daemon(victim)
    for number in others:
        seen = lambda number=number: len(deaths(cluster, number, name)) > before[number]  # noqa: E731
        eventually(seen, f"the death in the eyes of h{number}")
        text = deaths(cluster, number, name)[-1]
        assert f"h{number} sees that {name} is dead (daemon gone)" in text
        assert "kernel refuses the port" in text
        missing = cluster.json(number, "node", "rtt")["rows"][victim - 1]
        assert missing["reason"] == f"{name} is dead"
        assert cluster.json(number, "node", "inspect", "self")["counters"]["deaths"]["daemon_gone"] > 0
