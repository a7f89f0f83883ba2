"""Learners that take committed entries from a peer instead of the leader."""

from __future__ import annotations

import msgspec
import pytest

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.core import Consensus
from swarm.consensus.effects import Effect, Send
from swarm.consensus.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    Pull,
    Pulled,
    decode_message_untrusted,
    encode_message,
)
from swarm.consensus.progress import Progress, Way
from swarm.consensus.relays import Relays
from swarm.consensus.stream import HOPS_MAX
from swarm.errors import BadMessage, Bug
from swarm.model.entry import KIND_NOOP, Entry
from swarm.model.ids import NodeId
from swarm.wire.codec import decode_untrusted, encode
from tests.fakes.consensus_cluster import MESSAGE_S, Cluster, core, founding, stored, voters

EASY = ConsensusConfig(stream_learners_min=1)
LETTERS = "defghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class Watched(Cluster):
    """Counts what every node sends, by kind, in bytes of payloads and messages."""

    def __init__(self, names: str, others: str, **options: object) -> None:
        self.sent: dict[str, list[tuple[str, Message]]] = {name: [] for name in names + others}
        super().__init__(names, others, **options)  # type: ignore[arg-type]

    def _send(self, name: str, to: str, message: Message) -> None:
        self.sent[name].append((to, message))
        super()._send(name, to, message)

    def forget(self) -> None:
        for sent in self.sent.values():
            sent.clear()

    def appends(self, name: str, to: str) -> list[Append]:
        return [each for at, each in self.sent[name] if at == to and isinstance(each, Append) and each.entries]

    def bytes_of(self, name: str) -> int:
        return sum(len(encode_message(message)) for _, message in self.sent[name])

    def source(self, name: str) -> str:
        taking = self.nodes[name]._state.stream.taking
        return taking.source if taking else ""

    def hops(self, name: str) -> int:
        return self.nodes[name]._state.stream.hops

    def progress(self, name: str) -> Progress:
        leadership = self.nodes[self.leader()]._leadership
        assert leadership is not None
        return leadership.replication.followers[NodeId(name)]

    def write(self, count: int, *, every_s: float = 0.05) -> None:
        for number in range(count):
            self.propose(f"entry {number} " + "x" * 200)
            self.run(every_s)


def settled(voting: str, learning: str, config: ConsensusConfig = EASY, **options: object) -> Watched:
    cluster = Watched(voting, learning, config=config, **options)
    cluster.run(6.0)
    cluster.forget()
    return cluster


def test_learners_take_entries_from_caught_up_peers_and_the_leader_sends_them_none() -> None:
    cluster = settled("abc", "def")
    leader = cluster.leader()
    cluster.write(20)
    cluster.run(0.1)
    for learner in "def":
        assert cluster.source(learner) in {*"abc"} - {leader}
        assert cluster.appends(leader, learner) == []
        assert cluster.texts(learner) == cluster.texts(leader) and len(cluster.texts(learner)) == 20


def test_an_entry_is_there_a_few_messages_after_its_commit() -> None:
    cluster = settled("abc", "def")
    cluster.write(1)
    before = cluster.now
    cluster.propose("soon")
    while not all("soon" in cluster.texts(learner) for learner in "def"):
        cluster.run(MESSAGE_S)
    assert cluster.now - before < 0.02


def test_the_leader_learns_each_second_how_far_they_are() -> None:
    cluster = settled("abc", "def")
    cluster.write(5, every_s=0.01)
    cluster.run(EASY.learner_heartbeat_s + 0.1)
    for learner in "def":
        assert cluster.progress(learner).match == cluster.nodes[cluster.leader()].commit_index
        assert cluster.progress(learner).applied == cluster.nodes[cluster.leader()].commit_index


def test_a_learner_acknowledges_only_what_is_on_its_disk() -> None:
    cluster = settled("abc", "def")
    before = cluster.progress("d").match
    cluster.slow_disks.add("d")
    cluster.write(20)
    cluster.run(1.5)
    assert len(cluster.texts("d")) == 20 and cluster.source("d"), "it takes and applies"
    assert cluster.progress("d").match == before


def test_a_learner_with_a_slow_disk_asks_for_no_more_than_a_window() -> None:
    config = ConsensusConfig(stream_learners_min=1, window_entries=50, append_entries_max=10)
    cluster = settled("abc", "def", config)
    cluster.slow_disks.add("d")
    for _ in range(20):
        for number in range(10):
            cluster.propose(f"{number}")
        cluster.run(0.02)
    node = cluster.nodes["d"]
    assert cluster.source("d") and 50 < node.commit_index - node.durable_index <= 60
    assert cluster.nodes["e"].commit_index > node.commit_index + 100


