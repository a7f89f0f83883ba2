"""What a newer program says, an older one refuses in words and survives: hellos, frames, packets, members that know less."""

from __future__ import annotations

import cbor2
import msgspec
import pytest
import trio

from swarm.catalog import snapshot
from swarm.consensus.config import ConsensusConfig
from swarm.drivers.declare import Admitted
from swarm.drivers.link import UPGRADE, check_hello
from swarm.errors import BadMessage, HeldBack, NewerSnapshot
from swarm.membership.messages import decode_message_untrusted as decode_gossip
from swarm.model.command import COMMANDS, SCHEMA_KNOWN, SCHEMA_SINCE, SetReason, Submit, SubmitMany
from swarm.model.generation import GENERATION_MAX
from swarm.model.ids import RequestId, TaskId
from swarm.wire.codec import encode
from swarm.wire.envelope import VERSION, OtherVersion, Sealer
from swarm.wire.frame import PROTOCOL_VERSION, Call, FrameReader, Hello, Message, encode_frame
from swarm.wire.keys import Keyring, gossip_key
from tests.catalog_kit import Log, make_node, make_spec
from tests.drivers.test_replica import NAMES, Rewind, three_nodes
from tests.drivers.test_streams import until_counted
from tests.fakes.loopback_members import CLUSTER, LoopbackMember, connect, introduce, node_id_of, pair

NEWER = PROTOCOL_VERSION + 1


def hello(version: int, number: int = 1) -> Hello:
    return Hello(CLUSTER, node_id_of(number), version, 1, 0)


@pytest.mark.parametrize(("theirs", "who"), [(NEWER, "this node"), (PROTOCOL_VERSION - 1, "it")])
def test_a_hello_of_another_protocol_version_says_which_side_is_to_be_upgraded(theirs: int, who: str) -> None:
    with pytest.raises(BadMessage, match=f"{UPGRADE} {who}"):
        check_hello(hello(theirs), hello(PROTOCOL_VERSION, 2), node_id_of(1))


@pytest.mark.parametrize("generation", [-1, GENERATION_MAX + 1])
def test_a_hello_that_names_no_recovery_generation_is_refused_and_not_followed(generation: int) -> None:
    theirs = msgspec.structs.replace(hello(PROTOCOL_VERSION), recovery_generation=generation)
    with pytest.raises(BadMessage, match="follows no recovery"):
        check_hello(theirs, hello(PROTOCOL_VERSION, 2), node_id_of(1))


async def test_members_of_two_protocol_versions_refuse_each_other_in_words_and_one_version_connects_them() -> None:
    one, two = LoopbackMember(1), LoopbackMember(2)
    two.hello = hello(NEWER, 2)
    two.streams = two.new_streams()
    introduce(one, two)
    async with one.running(), two.running():
        connect(one, two)
        for member in (one, two):
            await until_counted(member.streams.counters, "dial_unauthenticated")
        said = [streams.refusals()[0][1] for streams in (one.streams, two.streams)]
        assert all("version 2" in each and UPGRADE in each for each in said), said
        assert not one.streams.connected(two.node_id)
    async with pair() as (one, two):
        assert one.streams.connected(two.node_id)


async def test_kinds_of_a_newer_program_are_counted_or_answered_with_a_refusal_and_the_stream_stands() -> None:
    async with pair() as (one, two):
        assert one.streams.send(two.node_id, "consensus.yet-to-come", b"x")
        with pytest.raises(BadMessage, match="answers no such call"):
            await one.streams.call(two.node_id, "yet.to-come", b"x", timeout_s=5)
        assert two.streams.counters["messages_unknown_kind"] == 1
        assert one.streams.connected(two.node_id)


def test_fields_appended_by_a_newer_program_are_passed_over() -> None:
    known = [encode(Message("kind", b"payload")), encode(Call(7, "kind", 1000, b"payload"))]
    reader = FrameReader()
    for content in known:
        longer = encode([*cbor2.loads(content), "field of tomorrow"])
        reader.feed(len(longer).to_bytes(4) + longer)
    assert [type(frame) for frame in reader.frames()] == [Message, Call]
    assert encode_frame(Message("kind", b"payload"))[4:] == known[0]


def test_gossip_of_an_unknown_kind_is_a_bad_message_and_nothing_else() -> None:
    with pytest.raises(BadMessage):
        decode_gossip(encode([250, "of tomorrow"]))


