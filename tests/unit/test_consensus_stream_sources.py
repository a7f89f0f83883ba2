"""A source that serves a learner too little is left, and not named to it again for a while."""

from __future__ import annotations

import msgspec

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.effects import Send
from swarm.consensus.messages import AppendReply, Heartbeat, Message, Pulled
from swarm.consensus.progress import Progress
from swarm.model.ids import NodeId
from tests.fakes.consensus_cluster import core, founding, stored
from tests.unit.test_consensus_streaming import EASY, Watched, settled


class Lagging(Watched):
    """Counts in how many steps of 250 ms `watched` lacks something."""

    def late_steps(self, watched: str, steps: int) -> int:
        late = 0
        for step in range(steps):
            self.propose(f"step {step} of {self.now:.1f}")
            self.run(0.25)
            late += self.nodes[self.leader()].commit_index - self.nodes[watched].commit_index > 1
        return late


def lagging(voting: str, learning: str, config: ConsensusConfig = EASY) -> Lagging:
    cluster = Lagging(voting, learning, config=config)
    cluster.run(6.0)
    return cluster


def test_a_cut_between_a_learner_and_its_source_makes_it_late_once_and_not_every_time_it_is_sent_there() -> None:
    cluster = lagging("abc", "defgh")
    broken = cluster.source("d")
    cluster.cuts |= {(broken, "d"), ("d", broken)}
    assert cluster.late_steps("d", 16) > 0, "it has to notice"
    assert cluster.late_steps("d", 160) == 0
    assert cluster.source("d") not in ("", broken), "another source serves it as well"


def test_a_learner_that_reaches_no_source_is_sent_to_one_ever_more_rarely() -> None:
    cluster = lagging("abc", "de")
    for other in {*"abce"} - {cluster.leader()}:
        cluster.cuts |= {(other, "d"), ("d", other)}
    first = cluster.late_steps("d", 140)
    cluster.run(40.0)
    later = cluster.late_steps("d", 140)
    assert 0 < later < first, (first, later)


def test_a_source_that_failed_is_named_again_when_that_is_long_ago() -> None:
    config = ConsensusConfig(stream_learners_min=1, stream_avoid_s=20.0)
    cluster = settled("abc", "d", config)
    sources = {*"abc"} - {cluster.leader()}
    first = cluster.source("d")
    cluster.cuts |= {(first, "d"), ("d", first)}
    cluster.propose("lost")
    cluster.run(4.0)
    cluster.cuts.clear()
    cluster.run(config.stream_pause_s + 1.0)
    assert {cluster.source("d")} == sources - {first}
    cluster.crash(cluster.source("d"))
    cluster.run(config.stream_pause_s + config.stream_avoid_s + 5.0)
    assert cluster.source("d") == first


class SlowPath(Watched):
    """What `slow` sends to d takes 800 ms and carries two entries."""

    slow = ""

    def _send(self, name: str, to: str, message: Message) -> None:
        if name == self.slow and to == "d" and isinstance(message, Pulled):
            few = msgspec.structs.replace(message, entries=message.entries[:2])
            self.later(0.8, lambda: self.nodes["d"].on_message(NodeId(name), few, self.local("d")))
            return
        super()._send(name, to, message)


def test_a_learner_on_a_slow_path_to_its_source_is_taken_back_by_the_leader_and_catches_up() -> None:
    cluster = SlowPath("abc", "defgh", config=EASY)
    cluster.run(6.0)
    cluster.slow = cluster.source("d")
    assert cluster.slow
    worst = 0
    for second in range(40):
        for number in range(40):
            cluster.propose(f"{second}.{number}")
        cluster.run(1.0)
        worst = max(worst, cluster.nodes[cluster.leader()].commit_index - cluster.nodes["d"].commit_index)
    assert worst > EASY.learner_lag_max / 2, "it was slow"
    assert worst < 2 * EASY.learner_lag_max
    assert cluster.nodes["d"].commit_index >= cluster.nodes[cluster.leader()].commit_index - 80


def test_many_learners_under_load_blame_nobody() -> None:
    cluster = settled("abc", "defghijkl")
    for _ in range(25):
        for number in range(40):
            cluster.propose(f"{number}")
        cluster.run(0.1)
    assert all(cluster.source(name) and cluster.progress(name).avoided == "" for name in "defghijkl")


def test_a_change_of_source_does_not_make_a_learner_that_is_behind_wait_longer() -> None:
    node = core("d", stored(founding("abc"), term=3))
    node.take_effects()
    for step in range(4):
        source = NodeId("bc"[step % 2])
        node.on_message(NodeId("a"), Heartbeat(3, 0, 1, 1 + step, 9, 3, source, 2), 0.4 * step)
        node.take_effects()
        node.tick(0.4 * step)
    effects = node.take_effects()
    replies = [each.message for each in effects if isinstance(each, Send) and isinstance(each.message, AppendReply)]
    assert replies == [AppendReply(3, 0, 1, False, 0)], "after a second in all it asks the leader"


def test_a_follower_remembers_only_the_last_source_that_failed() -> None:
    progress = Progress(NodeId("d"), 1, 5)
    progress.source = NodeId("b")
    progress.blame_source(100.0, pause_s=10.0, avoid_s=300.0)
    assert progress.avoids(NodeId("b"), 409.0) and not progress.avoids(NodeId("b"), 410.0)
    assert not progress.avoids(NodeId("c"), 101.0)
    assert progress.direct_until == 110.0
    progress.source = NodeId("c")
    progress.blame_source(111.0, pause_s=10.0, avoid_s=300.0)
    assert progress.direct_until == 131.0 and progress.avoids(NodeId("c"), 112.0)
    for now in range(200, 4_000, 300):
        progress.blame_source(float(now), pause_s=10.0, avoid_s=300.0)
    assert progress.direct_until - now == 300.0