def test_much_is_acknowledged_before_the_second_is_over_so_that_it_may_become_a_voter_under_load() -> None:
    cluster = settled("abc", "def")
    for _ in range(25):
        for number in range(20):
            cluster.propose(f"{number}")
        cluster.run(0.01)
        leader = cluster.nodes[cluster.leader()]
        for learner in "def":
            assert leader.commit_index - cluster.progress(learner).match <= EASY.learner_lag_max


def test_nobody_is_more_than_three_hops_from_the_leader_and_serves_more_than_its_share() -> None:
    cluster = settled("abc", LETTERS[:14], ConsensusConfig(stream_learners_min=1, stream_fanout=2))
    sources = {learner: cluster.source(learner) for learner in LETTERS[:14]}
    assert max(list(sources.values()).count(source) for source in sources.values() if source) <= 2
    for learner in LETTERS[:14]:
        path = [learner]
        while sources.get(path[-1]):
            path.append(sources[path[-1]])
        assert len(path) <= 3 and len(path) == cluster.hops(learner), "the last of them has it from the leader"
    assert {cluster.hops(learner) for learner in LETTERS[:14]} == {1, 2, 3}
    cluster.write(10)
    cluster.run(0.1)
    assert all(len(cluster.texts(learner)) == 10 for learner in LETTERS[:14])


def test_a_leader_with_many_learners_sends_each_entry_to_few() -> None:
    """More of it in docs/decisions/0018-streaming.md."""
    sent = {}
    for least in (1_000, 4):
        cluster = settled("abc", LETTERS[:10], ConsensusConfig(stream_learners_min=least))
        cluster.write(15, every_s=0.02)
        sent[least] = cluster.bytes_of(cluster.leader())
        cluster.run(0.1)
        assert all(len(cluster.texts(learner)) == 15 for learner in LETTERS[:10])
    assert sent[4] < sent[1_000] / 4, sent


def test_below_three_voters_the_leader_feeds_everybody_itself() -> None:
    cluster = settled("a", "bcd")
    cluster.write(5)
    assert all(cluster.source(learner) == "" and cluster.appends("a", learner) for learner in "bcd")


def test_a_few_learners_are_not_worth_it() -> None:
    cluster = settled("abc", "def", ConsensusConfig())
    cluster.write(5)
    assert all(cluster.source(learner) == "" and cluster.appends(cluster.leader(), learner) for learner in "def")


def test_who_is_to_vote_is_fed_by_the_leader_from_the_moment_that_is_proposed() -> None:
    cluster = settled("abc", "def")
    leader = cluster.leader()
    cluster.nodes[leader].propose_configuration(voters("abcde"), cluster.now, cluster.now)
    cluster.run(0.5)
    cluster.forget()
    cluster.write(5)
    assert [cluster.source(name) for name in "de"] == ["", ""] and cluster.source("f")
    assert all(len(cluster.appends(leader, name)) == 5 for name in "de")


def test_a_learner_whose_source_says_nothing_is_back_with_the_leader_a_second_after_it_knew() -> None:
    cluster = settled("abc", "def")
    source, leader = cluster.source("d"), cluster.leader()
    cluster.cuts |= {(source, "d"), ("d", source)}
    cluster.run(0.5)
    cluster.propose("late")
    cluster.run(EASY.learner_heartbeat_s + EASY.stream_patience_s + 0.1)
    assert cluster.texts("d") == ["late"] and cluster.source("d") == ""
    cluster.forget()
    cluster.write(3)
    assert len(cluster.appends(leader, "d")) == 3, "and stays there for a while"
    cluster.cuts.clear()
    cluster.run(EASY.stream_pause_s + 2.0)
    assert cluster.source("d"), "and is sent to a peer again"


def test_a_lost_answer_is_asked_for_again() -> None:
    cluster = settled("abc", "def")
    source = cluster.source("d")
    cluster.cuts.add((source, "d"))
    cluster.propose("lost")
    cluster.run(0.1)
    cluster.cuts.clear()
    cluster.run(EASY.learner_heartbeat_s + EASY.stream_ask_again_s + 0.1)
    assert cluster.texts("d") == ["lost"] and cluster.source("d") == source