def test_a_packet_of_another_version_is_told_apart_from_damage() -> None:
    keyring = Keyring(gossip_key(bytes(32), CLUSTER))
    packet = bytearray(Sealer(CLUSTER, keyring, node_id_of(1), 1).seal(node_id_of(1), b"hello"))
    assert packet[0] == VERSION and OtherVersion.reason != BadMessage.reason
    packet[0] = VERSION + 1
    with pytest.raises(OtherVersion, match=f"version {VERSION + 1}"):
        Sealer(CLUSTER, keyring, node_id_of(2), 1).open_untrusted(bytes(packet))


def test_every_kind_that_a_schema_brought_is_held_back_until_the_last_member_has_declared_it() -> None:
    for (kind, version), since in SCHEMA_SINCE.items():
        log = Log(make_node("n1", schema_known=SCHEMA_KNOWN), make_node("n2", schema_known=since - 1))
        admitted = Admitted(log.catalog, (), lambda nodes: None)
        if kind != "secret.rotate":  # which looks into itself, for the node that it removes
            assert f"needs schema {since}, which n2" in admitted.held_back(kind, version, b"")
            declared = Log(make_node("n1", schema_known=SCHEMA_KNOWN), make_node("n2", schema_known=since))
            assert Admitted(declared.catalog, (), lambda nodes: None).held_back(kind, version, b"") == ""
        assert kind in COMMANDS and 1 < since <= SCHEMA_KNOWN


def test_a_leader_writes_no_kind_and_no_version_that_it_does_not_know_itself() -> None:
    admitted = Admitted(Log(make_node("n1", schema_known=99)).catalog, (), lambda nodes: None)
    assert "newer swarm" in admitted.held_back("task.of-tomorrow", 1, b"")
    assert "newer swarm" in admitted.held_back("task.submit", COMMANDS["task.submit"][0] + 1, b"")
    assert admitted.held_back("task.submit", COMMANDS["task.submit"][0], b"") == ""


async def test_a_follower_sends_no_leader_what_a_member_does_not_know(autojump_clock: trio.testing.MockClock) -> None:
    async with three_nodes() as world:
        leader, follower = await world.leader(), (await world.others())[0]
        sent_before = leader.last_index
        follower._held_back = lambda kind, version, payload: "n2 did not declare to know it"
        with pytest.raises(HeldBack, match="cannot write"):
            await follower.submit(SetReason(TaskId("x"), "y"), request_id=RequestId("r"))
        assert leader.last_index == sent_before
        await leader.submit(SetReason(TaskId("x"), "y"), request_id=RequestId("r"))


def test_a_snapshot_says_which_schema_it_needs_and_one_of_a_newer_schema_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(make_node("n1"))
    log.must(SubmitMany((Submit(TaskId("t1"), make_spec("a")),)))
    newer = log.catalog.snapshot()
    older = Log(make_node("n1"))
    older.submit("b")
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "SCHEMA_KNOWN", SCHEMA_SINCE["task.submit_many", 1] - 1)
        with pytest.raises(NewerSnapshot, match="upgrade this node"):
            older.catalog.restore(newer)
        assert older.catalog.applied_index == 2 and "t-b" in older.catalog.tasks
        older.catalog.restore(older.catalog.snapshot())
    older.catalog.restore(newer)
    assert older.catalog.digest() == log.catalog.digest()


async def test_a_node_that_is_sent_a_snapshot_of_a_newer_schema_says_so_and_lives_on(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(rewind: Rewind, piece: bytes) -> None:
        raise NewerSnapshot("the snapshot is of a newer swarm: upgrade this node")

    async with three_nodes(ConsensusConfig(snapshot_every=50, trailing=10)) as world:
        leader = await world.leader()
        for number in range(120):
            await leader.submit(SetReason(TaskId("x"), "y"), request_id=RequestId(f"r{number}"))
        monkeypatch.setattr(Rewind, "feed", refuse)
        await world.start(NAMES[3])
        await trio.sleep(5)
        late = world.replicas[NAMES[3]]
        assert "upgrade this node" in late.halted and late.applied_index == 0
        with trio.fail_after(1):
            await late.wait_restored(100)  # who starts from such a snapshot comes up all the same, and can say so
        await leader.submit(SetReason(TaskId("x"), "y"), request_id=RequestId("after"))
        await trio.sleep(5)
        assert late.last_index == leader.last_index, "it goes on taking the log"


def test_a_node_that_knows_less_than_every_member_is_not_admitted_and_one_that_knows_as_much_as_the_least_is() -> None:
    log = Log(make_node("n1", schema_known=3), make_node("n2", schema_known=2))
    admitted = Admitted(log.catalog, (), lambda nodes: None)
    assert admitted.too_old(make_node("n3", schema_known=2)) == ""
    assert "knows schema 1, they 2" in admitted.too_old(make_node("n3", schema_known=1))
