"""Acknowledgements that are lost are asked for again, and only those."""

from __future__ import annotations

import pytest

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.messages import Append, AppendReply, Message
from swarm.consensus.progress import Progress, Way
from swarm.model.ids import NodeId
from tests.fakes.consensus_cluster import Cluster


class Deaf(Cluster):
    """Acknowledgements of `mute` nodes are lost. Counts the appends without entries of everybody."""

    def __init__(self, names: str, others: str = "", config: ConsensusConfig | None = None) -> None:
        self.mute: set[str] = set()
        self.lost = 0
        self.asked: list[tuple[str, str]] = []
        super().__init__(names, others, config=config)
        self.run(6.0)
        self.asked.clear()

    def _send(self, name: str, to: str, message: Message) -> None:
        if isinstance(message, AppendReply) and name in self.mute:
            self.lost += 1
            return
        if isinstance(message, Append) and not message.entries:
            self.asked.append((name, to))
        super()._send(name, to, message)

    def progress(self, name: str) -> Progress:
        leadership = self.nodes[self.leader()]._leadership
        assert leadership is not None
        return leadership.replication.followers[NodeId(name)]

    def others(self) -> set[str]:
        return set(self.nodes) - {self.leader()}


@pytest.mark.parametrize("voters", [1, 2])
def test_an_entry_whose_acknowledgements_are_lost_is_committed_and_known_though_nobody_proposes_another(voters: int) -> None:
    cluster = Deaf("abc", "de")
    cluster.mute = {*sorted(cluster.others() & {*"abc"})[:voters], "d"}
    cluster.propose("quiet from here on")
    cluster.run(0.05)
    assert cluster.lost >= len(cluster.mute)
    cluster.mute = set()
    cluster.run(2.5)
    assert all(cluster.texts(name) == ["quiet from here on"] for name in "abcde")
    assert all(cluster.progress(name).match == cluster.nodes[name].last_index for name in cluster.others())


def test_who_acknowledged_everything_is_asked_nothing() -> None:
    cluster = Deaf("abc", "de")
    for number in range(20):
        cluster.propose(f"{number}")
        cluster.run(0.07)
    cluster.run(3.0)
    assert cluster.asked == []


def test_one_whose_disk_is_slow_is_asked_at_most_once_a_round_and_not_at_all_while_it_stalls() -> None:
    cluster = Deaf("abc")
    slow = sorted(cluster.others())[0]
    cluster.slow_disks.add(slow)
    cluster.propose("slow")
    cluster.run(2.0)
    rounds = 2.0 / cluster.config.heartbeat_s
    assert 0 < len(cluster.asked) <= rounds and {to for _, to in cluster.asked} == {slow}
    assert cluster.progress(slow).match < cluster.nodes[slow].last_index, "nothing is acknowledged that is not on its disk"
    cluster.run(2.0)
    cluster.asked.clear()
    cluster.run(5.0)
    assert cluster.asked == []


def test_a_learner_that_takes_from_a_peer_and_whose_report_is_lost_is_asked_for_it() -> None:
    cluster = Deaf("abc", "def", ConsensusConfig(stream_learners_min=1))
    assert cluster.progress("d").way is Way.STREAM
    cluster.mute = {"d"}
    cluster.propose("reported once")
    cluster.run(1.5)
    assert cluster.lost > 0 and cluster.texts("d") == ["reported once"]
    assert cluster.progress("d").match < cluster.nodes["d"].commit_index
    cluster.mute = set()
    cluster.run(3.0)
    assert cluster.progress("d").match == cluster.nodes["d"].commit_index and cluster.progress("d").way is Way.STREAM


def test_idle_answers_of_learners_that_take_from_peers_do_not_make_the_leader_walk_all_followers() -> None:
    cluster = Deaf("abc", "defgh", ConsensusConfig(stream_learners_min=1))
    assert {cluster.progress(name).way for name in "defgh"} == {Way.STREAM}
    leadership = cluster.nodes[cluster.leader()]._leadership
    assert leadership is not None
    touched: list[float] = []
    leadership.replication._touch = lambda: touched.append(cluster.now)  # type: ignore[method-assign]
    cluster.run(3.0)
    assert touched == [], "an answer that says nothing new changes nothing that has to be sent"