def test_a_source_that_dies_is_replaced() -> None:
    cluster = settled("abc", "def")
    source = cluster.source("d")
    cluster.crash(source)
    cluster.run(4.0)
    cluster.write(3)
    cluster.run(2.5)
    assert cluster.source("d") != source and len(cluster.texts("d")) == 3


def test_a_node_named_by_an_assignment_gets_it_from_the_leader_itself() -> None:
    cluster = settled("abc", "def")
    leader = cluster.leader()
    cluster.cuts |= {(cluster.source("d"), "d")}
    cluster.propose("for d")
    cluster.run(0.01)
    assert cluster.texts("d") == []
    cluster.nodes[leader].deliver([NodeId("d")], cluster.now)
    cluster.run(2 * MESSAGE_S)
    assert cluster.texts("d") == ["for d"]
    assert cluster.progress("d").way is Way.STREAM and cluster.appends(leader, "e") == []


def test_one_that_is_named_often_is_fed_by_the_leader_for_a_while() -> None:
    cluster = settled("abc", "def")
    leader = cluster.leader()
    for _ in range(2):
        cluster.propose("for d")
        cluster.run(0.1)
        cluster.nodes[leader].deliver([NodeId("d")], cluster.now)
    cluster.run(1.2)
    cluster.forget()
    cluster.write(3)
    assert cluster.source("d") == "" and len(cluster.appends(leader, "d")) == 3


def test_after_a_change_of_leader_everybody_waits_for_its_word() -> None:
    cluster = settled("abc", "def")
    first = cluster.leader()
    cluster.crash(first)
    cluster.run(1.9)
    cluster.write(3)
    cluster.run(4.0)
    leader = cluster.leader()
    assert leader != first
    assert all(len(cluster.texts(learner)) == 3 for learner in "def")
    assert all(cluster.source(learner) not in ("", first, leader) for learner in "def")


def test_nodes_of_an_earlier_program_are_neither_named_as_sources_nor_sent_to_any() -> None:
    cluster = settled("abc", "de")
    leadership = cluster.nodes[cluster.leader()]._leadership
    assert leadership is not None
    for name in "abc":
        if name != cluster.leader():
            leadership.replication.followers[NodeId(name)].streams = False
    leadership.replication.plan_streams()
    assert {cluster.progress(name).source for name in "de"} <= {"", "d", "e"}
    for name in "de":
        leadership.replication.followers[NodeId(name)].streams = False
    leadership.replication.plan_streams()
    assert {cluster.progress(name).source for name in "de"} == {""}
    assert {cluster.progress(name).way for name in "de"} <= {Way.PROBE, Way.REPLICATE}


