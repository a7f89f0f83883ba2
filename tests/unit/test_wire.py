"""Tokens, keys, envelopes, frames and addresses: the sentences of their pages, one by one."""

from __future__ import annotations

import pytest

from swarm.drivers.calls import error_of
from swarm.errors import BadMessage, Unauthenticated, UsageError
from swarm.model.ids import ClusterId, NodeId
from swarm.wire import envelope, frame, keys
from swarm.wire.address import format_address, parse_address
from swarm.wire.boot import (
    Greet,
    Greeting,
    Join,
    Refused,
    Welcome,
    decode_question_untrusted,
    decode_reply_untrusted,
    encode_boot,
)
from swarm.wire.envelope import Replayed, Sealer, UnknownKey
from swarm.wire.frame import Failure
from swarm.wire.keys import Keyring
from swarm.wire.rejoin import decode_recall_reply_untrusted
from swarm.wire.token import new_token, parse_token
from tests.fakes.loopback_members import node_of

CLUSTER, OTHER_CLUSTER = ClusterId("ab" * 16), ClusterId("cd" * 16)
ONE, TWO = NodeId("11" * 16), NodeId("22" * 16)
OLD, NEW = bytes(32), bytes([1]) * 32


def sealer(sender: NodeId, keyring: Keyring = Keyring(OLD), cluster: ClusterId = CLUSTER, generation: int = 1) -> Sealer:  # noqa: B008
    made = Sealer(cluster, keyring, sender, generation)
    for other in (ONE, TWO):
        made.prove(other, 0)
    return made


def test_a_new_token_is_63_characters_without_padding() -> None:
    token = new_token(lambda count: bytes(range(count)))
    assert token.startswith("swarm1-") and len(token) == 63 and "=" not in token
    assert parse_token(token) == bytes(range(32))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "empty"),
        ("docker swarm join", "does not start with 'swarm1-'"),
        ("swarm1-abc", "3 characters after 'swarm1-' instead of 56"),
        ("swarm1-" + "1" * 56, "a character that no token has"),
        ("swarm1-" + "a" * 56, "checksum does not match"),
    ],
)
def test_a_bad_token_says_what_is_wrong(text: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_token(text)
    assert cause in caught.value.cause and caught.value.hint


def test_each_purpose_and_each_cluster_has_keys_of_its_own() -> None:
    secret = bytes(range(32))
    authorities = [keys.authority_key(secret, salt) for salt in (keys.FOUND_SALT, keys.cluster_salt(CLUSTER), bytes(16))]
    scalars = {key.private_numbers().private_value for key in authorities}
    symmetric = {keys.gossip_key(secret, CLUSTER), keys.gossip_key(secret, OTHER_CLUSTER)}
    assert len(scalars) == 3 and len(symmetric) == 2


def test_the_authority_is_the_same_on_every_node() -> None:
    numbers = [keys.authority_key(bytes(32), keys.FOUND_SALT).private_numbers().private_value for _ in range(2)]
    assert numbers[0] == numbers[1]


def test_a_packet_of_another_cluster_does_not_open() -> None:
    packet = sealer(ONE, cluster=OTHER_CLUSTER).seal(ONE, b"hello")
    with pytest.raises(Unauthenticated):
        sealer(TWO).open_untrusted(packet)


def test_a_packet_under_an_unknown_key_says_so() -> None:
    packet = sealer(ONE, Keyring(NEW)).seal(ONE, b"hello")
    with pytest.raises(UnknownKey):
        sealer(TWO).open_untrusted(packet)


def test_a_packet_opens_once() -> None:
    packet, two = sealer(ONE).seal(ONE, b"hello"), sealer(TWO)
    two.open_untrusted(packet)
    with pytest.raises(Replayed):
        two.open_untrusted(packet)


def test_a_daemon_that_hears_of_a_later_start_of_its_own_seals_as_that_one_and_is_heard() -> None:
    behind, two = sealer(ONE, generation=3), sealer(TWO)
    two.open_untrusted(sealer(ONE, generation=7).seal(ONE, b"from the copy of the data folder"))
    with pytest.raises(Replayed):
        two.open_untrusted(behind.seal(ONE, b"hello"))
    behind.advance(8)
    assert two.open_untrusted(behind.seal(ONE, b"hello")) == (ONE, b"hello")
    behind.advance(2)
    assert two.open_untrusted(behind.seal(ONE, b"never backwards")) == (ONE, b"never backwards")


def test_a_node_does_not_take_its_own_packet() -> None:
    one = sealer(ONE)
    with pytest.raises(Replayed):
        one.open_untrusted(one.seal(ONE, b"hello"))


def test_a_restarted_sender_is_ahead_of_its_former_self() -> None:
    two, former, present = sealer(TWO), sealer(ONE, generation=1), sealer(ONE, generation=2)
    late = former.seal(ONE, b"late")
    for _ in range(2_000):
        two.open_untrusted(former.seal(ONE, b""))
    assert two.open_untrusted(present.seal(ONE, b"new")) == (ONE, b"new")
    with pytest.raises(Replayed):
        two.open_untrusted(late)


def test_a_packet_cannot_be_relabelled_as_another_senders() -> None:
    packet = bytearray(sealer(ONE).seal(ONE, b"hello"))
    other, two = NodeId("33" * 16), sealer(TWO)
    packet[5:21] = bytes.fromhex(other)
    two.prove(other, 0)
    with pytest.raises(Unauthenticated, match="does not open"):
        two.open_untrusted(bytes(packet))


def test_rotation_opens_both_keys_while_it_lasts_and_remembers_what_was_seen() -> None:
    one, two = sealer(ONE), sealer(TWO)
    before = one.seal(ONE, b"before")
    two.open_untrusted(before)
    two.set_keyring(Keyring(OLD, (NEW,)))
    one.set_keyring(Keyring(NEW, (OLD,)))
    assert two.open_untrusted(one.seal(ONE, b"after")) == (ONE, b"after")
    with pytest.raises(Replayed):
        two.open_untrusted(before)
    two.set_keyring(Keyring(NEW))
    with pytest.raises(UnknownKey):
        two.open_untrusted(before)


def test_a_reader_that_restarts_takes_nothing_recorded_before_whatever_the_key() -> None:
    one = sealer(ONE)
    recorded = [one.seal(ONE, b"%d" % number) for number in range(5)]
    one.set_keyring(Keyring(NEW, (OLD,)))
    recorded += [one.seal(ONE, b"%d" % number) for number in range(5)]
    restarted = Sealer(CLUSTER, Keyring(NEW, (OLD,)), TWO, 2)
    for packet in recorded:
        with pytest.raises(envelope.Unproven):
            restarted.open_untrusted(packet)
    restarted.prove(ONE, one.counter)
    for packet in recorded:
        with pytest.raises(Replayed):
            restarted.open_untrusted(packet)
    assert restarted.open_untrusted(one.seal(ONE, b"fresh")) == (ONE, b"fresh")
    for packet in recorded:
        with pytest.raises(Replayed):
            restarted.open_untrusted(packet)


def test_a_holder_of_the_old_key_cannot_push_the_window_of_the_new_one_ahead() -> None:
    one, two = sealer(ONE, Keyring(NEW, (OLD,))), sealer(TWO, Keyring(NEW, (OLD,)))
    forged = Sealer(CLUSTER, Keyring(OLD), ONE, 2**20)
    two.open_untrusted(forged.seal(ONE, b"forged"))
    assert two.open_untrusted(one.seal(ONE, b"true")) == (ONE, b"true")


def test_a_proof_never_lowers_the_floor_and_must_be_a_counter() -> None:
    one, two = sealer(ONE), sealer(TWO)
    packet = one.seal(ONE, b"hello")
    two.prove(ONE, one.counter)
    two.prove(ONE, 0)
    with pytest.raises(Replayed):
        two.open_untrusted(packet)
    for wrong in (-1, 1 << 64):
        with pytest.raises(BadMessage):
            two.prove(ONE, wrong)


def test_the_table_of_senders_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "SENDERS_MAX", 8)
    two = sealer(TWO)
    for number in range(20):
        sender = NodeId(f"{number + 100:032x}")
        two.prove(sender, 0)
        two.open_untrusted(sealer(sender).seal(sender, b""))
    assert len(two._senders) == 8