class OldHeartbeat(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """As programs before knew it."""

    term: int
    recovery_generation: int
    generation: int
    round: int
    commit: int
    commit_term: int


class OldHeartbeatReply(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """As programs before knew it."""

    term: int
    recovery_generation: int
    generation: int
    round: int
    last_index: int
    last_term: int
    applied_index: int
    disk_age_ms: int
    disk_full: bool = False


def test_earlier_programs_read_heartbeats_and_answers_and_are_read() -> None:
    new = Heartbeat(3, 0, 1, 7, 5, 2, NodeId("b"), 2)
    assert decode_untrusted(encode(new), OldHeartbeat, bytes_max=1000) == OldHeartbeat(3, 0, 1, 7, 5, 2)
    assert decode_message_untrusted(encode(OldHeartbeat(3, 0, 1, 7, 5, 2))) == Heartbeat(3, 0, 1, 7, 5, 2)
    reply = HeartbeatReply(3, 0, 1, 7, 5, 2, 4, 10, False, True, NodeId("b"))
    assert decode_untrusted(encode(reply), OldHeartbeatReply, bytes_max=1000) == OldHeartbeatReply(3, 0, 1, 7, 5, 2, 4, 10)
    old = decode_message_untrusted(encode(OldHeartbeatReply(3, 0, 1, 7, 5, 2, 4, 10)))
    assert isinstance(old, HeartbeatReply) and not old.streams and not old.source


# ---- one core alone


def noop(index: int, term: int) -> Entry:
    return Entry(index, term, KIND_NOOP, 1, b"\x80", 0, 0.0)


def sends(effects: list[Effect], kind: type[Message]) -> list[Send]:
    return [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, kind)]


def learner(*entries: Entry, term: int = 3) -> Consensus:
    """It holds entry 1 and these, of which entry 1 is committed, and takes entries from b, two hops from the leader a."""
    node = core("d", stored(founding("abc"), *entries, term=term))
    node.take_effects()
    node.on_message(NodeId("a"), Heartbeat(term, 0, 1, 1, 1, 1, NodeId("b"), 2), 0.0)
    return node


def pulled(previous: int, previous_term: int, *entries: Entry, commit: int, term: int = 3) -> Pulled:
    return Pulled(term, 0, 1, previous, previous_term, entries, commit)


def test_a_learner_asks_from_its_commit_index_and_says_so_to_the_leader() -> None:
    effects = learner(noop(2, 2)).take_effects()
    assert sends(effects, Pull) == [Send(NodeId("b"), Pull(3, 0, 1, 1, 1, 2))]
    (reply,) = sends(effects, HeartbeatReply)
    assert isinstance(reply.message, HeartbeatReply) and reply.message.streams and reply.message.source == "b"


def test_it_takes_no_more_than_the_peer_has_committed() -> None:
    node = learner()
    node.on_message(NodeId("b"), pulled(1, 1, noop(2, 3), noop(3, 3), commit=2), 0.0)
    assert (node.commit_index, node.last_index) == (2, 2)


def test_a_peer_that_gives_entries_and_has_committed_none_of_them_is_refused_and_commits_nothing_here() -> None:
    node = learner(*(noop(index, 1) for index in range(2, 9)))
    bad = pulled(7, 1, noop(8, 1), commit=2)
    with pytest.raises(BadMessage):
        decode_message_untrusted(encode_message(bad))
    with pytest.raises(BadMessage):
        node.on_message(NodeId("b"), bad, 0.0)
    assert (node.commit_index, node.last_index) == (1, 8)
    assert decode_message_untrusted(encode_message(pulled(7, 1, commit=0))) == pulled(7, 1, commit=0), "a refusal is none"


def test_an_uncommitted_tail_gives_way_and_what_is_committed_never() -> None:
    node = learner(noop(2, 2), noop(3, 2))
    node.on_message(NodeId("b"), pulled(1, 1, noop(2, 3), commit=2), 0.0)
    assert (node.commit_index, node.last_index, node.term_at(2)) == (2, 2, 3)
    with pytest.raises(Bug):
        node.on_message(NodeId("b"), pulled(1, 1, noop(2, 1), noop(3, 3), commit=3), 0.0)


def test_entries_that_do_not_go_on_from_its_log_are_not_taken() -> None:
    node = learner(noop(2, 2))
    for previous, term in ((2, 3), (5, 3)):
        node.on_message(NodeId("b"), pulled(previous, term, noop(previous + 1, 3), commit=previous + 1), 0.0)
    assert (node.commit_index, node.last_index) == (1, 2)


def test_a_peer_is_no_sign_of_life_of_the_leader_and_enters_no_term() -> None:
    node = learner()
    contact, until = node.leader_contact, node._state.promise.until
    node.on_message(NodeId("b"), pulled(1, 1, noop(2, 3), commit=2), 0.5)
    assert (node.leader_contact, node._state.promise.until, node.commit_index) == (contact, until, 2)
    node.on_message(NodeId("b"), pulled(2, 3, noop(3, 4), commit=3, term=4), 0.5)
    node.on_message(NodeId("b"), Pull(4, 0, 1, 2, 3, 3), 0.5)
    assert (node.term, node.commit_index, node.last_index) == (3, 2, 2)
    node.on_message(NodeId("b"), pulled(2, 3, noop(3, 3), commit=3, term=2), 0.5)
    assert node.last_index == 2


def test_only_the_source_the_leader_named_is_listened_to() -> None:
    node = learner()
    node.on_message(NodeId("c"), pulled(1, 1, noop(2, 3), commit=2), 0.0)
    assert node.last_index == 1
    node.on_message(NodeId("a"), Heartbeat(3, 0, 1, 2, 1, 1), 0.0)
    node.on_message(NodeId("b"), pulled(1, 1, noop(2, 3), commit=2), 0.0)
    assert node.last_index == 1, "and nobody once the leader names none"


def test_a_voter_takes_nothing() -> None:
    node = core("b", stored(founding("abc"), term=3))
    node.take_effects()
    node.on_message(NodeId("a"), Heartbeat(3, 0, 1, 1, 1, 1, NodeId("c"), 2), 0.0)
    node.on_message(NodeId("c"), pulled(1, 1, noop(2, 3), commit=2), 0.0)
    effects = node.take_effects()
    assert sends(effects, Pull) == [] and node.last_index == 1


def test_a_source_that_cannot_serve_says_so_and_the_learner_is_with_the_leader_at_once() -> None:
    node = learner()
    node.take_effects()
    node.on_message(NodeId("b"), pulled(1, 1, commit=0), 0.0)
    assert sends(node.take_effects(), AppendReply) == [Send(NodeId("a"), AppendReply(3, 0, 1, False, 1))]


def source(*entries: Entry, commit: int) -> Consensus:
    """A voter that has all of these, up to `commit` committed."""
    node = core("b", stored(founding("abc"), *entries, term=3))
    held = (founding("abc"), *entries)
    node.on_message(NodeId("a"), Heartbeat(3, 0, 1, 1, commit, held[commit - 1].term), 0.0)
    node.take_effects()
    return node


def answers(node: Consensus, pull: Pull) -> list[Message]:
    node.on_message(NodeId("e"), pull, 0.0)
    return [send.message for send in sends(node.take_effects(), Pulled)]


def test_a_source_gives_what_it_has_committed_and_waits_for_more() -> None:
    node = source(noop(2, 2), noop(3, 3), noop(4, 3), commit=3)
    assert answers(node, Pull(3, 0, 1, 1, 1, 2)) == [pulled(1, 1, noop(2, 2), noop(3, 3), commit=3)]
    assert answers(node, Pull(3, 0, 1, 3, 3, 2)) == []
    node.on_message(NodeId("a"), Heartbeat(3, 0, 1, 0, 4, 3), 0.0)
    assert [send.message for send in sends(node.take_effects(), Pulled)] == [pulled(3, 3, noop(4, 3), commit=4)]


@pytest.mark.parametrize("pull", [Pull(3, 0, 1, 2, 1, 2), Pull(3, 0, 1, 1, 1, 1), Pull(3, 0, 1, 1, 1, 4)])
def test_it_serves_nobody_whose_log_does_not_meet_who_is_as_near_or_who_is_too_far(pull: Pull) -> None:
    node = source(noop(2, 2), noop(3, 3), commit=3)
    assert answers(node, pull) == [Pulled(3, 0, 1, pull.index, pull.index_term, (), 0)]


def test_a_node_that_takes_itself_serves_only_those_further_from_the_leader() -> None:
    node = learner()
    node.on_message(NodeId("b"), pulled(1, 1, noop(2, 3), commit=2), 0.0)
    node.take_effects()
    assert answers(node, Pull(3, 0, 1, 1, 1, 2)) == [Pulled(3, 0, 1, 1, 1, (), 0)]
    assert answers(node, Pull(3, 0, 1, 1, 1, 3)) == [pulled(1, 1, noop(2, 3), commit=2)]


def test_with_a_new_term_nobody_waits_any_more() -> None:
    node = source(noop(2, 2), commit=2)
    assert answers(node, Pull(3, 0, 1, 2, 2, 2)) == []
    node.on_message(NodeId("c"), Heartbeat(4, 0, 1, 1, 2, 2), 0.0)
    node.on_message(NodeId("c"), Append(4, 0, 1, 2, 2, (noop(3, 4),), 3), 0.0)
    assert node.commit_index == 3 and sends(node.take_effects(), Pulled) == []


def test_three_hundred_learners_are_fed_by_few_and_keep_their_sources() -> None:
    cluster = settled("abc", "d")
    state = cluster.nodes[cluster.leader()]._state
    followers = {}
    for name in [*sorted({*"abc"} - {cluster.leader()}), *(f"n{number:03}" for number in range(300))]:
        followers[NodeId(name)] = progress = Progress(NodeId(name), 1, state.log.last_index)
        progress.hear(1, state.log.last_index, state.now)
        progress.acknowledge(state.log.last_index)
        progress.streams = True
    plan = Relays(state, followers).plan()
    direct = [node_id for node_id in followers if node_id not in plan]
    assert len(direct) <= 2 + 300 // 73 + 1, "whom the leader feeds serves eight, and each of these eight"
    for node_id, (source, hops) in plan.items():
        assert hops == (plan[source][1] if source in plan else 1) + 1 <= HOPS_MAX
        followers[node_id].send_to(source, hops)
    assert Relays(state, followers).plan() == plan
    gone = next(source for source, _ in plan.values())
    followers[gone].last_contact = float("-inf")
    again = Relays(state, followers).plan()
    assert gone not in {source for source, _ in again.values()}
    moved = {node_id for node_id in again if again[node_id] != plan.get(node_id)}
    assert len(moved) <= 8 * 9, "only those below it"