def test_a_frame_over_the_limit_is_refused_by_its_length_alone() -> None:
    reader = frame.FrameReader()
    reader.feed((frame.HELLO_BYTES_MAX + 1).to_bytes(4))
    with pytest.raises(BadMessage, match="at most 1024"):
        reader.next_frame()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.77.0.11", ("10.77.0.11", 4747)),
        ("10.77.0.11:9", ("10.77.0.11", 9)),
        ("node-1.example", ("node-1.example", 4747)),
        ("node_1", ("node_1", 4747)),
        (f"{'a' * 63}.b", (f"{'a' * 63}.b", 4747)),
        ("[fd00::1]:80", ("fd00::1", 80)),
        ("[fd00::1]", ("fd00::1", 4747)),
        ("fd00::1", ("fd00::1", 4747)),
    ],
)
def test_addresses_are_read_as_people_write_them(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected
    assert parse_address(format_address(*expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", ":4747", "host:", "host:0", "host:65536", "a b", "[fd00::1]x", "host:٣",
        "a..b", ".a", "-a", f"{'a' * 64}.b", "a." * 126 + "ab",
    ],
)  # fmt: skip
def test_a_bad_address_is_named(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    "address",
    [
        "", "a..b:4747", "h1:4747", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:04747", " 10.0.0.1:4747", "fd00::1",
        "10.0.0.1:4747\nINFO", "[fe80::1%\0]:1",
    ],
)  # fmt: skip
def test_a_node_that_does_not_say_where_it_is_is_no_node(address: str) -> None:
    """Whoever has the token could otherwise have every member dial what no resolver takes."""
    good = node_of(1, "10.0.0.1:4747")
    assert decode_question_untrusted(encode_boot(Join(1, good))) == Join(1, good)
    assert decode_question_untrusted(encode_boot(Join(1, node_of(1, "[fd00::1]:4747"))))
    bad = node_of(1, address)
    for message, decode in (
        (Join(1, bad), decode_question_untrusted),
        (Greet(1, bad, (bad.id,)), decode_question_untrusted),
        (Greeting(1, bad, (bad.id,), True), decode_reply_untrusted),
        (Welcome(CLUSTER, 0, (good, bad)), decode_reply_untrusted),
    ):
        with pytest.raises(BadMessage, match="ip:port"):
            decode(encode_boot(message))


HOSTILE = "no\x1b[2J\n2026-01-01 INFO swarm.node: all is well\u2028" + "x" * 5_000


def test_what_another_node_says_is_one_printable_line_and_not_long() -> None:
    refused = Refused("conflict\r", HOSTILE, HOSTILE, HOSTILE)
    for said in (decode_reply_untrusted(encode_boot(refused)), decode_recall_reply_untrusted(encode_boot(refused))):
        assert isinstance(said, Refused) and said.message.startswith("no?[2J?2026") and said.message.endswith("x…")
        assert all(each.isprintable() and len(each) <= 500 for each in (said.code, said.message, said.cause, said.hint))
    for family in ("operator", "peer"):
        error = error_of(Failure(1, family, "conflict", HOSTILE, HOSTILE, HOSTILE))
        assert str(error).isprintable() and len(str(error)) <= 4_000
